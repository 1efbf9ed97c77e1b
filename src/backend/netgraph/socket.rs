//! The data socket: one frame a datagram.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::net::frame::{FRAME_PARTS, MAX_FRAME};
use crate::virtio::memory::{Readable, Writable, copy};

/// Bytes of the buffer behind the guest's: with none of theirs it must hold any
/// frame, and one byte more shows a frame that is longer still.
const SPILL: usize = MAX_FRAME + 1;
/// Most buffers of one readv(2) (IOV_MAX in limits.h).
const BUFFERS: usize = 1024;

/// What is to be received.
pub(super) struct Inbox {
    /// The end of frames for which the guest has too few buffers.
    spill: Box<[u8]>,
    /// A frame that waits for buffers.
    pub kept: Option<Vec<u8>>,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A frame of so many bytes is in the guest's buffers.
    Whole(usize),
    /// A frame did not fit there.
    Spilled(Vec<u8>),
    /// It fitted nowhere, and is lost.
    TooLong,
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
            // Zeroed pages, of which those are never touched that no frame
            // ever spills into.
            spill: vec![0; SPILL].into_boxed_slice(),
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
        // SAFETY: the number is ours and stays open; whoever is in a call on it
        // holds on to the file that it was.
        let done = unsafe { libc::dup3(fd.as_raw_fd(), self.fd.as_raw_fd(), libc::O_CLOEXEC) };
        Errno::result(done).map(drop)
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

    /// Reads one frame into `room`, and what does not fit into the inbox.
    ///
    /// # Errors
    /// What readv(2) says; `EAGAIN` when nothing is waiting.
    pub(super) fn read(&self, room: &[Writable<'_>], inbox: &mut Inbox) -> Result<Read, Errno> {
        let mut buffers = ArrayVec::<libc::iovec, BUFFERS>::new();
        let room = room.get(..BUFFERS - 1).unwrap_or(room);
        let mut capacity = 0;
        for part in room {
            buffers.push(part.iovec());
            capacity += part.len();
        }
        buffers.push(libc::iovec {
            iov_base: inbox.spill.as_mut_ptr().cast(),
            iov_len: inbox.spill.len(),
        });
        let count = libc::c_int::try_from(buffers.len()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: each buffer is ours alone or proved by its view to be mapped
        // and writable; a page that has vanished meanwhile is EFAULT.
        let got = unsafe { libc::readv(self.fd.as_raw_fd(), buffers.as_ptr(), count) };
        let len = usize::try_from(Errno::result(got)?).map_err(|_| Errno::EIO)?;
        let Some(rest) = len.checked_sub(capacity).filter(|rest| *rest > 0) else {
            return Ok(Read::Whole(len));
        };
        if len > MAX_FRAME {
            return Ok(Read::TooLong);
        }
        let mut frame = Vec::with_capacity(len);
        for part in room {
            let at = frame.len();
            frame.resize(at + part.len(), 0);
            part.as_readable().read(&mut frame[at..]);
        }
        frame.extend_from_slice(inbox.spill.get(..rest).ok_or(Errno::EIO)?);
        Ok(Read::Spilled(frame))
    }

    /// Writes one frame; `buffers` is scratch. It needs no address, which
    /// capability mode would refuse, as long as our node has one hook
    /// (ngd_send() in ng_socket.c).
    ///
    /// # Errors
    /// What writev(2) says.
    pub(super) fn write(
        &self,
        parts: &[Readable<'_>],
        buffers: &mut ArrayVec<libc::iovec, FRAME_PARTS>,
    ) -> Result<(), Errno> {
        buffers.clear();
        // A frame has no more than FRAME_PARTS.
        buffers.extend(parts.iter().take(FRAME_PARTS).map(Readable::iovec));
        let count = libc::c_int::try_from(buffers.len()).map_err(|_| Errno::EINVAL)?;
        loop {
            // SAFETY: each buffer is proved by its view to be mapped, and only
            // read; a page that has vanished meanwhile is EFAULT.
            let put = unsafe { libc::writev(self.fd.as_raw_fd(), buffers.as_ptr(), count) };
            match Errno::result(put) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Copies `frame` into `room`, if it fits.
pub(super) fn copy_out(frame: &[u8], room: &[Writable<'_>]) -> bool {
    let capacity: usize = room.iter().map(Writable::len).sum();
    capacity >= frame.len() && copy(&[Readable::from_slice(frame)], room) == frame.len()
}
