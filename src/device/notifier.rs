//! The descriptors by which a driver and its device call each other: eventfds,
//! pipes or sockets, which belong to the front end as much as to us.

use std::os::fd::OwnedFd;

use nix::Error;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{read, write};

use crate::event::rings;

/// Most reads from a kick descriptor in one go: what a pipe holds.
const READS: u32 = 128;
/// Bytes of one read.
const SCRATCH: usize = 512;

/// A descriptor blocked, and an [`Alarm`](crate::event::Alarm) ended that: the
/// front end took `O_NONBLOCK` away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its descriptors block; leave O_NONBLOCK set on what was passed")]
pub struct Blocks;

/// Adds one to an eventfd, or writes to a pipe. What cannot be written (a full
/// pipe, a closed end) is a signal that is there already or that nobody hears.
pub(super) fn signal(fd: &OwnedFd) -> Result<(), Blocks> {
    let before = rings();
    match write(fd, &1u64.to_ne_bytes()) {
        Err(Error::EINTR) => Err(Blocks),
        // FreeBSD's eventfd says that a write is done which an alarm ended.
        Ok(_) if rings() != before && blocks(fd) => Err(Blocks),
        _ => Ok(()),
    }
}

/// Whether calls on `fd` block.
fn blocks(fd: &OwnedFd) -> bool {
    fcntl(fd, FcntlArg::F_GETFL)
        .is_ok_and(|flags| !OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK))
}

/// Reads a kick descriptor until it is empty, or closed. Whoever writes to it
/// faster than we read is not waited for: we are told of the rest anew.
pub(super) fn drain(fd: &OwnedFd) -> Result<(), Blocks> {
    let mut scratch = [0; SCRATCH];
    for _ in 0..READS {
        match read(fd, &mut scratch) {
            Err(Error::EINTR) => return Err(Blocks),
            // An eventfd gives eight bytes and is empty then.
            Ok(0 | 8) | Err(_) => break,
            Ok(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::sys::socket::setsockopt;
    use nix::sys::socket::sockopt::{RcvBuf, SndBuf};
    use nix::unistd::pipe;

    use super::*;

    #[test]
    fn what_was_written_is_read_in_one_go() {
        let (kick, write_end) = pipe().unwrap();
        write(&write_end, &[0; 3000]).unwrap();
        drop(write_end);
        drain(&kick).unwrap();
        assert_eq!(read(&kick, &mut [0]), Ok(0));
    }

    #[test]
    fn who_writes_ever_more_is_not_waited_for() {
        let (kick, mut front_end) = UnixStream::pair().unwrap();
        // FreeBSD's hold less than is read, if nobody asks for more.
        let room = SCRATCH * READS as usize * 2;
        setsockopt(&front_end, SndBuf, &room).unwrap();
        setsockopt(&kick, RcvBuf, &room).unwrap();
        front_end.set_nonblocking(true).unwrap();
        while front_end.write(&[0; 512]).is_ok() {}
        let kick = OwnedFd::from(kick);
        drain(&kick).unwrap();
        let mut more = [nix::poll::PollFd::new(
            kick.as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        let ready = nix::poll::poll(&mut more, nix::poll::PollTimeout::ZERO);
        assert_eq!(ready, Ok(1), "the socket holds no more than is read");
    }
}
