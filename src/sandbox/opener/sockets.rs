//! Sockets with names: those we listen on, and those we connect to.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::frontend::vhost_user::try_connect;
use crate::sandbox::User;

/// Why a socket cannot be had under its name.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on the socket.
    #[error("{0}: another process is listening there; stop it or choose another path")]
    Taken(PathBuf),
    /// The name is of something else.
    #[error("{0}: exists and is not a socket; remove it or choose another path")]
    NotSocketFile(PathBuf),
    /// The system refuses the name.
    #[error("{0}: {1}")]
    Path(PathBuf, io::Error),
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

/// Listens at `path`. A socket that a dead process left there is replaced.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
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
    let socket = UnixListener::bind(path).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let found = fs::symlink_metadata(path).map_err(failed)?;
    Ok((socket, SocketFile::new(path.to_owned(), &found)))
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
    let directory = match path.parent()? {
        here if here.as_os_str().is_empty() => Path::new("."),
        directory => directory,
    };
    let directory = File::open(directory).ok()?;
    Flock::lock(directory, FlockArg::LockExclusive).ok()
}

/// Somebody listens on the socket at `path`, or it cannot be told.
fn is_answered(path: &Path) -> bool {
    !matches!(try_connect(path), Err(Errno::ECONNREFUSED | Errno::ENOENT))
}

#[cfg(test)]
mod tests;
