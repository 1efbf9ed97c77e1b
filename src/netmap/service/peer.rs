//! Who is at the other end of a connection.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};

/// A client's user and groups, as the system knew them when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its effective user.
    pub uid: u32,
    /// Its groups, the effective one among them.
    pub gids: Vec<u32>,
}

#[cfg(target_os = "linux")]
pub(super) fn peer(socket: &impl AsFd) -> Result<Peer, Errno> {
    let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
    let mut gids = peer_groups(socket)?;
    gids.push(credentials.gid());
    Ok(Peer {
        uid: credentials.uid(),
        gids,
    })
}

/// `SO_PEERGROUPS`: the supplementary groups.
#[cfg(target_os = "linux")]
fn peer_groups(socket: &impl AsFd) -> Result<Vec<u32>, Errno> {
    use std::os::fd::AsRawFd;

    /// `NGROUPS_MAX`.
    const MOST: usize = 65536;
    let mut gids = vec![0u32; 64];
    loop {
        let size = gids.len() * size_of::<u32>();
        let mut len = libc::socklen_t::try_from(size).map_err(|_| Errno::EINVAL)?;
        // SAFETY: so many bytes are there to be written.
        let read = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                gids.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        match Errno::result(read) {
            Ok(_) => {
                gids.truncate(len as usize / size_of::<u32>());
                return Ok(gids);
            }
            // There are more; the length says how many.
            Err(Errno::ERANGE) if gids.len() < MOST => {
                gids.resize((gids.len() * 4).min(MOST), 0);
            }
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn peer(socket: &impl AsFd) -> Result<Peer, Errno> {
    let credentials = getsockopt(socket, sockopt::LocalPeerCred)?;
    Ok(Peer {
        uid: credentials.uid(),
        gids: credentials.groups().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::unistd::{getegid, geteuid, getgroups};

    use super::*;

    #[test]
    fn it_is_who_connected() {
        let (one, _other) = UnixStream::pair().unwrap();
        let Peer { uid, mut gids } = peer(&one).unwrap();
        assert_eq!(uid, geteuid().as_raw());
        let mut want: Vec<u32> = getgroups()
            .unwrap()
            .iter()
            .map(|gid| gid.as_raw())
            .collect();
        want.push(getegid().as_raw());
        for all in [&mut gids, &mut want] {
            all.sort_unstable();
            all.dedup();
        }
        assert_eq!(gids, want);
    }
}
