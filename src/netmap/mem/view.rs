//! A ring in shared memory, as somebody who trusts nobody sees it.
//!
//! The application on the other side can change every byte at every moment,
//! the read-only fields too. So what decides addresses (the number of slots,
//! where buffers are and how many) is kept beside the pointer, in private
//! memory, from when the ring was made; the rest is read once by value, and
//! what was read is then judged.

use std::marker::PhantomData;
use std::mem::{offset_of, size_of};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use zerocopy::transmute;

use crate::netmap::abi::{self, Slot, Timeval};
use crate::virtio::memory::Writable;

/// The first index that is a buffer of somebody's.
pub const FIRST_BUFFER: u32 = 2;

/// One ring and the buffers its slots may name, while `'m` lasts.
///
/// The layout is that of netmap(4), so this view serves the core's own rings
/// and those of `/dev/netmap` alike.
#[derive(Clone, Copy, Debug)]
pub struct RingView<'m> {
    ring: NonNull<u8>,
    buffers: NonNull<u8>,
    slots: u32,
    buf_size: u32,
    buf_num: u32,
    offsets: SlotOffsets,
    memory: PhantomData<&'m ()>,
}

/// How a slot's `ptr` says where in the buffer its data begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotOffsets {
    /// Which bits of `ptr` are the offset; 0: data begins where the buffer
    /// does.
    pub mask: u64,
    /// The largest offset, at most the size of a buffer; larger ones mean this
    /// one.
    pub max: u32,
}

/// What a [`RingView`] is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingParts {
    /// The `netmap_ring`, aligned to 8 bytes.
    pub ring: NonNull<u8>,
    /// Buffer 0.
    pub buffers: NonNull<u8>,
    /// Slots of the ring.
    pub slots: u32,
    /// Bytes of a buffer.
    pub buf_size: u32,
    /// Number of buffers, 0 and 1 included.
    pub buf_num: u32,
}

// SAFETY: a view is an address and numbers; everything it does is a volatile
// or plain copy by value, which is as good from any thread.
unsafe impl Send for RingView<'_> {}
// SAFETY: as above.
unsafe impl Sync for RingView<'_> {}

impl<'m> RingView<'m> {
    /// # Safety
    /// For `'m`, a `netmap_ring` with `slots` slots must stay mapped at `ring`,
    /// aligned to 8 bytes, and `buf_num * buf_size` bytes at `buffers`, both
    /// readable and writable.
    pub(crate) unsafe fn new(parts: RingParts) -> Self {
        let RingParts {
            ring,
            buffers,
            slots,
            buf_size,
            buf_num,
        } = parts;
        Self {
            ring,
            buffers,
            slots,
            buf_size,
            buf_num,
            offsets: SlotOffsets::default(),
            memory: PhantomData,
        }
    }

    /// The same ring, in whose slots offsets count.
    pub(crate) fn with_offsets(self, offsets: SlotOffsets) -> Self {
        Self { offsets, ..self }
    }

    #[inline]
    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: the offset is that of a `T` in the header, which is mapped.
        unsafe { self.ring.add(offset).cast::<T>().read_volatile() }
    }

    #[inline]
    fn write<T: Copy>(&self, offset: usize, value: T) {
        // SAFETY: as in `read`.
        unsafe { self.ring.add(offset).cast::<T>().write_volatile(value) }
    }

    /// How many slots the ring has.
    #[inline]
    pub fn num_slots(&self) -> u32 {
        self.slots
    }

    /// Bytes of a buffer that a slot can use: its length has 16 bits, so of a
    /// buffer of 64 KiB the last byte is never used.
    #[inline]
    pub fn buf_size(&self) -> u32 {
        self.buf_size.min(u16::MAX.into())
    }

    /// The application's `head`. What it wrote to slots before is seen after.
    #[inline]
    pub fn head(&self) -> u32 {
        let head = self.read(offset_of!(abi::Ring, head));
        fence(Ordering::Acquire);
        head
    }

    /// The application's `cur`.
    #[inline]
    pub fn cur(&self) -> u32 {
        self.read(offset_of!(abi::Ring, cur))
    }

    /// The `tail` that is there; only the application need believe it.
    #[inline]
    pub fn tail(&self) -> u32 {
        let tail = self.read(offset_of!(abi::Ring, tail));
        fence(Ordering::Acquire);
        tail
    }

    /// Publishes `head`: slots before it are handed over.
    #[inline]
    pub fn set_head(&self, head: u32) {
        fence(Ordering::Release);
        self.write(offset_of!(abi::Ring, head), head);
    }

    /// Sets `cur`.
    #[inline]
    pub fn set_cur(&self, cur: u32) {
        self.write(offset_of!(abi::Ring, cur), cur);
    }

    /// Publishes `tail`: slots before it are handed over.
    #[inline]
    pub(crate) fn set_tail(&self, tail: u32) {
        fence(Ordering::Release);
        self.write(offset_of!(abi::Ring, tail), tail);
    }

    /// `NR_TIMESTAMP`, `NR_FORWARD`.
    #[inline]
    pub fn flags(&self) -> u32 {
        self.read(offset_of!(abi::Ring, flags))
    }

    /// Sets the flags.
    #[inline]
    pub fn set_flags(&self, flags: u32) {
        self.write(offset_of!(abi::Ring, flags), flags);
    }

    /// When the ring was last synced.
    pub fn timestamp(&self) -> Timeval {
        self.read(offset_of!(abi::Ring, ts))
    }

    pub(crate) fn set_timestamp(&self, ts: Timeval) {
        self.write(offset_of!(abi::Ring, ts), ts);
    }

    #[inline]
    fn slot_at(&self, index: u32) -> Option<NonNull<Slot>> {
        // SAFETY: the index is below the number of slots that are mapped.
        (index < self.slots).then(|| unsafe {
            self.ring
                .add(size_of::<abi::Ring>())
                .cast::<Slot>()
                .add(index as usize)
        })
    }

    /// Reads a slot as it lies there, in two words: two loads, and a comparison
    /// with another is two. `None` when the ring has no such.
    #[inline]
    pub(crate) fn slot_words(&self, index: u32) -> Option<[u64; 2]> {
        // SAFETY: `slot_at` proved it; slots are aligned as the ring is.
        self.slot_at(index)
            .map(|at| unsafe { at.cast().read_volatile() })
    }

    /// Reads a slot; `None` when the ring has no such.
    #[inline]
    pub fn slot(&self, index: u32) -> Option<Slot> {
        self.slot_words(index).map(|words| transmute!(words))
    }

    /// Writes a slot; `None` when the ring has no such.
    #[inline]
    pub fn set_slot(&self, index: u32, slot: Slot) -> Option<()> {
        // SAFETY: as in `slot`.
        self.slot_at(index)
            .map(|at| unsafe { at.write_volatile(slot) })
    }

    /// Writes a slot's length and flags, and leaves it its buffer.
    #[inline]
    pub(crate) fn set_len_and_flags(&self, index: u32, len: u16, flags: u16) -> Option<()> {
        self.slot_at(index).map(|at| {
            // SAFETY: as in `slot`; both fields lie inside it.
            unsafe {
                let at = at.cast::<u8>();
                at.add(offset_of!(Slot, len)).cast().write_volatile(len);
                at.add(offset_of!(Slot, flags)).cast().write_volatile(flags);
            }
        })
    }

    /// `index` is a buffer that a slot may have: not 0, not 1, not beyond.
    #[inline]
    pub fn is_buffer(&self, index: u32) -> bool {
        (FIRST_BUFFER..self.buf_num).contains(&index)
    }

    /// The buffer with this index; `None` when a slot may not have it.
    #[inline]
    pub fn buffer(&self, index: u32) -> Option<Writable<'m>> {
        self.is_buffer(index).then(|| {
            let offset = index as usize * self.buf_size as usize;
            // SAFETY: the index is below the number of buffers, all of which
            // are mapped for 'm.
            unsafe { Writable::new(self.buffers.add(offset), self.buf_size()) }
        })
    }

    /// How far into its buffer a slot's data begins, in bytes.
    #[inline]
    pub fn offset(&self, slot: Slot) -> u32 {
        let offset = slot.ptr & self.offsets.mask;
        u32::try_from(offset).map_or(self.offsets.max, |offset| offset.min(self.offsets.max))
    }

    /// The slot with another offset.
    #[inline]
    pub fn with_offset(&self, slot: Slot, offset: u32) -> Slot {
        let mask = self.offsets.mask;
        Slot {
            ptr: slot.ptr & !mask | u64::from(offset) & mask,
            ..slot
        }
    }

    /// What a slot can hold: its buffer from its offset on; `None` when it has
    /// none.
    #[inline]
    pub fn slot_buffer(&self, slot: Slot) -> Option<Writable<'m>> {
        let buffer = self.buffer(slot.buf_idx)?;
        if self.offsets.mask == 0 {
            return Some(buffer);
        }
        Some(buffer.skip(self.offset(slot) as usize))
    }

    /// Bytes that every slot has room for, wherever its offset is.
    #[inline]
    pub fn room(&self) -> u32 {
        self.buf_size().saturating_sub(self.offsets.max)
    }

    /// Says in the ring which bits of `ptr` are an offset.
    pub(crate) fn set_offset_mask(&self, mask: u64) {
        self.write(offset_of!(abi::Ring, offset_mask), mask);
    }

    /// The slot after `index`.
    #[inline]
    pub fn next(&self, index: u32) -> u32 {
        // An index from shared memory may be anything.
        match index.checked_add(1) {
            Some(next) if next < self.slots => next,
            _ => 0,
        }
    }

    /// The slots in `slots`, going round, as up to two ranges that do not. Empty
    /// when one of their ends is not in the ring.
    #[inline]
    pub(crate) fn runs(&self, slots: Range<u32>) -> [Range<u32>; 2] {
        let Range { start, end } = slots;
        match (start < self.slots && end < self.slots, start <= end) {
            (true, true) => [start..end, 0..0],
            (true, false) => [start..self.slots, 0..end],
            (false, _) => [0..0, 0..0],
        }
    }

    /// Slots from `from` up to but without `to`, going round. 0 when either is
    /// not in the ring.
    #[inline]
    pub fn distance(&self, from: u32, to: u32) -> u32 {
        if from >= self.slots || to >= self.slots {
            0
        } else if to >= from {
            to - from
        } else {
            self.slots - from + to
        }
    }

    /// Slots that are the application's: to be sent from, or received in.
    #[inline]
    pub fn available(&self) -> u32 {
        self.distance(self.read(offset_of!(abi::Ring, head)), self.tail())
    }
}
