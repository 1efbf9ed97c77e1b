//! Where the headers of a frame that is to be segmented are.

use super::super::ParseError;
use super::super::checksum::{Sum, pseudo_v4, pseudo_v6};
use super::super::ethernet::{Ethernet, TYPE_IPV4, TYPE_IPV6};
use super::super::ip::{self, Ipv4, Ipv6, V6_HEADER};
use super::super::transport::{TCP_CHECKSUM, Tcp, UDP_CHECKSUM, UDP_HEADER, Udp, tcp_flags};
use super::{MAX_SEGMENTS, OffloadError};
use crate::virtio::net_header::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4};
use crate::virtio::spec::net;

/// The kinds of segmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gso {
    TcpV4,
    TcpV6,
    /// Fragmentation of a UDP datagram over IPv4 or IPv6.
    Udp,
    /// UDP datagrams over IPv4 or IPv6 that are to have a header each.
    UdpL4,
}

impl Gso {
    /// The kind that a `gso_type` other than `GSO_NONE` means.
    pub(super) fn from_type(gso_type: u8) -> Option<Self> {
        match gso_type {
            GSO_UDP => Some(Self::Udp),
            GSO_UDP_L4 => Some(Self::UdpL4),
            _ => match gso_type & !GSO_ECN {
                GSO_TCPV4 => Some(Self::TcpV4),
                GSO_TCPV6 => Some(Self::TcpV6),
                _ => None,
            },
        }
    }

    /// The feature bit that lets a driver send it.
    pub(super) fn host_feature(self) -> u64 {
        match self {
            Self::TcpV4 => net::F_HOST_TSO4,
            Self::TcpV6 => net::F_HOST_TSO6,
            Self::Udp => net::F_HOST_UFO,
            Self::UdpL4 => net::F_HOST_USO,
        }
    }

    /// The feature bits that let a driver receive it, whatever is in the frame.
    pub(super) fn guest_features(self) -> u64 {
        match self {
            Self::TcpV4 => net::F_GUEST_TSO4,
            Self::TcpV6 => net::F_GUEST_TSO6,
            Self::Udp => net::F_GUEST_UFO,
            Self::UdpL4 => net::GUEST_USO,
        }
    }
}

/// What only one of the IP versions has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Network {
    V4 {
        identification: u16,
    },
    V6 {
        /// Where the byte stands that names the transport protocol.
        protocol_at: usize,
    },
}

/// The headers of a whole packet of the protocol that `gso` says. All offsets
/// count from the frame's first byte and are in order, at most `super::PREFIX`,
/// and within the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) gso: Gso,
    pub(super) network: usize,
    pub(super) version: Network,
    pub(super) transport: usize,
    /// The end of all headers.
    pub(super) payload: usize,
    /// The frame's length.
    pub(super) len: usize,
    /// The sum of the pseudo header with a length of 0.
    pub(super) pseudo: Sum,
    /// TCP's flags.
    pub(super) flags: u8,
    /// TCP's sequence number.
    pub(super) sequence: u32,
    /// A number that packets from this source to this destination share and
    /// others hardly do.
    pub(super) addresses: (u128, u128),
}

impl Layout {
    /// Parses `prefix`, the first bytes of a frame of `len` bytes.
    pub(super) fn of(gso: Gso, prefix: &[u8], len: usize) -> Result<Self, OffloadError> {
        let ethernet = Ethernet::new_checked(prefix)?;
        let network = ethernet.header_len();
        let packet = ethernet.payload();
        let ip_len = len.checked_sub(network).ok_or(OffloadError::Length)?;
        let ip = match (gso, ethernet.ether_type()) {
            (Gso::TcpV4 | Gso::Udp | Gso::UdpL4, TYPE_IPV4) => parse_v4(packet, ip_len)?,
            (Gso::TcpV6 | Gso::Udp | Gso::UdpL4, TYPE_IPV6) => parse_v6(packet, ip_len)?,
            _ => return Err(OffloadError::WrongProtocol),
        };
        let transport = network + ip.header_len;
        let mut layout = Self {
            gso,
            network,
            version: ip.version,
            transport,
            payload: transport,
            len,
            pseudo: ip.pseudo,
            flags: 0,
            sequence: 0,
            addresses: ip.addresses,
        };
        if let Network::V6 { protocol_at } = &mut layout.version {
            *protocol_at += network;
        }
        match (gso, ip.protocol) {
            (Gso::TcpV4 | Gso::TcpV6, ip::TCP) => {
                let tcp = Tcp::new_checked(ip.payload)?;
                layout.flags = tcp.flags();
                layout.sequence = tcp.sequence();
                layout.payload += tcp.header_len();
            }
            (Gso::Udp | Gso::UdpL4, ip::UDP) => {
                let udp = Udp::new_checked(ip.payload)?;
                if usize::from(udp.len()) != len - transport {
                    return Err(OffloadError::Length);
                }
                layout.payload += UDP_HEADER;
            }
            _ => return Err(OffloadError::WrongProtocol),
        }
        Ok(layout)
    }

    /// Where the transport's checksum stands.
    pub(super) fn checksum_at(&self) -> usize {
        self.transport
            + match self.gso {
                Gso::TcpV4 | Gso::TcpV6 => TCP_CHECKSUM,
                Gso::Udp | Gso::UdpL4 => UDP_CHECKSUM,
            }
    }

    /// The `gso_type` for this packet.
    pub(super) fn gso_type(&self) -> u8 {
        let ecn = if self.flags & tcp_flags::CWR == 0 {
            0
        } else {
            GSO_ECN
        };
        match self.gso {
            Gso::TcpV4 => GSO_TCPV4 | ecn,
            Gso::TcpV6 => GSO_TCPV6 | ecn,
            Gso::Udp => GSO_UDP,
            Gso::UdpL4 => GSO_UDP_L4,
        }
    }

    /// Where that begins which is cut into segments: the payload, but UDP's
    /// header too where it is in the first fragment only.
    pub(super) fn divided(&self) -> usize {
        match self.gso {
            Gso::TcpV4 | Gso::TcpV6 | Gso::UdpL4 => self.payload,
            Gso::Udp => self.transport,
        }
    }

    /// The frame is not longer than one segment of `size` bytes.
    pub(super) fn fits(&self, size: u16) -> bool {
        self.len - self.divided() <= usize::from(size)
    }

    /// How many bytes to put into each segment when `gso_size` is asked for.
    pub(super) fn segment_size(&self, gso_size: u16) -> Result<u16, OffloadError> {
        let size = match self.gso {
            // All fragments but the last are multiples of 8 bytes (RFC 791,
            // RFC 8200). A datagram that needs no fragments needs no rounding.
            Gso::Udp if !self.fits(gso_size) => gso_size & !7,
            _ => gso_size,
        };
        if size == 0 {
            return Err(OffloadError::GsoSize);
        }
        let divided = self.len - self.divided();
        if divided.div_ceil(usize::from(size)) > MAX_SEGMENTS {
            return Err(OffloadError::TooManySegments);
        }
        Ok(size)
    }
}

/// What an IP header says that both versions have.
struct Packet<'a> {
    version: Network,
    header_len: usize,
    protocol: u8,
    pseudo: Sum,
    addresses: (u128, u128),
    payload: &'a [u8],
}

/// Parses a whole IPv4 packet of `len` bytes.
fn parse_v4(bytes: &[u8], len: usize) -> Result<Packet<'_>, OffloadError> {
    let ip = Ipv4::new_checked(bytes)?;
    if usize::from(ip.total_len()) != len {
        return Err(OffloadError::Length);
    }
    if ip.is_fragment() {
        return Err(OffloadError::IsFragment);
    }
    let (source, destination) = (ip.source(), ip.destination());
    Ok(Packet {
        version: Network::V4 {
            identification: ip.identification(),
        },
        header_len: ip.header_len(),
        protocol: ip.protocol(),
        pseudo: pseudo_v4(source, destination, ip.protocol(), 0),
        addresses: (
            u128::from(source.to_bits()),
            u128::from(destination.to_bits()),
        ),
        payload: ip.payload(),
    })
}

/// Parses a whole IPv6 packet of `len` bytes. `protocol_at` counts from the
/// packet's first byte.
fn parse_v6(bytes: &[u8], len: usize) -> Result<Packet<'_>, OffloadError> {
    let ip = Ipv6::new_checked(bytes)?;
    if usize::from(ip.payload_len()) + V6_HEADER != len {
        return Err(OffloadError::Length);
    }
    let upper = ip.upper_layer()?;
    if upper.fragment.is_some() {
        return Err(OffloadError::IsFragment);
    }
    let (source, destination) = (ip.source(), upper.final_destination);
    Ok(Packet {
        version: Network::V6 {
            protocol_at: upper.protocol_at,
        },
        header_len: upper.header_len,
        protocol: upper.protocol,
        pseudo: pseudo_v6(source, destination, upper.protocol, 0),
        addresses: (source.to_bits(), destination.to_bits()),
        payload: upper.payload,
    })
}

impl From<ParseError> for OffloadError {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Truncated(_) => Self::HeadersCutShort,
            ParseError::Version | ParseError::Length(_) | ParseError::TooManyExtensions => {
                Self::Malformed
            }
        }
    }
}
