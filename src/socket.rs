//! What comes over a Unix socket, with descriptors.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt,
    sockopt,
};

/// What one recvmsg(2) brought.
pub(crate) struct Received {
    /// Bytes of the message, or what fitted of it.
    pub bytes: usize,
    /// The descriptors that came along, close-on-exec if the flags said so.
    pub fds: Vec<OwnedFd>,
    /// There were descriptors that the system could not deliver.
    pub lost: bool,
    /// The message was longer than there was room.
    pub cut: bool,
    /// What was sent with `MSG_EOR` ends here. Only FreeBSD says so.
    pub ended: bool,
}

/// recvmsg(2), with every descriptor owned even when some were lost on the way:
/// then nix gives none of them out, and a peer could leak us full.
#[allow(
    clippy::useless_conversion,
    reason = "these lengths are size_t on Linux and socklen_t on FreeBSD"
)]
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
    control: &mut [u8],
    flags: MsgFlags,
) -> Result<Received, Errno> {
    let mut iov = libc::iovec {
        iov_base: room.as_mut_ptr().cast(),
        iov_len: room.len(),
    };
    // SAFETY: all zeros is a message header that points to nothing.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    let bytes = loop {
        message.msg_controllen = control.len().try_into().map_err(|_| Errno::EINVAL)?;
        // SAFETY: the header points to two buffers that are ours alone, with
        // their lengths.
        let bytes = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags.bits()) };
        match Errno::result(bytes) {
            Err(Errno::EINTR) => {}
            bytes => break bytes?,
        }
    };
    let mut fds = Vec::new();
    // SAFETY: recvmsg has filled in the header, and the control buffer is
    // there still. The macros stay inside of what it says was written.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !at.is_null() {
        // SAFETY: the macros answer a whole header or null; no alignment is
        // assumed of our buffer.
        let head = unsafe { at.read_unaligned() };
        if (head.cmsg_level, head.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: only computes a length.
            let empty = usize::try_from(unsafe { libc::CMSG_LEN(0) }).unwrap_or(usize::MAX);
            let len = usize::try_from(head.cmsg_len).unwrap_or(0);
            let count = len.saturating_sub(empty) / size_of::<RawFd>();
            // SAFETY: the data follows the header.
            let data = unsafe { libc::CMSG_DATA(at) }.cast::<RawFd>();
            for index in 0..count {
                // SAFETY: the system wrote `count` descriptors there, made for
                // us just now; nobody else has seen their numbers.
                fds.push(unsafe { OwnedFd::from_raw_fd(data.add(index).read_unaligned()) });
            }
        }
        // SAFETY: as for the first one.
        at = unsafe { libc::CMSG_NXTHDR(&raw const message, at) };
    }
    Ok(Received {
        bytes: usize::try_from(bytes).unwrap_or(0),
        fds,
        lost: message.msg_flags & libc::MSG_CTRUNC != 0,
        cut: message.msg_flags & libc::MSG_TRUNC != 0,
        ended: message.msg_flags & libc::MSG_EOR != 0,
    })
}

/// `fd` is a Unix socket of this type.
pub(crate) fn is_unix(fd: BorrowedFd<'_>, kind: SockType) -> Result<bool, Errno> {
    let name: SockaddrStorage = match getsockname(fd.as_raw_fd()) {
        Err(Errno::ENOTSOCK) => return Ok(false),
        name => name?,
    };
    Ok(name.family() == Some(AddressFamily::Unix) && getsockopt(&fd, sockopt::SockType)? == kind)
}
