//! The sockets of a connection: messages with descriptors, and bells.
//!
//! Nothing here waits, whatever flags the other side has set: a socket that was
//! handed over may be held there, too.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, send, sendmsg, setsockopt,
    socketpair, sockopt,
};

use super::{Answer, DESCRIPTORS_MAX, MESSAGE_MAX};
use crate::socket::receive;

/// Most descriptors that one message can have (SCM_MAX_FD).
const SENT_MAX: usize = 253;

/// Most reads of a bell in one go: whoever rings on and on is not waited for,
/// nor is the end of descriptors that came along. What is left says no more
/// than what was read: to look.
const READS: u32 = 2;

/// Both ends of a channel.
///
/// # Errors
/// Those of socketpair(2).
pub fn channel_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let pair = pair(SockType::SeqPacket)?;
    // A message, its descriptors and what the system adds.
    let room = 2 * MESSAGE_MAX;
    for end in [&pair.0, &pair.1] {
        setsockopt(end, sockopt::SndBuf, &room)?;
        setsockopt(end, sockopt::RcvBuf, &room)?;
    }
    Ok(pair)
}

/// Both ends of a bell.
///
/// # Errors
/// Those of socketpair(2).
pub fn bell_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    pair(SockType::Stream)
}

fn pair(kind: SockType) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, kind, None, flags)
}

/// Sends one message, at once or not at all.
///
/// # Errors
/// `EAGAIN`: the other side has not read what is there already; others of
/// sendmsg(2).
pub fn send_message(
    socket: BorrowedFd<'_>,
    message: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights };
    // MSG_EOR is what ends a message on FreeBSD; Linux needs none.
    let flags = MsgFlags::MSG_EOR | MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let message = [IoSlice::new(message)];
    whole(|| sendmsg::<()>(socket.as_raw_fd(), &message, rights, flags, None)).map(drop)
}

/// Receives one message into `room`, which has [`MESSAGE_MAX`] bytes. Returns
/// its length, 0 when the other side is gone, and the descriptors that came
/// along; more than any message has are closed.
///
/// # Errors
/// `EAGAIN`: there is none; `EMSGSIZE`: it is longer than any message, or it
/// had more descriptors, or the limit on open files has kept some out; others
/// of recvmsg(2).
pub fn receive_message(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
) -> Result<(usize, ArrayVec<OwnedFd, DESCRIPTORS_MAX>), Errno> {
    let (len, all) = receive_from_anyone(socket, room)?;
    let mut descriptors = ArrayVec::new();
    for fd in all {
        descriptors.try_push(fd).map_err(|_| Errno::EMSGSIZE)?;
    }
    Ok((len.ok_or(Errno::EMSGSIZE)?, descriptors))
}

/// As [`receive_message`], from somebody who may send any descriptors: all that
/// came are returned, for the system would close what there is no room for,
/// here and now. No length: it was no message.
///
/// # Errors
/// Those of recvmsg(2); `EAGAIN`: there is none.
pub fn receive_from_anyone(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
) -> Result<(Option<usize>, Vec<OwnedFd>), Errno> {
    let mut space = nix::cmsg_space!([RawFd; SENT_MAX]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let received = receive(socket, room, &mut space, flags)?;
    // FreeBSD gives the rest of a message that is too long as another one.
    let full = received.bytes == room.len();
    let goes_on = cfg!(target_os = "freebsd") && full && !received.ended;
    let whole = !(received.lost || received.cut || goes_on);
    Ok((whole.then_some(received.bytes), received.fds))
}

/// What the service has said to a connection that it has ended, if anything. It
/// stays there to be read again.
pub fn last_word(connection: BorrowedFd<'_>) -> Option<Answer> {
    let mut room = [0; 256];
    // Linux first says that what was sent was not read.
    (0..2).find_map(|_| {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let len = whole(|| recv(connection.as_raw_fd(), &mut room, flags)).ok()?;
        Answer::decode(room.get(..len)?).ok()
    })
}

/// Rings. What has no room has been rung often enough; nobody may be there.
pub fn ring(bell: BorrowedFd<'_>) {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let _ = whole(|| send(bell.as_raw_fd(), &[1], flags));
}

/// Reads what has been rung by somebody who may send descriptors along, which
/// are returned.
pub fn quiet_from_anyone(bell: BorrowedFd<'_>) -> Vec<OwnedFd> {
    let mut scratch = [0; 256];
    let mut space = nix::cmsg_space!([RawFd; SENT_MAX]);
    let mut brought = Vec::new();
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    for _ in 0..READS {
        match receive(bell, &mut scratch, &mut space, flags) {
            Ok(received) => {
                brought.extend(received.fds);
                if received.bytes < scratch.len() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    brought
}

/// Reads what has been rung. Returns whether somebody is there to ring again.
pub fn quiet(bell: BorrowedFd<'_>) -> bool {
    let mut scratch = [0; 256];
    for _ in 0..READS {
        let flags = MsgFlags::MSG_DONTWAIT;
        match whole(|| recv(bell.as_raw_fd(), &mut scratch, flags)) {
            Ok(0) => return false,
            Ok(read) if read == scratch.len() => {}
            Ok(_) | Err(Errno::EAGAIN) => return true,
            Err(_) => return false,
        }
    }
    true
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
