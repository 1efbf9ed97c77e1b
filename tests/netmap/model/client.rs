//! What clients do to their rings, in the core's memory and in the model's.

use std::mem::offset_of;

use vtnetd::netmap::abi::{Interface, NS_BUF_CHANGED, NS_MOREFRAG, Ring, Slot};
use vtnetd::netmap::port::Direction;

use super::state::RingKey;
use super::steps::{Scrawl, Spec};
use super::world::{World, frame};

impl World {
    /// A client's store to `head` or `cur`.
    fn point(&mut self, ring: RingKey, head: u32, cur: u32) {
        let one = self.model.ring_mut(ring);
        (one.head, one.cur) = (head, cur);
        let (region, at) = (one.region, one.offset.unwrap());
        let field = |offset: usize| at + offset as u64;
        self.real
            .write_u32(region, field(offset_of!(Ring, head)), head);
        self.real
            .write_u32(region, field(offset_of!(Ring, cur)), cur);
    }

    fn set_slot(&mut self, ring: RingKey, at: u32, slot: Slot) {
        let one = self.model.ring_mut(ring);
        one.slots[at as usize] = slot;
        let (region, offset) = (one.region, one.offset.unwrap());
        self.real.set_slot(region, offset, at, slot);
    }

    fn write_buffer(&mut self, region: u32, index: u32, at: usize, bytes: &[u8]) {
        let model = self.model.regions.get_mut(&region).unwrap();
        let len = model.write(index, at, bytes);
        let [_, _, buffers] = model.layout.unwrap();
        let offset = buffers.object(index).unwrap() + at as u64;
        self.real.write(region, offset, &bytes[..len]);
    }

    pub(super) fn fill(&mut self, key: RingKey, header: usize, spec: &Spec) {
        let ring = self.model.ring(key);
        let (region, mut at, tail) = (ring.region, ring.head, ring.tail);
        let mut bytes = frame(spec);
        if header > 0 {
            let mut front = spec.header.to_vec();
            front.resize(header, 0);
            bytes = [front, bytes].concat();
        }
        let size = self.model.regions[&region].buf_size();
        let cut = match usize::from(spec.cut) {
            0 => size,
            cut => cut.min(size),
        };
        let mut pieces = bytes.chunks(cut).peekable();
        let mut room = self.model.ring(key).distance(at, tail);
        while let Some(piece) = pieces.next().filter(|_| room > 0) {
            let slot = self.model.ring(key).slot(at);
            if self.model.regions[&region].is_buffer(slot.buf_idx) {
                self.write_buffer(region, slot.buf_idx, 0, piece);
            }
            let more = pieces.peek().is_some();
            let slot = Slot {
                len: u16::try_from(piece.len()).unwrap(),
                flags: if more { NS_MOREFRAG } else { 0 },
                ..slot
            };
            self.set_slot(key, at, slot);
            at = self.model.ring(key).next(at);
            room -= 1;
        }
        self.point(key, at, at);
    }

    pub(super) fn take(&mut self, key: RingKey, count: u8, further: u8) {
        let ring = self.model.ring(key);
        let go = |from: u32, steps: u8| {
            let room = ring.distance(from, ring.tail).min(steps.into());
            (0..room).fold(from, |at, _| ring.next(at))
        };
        let head = go(ring.head, count);
        let cur = go(head, further);
        self.point(key, head, cur);
    }

    pub(super) fn exchange(&mut self, rx: RingKey, tx: RingKey) {
        let at = |ring| {
            (
                self.model.ring(ring).head,
                self.model.ring(ring).slots.len(),
            )
        };
        let ((from, rx_len), (to, tx_len)) = (at(rx), at(tx));
        if from as usize >= rx_len || to as usize >= tx_len {
            return;
        }
        let (ours, theirs) = (self.model.ring(rx).slot(from), self.model.ring(tx).slot(to));
        let changed = |slot: Slot, buf_idx| Slot {
            buf_idx,
            flags: slot.flags | NS_BUF_CHANGED,
            ..slot
        };
        self.set_slot(rx, from, changed(ours, theirs.buf_idx));
        self.set_slot(tx, to, changed(theirs, ours.buf_idx));
    }

    pub(super) fn scrawl(&mut self, client: usize, way: Direction, nth: u8, what: Scrawl) {
        let Some(one) = &mut self.model.clients[client] else {
            return;
        };
        let (port, offset) = (one.port, one.offset);
        let region = self.model.ports[&port].region;
        if let Scrawl::Extra(head) = what {
            one.extra_head = head;
            let at = offset + offset_of!(Interface, ni_bufs_head) as u64;
            self.real.write_u32(region, at, head);
            return;
        }
        if let Scrawl::Bytes { buffer, value } = what {
            if self.model.regions[&region].is_buffer(buffer) {
                self.write_buffer(region, buffer, 0, &value.to_ne_bytes());
            }
            return;
        }
        let Some(key) = self.ring_of(client, way, nth) else {
            return;
        };
        let ring = self.model.ring(key);
        let (head, cur, base) = (ring.head, ring.cur, ring.offset.unwrap());
        let slots = ring.slots.len();
        let mut slot = |at: u8, change: &dyn Fn(&mut Slot)| {
            if slots > 0 {
                let at = u32::from(at) % u32::try_from(slots).unwrap();
                let mut slot = self.model.ring(key).slot(at);
                change(&mut slot);
                self.set_slot(key, at, slot);
            }
        };
        match what {
            Scrawl::Head(head) => self.point(key, head, cur),
            Scrawl::Cur(cur) => self.point(key, head, cur),
            Scrawl::Tail(tail) => {
                self.model.ring_mut(key).tail = tail;
                let at = base + offset_of!(Ring, tail) as u64;
                self.real.write_u32(region, at, tail);
            }
            Scrawl::Buffer { slot: at, value } => slot(at, &|slot| slot.buf_idx = value),
            Scrawl::Len { slot: at, value } => slot(at, &|slot| slot.len = value),
            Scrawl::Flags { slot: at, value } => slot(at, &|slot| slot.flags = value),
            Scrawl::Ptr { slot: at, value } => slot(at, &|slot| slot.ptr = value),
            Scrawl::Constants(byte) => {
                // buf_ofs, num_slots, nr_buf_size, ringid and dir.
                self.real
                    .write(region, base, &[byte; offset_of!(Ring, head)]);
            }
            Scrawl::Extra(_) | Scrawl::Bytes { .. } => {}
        }
    }
}
