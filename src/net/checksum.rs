//! The Internet checksum (RFC 1071), over one range or over parts that follow
//! one another.
//!
//! A ones' complement sum does not depend on the order of its bytes in a word
//! (RFC 1071, section 2 (B)), so words are added as the machine reads them and
//! swapped once at the end. A part that begins at an odd offset has its sum
//! swapped instead of its bytes moved.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The ones' complement sum of some bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// The sum of 16-bit words in the machine's order; carries are in the upper
    /// bits.
    words: u64,
    /// An odd number of bytes has been added.
    odd: bool,
}

impl Sum {
    /// The sum of no bytes.
    #[inline]
    pub const fn new() -> Self {
        Self {
            words: 0,
            odd: false,
        }
    }

    /// Adds the bytes that follow those added so far.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        self.append(Self {
            words: sum_words(bytes),
            odd: bytes.len() % 2 != 0,
        });
    }

    /// Adds the sum of bytes that follow those added so far.
    #[inline]
    pub fn append(&mut self, next: Self) {
        let folded = fold(next.words);
        let words = if self.odd {
            folded.swap_bytes()
        } else {
            folded
        };
        // 16 bits at a time: the carries of 2^48 parts have room.
        self.words += u64::from(words);
        self.odd ^= next.odd;
    }

    /// This sum with a big-endian number that stands at an even offset added.
    #[inline]
    #[must_use]
    pub fn with(mut self, number: u16) -> Self {
        self.words += u64::from(number.to_be());
        self
    }

    /// The sum in 16 bits: what stands in a checksum field that is still to be
    /// completed.
    #[inline]
    pub fn folded(self) -> u16 {
        u16::from_be(fold(self.words))
    }

    /// The checksum: the complement of the sum.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }

    /// The checksum for a field in which 0 means that there is none (RFC 768):
    /// 0xffff, which is 0 in ones' complement, stands for 0.
    #[inline]
    pub fn nonzero_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

/// The sum of `bytes`.
#[inline]
pub fn sum(bytes: &[u8]) -> Sum {
    let mut sum = Sum::new();
    sum.add(bytes);
    sum
}

/// The sum of the pseudo header of IPv4 (RFC 9293, section 3.1): `len` is that
/// of the transport header and its payload in bytes.
#[inline]
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> Sum {
    let mut pseudo = sum(&source.octets());
    pseudo.add(&destination.octets());
    pseudo.with(u16::from(protocol)).with(len)
}

/// The sum of the pseudo header of IPv6 (RFC 8200, section 8.1): `destination`
/// is the final one, `protocol` the transport's and not an extension header's,
/// `len` that of the transport header and its payload in bytes.
#[inline]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: u32) -> Sum {
    let mut pseudo = sum(&source.octets());
    pseudo.add(&destination.octets());
    pseudo.add(&len.to_be_bytes());
    pseudo.with(u16::from(protocol))
}

/// Whether `bytes`, with their checksum among them, are as they were sent. The
/// pseudo header is `Sum::new()` for an IPv4 header, which has none.
#[inline]
pub fn verify(pseudo: Sum, bytes: &[u8]) -> bool {
    let mut total = pseudo;
    total.add(bytes);
    total.checksum() == 0
}

/// Adds `bytes` as 16-bit words of the machine's order; an odd last byte is the
/// first of a word whose second is 0.
#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    // 32-bit halves are added, so that 64-bit sums have room for the carries of
    // 8 GiB; four sums do not wait for one another.
    let mut sums = [0_u64; 4];
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (sum, word) in sums.iter_mut().zip(block.chunks_exact(8)) {
            *sum += halves(word);
        }
    }
    let mut total: u64 = sums.iter().sum();
    let mut words = blocks.remainder().chunks_exact(8);
    for word in &mut words {
        total += halves(word);
    }
    let mut rest = words.remainder();
    if let Some((word, behind)) = rest.split_first_chunk() {
        total += u64::from(u32::from_ne_bytes(*word));
        rest = behind;
    }
    if let Some((word, behind)) = rest.split_first_chunk() {
        total += u64::from(u16::from_ne_bytes(*word));
        rest = behind;
    }
    if let Some(&last) = rest.first() {
        total += u64::from(u16::from_ne_bytes([last, 0]));
    }
    total
}

/// The sum of the two halves of 8 bytes.
#[inline]
fn halves(word: &[u8]) -> u64 {
    let word = word
        .first_chunk()
        .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    (word & 0xffff_ffff) + (word >> 32)
}

/// Brings the carries back in until 16 bits hold the sum.
#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "two folds by 16 bits of a 32-bit number leave at most 0xffff"
    )]
    {
        sum as u16
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, section 1, word for word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            sum += u32::from(word);
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 1071, section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&bytes).folded(), 0xddf2);
        assert_eq!(sum(&bytes).checksum(), !0xddf2);
    }

    #[test]
    fn an_ipv4_header_as_seen_on_the_wire() {
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert!(verify(Sum::new(), &header));
        let mut unsummed = header;
        unsummed[10..12].fill(0);
        assert_eq!(sum(&unsummed).checksum(), 0xb861);
        assert!(!verify(Sum::new(), &unsummed));
    }

    #[test]
    fn every_alignment_and_every_short_length() {
        let bytes: Vec<u8> = (0..300_u32).map(|n| (n * 151).to_le_bytes()[0]).collect();
        for start in 0..16 {
            for end in start..bytes.len() {
                let part = &bytes[start..end];
                assert_eq!(sum(part).folded(), reference(part), "{start}..{end}");
            }
        }
    }

    #[test]
    fn carries_are_not_lost_in_long_runs_of_ones() {
        for len in [65534, 65535, 65536, 65549, 1 << 20] {
            let ones = vec![0xff; len];
            assert_eq!(sum(&ones).folded(), reference(&ones), "{len}");
        }
        let mut sum = Sum::new();
        for _ in 0..100_000 {
            sum.add(&[0xff]);
        }
        assert_eq!(sum.folded(), 0xffff);
    }

    #[test]
    fn zero_and_ones_are_the_two_zeros() {
        assert_eq!(Sum::new().checksum(), 0xffff);
        assert_eq!(sum(&[0xff, 0xff]).checksum(), 0);
        assert_eq!(sum(&[0xff, 0xff]).nonzero_checksum(), 0xffff);
        assert_eq!(sum(&[0xff, 0xfe]).nonzero_checksum(), 1);
    }

    #[test]
    fn pseudo_headers_are_those_of_the_rfcs() {
        let (source, destination) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7));
        let mut header = Vec::new();
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend([0, 17, 0x12, 0x34]);
        assert_eq!(
            pseudo_v4(source, destination, 17, 0x1234).folded(),
            reference(&header)
        );

        let source: Ipv6Addr = "2001:db8::1:2".parse().unwrap();
        let destination: Ipv6Addr = "ff02::fb".parse().unwrap();
        let mut header = Vec::new();
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend([0, 1, 0x23, 0x45, 0, 0, 0, 6]);
        assert_eq!(
            pseudo_v6(source, destination, 6, 0x12345).folded(),
            reference(&header)
        );
    }

    proptest! {
        #[test]
        fn any_split_into_parts_gives_the_same_sum(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            mut cuts in proptest::collection::vec(0_usize..3000, 0..12),
        ) {
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let mut added = Sum::new();
            let mut appended = Sum::new();
            let mut from = 0;
            for to in cuts.into_iter().map(|cut| cut.min(bytes.len())) {
                added.add(&bytes[from..to]);
                appended.append(sum(&bytes[from..to]));
                from = to;
            }
            prop_assert_eq!(added.folded(), reference(&bytes));
            prop_assert_eq!(appended.folded(), reference(&bytes));
        }

        #[test]
        fn what_carries_its_checksum_verifies_and_a_changed_bit_shows(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..600),
            at in any::<proptest::sample::Index>(),
            bit in 0_u32..8,
        ) {
            bytes[2..4].fill(0);
            let checksum = sum(&bytes).checksum();
            bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
            prop_assert!(verify(Sum::new(), &bytes));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(!verify(Sum::new(), &bytes));
        }
    }
}
