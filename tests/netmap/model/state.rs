//! The model: what there is, and what goes when nobody needs it any more.

use std::collections::BTreeMap;

use vtnetd::netmap::kring::Counts;
use vtnetd::netmap::mem::PoolLayout;
use vtnetd::netmap::port::Direction;
use vtnetd::netmap::rings::Shape;

use super::region::Region;
use super::ring::Ring;
use super::switch::Switch;

pub type PortKey = u32;
pub type RingKey = u32;

/// How long a switch's port lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// While somebody uses it.
    Used,
    /// Until it is deleted.
    Persistent,
}

/// What a port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Vale {
        life: Life,
        /// Its switch, and its name there.
        place: Option<(String, String)>,
        /// Another one; then it joins them, and nobody can have its rings.
        second: Option<(String, String)>,
    },
    Pipe {
        parent: PortKey,
        id: String,
        master: bool,
        twin: PortKey,
    },
    Monitor {
        parent: PortKey,
        epoch: u32,
        flags: u64,
    },
    GuestMonitor {
        switch: String,
        /// Which of those on it.
        member: u32,
        flags: u64,
    },
    Null,
}

/// Where a ring is while somebody has it bound.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub ring: Option<RingKey>,
    pub users: u32,
    pub exclusive: bool,
    /// Who has copies of its frames.
    pub copies: Vec<(PortKey, RingKey)>,
    /// Who has its buffers, one after the other.
    pub chain: Vec<(PortKey, RingKey)>,
}

#[derive(Debug)]
pub struct Port {
    pub name: String,
    pub kind: Kind,
    pub region: u32,
    pub shape: Shape,
    tx: Vec<Place>,
    rx: Vec<Place>,
    /// Registrations.
    pub active: u32,
    /// How often the last of them has gone.
    pub epoch: u32,
    /// Bytes of virtio-net header.
    pub header: usize,
    /// What rings that are gone have counted, and frames for rings that were
    /// not there.
    pub gone: Counts,
    pub unbound: u64,
}

impl Port {
    pub fn new(name: &str, kind: Kind, region: u32, shape: Shape) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            region,
            shape,
            tx: vec![Place::default(); shape.tx_rings.into()],
            rx: vec![Place::default(); shape.rx_rings.into()],
            active: 0,
            epoch: 0,
            header: 0,
            gone: Counts::default(),
            unbound: 0,
        }
    }

    pub fn places(&self, direction: Direction) -> &[Place] {
        match direction {
            Direction::Tx => &self.tx,
            Direction::Rx => &self.rx,
        }
    }

    pub fn all_places(&self) -> impl Iterator<Item = &Place> {
        self.tx.iter().chain(&self.rx)
    }

    fn all_places_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        self.tx.iter_mut().chain(&mut self.rx)
    }

    pub fn place(&self, direction: Direction, at: usize) -> &Place {
        &self.places(direction)[at]
    }

    pub fn place_mut(&mut self, direction: Direction, at: usize) -> &mut Place {
        match direction {
            Direction::Tx => &mut self.tx[at],
            Direction::Rx => &mut self.rx[at],
        }
    }

    /// Which of its rings this one is.
    pub fn index_of(&self, direction: Direction, ring: RingKey) -> usize {
        let mut places = self.places(direction).iter();
        places.position(|place| place.ring == Some(ring)).unwrap()
    }
}

/// One direction of a pipe, one ring of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkKey {
    pub sender: PortKey,
    pub receiver: PortKey,
    pub index: usize,
}

#[derive(Debug)]
pub struct Link {
    pub tx: RingKey,
    pub rx: RingKey,
    /// The tails that the rings have from their next syncs on.
    pub tx_tail: u32,
    pub rx_tail: u32,
}

/// What one descriptor has bound.
#[derive(Debug)]
pub struct Client {
    pub port: PortKey,
    tx: Vec<usize>,
    rx: Vec<usize>,
    pub flags: u64,
    /// The first extra buffer, and where the `netmap_if` is.
    pub extra_head: u32,
    pub offset: u64,
    /// What it waits for, and whether it was woken.
    pub armed: u8,
    pub woken: bool,
}

impl Client {
    pub fn new(port: PortKey, [tx, rx]: [Vec<usize>; 2], flags: u64) -> Self {
        Self {
            port,
            tx,
            rx,
            flags,
            extra_head: 0,
            offset: 0,
            armed: 0,
            woken: false,
        }
    }

    pub fn bound(&self, direction: Direction) -> &[usize] {
        match direction {
            Direction::Tx => &self.tx,
            Direction::Rx => &self.rx,
        }
    }
}

/// Everything there is.
#[derive(Debug)]
pub struct Model {
    pub global: [PoolLayout; 3],
    pub regions: BTreeMap<u32, Region>,
    pub ports: BTreeMap<PortKey, Port>,
    pub rings: BTreeMap<RingKey, Ring>,
    pub links: BTreeMap<LinkKey, Link>,
    pub clients: Vec<Option<Client>>,
    pub switches: Vec<Option<Switch>>,
    /// Who each guest is.
    pub guests: [u32; super::steps::GUESTS],
    last_key: u32,
}

impl Model {
    pub fn new(clients: usize, global: [PoolLayout; 3]) -> Self {
        Self {
            global,
            regions: BTreeMap::new(),
            ports: BTreeMap::new(),
            rings: BTreeMap::new(),
            links: BTreeMap::new(),
            clients: (0..clients).map(|_| None).collect(),
            switches: Vec::new(),
            guests: Default::default(),
            last_key: 0,
        }
    }

    pub fn new_key(&mut self) -> u32 {
        self.last_key += 1;
        self.last_key
    }

    /// The link that a ring of a pipe's end is half of.
    pub fn link_of(&self, port: PortKey, direction: Direction, index: usize) -> LinkKey {
        let Kind::Pipe { twin, .. } = self.ports[&port].kind else {
            panic!("no pipe");
        };
        let (sender, receiver) = match direction {
            Direction::Tx => (port, twin),
            Direction::Rx => (twin, port),
        };
        LinkKey {
            sender,
            receiver,
            index,
        }
    }

    /// A monitor whose port everybody has left since, or is gone.
    pub fn is_orphan(&self, port: PortKey) -> bool {
        match &self.ports[&port].kind {
            Kind::Monitor { parent, epoch, .. } => self.ports[parent].epoch != *epoch,
            Kind::GuestMonitor { switch, member, .. } => self
                .switch(switch)
                .is_none_or(|one| !one.has_member(*member)),
            _ => false,
        }
    }

    /// The client closes its descriptor.
    pub fn close(&mut self, client: usize) {
        let Some(client) = self.clients[client].take() else {
            return;
        };
        let region = self.ports[&client.port].region;
        let memory = self.regions.get_mut(&region).unwrap();
        let mut extra = client.extra_head;
        // The list ends where it leads to what is no buffer in use.
        while memory.is_buffer(extra) {
            let next = memory.link(extra);
            if !memory.give(extra) {
                break;
            }
            extra = next;
        }
        memory.interfaces -= 1;
        memory.tidy();
        for direction in [Direction::Rx, Direction::Tx] {
            for &at in client.bound(direction) {
                self.unbind(client.port, direction, at);
            }
        }
        self.leave(client.port);
        self.sweep();
    }

    fn unbind(&mut self, port: PortKey, direction: Direction, at: usize) {
        let owner = self.ports.get_mut(&port).unwrap();
        let place = owner.place_mut(direction, at);
        place.users -= 1;
        if place.users > 0 {
            return;
        }
        place.exclusive = false;
        let ring = place.ring.take().unwrap();
        if let Kind::Pipe { .. } = owner.kind {
            // The pipe keeps it.
            return;
        }
        owner.gone.add(&self.rings[&ring].counts);
        for port in self.ports.values_mut() {
            for place in port.all_places_mut() {
                place.copies.retain(|(_, one)| *one != ring);
                place.chain.retain(|(_, one)| *one != ring);
            }
        }
        self.free_ring(ring);
    }

    /// A ring goes, and the buffers with it that its slots name.
    fn free_ring(&mut self, ring: RingKey) {
        let ring = self.rings.remove(&ring).unwrap();
        let region = self.regions.get_mut(&ring.region).unwrap();
        for slot in &ring.slots {
            region.give(slot.buf_idx);
        }
        region.rings -= 1;
        region.tidy();
    }

    fn leave(&mut self, port: PortKey) {
        let port = self.ports.get_mut(&port).unwrap();
        port.active -= 1;
        if port.active == 0 {
            port.epoch += 1;
            for place in port.all_places_mut() {
                place.copies.clear();
                place.chain.clear();
            }
        }
    }

    /// Somebody registered the port, or it is below or beside one that is.
    fn is_needed(&self, key: PortKey) -> bool {
        let port = &self.ports[&key];
        let used = |key: PortKey| {
            let monitored = self
                .ports
                .values()
                .any(|one| matches!(one.kind, Kind::Monitor { parent, .. } if parent == key));
            self.ports[&key].active > 0 || monitored
        };
        match &port.kind {
            Kind::Pipe { twin, .. } => used(key) || used(*twin),
            Kind::Vale { life, .. } => {
                *life == Life::Persistent || used(key) || self.has_pipes(key)
            }
            _ => port.active > 0,
        }
    }

    pub fn has_pipes(&self, key: PortKey) -> bool {
        let mut ports = self.ports.values();
        ports.any(|one| matches!(one.kind, Kind::Pipe { parent, .. } if parent == key))
    }

    /// What nobody needs is gone.
    pub fn sweep(&mut self) {
        while let Some(key) = self.ports.keys().copied().find(|key| !self.is_needed(*key)) {
            if let Kind::Pipe { twin, .. } = self.ports[&key].kind {
                let mine = |link: &LinkKey| [link.sender, link.receiver].contains(&key);
                let links: Vec<_> = self.links.keys().copied().filter(mine).collect();
                for link in links {
                    self.unlink(link);
                }
                self.ports.remove(&twin);
            }
            let port = self.ports.remove(&key).unwrap();
            if let Kind::Vale {
                place: Some((switch, name)),
                ..
            } = &port.kind
            {
                self.off_switch(switch, name);
            }
            self.sweep_switches();
        }
        let ports = &self.ports;
        self.regions
            .retain(|key, _| ports.values().any(|port| port.region == *key));
    }

    /// Each buffer of the two rings goes once: what was sent and not released
    /// is in the receiver's slots.
    fn unlink(&mut self, link: LinkKey) {
        let Link {
            tx, rx, rx_tail, ..
        } = self.links.remove(&link).unwrap();
        let ring = self.ring(rx);
        let sent = ring.range(ring.hwcur, rx_tail);
        for at in 0..u32::try_from(self.ring(rx).slots.len()).unwrap() {
            let empty = if sent.contains(&at) { tx } else { rx };
            self.ring_mut(empty).slot_mut(at).buf_idx = 0;
        }
        self.free_ring(tx);
        self.free_ring(rx);
    }
}
