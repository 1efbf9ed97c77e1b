//! The model's switches: who is on them, where addresses were heard, and who
//! gets a frame.

use std::collections::BTreeMap;

use vtnetd::net::offload::{self, software};
use vtnetd::netmap::abi::nmreq::{NR_MONITOR_RX, NR_MONITOR_TX};
use vtnetd::netmap::abi::{NS_BUF_CHANGED, NS_INDIRECT, NS_MOREFRAG, NS_TXMON, Slot};
use vtnetd::netmap::attachment::Dropped;
use vtnetd::netmap::kring::Counts;
use vtnetd::netmap::port::Direction;
use vtnetd::virtio::net_header::{LEN, NetHeader};
use vtnetd::virtio::spec::net;

use super::state::{Kind, Life, Model, PortKey, RingKey};

const MAX_FRAME: usize = 65536 + 64;
const MAX_AGE: u8 = 30;
/// Frames that are looked up before the first of them is given to anybody.
const BATCH: usize = 64;
/// Slots likewise.
const PARTS: usize = 1024 - 256;

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

/// A frame on its way. Its bytes are looked at again for each receiver.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Buffers of a region, each from where to where.
    parts: Vec<(u32, usize, usize)>,
    /// A guest's frame.
    bytes: Vec<u8>,
    ether: [u8; 14],
    len: usize,
    header: NetHeader,
}

impl Frame {
    pub fn of_guest(bytes: &[u8]) -> Self {
        Self {
            parts: Vec::new(),
            ether: *bytes.first_chunk().unwrap(),
            len: bytes.len(),
            bytes: bytes.to_vec(),
            header: NetHeader::default(),
        }
    }
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

    /// What lies in these slots of a switch's port is sent.
    pub fn send(&mut self, port: PortKey, at: usize, ring: RingKey, slots: &[u32]) {
        let header = self.ports[&port].header;
        let place = match &self.ports[&port].kind {
            Kind::Vale { place, .. } => place.clone(),
            _ => None,
        };
        let Some((switch, name)) = place else {
            // On no switch nothing is looked at.
            return;
        };
        let region = self.ring(ring).region;
        let mut counts = Counts::default();
        let mut slots = slots.iter().copied().peekable();
        while slots.peek().is_some() {
            let (mut frames, mut parts) = (Vec::new(), 0);
            while slots.peek().is_some() && frames.len() < BATCH && parts <= PARTS {
                let mut frame = Vec::new();
                for at in slots.by_ref() {
                    let slot = self.ring_mut(ring).slot_mut(at);
                    frame.push(*slot);
                    slot.flags &= !NS_BUF_CHANGED;
                    if slot.flags & NS_MOREFRAG == 0 {
                        break;
                    }
                }
                match self.collect(region, &frame, header) {
                    Ok(frame) => {
                        counts.frames += 1;
                        counts.bytes += frame.len as u64;
                        parts += frame.parts.len();
                        frames.push(frame);
                    }
                    Err(cause) => *cause(&mut counts) += 1,
                }
            }
            if !frames.is_empty() {
                self.forward(&switch, &name, at, region, &frames);
            }
        }
        self.ring_mut(ring).counts.add(&counts);
    }

    /// The frame in these slots, or which counter says why it is none.
    fn collect(
        &self,
        region: u32,
        slots: &[Slot],
        header_len: usize,
    ) -> Result<Frame, fn(&mut Counts) -> &mut u64> {
        let memory = &self.regions[&region];
        let mut raw = [0; LEN];
        let mut parts = Vec::new();
        let mut ether = None;
        let mut len = 0;
        for (nth, slot) in slots.iter().enumerate() {
            let mut from = 0;
            let to = usize::from(slot.len);
            let good = memory.is_buffer(slot.buf_idx) && to <= memory.buf_size();
            if !good || slot.flags & NS_INDIRECT != 0 {
                return Err(|counts| &mut counts.bad_slots);
            }
            let bytes = memory.buffer(slot.buf_idx);
            if nth == 0 && header_len > 0 {
                if to < header_len {
                    return Err(|counts| &mut counts.short);
                }
                raw[..header_len].copy_from_slice(&bytes[..header_len]);
                from = header_len;
                if from == to {
                    continue;
                }
            }
            if ether.is_none() {
                let first = bytes[from..to].first_chunk::<14>().copied();
                ether = Some(first.ok_or::<fn(&mut Counts) -> &mut u64>(|c| &mut c.short)?);
            }
            len += to - from;
            if len > MAX_FRAME {
                return Err(|counts| &mut counts.long);
            }
            if from < to {
                if parts.len() == 256 {
                    return Err(|counts| &mut counts.long);
                }
                parts.push((slot.buf_idx, from, to));
            }
        }
        let ether = ether.ok_or::<fn(&mut Counts) -> &mut u64>(|c| &mut c.short)?;
        let mut frame = Frame {
            parts,
            bytes: Vec::new(),
            ether,
            len,
            header: NetHeader::default(),
        };
        // What a header may say is tested where it is checked.
        let bytes = self.bytes(region, &frame);
        let prefix = &bytes[..bytes.len().min(offload::PREFIX)];
        let header = NetHeader::from_bytes(&raw);
        let len = u32::try_from(len).unwrap();
        frame.header =
            offload::check(&header, net::HOST_OFFLOADS, prefix, len)
                .map_err::<fn(&mut Counts) -> &mut u64, _>(|_| |counts| &mut counts.bad_headers)?;
        Ok(frame)
    }

    fn bytes(&self, region: u32, frame: &Frame) -> Vec<u8> {
        let mut bytes = frame.bytes.clone();
        for &(buffer, from, to) in &frame.parts {
            bytes.extend(&self.regions[&region].buffer(buffer)[from..to]);
        }
        bytes
    }

    /// Frames from a port of a switch, in one batch.
    pub fn forward(
        &mut self,
        switch: &str,
        from: &str,
        ring: usize,
        region: u32,
        frames: &[Frame],
    ) {
        let one = self.switch_mut(switch).unwrap();
        let is_it = |one: &Option<Member>| one.as_ref().is_some_and(|one| one.name == from);
        let source = one.members.iter().position(is_it).unwrap();
        let mut numbers = Numbers::default();
        let mut targets = Vec::new();
        let mut order = Vec::new();
        for frame in frames {
            let number = |at: usize| {
                let octets = frame.ether[at..at + 6].iter();
                octets.fold(0, |all, octet| all << 8 | u64::from(*octet))
            };
            let (to, heard) = (number(0), number(6));
            if frame.ether[6] & 1 == 0 && heard != 0 {
                one.addresses
                    .insert(heard, (u8::try_from(source).unwrap(), 0));
            }
            let group = frame.ether[0] & 1 == 1;
            let known = one.addresses.get(&to).filter(|_| !group);
            let target = known.map(|(port, _)| usize::from(*port));
            numbers.in_frames += 1;
            numbers.in_bytes += frame.len as u64;
            numbers.flooded += u64::from(target.is_none());
            numbers.unknown += u64::from(target.is_none() && !group);
            if let Some(target) = target
                && !order.contains(&target)
            {
                order.push(target);
            }
            targets.push(target);
        }
        let member = one.members[source].as_mut().unwrap();
        member.numbers.in_frames += numbers.in_frames;
        member.numbers.in_bytes += numbers.in_bytes;
        member.numbers.flooded += numbers.flooded;
        member.numbers.unknown += numbers.unknown;
        let who = member.who;
        if numbers.flooded > 0 {
            order = (0..one.members.len()).collect();
        }
        let all: Vec<&Frame> = frames.iter().collect();
        self.tell(switch, who, NR_MONITOR_TX, region, &all);
        for target in order.into_iter().filter(|target| *target != source) {
            let picks = frames.iter().zip(&targets);
            let picks = picks.filter(|(_, to)| to.is_none_or(|to| to == target));
            let picks: Vec<&Frame> = picks.map(|(frame, _)| frame).collect();
            let members = &self.switch(switch).unwrap().members;
            let Some(member) = members[target].as_ref() else {
                continue;
            };
            let who = member.who;
            self.tell(switch, who, NR_MONITOR_RX, region, &picks);
            let (taken, bytes, dropped) = self.deliver(switch, who, ring, region, &picks);
            let members = &mut self.switch_mut(switch).unwrap().members;
            let numbers = &mut members[target].as_mut().unwrap().numbers;
            numbers.out_frames += taken;
            numbers.out_bytes += bytes;
            numbers.dropped += dropped;
        }
    }

    /// Monitors of a guest's port, in the order in which they came.
    fn tell(&mut self, switch: &str, who: Who, flag: u64, region: u32, frames: &[&Frame]) {
        let Who::Guest(guest) = who else { return };
        let sent = if flag == NR_MONITOR_TX { NS_TXMON } else { 0 };
        let hears = |kind: &Kind| match kind {
            Kind::GuestMonitor {
                switch: on,
                guest: of,
                flags,
            } => on == switch && *of == guest && flags & flag != 0,
            _ => false,
        };
        let ports = self.ports.iter().filter(|(_, port)| hears(&port.kind));
        for key in ports.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.receive(key, 0, 0, sent, region, frames);
        }
    }

    /// Gives frames to one port; how many it took, their bytes, and how many
    /// it did not take.
    fn deliver(
        &mut self,
        switch: &str,
        who: Who,
        ring: usize,
        region: u32,
        frames: &[&Frame],
    ) -> (u64, u64, u64) {
        match who {
            Who::Client(port) => {
                let header = self.ports[&port].header;
                self.receive(port, ring, header, 0, region, frames)
            }
            Who::Guest(guest) => {
                let mut whole = Vec::new();
                for frame in frames {
                    whole.extend(self.complete(region, frame));
                }
                let bytes = whole.iter().map(Vec::len).sum::<usize>() as u64;
                let taken = whole.len() as u64;
                let members = &mut self.switch_mut(switch).unwrap().members;
                let mut members = members.iter_mut().flatten();
                let member = members.find(|one| one.who == Who::Guest(guest));
                member.unwrap().given.extend(whole);
                (taken, bytes, 0)
            }
        }
    }

    /// The frames that one becomes for who takes no offloads.
    fn complete(&self, region: u32, frame: &Frame) -> Vec<Vec<u8>> {
        let mut bytes = self.bytes(region, frame);
        if frame.header.is_plain() {
            return vec![bytes];
        }
        let mut all = Vec::new();
        software::finish_linear(&mut bytes, &frame.header, &mut |frames| {
            all.extend(frames.iter().map(|(head, body)| [*head, *body].concat()));
        });
        all
    }

    fn receive(
        &mut self,
        port: PortKey,
        ring: usize,
        header: usize,
        flags: u16,
        region: u32,
        frames: &[&Frame],
    ) -> (u64, u64, u64) {
        let at = ring % usize::from(self.ports[&port].shape.rx_rings);
        let Some(to) = self.ports[&port].place(Direction::Rx, at).ring else {
            let mut all = 0;
            for frame in frames {
                all += match header {
                    0 => self.complete(region, frame).len(),
                    _ => 1,
                } as u64;
            }
            if let Kind::Vale { .. } = self.ports[&port].kind {
                self.ports.get_mut(&port).unwrap().unbound += all;
            }
            return (0, 0, all);
        };
        let mut total = (0, 0, 0);
        let unfinished = |frame: &&Frame| header == 0 && !frame.header.is_plain();
        // Frames that must be made complete come alone.
        for run in frames.chunk_by(|a, b| !unfinished(a) && !unfinished(b)) {
            let some = match run {
                [one] if unfinished(one) => {
                    let whole = self.complete(region, one);
                    let whole: Vec<Frame> = whole.iter().map(|one| Frame::of_guest(one)).collect();
                    let mut some = (0, 0, u64::from(whole.is_empty()));
                    for chunk in whole.chunks(software::CHUNK) {
                        let chunk: Vec<&Frame> = chunk.iter().collect();
                        let more = self.fill(port, at, to, header, flags, region, &chunk);
                        some = (some.0 + more.0, some.1 + more.1, some.2 + more.2);
                    }
                    some
                }
                _ => self.fill(port, at, to, header, flags, region, run),
            };
            total = (total.0 + some.0, total.1 + some.1, total.2 + some.2);
        }
        total
    }

    /// Fills the ring's free slots with frames; the first that does not fit
    /// takes those behind it with it.
    #[expect(clippy::too_many_arguments, reason = "from where to where")]
    fn fill(
        &mut self,
        port: PortKey,
        at: usize,
        to: RingKey,
        header: usize,
        flags: u16,
        region: u32,
        frames: &[&Frame],
    ) -> (u64, u64, u64) {
        let mut counts = Counts::default();
        let ring = self.ring(to);
        let size = self.regions[&ring.region].buf_size();
        let most = 255.min(ring.slots.len().saturating_sub(1));
        let mut room = ring.space() as usize;
        let first = ring.hwtail;
        let mut full = false;
        for frame in frames {
            let slots = (frame.len + header).div_ceil(size);
            if slots > most {
                counts.long += 1;
                continue;
            }
            full |= slots > room;
            if full {
                counts.full += 1;
                continue;
            }
            room -= slots;
            if self.write(to, header, flags, region, frame, slots) {
                counts.frames += 1;
                counts.bytes += frame.len as u64;
            } else {
                counts.bad_slots += 1;
            }
        }
        let ring = self.ring_mut(to);
        ring.counts.add(&counts);
        let published = ring.range(first, ring.hwtail);
        if !published.is_empty() {
            self.copy_to_monitors(port, Direction::Rx, at, &published, to, 0);
            self.wake(port, Direction::Rx, at);
        }
        let offered = frames.len() as u64;
        (counts.frames, counts.bytes, offered - counts.frames)
    }

    /// Writes one frame into the next slots; `false`: one of them names no
    /// buffer, and the reader gets them empty.
    fn write(
        &mut self,
        to: RingKey,
        header: usize,
        flags: u16,
        from: u32,
        frame: &Frame,
        slots: usize,
    ) -> bool {
        let ring = self.ring(to);
        let (first, region) = (ring.hwtail, ring.region);
        let mut places = vec![first];
        while places.len() < slots {
            places.push(ring.next(places[places.len() - 1]));
        }
        let buffers: Vec<u32> = places.iter().map(|at| ring.slot(*at).buf_idx).collect();
        let good = buffers
            .iter()
            .all(|one| self.regions[&region].is_buffer(*one));
        let mut left = frame.len + header;
        let size = self.regions[&region].buf_size();
        if good {
            self.copy(from, frame, header, region, &buffers);
        }
        for (nth, at) in (1..).zip(places) {
            let slot = self.ring_mut(to).slot_mut(at);
            (slot.len, slot.flags) = (0, 0);
            if good {
                let len = left.min(size);
                left -= len;
                let more = if nth < slots { NS_MOREFRAG } else { 0 };
                slot.len = u16::try_from(len).unwrap();
                slot.flags = u16::try_from(slots << 8).unwrap() | more | flags;
            }
            let ring = self.ring_mut(to);
            ring.hwtail = ring.next(at);
        }
        good
    }

    /// Copies piece by piece, each as long as both sides have it in one:
    /// buffers may be the same.
    fn copy(&mut self, from: u32, frame: &Frame, header: usize, to: u32, buffers: &[u32]) {
        let size = self.regions[&to].buf_size();
        let target = |done: usize| (buffers[done / size], done % size);
        let mut done = 0;
        if header > 0 {
            let one = NetHeader {
                num_buffers: 1,
                ..frame.header
            };
            let (buffer, at) = target(0);
            let region = self.regions.get_mut(&to).unwrap();
            region.write(buffer, at, &one.to_bytes()[..header]);
            done = header;
        }
        let mut pieces: Vec<(Option<u32>, usize, usize)> = Vec::new();
        pieces.extend(
            frame
                .parts
                .iter()
                .map(|&(one, from, to)| (Some(one), from, to)),
        );
        pieces.push((None, 0, frame.bytes.len()));
        for (source, mut at, end) in pieces {
            while at < end {
                let (buffer, begin) = target(done);
                let len = (end - at).min(size - begin);
                let bytes = match source {
                    Some(source) => self.regions[&from].buffer(source)[at..at + len].to_vec(),
                    None => frame.bytes[at..at + len].to_vec(),
                };
                let region = self.regions.get_mut(&to).unwrap();
                region.write(buffer, begin, &bytes);
                (at, done) = (at + len, done + len);
            }
        }
    }
}
