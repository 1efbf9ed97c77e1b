//! Frames for the tests: made with the checksum left open or done, and judged
//! by code that shares nothing with what is tested.

use vtnetd::virtio::net_header::{F_NEEDS_CSUM, NetHeader};

pub const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// For local experiments (IEEE 802, clause 9.2.3): no stack takes it.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const ETHER: usize = 14;

/// A frame of `len` bytes whose every byte depends on `seed`.
pub fn pattern(to: [u8; 6], from: [u8; 6], seed: u32, len: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(len);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&EXPERIMENT);
    frame.extend(noise(seed).take(len - ETHER));
    frame
}

/// Bytes that repeat after very long only.
pub fn noise(seed: u32) -> impl Iterator<Item = u8> {
    let mut state = u64::from(seed) << 1 | 1;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    })
}

/// The ones' complement sum of 16-bit words, folded (RFC 1071).
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Writes the checksum of `bytes` at `at` in them.
pub fn fill_in(bytes: &mut [u8], at: usize) {
    bytes[at..at + 2].fill(0);
    let checksum = !sum(&[bytes]);
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Completes a checksum that [`open`] left open.
pub fn complete(header: &NetHeader, frame: &mut [u8]) {
    let start = usize::from(header.csum_start);
    let at = start + usize::from(header.csum_offset);
    let checksum = !sum(&[&frame[start..]]);
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ip {
    V4,
    V6,
}

impl Ip {
    pub fn header(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    /// 10.0.0.2 to 10.0.0.1, or fd00::2 to fd00::1.
    fn make(self, protocol: u8, len: usize) -> Vec<u8> {
        match self {
            Self::V4 => {
                let total = (20 + len) as u16;
                let mut ip = vec![0x45, 0];
                ip.extend_from_slice(&total.to_be_bytes());
                ip.extend_from_slice(&[0x12, 0x34, 0, 0, 64, protocol, 0, 0]);
                ip.extend_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
                let checksum = !sum(&[&ip]);
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                ip
            }
            Self::V6 => {
                let mut ip = vec![0x60, 0, 0, 0];
                ip.extend_from_slice(&(len as u16).to_be_bytes());
                ip.extend_from_slice(&[protocol, 64]);
                for last in [2, 1] {
                    ip.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0]);
                    ip.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, last]);
                }
                ip
            }
        }
    }
}

fn pseudo(ip: &[u8], protocol: u8, len: usize) -> u16 {
    let addresses = match ip[0] >> 4 {
        4 => &ip[12..20],
        _ => &ip[8..40],
    };
    let len = (len as u32).to_be_bytes();
    sum(&[addresses, &len, &[0, protocol]])
}

/// A TCP or UDP packet over `ip`, its checksum left open, as a sender with
/// offloads makes it; and what its header says of that.
pub fn open(ip: Ip, protocol: u8, port: u16, payload: &[u8]) -> (NetHeader, Vec<u8>) {
    let mut transport = port.to_be_bytes().to_vec();
    transport.extend_from_slice(&4444u16.to_be_bytes());
    let checksum = if protocol == TCP {
        transport.extend_from_slice(&1000u32.to_be_bytes());
        transport.extend_from_slice(&2000u32.to_be_bytes());
        // 20 bytes; ACK and PSH.
        transport.extend_from_slice(&[0x50, 0x18, 0x40, 0, 0, 0, 0, 0]);
        16
    } else {
        let len = 8 + payload.len() as u16;
        transport.extend_from_slice(&len.to_be_bytes());
        transport.extend_from_slice(&[0, 0]);
        6
    };
    let len = transport.len() + payload.len();
    let header = ip.make(protocol, len);
    let open = pseudo(&header, protocol, len);
    transport[checksum..checksum + 2].copy_from_slice(&open.to_be_bytes());
    let mut frame = Vec::new();
    frame.extend_from_slice(&PEER);
    frame.extend_from_slice(&GUEST);
    frame.extend_from_slice(if ip == Ip::V4 { &[8, 0] } else { &[0x86, 0xdd] });
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&transport);
    let hdr_len = frame.len() as u16;
    frame.extend_from_slice(payload);
    let csum_start = (ETHER + ip.header()) as u16;
    let header = NetHeader {
        flags: F_NEEDS_CSUM,
        hdr_len,
        csum_start,
        csum_offset: checksum as u16,
        ..NetHeader::default()
    };
    (header, frame)
}

/// The same from the host to the guest.
pub fn turned(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&GUEST);
    frame[6..12].copy_from_slice(&PEER);
    frame
}

/// A packet that arrived, or a fragment of one.
#[derive(Debug)]
pub struct Packet {
    pub protocol: u8,
    /// Offset of the fragment in bytes, and whether more follow.
    pub fragment: Option<(usize, bool)>,
    /// Transport header and payload.
    pub transport: Vec<u8>,
    pseudo: Vec<u8>,
}

impl Packet {
    /// Takes a frame apart.
    ///
    /// # Panics
    /// When a length or the IPv4 header's checksum is wrong, or when it does
    /// not fit an MTU of `mtu` bytes.
    pub fn parse(frame: &[u8], mtu: usize) -> Self {
        assert!(frame.len() <= ETHER + mtu, "{} bytes", frame.len());
        let ip = &frame[ETHER..];
        match &frame[12..14] {
            [8, 0] => {
                assert_eq!(ip[0], 0x45);
                assert_eq!(sum(&[&ip[..20]]), 0xffff, "IPv4 header checksum");
                let len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
                assert!(len == ip.len() || ip.len() == 46, "IPv4 total length");
                let fragment = u16::from_be_bytes([ip[6], ip[7]]);
                let offset = usize::from(fragment & 0x1fff) * 8;
                let more = fragment & 0x2000 != 0;
                Self {
                    protocol: ip[9],
                    fragment: (offset > 0 || more).then_some((offset, more)),
                    transport: ip[20..len].to_vec(),
                    pseudo: ip[..20].to_vec(),
                }
            }
            [0x86, 0xdd] => {
                let len = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
                assert_eq!(len, ip.len() - 40, "IPv6 payload length");
                Self {
                    protocol: ip[6],
                    fragment: None,
                    transport: ip[40..].to_vec(),
                    pseudo: ip[..40].to_vec(),
                }
            }
            other => panic!("EtherType {other:?}"),
        }
    }

    /// # Panics
    /// When the TCP or UDP checksum is wrong.
    pub fn check(&self) {
        let pseudo = pseudo(&self.pseudo, self.protocol, self.transport.len());
        let all = sum(&[&pseudo.to_be_bytes(), &self.transport]);
        assert_eq!(all, 0xffff, "transport checksum");
    }

    /// TCP sequence number.
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes(self.transport[4..8].try_into().unwrap())
    }

    pub fn payload(&self) -> &[u8] {
        let header = if self.protocol == TCP { 20 } else { 8 };
        &self.transport[header..]
    }
}

/// Puts TCP segments or UDP fragments together until they are `len` bytes of
/// payload, and judges each of them.
pub fn reassemble(len: usize, mtu: usize, mut next: impl FnMut() -> Vec<u8>) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut fragments = Vec::new();
    while payload.len() < len {
        let packet = Packet::parse(&next(), mtu);
        if let Some((offset, more)) = packet.fragment {
            assert_eq!(offset, fragments.len(), "fragments in order");
            fragments.extend_from_slice(&packet.transport);
            if !more {
                let whole = Packet {
                    transport: std::mem::take(&mut fragments),
                    ..packet
                };
                whole.check();
                payload.extend_from_slice(whole.payload());
            }
            continue;
        }
        packet.check();
        if packet.protocol == TCP {
            assert_eq!(packet.sequence(), 1000 + payload.len() as u32);
        }
        payload.extend_from_slice(packet.payload());
    }
    payload
}
