//! The memory of a packed ring (section 2.8), field by field and unchecked:
//! what is written here is what the device sees, sensible or not.

use std::sync::atomic::Ordering;

use super::QueueError;
use crate::driver::memory::{Area, DriverMemory};
use crate::virtio::queue::{Position, RingAddresses};
use crate::virtio::spec::{MAX_QUEUE_SIZE, desc};

/// A descriptor as it lies in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackedDescriptor {
    /// Guest address of the buffer.
    pub addr: u64,
    /// Length of the buffer in bytes.
    pub len: u32,
    /// What names the chain, in its last descriptor.
    pub id: u16,
    /// `virtio::spec::desc`.
    pub flags: u16,
}

impl PackedDescriptor {
    /// Bytes of a descriptor.
    pub const LEN: usize = 16;

    /// Writes it, but for the flags, to `memory`, `at` bytes from its start.
    ///
    /// # Panics
    /// When it does not lie inside, or not aligned to 8 bytes.
    #[inline]
    pub fn write_to(&self, memory: &Area, at: usize) {
        memory.store64(at, self.addr, Ordering::Relaxed);
        memory.store32(at + 8, self.len, Ordering::Relaxed);
        memory.store16(at + 12, self.id, Ordering::Relaxed);
    }
}

/// The three parts of a packed ring, each in memory of its own.
#[derive(Debug)]
pub struct PackedRing {
    ring: Area,
    driver_event: Area,
    device_event: Area,
    size: u16,
}

const FLAGS: usize = 14;

impl PackedRing {
    /// Allocates a ring of `size` descriptors, all zero.
    ///
    /// # Errors
    /// When `size` is not allowed or the memory is full.
    pub fn new(memory: &mut DriverMemory, size: u16) -> Result<Self, QueueError> {
        if size == 0 || size > MAX_QUEUE_SIZE {
            return Err(QueueError::Size(size));
        }
        // The structures are written by different sides, so they share no
        // cache line.
        Ok(Self {
            ring: memory.allocate(PackedDescriptor::LEN * usize::from(size), 64)?,
            driver_event: memory.allocate(64, 64)?,
            device_event: memory.allocate(64, 64)?,
            size,
        })
    }

    /// Descriptors.
    #[inline]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Front-end addresses of the parts.
    pub fn addresses(&self) -> RingAddresses {
        RingAddresses {
            desc: self.ring.user_addr(),
            avail: self.driver_event.user_addr(),
            used: self.device_event.user_addr(),
        }
    }

    /// The descriptors.
    pub fn table(&self) -> &Area {
        &self.ring
    }

    #[inline]
    fn at(index: u16) -> usize {
        usize::from(index) * PackedDescriptor::LEN
    }

    /// Writes descriptor `index`, but for its flags.
    ///
    /// # Panics
    /// When there is no such descriptor.
    #[inline]
    pub fn set_descriptor(&self, index: u16, descriptor: &PackedDescriptor) {
        descriptor.write_to(&self.ring, Self::at(index));
    }

    /// Writes the flags of descriptor `index`, after everything written before.
    ///
    /// # Panics
    /// When there is no such descriptor.
    #[inline]
    pub fn set_flags(&self, index: u16, flags: u16) {
        self.ring
            .store16(Self::at(index) + FLAGS, flags, Ordering::Release);
    }

    /// The flags of descriptor `index`, before everything read after it.
    ///
    /// # Panics
    /// When there is no such descriptor.
    #[inline]
    pub fn flags(&self, index: u16) -> u16 {
        self.ring.load16(Self::at(index) + FLAGS, Ordering::Acquire)
    }

    /// What a used descriptor says: the chain's buffer ID and how many bytes
    /// were written, 0 without `WRITE`.
    ///
    /// # Panics
    /// When there is no such descriptor.
    #[inline]
    pub fn used(&self, index: u16) -> (u16, u32) {
        let at = Self::at(index);
        let written = self.flags(index) & desc::F_WRITE != 0;
        let len = self.ring.load32(at + 8, Ordering::Relaxed);
        (
            self.ring.load16(at + 12, Ordering::Relaxed),
            if written { len } else { 0 },
        )
    }

    /// Says when to interrupt: `virtio::spec::event`, and for
    /// [`DESC`](crate::virtio::spec::event::DESC) where.
    #[inline]
    pub fn set_driver_event(&self, wish: u16, at: Position) {
        self.driver_event
            .store16(0, at.to_bits(), Ordering::Relaxed);
        self.driver_event.store16(2, wish, Ordering::Release);
    }

    /// When the device wants to be kicked, likewise.
    #[inline]
    pub fn device_event(&self) -> (u16, Position) {
        let wish = self.device_event.load16(2, Ordering::Acquire);
        let at = self.device_event.load16(0, Ordering::Relaxed);
        (wish, Position::from_bits(at))
    }

    /// Lets the threads of a model share the ring. The device writes half a
    /// descriptor at once.
    #[cfg(loom)]
    pub fn share(&self) {
        self.ring.share(0, self.ring.len(), 8);
        self.driver_event.share(0, 4, 2);
        self.device_event.share(0, 4, 2);
    }

    /// Overwrites all three parts with zeros.
    pub fn clear(&self) {
        self.ring.clear();
        self.driver_event.clear();
        self.device_event.clear();
    }
}

/// The device's half of a packed ring, for tests of the driver's half: it
/// believes whatever it reads.
#[cfg(test)]
impl PackedRing {
    pub(super) fn descriptor(&self, index: u16) -> PackedDescriptor {
        let at = Self::at(index);
        PackedDescriptor {
            addr: self.ring.load64(at, Ordering::Relaxed),
            len: self.ring.load32(at + 8, Ordering::Relaxed),
            id: self.ring.load16(at + 12, Ordering::Relaxed),
            flags: self.flags(index),
        }
    }

    pub(super) fn driver_event(&self) -> (u16, Position) {
        let at = self.driver_event.load16(0, Ordering::Relaxed);
        let wish = self.driver_event.load16(2, Ordering::Relaxed);
        (wish, Position::from_bits(at))
    }

    pub(super) fn set_device_event(&self, wish: u16, at: Position) {
        self.device_event
            .store16(0, at.to_bits(), Ordering::Relaxed);
        self.device_event.store16(2, wish, Ordering::Relaxed);
    }
}
