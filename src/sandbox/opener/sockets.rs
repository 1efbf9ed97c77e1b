//! Sockets with names: those we listen on, and those we connect to.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, socket};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Group, fchownat};

use crate::frontend::vhost_user::try_connect;
use crate::sandbox::User;

/// A link is not what was made.
const NO_FOLLOW: AtFlags = AtFlags::AT_SYMLINK_NOFOLLOW;

/// Why a socket cannot be had under its name.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on the socket.
    #[error("{0}: somebody is listening there already; stop that process or choose another path")]
    Taken(PathBuf),
    /// The name is of something else.
    #[error("{0}: exists and is not a socket; remove it or choose another path")]
    NotSocketFile(PathBuf),
    /// There is no such group.
    #[error("{0}: group={1}: no such group; make it, or name another")]
    NoGroup(PathBuf, String),
    /// The system refuses the name.
    #[error("{0}: {1}; {cure}", cure = cure(.1))]
    Path(PathBuf, io::Error),
}

/// What helps when the system refuses a name.
fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "make the directory first, or choose another path",
        io::ErrorKind::PermissionDenied => {
            "choose a directory that this user may write to, or start as another user"
        }
        _ => "choose another path",
    }
}

/// The name of a listening socket, removed when it is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
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
        let _alone = lock_directory(&self.path);
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            if let Err(error) = fs::remove_file(&self.path) {
                tracing::warn!("{}: not removed: {error}", self.path.display());
            }
        }
    }
}

/// Listens at `path`, on a socket that is `user`'s if there is one. A socket
/// that a dead process left there is replaced.
pub(super) fn listen(
    path: &Path,
    user: Option<&User>,
) -> Result<(UnixListener, SocketFile), SocketError> {
    listen_by(path, || {
        let socket = match user {
            Some(user) => bind_for(path, user),
            None => UnixListener::bind(path),
        }?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
}

/// Who may connect to a socket.
pub(super) struct Access<'a> {
    /// Permissions.
    pub mode: u32,
    /// The group, by name or number, if it is to be another one.
    pub group: Option<&'a str>,
    /// The owner, if it is to be another one.
    pub user: Option<&'a User>,
}

/// Listens at `path` for connections of packets (`SOCK_SEQPACKET`), of those
/// that `access` says. Nobody else ever can, for all that the socket has no
/// permissions before it has the right ones.
pub(super) fn listen_packets(
    path: &Path,
    access: &Access<'_>,
) -> Result<(OwnedFd, SocketFile), SocketError> {
    let group = access
        .group
        .map(|name| find_group(path, name))
        .transpose()?;
    listen_by(path, || {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        let before = umask(Mode::all());
        let bound = bind(fd.as_raw_fd(), &UnixAddr::new(path)?);
        umask(before);
        bound?;
        if group.is_some() || access.user.is_some() {
            let owner = access.user.map(User::uid);
            fchownat(AT_FDCWD, path, owner, group, NO_FOLLOW)?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(access.mode))?;
        nix::sys::socket::listen(&fd, Backlog::MAXCONN)?;
        Ok(fd)
    })
}

/// The group with this name or number.
fn find_group(path: &Path, name: &str) -> Result<Gid, SocketError> {
    let found = Group::from_name(name).ok().flatten().map(|group| group.gid);
    let number = || name.parse().ok().map(Gid::from_raw);
    found
        .or_else(number)
        .ok_or_else(|| SocketError::NoGroup(path.to_owned(), name.to_owned()))
}

/// Has `make` listen at `path`, where nobody listens any more.
fn listen_by<T>(
    path: &Path,
    make: impl FnOnce() -> io::Result<T>,
) -> Result<(T, SocketFile), SocketError> {
    let failed = |error| SocketError::Path(path.to_owned(), error);
    let _alone = lock_directory(path);
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if is_answered(path) {
                return Err(SocketError::Taken(path.to_owned()));
            }
            fs::remove_file(path).map_err(failed)?;
        }
        Ok(_) => return Err(SocketError::NotSocketFile(path.to_owned())),
        // Whatever else is wrong with the name, bind(2) says it better.
        Err(_) => {}
    }
    let socket = make().map_err(failed)?;
    let found = fs::symlink_metadata(path).map_err(failed)?;
    Ok((socket, SocketFile::new(path.to_owned(), &found)))
}

/// Binds a socket that is `user`'s and its login group's, so that who is in that
/// group can be let in by an umask.
///
/// Where the user may make it, the user does. Elsewhere root makes it and hands
/// it over, if nobody can have put something else in its place meanwhile.
fn bind_for(path: &Path, user: &User) -> io::Result<UnixListener> {
    let own = || -> io::Result<UnixListener> {
        let socket = UnixListener::bind(path)?;
        // On FreeBSD the group is the directory's.
        fchownat(AT_FDCWD, path, None, Some(user.group()), NO_FOLLOW)?;
        Ok(socket)
    };
    match user.act(own)? {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        made => return made,
    }
    let socket = UnixListener::bind(path)?;
    let (parent, name) = (directory(path), path.file_name());
    let parent = File::open(parent.ok_or(Errno::EINVAL)?)?;
    let found = parent.metadata()?;
    // Others can make names there, and take away or rename ours.
    let open_to_others = found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0;
    if found.uid() != 0 || open_to_others {
        tracing::warn!(
            "{}: stays root's, for others can change its directory; have that be root's, or {}'s",
            path.display(),
            user.name()
        );
        return Ok(socket);
    }
    let name = name.ok_or(Errno::EINVAL)?;
    fchownat(
        &parent,
        name,
        Some(user.uid()),
        Some(user.group()),
        NO_FOLLOW,
    )?;
    Ok(socket)
}

/// Connects to the socket at `path`, as `user` if there is one: what the other
/// process may not reach is not to be reached for it, whatever whoever owns the
/// directory puts there.
///
/// # Errors
/// Those of connect(2); `ENOTSOCK` also for a symbolic link.
pub(super) fn connect(path: &Path, user: Option<&User>) -> Result<UnixStream, Errno> {
    let connect = || {
        let found = fs::symlink_metadata(path);
        let found = found.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        if !found.file_type().is_socket() {
            return Err(Errno::ENOTSOCK);
        }
        try_connect(path)
    };
    match user {
        Some(user) => user.act(connect)?,
        None => connect(),
    }
}

/// Keeps other openers from changing sockets in the directory of `path`: a
/// socket that was looked at could be another's by the time that it is removed,
/// and one that is bound does not listen yet.
///
/// The lock is on the directory itself (flock(2)), so nothing is left of it.
/// Who may not read the directory, or has it on a file system without locks,
/// goes on without.
fn lock_directory(path: &Path) -> Option<Flock<File>> {
    let directory = File::open(directory(path)?).ok()?;
    Flock::lock(directory, FlockArg::LockExclusive).ok()
}

/// What `path` is in.
fn directory(path: &Path) -> Option<&Path> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    })
}

/// Somebody listens on the socket at `path`, or it cannot be told.
fn is_answered(path: &Path) -> bool {
    !matches!(try_connect(path), Err(Errno::ECONNREFUSED | Errno::ENOENT))
}

#[cfg(test)]
mod tests;
