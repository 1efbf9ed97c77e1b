//! Frames: how a batch of them is held on its way, how they get to a descriptor
//! and from it, what their headers say, checksums and segmentation.
//!
//! The views of [`ethernet`], [`ip`] and [`transport`] are made with
//! `new_checked`, which proves that the header is there, and lend out named
//! fields after that. They read from what has been copied out of guest memory,
//! often only the first bytes of a frame: a header must be whole, its payload
//! is what is there of it.

pub mod checksum;
pub mod counter;
pub(crate) mod direct;
pub mod ethernet;
pub mod flow;
pub mod frame;
pub mod ip;
pub mod offload;
pub mod transport;

/// Why bytes are not the header that they were taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The header, named here, ends after the last byte.
    #[error("the {0} header is cut short")]
    Truncated(&'static str),
    /// The version field of an IP header is another one's.
    #[error("the IP version is not the one that the EtherType says")]
    Version,
    /// A length field of the header, named here, says less than the shortest
    /// that there is.
    #[error("a length in the {0} header is shorter than the header itself")]
    Length(&'static str),
    /// An IPv6 packet has more than [`ip::MAX_EXTENSIONS`] extension headers.
    #[error("too many IPv6 extension headers")]
    TooManyExtensions,
}

/// The big-endian number at `at` of a header whose length the type proves.
#[inline]
fn be16<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

/// The big-endian number at `at` of a header whose length the type proves.
#[inline]
fn be32<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}
