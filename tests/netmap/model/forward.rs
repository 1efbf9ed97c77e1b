//! The way of a frame over a switch of the model.

use vtnetd::net::offload::{self, software};
use vtnetd::netmap::abi::nmreq::{NR_MONITOR_RX, NR_MONITOR_TX};
use vtnetd::netmap::abi::{NS_BUF_CHANGED, NS_INDIRECT, NS_MOREFRAG, NS_TXMON, Slot};
use vtnetd::netmap::kring::Counts;
use vtnetd::netmap::port::Direction;
use vtnetd::virtio::net_header::{LEN, NetHeader};
use vtnetd::virtio::spec::net;

use super::state::{Kind, Model, PortKey, RingKey};
use super::switch::{Member, Numbers, Who};

const MAX_FRAME: usize = 65536 + 64;
/// Frames that are looked up before the first of them is given to anybody.
const BATCH: usize = 64;
/// Slots likewise.
const PARTS: usize = 1024 - 256;

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

impl Model {
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
            order.extend(target.filter(|target| !order.contains(target)));
            targets.push(target);
        }
        let member = one.members[source].as_mut().unwrap();
        member.numbers.in_frames += numbers.in_frames;
        member.numbers.in_bytes += numbers.in_bytes;
        member.numbers.flooded += numbers.flooded;
        member.numbers.unknown += numbers.unknown;
        let id = member.id;
        if numbers.flooded > 0 {
            order = (0..one.members.len()).collect();
        }
        let all: Vec<&Frame> = frames.iter().collect();
        self.tell(switch, id, NR_MONITOR_TX, region, &all);
        for target in order.into_iter().filter(|target| *target != source) {
            let picks = frames.iter().zip(&targets);
            let picks = picks.filter(|(_, to)| to.is_none_or(|to| to == target));
            let picks: Vec<&Frame> = picks.map(|(frame, _)| frame).collect();
            let members = &self.switch(switch).unwrap().members;
            let Some(member) = members[target].as_ref() else {
                continue;
            };
            let (id, who) = (member.id, member.who);
            self.tell(switch, id, NR_MONITOR_RX, region, &picks);
            let (taken, bytes, dropped) = self.deliver(switch, who, ring, region, &picks);
            let members = &mut self.switch_mut(switch).unwrap().members;
            let numbers = &mut members[target].as_mut().unwrap().numbers;
            numbers.out_frames += taken;
            numbers.out_bytes += bytes;
            numbers.dropped += dropped;
        }
    }

    /// Monitors of a port without rings, in the order in which they came.
    fn tell(&mut self, switch: &str, id: u32, flag: u64, region: u32, frames: &[&Frame]) {
        let sent = if flag == NR_MONITOR_TX { NS_TXMON } else { 0 };
        let hears = |kind: &Kind| match kind {
            Kind::GuestMonitor {
                switch: on,
                member,
                flags,
            } => on == switch && *member == id && flags & flag != 0,
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
            Who::Client(port) => match self.ends(port) {
                Some([_, second]) => self.pass(second.clone(), ring, region, frames),
                None => {
                    let header = self.ports[&port].header;
                    self.receive(port, ring, header, 0, region, frames)
                }
            },
            Who::Second(port) => {
                let [first, _] = self.ends(port).unwrap();
                self.pass(first.clone(), ring, region, frames)
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

    /// Has frames come out at another switch.
    fn pass(
        &mut self,
        (switch, port): (String, String),
        ring: usize,
        region: u32,
        frames: &[&Frame],
    ) -> (u64, u64, u64) {
        let frames: Vec<Frame> = frames.iter().map(|frame| (*frame).clone()).collect();
        self.forward(&switch, &port, ring, region, &frames);
        let bytes = frames.iter().map(|frame| frame.len as u64).sum();
        (frames.len() as u64, bytes, 0)
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
