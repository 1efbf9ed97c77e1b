//! A port's memory: its rings and buffers, and maybe those of others.

use std::io;
use std::mem::{offset_of, size_of};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::MapError;
use crate::ffi;
use crate::netmap::abi;
use crate::netmap::mem::{FIRST_BUFFER, RingParts};

// What our own structures say is what the headers say.
const _: () = {
    assert!(size_of::<abi::Ring>() == size_of::<ffi::netmap_ring>());
    assert!(offset_of!(abi::Ring, buf_ofs) == offset_of!(ffi::netmap_ring, buf_ofs));
    assert!(offset_of!(abi::Ring, num_slots) == offset_of!(ffi::netmap_ring, num_slots));
    assert!(offset_of!(abi::Ring, nr_buf_size) == offset_of!(ffi::netmap_ring, nr_buf_size));
    assert!(offset_of!(abi::Ring, head) == offset_of!(ffi::netmap_ring, head));
    assert!(offset_of!(abi::Ring, cur) == offset_of!(ffi::netmap_ring, cur));
    assert!(offset_of!(abi::Ring, tail) == offset_of!(ffi::netmap_ring, tail));
    assert!(offset_of!(abi::Ring, flags) == offset_of!(ffi::netmap_ring, flags));
    assert!(offset_of!(abi::Ring, ts) == offset_of!(ffi::netmap_ring, ts));
    assert!(size_of::<abi::Slot>() == size_of::<ffi::netmap_slot>());
    assert!(offset_of!(abi::Slot, len) == offset_of!(ffi::netmap_slot, len));
    assert!(offset_of!(abi::Slot, flags) == offset_of!(ffi::netmap_slot, flags));
    assert!(size_of::<abi::Interface>() == size_of::<ffi::netmap_if>());
    assert!(size_of::<abi::nmreq::RegisterBody>() == size_of::<ffi::nmreq_register>());
    assert!(size_of::<abi::nmreq::RequestHeader>() == size_of::<ffi::nmreq_header>());
};

/// Most slots that a ring may say it has; the kernel's own limits are lower.
const MAX_SLOTS: u32 = 1 << 20;

/// The whole memory that a descriptor is bound to, mapped.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: an address and a length; all access is by volatile reads, which are
// as good from any thread. Rings and buffers are accessed by who has their
// `RingParts`.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps the memory of the bound descriptor `fd`, of `len` bytes.
    ///
    /// # Errors
    /// [`MapError::Map`].
    pub fn map(fd: impl AsFd, len: u64) -> Result<Self, MapError> {
        let len = usize::try_from(len).ok().and_then(NonZeroUsize::new);
        let len = len.ok_or(MapError::Layout)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, which replaces none; nothing refers to it but
        // this.
        let base = unsafe { mmap(None, len, access, MapFlags::MAP_SHARED, fd, 0) };
        let base = base.map_err(|errno| MapError::Map(io::Error::from(errno)))?;
        Ok(Self {
            base: base.cast(),
            len,
        })
    }

    /// The address of `len` bytes at `offset`, if they lie in the memory and
    /// the offset is a multiple of 8.
    fn at(&self, offset: u64, len: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(len)?;
        if end > self.len.get() || offset % 8 != 0 {
            return None;
        }
        // SAFETY: within the mapping.
        Some(unsafe { self.base.add(offset) })
    }

    /// Reads a `T` of plain numbers.
    fn read<T: Number>(&self, offset: u64) -> Option<T> {
        let at = self.at(offset & !7, size_of::<u64>())?;
        let within = usize::try_from(offset & 7).ok()?;
        if within % align_of::<T>() != 0 || within + size_of::<T>() > size_of::<u64>() {
            return None;
        }
        // SAFETY: it lies in the eight bytes that are mapped at `at`, which is
        // a multiple of 8, and is aligned; a number may be anything. Volatile,
        // for whoever shares the memory may write to it at any time.
        Some(unsafe { at.add(within).cast::<T>().read_volatile() })
    }

    /// The bound rings of the `netmap_if` at `offset`, which has `tx` transmit
    /// and `rx` receive rings, host rings included.
    ///
    /// # Errors
    /// [`MapError::Layout`].
    pub(super) fn rings(
        &self,
        offset: u64,
        tx: usize,
        rx: usize,
    ) -> Result<[Vec<RingParts>; 2], MapError> {
        let bound = |numbers: std::ops::Range<usize>| {
            let rings = numbers.map(|number| self.ring(offset, number).transpose());
            rings.flatten().collect::<Result<Vec<_>, _>>()
        };
        Ok([bound(0..tx)?, bound(tx..tx + rx)?])
    }

    /// The ring whose place is the `number`th of the `netmap_if` at `offset`;
    /// `None` when it is not bound.
    fn ring(&self, offset: u64, number: usize) -> Result<Option<RingParts>, MapError> {
        // What NETMAP_TXRING and NETMAP_RXRING do, with the counts that the
        // kernel has told and not those that lie in shared memory.
        let place = size_of::<ffi::netmap_if>() + number * size_of::<i64>();
        let distance = offset
            .checked_add(place as u64)
            .and_then(|at| self.read::<i64>(at))
            .ok_or(MapError::Layout)?;
        if distance == 0 {
            return Ok(None);
        }
        let ring = offset.checked_add_signed(distance);
        ring.and_then(|ring| self.parts(ring))
            .map(Some)
            .ok_or(MapError::Layout)
    }

    /// The ring at `offset`, if it and its buffers lie in the memory.
    fn parts(&self, offset: u64) -> Option<RingParts> {
        let field = |at: usize| offset.checked_add(at as u64);
        let slots: u32 = self.read(field(offset_of!(ffi::netmap_ring, num_slots))?)?;
        let buf_size: u32 = self.read(field(offset_of!(ffi::netmap_ring, nr_buf_size))?)?;
        let distance: i64 = self.read(field(offset_of!(ffi::netmap_ring, buf_ofs))?)?;
        if !(1..=MAX_SLOTS).contains(&slots) || buf_size == 0 {
            return None;
        }
        let bytes = size_of::<ffi::netmap_ring>()
            + usize::try_from(slots).ok()? * size_of::<ffi::netmap_slot>();
        let ring = self.at(offset, bytes)?;
        // Buffers come last: as many as there is memory left for.
        let first = offset.checked_add_signed(distance)?;
        let left = (self.len.get() as u64).checked_sub(first)?;
        let buf_num = u32::try_from(left / u64::from(buf_size)).ok()?;
        if buf_num <= FIRST_BUFFER {
            return None;
        }
        Some(RingParts {
            ring,
            buffers: self.at(first, usize::try_from(left).ok()?)?,
            slots,
            buf_size,
            buf_num,
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever has rings in it holds this.
        if let Err(errno) = unsafe { munmap(self.base.cast(), self.len.get()) } {
            tracing::debug!("netmap memory not unmapped: {errno}");
        }
    }
}

/// Any pattern of bits is one.
trait Number: Copy {}
impl Number for u32 {}
impl Number for i64 {}
