//! Where front ends come from: a socket we listen on, one we connect to, or a
//! descriptor that we inherited.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{F_SETFD, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt,
};

use crate::sandbox::{Role, limit};
use crate::socket::is_unix;

/// Connects to a front end that listens.
pub trait Connect: Send {
    /// A new connection, at once or not at all.
    ///
    /// # Errors
    /// Those of connect(2), as when nobody listens.
    fn connect(&self) -> Result<UnixStream, Errno>;

    /// Where the front end is, for the log.
    fn path(&self) -> &Path;
}

/// The socket of that name, for programs that are not sandboxed.
impl Connect for PathBuf {
    fn connect(&self) -> Result<UnixStream, Errno> {
        try_connect(self)
    }

    fn path(&self) -> &Path {
        self
    }
}

/// Where a device's front end comes from.
pub enum EndpointSpec {
    /// Front ends connect to this socket, one at a time.
    Listen(UnixListener),
    /// Connect to a front end, again and again.
    Connect(Box<dyn Connect>),
    /// An inherited Unix socket: one that listens, or one that is connected.
    Fd(OwnedFd),
}

/// Why an endpoint cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The inherited descriptor is no Unix stream socket.
    #[error("fd={0}: not a Unix stream socket; have one there when vtnetd starts")]
    NotSocket(i32),
    /// The inherited socket neither listens nor is it connected.
    #[error(
        "fd={0}: the socket neither listens nor is it connected; have one that does there when \
         vtnetd starts"
    )]
    Idle(i32),
    /// The system refuses the inherited descriptor.
    #[error("fd={0}: {1}; have a Unix stream socket there when vtnetd starts")]
    Fd(i32, Errno),
    /// The system has no descriptor left for our own purposes.
    #[error("event descriptor: {0}")]
    Waker(io::Error),
}

/// An open endpoint.
pub(super) enum Endpoint {
    /// Front ends connect to us.
    Listening(Listener),
    /// We connect to the front end that listens there.
    Connecting(Box<dyn Connect>),
    /// An inherited connection: the only one there will be.
    Once,
}

impl Endpoint {
    /// Opens what `spec` says; also the connection, if it is one already.
    pub(super) fn open(spec: EndpointSpec) -> Result<(Self, Option<UnixStream>), EndpointError> {
        match spec {
            EndpointSpec::Listen(socket) => Ok((Self::Listening(Listener(socket)), None)),
            EndpointSpec::Connect(connect) => Ok((Self::Connecting(connect), None)),
            EndpointSpec::Fd(fd) => Self::inherit(fd),
        }
    }

    fn inherit(fd: OwnedFd) -> Result<(Self, Option<UnixStream>), EndpointError> {
        let number = fd.as_raw_fd();
        let refused = |errno| EndpointError::Fd(number, errno);
        if !is_unix(fd.as_fd(), SockType::Stream).map_err(refused)? {
            return Err(EndpointError::NotSocket(number));
        }
        fcntl(&fd, F_SETFD(FdFlag::FD_CLOEXEC)).map_err(refused)?;
        if getsockopt(&fd, sockopt::AcceptConn).map_err(refused)? {
            let socket = UnixListener::from(fd);
            socket
                .set_nonblocking(true)
                .map_err(|_| refused(Errno::last()))?;
            limit(&socket, Role::Listener).map_err(|_| refused(Errno::last()))?;
            return Ok((Self::Listening(Listener(socket)), None));
        }
        let socket = UnixStream::from(fd);
        if socket.peer_addr().is_err() {
            return Err(EndpointError::Idle(number));
        }
        limit(&socket, Role::Connection).map_err(|_| refused(Errno::last()))?;
        Ok((Self::Once, Some(socket)))
    }
}

/// A listening socket that does not block.
#[derive(Debug)]
pub(super) struct Listener(UnixListener);

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// The next connection that waits, if any. Never blocks.
    ///
    /// # Errors
    /// Those of accept(2) that are ours, as when there are no descriptors left.
    pub(super) fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self.0.accept() {
            Ok((stream, _)) => {
                limit(&stream, Role::Connection)?;
                Ok(Some(stream))
            }
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

/// Connects to the socket at `path` without blocking. A Unix socket connects
/// at once or not at all; `EAGAIN` says that too many others are waiting.
///
/// # Errors
/// Those of socket(2) and connect(2).
pub fn try_connect(path: &Path) -> Result<UnixStream, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

#[cfg(test)]
mod tests;
