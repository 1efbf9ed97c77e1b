//! The model's switches: who is on them, where addresses were heard, and who
//! gets a frame.

use std::collections::BTreeMap;

use vtnetd::netmap::attachment::Dropped;

use super::state::{Kind, Life, Model, PortKey};

const MAX_AGE: u8 = 30;
/// Who is behind a port of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Client(PortKey),
    Guest(u32),
}

/// What a port of a switch counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub in_frames: u64,
    pub in_bytes: u64,
    pub out_frames: u64,
    pub out_bytes: u64,
    pub dropped: u64,
    pub flooded: u64,
    pub unknown: u64,
}

#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub who: Who,
    pub numbers: Numbers,
    /// Frames that a guest was given and has not looked at.
    pub given: Vec<Vec<u8>>,
}

#[derive(Debug)]
pub struct Switch {
    pub name: String,
    pub members: Vec<Option<Member>>,
    /// Port and age of each address.
    pub addresses: BTreeMap<u64, (u8, u8)>,
}

impl Switch {
    fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten()
    }

    pub fn has_port(&self, port: &str) -> bool {
        self.members().any(|one| one.name == port)
    }

    pub fn guest(&self, port: &str) -> Option<u32> {
        self.members().find_map(|one| match one.who {
            Who::Guest(guest) if one.name == port => Some(guest),
            _ => None,
        })
    }

    pub fn has_guest(&self, guest: u32) -> bool {
        self.members().any(|one| one.who == Who::Guest(guest))
    }

    pub fn age(&mut self) {
        for (_, age) in self.addresses.values_mut() {
            *age += 1;
        }
        self.addresses.retain(|_, (_, age)| *age <= MAX_AGE);
    }
}

impl Model {
    pub fn switch(&self, name: &str) -> Option<&Switch> {
        self.switches.iter().flatten().find(|one| one.name == name)
    }

    pub fn switch_mut(&mut self, name: &str) -> Option<&mut Switch> {
        let mut all = self.switches.iter_mut().flatten();
        all.find(|one| one.name == name)
    }

    /// Puts somebody on a switch, which is made if need be; returns the number
    /// of the port.
    pub fn join(&mut self, who: Who, switch: &str, port: &str) -> u8 {
        if self.switch(switch).is_none() {
            let new = Switch {
                name: switch.to_owned(),
                members: Vec::new(),
                addresses: BTreeMap::new(),
            };
            match self.switches.iter_mut().find(|one| one.is_none()) {
                Some(free) => *free = Some(new),
                None => self.switches.push(Some(new)),
            }
        }
        let switch = self.switch_mut(switch).unwrap();
        let member = Member {
            name: port.to_owned(),
            who,
            numbers: Numbers::default(),
            given: Vec::new(),
        };
        let free = switch.members.iter().position(Option::is_none);
        let at = free.unwrap_or(switch.members.len());
        if free.is_none() {
            switch.members.push(None);
        }
        switch.members[at] = Some(member);
        u8::try_from(at).unwrap()
    }

    /// Takes a port off its switch; returns the number that it had.
    pub fn off_switch(&mut self, switch: &str, port: &str) -> u8 {
        let switch = self.switch_mut(switch).unwrap();
        let is_it = |one: &Option<Member>| one.as_ref().is_some_and(|one| one.name == port);
        let at = switch.members.iter().position(is_it).unwrap();
        switch.members[at] = None;
        let at = u8::try_from(at).unwrap();
        switch.addresses.retain(|_, (port, _)| *port != at);
        self.sweep_switches();
        at
    }

    /// A switch without ports is gone, unless somebody monitored one there.
    pub fn sweep_switches(&mut self) {
        let ports = &self.ports;
        for place in &mut self.switches {
            let Some(switch) = place else { continue };
            let monitored = ports.values().any(|port| {
                matches!(&port.kind, Kind::GuestMonitor { switch: one, .. } if *one == switch.name)
            });
            if switch.members().next().is_none() && !monitored {
                *place = None;
            }
        }
    }

    pub fn attach(&mut self, key: PortKey, switch: &str, name: &str) -> u8 {
        let port = self.ports.get_mut(&key).unwrap();
        if let Kind::Vale { place, .. } = &mut port.kind {
            *place = Some((switch.to_owned(), name.to_owned()));
        }
        self.join(Who::Client(key), switch, name)
    }

    pub fn detach(&mut self, key: PortKey) -> u8 {
        let port = self.ports.get_mut(&key).unwrap();
        let Kind::Vale { place, .. } = &mut port.kind else {
            panic!("on no switch");
        };
        let (switch, name) = place.take().unwrap();
        let at = self.off_switch(&switch, &name);
        self.sweep();
        at
    }

    /// A guest comes; who it is from here on.
    pub fn new_guest(&mut self, guest: usize) -> u32 {
        self.guests[guest] = self.new_key();
        self.guests[guest]
    }

    /// The switch and the port of a guest.
    pub fn seat(&self, guest: usize) -> (String, String) {
        let who = Who::Guest(self.guests[guest]);
        let mut switches = self.switches.iter().flatten();
        let seat = switches.find_map(|switch| {
            let member = switch.members().find(|one| one.who == who)?;
            Some((switch.name.clone(), member.name.clone()))
        });
        seat.unwrap()
    }

    /// Why frames were dropped at a port, in both directions.
    pub fn causes(&self, port: PortKey) -> Dropped {
        let port = &self.ports[&port];
        let mut counts = port.gone;
        for ring in port.all_places().filter_map(|place| place.ring) {
            counts.add(&self.ring(ring).counts);
        }
        Dropped {
            no_room: counts.full,
            unbound: port.unbound,
            short: counts.short,
            long: counts.long,
            bad_slots: counts.bad_slots,
            bad_headers: counts.bad_headers,
        }
    }

    /// The persistent ports, each with its name on its switch.
    pub fn persistent_ports(&self) -> Vec<(String, Option<String>)> {
        let ports = self.ports.values().filter_map(|port| match &port.kind {
            Kind::Vale {
                life: Life::Persistent,
                place,
            } => {
                let place = place.as_ref();
                let place = place.map(|(switch, name)| format!("{switch}:{name}"));
                Some((port.name.clone(), place))
            }
            _ => None,
        });
        ports.collect()
    }

    /// A persistent port, if that is what it is.
    pub fn is_persistent(&self, key: PortKey) -> bool {
        let life = Life::Persistent;
        matches!(self.ports[&key].kind, Kind::Vale { life: is, .. } if is == life)
    }
}
