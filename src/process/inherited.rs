//! Descriptors that whoever started us has left open.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{F_GETFD, F_SETFD, FdFlag, fcntl};

/// A descriptor that was not inherited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "fd={0}: no such descriptor was inherited; have it open, without close-on-exec, when vtnetd starts"
)]
pub struct InheritError(RawFd);

/// Takes the inherited descriptor `number` for our own, to be closed on exec
/// from now on.
///
/// # Errors
/// It is not open, was taken before, or is one that this process has opened:
/// all of those close on exec, so they cannot have been inherited. Standard
/// input, output and error stay where they are.
pub fn inherited(number: RawFd) -> Result<OwnedFd, InheritError> {
    let missing = |_: Errno| InheritError(number);
    if number <= libc::STDERR_FILENO {
        return Err(InheritError(number));
    }
    // SAFETY: the borrow ends with this function's calls of fcntl(2), which
    // themselves find out whether the descriptor is open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl(fd, F_GETFD).map_err(missing)?;
    if FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC) {
        return Err(InheritError(number));
    }
    fcntl(fd, F_SETFD(FdFlag::FD_CLOEXEC)).map_err(missing)?;
    // SAFETY: it is open, and nothing in this process owns it: what is opened
    // here or was taken here closes on exec, and this did not.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes what was inherited besides standard input, output and error, and was
/// not `taken`: nobody has named it, and it could be anything.
///
/// # Errors
/// `ENOSYS`: the kernel has no close_range(2), as Linux before 5.9.
///
/// # Safety
/// This process has opened nothing of its own yet: that would be closed, too.
pub unsafe fn close_others<'a>(taken: impl IntoIterator<Item = &'a OwnedFd>) -> Result<(), Errno> {
    let numbers = taken.into_iter().map(AsRawFd::as_raw_fd);
    let mut numbers: Vec<_> = numbers.filter_map(|fd| u32::try_from(fd).ok()).collect();
    numbers.sort_unstable();
    let mut first = STDERR + 1;
    for number in numbers {
        if first < number {
            close_range(first, number - 1)?;
        }
        first = number + 1;
    }
    close_range(first, u32::MAX)
}

/// Standard error's number, the last that stays.
const STDERR: u32 = 2;

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: who called has said that nothing is open there that is in use.
    #[cfg(target_os = "linux")]
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    // SAFETY: as above.
    #[cfg(not(target_os = "linux"))]
    let closed = unsafe { libc::close_range(first, last, 0) };
    Errno::result(closed).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn what_was_left_open_is_taken_once() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let number = write.into_raw_fd();
        let taken = inherited(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert_eq!(nix::unistd::write(&taken, b"a"), Ok(1));
        assert!(inherited(number).is_err());
        drop((read, taken));
    }

    #[test]
    fn what_is_ours_or_not_open_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        for number in [-1, 0, 1, 2, RawFd::MAX, file.as_raw_fd()] {
            assert_eq!(inherited(number).unwrap_err(), InheritError(number));
        }
    }
}
