//! One queue of a tap: a descriptor, and what came in on it and did not fit.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use crate::net::direct::{self, Got, Reader, Writer};
use crate::virtio::memory::{Readable, Writable};
use crate::virtio::net_header::{LEN, NetHeader};

/// A frame that the guest could not have at once.
pub(super) struct Kept {
    /// As the kernel said it; a plain one when we finished the frame.
    pub header: NetHeader,
    pub frame: Vec<u8>,
}

impl Kept {
    /// A complete frame.
    pub(super) fn plain(frame: Vec<u8>) -> Self {
        Self {
            header: NetHeader::default(),
            frame,
        }
    }
}

/// What is to be received on a queue.
pub(super) struct Inbox {
    pub reader: Reader,
    /// Frames that come before what the kernel has. Segments of one frame, if
    /// there are several.
    pub kept: VecDeque<Kept>,
}

/// What was read.
pub(super) enum Read {
    /// A frame of so many bytes is in the guest's buffers.
    Whole(NetHeader, usize),
    /// A frame did not fit there.
    Spilled(Kept),
    /// It fitted nowhere, and is lost.
    TooLong,
    /// A header without a frame: the kernel could not express its offloads, and
    /// has dropped it.
    Nothing,
}

/// One queue.
pub(super) struct Queue {
    fd: OwnedFd,
    inbox: Mutex<Inbox>,
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Queue {
    pub(super) fn new(fd: OwnedFd) -> Self {
        let inbox = Inbox {
            reader: Reader::new(),
            kept: VecDeque::new(),
        };
        Self {
            fd,
            inbox: Mutex::new(inbox),
        }
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `fd` in the place of the descriptor, whose number stays as others
    /// have it.
    ///
    /// # Errors
    /// What dup3(2) says.
    pub(super) fn replace(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        direct::replace(self.fd.as_fd(), fd)
    }

    /// Reads one frame behind a header of `header_len` bytes into `room`.
    ///
    /// # Errors
    /// What read(2) says; `EAGAIN` when nothing is waiting.
    pub(super) fn read(
        &self,
        header_len: usize,
        room: &[Writable<'_>],
        reader: &mut Reader,
    ) -> Result<Read, Errno> {
        let mut header = [0; LEN];
        let behind = &mut header[..header_len.min(LEN)];
        let got = reader.read(self.fd.as_fd(), behind, room)?;
        let header = NetHeader::from_bytes(&header);
        Ok(match got {
            Got::Whole(0) => Read::Nothing,
            Got::Whole(len) => Read::Whole(header, len),
            Got::Spilled(frame) => Read::Spilled(Kept { header, frame }),
            Got::TooLong => Read::TooLong,
        })
    }

    /// Writes one frame behind its `header`, as far as `header_len` goes.
    ///
    /// # Errors
    /// What write(2) says, and `ENETDOWN` when it has taken nothing.
    pub(super) fn write(
        &self,
        header_len: usize,
        header: &NetHeader,
        parts: &[Readable<'_>],
        writer: &mut Writer,
    ) -> Result<(), Errno> {
        let header = header.to_bytes();
        let header = header.get(..header_len).unwrap_or(&header);
        match writer.write(self.fd.as_fd(), header, parts)? {
            // FreeBSD says so.
            0 => Err(Errno::ENETDOWN),
            _ => Ok(()),
        }
    }
}
