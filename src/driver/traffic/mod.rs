//! Frames that a receiver can judge: each carries a *probe*, with a sequence
//! number, the time at which it was sent, and a checksum over all of its
//! payload.
//!
//! ```text
//! Ethernet (14)  0x88b5 | probe (18) | filler ...
//! Ethernet (14)  0x0800 | IPv4 (20) | UDP (8) | probe (18) | filler ...
//!
//! probe:  magic (2) | check (2) | stream (2) | sequence (4) | time (8)
//! ```
//!
//! All fields are big endian. `check` makes the Internet checksum of the whole
//! payload come out right, so a UDP datagram's own checksum does not depend on
//! what the probe says. A frame that is too short for a probe carries filler
//! alone, and is counted but not judged.

mod judge;
mod source;
mod tally;

pub use judge::{Judge, Verdict};
pub use source::{Form, Source};
pub use tally::{Sequence, Tally};

/// EtherType of frames without IP: the first one for local experiments (IEEE
/// 802, 9.2.4).
pub const ETHER_TYPE: u16 = 0x88b5;
/// UDP destination port: discard (RFC 863).
pub const UDP_PORT: u16 = 9;
/// What a probe begins with.
const MAGIC: u16 = 0x7674;
/// Bytes of a probe.
pub const PROBE_LEN: usize = 18;
/// Bytes of an Ethernet header.
pub const ETHER_LEN: usize = 14;
/// Bytes of an IPv4 header without options.
const IPV4_LEN: usize = 20;
/// Bytes of a UDP header.
const UDP_LEN: usize = 8;
/// Bytes of everything in front of the probe of a UDP datagram.
pub const UDP_HEADERS: usize = ETHER_LEN + IPV4_LEN + UDP_LEN;

/// What a frame says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Which sender it comes from.
    pub stream: u16,
    /// How many that sender had sent before, wrapping.
    pub sequence: u32,
    /// When it was sent, in nanoseconds of the sender's own clock.
    pub time: u64,
}

impl Probe {
    /// The wire form in words, with a checksum that makes it and bytes of the
    /// sum `rest` add up to nothing. In words because it is made for each
    /// frame: bytes that are put together in memory and then copied would wait
    /// for every store before them.
    #[inline]
    fn to_words(self, rest: u32) -> (u64, u64, u16) {
        let sum = u64::from(MAGIC)
            + u64::from(self.stream)
            + u64::from(self.sequence)
            + (self.time >> 32)
            + (self.time & 0xffff_ffff)
            + u64::from(rest);
        let check = !fold(sum);
        let first = u64::from(MAGIC) << 48
            | u64::from(check) << 32
            | u64::from(self.stream) << 16
            | u64::from(self.sequence) >> 16;
        let second = u64::from(self.sequence) << 48 | self.time >> 16;
        // The lowest 16 bits.
        let third = u16::try_from(self.time & 0xffff).unwrap_or(0);
        (first, second, third)
    }

    /// Reads a probe; `None` when there is none. Its checksum is another
    /// matter.
    #[inline]
    fn from_bytes(raw: &[u8; PROBE_LEN]) -> Option<Self> {
        let be = |from, len| {
            raw[from..from + len]
                .iter()
                .fold(0, |n, &b| n << 8 | u64::from(b))
        };
        let narrow = |number: u64| u32::try_from(number).unwrap_or(0);
        (be(0, 2) == u64::from(MAGIC)).then(|| Self {
            stream: u16::from_be_bytes([raw[4], raw[5]]),
            sequence: narrow(be(6, 4)),
            time: be(10, 8),
        })
    }
}

/// Adds the 16-bit words of a number up, with their carries.
#[inline]
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Not more than 16 bits are left.
    u16::try_from(sum).unwrap_or(0)
}
