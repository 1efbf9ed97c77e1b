//! IPv4 (RFC 791) and IPv6 with its extension headers (RFC 8200).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::{Sum, verify};
use super::{ParseError, be16, be32};

/// Protocol number: IPv6 hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Protocol number: TCP.
pub const TCP: u8 = 6;
/// Protocol number: UDP.
pub const UDP: u8 = 17;
/// Protocol number: IPv6 routing header.
pub const ROUTING: u8 = 43;
/// Protocol number: IPv6 fragment header.
pub const FRAGMENT: u8 = 44;
/// Protocol number: IPv6 destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

/// Length in bytes of an IPv4 header without options.
pub const V4_HEADER: usize = 20;
/// Length in bytes of the IPv6 header.
pub const V6_HEADER: usize = 40;
/// Length in bytes of the IPv6 fragment header.
pub const FRAGMENT_HEADER: usize = 8;
/// Most extension headers that are walked in one packet.
pub const MAX_EXTENSIONS: usize = 16;

/// The "don't fragment" bit of IPv4's flags and fragment offset.
pub const V4_DONT_FRAGMENT: u16 = 0x4000;
/// The "more fragments" bit of IPv4's flags and fragment offset.
pub const V4_MORE_FRAGMENTS: u16 = 0x2000;
/// The bits of IPv4's fragment offset, in units of 8 bytes.
pub const V4_OFFSET: u16 = 0x1fff;

/// View of an IPv4 packet, or of its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    header: &'a [u8; V4_HEADER],
    /// The header with its options.
    whole: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// A view of `bytes`, which begin with the IP header; what is behind the
    /// packet's total length is not part of it.
    ///
    /// # Errors
    /// Not version 4, a header that is cut short, or a header or total length
    /// that is shorter than a header.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let short = ParseError::Truncated("IPv4");
        let header = bytes.first_chunk::<V4_HEADER>().ok_or(short)?;
        if header[0] >> 4 != 4 {
            return Err(ParseError::Version);
        }
        let header_len = usize::from(header[0] & 15) * 4;
        let total_len = usize::from(be16(header, 2));
        if header_len < V4_HEADER || total_len < header_len {
            return Err(ParseError::Length("IPv4"));
        }
        let packet = bytes.get(..total_len).unwrap_or(bytes);
        let (whole, payload) = packet.split_at_checked(header_len).ok_or(short)?;
        Ok(Self {
            header,
            whole,
            payload,
        })
    }

    /// Length in bytes of the header with its options.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.whole.len()
    }

    /// Length in bytes of header and payload, as the header says.
    #[inline]
    pub fn total_len(&self) -> u16 {
        be16(self.header, 2)
    }

    /// What the fragments of one packet have in common.
    #[inline]
    pub fn identification(&self) -> u16 {
        be16(self.header, 4)
    }

    /// Flags and fragment offset.
    #[inline]
    pub fn fragmentation(&self) -> u16 {
        be16(self.header, 6)
    }

    /// This is one of several fragments.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.fragmentation() & (V4_MORE_FRAGMENTS | V4_OFFSET) != 0
    }

    /// Hops that are left.
    #[inline]
    pub fn time_to_live(&self) -> u8 {
        self.header[8]
    }

    /// Protocol number of the payload.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// The header's checksum field.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.header, 10)
    }

    /// The header is as it was sent.
    #[inline]
    pub fn verify_checksum(&self) -> bool {
        verify(Sum::new(), self.whole)
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        be32(self.header, 12).into()
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        be32(self.header, 16).into()
    }

    /// The options, up to 40 bytes.
    #[inline]
    pub fn options(&self) -> &'a [u8] {
        self.whole.get(V4_HEADER..).unwrap_or_default()
    }

    /// What is there behind the header.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// View of an IPv6 packet, or of its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    header: &'a [u8; V6_HEADER],
    payload: &'a [u8],
}

/// An IPv6 fragment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where this fragment's bytes belong, in bytes.
    pub offset: u16,
    /// This is not the last fragment.
    pub more: bool,
    /// What the fragments of one packet have in common.
    pub identification: u32,
}

/// What stands behind the extension headers of an IPv6 packet.
#[derive(Clone, Copy, Debug)]
pub struct UpperLayer<'a> {
    /// Its protocol number. In a fragment other than the first, what its
    /// payload begins with is not this protocol's header.
    pub protocol: u8,
    /// Where the byte that says so stands, from the IPv6 header on.
    pub protocol_at: usize,
    /// Length in bytes of the IPv6 header and the extension headers.
    pub header_len: usize,
    /// The destination, when a routing header still has the packet go
    /// elsewhere first.
    pub final_destination: Ipv6Addr,
    /// The fragment header, if there is one.
    pub fragment: Option<Fragment>,
    /// What is there of it.
    pub payload: &'a [u8],
}

impl<'a> Ipv6<'a> {
    /// A view of `bytes`, which begin with the IP header; what is behind the
    /// packet's payload length is not part of it.
    ///
    /// # Errors
    /// Not version 6, or a header that is cut short.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, rest) = bytes
            .split_first_chunk()
            .ok_or(ParseError::Truncated("IPv6"))?;
        if header[0] >> 4 != 6 {
            return Err(ParseError::Version);
        }
        let payload = rest.get(..usize::from(be16(header, 4))).unwrap_or(rest);
        Ok(Self { header, payload })
    }

    /// Length in bytes of what follows the 40 bytes of header, extension headers
    /// included, as the header says; 0 in a jumbogram (RFC 2675).
    #[inline]
    pub fn payload_len(&self) -> u16 {
        be16(self.header, 4)
    }

    /// Protocol number of what follows the 40 bytes of header.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.header[6]
    }

    /// Hops that are left.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        address(self.header, 8)
    }

    /// Destination address, that of the next router when there is a routing
    /// header.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        address(self.header, 24)
    }

    /// What is there behind the 40 bytes of header.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Walks over hop-by-hop, destination, routing and fragment headers, in any
    /// order (RFC 8200, section 4.1).
    ///
    /// # Errors
    /// A header that is cut short, or more than [`MAX_EXTENSIONS`].
    #[inline]
    pub fn upper_layer(&self) -> Result<UpperLayer<'a>, ParseError> {
        let mut upper = UpperLayer {
            protocol: self.next_header(),
            protocol_at: 6,
            header_len: V6_HEADER,
            final_destination: self.destination(),
            fragment: None,
            payload: self.payload,
        };
        for _ in 0..=MAX_EXTENSIONS {
            if !upper.step()? {
                return Ok(upper);
            }
        }
        Err(ParseError::TooManyExtensions)
    }
}

impl UpperLayer<'_> {
    /// Goes on by one extension header; `false` when there is none.
    fn step(&mut self) -> Result<bool, ParseError> {
        const SHORT: ParseError = ParseError::Truncated("IPv6 extension");
        let kind = self.protocol;
        if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
            || self.fragment.is_some_and(|fragment| fragment.offset != 0)
        {
            return Ok(false);
        }
        let start = self.payload.first_chunk::<8>().ok_or(SHORT)?;
        let len = match kind {
            FRAGMENT => FRAGMENT_HEADER,
            _ => (usize::from(start[1]) + 1) * 8,
        };
        let (header, payload) = self.payload.split_at_checked(len).ok_or(SHORT)?;
        match kind {
            FRAGMENT => {
                self.fragment = Some(Fragment {
                    offset: be16(start, 2) & !7,
                    more: start[3] & 1 != 0,
                    identification: be32(start, 4),
                });
            }
            ROUTING => {
                if let Some(destination) = last_destination(header) {
                    self.final_destination = destination;
                }
            }
            _ => {}
        }
        self.protocol = start[0];
        self.protocol_at = self.header_len;
        self.header_len += len;
        self.payload = payload;
        Ok(true)
    }
}

/// Where a routing header sends the packet in the end; `None` when it is there
/// already, and for types that are not known.
fn last_destination(routing: &[u8]) -> Option<Ipv6Addr> {
    let [_, _, kind, segments_left, ..] = *routing else {
        return None;
    };
    let at = match kind {
        _ if segments_left == 0 => return None,
        // A source route (deprecated by RFC 5095) lists the last address last.
        0 => routing.len().checked_sub(16)?,
        // The home address of mobile IPv6 (RFC 6275, section 6.4) is the only
        // one; segment routing (RFC 8754, section 2) lists the last first.
        2 | 4 => 8,
        _ => return None,
    };
    let octets = routing.get(at..)?.first_chunk::<16>()?;
    Some(Ipv6Addr::from(*octets))
}

/// The address at `at` of an IPv6 header.
#[inline]
fn address(header: &[u8; V6_HEADER], at: usize) -> Ipv6Addr {
    let octets = header.get(at..).and_then(|rest| rest.first_chunk::<16>());
    octets.map_or(Ipv6Addr::UNSPECIFIED, |octets| Ipv6Addr::from(*octets))
}

#[cfg(test)]
mod tests;
