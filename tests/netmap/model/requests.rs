//! The model of the requests that bind nothing, and of poll(2).

use nix::errno::Errno;
use nix::poll::PollFlags;
use vtnetd::netmap::abi::nmreq::{NR_DO_RX_POLL, NR_NO_TX_POLL};
use vtnetd::netmap::mem::GLOBAL_ID;
use vtnetd::netmap::name::switch_port;
use vtnetd::netmap::port::Direction;
use vtnetd::netmap::rings::Shape;

use super::ports::Ask;
use super::ring::{FRAMES, ROOM};
use super::state::{Kind, Life, Model, PortKey};

const IN: PollFlags = PollFlags::POLLIN.union(PollFlags::POLLRDNORM);
const OUT: PollFlags = PollFlags::POLLOUT.union(PollFlags::POLLWRNORM);

/// A port of a switch, by number; 255: no such.
pub type Listed = (u16, u32, String);

impl Model {
    /// Shape and region of a port; one that is made for it goes again.
    pub fn facts(&mut self, name: &str, mem: u16) -> Result<(Shape, Option<u16>), Errno> {
        let ask = Ask {
            mem,
            ..Ask::new(name)
        };
        let found = self.find(&ask, true).map(|key| {
            let port = &self.ports[&key];
            (port.shape, self.regions[&port.region].id)
        });
        self.sweep();
        found
    }

    /// Whether there is a region of that id; 0 is the global one.
    pub fn region_exists(&mut self, id: u16) -> Result<u16, Errno> {
        let id = if id == 0 { GLOBAL_ID } else { id };
        let found = self.region_of_id(id);
        self.sweep();
        found.map(|_| id)
    }

    pub fn header(&mut self, name: &str) -> Result<u32, Errno> {
        let found = self.find(&Ask::new(name), false);
        let found = found.map(|key| u32::try_from(self.ports[&key].header).unwrap());
        self.sweep();
        found
    }

    pub fn set_header(&mut self, name: &str, len: u32) -> Result<(), Errno> {
        if ![0, 10, 12].contains(&len) {
            return Err(Errno::EINVAL);
        }
        let key = self.on_switch(name).ok_or(Errno::ENXIO)?;
        self.ports.get_mut(&key).unwrap().header = len as usize;
        Ok(())
    }

    pub fn new_interface(&mut self, ask: &Ask) -> Result<PortKey, Errno> {
        let exists = self.port_named(&ask.name).is_some() && !ask.name.starts_with("vale");
        let made = match exists {
            true => Err(Errno::EEXIST),
            false => self.interface(ask, Life::Persistent),
        };
        self.sweep();
        made
    }

    /// The persistent port of that name, not that of a switch.
    fn persistent(&self, name: &str, missing: Errno) -> Result<PortKey, Errno> {
        let is_name = !name.contains([':', '{', '}']);
        let key = self.port_named(name).filter(|_| is_name).ok_or(missing)?;
        match self.is_persistent(key) {
            true => Ok(key),
            false => Err(Errno::EINVAL),
        }
    }

    /// Somebody has registered it.
    fn is_active(&self, key: PortKey) -> bool {
        self.ports[&key].active > 0
    }

    fn is_attached(&self, key: PortKey) -> bool {
        matches!(&self.ports[&key].kind, Kind::Vale { place: Some(_), .. })
    }

    pub fn delete_interface(&mut self, name: &str) -> Result<(), Errno> {
        let key = self.persistent(name, Errno::ENXIO)?;
        let mut ports = self.ports.values();
        let monitored =
            ports.any(|one| matches!(one.kind, Kind::Monitor { parent, .. } if parent == key));
        if self.is_active(key) || self.is_attached(key) || self.has_pipes(key) || monitored {
            return Err(Errno::EBUSY);
        }
        if let Kind::Vale { life, .. } = &mut self.ports.get_mut(&key).unwrap().kind {
            *life = Life::Used;
        }
        self.sweep();
        Ok(())
    }

    pub fn attach_interface(&mut self, name: &str, mem: u16) -> Result<u8, Errno> {
        let (switch, port) = match switch_port(name) {
            Ok(parts) => parts,
            Err(_) if name.starts_with("vale") => return Err(Errno::ENOMEM),
            Err(_) => return Err(Errno::EINVAL),
        };
        if mem != 0 {
            let found = self.region_of_id(mem);
            self.sweep();
            found?;
        }
        if self.on_switch(name).is_some() {
            return Err(Errno::EBUSY);
        }
        let key = self.persistent(port, Errno::EINVAL)?;
        let taken = self.switch(switch).is_some_and(|one| one.has_port(port));
        if self.ends(key).is_some() || self.is_active(key) {
            return Err(Errno::EBUSY);
        }
        if let Kind::Vale {
            place: Some((first, _)),
            ..
        } = &self.ports[&key].kind
        {
            if self.are_joined(first, switch) {
                return Err(Errno::ELOOP);
            }
        }
        if taken {
            return Err(Errno::EBUSY);
        }
        Ok(self.attach(key, switch, port))
    }

    pub fn detach_interface(&mut self, name: &str) -> Result<u8, Errno> {
        if !name.starts_with("vale") {
            return Err(Errno::EINVAL);
        }
        match self.on_switch(name) {
            Some(key) if self.is_persistent(key) => match self.ends(key) {
                Some([(switch, port), _]) if name == format!("{switch}:{port}") => {
                    Err(Errno::EBUSY)
                }
                _ => Ok(self.detach(key)),
            },
            Some(_) => Err(Errno::EBUSY),
            None => Err(Errno::ENXIO),
        }
    }

    pub fn polling(&self, name: &str) -> Result<(), Errno> {
        if !name.starts_with("vale") {
            return Err(Errno::EINVAL);
        }
        // None is an interface of the host.
        match self.on_switch(name) {
            Some(_) => Err(Errno::EOPNOTSUPP),
            None => Err(Errno::ENXIO),
        }
    }

    /// Looks a port up by name, or with no name the first one from a switch's
    /// number and a port's on.
    pub fn list(&self, name: &str, switch: u16, port: u32) -> Result<Listed, Errno> {
        let numbered = self.switches.iter().enumerate();
        let numbered = numbered.filter_map(|(at, one)| Some((at, one.as_ref()?)));
        let number = |at: usize| u16::try_from(at).unwrap();
        if !name.is_empty() {
            if !name.starts_with("vale") {
                return Err(Errno::EINVAL);
            }
            let (on, port) = name.split_once(':').ok_or(Errno::ENOENT)?;
            let mut numbered = numbered;
            let found = numbered.find(|(_, one)| one.name == on);
            let (at, found) = found.ok_or(Errno::ENOENT)?;
            let mut members = found.members.iter();
            let is_it = |one: &Option<super::switch::Member>| {
                one.as_ref().is_some_and(|one| one.name == port)
            };
            let index = members.position(is_it).unwrap_or(255);
            return Ok((number(at), u32::try_from(index).unwrap(), name.to_owned()));
        }
        for (at, one) in numbered.filter(|(at, _)| *at >= switch.into()) {
            let first = if at == usize::from(switch) { port } else { 0 };
            for (index, member) in (0..).zip(&one.members) {
                if let (Some(member), true) = (member, index >= first) {
                    return Ok((number(at), index, format!("{}:{}", one.name, member.name)));
                }
            }
        }
        Err(Errno::ENOENT)
    }

    /// Syncs every bound ring of one direction.
    pub fn sync_all(&mut self, client: usize, direction: Direction) -> Result<(), Errno> {
        let Some(one) = &self.clients[client] else {
            return Err(Errno::ENXIO);
        };
        let (port, bound) = (one.port, one.bound(direction).to_vec());
        for at in bound {
            self.sync(port, direction, at);
        }
        Ok(())
    }

    /// poll(2), with or without the intention to sleep.
    pub fn poll(&mut self, client: usize, events: PollFlags, sleep: bool) -> PollFlags {
        let Some(one) = &mut self.clients[client] else {
            return PollFlags::POLLERR;
        };
        one.woken = false;
        let (port, flags) = (one.port, one.flags);
        let [tx, rx] = [Direction::Tx, Direction::Rx].map(|way| one.bound(way).to_vec());
        let mut found = PollFlags::empty();
        let mut wanted = events & (IN | OUT);
        let ring = |way, at: usize| {
            let place = self.ports[&port].place(way, at);
            &self.rings[&place.ring.unwrap()]
        };
        // What the client has not looked at needs no sync.
        let unseen = |way, at| ring(way, at).cur != ring(way, at).rtail;
        if tx.iter().any(|&at| unseen(Direction::Tx, at)) {
            found |= wanted & OUT;
            wanted -= OUT;
        }
        let kept = |at| ring(Direction::Rx, at).head == ring(Direction::Rx, at).rhead;
        if !rx.is_empty() && rx.iter().all(|&at| unseen(Direction::Rx, at) && kept(at)) {
            found |= wanted & IN;
            wanted -= IN;
        }
        for again in [false, true] {
            if again {
                if !sleep || !wanted.intersects(OUT) {
                    break;
                }
                self.clients[client].as_mut().unwrap().armed |= ROOM;
            }
            if flags & NR_NO_TX_POLL != 0 && !wanted.intersects(OUT) {
                break;
            }
            for &at in &tx {
                let place = self.ports[&port].place(Direction::Tx, at);
                let ring = &self.rings[&place.ring.unwrap()];
                if wanted.intersects(OUT) || ring.head != ring.hwcur {
                    self.poll_one(port, Direction::Tx, at, OUT, &mut wanted, &mut found);
                }
            }
        }
        let release = flags & NR_DO_RX_POLL != 0 && !events.intersects(IN);
        if wanted.intersects(IN) || release {
            self.poll_rx(port, &rx, &mut wanted, &mut found);
        }
        if wanted.intersects(IN) && sleep {
            self.clients[client].as_mut().unwrap().armed |= FRAMES;
            self.poll_rx(port, &rx, &mut wanted, &mut found);
        }
        found
    }

    fn poll_rx(
        &mut self,
        port: PortKey,
        rx: &[usize],
        wanted: &mut PollFlags,
        found: &mut PollFlags,
    ) {
        for &at in rx {
            self.poll_one(port, Direction::Rx, at, IN, wanted, found);
        }
    }

    fn poll_one(
        &mut self,
        port: PortKey,
        way: Direction,
        at: usize,
        events: PollFlags,
        wanted: &mut PollFlags,
        found: &mut PollFlags,
    ) {
        let Some((anew, ready)) = self.sync(port, way, at) else {
            *found |= PollFlags::POLLERR;
            return;
        };
        if anew {
            *found |= PollFlags::POLLERR;
        }
        if ready {
            *found |= *wanted & events;
            *wanted -= events;
        }
    }
}
