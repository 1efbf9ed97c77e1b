//! What comes with a request besides its number: payload and descriptors.

use std::os::fd::OwnedFd;

use arrayvec::ArrayVec;
use nix::sys::stat::{SFlag, fstat};

use super::Reason;
use crate::frontend::vhost_user::message::{MAX_FDS, VringFd};
use crate::sandbox::{Role, limit};

/// What came with a request.
pub(super) struct Body<'m> {
    pub(super) payload: &'m [u8],
    pub(super) fds: ArrayVec<OwnedFd, MAX_FDS>,
}

impl Body<'_> {
    pub(super) fn decode<T>(&self, read: impl FnOnce(&[u8]) -> Option<T>) -> Result<T, Reason> {
        read(self.payload).ok_or(Reason::Size(self.payload.len()))
    }

    /// No descriptors, and a payload that `read` accepts.
    pub(super) fn plain<T>(&self, read: impl FnOnce(&[u8]) -> Option<T>) -> Result<T, Reason> {
        self.descriptors(0)?;
        self.decode(read)
    }

    /// Neither payload nor descriptors.
    pub(super) fn empty(&self) -> Result<(), Reason> {
        self.plain(|raw| raw.is_empty().then_some(()))
    }

    pub(super) fn descriptors(&self, want: usize) -> Result<(), Reason> {
        match self.fds.len() {
            got if got == want => Ok(()),
            got => Err(Reason::Descriptors { got, want }),
        }
    }

    pub(super) fn descriptor(mut self) -> Result<OwnedFd, Reason> {
        self.descriptors(1)?;
        let missing = Reason::Descriptors { got: 0, want: 1 };
        self.fds.pop().ok_or(missing)
    }

    /// A queue's index and what signals it, if anything does, for the use of
    /// `role` only.
    pub(super) fn vring_fd(mut self, role: Role) -> Result<(usize, Option<OwnedFd>), Reason> {
        let VringFd { index, no_fd } = self.decode(VringFd::from_bytes)?;
        if self.fds.len() != usize::from(!no_fd) {
            return Err(Reason::DescriptorFlag(self.fds.len()));
        }
        let fd = self.fds.pop();
        if let Some(fd) = &fd {
            check_notifier(fd)?;
            limit(fd, role).map_err(Reason::Rights)?;
        }
        Ok((usize::from(index), fd))
    }
}

/// Writing to a file or a terminal may block; neither tells anyone anything.
fn check_notifier(fd: &OwnedFd) -> Result<(), Reason> {
    let kind = SFlag::from_bits_truncate(fstat(fd)?.st_mode & SFlag::S_IFMT.bits());
    // An eventfd has no file type on Linux, and a pipe's on FreeBSD.
    let fits = kind.is_empty() || kind == SFlag::S_IFIFO || kind == SFlag::S_IFSOCK;
    fits.then_some(()).ok_or(Reason::Notifier)
}
