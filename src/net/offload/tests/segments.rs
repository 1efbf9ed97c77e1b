use etherparse::defrag::IpDefragPool;
use etherparse::{NetSlice, SlicedPacket, TransportSlice, UdpSlice};
use proptest::prelude::*;

use super::packet::{self, DESTINATION_V6, Packet, packets};
use crate::net::checksum::{pseudo_v6, verify};
use crate::net::offload::{Checksums, MAX_HEADER, Segments, complete_checksum};
use crate::net::transport::tcp_flags::{self, CWR, FIN, PSH};
use crate::virtio::net_header::{F_NEEDS_CSUM, GSO_NONE, NetHeader};

/// Each segment as a frame, with its virtio-net header.
fn segments(frame: &[u8], header: &NetHeader, checksums: Checksums) -> Vec<(NetHeader, Vec<u8>)> {
    let mut segments = Segments::new(frame, header, checksums).unwrap();
    let mut all = Vec::new();
    // What was in it before must not show.
    let mut head = [0xa5; MAX_HEADER];
    while let Some(segment) = segments.next(&mut head) {
        let mut whole = head[..segment.head_len].to_vec();
        whole.extend(&frame[segment.payload.clone()]);
        assert_eq!(whole.len(), segment.frame_len());
        all.push((segment.header, whole));
    }
    assert!(segments.next(&mut head).is_none());
    all
}

fn tcp_holds(packet: &Packet, gso_size: u16) {
    let frame = packet.frame();
    let header = packet.header(gso_size);
    let complete = segments(&frame, &header, Checksums::Complete);
    let count = packet.payload.div_ceil(gso_size.into()).max(1);
    assert_eq!(complete.len(), count);
    let mut payload: Vec<u8> = Vec::new();
    for (number, (header, segment)) in complete.iter().enumerate() {
        assert_eq!(*header, NetHeader::default());
        // Destination, source and tags are the frame's.
        assert_eq!(segment[..packet.network()], frame[..packet.network()]);
        let parsed = packet::parse(segment);
        let Some(TransportSlice::Tcp(tcp)) = &parsed.transport else {
            panic!("not TCP");
        };
        match parsed.net.as_ref().unwrap() {
            NetSlice::Ipv4(ip) => {
                let ip = ip.header();
                let identification = packet.identification.wrapping_add(number as u16);
                assert_eq!(ip.identification(), identification);
                assert_eq!(ip.dont_fragment(), packet.dont_fragment);
                assert_eq!(ip.options(), packet.options);
            }
            NetSlice::Ipv6(ip) => {
                let extensions = packet.network() + 40..packet.transport();
                assert_eq!(ip.extensions().slice(), &frame[extensions]);
                assert_eq!(segment[packet.network()..][..4], [0x60, 1, 2, 3]);
            }
            NetSlice::Arp(_) => unreachable!(),
        }
        let sequence = packet.sequence.wrapping_add(payload.len() as u32);
        assert_eq!(tcp.sequence_number(), sequence);
        let mut flags = packet.flags;
        if number > 0 {
            flags &= !CWR;
        }
        if number + 1 < count {
            flags &= !(FIN | PSH);
            assert_eq!(tcp.payload().len(), gso_size.into());
        }
        assert_eq!(segment[packet.transport() + 13], flags);
        assert!(tcp.payload().len() <= gso_size.into());
        assert_eq!(tcp.options().len(), packet.tcp_options * 4);
        payload.extend(tcp.payload());
    }
    assert_eq!(payload, packet.payload_bytes());

    // A receiver that completes them itself gets to the same bytes.
    let partial = segments(&frame, &header, Checksums::Receiver);
    assert_eq!(partial.len(), count);
    for ((header, mut segment), (_, completed)) in partial.into_iter().zip(complete) {
        let expected = NetHeader {
            gso_type: GSO_NONE,
            gso_size: 0,
            ..packet.header(0)
        };
        assert_eq!(header, expected);
        assert_eq!(header.flags, F_NEEDS_CSUM);
        complete_checksum(&mut segment, &header);
        let at = packet.transport() + 16;
        // The two zeros are the same (see `complete_checksum`).
        if completed[at..at + 2] == [0, 0] {
            assert_eq!(segment[at..at + 2], [0xff, 0xff]);
            segment[at..at + 2].fill(0);
        }
        assert_eq!(segment, completed);
    }
}

fn udp_holds(packet: &Packet, gso_size: u16) {
    let frame = packet.frame();
    let header = packet.header(gso_size);
    // Fragments are complete whoever computes checksums.
    let fragments = segments(&frame, &header, Checksums::Receiver);
    if packet.payload + 8 <= gso_size.into() {
        let [(header, whole)] = &fragments[..] else {
            panic!("{} fragments", fragments.len());
        };
        assert_eq!(*header, NetHeader::default());
        let mut completed = frame.clone();
        complete_checksum(&mut completed, &packet.header(0));
        assert_eq!(*whole, completed);
        packet::parse(whole);
        return;
    }

    let mut pool = IpDefragPool::<(), ()>::new();
    let mut datagram = None;
    let mut identifications = Vec::new();
    for (number, (header, fragment)) in fragments.iter().enumerate() {
        assert_eq!(*header, NetHeader::default());
        assert_eq!(fragment[..packet.network()], frame[..packet.network()]);
        assert!(datagram.is_none(), "complete before the last fragment");
        let parsed = packet::parse(fragment);
        let payload = match parsed.net.as_ref().unwrap() {
            NetSlice::Ipv4(ip) => {
                assert!(!ip.header().dont_fragment());
                identifications.push(u32::from(ip.header().identification()));
                assert_eq!(ip.header().options().len(), packet.options.len());
                if number == 0 {
                    assert_eq!(ip.header().options(), packet.options);
                }
                ip.payload()
            }
            NetSlice::Ipv6(ip) => {
                let extensions = ip.extensions().slice();
                let kept = packet.transport() - packet.network() - 40;
                assert_eq!(extensions.len(), kept + 8);
                identifications.push(u32::from_be_bytes(
                    extensions[kept + 4..].try_into().unwrap(),
                ));
                ip.payload()
            }
            NetSlice::Arp(_) => unreachable!(),
        };
        assert!(payload.payload.len() <= gso_size.into());
        if number + 1 < fragments.len() {
            assert_eq!(payload.payload.len(), usize::from(gso_size) & !7);
        }
        datagram = pool.process_sliced_packet(&parsed, (), ()).unwrap();
    }
    let datagram = datagram.expect("all fragments make a datagram");
    let udp = UdpSlice::from_slice(&datagram.payload).unwrap();
    assert_eq!(udp.payload(), packet.payload_bytes());
    assert_eq!(udp.slice().len(), packet.payload + 8);
    let first = SlicedPacket::from_ethernet(&fragments[0].1).unwrap();
    packet::check_udp(first.net.as_ref().unwrap(), &udp);

    identifications.dedup();
    let [identification] = identifications[..] else {
        panic!("several identifications in one datagram");
    };
    if !packet.v6 && packet.identification != 0 {
        assert_eq!(identification, packet.identification.into());
    }
}

/// Each datagram is whole by itself, and they are the payload in order.
fn datagrams_hold(packet: &Packet, gso_size: u16) {
    let frame = packet.frame();
    let header = packet.header(gso_size);
    let complete = segments(&frame, &header, Checksums::Complete);
    let count = packet.payload.div_ceil(gso_size.into()).max(1);
    assert_eq!(complete.len(), count);
    let mut payload: Vec<u8> = Vec::new();
    for (number, (header, segment)) in complete.iter().enumerate() {
        assert_eq!(*header, NetHeader::default());
        assert_eq!(segment[..packet.network()], frame[..packet.network()]);
        // With its lengths and its checksum, which is never 0.
        let parsed = packet::parse(segment);
        let Some(TransportSlice::Udp(udp)) = &parsed.transport else {
            panic!("not UDP");
        };
        assert_ne!(udp.checksum(), 0);
        match parsed.net.as_ref().unwrap() {
            NetSlice::Ipv4(ip) => {
                let ip = ip.header();
                let identification = packet.identification.wrapping_add(number as u16);
                assert_eq!(ip.identification(), identification);
                assert_eq!(ip.dont_fragment(), packet.dont_fragment);
                assert!(!ip.is_fragmenting_payload());
                assert_eq!(ip.options(), packet.options);
            }
            NetSlice::Ipv6(ip) => {
                let extensions = packet.network() + 40..packet.transport();
                assert_eq!(ip.extensions().slice(), &frame[extensions]);
                assert_eq!(segment[packet.network()..][..4], [0x60, 1, 2, 3]);
            }
            NetSlice::Arp(_) => unreachable!(),
        }
        let ports = packet.transport()..packet.transport() + 4;
        assert_eq!(segment[ports.clone()], frame[ports]);
        let len = if number + 1 < count {
            gso_size.into()
        } else {
            packet.payload - payload.len()
        };
        assert_eq!(udp.payload().len(), len);
        payload.extend(udp.payload());
    }
    assert_eq!(payload, packet.payload_bytes());

    // A receiver that completes them itself gets to the same bytes.
    let partial = segments(&frame, &header, Checksums::Receiver);
    assert_eq!(partial.len(), count);
    for ((header, mut segment), (_, completed)) in partial.into_iter().zip(complete) {
        let expected = NetHeader {
            gso_type: GSO_NONE,
            gso_size: 0,
            ..packet.header(0)
        };
        assert_eq!(header, expected);
        complete_checksum(&mut segment, &header);
        assert_eq!(segment, completed);
    }
}

#[test]
fn odd_sizes_of_every_kind() {
    for v6 in [false, true] {
        for tags in 0..3 {
            for payload in [0, 1, 7, 8, 999, 1000, 1001, 2000, 4321] {
                let mut tcp = Packet::tcp(v6, payload);
                tcp.tags = tags;
                for gso_size in [37, 536, 1000, 1448, 0xffff] {
                    tcp_holds(&tcp, gso_size);
                }
                let mut udp = Packet::udp(v6, payload);
                udp.tags = tags;
                for gso_size in [8, 9, 15, 576, 1000, 1008, 1480, 0xffff] {
                    udp_holds(&udp, gso_size);
                }
                let mut datagrams = Packet::datagrams(v6, payload);
                datagrams.tags = tags;
                for gso_size in [5, 8, 37, 536, 1000, 1472, 0xffff] {
                    datagrams_hold(&datagrams, gso_size);
                }
            }
        }
    }
}

#[test]
fn the_longest_packets() {
    for v6 in [false, true] {
        let mut tcp = Packet::tcp(v6, 0);
        let mut udp = Packet::udp(v6, 0);
        let limit = if v6 { 65535 + 40 } else { 65535 };
        tcp.payload = limit - (tcp.headers() - 14);
        udp.payload = limit - (udp.headers() - 14);
        tcp_holds(&tcp, 1448);
        tcp_holds(&tcp, 64);
        udp_holds(&udp, 1480);
        udp_holds(&udp, 64);
        udp.datagrams = true;
        datagrams_hold(&udp, 1472);
        datagrams_hold(&udp, 64);
    }
}

#[test]
fn sequence_numbers_and_identifications_wrap() {
    let mut packet = Packet::tcp(false, 3000);
    packet.sequence = u32::MAX - 500;
    packet.identification = u16::MAX;
    tcp_holds(&packet, 1000);
    let mut packet = Packet::datagrams(false, 3000);
    packet.identification = u16::MAX;
    datagrams_hold(&packet, 1000);
}

#[test]
fn flags_of_the_first_and_the_last_segment() {
    let mut packet = Packet::tcp(true, 3000);
    packet.flags = 0xff;
    let all = segments(&packet.frame(), &packet.header(1000), Checksums::Complete);
    let flags = all
        .iter()
        .map(|(_, segment)| segment[packet.transport() + 13]);
    let expected = [!(FIN | PSH), !(FIN | PSH | CWR), !CWR];
    assert_eq!(flags.collect::<Vec<_>>(), expected);
    assert_ne!(packet.flags & tcp_flags::ECE, 0);
}

#[test]
fn options_for_the_first_fragment_are_not_in_the_others() {
    let mut packet = Packet::udp(false, 2000);
    // No operation; record route, not copied; router alert, copied; time
    // stamp, not copied; end and padding.
    packet.options = [
        &[1_u8][..],
        &[7, 7, 4, 9, 9, 9, 9],
        &[0x94, 4, 0, 0],
        &[0x44, 8, 5, 0, 1, 2, 3, 4],
        &[0, 0, 0, 0],
    ]
    .concat();
    let all = segments(&packet.frame(), &packet.header(800), Checksums::Complete);
    let options = |at: usize| &all[at].1[34..packet.transport()];
    assert_eq!(options(0), packet.options);
    let mut later = vec![1; packet.options.len()];
    later[8..12].copy_from_slice(&[0x94, 4, 0, 0]);
    later[20..].fill(0);
    assert_eq!(options(1), later);
    assert_eq!(options(2), later);
    assert_eq!(all.len(), 3);
}

#[test]
fn options_that_make_no_sense_are_left_alone() {
    for nonsense in [[7, 0, 9, 9], [7, 5, 9, 9], [7, 1, 9, 9], [1, 1, 1, 7]] {
        let mut packet = Packet::udp(false, 2000);
        packet.options = nonsense.to_vec();
        let all = segments(&packet.frame(), &packet.header(800), Checksums::Complete);
        assert_eq!(all[1].1[34..38], nonsense);
        packet::parse(&all[1].1);
    }
}

#[test]
fn a_datagram_without_identification_gets_one() {
    let mut packet = Packet::udp(false, 2000);
    packet.identification = 0;
    let identification = || {
        let all = segments(&packet.frame(), &packet.header(800), Checksums::Complete);
        u16::from_be_bytes([all[0].1[18], all[0].1[19]])
    };
    let first = identification();
    assert_eq!(identification(), first.wrapping_add(1));
}

#[test]
fn a_fragmented_datagrams_checksum_of_zero_is_written_as_ones() {
    let packet = Packet::udp(false, 1000);
    let mut frame = packet.frame();
    let sum = packet::naive_sum(&frame[packet.transport()..]);
    // The first two bytes are 0 and 1: what the sum lacks is added to them.
    let first = packet.headers();
    frame[first..first + 2].copy_from_slice(&(0xffff - sum + 1).to_be_bytes());
    let all = segments(&frame, &packet.header(800), Checksums::Complete);
    let at = packet.transport() + 6;
    assert_eq!(all[0].1[at..at + 2], [0xff, 0xff]);
}

#[test]
fn a_datagrams_checksum_of_zero_is_written_as_ones() {
    let packet = Packet::datagrams(false, 2000);
    let mut frame = packet.frame();
    let header = packet.header(1000);
    let all = segments(&frame, &header, Checksums::Complete);
    let at = packet.transport() + 6;
    let checksum = u16::from_be_bytes([all[1].1[at], all[1].1[at + 1]]);
    // The second's payload grows by what its checksum was.
    let first = packet.headers() + 1000;
    let before = u32::from(u16::from_be_bytes([frame[first], frame[first + 1]]));
    let grown = before + u32::from(checksum);
    let grown = (grown & 0xffff) as u16 + (grown >> 16) as u16;
    frame[first..first + 2].copy_from_slice(&grown.to_be_bytes());
    let all = segments(&frame, &header, Checksums::Complete);
    assert_eq!(all[1].1[at..at + 2], [0xff, 0xff]);
    packet::parse(&all[1].1);
}

#[test]
fn checksums_are_for_the_final_destination() {
    // RFC 8200, section 8.1. The first address of RFC 8754's list is the last
    // on the way.
    let mut packet = Packet::tcp(true, 3000);
    packet.extensions = vec![(43, 4)];
    let mut frame = packet.frame();
    let routing = packet.network() + 40;
    frame[routing + 3] = 1;
    let last: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 9];
    frame[routing + 8..routing + 24].copy_from_slice(&last);
    frame[routing + 24..routing + 40].copy_from_slice(&DESTINATION_V6);
    for (_, segment) in segments(&frame, &packet.header(1000), Checksums::Complete) {
        let tcp = &segment[packet.transport()..];
        let len = u32::try_from(tcp.len()).unwrap();
        let pseudo = |to: [u8; 16]| pseudo_v6(packet::SOURCE_V6.into(), to.into(), 6, len);
        assert!(verify(pseudo(last), tcp));
        assert!(!verify(pseudo(DESTINATION_V6), tcp));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn segments_make_the_packet_again(packet in packets(0..9000), gso_size in 16_u16..4000) {
        match (packet.udp, packet.datagrams) {
            (true, true) => datagrams_hold(&packet, gso_size),
            (true, false) => udp_holds(&packet, gso_size),
            (false, _) => tcp_holds(&packet, gso_size),
        }
    }
}
