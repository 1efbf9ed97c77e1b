//! The split virtqueue (section 2.7).

use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::{
    Chain, ChainFault, Parts, Pop, RingAddresses, RingError, RingFeatures, SetupError, VirtQueue,
};
use crate::virtio::memory::{GuestMemory, Readable, Writable};
use crate::virtio::spec::{AVAIL_F_NO_INTERRUPT, MAX_QUEUE_SIZE, USED_F_NO_NOTIFY, desc};

/// Bytes of a descriptor.
const DESC: u16 = 16;
/// Most descriptors of a chain, empty ones included, so that a chain is never
/// long work. No driver comes near.
const MAX_CHAIN: u16 = 288;

/// A descriptor, read once.
#[derive(Clone, Copy)]
struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// A descriptor table that lies in guest memory: the ring's own or an indirect
/// one.
#[derive(Clone, Copy)]
struct Table {
    base: NonNull<u8>,
    entries: u16,
}

impl Table {
    /// Reads entry `index`, or nothing when there is no such entry.
    #[inline]
    fn read(&self, index: u16) -> Option<Descriptor> {
        if index >= self.entries {
            return None;
        }
        // SAFETY: `entries` descriptors lie at `base` (proved when the table
        // was made), and `index` is one of them.
        let at = unsafe { self.base.add(usize::from(index) * usize::from(DESC)) };
        let words: [u64; 2] = if at.cast::<u64>().is_aligned() {
            // SAFETY: 16 mapped bytes, aligned for u64.
            unsafe { ptr::read_volatile(at.cast().as_ptr()) }
        } else {
            // SAFETY: 16 mapped bytes; bytes need no alignment. Only an
            // indirect table can be this way.
            let raw: [u8; 16] = unsafe { ptr::read_volatile(at.cast().as_ptr()) };
            let half = |from| u64::from_ne_bytes(std::array::from_fn(|i| raw[from + i]));
            [half(0), half(8)]
        };
        let [addr, rest] = words.map(u64::from_le);
        #[expect(clippy::cast_possible_truncation, reason = "fields of the word")]
        Some(Descriptor {
            addr,
            len: rest as u32,
            flags: (rest >> 32) as u16,
            next: (rest >> 48) as u16,
        })
    }
}

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
        u16::from_le(unsafe { ptr::read_volatile(part.add(offset).cast().as_ptr()) })
    }

    /// # Safety
    /// As for `load`.
    #[inline]
    unsafe fn store(part: NonNull<u8>, offset: usize, value: u16) {
        // SAFETY: by contract; parts are at least 2-aligned.
        unsafe { ptr::write_volatile(part.add(offset).cast().as_ptr(), value.to_le()) }
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
        let mut left = table.entries.min(MAX_CHAIN);
        let mut indirect = false;
        let mut written = false;
        loop {
            let desc = table.read(index).ok_or(ChainFault::Next)?;
            left = left.checked_sub(1).ok_or(ChainFault::Loop)?;
            if desc.flags & desc::F_INDIRECT != 0 {
                if indirect || !self.features.indirect || desc.flags & desc::F_NEXT != 0 {
                    return Err(ChainFault::Indirect);
                }
                indirect = true;
                table = self.indirect(memory, &desc)?;
                index = 0;
                left = table.entries.min(MAX_CHAIN);
                continue;
            }
            let writable = desc.flags & desc::F_WRITE != 0;
            if written && !writable {
                return Err(ChainFault::Order);
            }
            written = writable;
            let mut refused = false;
            memory
                .pieces(desc.addr, desc.len, &mut self.hint, |at, len| {
                    let taken = if writable {
                        // SAFETY: the look-up proved these bytes, in a snapshot
                        // that lives for 'm.
                        parts.writable(unsafe { Writable::new(at, len) })
                    } else {
                        // SAFETY: as above.
                        parts.readable(unsafe { Readable::new(at, len) })
                    };
                    refused = taken.is_none();
                    taken
                })
                .ok_or(if refused {
                    ChainFault::TooLong
                } else {
                    ChainFault::Unmapped
                })?;
            if desc.flags & desc::F_NEXT == 0 {
                return Ok(());
            }
            index = desc.next;
        }
    }

    /// The table that an indirect descriptor names (2.7.5.3).
    fn indirect(&mut self, memory: &GuestMemory, desc: &Descriptor) -> Result<Table, ChainFault> {
        let entries =
            u16::try_from(desc.len / u32::from(DESC)).map_err(|_| ChainFault::Indirect)?;
        if entries == 0 || desc.len % u32::from(DESC) != 0 {
            return Err(ChainFault::Indirect);
        }
        let mut base = None;
        memory
            .pieces(desc.addr, desc.len, &mut self.hint, |at, len| {
                base = Some(at);
                // A table that is not in one piece cannot be indexed.
                (len == desc.len).then_some(())
            })
            .and(base)
            .map(|base| Table { base, entries })
            .ok_or(ChainFault::Unmapped)
    }
}

impl VirtQueue for SplitQueue {
    fn new(
        memory: Arc<GuestMemory>,
        size: u16,
        at: RingAddresses,
        base: u16,
        features: RingFeatures,
    ) -> Result<Self, SetupError> {
        if !size.is_power_of_two() || size > MAX_QUEUE_SIZE {
            return Err(SetupError::Size(size));
        }
        let part = |name, addr: u64, align: u64, len: u64| {
            if addr % align != 0 {
                return Err(SetupError::Alignment(name, addr, align));
            }
            let host = memory
                .user_range(addr, len)
                .ok_or(SetupError::Unmapped(name, addr))?;
            // A region may begin anywhere in its descriptor, so its front-end
            // address and ours need not be aligned alike.
            if host.addr().get() as u64 % align != 0 {
                return Err(SetupError::Alignment(name, addr, align));
            }
            Ok(host)
        };
        // The event index at the end is there only when negotiated.
        let event = if features.event_idx { 2 } else { 0 };
        let entries = u64::from(size);
        let desc = part("descriptor table", at.desc, 16, 16 * entries)?;
        let avail = part("available ring", at.avail, 2, 4 + 2 * entries + event)?;
        let used = part("used ring", at.used, 4, 4 + 8 * entries + event)?;
        // SAFETY: the index is the second word of the used ring.
        let used_idx = unsafe { Self::load(used, 2) };
        if features.event_idx {
            // With the event index, the flags must be 0 (2.7.10.1).
            // SAFETY: the flags are the first word of the used ring.
            unsafe { Self::store(used, 0, 0) };
        }
        Ok(Self {
            desc: Table {
                base: desc,
                entries: size,
            },
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
    fn unpop(&mut self, chain: Chain) {
        self.next_avail = chain.at.wrapping_sub(self.used_offset);
    }

    #[inline]
    fn put_used(&self, chain: Chain, len: u32) {
        let offset = 4 + 8 * self.slot(chain.at);
        // SAFETY: an entry inside the used ring, which is 4-aligned.
        unsafe {
            let entry = self.used.add(offset).cast::<u32>();
            ptr::write_volatile(entry.as_ptr(), u32::from(chain.head).to_le());
            ptr::write_volatile(entry.add(1).as_ptr(), len.to_le());
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

    fn enable_kicks(&mut self) -> Result<u16, RingError> {
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
        self.refresh()
    }

    fn disable_kicks(&mut self) {
        // With EVENT_IDX the old event index stays: the driver passes it once.
        if !self.features.event_idx {
            // SAFETY: the flags are the first word of the used ring.
            unsafe { Self::store(self.used, 0, USED_F_NO_NOTIFY) };
        }
    }

    fn base(&self) -> u16 {
        self.next_avail
    }

    fn most_offered(&self) -> u16 {
        self.most_offered
    }
}
