//! The packed virtqueue (section 2.8).
//!
//! Driver and device write into one ring of descriptors, each behind its own
//! wrap counter. A chain is a run of descriptors; it comes back as one, written
//! over the first of them. Chains come back in the order in which they were
//! taken, so a chain's used descriptor goes where the chain began.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::descriptor::{DESC, Descriptor, Table, Walk};
use super::{
    Chain, ChainFault, Parts, Pop, Position, RingAddresses, RingError, RingFeatures, SetupError,
    VirtQueue, place,
};
use crate::virtio::memory::{GuestMemory, View};
use crate::virtio::spec::{MAX_QUEUE_SIZE, desc, event};
use crate::word::{self, fence};

/// The device's side of a packed ring.
///
/// The three pointers were looked up in `memory`, which is kept for as long:
/// `size` descriptors in `ring`, and four bytes of event suppression each at
/// `driver_event` and at `device_event`, aligned as section 2.8 says.
pub struct PackedQueue {
    ring: Table,
    /// Where `ring` begins, for writing.
    base: NonNull<u8>,
    driver_event: NonNull<u8>,
    device_event: NonNull<u8>,
    size: u16,
    features: RingFeatures,
    /// The next chain to take.
    next: Position,
    /// The next used descriptor to publish.
    used: Position,
    /// Descriptors and chains that were taken and not published.
    held: u16,
    held_chains: u16,
    /// Chains among them that have more than one descriptor.
    held_long: u16,
    /// How many descriptors a chain that was taken has, by the index of its
    /// first.
    taken: Box<[u16]>,
    /// What goes over the next used descriptor to publish: with that, the
    /// driver sees it and what is behind it.
    first: u64,
    /// The most chains that were available and not used yet, counted once in
    /// each passage of the ring.
    most_offered: u16,
    /// The chains have not been counted since the ring was passed.
    count_due: bool,
    /// Where `used` was when the driver was last asked whether to interrupt.
    signalled: Option<Position>,
    /// Which memory region the last buffer was in.
    hint: usize,
    _memory: Arc<GuestMemory>,
}

// SAFETY: the pointers belong to `_memory`, which may be used from any thread;
// everything is behind `&mut self`.
unsafe impl Send for PackedQueue {}

/// Where length, buffer ID and flags are in a descriptor: the half that says
/// that it is used.
const USED: usize = 8;
/// Where its flags are.
const FLAGS: usize = 14;

impl PackedQueue {
    /// The base of a ring that nothing was put into yet.
    pub const START: u32 = 0x8000_8000;

    /// Where field `field` of descriptor `index` is.
    #[inline]
    fn field(&self, index: u16, field: usize) -> NonNull<u8> {
        let offset = usize::from(index) * usize::from(DESC) + field;
        // SAFETY: positions are below `size`, and `size` descriptors of 16
        // bytes were looked up.
        unsafe { self.base.add(offset) }
    }

    #[inline]
    fn flags(&self, index: u16) -> u16 {
        // SAFETY: two mapped bytes of a descriptor, aligned with it.
        u16::from_le(unsafe { word::load(self.field(index, FLAGS).cast().as_ptr()) })
    }

    /// What says that the chain `id`, which began at `at`, is used and has
    /// `len` bytes (2.8.1, 2.8.3).
    #[inline]
    fn used_half(id: u16, at: Position, len: u32) -> u64 {
        let wrap = if at.wrap {
            desc::F_AVAIL | desc::F_USED
        } else {
            0
        };
        let write = if len > 0 { desc::F_WRITE } else { 0 };
        u64::from(len) | u64::from(id) << 32 | u64::from(wrap | write) << 48
    }

    /// Hands back the chain that began at descriptor `index`, in one store: the
    /// driver looks at this line all the time, and would take it away between
    /// two.
    #[inline]
    fn write_used(&self, index: u16, half: u64) {
        // SAFETY: eight mapped bytes of a descriptor, aligned to eight.
        unsafe { word::store(self.field(index, USED).cast().as_ptr(), half.to_le()) }
    }

    /// The driver has made what is at `at` available (2.8.1).
    #[inline]
    fn is_available(&self, at: Position) -> bool {
        let flags = self.flags(at.index);
        let [avail, used] = [desc::F_AVAIL, desc::F_USED].map(|flag| flags & flag != 0);
        avail == at.wrap && used != at.wrap
    }

    /// One of the two words of an event suppression structure: the place, then
    /// what is asked for.
    #[inline]
    fn event_word(&self, word: usize) -> u16 {
        // SAFETY: four mapped bytes, aligned to four.
        u16::from_le(unsafe { word::load(self.driver_event.cast::<u16>().add(word).as_ptr()) })
    }

    #[inline]
    fn set_event_word(&self, word: usize, value: u16) {
        // SAFETY: as for `event_word`.
        unsafe {
            let at = self.device_event.cast::<u16>().add(word);
            word::store(at.as_ptr(), value.to_le());
        }
    }

    /// Follows the chain at `next`: its buffer ID, how many descriptors of the
    /// ring it has, and whether it is as it should be.
    #[inline]
    fn walk<'m>(
        &mut self,
        memory: &'m GuestMemory,
        parts: &mut impl Parts<'m>,
    ) -> Result<(u16, u16, Result<(), ChainFault>), RingError> {
        let mut at = self.next;
        let mut walk = Walk::new(self.size);
        let mut result = Ok(());
        for count in 1..=self.size - self.held {
            // Always there: positions are below the size.
            let Some(descriptor) = self.ring.read(at.index) else {
                break;
            };
            let (flags, id) = descriptor.packed();
            // The end must be found even when the chain is bad.
            if result.is_ok() {
                result = self.add(&mut walk, &descriptor, flags, memory, parts);
            }
            if flags & desc::F_NEXT == 0 {
                return Ok((id, count, result));
            }
            at = at.advance(1, self.size);
        }
        Err(RingError::Endless {
            at: self.next.index,
        })
    }

    /// Adds a descriptor of the ring to a chain.
    #[inline]
    fn add<'m>(
        &mut self,
        walk: &mut Walk,
        descriptor: &Descriptor,
        flags: u16,
        memory: &'m GuestMemory,
        parts: &mut impl Parts<'m>,
    ) -> Result<(), ChainFault> {
        walk.step()?;
        if flags & desc::F_INDIRECT == 0 {
            return walk.buffer(descriptor, flags, memory, &mut self.hint, parts);
        }
        if !self.features.indirect || flags & desc::F_NEXT != 0 {
            return Err(ChainFault::Indirect);
        }
        let table = Table::indirect(memory, descriptor, &mut self.hint)?;
        walk.enter(&table);
        // All of it, one after the other, with no flag but WRITE (2.8.7).
        for index in 0..table.entries() {
            walk.step()?;
            let descriptor = table.read(index).ok_or(ChainFault::Next)?;
            let (flags, _) = descriptor.packed();
            walk.buffer(&descriptor, flags, memory, &mut self.hint, parts)?;
        }
        Ok(())
    }

    /// Steps over the available chains from `next` on, at most `most`: how many
    /// there are, and where they end.
    fn waiting(&self, most: u16) -> (u16, Position) {
        let mut at = self.next;
        let mut chains = 0;
        let mut left = self.size - self.held;
        while chains < most && left > 0 && self.is_available(at) {
            while left > 0 {
                let more = self.flags(at.index) & desc::F_NEXT != 0;
                at = at.advance(1, self.size);
                left -= 1;
                if !more {
                    break;
                }
            }
            chains += 1;
        }
        (chains, at)
    }

    /// Counts what the driver has offered, if that is due.
    #[inline]
    fn count(&mut self) {
        if self.count_due {
            self.count_due = false;
            let offered = self.held_chains.saturating_add(self.waiting(self.size).0);
            self.most_offered = self.most_offered.max(offered);
        }
    }

    /// How many descriptors the chain has that was taken at `at`.
    #[inline]
    fn descriptors(&self, at: Position) -> u16 {
        let taken = self.taken.get(usize::from(at.index));
        taken.copied().unwrap_or_default()
    }
}

impl VirtQueue for PackedQueue {
    fn new(
        memory: Arc<GuestMemory>,
        size: u16,
        at: RingAddresses,
        base: u32,
        features: RingFeatures,
    ) -> Result<Self, SetupError> {
        if size == 0 || size > MAX_QUEUE_SIZE {
            return Err(SetupError::Size(size));
        }
        // Front ends may leave the used half out (DPDK): what was taken is used
        // whenever a ring is stopped, so both are at the same place.
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let next = Position::from_bits(base as u16);
        if next.index >= size {
            return Err(SetupError::Base(base));
        }
        let len = u64::from(DESC) * u64::from(size);
        let ring = place(&memory, "descriptor ring", at.desc, 16, len)?;
        let driver_event = place(&memory, "driver event structure", at.avail, 4, 4)?;
        let device_event = place(&memory, "device event structure", at.used, 4, 4)?;
        Ok(Self {
            // SAFETY: the look-up proved them, in `memory`, which is kept.
            ring: unsafe { Table::new(ring, size) },
            base: ring,
            driver_event,
            device_event,
            size,
            features,
            next,
            used: next,
            held: 0,
            held_chains: 0,
            held_long: 0,
            taken: vec![0; size.into()].into(),
            first: 0,
            most_offered: 0,
            count_due: true,
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
        if self.held == self.size || !self.is_available(self.next) {
            return Ok(Pop::Empty);
        }
        // The rest of the descriptors is read after the flags that cover them.
        fence(Ordering::Acquire);
        self.count();
        let (id, descriptors, result) = self.walk(memory, parts)?;
        let chain = Chain {
            head: id,
            at: self.next.to_bits(),
        };
        if let Some(taken) = self.taken.get_mut(usize::from(self.next.index)) {
            *taken = descriptors;
        }
        let next = self.next.advance(descriptors, self.size);
        self.count_due = next.wrap != self.next.wrap;
        self.next = next;
        self.held += descriptors;
        self.held_chains += 1;
        self.held_long += u16::from(descriptors > 1);
        Ok(match result {
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
        let Some(window) = memory.window(self.hint) else {
            return Ok(0);
        };
        if self.held == self.size || !self.is_available(self.next) {
            return Ok(0);
        }
        let most = most.min((self.size - self.held).into());
        let mut taken = 0u16;
        let mut at = self.next;
        while usize::from(taken) < most && self.is_available(at) {
            // The rest of a descriptor is read after the flags that cover it.
            fence(Ordering::Acquire);
            let Some(descriptor) = self.ring.read(at.index) else {
                break;
            };
            let (flags, head) = descriptor.packed();
            let Some(view) = descriptor.lone(flags, &window) else {
                break;
            };
            if let Some(descriptors) = self.taken.get_mut(usize::from(at.index)) {
                *descriptors = 1;
            }
            let bits = at.to_bits();
            take(Chain { head, at: bits }, view);
            at = at.advance(1, self.size);
            taken += 1;
        }
        self.next = at;
        self.held += taken;
        self.held_chains += taken;
        Ok(taken.into())
    }

    #[inline]
    fn unpop(&mut self, chain: Chain) {
        self.next = Position::from_bits(chain.at);
        let descriptors = self.descriptors(self.next);
        self.held -= descriptors;
        self.held_chains -= 1;
        self.held_long -= u16::from(descriptors > 1);
    }

    #[inline]
    fn put_used(&mut self, chain: Chain, len: u32) {
        let at = Position::from_bits(chain.at);
        let half = Self::used_half(chain.head, at, len);
        if at == self.used {
            self.first = half;
        } else {
            // The driver stops at the first that is not used (2.8.9).
            self.write_used(at.index, half);
        }
    }

    #[inline]
    fn put_batch_used(&mut self, chains: &[Chain]) {
        match chains {
            [first, .., last] if self.features.in_order => {
                let head = last.head;
                self.put_used(Chain { head, ..*first }, 0);
            }
            _ => self.put_all_used(chains.iter().map(|&chain| (chain, 0))),
        }
    }

    #[inline]
    fn publish(&mut self, count: u16) {
        if count == 0 {
            return;
        }
        // With the first, the driver sees all, and never a part of a frame:
        // buffers and other descriptors are written before it.
        fence(Ordering::Release);
        self.write_used(self.used.index, self.first);
        let mut passed = count;
        if self.held_long > 0 {
            let mut at = self.used;
            passed = 0;
            for _ in 0..count {
                let descriptors = self.descriptors(at);
                at = at.advance(descriptors, self.size);
                passed += descriptors;
                self.held_long -= u16::from(descriptors > 1);
            }
        }
        self.used = self.used.advance(passed, self.size);
        self.held -= passed;
        self.held_chains -= count;
    }

    fn wants_interrupt(&mut self) -> bool {
        // What is used is visible before the driver's wish is read (2.8.22).
        fence(Ordering::SeqCst);
        let before = self.signalled.replace(self.used);
        if before == Some(self.used) {
            return false;
        }
        match (self.event_word(1) & event::MASK, before) {
            (event::DISABLE, _) => false,
            (event::DESC, Some(before)) if self.features.event_idx => {
                fence(Ordering::Acquire);
                let wanted = Position::from_bits(self.event_word(0));
                self.used.passes(wanted, before, self.size)
            }
            _ => true,
        }
    }

    fn enable_kicks(&mut self, beyond: u16) -> Result<bool, RingError> {
        let (waiting, end) = self.waiting(beyond.saturating_add(1));
        if waiting > beyond {
            return Ok(true);
        }
        let wish = if self.features.event_idx {
            self.set_event_word(0, end.to_bits());
            fence(Ordering::Release);
            event::DESC
        } else {
            event::ENABLE
        };
        self.set_event_word(1, wish);
        // The wish is visible before the ring is looked at again.
        fence(Ordering::SeqCst);
        Ok(self.waiting(beyond.saturating_add(1)).0 > beyond)
    }

    fn disable_kicks(&mut self) {
        self.set_event_word(1, event::DISABLE);
    }

    fn base(&self) -> u32 {
        u32::from(self.next.to_bits()) | u32::from(self.used.to_bits()) << 16
    }

    fn most_offered(&self) -> u16 {
        self.most_offered
    }
}
