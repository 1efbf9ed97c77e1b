//! The shared memory object that a region's pools lie in.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

/// Anonymous shared memory, mapped here and, by descriptor, in clients. Its
/// size is sealed: nobody who has the descriptor can take pages from under us,
/// so that no access faults. Pages come into being when they are touched.
#[derive(Debug)]
pub(super) struct SharedObject {
    fd: OwnedFd,
    base: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: a mapping belongs to no thread; whoever copies from or to it proves
// the range with a view, and no reference points into it.
unsafe impl Send for SharedObject {}
// SAFETY: as above.
unsafe impl Sync for SharedObject {}

impl SharedObject {
    /// A new object of `len` bytes, all zero.
    pub(super) fn new(len: NonZeroUsize) -> nix::Result<Self> {
        let size = libc::off_t::try_from(len.get()).map_err(|_| nix::Error::EFBIG)?;
        let fd = memfd_create(
            c"netmap",
            MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
        )?;
        ftruncate(&fd, size)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the system's choice touches
        // no memory that this program knows.
        let base = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, &fd, 0) }?.cast();
        Ok(Self { fd, base, len })
    }

    /// The first byte; `len` bytes are mapped while this lives.
    #[inline]
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// For a client to map.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Gives the pages back to the system; what is read afterwards is zero.
    #[cfg(target_os = "linux")]
    pub(super) fn release_pages(&self) {
        use nix::fcntl::{FallocateFlags, fallocate};
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // It fitted off_t when the object was made.
        let len = libc::off_t::try_from(self.len.get()).unwrap_or(libc::off_t::MAX);
        if let Err(errno) = fallocate(&self.fd, mode, 0, len) {
            tracing::debug!("pages of an unused netmap region stay in memory: {errno}");
        }
    }

    /// Pages stay where they are: no hole can be made in this system's objects.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn release_pages(&self) {}
}

impl Drop for SharedObject {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; views borrow the region that owns
        // this, so none is left.
        if let Err(errno) = unsafe { munmap(self.base.cast(), self.len.get()) } {
            tracing::error!("netmap region of {} bytes not unmapped: {errno}", self.len);
        }
    }
}
