//! Guest memory of our own, in one or several shared memory objects.
//!
//! A VMM's guest has a hole below 4 GiB, front-end addresses that are not
//! guest addresses, and often several regions. So has this memory when it is
//! asked for: a back end that takes one kind of address for the other, or
//! believes that everything lies in one mapping, then fails its test.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use crate::virtio::memory::{GuestMemory, MemoryError, Readable, RegionSpec, Writable};
use crate::word::{AtomicU16, AtomicU32, AtomicU64};

/// Where the first region of [`DriverMemory::of_len`] begins for the guest.
pub const GUEST_BASE: u64 = 0x10_0000;
/// Added to a guest address by [`DriverMemory::of_len`] to make the front-end
/// address: no guest address is ever a front-end address too.
pub const USER_OFFSET: u64 = 0x7e00_0000_0000;

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
pub enum DriverMemoryError {
    /// No shared memory object could be made or sized.
    #[error("no shared memory object of {len} bytes can be made: {source}")]
    Object {
        /// Its length in bytes.
        len: u64,
        /// What the system said.
        source: nix::Error,
    },
    /// The regions do not make a memory table.
    #[error(transparent)]
    Table(#[from] MemoryError),
    /// No region has so much room left.
    #[error("no memory region has {len} bytes left; share more memory")]
    Full {
        /// What was asked for, in bytes.
        len: usize,
    },
}

/// What is behind guest memory, and how it is shared.
pub trait MemorySource: fmt::Debug + Send + Sync {
    /// The descriptor to map `region` from and to share it by; it may place the
    /// region elsewhere in the descriptor by changing `offset`, for which it is
    /// called once for each region, and before that is mapped.
    ///
    /// # Errors
    /// Those of the system calls that it takes.
    fn object(&self, region: &mut RegionSpec) -> nix::Result<OwnedFd>;
}

/// Objects of memfd_create(2), one for each region.
#[derive(Debug)]
pub struct Memfd;

impl MemorySource for Memfd {
    fn object(&self, region: &mut RegionSpec) -> nix::Result<OwnedFd> {
        let object = memfd_create(c"vtgen", MFdFlags::MFD_CLOEXEC)?;
        set_len(&object, region)?;
        Ok(object)
    }
}

/// Makes an object or a file long enough for `region`.
///
/// # Errors
/// Those of ftruncate(2).
pub fn set_len(object: &OwnedFd, region: &RegionSpec) -> nix::Result<()> {
    let len = region.offset.saturating_add(region.len);
    let len = libc::off_t::try_from(len).map_err(|_| nix::Error::EFBIG)?;
    ftruncate(object, len)
}

/// One region with the object behind it and how much of it is given away.
#[derive(Debug)]
struct Region {
    spec: RegionSpec,
    object: OwnedFd,
    taken: u64,
}

/// Guest memory that we own, and a simple allocator over it: what is given
/// away stays so until the memory is dropped.
#[derive(Debug)]
pub struct DriverMemory {
    regions: Vec<Region>,
    memory: Arc<GuestMemory>,
    /// The region to try first, so that rings and buffers spread over all.
    turn: usize,
}

impl DriverMemory {
    /// Memory of `len` bytes over `regions` regions of equal length (at least
    /// one), with a hole between neighbours and guest addresses that differ
    /// from front-end addresses.
    ///
    /// # Errors
    /// When the system refuses a shared memory object or its mapping.
    pub fn of_len(len: u64, regions: usize) -> Result<Self, DriverMemoryError> {
        Self::of_source(&Memfd, len, regions)
    }

    /// The same, from `source`.
    ///
    /// # Errors
    /// As [`DriverMemory::of_len`].
    pub fn of_source(
        source: &dyn MemorySource,
        len: u64,
        regions: usize,
    ) -> Result<Self, DriverMemoryError> {
        let count = u64::try_from(regions.max(1)).unwrap_or(1);
        let each = len.div_ceil(count).next_multiple_of(4096);
        let specs: Vec<RegionSpec> = (0..count)
            .map(|i| {
                // Twice the length apart; in the front end in another order.
                let guest_addr = GUEST_BASE + i * 2 * each;
                RegionSpec {
                    guest_addr,
                    user_addr: USER_OFFSET + (count - i) * 3 * each,
                    len: each,
                    offset: 0,
                }
            })
            .collect();
        Self::from_specs(source, &specs)
    }

    /// Memory with exactly these regions, each in an object of its own that
    /// has `offset + len` bytes.
    ///
    /// # Errors
    /// When the system refuses, or when regions overlap.
    pub fn new(specs: &[RegionSpec]) -> Result<Self, DriverMemoryError> {
        Self::from_specs(&Memfd, specs)
    }

    fn from_specs(
        source: &dyn MemorySource,
        specs: &[RegionSpec],
    ) -> Result<Self, DriverMemoryError> {
        let mut memory = GuestMemory::default();
        let mut regions = Vec::with_capacity(specs.len());
        for &spec in specs {
            let mut spec = spec;
            let object = source
                .object(&mut spec)
                .map_err(|error| DriverMemoryError::Object {
                    len: spec.len,
                    source: error,
                })?;
            memory = memory.with_region(spec, &object)?;
            regions.push(Region {
                spec,
                object,
                taken: 0,
            });
        }
        Ok(Self {
            regions,
            memory: Arc::new(memory),
            turn: 0,
        })
    }

    /// The same memory as a table of mapped regions.
    pub fn table(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Every region with the descriptor to share it by, in the order given.
    pub fn regions(&self) -> impl ExactSizeIterator<Item = (RegionSpec, BorrowedFd<'_>)> {
        self.regions.iter().map(|r| (r.spec, r.object.as_fd()))
    }

    /// Gives away `len` zeroed bytes at a multiple of `align` (a power of two)
    /// in one region, another region than last time where there are several.
    ///
    /// # Errors
    /// [`DriverMemoryError::Full`].
    pub fn allocate(&mut self, len: usize, align: u64) -> Result<Area, DriverMemoryError> {
        let full = DriverMemoryError::Full { len };
        let Ok(wanted) = u64::try_from(len) else {
            return Err(full);
        };
        let count = self.regions.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            let region = &mut self.regions[at];
            let start = region.taken.next_multiple_of(align.max(1));
            if start <= region.spec.len && wanted <= region.spec.len - start {
                region.taken = start + wanted;
                self.turn = at + 1;
                let guest_addr = region.spec.guest_addr + start;
                return self.area(guest_addr, len).ok_or(full);
            }
        }
        Err(full)
    }

    /// The `len` bytes at a guest address, given away or not; `None` when no
    /// single region holds them.
    pub fn area(&self, guest_addr: u64, len: usize) -> Option<Area> {
        let region = self
            .regions
            .iter()
            .find(|r| guest_addr.wrapping_sub(r.spec.guest_addr) < r.spec.len)?;
        let user_addr = region.spec.user_addr + (guest_addr - region.spec.guest_addr);
        let base = self
            .memory
            .user_range(user_addr, u64::try_from(len).ok()?)?;
        Some(Area {
            memory: Arc::clone(&self.memory),
            base,
            guest_addr,
            user_addr,
            len,
        })
    }

    /// Cuts the object behind a region down to `len` bytes while everybody has
    /// it mapped, as a malicious front end would. Own accesses beyond `len`
    /// raise SIGBUS, so keep to the others' from here on.
    ///
    /// # Errors
    /// What ftruncate(2) says.
    ///
    /// # Panics
    /// When there is no such region.
    pub fn truncate_region(&self, region: usize, len: u64) -> nix::Result<()> {
        let len = libc::off_t::try_from(len).map_err(|_| nix::Error::EFBIG)?;
        ftruncate(&self.regions[region].object, len)
    }
}

/// A run of shared memory that lies in one region and stays mapped.
///
/// The other side reads and writes it at any time, so everything here copies:
/// single fields by atomics, buffers by views.
#[derive(Clone, Debug)]
pub struct Area {
    /// Keeps the mapping alive.
    memory: Arc<GuestMemory>,
    base: NonNull<u8>,
    guest_addr: u64,
    user_addr: u64,
    len: usize,
}

// SAFETY: an area is an address range of a mapping that it keeps alive, and
// all access to it is by atomics or by copies.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Area {
    /// The address of the byte at `at` for the guest: what descriptors carry.
    pub fn guest_addr(&self, at: usize) -> u64 {
        self.guest_addr + at as u64
    }

    /// The first byte's address for the front end: what ring addresses carry.
    pub fn user_addr(&self) -> u64 {
        self.user_addr
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory that this is a part of.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// `len` bytes from `at` on, to read.
    ///
    /// # Panics
    /// When they are not all inside.
    #[inline]
    pub fn readable(&self, at: usize, len: usize) -> Readable<'_> {
        self.writable(at, len).as_readable()
    }

    /// `len` bytes from `at` on, to write.
    ///
    /// # Panics
    /// When they are not all inside.
    #[inline]
    pub fn writable(&self, at: usize, len: usize) -> Writable<'_> {
        let ptr = self.ptr(at, len, 1);
        let len = u32::try_from(len).expect("a view is shorter than 4 GiB");
        // SAFETY: `ptr` checked that `len` bytes are inside the area, whose
        // mapping lives as long as `self`, which the view borrows.
        unsafe { Writable::new(ptr, len) }
    }

    /// Overwrites everything with zeros.
    pub fn clear(&self) {
        let zeros = [0; 4096];
        let mut at = 0;
        while at < self.len {
            let len = zeros.len().min(self.len - at);
            at += self.writable(at, len).write(&zeros[..len]);
        }
    }

    /// Where `len` bytes at `at` are mapped; they are inside and aligned.
    #[inline]
    fn ptr(&self, at: usize, len: usize, align: usize) -> NonNull<u8> {
        assert!(
            at <= self.len && len <= self.len - at,
            "bytes {at}..{at}+{len} of an area of {}",
            self.len
        );
        // SAFETY: inside the area, as just checked.
        let ptr = unsafe { self.base.add(at) };
        assert!(
            ptr.addr().get() % align == 0,
            "byte {at} is not aligned to {align}"
        );
        ptr
    }

    /// Lets the threads of a model share `len` bytes at `at`, `width` at once.
    #[cfg(loom)]
    pub fn share(&self, at: usize, len: usize, width: usize) {
        crate::word::model::share(self.ptr(at, len, width).as_ptr(), len, width);
    }

    /// Reads the 16-bit field at `at`.
    ///
    /// # Panics
    /// When it is not inside or not aligned; so do the other fields' functions.
    #[inline]
    pub fn load16(&self, at: usize, order: Ordering) -> u16 {
        // SAFETY: `ptr` checked bounds and alignment; the mapping is alive, and
        // all access to it is atomic or by copies of bytes.
        u16::from_le(unsafe { AtomicU16::from_ptr(self.ptr(at, 2, 2).as_ptr().cast()) }.load(order))
    }

    /// Writes the 16-bit field at `at`.
    #[inline]
    pub fn store16(&self, at: usize, value: u16, order: Ordering) {
        // SAFETY: as in `load16`.
        unsafe { AtomicU16::from_ptr(self.ptr(at, 2, 2).as_ptr().cast()) }
            .store(value.to_le(), order);
    }

    /// Reads the 32-bit field at `at`.
    #[inline]
    pub fn load32(&self, at: usize, order: Ordering) -> u32 {
        // SAFETY: as in `load16`.
        u32::from_le(unsafe { AtomicU32::from_ptr(self.ptr(at, 4, 4).as_ptr().cast()) }.load(order))
    }

    /// Writes the 32-bit field at `at`.
    #[inline]
    pub fn store32(&self, at: usize, value: u32, order: Ordering) {
        // SAFETY: as in `load16`.
        unsafe { AtomicU32::from_ptr(self.ptr(at, 4, 4).as_ptr().cast()) }
            .store(value.to_le(), order);
    }

    /// Reads the 64-bit field at `at`.
    #[inline]
    pub fn load64(&self, at: usize, order: Ordering) -> u64 {
        // SAFETY: as in `load16`.
        u64::from_le(unsafe { AtomicU64::from_ptr(self.ptr(at, 8, 8).as_ptr().cast()) }.load(order))
    }

    /// Writes the 64-bit field at `at`.
    #[inline]
    pub fn store64(&self, at: usize, value: u64, order: Ordering) {
        // SAFETY: as in `load16`.
        unsafe { AtomicU64::from_ptr(self.ptr(at, 8, 8).as_ptr().cast()) }
            .store(value.to_le(), order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_guest_address_is_a_front_end_address() {
        let memory = DriverMemory::of_len(3 << 20, 3).unwrap();
        assert_eq!(memory.regions().len(), 3);
        assert_eq!(memory.table().total_bytes(), 3 << 20);
        for (spec, _) in memory.regions() {
            assert!(memory.table().user_range(spec.guest_addr, 1).is_none());
            assert!(memory.table().readable(spec.user_addr, 1).is_none());
            // Neighbours do not touch, so a buffer cannot run from one into
            // the next by chance.
            assert!(
                memory
                    .table()
                    .readable(spec.guest_addr + spec.len, 1)
                    .is_none()
            );
        }
    }

    #[test]
    fn allocations_spread_over_regions_and_do_not_overlap() {
        let mut memory = DriverMemory::of_len(16384, 2).unwrap();
        let a = memory.allocate(100, 16).unwrap();
        let b = memory.allocate(100, 16).unwrap();
        let c = memory.allocate(100, 16).unwrap();
        assert_eq!(c.guest_addr(0), a.guest_addr(0) + 112);
        assert_eq!(b.guest_addr(0), a.guest_addr(0) + 16384);
        assert!(matches!(
            memory.allocate(8192, 1),
            Err(DriverMemoryError::Full { len: 8192 })
        ));
        memory.allocate(8192 - 212, 1).unwrap();
    }

    #[test]
    fn an_area_is_the_same_bytes_by_every_address() {
        let mut memory = DriverMemory::of_len(8192, 1).unwrap();
        memory.allocate(5, 1).unwrap();
        let area = memory.allocate(64, 8).unwrap();
        area.store64(8, 0x0102_0304_0506_0708, Ordering::Relaxed);
        area.store16(16, 0x1122, Ordering::Relaxed);
        area.store32(20, 0x3344_5566, Ordering::Relaxed);
        let view = memory.table().readable(area.guest_addr(8), 16).unwrap();
        assert_eq!(
            view.read_array(),
            Some([
                8, 7, 6, 5, 4, 3, 2, 1, 0x22, 0x11, 0, 0, 0x66, 0x55, 0x44, 0x33
            ])
        );
        assert_eq!(area.load64(8, Ordering::Relaxed), 0x0102_0304_0506_0708);
        assert!(memory.table().user_range(area.user_addr(), 64).is_some());
        area.clear();
        assert_eq!(area.readable(0, 64).read_array(), Some([0; 64]));
    }

    #[test]
    #[should_panic(expected = "of an area of 64")]
    fn an_area_ends_where_it_ends() {
        let mut memory = DriverMemory::of_len(8192, 1).unwrap();
        let area = memory.allocate(64, 8).unwrap();
        area.load16(63, Ordering::Relaxed);
    }
}
