//! Messages: a head, the heads of segments, and their bytes. Numbers are the
//! machine's own, as both sides are on it.

use std::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{CLAIM_MAX, MESSAGE_MAX, SEGMENTS_MAX};

/// What every message begins with.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Head {
    kind: u32,
    /// A version, or an errno.
    status: u32,
    /// An ioctl(2)'s command, or an answer's value.
    value: u64,
    argument: u64,
    segments: u32,
    reserved: u32,
}

/// One segment's head.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct SegmentHead {
    address: u64,
    len: u32,
    /// Bytes of it that are in the message.
    data: u32,
}

const ATTACH: u32 = 1;
const IOCTL: u32 = 2;
const MAP: u32 = 3;
const BORROW: u32 = 4;
const ANSWER: u32 = 0x8000_0000;

/// A piece of a client's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Where the client has it.
    pub address: u64,
    /// How long it is, in bytes.
    pub len: u32,
    /// What is in it, at most `len` bytes. What is missing is there to be
    /// written, and reads as zeros; in an answer nothing is missing.
    pub data: Vec<u8>,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// On the connection: a new channel, with its two descriptors.
    Attach {
        /// The client's version of the protocol.
        version: u32,
    },
    /// On a channel: ioctl(2), other than the syncs.
    Ioctl {
        /// `NIOC...`.
        command: u64,
        /// What the program gave, for most an address.
        argument: u64,
        /// What is read of the program's memory.
        segments: Vec<Segment>,
    },
    /// On a channel: the memory of what is bound, for mmap(2). `ENXIO` when
    /// nothing is.
    Map,
    /// On a channel: what its thread has to know to sync the bound rings itself
    /// ([`Operation::Borrow`](super::page::Operation::Borrow)). `EOPNOTSUPP`
    /// where it cannot.
    Borrow,
}

/// What the service answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// 0: done.
    pub errno: u32,
    /// Bytes of what the descriptor is that came along, if one did.
    pub value: u64,
    /// What is to be written to the program's memory.
    pub writes: Vec<Segment>,
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It is shorter than it says, or longer.
    #[error("a message of {0} bytes is not as long as it says")]
    Length(usize),
    /// No message is that long.
    #[error("a message would have more than {MESSAGE_MAX} bytes")]
    TooLong,
    /// No such kind, or not in this direction, or not with segments.
    #[error("message kind {0:#x} is not one that belongs here")]
    Kind(u32),
    /// Segments that together are longer than any request has a use for.
    #[error("the segments of a message claim more than {CLAIM_MAX} bytes")]
    Claim,
    /// Too many segments.
    #[error("a message has {0} segments; the most is {SEGMENTS_MAX}")]
    Segments(u32),
}

impl Request {
    /// The request's bytes.
    ///
    /// # Errors
    /// [`WireError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        match self {
            Self::Attach { version } => encode(ATTACH, *version, (0, 0), &[]),
            Self::Ioctl {
                command,
                argument,
                segments,
            } => encode(IOCTL, 0, (*command, *argument), segments),
            Self::Map => encode(MAP, 0, (0, 0), &[]),
            Self::Borrow => encode(BORROW, 0, (0, 0), &[]),
        }
    }

    /// The request with these bytes.
    ///
    /// # Errors
    /// There is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (head, segments) = decode(bytes)?;
        let plain = segments.is_empty();
        Ok(match head.kind {
            ATTACH if plain => Self::Attach {
                version: head.status,
            },
            IOCTL => Self::Ioctl {
                command: head.value,
                argument: head.argument,
                segments,
            },
            MAP if plain => Self::Map,
            BORROW if plain => Self::Borrow,
            kind => return Err(WireError::Kind(kind)),
        })
    }
}

impl Answer {
    /// The answer's bytes.
    ///
    /// # Errors
    /// [`WireError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode(ANSWER, self.errno, (self.value, 0), &self.writes)
    }

    /// The answer with these bytes.
    ///
    /// # Errors
    /// There is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (head, writes) = decode(bytes)?;
        match head.kind {
            ANSWER => Ok(Self {
                errno: head.status,
                value: head.value,
                writes,
            }),
            kind => Err(WireError::Kind(kind)),
        }
    }
}

fn encode(
    kind: u32,
    status: u32,
    (value, argument): (u64, u64),
    segments: &[Segment],
) -> Result<Vec<u8>, WireError> {
    let too_long = |_| WireError::TooLong;
    let count = u32::try_from(segments.len()).map_err(too_long)?;
    if segments.len() > SEGMENTS_MAX {
        return Err(WireError::Segments(count));
    }
    let head = Head {
        kind,
        status,
        value,
        argument,
        segments: count,
        reserved: 0,
    };
    let mut bytes = head.as_bytes().to_vec();
    for segment in segments {
        let head = SegmentHead {
            address: segment.address,
            len: segment.len,
            data: u32::try_from(segment.data.len()).map_err(too_long)?,
        };
        bytes.extend_from_slice(head.as_bytes());
    }
    for segment in segments {
        bytes.extend_from_slice(&segment.data);
    }
    if bytes.len() > MESSAGE_MAX {
        return Err(WireError::TooLong);
    }
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<(Head, Vec<Segment>), WireError> {
    let wrong = || WireError::Length(bytes.len());
    let (head, rest) = Head::read_from_prefix(bytes).map_err(|_| wrong())?;
    let count = usize::try_from(head.segments).unwrap_or(usize::MAX);
    if count > SEGMENTS_MAX {
        return Err(WireError::Segments(head.segments));
    }
    let split = rest.split_at_checked(count * size_of::<SegmentHead>());
    let (heads, mut data) = split.ok_or_else(wrong)?;
    let mut segments = Vec::with_capacity(count);
    let mut claimed = 0usize;
    for head in heads.chunks_exact(size_of::<SegmentHead>()) {
        let head = SegmentHead::read_from_bytes(head).map_err(|_| wrong())?;
        if head.data > head.len {
            return Err(wrong());
        }
        claimed = claimed.saturating_add(head.len as usize);
        if claimed > CLAIM_MAX {
            return Err(WireError::Claim);
        }
        let split = data.split_at_checked(head.data as usize);
        let (own, rest) = split.ok_or_else(wrong)?;
        data = rest;
        segments.push(Segment {
            address: head.address,
            len: head.len,
            data: own.to_vec(),
        });
    }
    if !data.is_empty() {
        return Err(wrong());
    }
    Ok((head, segments))
}
