//! What programs and back ends do with a netmap port, wherever it is: a port
//! of this core, or one of `/dev/netmap`.

use std::io;
use std::os::fd::BorrowedFd;

use super::mem::RingView;

/// Which way a ring goes, seen from the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the application to the port.
    Tx,
    /// From the port to the application.
    Rx,
}

impl Direction {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Tx => Self::Rx,
            Self::Rx => Self::Tx,
        }
    }
}

/// Bytes of the virtio-net header in front of every frame, if there is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderLen {
    /// Frames begin with the Ethernet header.
    #[default]
    None,
    /// 10 bytes: without `num_buffers`.
    Legacy,
    /// 12 bytes.
    Full,
}

/// A header length that no virtio-net header has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a virtio-net header has 0, 10 or 12 bytes, not {0}")]
pub struct HeaderLenError(pub u32);

impl TryFrom<u32> for HeaderLen {
    type Error = HeaderLenError;

    fn try_from(bytes: u32) -> Result<Self, HeaderLenError> {
        match bytes {
            0 => Ok(Self::None),
            10 => Ok(Self::Legacy),
            12 => Ok(Self::Full),
            _ => Err(HeaderLenError(bytes)),
        }
    }
}

impl HeaderLen {
    /// How many bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Legacy => 10,
            Self::Full => 12,
        }
    }
}

/// One registration of a netmap port: some of its rings, and a way to sync
/// them.
///
/// A ring is used as netmap(4) says: slots from `head` up to but without
/// `tail` are the caller's. To send, fill slots, move `cur` and `head`, call
/// [`txsync`](Self::txsync); to receive, call [`rxsync`](Self::rxsync), use the
/// slots, move `cur` and `head`. One thread at a time uses a ring.
pub trait Port: Send + Sync {
    /// The port's name.
    fn name(&self) -> &str;

    /// How many rings of this direction are bound.
    fn ring_count(&self, direction: Direction) -> usize;

    /// The bound ring `index`, from 0; `None` when there is no such.
    fn ring(&self, direction: Direction, index: usize) -> Option<RingView<'_>>;

    /// Sends what lies before `head` in every bound transmit ring. Never
    /// blocks.
    ///
    /// # Errors
    /// When the port is gone.
    fn txsync(&self) -> io::Result<()>;

    /// Gives back what lies before `head` in every bound receive ring, and
    /// gets what has come. Never blocks.
    ///
    /// # Errors
    /// When the port is gone.
    fn rxsync(&self) -> io::Result<()>;

    /// What is in front of every frame.
    ///
    /// # Errors
    /// When the port is gone.
    fn header_len(&self) -> io::Result<HeaderLen>;

    /// Puts something else in front of every frame. Not to be done while
    /// frames are under way.
    ///
    /// # Errors
    /// When the port cannot (NICs, for instance).
    fn set_header_len(&self, len: HeaderLen) -> io::Result<()>;

    /// Becomes readable when frames come, after [`listen`](Self::listen).
    fn fd(&self) -> BorrowedFd<'_>;

    /// The next frames make [`fd`](Self::fd) readable. Looks once more: with
    /// `true` there are frames in a ring already, and nobody should sleep.
    ///
    /// # Errors
    /// When the port is gone.
    fn listen(&self) -> io::Result<bool>;
}
