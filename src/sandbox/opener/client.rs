//! The process that is served, as its opener sees it.
//!
//! The end of their connection says that it is gone only when nobody else has
//! the other end: a process that was taken over could have passed it on, or
//! have forked, which capability mode allows. So its end itself is watched.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

/// What is readable from the end of process `pid` on. `ESRCH`: there is none.
#[cfg(target_os = "linux")]
pub(super) fn watch(pid: u32) -> Result<OwnedFd, Errno> {
    use std::os::fd::{FromRawFd, RawFd};

    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: pidfd_open(2) takes two numbers, and knows no flag here.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the system has just made it, to be closed on exec; nobody else
    // has seen its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What is readable from the end of process `pid` on. `ESRCH`: there is none.
#[cfg(not(target_os = "linux"))]
pub(super) fn watch(pid: u32) -> Result<OwnedFd, Errno> {
    use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};

    let pid = usize::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let (filter, exit) = (EventFilter::EVFILT_PROC, FilterFlag::NOTE_EXIT);
    let queue = Kqueue::new()?;
    let change = KEvent::new(pid, filter, EvFlags::EV_ADD, exit, 0, 0);
    queue.kevent(&[change], &mut [], None)?;
    Ok(queue.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    #[test]
    fn the_end_of_a_process_is_seen() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let end = watch(child.id()).unwrap();
        let wait = |timeout: PollTimeout| {
            let mut fds = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, timeout).unwrap()
        };
        assert_eq!(wait(PollTimeout::ZERO), 0);
        drop(child.stdin.take());
        assert_eq!(wait(PollTimeout::NONE), 1);
        child.wait().unwrap();
        assert_eq!(wait(PollTimeout::ZERO), 1);
        assert_eq!(watch(child.id()).unwrap_err(), Errno::ESRCH);
    }
}
