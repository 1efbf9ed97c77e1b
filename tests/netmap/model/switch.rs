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
    /// A client's port that is on another switch, too, for which this is the
    /// second.
    Second(PortKey),
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
    /// Unlike all that were there before.
    pub id: u32,
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

    pub fn member(&self, port: &str) -> Option<u32> {
        let found = self.members().find(|one| one.name == port);
        found.map(|one| one.id)
    }

    pub fn has_member(&self, id: u32) -> bool {
        self.members().any(|one| one.id == id)
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
        let id = self.new_key();
        let switch = self.switch_mut(switch).unwrap();
        let member = Member {
            id,
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

    /// Puts a port on a switch, its first or its second.
    pub fn attach(&mut self, key: PortKey, switch: &str, name: &str) -> u8 {
        let port = self.ports.get_mut(&key).unwrap();
        let here = Some((switch.to_owned(), name.to_owned()));
        let who = match &mut port.kind {
            Kind::Vale { place, second, .. } if place.is_some() => {
                *second = here;
                Who::Second(key)
            }
            Kind::Vale { place, .. } => {
                *place = here;
                Who::Client(key)
            }
            _ => panic!("no switch's port"),
        };
        self.join(who, switch, name)
    }

    /// Takes a port off the switch that it came to last.
    pub fn detach(&mut self, key: PortKey) -> u8 {
        let port = self.ports.get_mut(&key).unwrap();
        let Kind::Vale { place, second, .. } = &mut port.kind else {
            panic!("on no switch");
        };
        let (switch, name) = second.take().or_else(|| place.take()).unwrap();
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

    /// The persistent ports, each with its names on its switches, the last
    /// first.
    pub fn persistent_ports(&self) -> Vec<(String, Vec<String>)> {
        let ports = self.ports.values().filter_map(|port| match &port.kind {
            Kind::Vale {
                life: Life::Persistent,
                place,
                second,
            } => {
                let places = [second, place].into_iter().flatten();
                let places = places.map(|(switch, name)| format!("{switch}:{name}"));
                Some((port.name.clone(), places.collect()))
            }
            _ => None,
        });
        ports.collect()
    }

    /// The switches that a port joins, if it does.
    pub fn ends(&self, key: PortKey) -> Option<[&(String, String); 2]> {
        match &self.ports[&key].kind {
            Kind::Vale {
                place: Some(place),
                second: Some(second),
                ..
            } => Some([place, second]),
            _ => None,
        }
    }

    /// Frames of the one switch come to the other.
    pub fn are_joined(&self, one: &str, other: &str) -> bool {
        let mut known = vec![one];
        let mut at = 0;
        while let Some(here) = known.get(at).copied() {
            at += 1;
            for ends in self.ports.keys().filter_map(|key| self.ends(*key)) {
                let names = ends.map(|(switch, _)| switch.as_str());
                if names.contains(&here) {
                    let new = names.into_iter().find(|name| !known.contains(name));
                    known.extend(new);
                }
            }
        }
        known.contains(&other)
    }

    /// A persistent port, if that is what it is.
    pub fn is_persistent(&self, key: PortKey) -> bool {
        let life = Life::Persistent;
        matches!(self.ports[&key].kind, Kind::Vale { life: is, .. } if is == life)
    }
}
