//! Who is at the other end of a connection.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};

/// A client's user, as the system knew it when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its effective user.
    pub uid: u32,
}

#[cfg(target_os = "linux")]
pub(super) fn peer(socket: &impl AsFd) -> Result<Peer, Errno> {
    let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
    Ok(Peer {
        uid: credentials.uid(),
    })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn peer(socket: &impl AsFd) -> Result<Peer, Errno> {
    let credentials = getsockopt(socket, sockopt::LocalPeerCred)?;
    Ok(Peer {
        uid: credentials.uid(),
    })
}
