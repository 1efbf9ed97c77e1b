//! What the socket and the tap have in common: frames behind virtio-net headers.

use std::os::fd::{AsRawFd, BorrowedFd};

use arrayvec::ArrayVec;
use nix::errno::Errno;

use crate::net::frame::{Batch, ETHER_HEADER, FRAME_PARTS, Frame};
use crate::net::offload;
use crate::virtio::memory::Readable;
use crate::virtio::net_header::NetHeader;
use crate::virtio::spec::net;

/// Writes `frame` behind the first `header_len` bytes of its header.
///
/// # Errors
/// What writev(2) says.
pub(super) fn write(
    fd: BorrowedFd<'_>,
    header_len: usize,
    batch: &Batch<'_>,
    frame: &Frame,
) -> Result<(), Errno> {
    let header = frame.header.to_bytes();
    let header = header.get(..header_len).unwrap_or(&header);
    let mut buffers = ArrayVec::<libc::iovec, { FRAME_PARTS + 1 }>::new();
    buffers.push(Readable::from_slice(header).iovec());
    // A frame has no more parts than this has room for.
    buffers.extend(
        batch
            .parts(frame)
            .iter()
            .take(FRAME_PARTS)
            .map(Readable::iovec),
    );
    let count = libc::c_int::try_from(buffers.len()).map_err(|_| Errno::EINVAL)?;
    loop {
        // SAFETY: each buffer is ours or proved by its view to be mapped, and
        // only read; a page that has vanished meanwhile is EFAULT.
        let put = unsafe { libc::writev(fd.as_raw_fd(), buffers.as_ptr(), count) };
        match Errno::result(put) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads one frame into `frame`, behind its header in `header`; returns how
/// long it is.
///
/// # Errors
/// What readv(2) says; `EIO` when less than a header came.
pub(super) fn read(
    fd: BorrowedFd<'_>,
    header: &mut [u8],
    frame: &mut [u8],
) -> Result<usize, Errno> {
    let len = header.len();
    let mut buffers = [header, frame].map(|bytes| libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    });
    // SAFETY: both buffers are ours alone while the call lasts.
    let got = unsafe { libc::readv(fd.as_raw_fd(), buffers.as_mut_ptr(), 2) };
    let got = usize::try_from(Errno::result(got)?).map_err(|_| Errno::EIO)?;
    got.checked_sub(len).ok_or(Errno::EIO)
}

/// Why a frame that came is dropped.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    /// Less than an Ethernet header.
    Short,
    /// Its virtio-net header says what nobody here knows.
    Header,
    /// More parts than a batch holds.
    Full,
}

/// Adds a frame that consists of `parts`, behind `header`, to the batch.
///
/// # Errors
/// It is not added.
pub(super) fn push<'m>(
    batch: &mut Batch<'m>,
    header: &NetHeader,
    parts: &[Readable<'m>],
) -> Result<(), Refused> {
    let mark = batch.mark();
    let [first, ..] = parts else {
        return Err(Refused::Short);
    };
    let ether = first.read_array::<ETHER_HEADER>().ok_or(Refused::Short)?;
    let len: usize = parts.iter().map(Readable::len).sum();
    let len = u32::try_from(len).map_err(|_| Refused::Full)?;
    let header = offload::check_parts(header, net::HOST_OFFLOADS, parts, len)
        .map_err(|_| Refused::Header)?;
    for part in parts {
        if batch.push_part(mark, *part).is_none() {
            batch.discard(mark);
            return Err(Refused::Full);
        }
    }
    if batch.push_frame(mark, len, ether, header) {
        Ok(())
    } else {
        Err(Refused::Full)
    }
}
