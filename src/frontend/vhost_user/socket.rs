//! One message with its descriptors over a Unix socket, in or out.
//!
//! A message is read exactly: first its header, then as many bytes as that
//! says, never a byte of the next, so the descriptors that arrive belong to the
//! message at hand. Every descriptor is owned from the moment it is received;
//! whatever goes wrong, it is closed.

use std::io::IoSlice;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, send, sendmsg};

use super::message::{Header, MAX_FDS, MAX_PAYLOAD, VERSION};
use crate::socket::receive;

/// Most descriptors that a system delivers at once (Linux's `SCM_MAX_FD`;
/// FreeBSD's limit is the same number plus one).
const SYSTEM_FDS: usize = 254;

/// A message that has arrived in full.
#[derive(Debug)]
pub struct Message {
    /// Its header; the version is right, and `size` is the payload's length.
    pub header: Header,
    /// Its payload, at most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
    /// The descriptors that came with it, in order, close-on-exec.
    pub fds: ArrayVec<OwnedFd, MAX_FDS>,
}

/// Why a connection can no longer be used, or not now.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChannelError {
    /// The peer closed the connection between two messages.
    #[error("the peer has closed the connection")]
    Closed,
    /// The peer closed the connection in the middle of a message.
    #[error("the peer closed the connection in the middle of a message")]
    Cut,
    /// The header says another protocol version.
    #[error("message header says protocol version {0}, not {VERSION}")]
    Version(u32),
    /// The header says a payload that no message has.
    #[error("message {0} says a payload of {1} bytes; the most is {MAX_PAYLOAD}")]
    TooLong(u32, u32),
    /// More descriptors than any message has; all were closed.
    #[error("a message came with more than {MAX_FDS} descriptors")]
    TooManyFds,
    /// Descriptors went missing on the way.
    #[error("the system could not deliver a message's descriptors; raise the limit on open files")]
    LostFds,
    /// The peer does not read: there is no room, and nothing was sent.
    #[error("the peer does not read what is sent to it")]
    Full,
    /// The peer does not read: there was room for a part of a message only.
    #[error("the peer does not read what is sent to it; a message was torn")]
    Torn,
    /// The system refused.
    #[error("socket: {0}")]
    Io(#[from] Errno),
}

/// A connected socket and the message that is arriving on it. Once a call has
/// failed otherwise than by [`ChannelError::Full`], the connection is good for
/// nothing but closing.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    header: [u8; Header::LEN],
    payload: Vec<u8>,
    /// Bytes of header and payload that are there.
    have: usize,
    fds: ArrayVec<OwnedFd, MAX_FDS>,
    control: Vec<u8>,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Channel {
    /// Takes over a connected socket. Whether the socket blocks does not
    /// matter to [`try_receive`](Self::try_receive) and
    /// [`try_send`](Self::try_send); the other two want one that does.
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            header: [0; Header::LEN],
            payload: Vec::new(),
            have: 0,
            fds: ArrayVec::new(),
            control: nix::cmsg_space!([RawFd; SYSTEM_FDS]),
        }
    }

    /// The next message, or `None` while it is not there in full. Never blocks.
    ///
    /// # Errors
    /// As [`ChannelError`] says; never [`ChannelError::Full`].
    pub fn try_receive(&mut self) -> Result<Option<Message>, ChannelError> {
        match self.read_message(MsgFlags::MSG_DONTWAIT) {
            Ok(message) => Ok(Some(message)),
            Err(ChannelError::Io(Errno::EAGAIN)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next message; waits for it, as long as the socket's receive timeout
    /// says (then `EAGAIN`, and what has arrived is kept for the next call).
    ///
    /// # Errors
    /// As [`ChannelError`] says; never [`ChannelError::Full`].
    pub fn receive(&mut self) -> Result<Message, ChannelError> {
        self.read_message(MsgFlags::empty())
    }

    fn read_message(&mut self, flags: MsgFlags) -> Result<Message, ChannelError> {
        while self.have < Header::LEN {
            self.read_some(flags)?;
        }
        let header = Header::from_bytes(&self.header);
        if header.version() != VERSION {
            return Err(ChannelError::Version(header.version()));
        }
        let size = usize::try_from(header.size).unwrap_or(usize::MAX);
        if size > MAX_PAYLOAD {
            return Err(ChannelError::TooLong(header.request, header.size));
        }
        self.payload.resize(size, 0);
        while self.have < Header::LEN + size {
            self.read_some(flags)?;
        }
        self.have = 0;
        Ok(Message {
            header,
            payload: mem::take(&mut self.payload),
            fds: mem::take(&mut self.fds),
        })
    }

    /// Reads what there is of the header, or else of the payload.
    fn read_some(&mut self, flags: MsgFlags) -> Result<(), ChannelError> {
        let room = match self.header.get_mut(self.have..) {
            Some(room) if !room.is_empty() => room,
            _ => self
                .payload
                .get_mut(self.have - Header::LEN..)
                .unwrap_or_default(),
        };
        let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
        let received = receive(self.socket.as_fd(), room, &mut self.control, flags)?;
        let mut surplus = false;
        for fd in received.fds {
            surplus |= self.fds.try_push(fd).is_err();
        }
        if received.lost {
            return Err(ChannelError::LostFds);
        }
        if surplus {
            return Err(ChannelError::TooManyFds);
        }
        match received.bytes {
            0 if self.have == 0 => Err(ChannelError::Closed),
            0 => Err(ChannelError::Cut),
            bytes => {
                self.have += bytes;
                Ok(())
            }
        }
    }

    /// Sends one message; waits until there is room for it.
    ///
    /// # Errors
    /// When the system refuses, as with `EPIPE` when the peer has gone.
    pub fn send(
        &self,
        header: Header,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let head = header.to_bytes();
        let len = head.len() + payload.len();
        let mut sent = 0;
        while sent < len {
            // The descriptors go with the first byte.
            let fds = if sent == 0 { fds } else { &[] };
            sent += self.write_some(&head, payload, sent, fds, MsgFlags::empty())?;
        }
        Ok(())
    }

    /// Sends one message. Never blocks.
    ///
    /// # Errors
    /// [`ChannelError::Full`] when there is no room, [`ChannelError::Torn`]
    /// when there was room for a part. A peer that reads the answers to its
    /// requests lets it come to neither.
    pub fn try_send(
        &self,
        header: Header,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let head = header.to_bytes();
        match self.write_some(&head, payload, 0, fds, MsgFlags::MSG_DONTWAIT) {
            Ok(sent) if sent == head.len() + payload.len() => Ok(()),
            Ok(_) => Err(ChannelError::Torn),
            Err(ChannelError::Io(Errno::EAGAIN | Errno::ENOBUFS)) => Err(ChannelError::Full),
            Err(error) => Err(error),
        }
    }

    /// Sends what there is room for, from byte `from` on.
    fn write_some(
        &self,
        head: &[u8],
        payload: &[u8],
        from: usize,
        fds: &[BorrowedFd<'_>],
        flags: MsgFlags,
    ) -> Result<usize, ChannelError> {
        let head = head.get(from..).unwrap_or_default();
        let payload = payload
            .get(from.saturating_sub(Header::LEN)..)
            .unwrap_or_default();
        let bytes = [head, payload].concat();
        let socket = self.socket.as_raw_fd();
        let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let flags = flags | MsgFlags::MSG_NOSIGNAL;
        loop {
            let sent = if raw.is_empty() {
                // A device sends no descriptors: its sandbox has no sendmsg(2).
                send(socket, &bytes, flags)
            } else {
                sendmsg::<()>(socket, &[IoSlice::new(&bytes)], &rights, flags, None)
            };
            match sent {
                Err(Errno::EINTR) => {}
                sent => return Ok(sent?),
            }
        }
    }
}

#[cfg(test)]
mod tests;
