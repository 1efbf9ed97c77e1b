//! One mapped memory region.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::{SFlag, fstat};

use super::fault::Guard;
use super::{MemoryError, RegionSpec};

/// Most bytes that all mappings take: half of the address space, so that some is
/// left for what the process itself needs.
const MAX_MAPPED: u64 = 1 << 46;

/// Bytes that all mappings take now.
static MAPPED: AtomicU64 = AtomicU64::new(0);

/// Address space that a mapping takes, given back when dropped.
#[derive(Debug)]
struct Space {
    bytes: u64,
    of: &'static AtomicU64,
}

impl Space {
    /// `None`: there would be too little left of what `of` counts.
    fn take(bytes: usize, of: &'static AtomicU64) -> Option<Self> {
        let bytes = bytes as u64;
        let more = |taken: u64| taken.checked_add(bytes).filter(|all| *all <= MAX_MAPPED);
        of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Self { bytes, of })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A shared mapping of one region, unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    /// What was mapped: from the start of a page of the descriptor.
    base: NonNull<u8>,
    mapped: usize,
    /// Where in the mapping the region begins.
    skip: usize,
    len: usize,
    fault: Guard,
    _space: Space,
}

// SAFETY: a mapping belongs to no thread, and this type hands out addresses
// only; whoever copies from or to them proves the range with a view.
unsafe impl Send for Mapping {}
// SAFETY: as above; there is no interior state but the fault guard's atomics.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the region that `spec` describes from `fd`.
    ///
    /// # Errors
    /// [`MemoryError::Short`] when a file or a memory object is too small,
    /// [`MemoryError::Map`] when the system refuses.
    pub fn new(spec: &RegionSpec, fd: &OwnedFd) -> Result<Self, MemoryError> {
        let refused = |errno| MemoryError::Map(*spec, errno);
        let (size, page) = extent(fd).map_err(refused)?;
        if let Some(size) = size.filter(|size| spec.offset + spec.len > *size) {
            return Err(MemoryError::Short(*spec, size));
        }
        let start = spec.offset & !(page - 1);
        let skip = usize::try_from(spec.offset - start).map_err(|_| MemoryError::Range(*spec))?;
        let len = usize::try_from(spec.len).map_err(|_| MemoryError::Range(*spec))?;
        let mapped = (spec.offset - start + spec.len)
            .checked_next_multiple_of(page)
            .and_then(|mapped| usize::try_from(mapped).ok())
            .and_then(NonZeroUsize::new)
            .ok_or(MemoryError::Range(*spec))?;
        let space = Space::take(mapped.get(), &MAPPED).ok_or(MemoryError::NoSpace(*spec))?;
        let offset = libc::off_t::try_from(start).map_err(|_| MemoryError::Range(*spec))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the system's choice touches
        // no memory that this program knows.
        let base = unsafe { mmap(None, mapped, protection, MapFlags::MAP_SHARED, fd, offset) }
            .map_err(refused)?
            .cast::<u8>();
        Ok(Self {
            base,
            mapped: mapped.get(),
            skip,
            len,
            fault: Guard::new(base, mapped.get()),
            _space: space,
        })
    }

    /// The mapped address `offset` bytes into the region. The caller's views
    /// prove that `offset` lies inside; one past the end is the most there is.
    #[inline]
    pub(super) fn at(&self, offset: usize) -> NonNull<u8> {
        let offset = self.skip + offset.min(self.len);
        // SAFETY: skip + len is at most the mapping's length.
        unsafe { self.base.add(offset) }
    }

    /// Memory vanished under this mapping.
    pub fn is_broken(&self) -> bool {
        self.fault.is_broken()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.fault.disarm();
        // SAFETY: exactly what `new` mapped; every view borrowed the snapshot
        // that owned this mapping, so none is left.
        if let Err(errno) = unsafe { munmap(self.base.cast(), self.mapped) } {
            tracing::error!(
                "guest memory of {} bytes not unmapped: {errno}",
                self.mapped
            );
        }
    }
}

/// The smallest page.
const PAGE: u64 = 4096;

/// How many bytes `fd` has, where that is known, and the bytes of the pages
/// that it is mapped by. mmap judges what is unknown: a device's size (FreeBSD's
/// /dev/vmm), and all of a descriptor that a front end has limited to mapping.
fn extent(fd: &OwnedFd) -> Result<(Option<u64>, u64), Errno> {
    let stat = match fstat(fd) {
        #[cfg(target_os = "freebsd")]
        Err(Errno::ENOTCAPABLE) => return Ok((None, PAGE)),
        stat => stat?,
    };
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    if kind != SFlag::S_IFREG {
        return Ok((None, PAGE));
    }
    // Huge pages map from their own boundaries only; st_blksize is theirs.
    let page = u64::try_from(stat.st_blksize)
        .unwrap_or(0)
        .clamp(PAGE, 1 << 30)
        .next_power_of_two();
    Ok((Some(u64::try_from(stat.st_size).unwrap_or(0)), page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mappings_together_leave_some_of_the_address_space() {
        static TAKEN: AtomicU64 = AtomicU64::new(0);
        let half = usize::try_from(MAX_MAPPED / 2).unwrap();
        let first = Space::take(half, &TAKEN);
        assert!(Space::take(half + 1, &TAKEN).is_none());
        let second = Space::take(half, &TAKEN);
        assert!(first.is_some() && second.is_some());
        assert!(Space::take(1, &TAKEN).is_none());
        assert!(Space::take(usize::MAX, &TAKEN).is_none());
        // What is unmapped is there for others.
        drop(second);
        assert!(Space::take(half, &TAKEN).is_some());
    }
}
