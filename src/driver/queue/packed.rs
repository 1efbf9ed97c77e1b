//! The driver's side of the packed virtqueue (section 2.8).

use std::sync::atomic::Ordering;

use super::in_order::{InOrder, room};
use super::{
    Completion, DriverQueue, PackedDescriptor, PackedRing, QueueError, QueueOptions, Segment,
};
use crate::driver::memory::{Area, DriverMemory};
use crate::virtio::queue::{Position, RingAddresses};
use crate::virtio::spec::{desc, event};
use crate::word::fence;

/// What the driver knows of one chain, by its buffer ID. The device can write
/// to the ring but not here.
#[derive(Clone, Copy, Debug)]
struct Shadow {
    /// Descriptors of the ring; 0: no chain has this ID.
    count: u16,
    /// What the caller remembers.
    token: u32,
    /// Where the device uses chains in order: the bytes that it can write.
    room: u32,
}

/// The driver's side of a packed ring.
#[derive(Debug)]
pub struct PackedQueue {
    ring: PackedRing,
    event_idx: bool,
    /// The chains that the device has, if it uses them in order.
    order: Option<InOrder>,
    /// An indirect table of `table_len` entries for each buffer ID.
    tables: Option<Area>,
    table_len: u16,
    shadow: Box<[Shadow]>,
    /// IDs that no chain has.
    ids: Vec<u16>,
    /// Descriptors that can be written.
    free: u16,
    outstanding: u16,
    /// Where the next chain is added.
    next: Position,
    /// Where the device sees chains up to.
    shown: Position,
    /// The flags of the first descriptor that the device does not see yet.
    first_flags: u16,
    /// Where the next chain comes back.
    used: Position,
}

impl PackedQueue {
    /// A queue of `size` descriptors, which with its indirect tables is
    /// allocated in `memory`.
    ///
    /// # Errors
    /// When `size` is not allowed or the memory is full.
    pub fn new(
        memory: &mut DriverMemory,
        size: u16,
        options: QueueOptions,
    ) -> Result<Self, QueueError> {
        let ring = PackedRing::new(memory, size)?;
        let table = usize::from(options.indirect) * PackedDescriptor::LEN;
        let tables = match table {
            0 => None,
            len => Some(memory.allocate(len * usize::from(size), 64)?),
        };
        let shadow = Shadow {
            count: 0,
            token: 0,
            room: 0,
        };
        let mut queue = Self {
            ring,
            event_idx: options.event_idx,
            order: options.in_order.then(|| InOrder::new(size)),
            tables,
            table_len: options.indirect,
            shadow: vec![shadow; usize::from(size)].into_boxed_slice(),
            ids: Vec::with_capacity(usize::from(size)),
            free: size,
            outstanding: 0,
            next: Position::START,
            shown: Position::START,
            first_flags: 0,
            used: Position::START,
        };
        queue.reset();
        Ok(queue)
    }

    /// The ring's memory, to read, or to write what no driver should.
    pub fn ring(&self) -> &PackedRing {
        &self.ring
    }

    /// Fills in the indirect table of `id`: what its descriptor says. `None`
    /// when the chain is to be laid out in the ring.
    fn fill_table(&self, id: u16, chain: &[Segment]) -> Option<PackedDescriptor> {
        let tables = self.tables.as_ref()?;
        if chain.len() < 2 || chain.len() > usize::from(self.table_len) {
            return None;
        }
        let start = usize::from(id) * usize::from(self.table_len) * PackedDescriptor::LEN;
        let mut at = start;
        for segment in chain {
            descriptor(segment, 0).write_to(tables, at);
            tables.store16(at + 14, write_flag(segment), Ordering::Relaxed);
            at += PackedDescriptor::LEN;
        }
        Some(PackedDescriptor {
            addr: tables.guest_addr(start),
            len: u32::try_from(at - start).unwrap_or(0),
            id,
            flags: desc::F_INDIRECT,
        })
    }

    /// Writes one descriptor behind the last one. The device sees nothing of
    /// what follows `shown` before the flags there are written.
    #[inline]
    fn put(&mut self, descriptor: &PackedDescriptor) {
        let available = if self.next.wrap {
            desc::F_AVAIL
        } else {
            desc::F_USED
        };
        let flags = descriptor.flags | available;
        self.ring.set_descriptor(self.next.index, descriptor);
        if self.next == self.shown {
            self.first_flags = flags;
        } else {
            self.ring.set_flags(self.next.index, flags);
        }
        self.next = self.next.advance(1, self.ring.size());
    }

    /// Where what the device has not used begins.
    fn end_of_used(&self) -> Position {
        let mut at = self.used;
        let mut left = self.ring.size();
        while left > 0 && self.is_used(at) {
            let (id, _) = self.ring.used(at.index);
            let chain = self.shadow.get(usize::from(id));
            let count = chain.map_or(1, |chain| chain.count.clamp(1, left));
            at = at.advance(count, self.ring.size());
            left -= count;
        }
        at
    }

    /// The same with a device that uses chains in order.
    fn end_of_batches(&self, order: &InOrder) -> Position {
        let mut at = self.used;
        let mut back = order.back();
        for (nth, id) in order.chains().enumerate() {
            if nth == back && self.is_used(at) {
                let (last, _) = self.ring.used(at.index);
                back = order.up_to(last.into(), usize::MAX).unwrap_or(nth);
            }
            if nth >= back {
                break;
            }
            at = at.advance(self.shadow[usize::from(id)].count, self.ring.size());
        }
        at
    }

    /// A chain has come back and was not popped.
    #[inline]
    fn has_come_back(&self) -> bool {
        let known = self.order.as_ref().is_some_and(|order| order.back() > 0);
        known || self.is_used(self.used)
    }

    /// What is at `at` has come back.
    #[inline]
    fn is_used(&self, at: Position) -> bool {
        let flags = self.ring.flags(at.index);
        [desc::F_AVAIL, desc::F_USED].map(|flag| (flags & flag != 0) == at.wrap) == [true, true]
    }
}

/// The descriptor of `segment`.
#[inline]
fn descriptor(segment: &Segment, id: u16) -> PackedDescriptor {
    PackedDescriptor {
        addr: segment.addr,
        len: segment.len,
        id,
        flags: write_flag(segment),
    }
}

#[inline]
fn write_flag(segment: &Segment) -> u16 {
    if segment.device_writes {
        desc::F_WRITE
    } else {
        0
    }
}

impl DriverQueue for PackedQueue {
    fn size(&self) -> u16 {
        self.ring.size()
    }

    fn addresses(&self) -> RingAddresses {
        self.ring.addresses()
    }

    fn base(&self) -> u32 {
        u32::from(self.shown.to_bits()) | u32::from(self.used.to_bits()) << 16
    }

    fn resume_base(&self) -> u32 {
        let at = match &self.order {
            Some(order) => self.end_of_batches(order),
            None => self.end_of_used(),
        };
        u32::from(at.to_bits()) | u32::from(at.to_bits()) << 16
    }

    fn free(&self) -> u16 {
        self.free
    }

    fn outstanding(&self) -> u16 {
        self.outstanding
    }

    #[inline]
    fn add(&mut self, chain: &[Segment], token: u32) -> Result<bool, QueueError> {
        let too_long = || QueueError::Chain(chain.len(), self.ring.size());
        let Some(&id) = self.ids.last().filter(|_| self.free > 0) else {
            return Ok(false);
        };
        let table = self.fill_table(id, chain);
        let count = match table {
            Some(_) => 1,
            None => u16::try_from(chain.len()).map_err(|_| too_long())?,
        };
        if count == 0 || count > self.ring.size() {
            return Err(too_long());
        }
        if count > self.free {
            return Ok(false);
        }
        match table {
            Some(descriptor) => self.put(&descriptor),
            None => {
                for (nth, segment) in (1..).zip(chain) {
                    let more = if nth < count { desc::F_NEXT } else { 0 };
                    let mut descriptor = descriptor(segment, id);
                    descriptor.flags |= more;
                    self.put(&descriptor);
                }
            }
        }
        self.ids.pop();
        self.free -= count;
        self.outstanding += 1;
        let shadow = &mut self.shadow[usize::from(id)];
        (shadow.count, shadow.token) = (count, token);
        if let Some(order) = &mut self.order {
            shadow.room = room(chain);
            order.add(id);
        }
        Ok(true)
    }

    #[inline]
    fn publish(&mut self) -> bool {
        let (old, new) = (self.shown, self.next);
        if old == new {
            return false;
        }
        self.ring.set_flags(old.index, self.first_flags);
        self.shown = new;
        // The chains must be out before the device's wish is read: the device
        // writes its wish and then looks at the ring once more.
        fence(Ordering::SeqCst);
        match self.ring.device_event() {
            (wish, _) if wish & event::MASK == event::DISABLE => false,
            (wish, at) if wish & event::MASK == event::DESC && self.event_idx => {
                new.passes(at, old, self.ring.size())
            }
            _ => true,
        }
    }

    #[inline]
    fn pop(&mut self) -> Result<Option<Completion>, QueueError> {
        if !self.has_come_back() {
            return Ok(None);
        }
        let used = || self.ring.used(self.used.index);
        let (id, len) = match &mut self.order {
            Some(order) => order.pop(usize::MAX, || {
                let (id, len) = used();
                (id.into(), len)
            })?,
            None => {
                let (id, len) = used();
                (id, Some(len))
            }
        };
        let shadow = self.shadow.get_mut(usize::from(id));
        let Some(shadow) = shadow.filter(|shadow| shadow.count != 0) else {
            return Err(QueueError::UsedId { id: id.into() });
        };
        let Shadow { count, token, room } = *shadow;
        let len = len.unwrap_or(room);
        shadow.count = 0;
        self.used = self.used.advance(count, self.ring.size());
        self.free += count;
        self.outstanding -= 1;
        self.ids.push(id);
        Ok(Some(Completion { token, len }))
    }

    fn enable_interrupts(&mut self) -> bool {
        self.enable_interrupts_after(1)
    }

    fn enable_interrupts_after(&mut self, count: u16) -> bool {
        let mut at = self.used;
        let wish = if self.event_idx {
            // As if all chains had one descriptor: longer ones are told of
            // earlier than wished, never later.
            let further = (count.max(1) - 1).min(self.ring.size() - 1);
            at = at.advance(further, self.ring.size());
            event::DESC
        } else {
            event::ENABLE
        };
        self.ring.set_driver_event(wish, at);
        // The wish must be out before the ring is looked at once more: the
        // device uses a chain and then reads the wish.
        fence(Ordering::SeqCst);
        match self.order {
            // One of a batch that came back as a whole may not show it.
            Some(_) => self.has_come_back(),
            None => self.is_used(at),
        }
    }

    fn disable_interrupts(&mut self) {
        self.ring.set_driver_event(event::DISABLE, self.used);
    }

    fn reset(&mut self) {
        self.ring.clear();
        for shadow in &mut self.shadow {
            shadow.count = 0;
        }
        if let Some(order) = &mut self.order {
            order.clear();
        }
        self.ids.clear();
        self.ids.extend((0..self.ring.size()).rev());
        self.free = self.ring.size();
        self.outstanding = 0;
        self.next = Position::START;
        self.shown = Position::START;
        self.used = Position::START;
    }
}
