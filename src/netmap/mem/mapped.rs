//! A region of the service's that a client has mapped for itself, beside the
//! mapping that its program has.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::errno::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::object::Mapping;
use super::progress::{LINE, Progress};
use super::view::{RingParts, RingView};
use crate::netmap::abi;

/// Where the buffers of a region are, as the service says.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Buffers {
    /// Bytes from the start of the region to buffer 0.
    pub offset: u64,
    /// Bytes of a buffer.
    pub size: u32,
    /// How many there are, 0 and 1 included.
    pub num: u32,
}

/// A region, mapped by a client of the service, which vouches for its size. The
/// descriptor is not kept: those of a program's process are the program's, which
/// may close them all.
#[derive(Debug)]
pub struct Mapped {
    mapping: Mapping,
    buffers: Buffers,
}

impl Mapped {
    /// Maps `bytes` of the region `fd`, whose buffers are where `buffers` says.
    ///
    /// # Errors
    /// Those of mmap(2); `EINVAL`: the buffers are not inside.
    pub fn new(fd: BorrowedFd<'_>, bytes: u64, buffers: Buffers) -> nix::Result<Self> {
        let len = usize::try_from(bytes).ok().and_then(NonZeroUsize::new);
        let len = len.ok_or(Errno::EINVAL)?;
        let all = u64::from(buffers.size) * u64::from(buffers.num);
        let end = buffers.offset.checked_add(all);
        if end.is_none_or(|end| end > bytes) {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            mapping: Mapping::new(fd, len)?,
            buffers,
        })
    }

    /// `len` bytes at `offset`, aligned to `align`.
    #[inline]
    fn at(&self, offset: u64, len: u64, align: u64) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        let inside = end <= self.mapping.len() as u64 && offset % align == 0;
        let offset = usize::try_from(offset).ok().filter(|_| inside)?;
        // SAFETY: inside of the mapping, as just checked.
        Some(unsafe { self.mapping.base().add(offset) })
    }

    /// The ring of `slots` slots at `offset`, and how far it is, if all that is
    /// inside.
    pub fn ring(&self, offset: u64, slots: u32) -> Option<(RingView<'_>, Progress<'_>)> {
        let ring = self.at(offset, 0, 8)?;
        let line = line_behind(offset, slots);
        let line = self.at(line, LINE as u64, LINE as u64)?;
        let parts = RingParts {
            ring,
            buffers: self.at(self.buffers.offset, 0, 1)?,
            slots,
            buf_size: self.buffers.size,
            buf_num: self.buffers.num,
        };
        // SAFETY: header and slots lie between the two, the buffers are inside
        // as `new` has checked, and all is mapped as long as `self` is; mappings
        // are aligned to pages. Whoever else has them shares the region.
        unsafe { Some((RingView::new(parts), Progress::new(line))) }
    }
}

/// Where the line of a ring of `slots` slots at `offset` is: the first whole one
/// behind it.
#[inline]
pub(super) fn line_behind(offset: u64, slots: u32) -> u64 {
    let end = offset + (size_of::<abi::Ring>() + size_of::<abi::Slot>() * slots as usize) as u64;
    end.next_multiple_of(LINE as u64)
}
