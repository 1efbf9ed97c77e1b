//! Frames between a descriptor and guest memory: one a call, readv(2) or
//! writev(2), with the guest's buffers as its own.

use std::os::fd::{AsRawFd, BorrowedFd};

use arrayvec::ArrayVec;
use nix::errno::Errno;

use crate::net::frame::{FRAME_PARTS, MAX_FRAME};
use crate::virtio::memory::{Readable, Writable, copy};

/// Most buffers of one readv(2) (IOV_MAX in limits.h).
const BUFFERS: usize = 1024;
/// Most parts of a room that are used: a header and the spill take two more.
const PARTS: usize = BUFFERS - 2;

/// Scratch for [`write`].
pub(super) type Buffers = ArrayVec<libc::iovec, { FRAME_PARTS + 1 }>;

/// What was read, without the header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// A frame of so many bytes is in the guest's buffers.
    Whole(usize),
    /// A frame did not fit there; a copy.
    Spilled(Vec<u8>),
    /// It fitted nowhere, and is lost.
    TooLong,
}

/// The buffer behind the guest's: with none of theirs it must hold any frame,
/// and one byte more shows a frame that is longer still.
pub(super) fn spill() -> Box<[u8]> {
    // Zeroed pages, of which those are never touched that no frame ever spills
    // into.
    vec![0; MAX_FRAME + 1].into_boxed_slice()
}

/// Reads one frame behind `header` into `room`, and what does not fit into
/// `spill`.
///
/// # Errors
/// What readv(2) says; `EAGAIN` when nothing is waiting. `EIO` when less than
/// the header was there.
pub(super) fn read(
    fd: BorrowedFd<'_>,
    header: &mut [u8],
    room: &[Writable<'_>],
    spill: &mut [u8],
) -> Result<Got, Errno> {
    let mut buffers = ArrayVec::<libc::iovec, BUFFERS>::new();
    buffers.push(iovec(header));
    let mut capacity = 0;
    for part in room.iter().take(PARTS) {
        buffers.push(part.iovec());
        capacity += part.len();
    }
    buffers.push(iovec(spill));
    let count = libc::c_int::try_from(buffers.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: each buffer is ours alone or proved by its view to be mapped and
    // writable; a page that has vanished meanwhile is EFAULT.
    let got = unsafe { libc::readv(fd.as_raw_fd(), buffers.as_ptr(), count) };
    let got = usize::try_from(Errno::result(got)?).map_err(|_| Errno::EIO)?;
    let len = got.checked_sub(header.len()).ok_or(Errno::EIO)?;
    if len <= capacity {
        return Ok(Got::Whole(len));
    }
    let rest = len - capacity;
    if rest >= spill.len() || len > MAX_FRAME {
        return Ok(Got::TooLong);
    }
    let mut frame = copy_in(room, capacity);
    frame.extend_from_slice(&spill[..rest]);
    Ok(Got::Spilled(frame))
}

/// Writes one frame behind `header`; `buffers` is scratch. Returns how many
/// bytes were taken.
///
/// # Errors
/// What writev(2) says.
pub(super) fn write(
    fd: BorrowedFd<'_>,
    header: &[u8],
    parts: &[Readable<'_>],
    buffers: &mut Buffers,
) -> Result<usize, Errno> {
    buffers.clear();
    buffers.push(Readable::from_slice(header).iovec());
    // A frame has no more than FRAME_PARTS.
    buffers.extend(parts.iter().take(FRAME_PARTS).map(Readable::iovec));
    let count = libc::c_int::try_from(buffers.len()).map_err(|_| Errno::EINVAL)?;
    loop {
        // SAFETY: each buffer is ours or proved by its view to be mapped, and
        // only read; a page that has vanished meanwhile is EFAULT.
        let put = unsafe { libc::writev(fd.as_raw_fd(), buffers.as_ptr(), count) };
        match Errno::result(put) {
            Ok(put) => return usize::try_from(put).map_err(|_| Errno::EIO),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Puts `by` in the place of `fd`, whose number stays as others have it.
///
/// # Errors
/// What dup3(2) says.
pub(super) fn replace(fd: BorrowedFd<'_>, by: BorrowedFd<'_>) -> Result<(), Errno> {
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
pub(super) fn copy_in(room: &[Writable<'_>], len: usize) -> Vec<u8> {
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
pub(super) fn copy_out(frame: &[u8], room: &[Writable<'_>]) -> bool {
    let capacity: usize = room.iter().map(Writable::len).sum();
    capacity >= frame.len() && copy(&[Readable::from_slice(frame)], room) == frame.len()
}
