//! Virtio-net headers: what a guest is told, and what is done for it.

use super::bed::{Client, Faulty, Sink, core, open, send, with_header};
use super::*;
use crate::net::offload::tests::packet::{Packet, parse};
use crate::virtio::net_header::{F_DATA_VALID, F_NEEDS_CSUM, NetHeader};

/// A guest that takes `offloads`, and another client of its switch with the
/// same header.
fn bed(offloads: u64) -> (Netmap, Client) {
    let core = core();
    let netmap = open(&core, "vale0:a", 1, 1, Fragments::Several);
    netmap.set_features(offloads, 12).unwrap();
    let client = Client::new(&core, "vale0:b");
    client.set_header_len(HeaderLen::Full).unwrap();
    (netmap, client)
}

fn receive(netmap: &Netmap) -> Sink {
    let mut sink = Sink::new(&[65_600]);
    assert_eq!(netmap.receive(0, &mut sink), Received::Drained);
    sink
}

#[test]
fn what_the_guest_asks_for_goes_with_its_frames() {
    let (netmap, client) = bed(FEATURES);
    let packet = Packet::tcp(false, 3000);
    let (header, frame) = (packet.header(1400), packet.frame());
    let checked = crate::net::offload::check(
        &header,
        net::HOST_OFFLOADS,
        &frame,
        u32::try_from(frame.len()).unwrap(),
    );
    let checked = checked.unwrap();
    assert_eq!(send(&netmap, 0, &[(checked, frame.clone())]).frames, 1);
    let got = client.receive();
    let told = NetHeader {
        num_buffers: 1,
        ..checked
    };
    assert!(got == [with_header(&told, 12, &frame)]);
}

#[test]
fn offloads_reach_a_guest_that_takes_them() {
    let (netmap, client) = bed(FEATURES);
    let packet = Packet::tcp(false, 3000);
    let header = NetHeader {
        flags: F_NEEDS_CSUM | 0xf0,
        num_buffers: 77,
        ..packet.header(1400)
    };
    client.send(&with_header(&header, 12, &packet.frame()));
    let sink = receive(&netmap);
    let [(told, frame)] = &*sink.frames else {
        panic!("{} frames", sink.frames.len());
    };
    assert!(*frame == packet.frame());
    assert_eq!(told.gso_type, header.gso_type);
    assert_eq!(told.gso_size, 1400);
    // Made of what was checked.
    assert_eq!((told.flags, told.num_buffers), (F_NEEDS_CSUM, 0));
}

#[test]
fn a_guest_without_offloads_gets_finished_frames() {
    let (netmap, client) = bed(0);
    for v6 in [false, true] {
        let packet = Packet::tcp(v6, 3000);
        client.send(&with_header(&packet.header(1400), 12, &packet.frame()));
        let frames = receive(&netmap).plain();
        // 1400, 1400 and 200 bytes of payload.
        assert_eq!(frames.len(), 3);
        let mut payload = Vec::<u8>::new();
        for frame in &frames {
            // Which looks at the checksums.
            parse(frame);
            payload.extend(&frame[packet.headers()..]);
        }
        assert_eq!(payload, packet.payload_bytes());
    }
    // Datagrams that another client sends together; this guest is never
    // offered them.
    let packet = Packet::datagrams(true, 2500);
    client.send(&with_header(&packet.header(1400), 12, &packet.frame()));
    let frames = receive(&netmap).plain();
    assert_eq!(frames.len(), 2);
    for frame in &frames {
        parse(frame);
    }
    // A checksum alone.
    let packet = Packet::udp(false, 500);
    let header = NetHeader {
        gso_type: 0,
        gso_size: 0,
        ..packet.header(1400)
    };
    client.send(&with_header(&header, 12, &packet.frame()));
    let frames = receive(&netmap).plain();
    assert_eq!(frames.len(), 1);
    parse(&frames[0]);
}

#[test]
fn segments_wait_for_buffers_and_come_once_each() {
    let (netmap, client) = bed(0);
    let packet = Packet::tcp(false, 10_000);
    client.send(&with_header(&packet.header(1000), 12, &packet.frame()));
    let mut sink = Sink::new(&[2048]);
    for rooms in 1..10 {
        sink.rooms = rooms;
        assert_eq!(netmap.receive(0, &mut sink), Received::NoRoom);
        assert_eq!(sink.frames.len(), rooms);
    }
    sink.rooms = usize::MAX;
    assert_eq!(netmap.receive(0, &mut sink), Received::Drained);
    let payload: Vec<u8> = sink
        .plain()
        .iter()
        .flat_map(|frame| frame[packet.headers()..].to_vec())
        .collect();
    assert_eq!(payload, packet.payload_bytes());
}

/// Another client of the switch is as hostile as a guest.
#[test]
fn headers_that_lie_are_dropped_and_counted() {
    let packet = Packet::tcp(false, 3000);
    let good = packet.header(1400);
    let bad = [
        NetHeader {
            gso_size: 0,
            ..good
        },
        NetHeader {
            gso_type: 9,
            ..good
        },
        NetHeader {
            csum_start: u16::MAX,
            ..good
        },
        NetHeader { flags: 0, ..good },
    ];
    for offloads in [0, FEATURES] {
        let (netmap, client) = bed(offloads);
        for header in bad {
            client.send(&with_header(&header, 12, &packet.frame()));
            let sink = receive(&netmap);
            assert!(sink.frames.is_empty(), "{header:?}");
            assert!(sink.dropped.len() <= 1);
        }
        // Nobody's word is taken for a checksum that was verified.
        let valid = NetHeader {
            flags: F_DATA_VALID,
            ..NetHeader::default()
        };
        client.send(&with_header(&valid, 12, &super::frame(60)));
        assert_eq!(receive(&netmap).plain(), [super::frame(60)]);
    }
}

#[test]
fn what_waited_with_another_header_is_thrown_away() {
    let core = core();
    let port = Faulty::new(&core, "vale0:a");
    let client = Client::new(&core, "vale0:b");
    client.send(&super::frame(60));
    let netmap = port.open(1);
    client.set_header_len(HeaderLen::Full).unwrap();
    assert!(receive(&netmap).frames.is_empty());
    client.send(&with_header(&NetHeader::default(), 12, &super::frame(61)));
    assert_eq!(receive(&netmap).plain(), [super::frame(61)]);
}
