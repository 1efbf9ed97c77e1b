//! Packets between the opener and the sandboxed process: one request or answer
//! each (`SOCK_SEQPACKET`), answers with descriptors.
//!
//! On FreeBSD `MSG_EOR` is what ends a packet, and what does not fit the room of
//! a receiver comes with its next call (uipc_usrreq.c of 15.0); on Linux every
//! send is a packet, of which such a rest is lost.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    recv, recvmsg, send, sendmsg, shutdown, socketpair,
};

use crate::backend::host::MAX_FDS;

/// One end.
#[derive(Debug)]
pub(super) struct Packets(OwnedFd);

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A whole packet, no signal when the other end is gone, and no waiting: there
/// is room for it unless the other end does not read what it has asked for.
fn packet_flags() -> MsgFlags {
    MsgFlags::MSG_EOR | MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT
}

/// Calls again what a signal has interrupted.
fn whole<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

impl Packets {
    /// Both ends.
    pub(super) fn pair() -> Result<(Self, Self), Errno> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends one packet. `EAGAIN`: there is no room.
    pub(super) fn send(&self, packet: &[u8]) -> Result<(), Errno> {
        let socket = self.0.as_raw_fd();
        whole(|| send(socket, packet, packet_flags())).map(drop)
    }

    /// Sends one packet with descriptors. `EAGAIN`: there is no room.
    pub(super) fn send_with(&self, packet: &[u8], fds: &[OwnedFd]) -> Result<(), Errno> {
        if fds.is_empty() {
            return self.send(packet);
        }
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let socket = self.0.as_raw_fd();
        let packet = [IoSlice::new(packet)];
        whole(|| sendmsg::<()>(socket, &packet, &rights, packet_flags(), None)).map(drop)
    }

    /// Waits until there is a packet or the other end is gone; false once `end`
    /// is readable.
    pub(super) fn wait(&self, end: Option<BorrowedFd<'_>>) -> Result<bool, Errno> {
        let mut fds = vec![PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        fds.extend(end.map(|end| PollFd::new(end, PollFlags::POLLIN)));
        whole(|| poll(&mut fds, PollTimeout::NONE))?;
        Ok(fds.iter().skip(1).all(|end| end.any() == Some(false)))
    }

    /// Waits for a packet, and returns its length or what fits `room` of it; 0
    /// when the other end is gone. Descriptors that come with it are never had.
    pub(super) fn receive(&self, room: &mut [u8]) -> Result<usize, Errno> {
        whole(|| recv(self.0.as_raw_fd(), room, MsgFlags::empty()))
    }

    /// As [`receive`](Self::receive), with descriptors, those that are left
    /// when the limit on open files keeps some out.
    pub(super) fn receive_with(&self, room: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
        let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
        let mut parts = [IoSliceMut::new(room)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = loop {
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Err(Errno::EINTR) => {}
                message => break message?,
            }
        };
        let mut fds = Vec::new();
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the system has just made these for us; nobody else
                // has seen their numbers.
                fds.extend(
                    raw.into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        Ok((message.bytes, fds))
    }

    /// Another descriptor of this end.
    pub(super) fn duplicate(&self) -> Result<OwnedFd, Errno> {
        let fd = self.0.try_clone();
        fd.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
    }

    /// Says to the other end that nothing more comes.
    pub(super) fn finish(&self) -> Result<(), Errno> {
        shutdown(self.0.as_raw_fd(), Shutdown::Write)
    }
}
