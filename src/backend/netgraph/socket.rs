//! The data socket: one frame a datagram.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::net::direct::{self, Got, Reader, Writer};
use crate::virtio::memory::{Readable, Writable};

/// What is to be received.
pub(super) struct Inbox {
    reader: Reader,
    /// A frame that waits for buffers.
    pub kept: Option<Vec<u8>>,
}

/// A data socket.
pub(super) struct Socket {
    fd: OwnedFd,
    inbox: Mutex<Inbox>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Self {
        let inbox = Inbox {
            reader: Reader::new(),
            kept: None,
        };
        Self {
            fd,
            inbox: Mutex::new(inbox),
        }
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `fd` in the place of the descriptor, whose number stays as others
    /// have it.
    ///
    /// # Errors
    /// What dup3(2) says.
    pub(super) fn replace(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        direct::replace(self.fd.as_fd(), fd)
    }

    /// The other end is gone for good: with its last hook our node has ended.
    pub(super) fn is_hung_up(&self) -> bool {
        let mut asked = [PollFd::new(self.fd.as_fd(), PollFlags::empty())];
        let answered = poll(&mut asked, PollTimeout::ZERO).is_ok_and(|count| count > 0);
        answered
            && asked[0]
                .revents()
                .is_some_and(|said| said.intersects(PollFlags::POLLHUP | PollFlags::POLLNVAL))
    }

    /// Reads one frame into `room`.
    ///
    /// # Errors
    /// What read(2) says; `EAGAIN` when nothing is waiting.
    pub(super) fn read(&self, room: &[Writable<'_>], inbox: &mut Inbox) -> Result<Got, Errno> {
        inbox.reader.read(self.fd.as_fd(), &mut [], room)
    }

    /// Writes one frame. It needs no address, which capability mode would
    /// refuse, as long as our node has one hook (ngd_send() in ng_socket.c).
    ///
    /// # Errors
    /// What write(2) says.
    pub(super) fn write(&self, parts: &[Readable<'_>], writer: &mut Writer) -> Result<(), Errno> {
        writer.write(self.fd.as_fd(), &[], parts).map(drop)
    }
}
