//! One queue of a tap: a descriptor, and what came in on it and did not fit.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrayvec::ArrayVec;
use nix::errno::Errno;

use crate::net::frame::{FRAME_PARTS, MAX_FRAME};
use crate::virtio::memory::{Readable, Writable, copy};
use crate::virtio::net_header::{LEN, NetHeader};

/// Bytes of the buffer behind the guest's: with none of theirs it must hold any
/// frame, and one byte more shows a frame that is longer still.
const SPILL: usize = MAX_FRAME + 1;
/// Most buffers of one readv(2) (IOV_MAX in limits.h).
const BUFFERS: usize = 1024;

/// A frame that the guest could not have at once.
pub(super) struct Kept {
    /// As the kernel said it; a plain one when we finished the frame.
    pub header: NetHeader,
    pub frame: Vec<u8>,
}

impl Kept {
    /// A complete frame.
    pub(super) fn plain(frame: Vec<u8>) -> Self {
        Self {
            header: NetHeader::default(),
            frame,
        }
    }
}

/// What is to be received on a queue.
pub(super) struct Inbox {
    /// The end of frames for which the guest has too few buffers.
    pub spill: Box<[u8]>,
    /// Frames that come before what the kernel has. Segments of one frame, if
    /// there are several.
    pub kept: VecDeque<Kept>,
}

/// What was read.
pub(super) enum Read {
    /// A frame of so many bytes is in the guest's buffers.
    Whole(NetHeader, usize),
    /// A frame did not fit there.
    Spilled(Kept),
    /// It fitted nowhere, and is lost.
    TooLong,
    /// A header without a frame: the kernel could not express its offloads, and
    /// has dropped it.
    Nothing,
}

/// One queue.
pub(super) struct Queue {
    fd: OwnedFd,
    inbox: Mutex<Inbox>,
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Queue {
    pub(super) fn new(fd: OwnedFd) -> Self {
        let inbox = Inbox {
            // Zeroed pages, of which those are never touched that no frame
            // ever spills into.
            spill: vec![0; SPILL].into_boxed_slice(),
            kept: VecDeque::new(),
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

    /// Reads one frame behind a header of `header_len` bytes into `room`, and
    /// what does not fit into `spill`.
    ///
    /// # Errors
    /// What readv(2) says; `EAGAIN` when nothing is waiting.
    pub(super) fn read(
        &self,
        header_len: usize,
        room: &[Writable<'_>],
        spill: &mut [u8],
    ) -> Result<Read, Errno> {
        let mut header = [0; LEN];
        let header_len = header_len.min(LEN);
        let mut buffers = ArrayVec::<libc::iovec, BUFFERS>::new();
        buffers.push(iovec(&mut header[..header_len]));
        let mut capacity = 0;
        for part in room.iter().take(BUFFERS - 2) {
            buffers.push(part.iovec());
            capacity += part.len();
        }
        buffers.push(iovec(spill));
        let count = libc::c_int::try_from(buffers.len()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: each buffer is ours alone or proved by its view to be mapped
        // and writable; a page that has vanished meanwhile is EFAULT.
        let got = unsafe { libc::readv(self.fd.as_raw_fd(), buffers.as_ptr(), count) };
        let got = usize::try_from(Errno::result(got)?).map_err(|_| Errno::EIO)?;
        let Some(len) = got.checked_sub(header_len) else {
            return Err(Errno::EIO);
        };
        if len == 0 {
            return Ok(Read::Nothing);
        }
        let header = NetHeader::from_bytes(&header);
        if len <= capacity {
            return Ok(Read::Whole(header, len));
        }
        let rest = len - capacity;
        if rest >= spill.len() || len > MAX_FRAME {
            return Ok(Read::TooLong);
        }
        let mut frame = copy_in(room, capacity);
        frame.extend_from_slice(&spill[..rest]);
        Ok(Read::Spilled(Kept { header, frame }))
    }

    /// Writes one frame behind its `header`, as far as `header_len` goes;
    /// `buffers` is scratch.
    ///
    /// # Errors
    /// What writev(2) says, and `ENETDOWN` when it has taken nothing.
    pub(super) fn write(
        &self,
        header_len: usize,
        header: &NetHeader,
        parts: &[Readable<'_>],
        buffers: &mut ArrayVec<libc::iovec, { FRAME_PARTS + 1 }>,
    ) -> Result<(), Errno> {
        let header = header.to_bytes();
        let header = header.get(..header_len).unwrap_or(&header);
        buffers.clear();
        buffers.push(Readable::from_slice(header).iovec());
        // A frame has no more than FRAME_PARTS.
        buffers.extend(parts.iter().take(FRAME_PARTS).map(Readable::iovec));
        let count = libc::c_int::try_from(buffers.len()).map_err(|_| Errno::EINVAL)?;
        loop {
            // SAFETY: each buffer is ours or proved by its view to be mapped,
            // and only read; a page that has vanished meanwhile is EFAULT.
            let put = unsafe { libc::writev(self.fd.as_raw_fd(), buffers.as_ptr(), count) };
            match Errno::result(put) {
                // FreeBSD says so.
                Ok(0) => return Err(Errno::ENETDOWN),
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Our own bytes, to be read into.
fn iovec(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

/// A copy of the first `len` bytes of `room`.
pub(super) fn copy_in(room: &[Writable<'_>], len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    let mut at = 0;
    for part in room.iter().take(BUFFERS - 2) {
        let end = len.min(at + part.len());
        part.as_readable().read(&mut frame[at..end]);
        at = end;
    }
    frame
}

/// Copies `frame` into `room`, if it fits.
pub(super) fn copy_out(frame: &[u8], room: &[Writable<'_>]) -> bool {
    let capacity: usize = room.iter().map(Writable::len).sum();
    capacity >= frame.len() && copy(&[Readable::from_slice(frame)], room) == frame.len()
}
