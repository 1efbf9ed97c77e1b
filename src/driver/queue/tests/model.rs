//! Devices that do as they are told and believe whatever they read.

use super::*;

/// The device's half of some ring format.
pub trait Device<Q> {
    /// Takes the next chain: what names it, and its buffers.
    fn take(&mut self, queue: &Q) -> Option<(u32, Vec<Segment>)>;
    /// Gives a chain back.
    fn give(&mut self, queue: &Q, id: u32, len: u32);
}

#[derive(Default)]
pub struct SplitDevice {
    taken: u16,
    given: u16,
}

impl Device<SplitQueue> for SplitDevice {
    fn take(&mut self, queue: &SplitQueue) -> Option<(u32, Vec<Segment>)> {
        let ring = queue.ring();
        if ring.avail_index() == self.taken {
            return None;
        }
        let head = ring.available(self.taken);
        self.taken = self.taken.wrapping_add(1);
        let mut chain = Vec::new();
        let mut push = |d: Descriptor| {
            chain.push(Segment {
                addr: d.addr,
                len: d.len,
                device_writes: d.flags & desc::F_WRITE != 0,
            });
            d.flags & desc::F_NEXT != 0
        };
        let first = ring.descriptor(head);
        if first.flags & desc::F_INDIRECT != 0 {
            assert_eq!(first.flags, desc::F_INDIRECT);
            let memory = ring.table().memory();
            for at in (0..first.len).step_by(16) {
                let raw = memory.readable(first.addr + u64::from(at), 16).unwrap();
                let raw: [u8; 16] = raw.read_array().unwrap();
                let field = |from, len| raw[from..from + len].iter().rev();
                let number = |from, len| field(from, len).fold(0, |n, &b| n << 8 | u64::from(b));
                let more = push(Descriptor {
                    addr: number(0, 8),
                    len: number(8, 4).try_into().unwrap(),
                    flags: number(12, 2).try_into().unwrap(),
                    next: number(14, 2).try_into().unwrap(),
                });
                assert_eq!(more, at + 16 < first.len);
            }
        } else {
            let mut at = first;
            while push(at) {
                at = ring.descriptor(at.next);
            }
        }
        Some((u32::from(head), chain))
    }

    fn give(&mut self, queue: &SplitQueue, id: u32, len: u32) {
        queue.ring().put_used(self.given, id, len);
        self.given = self.given.wrapping_add(1);
        queue.ring().set_used_index(self.given);
    }
}

pub struct PackedDevice {
    taken: Position,
    given: Position,
}

impl Default for PackedDevice {
    fn default() -> Self {
        Self {
            taken: Position::START,
            given: Position::START,
        }
    }
}

impl Device<PackedQueue> for PackedDevice {
    fn take(&mut self, queue: &PackedQueue) -> Option<(u32, Vec<Segment>)> {
        let ring = queue.ring();
        let flag = |flags: u16, flag| (flags & flag != 0) == self.taken.wrap;
        let first = ring.flags(self.taken.index);
        if !flag(first, desc::F_AVAIL) || flag(first, desc::F_USED) {
            return None;
        }
        let mut chain = Vec::new();
        let mut push = |d: PackedDescriptor| {
            chain.push(Segment {
                addr: d.addr,
                len: d.len,
                device_writes: d.flags & desc::F_WRITE != 0,
            });
        };
        let mut count = 0_u16;
        loop {
            let d = ring.descriptor(self.taken.index);
            self.taken = self.taken.advance(1, ring.size());
            count += 1;
            if d.flags & desc::F_INDIRECT != 0 {
                assert_eq!(d.flags & (desc::F_NEXT | desc::F_WRITE), 0);
                let memory = ring.table().memory();
                for at in (0..d.len).step_by(16) {
                    let raw = memory.readable(d.addr + u64::from(at), 16).unwrap();
                    let raw: [u8; 16] = raw.read_array().unwrap();
                    let field = |from, len| raw[from..from + len].iter().rev();
                    let number =
                        |from, len| field(from, len).fold(0, |n, &b| n << 8 | u64::from(b));
                    push(PackedDescriptor {
                        addr: number(0, 8),
                        len: number(8, 4).try_into().unwrap(),
                        id: 0,
                        flags: number(14, 2).try_into().unwrap(),
                    });
                }
            } else {
                push(d);
            }
            if d.flags & desc::F_NEXT == 0 {
                return Some((u32::from(count) << 16 | u32::from(d.id), chain));
            }
        }
    }

    /// The upper half of `id` is how many descriptors the chain has.
    fn give(&mut self, queue: &PackedQueue, id: u32, len: u32) {
        let ring = queue.ring();
        let [count, id] = [id >> 16, id & 0xffff].map(|half| u16::try_from(half).unwrap());
        let descriptor = PackedDescriptor {
            len,
            id,
            ..PackedDescriptor::default()
        };
        ring.set_descriptor(self.given.index, &descriptor);
        let wrap = desc::F_AVAIL | desc::F_USED;
        let wrap = if self.given.wrap { wrap } else { 0 };
        ring.set_flags(self.given.index, wrap | desc::F_WRITE);
        self.given = self.given.advance(count, ring.size());
    }
}
