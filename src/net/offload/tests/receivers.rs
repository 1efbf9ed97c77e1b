//! What a receiver may be given, and what is done for one that may not.

use super::packet::{self, Packet};
use crate::net::offload::{accepts, complete_checksum, needs_segmenting};
use crate::virtio::memory::Readable;
use crate::virtio::net_header::*;
use crate::virtio::spec::net::*;

#[test]
fn receivers_get_what_they_negotiated() {
    let csum = NetHeader {
        flags: F_NEEDS_CSUM,
        ..NetHeader::default()
    };
    let gso = |gso_type| NetHeader {
        gso_type,
        gso_size: 1,
        ..csum
    };
    let all = GUEST_OFFLOADS;
    for (header, needed) in [
        (NetHeader::default(), 0),
        (csum, F_GUEST_CSUM),
        (gso(GSO_TCPV4), F_GUEST_CSUM | F_GUEST_TSO4),
        (gso(GSO_TCPV6), F_GUEST_CSUM | F_GUEST_TSO6),
        (gso(GSO_UDP), F_GUEST_CSUM | F_GUEST_UFO),
        // Of a frame that cannot be looked at.
        (gso(GSO_UDP_L4), F_GUEST_CSUM | F_GUEST_USO4 | F_GUEST_USO6),
        (
            gso(GSO_TCPV4 | GSO_ECN),
            F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_ECN,
        ),
        (
            gso(GSO_TCPV6 | GSO_ECN),
            F_GUEST_CSUM | F_GUEST_TSO6 | F_GUEST_ECN,
        ),
    ] {
        for bits in 0..128_u64 {
            let bit = |at: u32, mask: u64| if bits >> at & 1 == 0 { 0 } else { mask };
            let features = bit(0, F_GUEST_CSUM)
                | bit(1, F_GUEST_TSO4)
                | bit(2, F_GUEST_TSO6)
                | bit(3, F_GUEST_ECN)
                | bit(4, F_GUEST_UFO)
                | bit(5, F_GUEST_USO4)
                | bit(6, F_GUEST_USO6)
                | HOST_OFFLOADS;
            let may = features & needed == needed;
            let accepted = accepts(&header, features, || &[]);
            assert_eq!(accepted, may, "{header:?} {features:#x}");
            let cut = header.gso_type != GSO_NONE && !may;
            assert_eq!(needs_segmenting(&header, features, || &[]), cut);
        }
        assert!(accepts(&header, all, || &[]));
    }
    assert!(!accepts(&gso(2), all, || &[]) && needs_segmenting(&gso(2), all, || &[]));
}

#[test]
fn datagrams_pass_to_who_takes_their_ip_version() {
    for v6 in [false, true] {
        for tags in 0..3 {
            let mut packet = Packet::datagrams(v6, 3000);
            packet.tags = tags;
            let (header, frame) = (packet.header(1000), packet.frame());
            let (own, other) = match v6 {
                false => (F_GUEST_USO4, F_GUEST_USO6),
                true => (F_GUEST_USO6, F_GUEST_USO4),
            };
            // In pieces, as it may lie in a guest's memory.
            let (start, end) = frame.split_at(13);
            let parts = [start, end].map(Readable::from_slice);
            let accepts = |features| accepts(&header, features, || &parts);
            assert!(accepts(F_GUEST_CSUM | own));
            assert!(accepts(F_GUEST_CSUM | own | other));
            assert!(!accepts(F_GUEST_CSUM | other));
            assert!(!accepts(
                F_GUEST_CSUM | F_GUEST_UFO | F_GUEST_TSO4 | F_GUEST_TSO6
            ));
            assert!(!accepts(own));
        }
    }
    // A frame that its sender has cut meanwhile is none of either.
    let header = Packet::datagrams(false, 3000).header(1000);
    for features in [F_GUEST_USO4, F_GUEST_USO6] {
        let short = [Readable::from_slice(&[0; 13])];
        assert!(!accepts(&header, F_GUEST_CSUM | features, || &short));
    }
}

#[test]
fn completed_checksums_are_right() {
    for packet in [
        Packet::udp(false, 701),
        Packet::udp(true, 0),
        Packet::tcp(true, 33),
    ] {
        let mut frame = packet.frame();
        let before = frame.clone();
        complete_checksum(&mut frame, &NetHeader::default());
        assert_eq!(frame, before);
        let header = NetHeader {
            gso_type: GSO_NONE,
            ..packet.header(0)
        };
        complete_checksum(&mut frame, &header);
        packet::parse(&frame);
    }
}

#[test]
fn a_udp_checksum_of_zero_is_written_as_ones() {
    let packet = Packet::udp(false, 2);
    let header = NetHeader {
        gso_type: GSO_NONE,
        ..packet.header(0)
    };
    let mut frame = packet.frame();
    let sum = packet::naive_sum(&frame[packet.transport()..]);
    // A payload that brings the sum to 0xffff; it was 0 and 1 before.
    let payload = packet.headers();
    let rest = (0xffff - sum) + u16::from_be_bytes([frame[payload], frame[payload + 1]]);
    frame[payload..].copy_from_slice(&rest.to_be_bytes());
    complete_checksum(&mut frame, &header);
    let at = packet.transport() + 6;
    assert_eq!(frame[at..at + 2], [0xff, 0xff]);
    packet::parse(&frame);
}

#[test]
fn a_checksum_place_outside_the_frame_changes_nothing() {
    let frame = Packet::udp(false, 20).frame();
    for (csum_start, csum_offset) in [(34, 27), (34, 0xffff), (62, 0), (61, 0), (0xffff, 0)] {
        let header = NetHeader {
            flags: F_NEEDS_CSUM,
            csum_start,
            csum_offset,
            ..NetHeader::default()
        };
        let mut copy = frame.clone();
        complete_checksum(&mut copy, &header);
        assert_eq!(copy, frame, "{csum_start} {csum_offset}");
    }
}
