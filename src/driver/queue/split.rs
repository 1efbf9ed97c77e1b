//! The driver's side of the split virtqueue (section 2.7).

use std::sync::atomic::Ordering;

use super::in_order::{InOrder, room};
use super::{Completion, Descriptor, DriverQueue, QueueError, QueueOptions, Segment, SplitRing};
use crate::driver::memory::{Area, DriverMemory};
use crate::virtio::queue::RingAddresses;
use crate::virtio::spec::{AVAIL_F_NO_INTERRUPT, USED_F_NO_NOTIFY, desc};
use crate::word::fence;

/// What the driver knows of one descriptor. The device can write to the ring
/// but not here.
#[derive(Clone, Copy, Debug)]
struct Shadow {
    /// The next descriptor, of the chain or of the free list.
    next: u16,
    /// Of a chain's head: its last descriptor.
    tail: u16,
    /// Of a chain's head: how many descriptors it has; 0: not a head.
    count: u16,
    /// Of a chain's head: what the caller remembers.
    token: u32,
    /// Of a chain's head, where the device uses chains in order: the bytes
    /// that it can write.
    room: u32,
}

/// The driver's side of a split ring.
#[derive(Debug)]
pub struct SplitQueue {
    ring: SplitRing,
    event_idx: bool,
    /// The chains that the device has, if it uses them in order. Descriptors
    /// are then used in ring order.
    order: Option<InOrder>,
    /// An indirect table of `table_len` entries for each descriptor.
    tables: Option<Area>,
    table_len: u16,
    shadow: Box<[Shadow]>,
    free_head: u16,
    free: u16,
    outstanding: u16,
    /// Where the next chain is added.
    avail_next: u16,
    /// Available index that the device sees.
    avail_shown: u16,
    /// Next used entry to read.
    used_next: u16,
    /// Used index when it was last read.
    used_end: u16,
}

impl SplitQueue {
    /// A queue of `size` entries, which with its indirect tables is allocated
    /// in `memory`.
    ///
    /// # Errors
    /// When `size` is not allowed or the memory is full.
    pub fn new(
        memory: &mut DriverMemory,
        size: u16,
        options: QueueOptions,
    ) -> Result<Self, QueueError> {
        let ring = SplitRing::new(memory, size)?;
        let table = usize::from(options.indirect) * Descriptor::LEN;
        let tables = match table {
            0 => None,
            len => Some(memory.allocate(len * usize::from(size), 64)?),
        };
        let shadow = Shadow {
            next: 0,
            tail: 0,
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
            free_head: 0,
            free: size,
            outstanding: 0,
            avail_next: 0,
            avail_shown: 0,
            used_next: 0,
            used_end: 0,
        };
        queue.reset();
        Ok(queue)
    }

    /// The ring's memory, to read, or to write what no driver should.
    pub fn ring(&self) -> &SplitRing {
        &self.ring
    }

    /// Lets the threads of a model share the ring, and begins at `index`.
    #[cfg(loom)]
    pub fn share(&mut self, index: u16) {
        self.ring.share(index);
        self.avail_next = index;
        self.avail_shown = index;
        self.used_next = index;
        self.used_end = index;
    }

    /// Where entry `index`'s indirect table begins in `tables`, in bytes.
    fn table_start(&self, index: u16) -> usize {
        usize::from(index) * usize::from(self.table_len) * Descriptor::LEN
    }

    /// Fills in the indirect table of descriptor `head`; `None` when the chain
    /// is to be laid out in the ring.
    fn add_indirect(&self, head: u16, chain: &[Segment]) -> Option<Descriptor> {
        let tables = self.tables.as_ref()?;
        if chain.len() < 2 || chain.len() > usize::from(self.table_len) {
            return None;
        }
        let start = self.table_start(head);
        let mut next = 0;
        for segment in chain {
            next += 1;
            let more = usize::from(next) < chain.len();
            let descriptor = descriptor(segment, more.then_some(next));
            descriptor.write_to(tables, start + usize::from(next - 1) * Descriptor::LEN);
        }
        Some(Descriptor {
            addr: tables.guest_addr(start),
            len: u32::from(next) * u32::try_from(Descriptor::LEN).unwrap_or(0),
            flags: desc::F_INDIRECT,
            next: 0,
        })
    }

    /// Looks whether anything has come back since the used index was last
    /// read.
    #[inline]
    fn look(&mut self) -> bool {
        self.used_end = self.ring.used_index();
        self.used_end != self.used_next
    }
}

/// The descriptor of `segment`, chained to `next`.
#[inline]
fn descriptor(segment: &Segment, next: Option<u16>) -> Descriptor {
    let write = if segment.device_writes {
        desc::F_WRITE
    } else {
        0
    };
    Descriptor {
        addr: segment.addr,
        len: segment.len,
        flags: write | if next.is_some() { desc::F_NEXT } else { 0 },
        next: next.unwrap_or(0),
    }
}

impl DriverQueue for SplitQueue {
    fn size(&self) -> u16 {
        self.ring.size()
    }

    fn addresses(&self) -> RingAddresses {
        self.ring.addresses()
    }

    fn base(&self) -> u32 {
        self.avail_shown.into()
    }

    fn resume_base(&self) -> u32 {
        self.ring.used_index().into()
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
        if self.free == 0 {
            return Ok(false);
        }
        let head = self.free_head;
        let (count, tail) = if let [segment] = chain {
            self.ring.set_descriptor(head, descriptor(segment, None));
            (1, head)
        } else if let Some(table) = self.add_indirect(head, chain) {
            self.ring.set_descriptor(head, table);
            (1, head)
        } else {
            let count = u16::try_from(chain.len()).map_err(|_| too_long())?;
            if count == 0 || count > self.ring.size() {
                return Err(too_long());
            }
            if count > self.free {
                return Ok(false);
            }
            let (mut at, mut tail) = (head, head);
            for (i, segment) in chain.iter().enumerate() {
                tail = at;
                at = self.shadow[usize::from(at)].next;
                let next = (i + 1 < chain.len()).then_some(at);
                self.ring.set_descriptor(tail, descriptor(segment, next));
            }
            (count, tail)
        };
        self.free_head = self.shadow[usize::from(tail)].next;
        self.free -= count;
        self.outstanding += 1;
        let shadow = &mut self.shadow[usize::from(head)];
        shadow.tail = tail;
        shadow.count = count;
        shadow.token = token;
        if let Some(order) = &mut self.order {
            shadow.room = room(chain);
            order.add(head);
        }
        self.ring.set_avail(self.avail_next, head);
        self.avail_next = self.avail_next.wrapping_add(1);
        Ok(true)
    }

    #[inline]
    fn publish(&mut self) -> bool {
        let (old, new) = (self.avail_shown, self.avail_next);
        if old == new {
            return false;
        }
        self.ring.set_avail_index(new);
        self.avail_shown = new;
        // The index must be out before the device's wish is read: the device
        // writes its wish and then reads the index once more.
        fence(Ordering::SeqCst);
        if self.event_idx {
            // Section 2.7.10: did the index step over the one wished for?
            let event = self.ring.avail_event();
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.ring.used_flags() & USED_F_NO_NOTIFY == 0
        }
    }

    #[inline]
    fn pop(&mut self) -> Result<Option<Completion>, QueueError> {
        if self.used_next == self.used_end && !self.look() {
            return Ok(None);
        }
        let given = self.outstanding - self.avail_next.wrapping_sub(self.avail_shown);
        if self.used_end.wrapping_sub(self.used_next) > given {
            return Err(QueueError::UsedIndex {
                used: self.used_end,
                from: self.used_next,
                given,
            });
        }
        let used = || self.ring.used(self.used_next);
        let (head, len) = match &mut self.order {
            Some(order) => {
                let come = self.used_end.wrapping_sub(self.used_next);
                order.pop(come.into(), used)?
            }
            None => {
                let (id, len) = used();
                let given = |head: &u16| {
                    let shadow = self.shadow.get(usize::from(*head));
                    shadow.is_some_and(|shadow| shadow.count != 0)
                };
                let head = u16::try_from(id).ok().filter(given);
                (head.ok_or(QueueError::UsedId { id })?, Some(len))
            }
        };
        self.used_next = self.used_next.wrapping_add(1);
        let shadow = &mut self.shadow[usize::from(head)];
        let token = shadow.token;
        let len = len.unwrap_or(shadow.room);
        self.free += shadow.count;
        shadow.count = 0;
        if self.order.is_none() {
            let tail = shadow.tail;
            self.shadow[usize::from(tail)].next = self.free_head;
            self.free_head = head;
        }
        self.outstanding -= 1;
        Ok(Some(Completion { token, len }))
    }

    fn enable_interrupts(&mut self) -> bool {
        self.enable_interrupts_after(1)
    }

    fn enable_interrupts_after(&mut self, count: u16) -> bool {
        let mut ready = 1;
        if self.event_idx {
            ready = count.max(1);
            self.ring
                .set_used_event(self.used_next.wrapping_add(ready).wrapping_sub(1));
        } else {
            self.ring.set_avail_flags(0);
        }
        // The wish must be out before the index is read once more: the device
        // writes the index and then reads the wish.
        fence(Ordering::SeqCst);
        self.look();
        self.used_end.wrapping_sub(self.used_next) >= ready
    }

    fn disable_interrupts(&mut self) {
        if self.event_idx {
            // As far from the next used index as there is.
            self.ring
                .set_used_event(self.used_next.wrapping_add(0x8000));
        } else {
            self.ring.set_avail_flags(AVAIL_F_NO_INTERRUPT);
        }
    }

    fn reset(&mut self) {
        self.ring.clear();
        let size = self.ring.size();
        for (next, shadow) in (1..=size).zip(self.shadow.iter_mut()) {
            shadow.next = next % size;
            shadow.count = 0;
        }
        if let Some(order) = &mut self.order {
            order.clear();
        }
        self.free_head = 0;
        self.free = size;
        self.outstanding = 0;
        self.avail_next = 0;
        self.avail_shown = 0;
        self.used_next = 0;
        self.used_end = 0;
    }
}
