//! The shared memory object that a region's pools lie in: one of our own, or a
//! client's.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

use super::MemError;

/// Anonymous shared memory, mapped here and, by descriptor, in clients. Its
/// size is sealed: nobody who has the descriptor can take pages from under us,
/// so that no access faults. Pages come into being when they are touched.
#[derive(Debug)]
pub(super) struct SharedObject {
    fd: OwnedFd,
    mapping: Mapping,
    /// A client's: what is in it is not ours to give back.
    external: bool,
}

/// Device, inode, length.
pub(super) type ObjectId = (libc::dev_t, libc::ino_t, NonZeroUsize);

/// The first bytes of an object that nobody can make smaller, mapped.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: a mapping belongs to no thread; whoever copies from or to it proves
// the range with a view, and no reference points into it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `len` bytes of the object `fd`, which stay mapped when that is closed.
    pub(super) fn new(fd: BorrowedFd<'_>, len: NonZeroUsize) -> nix::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the system's choice touches
        // no memory that this program knows.
        let base = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self {
            base: base.cast(),
            len,
        })
    }

    /// The first byte; `len` bytes are mapped while this lives.
    #[inline]
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes that are mapped.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len.get()
    }
}

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
        Self::map(fd, len, false)
    }

    /// The first `len` bytes of a client's object, as they are.
    ///
    /// # Errors
    /// When it could lose these bytes, or nobody may write them.
    pub(super) fn external(fd: OwnedFd, len: NonZeroUsize) -> Result<Self, MemError> {
        check_external(&fd, len)?;
        Self::map(fd, len, true).map_err(|errno| MemError::System {
            bytes: len.get() as u64,
            errno,
        })
    }

    fn map(fd: OwnedFd, len: NonZeroUsize, external: bool) -> nix::Result<Self> {
        Ok(Self {
            mapping: Mapping::new(fd.as_fd(), len)?,
            fd,
            external,
        })
    }

    /// The first byte; all of it is mapped while this lives.
    #[inline]
    pub(super) fn base(&self) -> NonNull<u8> {
        self.mapping.base()
    }

    /// Which object it is, and how much of it.
    pub(super) fn id(&self) -> nix::Result<ObjectId> {
        let stat = fstat(&self.fd)?;
        Ok((stat.st_dev, stat.st_ino, self.mapping.len))
    }

    /// For a client to map.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Gives pages of our own back to the system; what is read afterwards is
    /// zero.
    pub(super) fn release_pages(&self) {
        if !self.external {
            self.punch();
        }
    }

    #[cfg(target_os = "linux")]
    fn punch(&self) {
        use nix::fcntl::{FallocateFlags, fallocate};
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // It fitted off_t when the object was made.
        let len = libc::off_t::try_from(self.mapping.len()).unwrap_or(libc::off_t::MAX);
        if let Err(errno) = fallocate(&self.fd, mode, 0, len) {
            tracing::debug!("pages of an unused netmap region stay in memory: {errno}");
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn punch(&self) {
        use nix::errno::Errno;
        use std::os::fd::AsRawFd;
        let whole = libc::spacectl_range {
            r_offset: 0,
            // As above.
            r_len: libc::off_t::try_from(self.mapping.len()).unwrap_or(libc::off_t::MAX),
        };
        let (fd, rest) = (self.fd.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: a range to be read, and nowhere to say what is left of it;
        // what is mapped stays mapped and reads as zero.
        let done =
            unsafe { libc::fspacectl(fd, libc::SPACECTL_DEALLOC, &raw const whole, 0, rest) };
        if let Err(errno) = Errno::result(done) {
            tracing::debug!("pages of an unused netmap region stay in memory: {errno}");
        }
    }
}

/// Checks that the first `len` bytes of a client's object stay there: it is
/// anonymous memory that is sealed against getting smaller. Seals cannot be
/// taken off, so what is found stays so.
fn check_external(fd: &OwnedFd, len: NonZeroUsize) -> Result<(), MemError> {
    let seals = fcntl(fd, FcntlArg::F_GET_SEALS).map_err(|_| MemError::NotSealed)?;
    let seals = SealFlag::from_bits_truncate(seals);
    if !seals.contains(SealFlag::F_SEAL_SHRINK) || !is_plain_memory(fd) {
        return Err(MemError::NotSealed);
    }
    let (size, need) = (object_size(fd), len.get() as u64);
    if size < need {
        return Err(MemError::Beyond { need, size });
    }
    Ok(())
}

fn object_size(fd: &OwnedFd) -> u64 {
    fstat(fd)
        .ok()
        .and_then(|stat| u64::try_from(stat.st_size).ok())
        .unwrap_or(0)
}

/// Huge pages have seals too, but may run out when one is touched, which kills
/// who touches it.
#[cfg(target_os = "linux")]
fn is_plain_memory(fd: &OwnedFd) -> bool {
    use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
    fstatfs(fd).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC)
}

/// Nothing else has seals.
#[cfg(not(target_os = "linux"))]
fn is_plain_memory(_: &OwnedFd) -> bool {
    true
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; views borrow what owns
        // this, so none is left.
        if let Err(errno) = unsafe { munmap(self.base.cast(), self.len.get()) } {
            tracing::error!("netmap region of {} bytes not unmapped: {errno}", self.len);
        }
    }
}
