//! Where front ends come from: a socket we listen on, one we connect to, or a
//! descriptor that we inherited.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{F_SETFD, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt,
};

use super::socket::is_unix_stream;

/// Where a device's front end comes from.
#[derive(Debug)]
pub enum EndpointSpec {
    /// Listen on a socket of this name; one front end at a time.
    Listen(PathBuf),
    /// Connect to the front end that listens there, again and again.
    Connect(PathBuf),
    /// An inherited Unix socket: one that listens, or one that is connected.
    Fd(OwnedFd),
}

/// Why an endpoint cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Somebody answers on the socket.
    #[error("{0}: another process is listening there; stop it or choose another path")]
    Taken(PathBuf),
    /// The name is of something else.
    #[error("{0}: exists and is not a socket; remove it or choose another path")]
    NotSocketFile(PathBuf),
    /// The system refuses the name.
    #[error("{0}: {1}")]
    Path(PathBuf, io::Error),
    /// The inherited descriptor is no Unix stream socket.
    #[error("descriptor {0} is not a Unix stream socket")]
    NotSocket(i32),
    /// The inherited socket neither listens nor is it connected.
    #[error("socket {0} is neither listening nor connected")]
    Idle(i32),
    /// The system refuses the inherited descriptor.
    #[error("descriptor {0}: {1}")]
    Fd(i32, Errno),
    /// The system has no descriptor left for our own purposes.
    #[error("event descriptor: {0}")]
    Waker(io::Error),
}

/// An open endpoint.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// Front ends connect to us.
    Listening(Listener),
    /// We connect to the front end that listens there.
    Connecting(PathBuf),
    /// An inherited connection: the only one there will be.
    Once,
}

impl Endpoint {
    /// Opens what `spec` says; also the connection, if it is one already.
    pub(super) fn open(spec: EndpointSpec) -> Result<(Self, Option<UnixStream>), EndpointError> {
        match spec {
            EndpointSpec::Listen(path) => {
                let listener = Listener::bind(path)?;
                Ok((Self::Listening(listener), None))
            }
            EndpointSpec::Connect(path) => {
                // Found now rather than at every attempt.
                UnixAddr::new(&path).map_err(|e| EndpointError::Path(path.clone(), e.into()))?;
                Ok((Self::Connecting(path), None))
            }
            EndpointSpec::Fd(fd) => Self::inherit(fd),
        }
    }

    fn inherit(fd: OwnedFd) -> Result<(Self, Option<UnixStream>), EndpointError> {
        let number = fd.as_raw_fd();
        let refused = |errno| EndpointError::Fd(number, errno);
        if !is_unix_stream(fd.as_fd()).map_err(refused)? {
            return Err(EndpointError::NotSocket(number));
        }
        fcntl(&fd, F_SETFD(FdFlag::FD_CLOEXEC)).map_err(refused)?;
        if getsockopt(&fd, sockopt::AcceptConn).map_err(refused)? {
            let socket = UnixListener::from(fd);
            socket
                .set_nonblocking(true)
                .map_err(|_| refused(Errno::last()))?;
            let file = None;
            return Ok((Self::Listening(Listener { socket, file }), None));
        }
        let socket = UnixStream::from(fd);
        if socket.peer_addr().is_err() {
            return Err(EndpointError::Idle(number));
        }
        Ok((Self::Once, Some(socket)))
    }
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    /// The name that we gave it, to be removed with it.
    #[expect(dead_code, reason = "held for its drop")]
    file: Option<SocketFile>,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listener {
    /// Listens at `path`. A socket that a dead process left there is replaced.
    fn bind(path: PathBuf) -> Result<Self, EndpointError> {
        let failed = |error| EndpointError::Path(path.clone(), error);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => {
                if is_answered(&path) {
                    return Err(EndpointError::Taken(path));
                }
                fs::remove_file(&path).map_err(failed)?;
            }
            Ok(_) => return Err(EndpointError::NotSocketFile(path)),
            // Whatever else is wrong with the name, bind(2) says it better.
            Err(_) => {}
        }
        let socket = UnixListener::bind(&path).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let found = fs::symlink_metadata(&path).map_err(failed)?;
        let file = Some(SocketFile::new(path, &found));
        Ok(Self { socket, file })
    }

    /// The next connection that waits, if any. Never blocks.
    ///
    /// # Errors
    /// Those of accept(2) that are ours, as when there are no descriptors left.
    pub(super) fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self.socket.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if is_nobody(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Nobody waits to be accepted, or who did has gone.
fn is_nobody(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | ConnectionAborted | Interrupted)
}

/// The name of a listening socket, removed when it is dropped.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: what has taken the name since is left alone.
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: PathBuf, found: &Metadata) -> Self {
        let identity = (found.dev(), found.ino());
        Self { path, identity }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            if let Err(error) = fs::remove_file(&self.path) {
                tracing::warn!("{}: not removed: {error}", self.path.display());
            }
        }
    }
}

/// Somebody listens on the socket at `path`, or it cannot be told.
fn is_answered(path: &Path) -> bool {
    !matches!(try_connect(path), Err(Errno::ECONNREFUSED | Errno::ENOENT))
}

/// Connects to the socket at `path` without blocking. A Unix socket connects
/// at once or not at all; `EAGAIN` says that too many others are waiting.
pub(super) fn try_connect(path: &Path) -> Result<UnixStream, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

#[cfg(test)]
mod tests;
