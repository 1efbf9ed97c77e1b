//! Guest memory: which part of which mapping an address means.
//!
//! A front end describes the guest's memory as *regions*. Each has two
//! addresses: the *guest address* that descriptors use, and the *front-end
//! address* (vhost-user calls it the user address) that ring addresses use.
//! [`GuestMemory`] is an immutable snapshot of the table; a batch holds one
//! snapshot, and a change makes a new one, so nothing is unmapped under a batch.
//!
//! No Rust reference ever points into a mapping. What a lookup has proved is
//! held by a [`Readable`] or a [`Writable`], which only copy.

mod fault;
mod mapping;
pub(crate) mod prefetch;
mod view;
mod window;

use std::fmt;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

pub use fault::{install as install_fault_handler, set_notifier as set_fault_notifier};
pub use mapping::Mapping;
#[cfg(test)]
pub use view::COPIED;
pub use view::{Readable, View, Writable, copy, gather};
pub(crate) use window::Window;

/// Most regions in one table: what `VHOST_USER_GET_MAX_MEM_SLOTS` answers.
pub const MAX_REGIONS: usize = 509;

/// Most bytes in one table. Mapped memory takes address space, which the whole
/// process shares (2^47 bytes on most machines), whether or not there is
/// anything behind it.
pub const MAX_BYTES: u64 = 1 << 44;

/// Where a region lies, in the fields of the vhost-user message (bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// First guest address.
    pub guest_addr: u64,
    /// First front-end address.
    pub user_addr: u64,
    /// Length.
    pub len: u64,
    /// Where the region begins in its descriptor.
    pub offset: u64,
}

impl fmt::Display for RegionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            guest_addr,
            user_addr,
            len,
            offset,
        } = self;
        write!(
            f,
            "{guest_addr:#x} ({len:#x} bytes, the front end's {user_addr:#x}, from {offset:#x} of \
             its file)"
        )
    }
}

/// Why a memory table was refused.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A length of zero, or an address range that wraps around.
    #[error("memory region at {0} is empty or passes the end of the address space")]
    Range(RegionSpec),
    /// Two regions claim the same address.
    #[error("memory regions at {0} and at {1} overlap")]
    Overlap(RegionSpec, RegionSpec),
    /// The descriptor holds less than the region says.
    #[error("memory region at {0} ends beyond its descriptor's {1:#x} bytes")]
    Short(RegionSpec, u64),
    /// The system refused to map it.
    #[error("memory region at {0} cannot be mapped: {1}; share it with share=on")]
    Map(RegionSpec, nix::Error),
    /// No such region to remove.
    #[error("memory region at {0} is not in the table")]
    Unknown(RegionSpec),
    /// More than [`MAX_BYTES`].
    #[error("memory region at {0} would make the table longer than {MAX_BYTES:#x} bytes")]
    TooLong(RegionSpec),
    /// All devices together have mapped as much as the process maps.
    #[error("memory region at {0} is more than can be mapped beside other devices' memory")]
    NoSpace(RegionSpec),
    /// More than [`MAX_REGIONS`].
    #[error("more than {MAX_REGIONS} memory regions")]
    TooMany,
}

#[derive(Clone, Debug)]
struct Region {
    spec: RegionSpec,
    mapping: Arc<Mapping>,
    /// How often it was added and not removed.
    times: u32,
}

impl Region {
    /// The mapped address of `offset` bytes into the region.
    fn host(&self, offset: u64) -> NonNull<u8> {
        // The region's length fits the mapping, which fits usize.
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.mapping.at(offset)
    }
}

/// An immutable table of memory regions.
#[derive(Debug, Default)]
pub struct GuestMemory {
    /// By guest address.
    regions: Vec<Region>,
}

impl GuestMemory {
    /// A table without regions.
    pub const fn new_empty() -> Self {
        Self {
            regions: Vec::new(),
        }
    }

    /// Maps `regions`. The descriptors are closed afterwards; mappings stay.
    ///
    /// # Errors
    /// Nothing stays mapped when any region is refused.
    pub fn new(
        regions: impl IntoIterator<Item = (RegionSpec, OwnedFd)>,
    ) -> Result<Self, MemoryError> {
        regions
            .into_iter()
            .try_fold(Self::default(), |table, (spec, fd)| {
                table.with_region(spec, &fd)
            })
    }

    /// This table with one region more.
    ///
    /// # Errors
    /// When the region is empty, overlaps another or cannot be mapped.
    pub fn with_region(&self, spec: RegionSpec, fd: &OwnedFd) -> Result<Self, MemoryError> {
        if self.regions.len() >= MAX_REGIONS {
            return Err(MemoryError::TooMany);
        }
        if spec.len == 0
            || spec.guest_addr.checked_add(spec.len).is_none()
            || spec.user_addr.checked_add(spec.len).is_none()
            || spec.offset.checked_add(spec.len).is_none()
        {
            return Err(MemoryError::Range(spec));
        }
        let overlap = |a: u64, b: u64, b_len: u64| a < b + b_len && b < a + spec.len;
        if let Some(other) = self.regions.iter().find(|r| {
            overlap(spec.guest_addr, r.spec.guest_addr, r.spec.len)
                || overlap(spec.user_addr, r.spec.user_addr, r.spec.len)
        }) {
            return Err(MemoryError::Overlap(spec, other.spec));
        }
        if spec.len > MAX_BYTES.saturating_sub(self.total_bytes()) {
            return Err(MemoryError::TooLong(spec));
        }
        let mapping = Arc::new(Mapping::new(&spec, fd)?);
        let mut regions = self.regions.clone();
        let at = regions.partition_point(|r| r.spec.guest_addr < spec.guest_addr);
        let times = 1;
        regions.insert(
            at,
            Region {
                spec,
                mapping,
                times,
            },
        );
        Ok(Self { regions })
    }

    /// This table with a region added once more: exactly one that it has. QEMU
    /// (7.2) adds and removes every region once for each pair of queues.
    pub fn with_region_again(&self, spec: RegionSpec) -> Option<Self> {
        let mut regions = self.regions.clone();
        let region = regions.iter_mut().find(|r| r.spec == spec)?;
        region.times = region.times.checked_add(1)?;
        Some(Self { regions })
    }

    /// This table without the region at these addresses (the offset is not
    /// compared: `VHOST_USER_REM_MEM_REG` need not carry it), when it was
    /// removed as often as it was added.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn without_region(&self, spec: RegionSpec) -> Result<Self, MemoryError> {
        let mut regions = self.regions.clone();
        let at = regions
            .iter()
            .position(|r| {
                (r.spec.guest_addr, r.spec.user_addr, r.spec.len)
                    == (spec.guest_addr, spec.user_addr, spec.len)
            })
            .ok_or(MemoryError::Unknown(spec))?;
        match regions.get_mut(at) {
            Some(region) if region.times > 1 => region.times -= 1,
            _ => drop(regions.remove(at)),
        }
        Ok(Self { regions })
    }

    /// How many regions there are.
    pub fn len(&self) -> usize {
        self.regions.len()
    }

    /// There are no regions.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Bytes of all regions.
    pub fn total_bytes(&self) -> u64 {
        self.regions.iter().map(|r| r.spec.len).sum()
    }

    /// Memory vanished under one of the mappings: zeros are there now, and
    /// nothing that was read since can be believed.
    pub fn is_broken(&self) -> bool {
        self.regions.iter().any(|r| r.mapping.is_broken())
    }

    /// Looks up a front-end address. All `len` bytes must lie in one region.
    pub(crate) fn user_range(&self, addr: u64, len: u64) -> Option<NonNull<u8>> {
        let region = self.regions.iter().find(|r| {
            addr.checked_sub(r.spec.user_addr)
                .is_some_and(|offset| offset < r.spec.len && len <= r.spec.len - offset)
        })?;
        Some(region.host(addr - region.spec.user_addr))
    }

    /// The region that holds a guest address. `hint` remembers the last one.
    #[inline]
    fn find(&self, addr: u64, hint: &mut usize) -> Option<&Region> {
        if let Some(region) = self.regions.get(*hint) {
            if addr.wrapping_sub(region.spec.guest_addr) < region.spec.len {
                return Some(region);
            }
        }
        self.find_slow(addr, hint)
    }

    #[cold]
    fn find_slow(&self, addr: u64, hint: &mut usize) -> Option<&Region> {
        let at = self
            .regions
            .partition_point(|r| r.spec.guest_addr <= addr)
            .checked_sub(1)?;
        let region = self.regions.get(at)?;
        *hint = at;
        (addr - region.spec.guest_addr < region.spec.len).then_some(region)
    }

    /// The region that `hint` remembers.
    #[inline]
    pub(crate) fn window(&self, hint: usize) -> Option<Window<'_>> {
        let region = self.regions.get(hint)?;
        // SAFETY: the whole region is mapped, for as long as this snapshot is
        // borrowed.
        Some(unsafe { Window::new(region.spec.guest_addr, region.spec.len, region.host(0)) })
    }

    /// Splits a buffer at guest addresses into mapped pieces, in order, and
    /// hands each to `piece`: a buffer may cross from one region into the next.
    /// `None` when a byte of it is in no region, or when `piece` refuses.
    #[inline]
    pub(crate) fn pieces(
        &self,
        mut addr: u64,
        mut len: u32,
        hint: &mut usize,
        mut piece: impl FnMut(NonNull<u8>, u32) -> Option<()>,
    ) -> Option<()> {
        while len > 0 {
            let region = self.find(addr, hint)?;
            let offset = addr - region.spec.guest_addr;
            let here = u32::try_from(region.spec.len - offset).map_or(len, |room| room.min(len));
            piece(region.host(offset), here)?;
            len -= here;
            addr = addr.checked_add(u64::from(here))?;
        }
        Some(())
    }

    /// The `len` readable bytes at one guest address, if one region holds them.
    pub fn readable(&self, addr: u64, len: u32) -> Option<Readable<'_>> {
        let region = self.find_slow(addr, &mut 0)?;
        let offset = addr - region.spec.guest_addr;
        // SAFETY: the region holds `len` bytes at `offset`, and the mapping
        // lives as long as this snapshot, which the view borrows.
        (u64::from(len) <= region.spec.len - offset)
            .then(|| unsafe { Readable::new(region.host(offset), len) })
    }

    /// The `len` writable bytes at one guest address, if one region holds them.
    pub fn writable(&self, addr: u64, len: u32) -> Option<Writable<'_>> {
        let region = self.find_slow(addr, &mut 0)?;
        let offset = addr - region.spec.guest_addr;
        // SAFETY: as in `readable`.
        (u64::from(len) <= region.spec.len - offset)
            .then(|| unsafe { Writable::new(region.host(offset), len) })
    }
}

#[cfg(test)]
mod tests;
