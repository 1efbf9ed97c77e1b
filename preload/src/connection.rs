//! Connections: what `open("/dev/netmap")` returns, and how it is told from
//! other descriptors.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getpeername, getsockopt, socket, sockopt,
};
use nix::unistd::geteuid;
use vtnetd::netmap::service::wire::{DEFAULT_SOCKET, SOCKET_VARIABLE};

use crate::channel::Channel;
use crate::descriptors::SEEN;
use crate::edge::{keeping_errno, say};

/// What programs open.
const DEVICE: &[u8] = b"/dev/netmap";

/// The name under which a service has answered, which need not be spelled as
/// the client spells it.
static ANSWERED: OnceLock<PathBuf> = OnceLock::new();

/// Where the service is.
fn service() -> PathBuf {
    // The variable's name, with the zero that C needs.
    let mut name = [0; SOCKET_VARIABLE.len() + 1];
    name[..SOCKET_VARIABLE.len()].copy_from_slice(SOCKET_VARIABLE.as_bytes());
    let value = CStr::from_bytes_with_nul(&name).map_or(std::ptr::null_mut(), |name| {
        // SAFETY: getenv(3) of a C string.
        unsafe { libc::getenv(name.as_ptr()) }
    });
    // SAFETY: a C string has a first byte.
    if value.is_null() || unsafe { *value } == 0 {
        return PathBuf::from(DEFAULT_SOCKET);
    }
    // SAFETY: a C string of the environment, copied before anybody can change
    // it: what changes an environment beside other threads is not to be saved.
    let value = unsafe { CStr::from_ptr(value) };
    PathBuf::from(OsStr::from_bytes(value.to_bytes()))
}

/// Whether `path` is what stands for the service.
///
/// # Safety
/// `path` is null, or a C string.
pub(crate) unsafe fn is_device(path: *const libc::c_char) -> bool {
    if path.is_null() {
        return false;
    }
    let mut expected = DEVICE.iter().chain(&[0]).enumerate();
    expected.all(|(at, byte)| {
        // SAFETY: everything before it was equal and not the end, so the string
        // goes on.
        let found = unsafe { path.add(at).read() };
        found.to_ne_bytes() == [*byte]
    })
}

/// open(2) of the device: connects, and asks whether it is let in.
///
/// # Errors
/// Those of connect(2) and [`Channel::attach`], with a line on stderr that says
/// what to do.
pub(crate) fn open(flags: libc::c_int) -> Result<RawFd, Errno> {
    let path = service();
    let mut kind = SockFlag::empty();
    if flags & libc::O_CLOEXEC != 0 {
        kind |= SockFlag::SOCK_CLOEXEC;
    }
    if flags & libc::O_NONBLOCK != 0 {
        kind |= SockFlag::SOCK_NONBLOCK;
    }
    let connected = UnixAddr::new(&path).and_then(|address| {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, kind, None)?;
        loop {
            match connect(socket.as_raw_fd(), &address) {
                Err(Errno::EINTR) => {}
                connected => break connected.map(|()| socket),
            }
        }
    });
    let admitted = connected.and_then(|socket| {
        // The threads that use it have channels of their own.
        Channel::attach(socket.as_raw_fd())?;
        Ok(socket)
    });
    match admitted {
        Ok(socket) => {
            if let Ok(peer) = getpeername::<UnixAddr>(socket.as_raw_fd()) {
                if let Some(peer) = peer.path() {
                    ANSWERED.get_or_init(|| peer.to_owned());
                }
            }
            let fd = socket.into_raw_fd();
            SEEN.insert(fd);
            Ok(fd)
        }
        Err(errno) => {
            say(format_args!(
                "{}: {errno}; {}",
                path.display(),
                cure(errno, &path)
            ));
            Err(errno)
        }
    }
}

fn cure(errno: Errno, path: &Path) -> String {
    match errno {
        Errno::EACCES | Errno::EPERM => {
            let (path, user) = (path.display(), geteuid());
            format!("have vtnetd let user {user} in: -N {path},mode=0666,allow={user}:attach")
        }
        Errno::EAGAIN => "the service is busy with others; try again".to_owned(),
        Errno::EMFILE | Errno::ENFILE => "close some files, or raise the limit".to_owned(),
        _ => format!("start vtnetd with -N PATH, and name the same path in {SOCKET_VARIABLE}"),
    }
}

/// Whether `fd` is a connection to the service. Sets no errno.
pub(crate) fn is_connection(fd: RawFd) -> bool {
    fd >= 0 && keeping_errno(|| asks_service(fd))
}

fn asks_service(fd: RawFd) -> bool {
    let Ok(peer) = getpeername::<UnixAddr>(fd) else {
        return false;
    };
    let Some(peer) = peer.path() else {
        return false;
    };
    // SAFETY: it is open, as the system has just told us its peer, and the
    // borrow ends with the call.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    if getsockopt(&socket, sockopt::SockType) != Ok(SockType::SeqPacket) {
        return false;
    }
    let is_service = ANSWERED.get().is_some_and(|known| known == peer) || {
        let wanted = service();
        peer == wanted || is_same_file(peer, &wanted)
    };
    if is_service {
        SEEN.insert(fd);
    }
    is_service
}

/// Two spellings of one path.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        let found = fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    identity(one).is_some_and(|one| Some(one) == identity(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_its_path_alone() {
        let is = |path: &CStr| {
            // SAFETY: a C string.
            unsafe { is_device(path.as_ptr()) }
        };
        assert!(is(c"/dev/netmap"));
        for other in [
            c"",
            c"/dev/netma",
            c"/dev/netmap0",
            c"/dev/netmap/",
            c"/dev/null",
        ] {
            assert!(!is(other), "{other:?}");
        }
        // SAFETY: null is allowed.
        assert!(!unsafe { is_device(std::ptr::null()) });
    }

    #[test]
    fn the_cure_can_be_pasted() {
        let cure = cure(Errno::EACCES, Path::new("/run/n.sock"));
        assert!(cure.contains("-N /run/n.sock,mode=0666,allow="), "{cure}");
        assert!(cure.ends_with(":attach"), "{cure}");
    }

    #[test]
    fn other_descriptors_are_not_the_service() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        Errno::EXDEV.set();
        assert!(!is_connection(one.as_raw_fd()));
        assert!(!is_connection(0) && !is_connection(-1) && !is_connection(60_000));
        assert_eq!(Errno::last(), Errno::EXDEV);
    }
}
