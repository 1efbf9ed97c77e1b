//! Guest memory in anonymous objects of shm_open(2), as bhyve-like VMMs have it
//! that do not use vmm(4).

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use capsicum::{CapRights, FileRights, Right};
use nix::errno::Errno;
use vtnetd::driver::memory::{MemorySource, set_len};
use vtnetd::virtio::memory::RegionSpec;

/// An object for each region.
#[derive(Debug)]
pub struct Anonymous {
    /// What is shared can be mapped, and nothing else.
    pub limited: bool,
}

impl MemorySource for Anonymous {
    fn object(&self, region: &mut RegionSpec) -> nix::Result<OwnedFd> {
        // SAFETY: SHM_ANON is no path and is not read as one.
        let fd = unsafe { libc::shm_open(libc::SHM_ANON, libc::O_RDWR | libc::O_CLOEXEC, 0o600) };
        let fd = Errno::result(fd)?;
        // SAFETY: it is new and nobody else's.
        let object = unsafe { OwnedFd::from_raw_fd(fd) };
        set_len(&object, region)?;
        if self.limited {
            for_mapping_only(object.as_fd())?;
        }
        Ok(object)
    }
}

/// Takes every right from `fd` but to map it for reading and writing.
pub fn for_mapping_only(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let mut rights = FileRights::new();
    rights.allow(Right::MmapRW);
    let limited = rights.limit(&fd);
    limited.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}
