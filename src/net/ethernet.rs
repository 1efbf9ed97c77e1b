//! Ethernet II frames with up to two VLAN tags (IEEE 802.3, 802.1Q, 802.1ad),
//! and MAC addresses.

use std::fmt;
use std::str::FromStr;

use super::frame::ETHER_HEADER;
use super::{ParseError, be16};

/// EtherType of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const TYPE_ARP: u16 = 0x0806;
/// EtherType of reverse ARP (RFC 903).
pub const TYPE_RARP: u16 = 0x8035;
/// EtherType of a VLAN tag (802.1Q).
pub const TYPE_VLAN: u16 = 0x8100;
/// EtherType of IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;
/// EtherType of a service VLAN tag (802.1ad).
pub const TYPE_SERVICE_VLAN: u16 = 0x88a8;

/// Length in bytes of a VLAN tag.
pub const TAG_LEN: usize = 4;
/// Most VLAN tags that are understood in one frame.
pub const MAX_TAGS: usize = 2;

/// A MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of every station.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// For a group of stations, the broadcast address included.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// For every station.
    #[inline]
    pub const fn is_broadcast(self) -> bool {
        matches!(self.0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
    }
}

impl From<[u8; 6]> for Mac {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Why a text is not a MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Another number of octets than six.
    #[error("a MAC address has 6 octets separated by ':', not {0}")]
    Count(usize),
    /// An octet, given here, that is not one.
    #[error("'{0}' is not an octet of a MAC address, which is one or two hexadecimal digits")]
    Octet(String),
}

impl FromStr for Mac {
    type Err = MacError;

    /// Six octets of one or two hexadecimal digits with colons between them, as
    /// ether_aton(3) takes them.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let count = text.split(':').count();
        if count != 6 {
            return Err(MacError::Count(count));
        }
        let mut octets = [0; 6];
        for (octet, digits) in octets.iter_mut().zip(text.split(':')) {
            // from_str_radix alone would take a sign.
            let plain = (1..=2).contains(&digits.len())
                && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            *octet = plain
                .then(|| u8::from_str_radix(digits, 16).ok())
                .flatten()
                .ok_or_else(|| MacError::Octet(digits.to_owned()))?;
        }
        Ok(Self(octets))
    }
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// [`TYPE_VLAN`] or [`TYPE_SERVICE_VLAN`].
    pub protocol: u16,
    /// Priority (3 bits), drop-eligible bit, VLAN identifier (12 bits).
    pub control: u16,
}

impl VlanTag {
    /// The VLAN identifier, 0 to 4095.
    #[inline]
    pub const fn id(self) -> u16 {
        self.control & 0x0fff
    }
}

/// View of an Ethernet frame, or of its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<'a> {
    header: &'a [u8; ETHER_HEADER],
    tags: [Option<VlanTag>; MAX_TAGS],
    ether_type: u16,
    payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    /// A view of `bytes`, which begin with the destination address.
    ///
    /// A third VLAN tag is not looked into: it is the payload, of EtherType
    /// [`TYPE_VLAN`] or [`TYPE_SERVICE_VLAN`].
    ///
    /// # Errors
    /// The header or a tag is cut short.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, mut payload) = bytes
            .split_first_chunk()
            .ok_or(ParseError::Truncated("Ethernet"))?;
        let mut ether_type = be16(header, 12);
        let mut tags = [None; MAX_TAGS];
        for tag in &mut tags {
            if !matches!(ether_type, TYPE_VLAN | TYPE_SERVICE_VLAN) {
                break;
            }
            let (raw, rest) = payload
                .split_first_chunk::<TAG_LEN>()
                .ok_or(ParseError::Truncated("VLAN"))?;
            *tag = Some(VlanTag {
                protocol: ether_type,
                control: be16(raw, 0),
            });
            ether_type = be16(raw, 2);
            payload = rest;
        }
        Ok(Self {
            header,
            tags,
            ether_type,
            payload,
        })
    }

    /// Who the frame is for.
    #[inline]
    pub fn destination(&self) -> Mac {
        let [a, b, c, d, e, f, ..] = *self.header;
        Mac([a, b, c, d, e, f])
    }

    /// Who sent the frame.
    #[inline]
    pub fn source(&self) -> Mac {
        let [.., a, b, c, d, e, f, _, _] = *self.header;
        Mac([a, b, c, d, e, f])
    }

    /// The VLAN tags, outermost first.
    #[inline]
    pub fn tags(&self) -> impl Iterator<Item = VlanTag> + '_ {
        self.tags.iter().flatten().copied()
    }

    /// The EtherType behind the tags; below 1536 it is an 802.3 length.
    #[inline]
    pub fn ether_type(&self) -> u16 {
        self.ether_type
    }

    /// Length in bytes of the header with its tags.
    #[inline]
    pub fn header_len(&self) -> usize {
        ETHER_HEADER + TAG_LEN * self.tags().count()
    }

    /// What is there behind the header and the tags.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text_round_trip() {
        for (text, octets) in [
            ("58:9c:fc:0a:0b:0c", [0x58, 0x9c, 0xfc, 0x0a, 0x0b, 0x0c]),
            ("0:1:2:a:B:FF", [0, 1, 2, 10, 11, 255]),
        ] {
            let mac: Mac = text.parse().unwrap();
            assert_eq!(mac, Mac(octets));
            assert_eq!(mac.to_string().parse(), Ok(mac));
        }
        assert_eq!(Mac([0, 1, 2, 10, 11, 255]).to_string(), "00:01:02:0a:0b:ff");
    }

    #[test]
    fn wrong_mac_texts_name_what_is_wrong() {
        let octet = |text: &str| MacError::Octet(text.to_owned());
        for (text, error) in [
            ("", MacError::Count(1)),
            ("58:9c:fc:0a:0b", MacError::Count(5)),
            ("58:9c:fc:0a:0b:0c:0d", MacError::Count(7)),
            ("58-9c-fc-0a-0b-0c", MacError::Count(1)),
            ("58:9c:fc:0a:0b:", octet("")),
            ("58:9c::0a:0b:0c", octet("")),
            ("58:9c:fc:0a:0b:0cc", octet("0cc")),
            ("58:9c:fc:0a:0b:0g", octet("0g")),
            ("58:9c:fc:0a:0b:+1", octet("+1")),
            ("58:9c:fc:0a:0b:é", octet("é")),
            (" 58:9c:fc:0a:0b:0c", octet(" 58")),
        ] {
            assert_eq!(text.parse::<Mac>(), Err(error), "{text}");
        }
        // What to write instead is said by who names the option.
        let message = "1:2".parse::<Mac>().unwrap_err().to_string();
        assert!(message.ends_with("separated by ':', not 2"), "{message}");
    }

    #[test]
    fn group_addresses() {
        assert!(Mac::BROADCAST.is_multicast() && Mac::BROADCAST.is_broadcast());
        let group = Mac([0x33, 0x33, 0, 0, 0, 1]);
        assert!(group.is_multicast() && !group.is_broadcast());
        let station = Mac([0x58, 0x9c, 0xfc, 0xff, 0xff, 0xff]);
        assert!(!station.is_multicast() && !station.is_broadcast());
    }

    #[test]
    fn fields_of_an_untagged_frame() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x86, 0xdd, 0x60];
        let frame = Ethernet::new_checked(&bytes).unwrap();
        assert_eq!(frame.destination(), Mac([1, 2, 3, 4, 5, 6]));
        assert_eq!(frame.source(), Mac([7, 8, 9, 10, 11, 12]));
        assert_eq!(frame.ether_type(), TYPE_IPV6);
        assert_eq!(frame.tags().count(), 0);
        assert_eq!(frame.header_len(), 14);
        assert_eq!(frame.payload(), [0x60]);
        for len in 0..14 {
            let error = Ethernet::new_checked(&bytes[..len]).unwrap_err();
            assert_eq!(error, ParseError::Truncated("Ethernet"));
        }
    }

    #[test]
    fn two_tags_are_understood_and_a_third_is_payload() {
        let mut bytes = vec![0; 12];
        bytes.extend([0x88, 0xa8, 0x20, 0x64, 0x81, 0x00, 0xff, 0xff]);
        bytes.extend([0x81, 0x00, 0x00, 0x01, 0x08, 0x00]);
        let frame = Ethernet::new_checked(&bytes).unwrap();
        let tags: Vec<_> = frame.tags().collect();
        assert_eq!(tags.len(), 2);
        assert_eq!((tags[0].protocol, tags[0].id()), (TYPE_SERVICE_VLAN, 100));
        assert_eq!((tags[1].protocol, tags[1].id()), (TYPE_VLAN, 4095));
        assert_eq!(frame.ether_type(), TYPE_VLAN);
        assert_eq!(frame.header_len(), 22);
        assert_eq!(frame.payload(), [0, 1, 8, 0]);
        for len in 14..22 {
            let error = Ethernet::new_checked(&bytes[..len]).unwrap_err();
            assert_eq!(error, ParseError::Truncated("VLAN"));
        }
    }
}
