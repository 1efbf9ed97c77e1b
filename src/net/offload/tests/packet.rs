//! Packets as a driver hands them over to be segmented, written byte by byte
//! from the RFCs and independently of the views under test, and a check of
//! finished frames by etherparse.

use etherparse::{NetSlice, SlicedPacket, TransportSlice, UdpSlice};
use proptest::prelude::*;

use crate::net::transport::tcp_flags;
use crate::virtio::net_header::{
    F_NEEDS_CSUM, GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, NetHeader,
};

pub const SOURCE_V4: [u8; 4] = [192, 0, 2, 1];
pub const DESTINATION_V4: [u8; 4] = [198, 51, 100, 77];
pub const SOURCE_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
pub const DESTINATION_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0xab, 2];

#[derive(Clone, Debug)]
pub struct Packet {
    pub tags: usize,
    pub v6: bool,
    pub udp: bool,
    /// UDP is to become datagrams, not fragments.
    pub datagrams: bool,
    /// IPv4 options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: protocol number, and length in units of 8 bytes
    /// beyond the first 8.
    pub extensions: Vec<(u8, u8)>,
    /// TCP options in units of 4 bytes.
    pub tcp_options: usize,
    pub flags: u8,
    pub sequence: u32,
    pub identification: u16,
    pub dont_fragment: bool,
    pub payload: usize,
}

impl Packet {
    pub fn tcp(v6: bool, payload: usize) -> Self {
        Self {
            tags: 0,
            v6,
            udp: false,
            datagrams: false,
            options: Vec::new(),
            extensions: Vec::new(),
            tcp_options: 3,
            flags: tcp_flags::ACK | tcp_flags::PSH,
            sequence: 0x0102_0304,
            identification: 0x1111,
            dont_fragment: !v6,
            payload,
        }
    }

    pub fn udp(v6: bool, payload: usize) -> Self {
        Self {
            udp: true,
            ..Self::tcp(v6, payload)
        }
    }

    /// What several datagrams make together.
    pub fn datagrams(v6: bool, payload: usize) -> Self {
        Self {
            datagrams: true,
            ..Self::udp(v6, payload)
        }
    }

    /// Where the IP header begins.
    pub fn network(&self) -> usize {
        14 + 4 * self.tags
    }

    /// Where the transport header begins.
    pub fn transport(&self) -> usize {
        let extensions = self.extensions.iter();
        self.network()
            + match self.v6 {
                true => {
                    40 + extensions
                        .map(|&(_, units)| 8 + 8 * usize::from(units))
                        .sum::<usize>()
                }
                false => 20 + self.options.len(),
            }
    }

    /// Where the payload begins.
    pub fn headers(&self) -> usize {
        self.transport()
            + if self.udp {
                8
            } else {
                20 + 4 * self.tcp_options
            }
    }

    pub fn payload_bytes(&self) -> Vec<u8> {
        (0..self.payload)
            .map(|n| (n ^ (n >> 8).wrapping_mul(37)) as u8)
            .collect()
    }

    /// The header that a driver writes.
    pub fn header(&self, gso_size: u16) -> NetHeader {
        let ecn = if self.flags & tcp_flags::CWR != 0 {
            GSO_ECN
        } else {
            0
        };
        NetHeader {
            flags: F_NEEDS_CSUM,
            gso_type: match (self.udp, self.v6) {
                (true, _) if self.datagrams => GSO_UDP_L4,
                (true, _) => GSO_UDP,
                (false, true) => GSO_TCPV6 | ecn,
                (false, false) => GSO_TCPV4 | ecn,
            },
            hdr_len: self.headers() as u16,
            gso_size,
            csum_start: self.transport() as u16,
            csum_offset: if self.udp { 6 } else { 16 },
            num_buffers: 0,
        }
    }

    /// The frame with the sum of the pseudo header in its checksum field.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0x58, 0x9c, 0xfc, 0, 0, 2, 0x58, 0x9c, 0xfc, 0, 0, 1];
        match self.tags {
            0 => {}
            1 => frame.extend([0x81, 0x00, 0x20, 0x05]),
            _ => frame.extend([0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x20, 0x05]),
        }
        frame.extend(if self.v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        let len = self.headers() - self.transport() + self.payload;
        if self.v6 {
            self.push_v6(&mut frame, len);
        } else {
            self.push_v4(&mut frame, len);
        }
        let pseudo = self.pseudo(len).to_be_bytes();
        if self.udp {
            frame.extend([0x30, 0x39, 0x00, 0x35]);
            frame.extend((len as u16).to_be_bytes());
        } else {
            frame.extend([0x30, 0x39, 0x01, 0xbb]);
            frame.extend(self.sequence.to_be_bytes());
            frame.extend([
                9,
                8,
                7,
                6,
                (5 + self.tcp_options as u8) << 4,
                self.flags,
                1,
                0,
            ]);
        }
        frame.extend(pseudo);
        if !self.udp {
            frame.extend([0, 0]);
            frame.extend([1, 1, 1, 1].repeat(self.tcp_options));
        }
        assert_eq!(frame.len(), self.headers());
        frame.extend(self.payload_bytes());
        frame
    }

    fn protocol(&self) -> u8 {
        if self.udp { 17 } else { 6 }
    }

    fn push_v4(&self, frame: &mut Vec<u8>, len: usize) {
        let header_len = 20 + self.options.len();
        frame.extend([0x40 | (header_len / 4) as u8, 0]);
        frame.extend(((header_len + len) as u16).to_be_bytes());
        frame.extend(self.identification.to_be_bytes());
        frame.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
        frame.extend([64, self.protocol(), 0, 0]);
        frame.extend(SOURCE_V4);
        frame.extend(DESTINATION_V4);
        frame.extend(&self.options);
        let sum = naive_sum(&frame[self.network()..]);
        let at = self.network() + 10;
        frame[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
    }

    fn push_v6(&self, frame: &mut Vec<u8>, len: usize) {
        let kinds = self.extensions.iter().map(|&(kind, _)| kind);
        let mut next = kinds.chain([self.protocol()]);
        frame.extend([0x60, 1, 2, 3]);
        frame.extend(((self.transport() - self.network() - 40 + len) as u16).to_be_bytes());
        frame.extend([next.next().unwrap(), 64]);
        frame.extend(SOURCE_V6);
        frame.extend(DESTINATION_V6);
        for &(kind, units) in &self.extensions {
            let rest = 6 + 8 * usize::from(units);
            frame.extend([next.next().unwrap(), units]);
            // A segment routing header that has arrived, or padding.
            let padding = (rest - 2) as u8;
            frame.extend(if kind == 43 { [4, 0] } else { [1, padding] });
            frame.resize(frame.len() + rest - 2, 0);
        }
    }

    /// What a driver puts into the checksum field.
    fn pseudo(&self, len: usize) -> u16 {
        let mut header = if self.v6 {
            [SOURCE_V6, DESTINATION_V6].concat()
        } else {
            [SOURCE_V4, DESTINATION_V4].concat()
        };
        header.extend((len as u32).to_be_bytes());
        header.extend([0, self.protocol()]);
        naive_sum(&header)
    }
}

/// RFC 1071, section 1.
pub fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Options that belong into each fragment or not, and padding.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        Just(vec![0x01]),
        Just(vec![0x94, 4, 0, 0]),
        Just(vec![0x07, 7, 4, 0, 0, 0, 0]),
        Just(vec![0x44, 8, 5, 0, 0, 0, 0, 0]),
    ];
    proptest::collection::vec(option, 0..5).prop_map(|options| {
        let mut options = options.concat();
        options.resize(options.len().div_ceil(4) * 4, 0);
        options
    })
}

/// The extension headers that RFC 8200, section 4.1 lists, in its order.
fn extensions() -> impl Strategy<Value = Vec<(u8, u8)>> {
    let maybe = |kind: u8, units: std::ops::Range<u8>| {
        proptest::option::of((Just(kind), units)).prop_map(Vec::from_iter)
    };
    (
        maybe(0, 0..3),
        maybe(60, 0..3),
        maybe(43, 0..3),
        maybe(60, 0..2),
    )
        .prop_map(|(hops, early, routing, late)| {
            // Destination options twice only around a routing header.
            let late = if routing.is_empty() { Vec::new() } else { late };
            [hops, early, routing, late].concat()
        })
}

/// Any packet that can be segmented, with up to `payload` bytes.
pub fn packets(payload: std::ops::Range<usize>) -> impl Strategy<Value = Packet> {
    let headers = (
        0_usize..3,
        any::<bool>(),
        prop_oneof![
            Just((false, false)),
            Just((true, false)),
            Just((true, true))
        ],
        options(),
        extensions(),
    );
    let fields = (
        0_usize..=10,
        any::<u8>(),
        any::<u32>(),
        any::<u16>(),
        any::<bool>(),
    );
    (headers, fields, payload).prop_map(|(headers, fields, payload)| {
        let (tags, v6, (udp, datagrams), options, extensions) = headers;
        let (tcp_options, flags, sequence, identification, dont_fragment) = fields;
        Packet {
            tags,
            v6,
            udp,
            datagrams,
            options,
            extensions,
            tcp_options,
            flags,
            sequence,
            identification,
            dont_fragment,
            payload,
        }
    })
}

/// What etherparse finds in a frame that must be right in every length and
/// checksum.
pub fn parse(frame: &[u8]) -> SlicedPacket<'_> {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let ip_payload = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            ip.payload().payload
        }
        NetSlice::Ipv6(ip) => ip.payload().payload,
        NetSlice::Arp(_) => unreachable!(),
    };
    // Nothing may be behind the packet.
    assert_eq!(ip_payload.as_ptr_range().end, frame.as_ptr_range().end);
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let checksum = match packet.net.as_ref().unwrap() {
                NetSlice::Ipv4(ip) => {
                    let ip = ip.header();
                    tcp.calc_checksum_ipv4(ip.source(), ip.destination())
                }
                NetSlice::Ipv6(ip) => {
                    let ip = ip.header();
                    tcp.calc_checksum_ipv6(ip.source(), ip.destination())
                }
                NetSlice::Arp(_) => unreachable!(),
            };
            assert_eq!(tcp.checksum(), checksum.unwrap());
        }
        Some(TransportSlice::Udp(udp)) => check_udp(packet.net.as_ref().unwrap(), udp),
        _ => {}
    }
    packet
}

/// The datagram's length and checksum are right.
pub fn check_udp(net: &NetSlice<'_>, udp: &UdpSlice<'_>) {
    let header = udp.to_header();
    let checksum = match net {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header();
            header.calc_checksum_ipv4_raw(ip.source(), ip.destination(), udp.payload())
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header();
            header.calc_checksum_ipv6_raw(ip.source(), ip.destination(), udp.payload())
        }
        NetSlice::Arp(_) => unreachable!(),
    };
    assert_eq!(header.checksum, checksum.unwrap());
    assert_eq!(usize::from(header.length), udp.payload().len() + 8);
}
