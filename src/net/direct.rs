//! Frames between a descriptor and guest memory, one a call.
//!
//! A long frame goes by readv(2) or writev(2) with the guest's buffers as its
//! own. A short one goes by read(2) or write(2) and is copied once more: on
//! Linux a list of buffers, if only of a header and a frame, costs more than to
//! copy a few cache lines. Which of the two the next frame is, the last ones
//! say.
//!
//! Batches by io_uring were measured on Linux 6.18, in vtnetd and on a bridged
//! tap: 1.04 of this at 64 bytes and 0.93 at 1514, for what an entry costs the
//! kernel is nearly what a call does, and what is read ahead is copied once
//! more. With the tap registered as the ring's own file it was 1.06 and 0.90.

use std::os::fd::{AsRawFd, BorrowedFd};

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::unistd;

use crate::net::frame::{FRAME_PARTS, MAX_FRAME};
use crate::virtio::memory::{Readable, Writable, copy, gather};
use crate::virtio::net_header;

/// Longest frame that is copied.
const SHORT: usize = 256;
/// For so many frames the longest of them is what is expected.
const RECENT: u32 = 64;
/// Most buffers of one readv(2) (IOV_MAX in limits.h).
const BUFFERS: usize = 1024;
/// Most parts of a room that are used: a header and the spill take two more.
const PARTS: usize = BUFFERS - 2;
/// Bytes of the longest virtio-net header.
const HEADER: usize = net_header::LEN;

/// What was read, without the header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// A frame of so many bytes is in the guest's buffers.
    Whole(usize),
    /// A frame did not fit there; a copy.
    Spilled(Vec<u8>),
    /// It fitted nowhere, and is lost.
    TooLong,
}

/// Reads frames.
pub(crate) struct Reader {
    /// Holds any header and frame, and one byte that shows a frame that is
    /// longer still. Zeroed pages, of which those are never touched that no
    /// frame ever comes to.
    buffer: Box<[u8]>,
    /// Bytes of the longest frame of late.
    recent: usize,
    /// For how many frames it stays that, if none is as long.
    left: u32,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; HEADER + MAX_FRAME + 1].into_boxed_slice(),
            recent: 0,
            left: 0,
        }
    }

    /// Bytes of the longest frame of late.
    pub(crate) fn recent(&self) -> usize {
        self.recent
    }

    /// Reads one frame behind `header` into `room`.
    ///
    /// # Errors
    /// What read(2) says; `EAGAIN` when nothing is waiting. `EIO` when less
    /// than the header was there.
    pub(crate) fn read(
        &mut self,
        fd: BorrowedFd<'_>,
        header: &mut [u8],
        room: &[Writable<'_>],
    ) -> Result<Got, Errno> {
        let (len, got) = if self.recent > SHORT {
            self.read_into(fd, header, room)?
        } else {
            self.read_and_copy(fd, header, room)?
        };
        self.left = self.left.saturating_sub(1);
        if len >= self.recent || self.left == 0 {
            (self.recent, self.left) = (len, RECENT);
        }
        Ok(got)
    }

    /// By way of our buffer.
    fn read_and_copy(
        &mut self,
        fd: BorrowedFd<'_>,
        header: &mut [u8],
        room: &[Writable<'_>],
    ) -> Result<(usize, Got), Errno> {
        let got = unistd::read(fd, &mut self.buffer)?;
        let got = self.buffer.get(..got).unwrap_or_default();
        let (front, frame) = got.split_at_checked(header.len()).ok_or(Errno::EIO)?;
        header.copy_from_slice(front);
        let got = if frame.len() > MAX_FRAME {
            Got::TooLong
        } else if copy_out(frame, room) {
            Got::Whole(frame.len())
        } else {
            Got::Spilled(frame.to_vec())
        };
        Ok((frame.len(), got))
    }

    /// Straight into `room`, and what does not fit into our buffer.
    fn read_into(
        &mut self,
        fd: BorrowedFd<'_>,
        header: &mut [u8],
        room: &[Writable<'_>],
    ) -> Result<(usize, Got), Errno> {
        let mut buffers = ArrayVec::<libc::iovec, BUFFERS>::new();
        buffers.push(iovec(header));
        let mut capacity = 0;
        for part in room.iter().take(PARTS) {
            buffers.push(part.iovec());
            capacity += part.len();
        }
        buffers.push(iovec(&mut self.buffer));
        let count = libc::c_int::try_from(buffers.len()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: each buffer is ours alone or proved by its view to be mapped
        // and writable; a page that has vanished meanwhile is EFAULT.
        let got = unsafe { libc::readv(fd.as_raw_fd(), buffers.as_ptr(), count) };
        let got = usize::try_from(Errno::result(got)?).map_err(|_| Errno::EIO)?;
        let len = got.checked_sub(header.len()).ok_or(Errno::EIO)?;
        let got = match len.checked_sub(capacity) {
            _ if len > MAX_FRAME => Got::TooLong,
            None | Some(0) => Got::Whole(len),
            Some(rest) => {
                let mut frame = copy_in(room, capacity);
                frame.extend_from_slice(self.buffer.get(..rest).unwrap_or_default());
                Got::Spilled(frame)
            }
        };
        Ok((len, got))
    }
}

/// Writes frames.
pub(crate) struct Writer {
    buffers: ArrayVec<libc::iovec, { FRAME_PARTS + 1 }>,
    copy: [u8; HEADER + SHORT],
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            buffers: ArrayVec::new(),
            copy: [0; HEADER + SHORT],
        }
    }

    /// Writes one frame behind `header`. Returns how many bytes were taken.
    ///
    /// # Errors
    /// What write(2) says.
    pub(crate) fn write(
        &mut self,
        fd: BorrowedFd<'_>,
        header: &[u8],
        parts: &[Readable<'_>],
    ) -> Result<usize, Errno> {
        let len: usize = parts.iter().map(Readable::len).sum();
        let short = self.copy.get_mut(..header.len() + len);
        if let Some(bytes) = short {
            let (front, frame) = bytes.split_at_mut(header.len());
            front.copy_from_slice(header);
            gather(parts, frame);
            return again(|| unistd::write(fd, bytes));
        }
        self.buffers.clear();
        self.buffers.push(Readable::from_slice(header).iovec());
        // A frame has no more than FRAME_PARTS.
        let parts = parts.iter().take(FRAME_PARTS);
        self.buffers.extend(parts.map(Readable::iovec));
        let count = libc::c_int::try_from(self.buffers.len()).map_err(|_| Errno::EINVAL)?;
        again(|| {
            // SAFETY: each buffer is ours or proved by its view to be mapped,
            // and only read; a page that has vanished meanwhile is EFAULT.
            let put = unsafe { libc::writev(fd.as_raw_fd(), self.buffers.as_ptr(), count) };
            usize::try_from(Errno::result(put)?).map_err(|_| Errno::EIO)
        })
    }
}

/// Calls as often as a signal comes between.
fn again(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// Puts `by` in the place of `fd`, whose number stays as others have it.
///
/// # Errors
/// What dup3(2) says.
pub(crate) fn replace(fd: BorrowedFd<'_>, by: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the number is its owner's and stays open; whoever is in a call on
    // it holds on to the file that it was.
    let done = unsafe { libc::dup3(by.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) };
    Errno::result(done).map(drop)
}

/// Our own bytes, to be read into.
fn iovec(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

/// A copy of the first `len` bytes of `room`.
pub(crate) fn copy_in(room: &[Writable<'_>], len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    let mut at = 0;
    for part in room.iter().take(PARTS) {
        let end = len.min(at + part.len());
        part.as_readable().read(&mut frame[at..end]);
        at = end;
    }
    frame
}

/// Copies `frame` into `room`, if it fits.
pub(crate) fn copy_out(frame: &[u8], room: &[Writable<'_>]) -> bool {
    let capacity: usize = room.iter().map(Writable::len).sum();
    capacity >= frame.len() && copy(&[Readable::from_slice(frame)], room) == frame.len()
}

// FreeBSD's local sockets hold no long datagram.
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
