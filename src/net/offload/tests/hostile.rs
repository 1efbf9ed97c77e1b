//! Bytes that no honest driver writes: nothing panics, and what `check` lets
//! through is what it promises.

use proptest::prelude::*;

use super::check::check_frame;
use super::packet::packets;
use crate::net::offload::{
    Checksums, MAX_HEADER, MAX_SEGMENTS, PREFIX, Segments, accepts, check, complete_checksum,
};
use crate::net::transport::tcp_flags;
use crate::virtio::net_header::*;
use crate::virtio::spec::net::*;

/// Everything that the documentation of `check` promises of its result.
fn promises(header: &NetHeader, features: u64, frame: &[u8], checked: &NetHeader) {
    assert_eq!(checked.num_buffers, 0);
    assert_eq!(checked.is_plain(), header.is_plain());
    if header.is_plain() {
        assert_eq!(*checked, NetHeader::default());
        return;
    }
    assert_eq!(checked.flags, F_NEEDS_CSUM);
    assert_ne!(features & F_CSUM, 0);
    let start = usize::from(checked.csum_start);
    let end = start + usize::from(checked.csum_offset) + 2;
    assert!(start >= 14 && end <= frame.len());
    let hdr_len = usize::from(checked.hdr_len);
    assert!(hdr_len >= end.min(0xffff) && hdr_len <= frame.len());
    let accepts = |features| accepts(checked, features, || &[]);
    assert!(accepts(GUEST_OFFLOADS) && !accepts(0));
    assert_eq!(check_frame(checked, HOST_OFFLOADS, frame), Ok(*checked));
    if checked.gso_type == GSO_NONE {
        assert_eq!(checked.gso_size, 0);
        return;
    }
    let (kind, feature) = match checked.gso_type & !GSO_ECN {
        GSO_TCPV4 => (6, F_HOST_TSO4),
        GSO_TCPV6 => (6, F_HOST_TSO6),
        GSO_UDP => (17, F_HOST_UFO),
        GSO_UDP_L4 => (17, F_HOST_USO),
        other => panic!("gso_type {other}"),
    };
    assert_ne!(features & feature, 0);
    assert!(hdr_len <= PREFIX);
    let ecn = checked.gso_type & GSO_ECN != 0;
    assert_eq!(ecn, kind == 6 && frame[start + 13] & tcp_flags::CWR != 0);
    assert_ne!(checked.gso_size, 0);

    let mut segments = Segments::new(frame, checked, Checksums::Receiver).unwrap();
    let mut head = [0; MAX_HEADER];
    let mut count = 0;
    while let Some(segment) = segments.next(&mut head) {
        count += 1;
        assert!(segment.frame_len() <= hdr_len + 8 + usize::from(checked.gso_size));
    }
    assert!((2..=MAX_SEGMENTS).contains(&count), "{count}");
}

/// Bytes to change, by offset.
fn changes(within: usize) -> impl Strategy<Value = Vec<(usize, u8)>> {
    proptest::collection::vec((0..within, any::<u8>()), 0..4)
}

fn change(bytes: &mut [u8], changes: &[(usize, u8)]) {
    for &(at, byte) in changes {
        if let Some(to) = bytes.get_mut(at) {
            *to = byte;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    #[test]
    fn any_header_on_any_bytes(
        raw in any::<[u8; LEN]>(),
        kind in proptest::option::of(0_u8..7),
        features in prop_oneof![Just(HOST_OFFLOADS), any::<u64>()],
        frame in proptest::collection::vec(any::<u8>(), 0..90),
        len in prop_oneof![0_u32..100, any::<u32>()],
    ) {
        let mut header = NetHeader::from_bytes(&raw);
        if let Some(kind) = kind {
            header.gso_type = kind;
            header.flags = F_NEEDS_CSUM;
            header.csum_start %= 70;
            header.csum_offset %= 20;
        }
        let _ = check(&header, features, &frame, len);
        if let Ok(checked) = check_frame(&header, features, &frame) {
            promises(&header, features, &frame, &checked);
        }
        let mut head = [0; MAX_HEADER];
        if let Ok(mut segments) = Segments::new(&frame, &header, Checksums::Complete) {
            while segments.next(&mut head).is_some() {}
        }
        complete_checksum(&mut { frame }, &header);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30_000))]

    #[test]
    fn packets_with_a_few_changed_bytes(
        packet in packets(0..300),
        gso_size in prop_oneof![0_u16..64, 64_u16..400, any::<u16>()],
        features in prop_oneof![4 => Just(HOST_OFFLOADS), 1 => any::<u64>()],
        in_header in changes(LEN * 3),
        in_frame in changes(300),
        later in changes(200),
        cut in proptest::option::of(0_usize..300),
    ) {
        let mut raw = packet.header(gso_size).to_bytes();
        change(&mut raw, &in_header);
        let header = NetHeader::from_bytes(&raw);
        let mut frame = packet.frame();
        change(&mut frame, &in_frame);
        frame.truncate(cut.unwrap_or(usize::MAX));
        let Ok(checked) = check_frame(&header, features, &frame) else {
            return Ok(());
        };
        promises(&header, features, &frame, &checked);

        // What the sender does to its frame after that.
        change(&mut frame, &later);
        let mut head = [0; MAX_HEADER];
        if let Ok(mut segments) = Segments::new(&frame, &checked, Checksums::Complete) {
            let mut count = 0;
            while let Some(segment) = segments.next(&mut head) {
                count += 1;
                prop_assert!(segment.head_len <= MAX_HEADER);
                prop_assert!(segment.payload.end <= frame.len());
            }
            prop_assert!((1..=MAX_SEGMENTS).contains(&count));
        }
        complete_checksum(&mut frame, &checked);
    }
}
