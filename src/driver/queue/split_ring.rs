//! The memory of a split ring (section 2.7), field by field and unchecked: what
//! is written here is what the device sees, sensible or not.

use std::sync::atomic::Ordering;

use super::QueueError;
use crate::driver::memory::{Area, DriverMemory};
use crate::virtio::queue::RingAddresses;
use crate::virtio::spec::MAX_QUEUE_SIZE;

/// A descriptor as it lies in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest address of the buffer.
    pub addr: u64,
    /// Length of the buffer in bytes.
    pub len: u32,
    /// `virtio::spec::desc`.
    pub flags: u16,
    /// The next descriptor of the chain.
    pub next: u16,
}

impl Descriptor {
    /// Bytes of a descriptor.
    pub const LEN: usize = 16;

    /// Writes it to `memory`, `at` bytes from its start.
    ///
    /// # Panics
    /// When it does not lie inside, or not aligned to 8 bytes.
    #[inline]
    pub fn write_to(&self, memory: &Area, at: usize) {
        let rest = u64::from(self.len) | u64::from(self.flags) << 32 | u64::from(self.next) << 48;
        memory.store64(at, self.addr, Ordering::Relaxed);
        memory.store64(at + 8, rest, Ordering::Relaxed);
    }
}

/// The three parts of a split ring, each in memory of its own.
#[derive(Debug)]
pub struct SplitRing {
    desc: Area,
    avail: Area,
    used: Area,
    size: u16,
}

const INDEX: usize = 2;
const ENTRIES: usize = 4;

impl SplitRing {
    /// Allocates a ring of `size` entries, all zero.
    ///
    /// # Errors
    /// When `size` is not allowed or the memory is full.
    pub fn new(memory: &mut DriverMemory, size: u16) -> Result<Self, QueueError> {
        if !size.is_power_of_two() || size > MAX_QUEUE_SIZE {
            return Err(QueueError::Size(size));
        }
        let entries = usize::from(size);
        // The parts are written by different sides, so no two of them share a
        // cache line.
        Ok(Self {
            desc: memory.allocate(Descriptor::LEN * entries, 64)?,
            avail: memory.allocate((ENTRIES + 2 * entries + 2).next_multiple_of(64), 64)?,
            used: memory.allocate((ENTRIES + 8 * entries + 2).next_multiple_of(64), 64)?,
            size,
        })
    }

    /// Entries.
    #[inline]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Front-end addresses of the parts.
    pub fn addresses(&self) -> RingAddresses {
        RingAddresses {
            desc: self.desc.user_addr(),
            avail: self.avail.user_addr(),
            used: self.used.user_addr(),
        }
    }

    /// The descriptor table.
    pub fn table(&self) -> &Area {
        &self.desc
    }

    /// Writes entry `index` of the descriptor table.
    ///
    /// # Panics
    /// When there is no such entry.
    #[inline]
    pub fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        descriptor.write_to(&self.desc, usize::from(index) * Descriptor::LEN);
    }

    #[inline]
    fn slot(&self, position: u16) -> usize {
        usize::from(position & (self.size - 1))
    }

    /// Writes the available entry at `position`, which wraps at the size.
    #[inline]
    pub fn set_avail(&self, position: u16, head: u16) {
        self.avail
            .store16(ENTRIES + 2 * self.slot(position), head, Ordering::Relaxed);
    }

    /// Writes the available index, after everything written before it.
    #[inline]
    pub fn set_avail_index(&self, index: u16) {
        self.avail.store16(INDEX, index, Ordering::Release);
    }

    /// Reads the available index.
    pub fn avail_index(&self) -> u16 {
        self.avail.load16(INDEX, Ordering::Acquire)
    }

    /// Writes the available ring's flags (`AVAIL_F_NO_INTERRUPT`).
    #[inline]
    pub fn set_avail_flags(&self, flags: u16) {
        self.avail.store16(0, flags, Ordering::Relaxed);
    }

    /// Reads the used ring's flags (`USED_F_NO_NOTIFY`).
    #[inline]
    pub fn used_flags(&self) -> u16 {
        self.used.load16(0, Ordering::Relaxed)
    }

    /// Reads the used index, before everything that is read after it.
    #[inline]
    pub fn used_index(&self) -> u16 {
        self.used.load16(INDEX, Ordering::Acquire)
    }

    /// Reads the used entry at `position`, which wraps at the size: the chain's
    /// head and how many bytes were written.
    #[inline]
    pub fn used(&self, position: u16) -> (u32, u32) {
        let at = ENTRIES + 8 * self.slot(position);
        (
            self.used.load32(at, Ordering::Relaxed),
            self.used.load32(at + 4, Ordering::Relaxed),
        )
    }

    /// Writes which used index is to raise the next interrupt (EVENT_IDX).
    #[inline]
    pub fn set_used_event(&self, index: u16) {
        let at = ENTRIES + 2 * usize::from(self.size);
        self.avail.store16(at, index, Ordering::Relaxed);
    }

    /// Reads which available index the device wants to be kicked at
    /// (EVENT_IDX).
    #[inline]
    pub fn avail_event(&self) -> u16 {
        let at = ENTRIES + 8 * usize::from(self.size);
        self.used.load16(at, Ordering::Relaxed)
    }

    /// Lets the threads of a model share the ring, which is empty and at
    /// `index`.
    #[cfg(loom)]
    pub fn share(&self, index: u16) {
        let entries = usize::from(self.size);
        self.desc.share(0, self.desc.len(), 8);
        self.avail.share(0, ENTRIES + 2 * entries + 2, 2);
        self.used.share(0, ENTRIES, 2);
        self.used.share(ENTRIES, 8 * entries, 4);
        self.used.share(ENTRIES + 8 * entries, 2, 2);
        self.avail.store16(INDEX, index, Ordering::Relaxed);
        self.used.store16(INDEX, index, Ordering::Relaxed);
    }

    /// Overwrites all three parts with zeros.
    pub fn clear(&self) {
        self.desc.clear();
        self.avail.clear();
        self.used.clear();
    }
}

/// The device's half of a split ring, for tests of the driver's half: it
/// believes whatever it reads.
#[cfg(test)]
impl SplitRing {
    pub(super) fn available(&self, position: u16) -> u16 {
        self.avail
            .load16(ENTRIES + 2 * self.slot(position), Ordering::Relaxed)
    }

    pub(super) fn avail_flags(&self) -> u16 {
        self.avail.load16(0, Ordering::Relaxed)
    }

    pub(super) fn used_event(&self) -> u16 {
        let at = ENTRIES + 2 * usize::from(self.size);
        self.avail.load16(at, Ordering::Relaxed)
    }

    pub(super) fn descriptor(&self, index: u16) -> Descriptor {
        let at = usize::from(index) * Descriptor::LEN;
        Descriptor {
            addr: self.desc.load64(at, Ordering::Relaxed),
            len: self.desc.load32(at + 8, Ordering::Relaxed),
            flags: self.desc.load16(at + 12, Ordering::Relaxed),
            next: self.desc.load16(at + 14, Ordering::Relaxed),
        }
    }

    pub(super) fn put_used(&self, position: u16, id: u32, len: u32) {
        let at = ENTRIES + 8 * self.slot(position);
        self.used.store32(at, id, Ordering::Relaxed);
        self.used.store32(at + 4, len, Ordering::Relaxed);
    }

    pub(super) fn set_used_index(&self, index: u16) {
        self.used.store16(INDEX, index, Ordering::Release);
    }

    pub(super) fn set_used_flags(&self, flags: u16) {
        self.used.store16(0, flags, Ordering::Relaxed);
    }

    pub(super) fn set_avail_event(&self, index: u16) {
        let at = ENTRIES + 8 * usize::from(self.size);
        self.used.store16(at, index, Ordering::Relaxed);
    }
}
