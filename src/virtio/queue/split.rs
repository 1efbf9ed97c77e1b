//! The split virtqueue (section 2.7).

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::descriptor::{DESC, Table, Walk};
use super::{
    Chain, ChainFault, Parts, Pop, RingAddresses, RingError, RingFeatures, SetupError, VirtQueue,
    place,
};
use crate::virtio::memory::{GuestMemory, View};
use crate::virtio::spec::{AVAIL_F_NO_INTERRUPT, MAX_QUEUE_SIZE, USED_F_NO_NOTIFY, desc};
use crate::word::{self, fence};

/// How many chains before its turn a descriptor is fetched: it has just been
/// written by another processor.
const AHEAD: u16 = 12;

/// The device's side of a split ring.
///
/// The three pointers were looked up in `memory`, which is kept for as long:
/// `size` descriptors at `desc`; flags, index, `size` entries and one event
/// index at `avail` and at `used`, aligned as section 2.7 says.
pub struct SplitQueue {
    desc: Table,
    avail: NonNull<u8>,
    used: NonNull<u8>,
    size: u16,
    features: RingFeatures,
    /// Next entry of the available ring to take.
    next_avail: u16,
    /// The driver's available index when it was last read.
    avail_end: u16,
    /// Used position of a chain minus its available index: chains come back in
    /// the order in which they were taken.
    used_offset: u16,
    /// The used index that the driver sees.
    used_idx: u16,
    /// The most chains that were available and not used yet.
    most_offered: u16,
    /// The used index when the driver was last asked whether to interrupt.
    signalled: Option<u16>,
    /// Which memory region the last buffer was in.
    hint: usize,
    _memory: Arc<GuestMemory>,
}

// SAFETY: the pointers belong to `_memory`, which may be used from any thread;
// everything mutable is behind `&mut self`, but for used entries, which are
// guest memory.
unsafe impl Send for SplitQueue {}

impl SplitQueue {
    /// # Safety
    /// `offset` must be even and two bytes below the end of that part.
    #[inline]
    unsafe fn load(part: NonNull<u8>, offset: usize) -> u16 {
        // SAFETY: by contract; parts are at least 2-aligned.
        u16::from_le(unsafe { word::load(part.add(offset).cast().as_ptr()) })
    }

    /// # Safety
    /// As for `load`.
    #[inline]
    unsafe fn store(part: NonNull<u8>, offset: usize, value: u16) {
        // SAFETY: by contract; parts are at least 2-aligned.
        unsafe { word::store(part.add(offset).cast().as_ptr(), value.to_le()) }
    }

    /// Where entry `index` is in a ring.
    #[inline]
    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    /// Reads how far the driver has got; returns how many chains are waiting.
    #[inline]
    fn refresh(&mut self) -> Result<u16, RingError> {
        // SAFETY: the index is the second word of the available ring.
        let avail = unsafe { Self::load(self.avail, 2) };
        let waiting = avail.wrapping_sub(self.next_avail);
        if waiting > self.size {
            return Err(RingError::AvailIndex {
                avail,
                ours: self.next_avail,
                size: self.size,
            });
        }
        // Entries and descriptors are read after the index that covers them.
        fence(Ordering::Acquire);
        self.avail_end = avail;
        // A driver may lie about how many it has given; it fools itself.
        let used = self.used_idx.wrapping_sub(self.used_offset);
        let offered = avail.wrapping_sub(used).min(self.size);
        self.most_offered = self.most_offered.max(offered);
        Ok(waiting)
    }

    /// Writes the used entry at index `at`.
    #[inline]
    fn write_used(&self, at: u16, head: u16, len: u32) {
        let offset = 4 + 8 * self.slot(at);
        // SAFETY: an entry inside the used ring, which is 4-aligned.
        unsafe {
            let entry = self.used.add(offset).cast::<[u32; 2]>();
            let new = [u32::from(head).to_le(), len.to_le()];
            // A ring often goes round with the same entries; a line that is
            // not written stays in the driver's cache.
            if word::load(entry.as_ptr()) != new {
                word::store(entry.as_ptr(), new);
            }
        }
    }

    /// Follows the chain from `head` and pushes its buffers.
    #[inline]
    fn walk<'m>(
        &mut self,
        head: u16,
        memory: &'m GuestMemory,
        parts: &mut impl Parts<'m>,
    ) -> Result<(), ChainFault> {
        let mut table = self.desc;
        let mut index = head;
        let mut walk = Walk::new(self.size);
        loop {
            let descriptor = table.read(index).ok_or(ChainFault::Next)?;
            walk.step()?;
            let (flags, next) = descriptor.split();
            if flags & desc::F_INDIRECT != 0 {
                if walk.indirect || !self.features.indirect || flags & desc::F_NEXT != 0 {
                    return Err(ChainFault::Indirect);
                }
                table = Table::indirect(memory, &descriptor, &mut self.hint)?;
                walk.enter(&table);
                index = 0;
                continue;
            }
            walk.buffer(&descriptor, flags, memory, &mut self.hint, parts)?;
            if flags & desc::F_NEXT == 0 {
                return Ok(());
            }
            index = next;
        }
    }
}

impl VirtQueue for SplitQueue {
    fn new(
        memory: Arc<GuestMemory>,
        size: u16,
        at: RingAddresses,
        base: u32,
        features: RingFeatures,
    ) -> Result<Self, SetupError> {
        if !size.is_power_of_two() || size > MAX_QUEUE_SIZE {
            return Err(SetupError::Size(size));
        }
        let base = u16::try_from(base).map_err(|_| SetupError::Base(base))?;
        // The event index at the end is there only when negotiated.
        let event = if features.event_idx { 2 } else { 0 };
        let entries = u64::from(size);
        let table = u64::from(DESC) * entries;
        let desc = place(&memory, "descriptor table", at.desc, 16, table)?;
        let avail = place(
            &memory,
            "available ring",
            at.avail,
            2,
            4 + 2 * entries + event,
        )?;
        let used = place(&memory, "used ring", at.used, 4, 4 + 8 * entries + event)?;
        // SAFETY: the index is the second word of the used ring.
        let used_idx = unsafe { Self::load(used, 2) };
        if features.event_idx {
            // With the event index, the flags must be 0 (2.7.10.1).
            // SAFETY: the flags are the first word of the used ring.
            unsafe { Self::store(used, 0, 0) };
        }
        Ok(Self {
            // SAFETY: the look-up proved them, in `memory`, which is kept.
            desc: unsafe { Table::new(desc, size) },
            avail,
            used,
            size,
            features,
            next_avail: base,
            avail_end: base,
            used_offset: used_idx.wrapping_sub(base),
            used_idx,
            most_offered: 0,
            signalled: None,
            hint: 0,
            _memory: memory,
        })
    }

    #[inline]
    fn pop<'m>(
        &mut self,
        memory: &'m GuestMemory,
        parts: &mut impl Parts<'m>,
    ) -> Result<Pop, RingError> {
        if self.next_avail == self.avail_end && self.refresh()? == 0 {
            return Ok(Pop::Empty);
        }
        // SAFETY: an entry inside the available ring.
        let head = unsafe { Self::load(self.avail, 4 + 2 * self.slot(self.next_avail)) };
        if head >= self.size {
            return Err(RingError::Head {
                head,
                size: self.size,
            });
        }
        let chain = Chain {
            head,
            at: self.next_avail.wrapping_add(self.used_offset),
        };
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(match self.walk(head, memory, parts) {
            Ok(()) => Pop::Chain(chain),
            Err(fault) => Pop::Bad(chain, fault),
        })
    }

    #[inline]
    fn pop_lone<'m, V: View<'m>>(
        &mut self,
        memory: &'m GuestMemory,
        most: usize,
        mut take: impl FnMut(Chain, V),
    ) -> Result<usize, RingError> {
        if self.next_avail == self.avail_end {
            self.refresh()?;
        }
        let Some(window) = memory.window(self.hint) else {
            return Ok(0);
        };
        let waiting = self.avail_end.wrapping_sub(self.next_avail);
        let most = u16::try_from(most).map_or(waiting, |most| most.min(waiting));
        let mut taken = 0;
        while taken < most {
            let index = self.next_avail.wrapping_add(taken);
            if waiting - taken > AHEAD {
                let ahead = self.slot(index.wrapping_add(AHEAD));
                // SAFETY: an entry inside the available ring.
                self.desc
                    .prefetch(unsafe { Self::load(self.avail, 4 + 2 * ahead) });
            }
            // SAFETY: as above.
            let head = unsafe { Self::load(self.avail, 4 + 2 * self.slot(index)) };
            let descriptor = self.desc.read(head);
            let Some(view) = descriptor.and_then(|descriptor| {
                let (flags, _) = descriptor.split();
                descriptor.lone(flags, &window)
            }) else {
                break;
            };
            let at = index.wrapping_add(self.used_offset);
            take(Chain { head, at }, view);
            taken += 1;
        }
        self.next_avail = self.next_avail.wrapping_add(taken);
        Ok(taken.into())
    }

    #[inline]
    fn unpop(&mut self, chain: Chain) {
        self.next_avail = chain.at.wrapping_sub(self.used_offset);
    }

    #[inline]
    fn put_used(&mut self, chain: Chain, len: u32) {
        self.write_used(chain.at, chain.head, len);
    }

    #[inline]
    fn put_batch_used(&mut self, chains: &[Chain]) {
        match chains {
            [first, .., last] if self.features.in_order => {
                self.write_used(first.at, last.head, 0);
            }
            _ => self.put_all_used(chains.iter().map(|&chain| (chain, 0))),
        }
    }

    #[inline]
    fn publish(&mut self, count: u16) {
        self.used_idx = self.used_idx.wrapping_add(count);
        // The entries and the buffers are written before the index that
        // covers them.
        fence(Ordering::Release);
        // SAFETY: the index is the second word of the used ring.
        unsafe { Self::store(self.used, 2, self.used_idx) };
    }

    fn wants_interrupt(&mut self) -> bool {
        // The index is published before the driver's wish is read (2.7.7.2).
        fence(Ordering::SeqCst);
        let before = self.signalled.replace(self.used_idx);
        if before == Some(self.used_idx) {
            return false;
        }
        if self.features.notify_on_empty {
            // SAFETY: the index is the second word of the available ring.
            let avail = unsafe { Self::load(self.avail, 2) };
            if avail == self.next_avail {
                return true;
            }
        }
        if !self.features.event_idx {
            // SAFETY: the flags are the first word of the available ring.
            let flags = unsafe { Self::load(self.avail, 0) };
            return flags & AVAIL_F_NO_INTERRUPT == 0;
        }
        let Some(before) = before else {
            return true;
        };
        // SAFETY: with EVENT_IDX, used_event follows the available entries.
        let event = unsafe { Self::load(self.avail, 4 + 2 * usize::from(self.size)) };
        let since_event = self.used_idx.wrapping_sub(event).wrapping_sub(1);
        since_event < self.used_idx.wrapping_sub(before)
    }

    fn enable_kicks(&mut self, beyond: u16) -> Result<bool, RingError> {
        self.refresh()?;
        // SAFETY: avail_event follows the used entries with EVENT_IDX; else
        // the flags are the first word of the used ring.
        unsafe {
            if self.features.event_idx {
                let event = 4 + 8 * usize::from(self.size);
                Self::store(self.used, event, self.avail_end);
            } else {
                Self::store(self.used, 0, 0);
            }
        }
        // The wish is visible before the index is read again (2.7.10.1).
        fence(Ordering::SeqCst);
        Ok(self.refresh()? > beyond)
    }

    fn disable_kicks(&mut self) {
        // With EVENT_IDX the old event index stays: the driver passes it once.
        if !self.features.event_idx {
            // SAFETY: the flags are the first word of the used ring.
            unsafe { Self::store(self.used, 0, USED_F_NO_NOTIFY) };
        }
    }

    fn base(&self) -> u32 {
        self.next_avail.into()
    }

    fn most_offered(&self) -> u16 {
        self.most_offered
    }
}
