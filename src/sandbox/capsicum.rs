//! FreeBSD: Capsicum (capsicum(4)). In capability mode nothing can be named any
//! more, and each descriptor can do no more than the table here says.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use capsicum::{CapRights, Fcntl as Command, FcntlRights, FileRights, IoctlRights, Right};

use super::rights::Role;
use super::{SandboxError, Use};
use crate::ffi;

/// What one role needs.
struct Needs {
    /// rights(4).
    rights: &'static [Right],
    /// ioctl(2) requests, if [`Right::Ioctl`] is among the rights.
    ioctls: &'static [libc::u_long],
    /// Whether it is asked and told by fcntl(2) not to block.
    blocking: bool,
}

/// `NIOCTXSYNC` and `NIOCRXSYNC` of net/netmap.h: two of its requests name
/// nothing. `NIOCREGIF` and `NIOCCTRL` register and control by name.
const NETMAP_SYNC: [libc::u_long; 2] = [ffi::NIOCTXSYNC, ffi::NIOCRXSYNC];
/// What a tap is called (net/if_tap.h).
const TAP: [libc::u_long; 1] = [ffi::TAPGIFNAME];
/// What groups an interface is in (sys/sockio.h).
const GROUPS: [libc::u_long; 1] = [ffi::SIOCGIFGROUP];

fn needs(role: Role) -> Needs {
    use Right::{
        Accept, Event, Fcntl, Fstat, Getpeername, Getsockname, Getsockopt, Ioctl, Kqueue, MmapRW,
        Read, Shutdown, Write,
    };
    let (rights, ioctls): (&[Right], &[libc::u_long]) = match role {
        Role::Tap => (&[Read, Write, Event, Ioctl], &TAP),
        Role::InterfaceQuery => (&[Ioctl], &GROUPS),
        Role::NetgraphData => (&[Read, Write, Event], &[]),
        Role::Netmap => (&[MmapRW, Event, Ioctl], &NETMAP_SYNC),
        // A connection begins with the rights of the socket that it was
        // accepted on.
        Role::Listener => (
            &[
                Accept,
                Read,
                Write,
                Event,
                Getpeername,
                Getsockname,
                Getsockopt,
            ],
            &[],
        ),
        Role::Connection => (
            &[Read, Write, Event, Getpeername, Getsockname, Getsockopt],
            &[],
        ),
        Role::Memory => (&[MmapRW, Fstat], &[]),
        Role::Kick => (&[Read, Event, Fstat, Fcntl], &[]),
        Role::Call => (&[Write, Fstat, Fcntl], &[]),
        Role::EventQueue => (&[Kqueue, Event], &[]),
        Role::Awaited => (&[Read, Event], &[]),
        Role::Waking => (&[Write], &[]),
        Role::Opener => (&[Read, Write, Shutdown, Event], &[]),
        Role::OpenerEnd => (&[Event], &[]),
        Role::Log => (&[Write, Fstat], &[]),
        Role::Nothing => (&[], &[]),
    };
    Needs {
        rights,
        ioctls,
        // What a front end passed has to be switched.
        blocking: matches!(role, Role::Kick | Role::Call),
    }
}

/// What is left of the fcntl(2) commands `had`.
fn fcntls(mut had: FcntlRights, needs: &Needs) -> FcntlRights {
    had.deny(Command::GetOwn).deny(Command::SetOwn);
    if !needs.blocking {
        had.deny(Command::GetFL).deny(Command::SetFL);
    }
    had
}

/// As [`limit`](super::rights::limit).
pub(super) fn limit(fd: BorrowedFd<'_>, role: Role) -> io::Result<()> {
    let needs = needs(role);
    let had = FileRights::from_file(&fd)?;
    let mut rights = FileRights::new();
    for right in needs.rights {
        if had.is_set(*right) {
            rights.allow(*right);
        }
    }
    // Lists first, while there are the rights that they belong to.
    if had.is_set(Right::Ioctl) {
        IoctlRights::Limited(needs.ioctls.to_vec()).limit(&fd)?;
    }
    if had.is_set(Right::Fcntl) {
        // A front end may have allowed fewer commands already.
        fcntls(FcntlRights::from_file(&fd)?, &needs).limit(&fd)?;
    }
    rights.limit(&fd)
}

/// Nothing can be had before there are threads.
pub(super) fn confine() -> Result<(), SandboxError> {
    Ok(())
}

/// Enters capability mode, with all threads, for good. What may be done with
/// a descriptor is said by its rights alone, whatever the process is for.
pub(super) fn seal(_: Use) -> Result<(), SandboxError> {
    for (fd, role) in [
        (io::stdin().as_fd(), Role::Nothing),
        (io::stdout().as_fd(), Role::Log),
        (io::stderr().as_fd(), Role::Log),
    ] {
        match limit(fd, role) {
            // Whoever started us has closed it.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
            limited => limited.map_err(SandboxError::Capsicum)?,
        }
    }
    capsicum::enter().map_err(SandboxError::Capsicum)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use super::*;

    const ROLES: [Role; 16] = [
        Role::Tap,
        Role::InterfaceQuery,
        Role::NetgraphData,
        Role::Netmap,
        Role::Listener,
        Role::Connection,
        Role::Memory,
        Role::Kick,
        Role::Call,
        Role::EventQueue,
        Role::Awaited,
        Role::Waking,
        Role::Opener,
        Role::OpenerEnd,
        Role::Log,
        Role::Nothing,
    ];

    fn anything() -> File {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap()
    }

    /// What the kernel says is what the table says, no more and no less.
    #[test]
    fn rights_are_those_of_the_table() {
        for role in ROLES {
            let file = anything();
            limit(file.as_fd(), role).unwrap();
            let needs = needs(role);
            let mut wanted = FileRights::new();
            for right in needs.rights {
                wanted.allow(*right);
            }
            let has = FileRights::from_file(&file).unwrap();
            assert!(has.contains(&wanted) && wanted.contains(&has), "{role:?}");
            let ioctls = IoctlRights::from_file(&file, 16).unwrap();
            assert_eq!(
                ioctls,
                IoctlRights::Limited(needs.ioctls.to_vec()),
                "{role:?}"
            );
            let fcntls = FcntlRights::from_file(&file).unwrap();
            let mut wanted = FcntlRights::new();
            if needs.blocking {
                wanted.allow(Command::GetFL).allow(Command::SetFL);
            }
            assert_eq!(fcntls, wanted, "{role:?}");
            // Once more changes nothing.
            limit(file.as_fd(), role).unwrap();
            assert_eq!(FileRights::from_file(&file).unwrap(), has, "{role:?}");
        }
    }

    /// Guest memory is not written to as a file is, nor is a port registered.
    #[test]
    fn nobody_has_what_nobody_needs() {
        for role in ROLES {
            let file = anything();
            limit(file.as_fd(), role).unwrap();
            let has = FileRights::from_file(&file).unwrap();
            for right in [
                Right::MmapX,
                Right::Ftruncate,
                Right::Bind,
                Right::Connect,
                Right::Lookup,
                Right::Fexecve,
                Right::Setsockopt,
                Right::Pdkill,
            ] {
                assert!(!has.is_set(right), "{role:?} {right:?}");
            }
            assert_eq!(
                has.is_set(Right::MmapRW),
                [Role::Memory, Role::Netmap].contains(&role)
            );
            assert_eq!(has.is_set(Right::Accept), role == Role::Listener);
        }
    }

    /// What a front end took away stays away, and is no error.
    #[test]
    fn who_has_less_keeps_less() {
        let file = anything();
        let mut less = FileRights::new();
        less.allow(Right::MmapRW);
        less.limit(&file).unwrap();
        limit(file.as_fd(), Role::Memory).unwrap();
        assert_eq!(FileRights::from_file(&file).unwrap(), less);

        let file = anything();
        let mut fcntls = FcntlRights::new();
        fcntls.allow(Command::GetFL).allow(Command::GetOwn);
        fcntls.limit(&file).unwrap();
        limit(file.as_fd(), Role::Kick).unwrap();
        fcntls.deny(Command::GetOwn);
        assert_eq!(FcntlRights::from_file(&file).unwrap(), fcntls);
    }

    /// A connection has what it needs from the socket that it was accepted on.
    #[test]
    fn a_listener_may_do_all_that_a_connection_may() {
        let (one, _other) = UnixStream::pair().unwrap();
        limit(one.as_fd(), Role::Listener).unwrap();
        let before = FileRights::from_file(&one).unwrap();
        limit(one.as_fd(), Role::Connection).unwrap();
        let mut after = FileRights::from_file(&one).unwrap();
        assert!(before.contains(&after));
        after.allow(Right::Accept);
        assert_eq!(before, after);
    }
}
