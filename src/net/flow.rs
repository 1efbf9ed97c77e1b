//! Which flow a frame belongs to, as a number.
//!
//! Frames of one flow have the same number, in both directions; what they are
//! told apart by is fixed: addresses and ports of TCP and UDP over IP, without
//! ports for other protocols and for fragments (of which only the first has
//! any), and MAC addresses for what is not IP. A number has nothing secret
//! about it: whoever makes frames can make them of one flow.

use super::ParseError;
use super::ethernet::{Ethernet, TYPE_IPV4, TYPE_IPV6};
use super::ip::{Ipv4, Ipv6, TCP, UDP, V4_MORE_FRAGMENTS, V4_OFFSET};

/// How many of a frame's first bytes matter: two VLAN tags, an IPv4 header with
/// all options, and ports.
pub const START: usize = 14 + 8 + 60 + 4;

/// How many bytes of a packet matter, where it has no options: the IPv4 header
/// and ports.
pub const QUICK: usize = 20 + 4;

/// The number of the flow of a frame that begins with `start`: its first
/// [`START`] bytes, or all of it.
#[inline]
pub fn number(start: &[u8]) -> u32 {
    let Ok(frame) = Ethernet::new_checked(start) else {
        return 0;
    };
    let ends = match frame.ether_type() {
        TYPE_IPV4 => ends_v4(frame.payload()),
        TYPE_IPV6 => ends_v6(frame.payload()),
        _ => Err(ParseError::Version),
    };
    let (one, other) = ends.unwrap_or_else(|_| {
        let [one, other] = [frame.source(), frame.destination()].map(|mac| {
            let [a, b, c, d, e, f] = mac.0;
            u64::from_be_bytes([0, 0, a, b, c, d, e, f])
        });
        (one, other)
    });
    mix(one.min(other), one.max(other))
}

/// The same of most frames in a few instructions: those of TCP and UDP over
/// IPv4 without options, fragments and tags, from their EtherType and what
/// follows. `None`: one of the others.
#[inline]
pub fn quick_number(ether_type: u16, packet: &[u8; QUICK]) -> Option<u32> {
    let [
        version,
        _,
        l0,
        l1,
        _,
        _,
        f0,
        f1,
        _,
        protocol,
        _,
        _,
        ends @ ..,
    ] = packet;
    let [a, b, c, d, e, f, g, h, p0, p1, q0, q1] = *ends;
    let whole = u16::from_be_bytes([*f0, *f1]) & (V4_MORE_FRAGMENTS | V4_OFFSET) == 0;
    let has_ports = usize::from(u16::from_be_bytes([*l0, *l1])) >= QUICK;
    let quick = ether_type == TYPE_IPV4
        && *version == 0x45
        && whole
        && has_ports
        && matches!(*protocol, TCP | UDP);
    let one = u64::from_be_bytes([0, 0, a, b, c, d, p0, p1]);
    let other = u64::from_be_bytes([0, 0, e, f, g, h, q0, q1]);
    quick.then(|| mix(one.min(other), one.max(other)))
}

/// Both ends of an IPv4 packet: address and port.
#[inline]
fn ends_v4(packet: &[u8]) -> Result<(u64, u64), ParseError> {
    let ip = Ipv4::new_checked(packet)?;
    let whole = !ip.is_fragment();
    let (from, to) = ports(ip.protocol(), ip.payload(), whole);
    let end = |address: u32, port| u64::from(address) << 16 | u64::from(port);
    Ok((
        end(ip.source().to_bits(), from),
        end(ip.destination().to_bits(), to),
    ))
}

/// Both ends of an IPv6 packet. One with extension headers, as fragments have,
/// has no ports here.
#[inline]
fn ends_v6(packet: &[u8]) -> Result<(u64, u64), ParseError> {
    let ip = Ipv6::new_checked(packet)?;
    let (from, to) = ports(ip.next_header(), ip.payload(), true);
    let end = |address: u128, port: u16| {
        #[expect(clippy::cast_possible_truncation, reason = "halves of the address")]
        let [high, low] = [(address >> 64) as u64, address as u64];
        fold(high ^ u64::from(port), PRIMES[0]) ^ low
    };
    Ok((
        end(ip.source().to_bits(), from),
        end(ip.destination().to_bits(), to),
    ))
}

/// Source and destination port, or zeros for what has none.
#[inline]
fn ports(protocol: u8, payload: &[u8], whole: bool) -> (u16, u16) {
    match payload {
        [a, b, c, d, ..] if whole && matches!(protocol, TCP | UDP) => {
            (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
        }
        _ => (0, 0),
    }
}

/// Large and odd, with bits all over.
const PRIMES: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];

/// Both halves of a product, so that every bit of it counts.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "halves of the product")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "halves of the word")]
fn mix(low: u64, high: u64) -> u32 {
    let mixed = fold(fold(low, PRIMES[0]) ^ high, PRIMES[1]);
    (mixed >> 32) as u32 ^ mixed as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn ethernet(to: [u8; 6], from: [u8; 6], kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
        [&to[..], &from, &kind, payload].concat()
    }

    fn v4(protocol: u8, fragmentation: u16, hosts: [u8; 2], ports: [u16; 2]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0];
        packet.extend(fragmentation.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 10, 0, 0, hosts[0], 10, 0, 0, hosts[1]]);
        packet.extend(ports.map(u16::to_be_bytes).concat());
        packet.resize(40, 0);
        packet
    }

    fn quick_number_of(frame: &[u8]) -> Option<u32> {
        let (ether, packet) = frame.split_at_checked(14)?;
        quick_number(
            u16::from_be_bytes([ether[12], ether[13]]),
            packet.first_chunk()?,
        )
    }

    fn number_v4(protocol: u8, fragmentation: u16, hosts: [u8; 2], ports: [u16; 2]) -> u32 {
        let packet = v4(protocol, fragmentation, hosts, ports);
        number(&ethernet(B, A, [8, 0], &packet))
    }

    fn v6(next: u8, hosts: [u8; 2], ports: [u16; 2]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 20, next, 64];
        for host in hosts {
            packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
        packet.extend(ports.map(u16::to_be_bytes).concat());
        packet.resize(60, 0);
        ethernet(B, A, [0x86, 0xdd], &packet)
    }

    #[test]
    fn both_directions_are_one_flow() {
        for protocol in [TCP, UDP] {
            let there = number_v4(protocol, 0, [1, 2], [1000, 80]);
            assert_eq!(there, number_v4(protocol, 0, [2, 1], [80, 1000]));
            assert_ne!(there, number_v4(protocol, 0, [1, 2], [80, 1000]));
            let there = number(&v6(protocol, [1, 2], [1000, 80]));
            assert_eq!(there, number(&v6(protocol, [2, 1], [80, 1000])));
            assert_ne!(there, number(&v6(protocol, [1, 2], [1001, 80])));
        }
        let arp = |to, from| number(&ethernet(to, from, [8, 6], &[0; 46]));
        assert_eq!(arp(A, B), arp(B, A));
        assert_ne!(arp(A, B), arp(B, B));
    }

    #[test]
    fn fragments_and_other_protocols_have_no_ports() {
        let hosts = number_v4(1, 0, [1, 2], [8, 9]);
        for (fragmentation, ports) in [(0x2000, [1000, 80]), (0x0010, [4, 5]), (0x2010, [6, 7])] {
            assert_eq!(number_v4(UDP, fragmentation, [1, 2], ports), hosts);
        }
        // "Don't fragment" makes none.
        assert_ne!(number_v4(UDP, 0x4000, [1, 2], [1000, 80]), hosts);
        let hosts = number(&v6(44, [1, 2], [17, 1]));
        assert_eq!(number(&v6(58, [1, 2], [128, 0])), hosts);
    }

    #[test]
    fn tags_and_options_are_stepped_over() {
        let mut packet = v4(TCP, 0, [1, 2], [1000, 80]);
        let plain = number(&ethernet(B, A, [8, 0], &packet));
        let tags = [0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 8, 0];
        packet[0] = 0x4f;
        packet[3] = 80;
        packet.splice(20..20, [1; 40]);
        let mut tagged = ethernet(B, A, [0, 0], &packet);
        tagged.splice(12..14, tags);
        assert_eq!(number(&tagged[..START]), plain);
    }

    /// What is cut short or nonsense belongs to some flow all the same.
    #[test]
    fn hostile_frames_have_a_number() {
        let mut frame = ethernet(B, A, [8, 0], &v4(TCP, 0, [1, 2], [1, 2]));
        for len in 0..frame.len() {
            number(&frame[..len]);
        }
        let by_mac = number(&ethernet(B, A, [8, 6], &[]));
        for first in [0x40, 0x44, 0x4f, 0x65, 0xff] {
            frame[14] = first;
            assert_eq!(number(&frame[..50]), by_mac, "{first:#x}");
        }
    }

    /// Whatever a frame looks like, the quick way finds what the long way does,
    /// and it takes those that it is for.
    #[test]
    fn the_quick_way_finds_the_same() {
        for protocol in [TCP, UDP] {
            let packet = v4(protocol, 0x4000, [1, 2], [1000, 80]);
            let frame = ethernet(B, A, [8, 0], &packet);
            assert_eq!(quick_number_of(&frame), Some(number(&frame)));
            for at in 0..frame.len() {
                for value in 0..=u8::MAX {
                    let mut other = frame.clone();
                    other[at] = value;
                    let quick = quick_number_of(&other);
                    assert!(
                        quick.is_none_or(|quick| quick == number(&other)),
                        "{at} {value}"
                    );
                }
            }
        }
        let others = [
            v4(1, 0, [1, 2], [8, 9]),
            v4(UDP, 0x2000, [1, 2], [1, 2]),
            v4(UDP, 1, [1, 2], [1, 2]),
        ];
        for packet in others {
            assert_eq!(quick_number_of(&ethernet(B, A, [8, 0], &packet)), None);
        }
    }

    #[test]
    fn numbers_are_spread() {
        let mut counts = [0; 4];
        for port in 0..4000 {
            let number = number_v4(UDP, 0, [1, 2], [1024 + port, 80]);
            counts[((u64::from(number) * 4) >> 32) as usize] += 1;
        }
        for count in counts {
            assert!((800..1200).contains(&count), "{counts:?}");
        }
    }
}
