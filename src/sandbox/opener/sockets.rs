//! Sockets with names: those we listen on, and those we connect to.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::frontend::vhost_user::try_connect;

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

/// Somebody listens on the socket at `path`, or it cannot be told.
fn is_answered(path: &Path) -> bool {
    !matches!(try_connect(path), Err(Errno::ECONNREFUSED | Errno::ENOENT))
}

#[cfg(test)]
mod tests;
