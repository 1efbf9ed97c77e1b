//! The model of registration: which port a name means, and who may bind which
//! rings of it.

use nix::errno::Errno;
use vtnetd::netmap::abi::nmreq::*;
use vtnetd::netmap::abi::{NM_BDG_MAXRINGS, NM_BDG_MAXSLOTS, NM_BRIDGE_RINGSIZE};
use vtnetd::netmap::abi::{NM_PIPE_MAXRINGS, NM_PIPE_MAXSLOTS};
use vtnetd::netmap::mem::GLOBAL_ID;
use vtnetd::netmap::name::PortName;
use vtnetd::netmap::port::Direction;
use vtnetd::netmap::rings::Shape;

use super::region::Region;
use super::ring::Ring;
use super::state::{Client, Kind, Life, Link, Model, Port, PortKey};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub name: String,
    pub mode: u32,
    pub ring: u16,
    pub flags: u64,
    pub shape: Shape,
    pub mem: u16,
    pub extra: u32,
}

const BOTH: u64 = NR_MONITOR_TX | NR_MONITOR_RX;

impl Ask {
    /// All rings of a port, with all defaults.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            mode: NR_REG_ALL_NIC,
            ring: 0,
            flags: 0,
            shape: Shape {
                tx_rings: 0,
                rx_rings: 0,
                tx_slots: 0,
                rx_slots: 0,
            },
            mem: 0,
            extra: 0,
        }
    }

    /// The monitor flags; a zero-copy monitor sees both directions.
    pub fn monitors(&self) -> u64 {
        match self.flags & NR_ZCOPY_MON {
            0 => self.flags & BOTH,
            _ => BOTH | NR_ZCOPY_MON,
        }
    }

    /// What is asked for, or the default, within bounds.
    fn bounded(&self, default: Shape, rings: u16, slots: u32) -> Shape {
        let pick = |want: u32, default: u32, most: u32| match want {
            0 => default.clamp(1, most),
            _ => want.min(most),
        };
        let pick_rings = |want: u16, default: u16| {
            u16::try_from(pick(want.into(), default.into(), rings.into())).unwrap()
        };
        Shape {
            tx_rings: pick_rings(self.shape.tx_rings, default.tx_rings),
            rx_rings: pick_rings(self.shape.rx_rings, default.rx_rings),
            tx_slots: pick(self.shape.tx_slots, default.tx_slots, slots),
            rx_slots: pick(self.shape.rx_slots, default.rx_slots, slots),
        }
    }

    fn vale_shape(&self) -> Shape {
        let default = Shape {
            tx_rings: 1,
            rx_rings: 1,
            tx_slots: NM_BRIDGE_RINGSIZE,
            rx_slots: NM_BRIDGE_RINGSIZE,
        };
        self.bounded(default, NM_BDG_MAXRINGS, NM_BDG_MAXSLOTS)
    }

    /// The rings that are meant, transmit first (`netmap_interp_ringid`).
    fn rings(&self, shape: &Shape) -> Result<[Vec<usize>; 2], Errno> {
        let pick = |count: u16, excluded: u64| {
            if self.flags & excluded != 0 {
                return Ok(Vec::new());
            }
            match self.mode {
                NR_REG_ALL_NIC | NR_REG_NULL => Ok((0..count.into()).collect()),
                NR_REG_ONE_NIC if self.ring < count => Ok(vec![self.ring.into()]),
                NR_REG_ONE_NIC if self.ring < shape.tx_rings.max(shape.rx_rings) => {
                    Ok((0..usize::from(count.min(1))).collect())
                }
                _ => Err(Errno::EINVAL),
            }
        };
        Ok([
            pick(shape.tx_rings, NR_RX_RINGS_ONLY)?,
            pick(shape.rx_rings, NR_TX_RINGS_ONLY)?,
        ])
    }
}

impl Model {
    pub fn port_named(&self, name: &str) -> Option<PortKey> {
        let named = |port: &Port| matches!(port.kind, Kind::Vale { .. }) && port.name == name;
        let mut ports = self.ports.iter();
        ports.find(|(_, port)| named(port)).map(|(key, _)| *key)
    }

    /// A client's port by its name on its switch.
    pub fn on_switch(&self, name: &str) -> Option<PortKey> {
        let mut ports = self.ports.iter();
        let here = |port: &Port| match &port.kind {
            Kind::Vale { place, second, .. } => {
                let mut places = [place, second].into_iter().flatten();
                places.any(|(switch, port)| name == format!("{switch}:{port}"))
            }
            _ => false,
        };
        ports.find(|(_, port)| here(port)).map(|(key, _)| *key)
    }

    pub fn region_of_id(&mut self, id: u16) -> Result<u32, Errno> {
        if let Some((key, _)) = self.regions.iter().find(|(_, one)| one.id == Some(id)) {
            return Ok(*key);
        }
        if id != GLOBAL_ID {
            return Err(Errno::EINVAL);
        }
        let mut region = Region::default();
        region.adopt(id, self.global);
        let key = self.new_key();
        self.regions.insert(key, region);
        Ok(key)
    }

    fn region_for(&mut self, shape: &Shape, pipes: u32) -> u32 {
        let (tx, rx) = (u32::from(shape.tx_rings) + 1, u32::from(shape.rx_rings) + 1);
        let buffers = (4 * pipes + tx) * shape.tx_slots + (4 * pipes + rx) * shape.rx_slots;
        let region = Region::of_at_least(tx + rx + 8 * pipes, buffers.max(4096));
        let key = self.new_key();
        self.regions.insert(key, region);
        key
    }

    fn add_port(&mut self, port: Port) -> PortKey {
        let key = self.new_key();
        self.ports.insert(key, port);
        key
    }

    /// The port that is meant; made, when `make`, where nobody has yet. What
    /// is not needed in the end is swept away by the caller.
    pub fn find(&mut self, ask: &Ask, make: bool) -> Result<PortKey, Errno> {
        if let NR_REG_PIPE_MASTER | NR_REG_PIPE_SLAVE = ask.mode {
            return Err(Errno::EINVAL);
        }
        let region = match ask.mem {
            0 => None,
            id => Some(self.region_of_id(id)?),
        };
        if ask.mode == NR_REG_NULL {
            let region = region.filter(|_| make).ok_or(Errno::EINVAL)?;
            let too_much =
                |rings, slots| rings > NM_PIPE_MAXRINGS || (rings > 0 && slots > NM_PIPE_MAXSLOTS);
            let shape = &ask.shape;
            if too_much(shape.tx_rings, shape.tx_slots) || too_much(shape.rx_rings, shape.rx_slots)
            {
                return Err(Errno::ENOMEM);
            }
            let rings = u32::from(ask.shape.tx_rings) + u32::from(ask.shape.rx_rings);
            if self.regions[&region]
                .layout
                .is_some_and(|[_, pool, _]| rings > pool.num)
            {
                return Err(Errno::ENOMEM);
            }
            let name = format!("null:{}", ask.name);
            return Ok(self.add_port(Port::new(&name, Kind::Null, region, ask.shape)));
        }
        if ask.monitors() != 0 {
            return self.monitor(ask, make);
        }
        match PortName::parse(&ask.name) {
            Ok(PortName::Pipe { parent, id, master }) => {
                self.pipe(ask, make, region, parent, id, master)
            }
            Ok(PortName::Vale { switch, port }) => {
                if let Some(key) = self.on_switch(&ask.name) {
                    return Ok(key);
                }
                if !make {
                    return Err(Errno::ENXIO);
                }
                if self.port_named(port).is_some() {
                    return Err(Errno::EINVAL);
                }
                if self.switch(switch).is_some_and(|one| one.has_port(port)) {
                    return Err(Errno::EBUSY);
                }
                let key = self.vale_port(ask, region, Life::Used);
                self.attach(key, switch, port);
                Ok(key)
            }
            Ok(PortName::Host(name)) => self.port_named(name).ok_or(Errno::ENXIO),
            Err(_) if ask.name.contains(['{', '}']) => Err(Errno::EINVAL),
            Err(_) if ask.name.starts_with("vale") && make => Err(Errno::ENOMEM),
            Err(_) => Err(Errno::ENXIO),
        }
    }

    /// A port that is on no switch yet.
    fn vale_port(&mut self, ask: &Ask, region: Option<u32>, life: Life) -> PortKey {
        let shape = ask.vale_shape();
        let region = region.unwrap_or_else(|| self.region_for(&shape, 2));
        let kind = Kind::Vale {
            life,
            place: None,
            second: None,
        };
        self.add_port(Port::new(&ask.name, kind, region, shape))
    }

    /// A port with the name of an interface.
    pub fn interface(&mut self, ask: &Ask, life: Life) -> Result<PortKey, Errno> {
        let region = match ask.mem {
            0 => None,
            id => Some(self.region_of_id(id)?),
        };
        match PortName::parse(&ask.name) {
            Ok(PortName::Host(_)) => Ok(self.vale_port(ask, region, life)),
            _ => Err(Errno::EINVAL),
        }
    }

    fn pipe(
        &mut self,
        ask: &Ask,
        make: bool,
        region: Option<u32>,
        parent: &str,
        id: &str,
        master: bool,
    ) -> Result<PortKey, Errno> {
        if !matches!(ask.mode, NR_REG_ALL_NIC | NR_REG_ONE_NIC) {
            return Err(Errno::EINVAL);
        }
        let above = Ask {
            name: parent.to_owned(),
            ..ask.clone()
        };
        let parent = match self.find(&above, make) {
            Err(Errno::ENXIO) if !parent.starts_with("vale") => {
                PortName::parse(parent).map_err(|_| Errno::EINVAL)?;
                self.vale_port(&above, region, Life::Used)
            }
            found => found?,
        };
        let is_it = |port: &Port| match &port.kind {
            Kind::Pipe {
                parent: above,
                id: of,
                master: which,
                ..
            } => *above == parent && of == id && *which == master,
            _ => false,
        };
        if let Some((key, _)) = self.ports.iter().find(|(_, port)| is_it(port)) {
            return Ok(*key);
        }
        if !make {
            return Err(Errno::ENODEV);
        }
        let Port {
            name,
            region,
            shape,
            ..
        } = &self.ports[&parent];
        let (name, region) = (name.clone(), *region);
        let default = Shape {
            tx_rings: 1,
            rx_rings: 1,
            ..*shape
        };
        let shape = ask.bounded(default, NM_PIPE_MAXRINGS, NM_PIPE_MAXSLOTS);
        let keys = [self.new_key(), self.new_key()];
        for (end, letter) in ['{', '}'].into_iter().enumerate() {
            let kind = Kind::Pipe {
                parent,
                id: id.to_owned(),
                master: end == 0,
                twin: keys[1 - end],
            };
            let shape = if end == 0 { shape } else { shape.swapped() };
            let name = format!("{name}{letter}{id}");
            self.ports
                .insert(keys[end], Port::new(&name, kind, region, shape));
        }
        Ok(keys[usize::from(!master)])
    }

    fn monitor(&mut self, ask: &Ask, make: bool) -> Result<PortKey, Errno> {
        let flags = ask.monitors();
        let on = self.on_switch(&ask.name);
        let without_rings = on.is_none_or(|key| self.ends(key).is_some());
        let member = match PortName::parse(&ask.name) {
            Ok(PortName::Vale { switch, port }) if without_rings => {
                let member = self.switch(switch).and_then(|one| one.member(port));
                member.map(|member| (switch.to_owned(), member))
            }
            _ => None,
        };
        if let Some((switch, member)) = member {
            if flags & NR_ZCOPY_MON != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            let shape = Shape {
                tx_rings: 1,
                rx_rings: 1,
                ..ask.vale_shape()
            };
            ask.rings(&shape)?;
            let region = self.region_for(&shape, 0);
            let kind = Kind::GuestMonitor {
                switch,
                member,
                flags,
            };
            return Ok(self.add_port(Port::new(&ask.name, kind, region, shape)));
        }
        let plain = Ask {
            flags: ask.flags & !(BOTH | NR_ZCOPY_MON),
            ..ask.clone()
        };
        let parent = self.find(&plain, make)?;
        let Port {
            active,
            shape,
            region,
            epoch,
            ..
        } = self.ports[&parent];
        if active == 0 {
            return Err(Errno::EINVAL);
        }
        ask.rings(&shape)?;
        let shape = Shape {
            tx_rings: 1,
            rx_rings: shape.tx_rings.max(shape.rx_rings),
            ..ask.bounded(shape, u16::MAX, NM_BDG_MAXSLOTS)
        };
        let region = match flags & NR_ZCOPY_MON {
            0 => self.region_for(&shape, 0),
            _ => region,
        };
        let kind = Kind::Monitor {
            parent,
            epoch,
            flags,
        };
        Ok(self.add_port(Port::new(&ask.name, kind, region, shape)))
    }

    /// Registers; where that is refused, nothing has changed.
    pub fn register(&mut self, client: usize, ask: &Ask) -> Result<(), Errno> {
        if self.clients[client].is_some() {
            return Err(Errno::EBUSY);
        }
        let made = self
            .find(ask, true)
            .and_then(|port| self.bind(client, port, ask));
        self.sweep();
        made
    }

    fn bind(&mut self, client: usize, port: PortKey, ask: &Ask) -> Result<(), Errno> {
        if self.ends(port).is_some() {
            return Err(Errno::EBUSY);
        }
        let owner = &self.ports[&port];
        if owner.header != 0 && ask.flags & NR_ACCEPT_VNET_HDR == 0 {
            return Err(Errno::EIO);
        }
        let bound = ask.rings(&owner.shape)?;
        let exclusive = ask.flags & NR_EXCLUSIVE != 0;
        self.check(port, &bound, exclusive)?;
        for (direction, rings) in [Direction::Tx, Direction::Rx].into_iter().zip(&bound) {
            for &at in rings {
                if self.ports[&port].place(direction, at).ring.is_none() {
                    self.make_ring(port, direction, at);
                }
                let place = self.ports.get_mut(&port).unwrap().place_mut(direction, at);
                place.users += 1;
                place.exclusive = exclusive;
            }
        }
        let owner = self.ports.get_mut(&port).unwrap();
        owner.active += 1;
        self.regions.get_mut(&owner.region).unwrap().interfaces += 1;
        let flags = ask.flags | ask.monitors();
        self.clients[client] = Some(Client::new(port, bound, flags));
        Ok(())
    }

    /// Whether the rings can be bound, and there is memory for them.
    fn check(&self, port: PortKey, bound: &[Vec<usize>; 2], exclusive: bool) -> Result<(), Errno> {
        let owner = &self.ports[&port];
        let region = &self.regions[&owner.region];
        let (mut rings, mut buffers) = (region.free_rings(), region.free_buffers());
        for (direction, all) in [Direction::Tx, Direction::Rx].into_iter().zip(bound) {
            for &at in all {
                let place = owner.place(direction, at);
                if place.exclusive || (exclusive && place.users > 0) {
                    return Err(Errno::EBUSY);
                }
                let is_pipe = matches!(owner.kind, Kind::Pipe { .. });
                let linked = is_pipe && self.links.contains_key(&self.link_of(port, direction, at));
                if place.ring.is_some() || linked {
                    continue;
                }
                let slots = owner.shape.slots(direction);
                let need = if is_pipe { 2 } else { 1 };
                if !region.has_room_for_ring(slots) || rings < need || buffers < slots {
                    return Err(Errno::ENOMEM);
                }
                (rings, buffers) = (rings - need, buffers - slots);
            }
        }
        if region.free_interfaces() == 0 {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    fn new_ring(&mut self, port: PortKey, direction: Direction) -> u32 {
        let key = self.new_key();
        let owner = &self.ports[&port];
        let ring = Ring::new(owner.region, direction, owner.shape.slots(direction));
        self.regions.get_mut(&owner.region).unwrap().rings += 1;
        self.rings.insert(key, ring);
        key
    }

    fn make_ring(&mut self, port: PortKey, direction: Direction, at: usize) {
        let key = match self.ports[&port].kind {
            Kind::Pipe { .. } => {
                let link = self.link_of(port, direction, at);
                if !self.links.contains_key(&link) {
                    let tx = self.new_ring(link.sender, Direction::Tx);
                    let rx = self.new_ring(link.receiver, Direction::Rx);
                    let made = Link {
                        tx,
                        rx,
                        tx_tail: self.ring(tx).hwtail,
                        rx_tail: 0,
                    };
                    self.links.insert(link, made);
                }
                let link = &self.links[&link];
                match direction {
                    Direction::Tx => link.tx,
                    Direction::Rx => link.rx,
                }
            }
            _ => self.new_ring(port, direction),
        };
        let owner = self.ports.get_mut(&port).unwrap();
        owner.place_mut(direction, at).ring = Some(key);
        let watched = match owner.kind {
            Kind::Monitor { parent, flags, .. } if direction == Direction::Rx => {
                Some((parent, flags))
            }
            _ => None,
        };
        if let Some((parent, flags)) = watched {
            for (direction, flag) in [
                (Direction::Tx, NR_MONITOR_TX),
                (Direction::Rx, NR_MONITOR_RX),
            ] {
                let parent = self.ports.get_mut(&parent).unwrap();
                if flags & flag == 0 || at >= parent.places(direction).len() {
                    continue;
                }
                let place = parent.place_mut(direction, at);
                let list = match flags & NR_ZCOPY_MON {
                    0 => &mut place.copies,
                    _ => &mut place.chain,
                };
                list.push((port, key));
            }
        }
    }
}
