//! Tests of the ring code on ports of the core in this process: the same code
//! that runs on `/dev/netmap`.

mod bed;
mod headers;
mod lost;
mod rings;

use super::*;
use crate::backend::Dropped;
use crate::net::frame::MAX_FRAME;
use crate::netmap::port::Direction;
use crate::virtio::net_header::NetHeader;
use bed::{Client, Faulty, Sink, core, frame, open, put, send};

/// NETMAP_FEATURES of the reference, with the numbers of the specification.
#[test]
fn features_are_those_of_the_reference_and_headers_the_longest() {
    let reference = [0, 11, 12, 14, 1, 7, 8, 10].map(|bit| 1_u64 << bit);
    assert_eq!(FEATURES, reference.iter().sum::<u64>());
    let core = core();
    let netmap = open(&core, "vale0:a", 1, 1, Fragments::Several);
    assert_eq!(netmap.features(), FEATURES);
    let client = Client::new(&core, "vale0:a");
    assert_eq!(client.header_len().unwrap(), HeaderLen::Full);
    // Whatever the guest's own headers are.
    for bytes in [10, 12, 10] {
        netmap.set_features(FEATURES, bytes).unwrap();
        assert_eq!(client.header_len().unwrap(), HeaderLen::Full);
    }
}

#[test]
fn a_port_without_headers_offers_nothing() {
    let core = core();
    let port = Faulty::without_headers(&core, "vale0:a");
    let netmap = port.open(1);
    assert_eq!(netmap.features(), 0);
    // The header is between the guest and its device then.
    netmap.set_features(0, 12).unwrap();
    let client = Client::new(&core, "vale0:b");
    let sent = send(&netmap, 0, &[(NetHeader::default(), frame(60))]);
    assert_eq!((sent.frames, sent.dropped), (1, 0));
    assert_eq!(client.receive(), [frame(60)]);
}

#[test]
fn frames_of_every_length_go_both_ways() {
    for len in [14, 60, 1514, 2035, 2036, 2037, 2048, 2049, 9014, MAX_FRAME] {
        let core = core();
        let netmap = open(&core, "vale0:a", 1, 1, Fragments::Several);
        let client = Client::new(&core, "vale0:b");
        let sent = send(&netmap, 0, &[(NetHeader::default(), frame(len))]);
        assert_eq!(sent.frames, 1, "{len} bytes");
        assert_eq!(sent.bytes, len as u64);
        assert!(
            client.receive() == [frame(len)],
            "{len} bytes to the client"
        );

        client.send(&frame(len));
        // In pieces, so that parts end anywhere.
        let mut sink = Sink::new(&[1, 13, 700, 65_000]);
        assert_eq!(netmap.receive(0, &mut sink), Received::Drained);
        assert!(sink.plain() == [frame(len)], "{len} bytes to the guest");
    }
}

#[test]
fn one_buffer_a_frame_where_the_port_takes_no_more() {
    let core = core();
    let netmap = open(&core, "vale0:a", 1, 1, Fragments::One);
    let client = Client::new(&core, "vale0:b");
    // The header takes 12 of its 2048 bytes.
    let frames = [60, 2036, 2037, 61].map(|len| (NetHeader::default(), frame(len)));
    let sent = send(&netmap, 0, &frames);
    assert_eq!((sent.frames, sent.dropped), (3, 1));
    assert_eq!(sent.bytes, 60 + 2036 + 61);
    assert_eq!(client.receive(), [60, 2036, 61].map(frame));
}

/// The kernel's drivers would write beyond what they have.
#[test]
fn several_buffers_a_frame_up_to_what_the_driver_takes() {
    let core = core();
    let netmap = open(&core, "vale0:a", 1, 1, Fragments::UpTo(9018));
    let client = Client::new(&core, "vale0:b");
    let lengths = [60, 2049, 9018, 9019, 65535, 61];
    let frames = lengths.map(|len| (NetHeader::default(), frame(len)));
    let sent = send(&netmap, 0, &frames);
    assert_eq!((sent.frames, sent.dropped), (4, 2));
    assert_eq!(client.receive(), [60, 2049, 9018, 61].map(frame));
}

/// The reference said that it had sent what it dropped.
#[test]
fn a_full_ring_drops_and_counts() {
    let core = core();
    let port = Faulty::stuck(&core, "vale0:a");
    let netmap = port.open(1);
    let batch: Vec<_> = (0..64).map(|_| (NetHeader::default(), frame(60))).collect();
    let mut total = Sent::default();
    for _ in 0..16 {
        let sent = send(&netmap, 0, &batch);
        total.frames += sent.frames;
        total.dropped += sent.dropped;
    }
    // One slot is never used.
    assert_eq!((total.frames, total.dropped), (1023, 1));
    assert_eq!(send(&netmap, 0, &batch).dropped, 64);
    port.let_go();
    assert_eq!(send(&netmap, 0, &batch).frames, 64);
}

#[test]
fn one_sync_sends_a_batch_and_all_that_are_put_before_it() {
    let core = core();
    let port = Faulty::new(&core, "vale0:a");
    let netmap = port.open(1);
    let batch: Vec<_> = (0..64).map(|_| (NetHeader::default(), frame(60))).collect();
    let before = port.syncs();
    assert_eq!(send(&netmap, 0, &batch).frames, 64);
    assert_eq!(port.syncs() - before, 1);
    // And several.
    for _ in 0..netmap.batches() {
        put(&netmap, 0, &batch);
    }
    assert!(netmap.flush(0));
    assert_eq!(port.syncs() - before, 2);
}

#[test]
fn a_frame_waits_for_buffers_and_is_not_lost() {
    let core = core();
    let netmap = open(&core, "vale0:a", 1, 1, Fragments::Several);
    let client = Client::new(&core, "vale0:b");
    for len in [60, 61, 62] {
        client.send(&frame(len));
    }
    let mut sink = Sink::new(&[2048]);
    sink.rooms = 1;
    assert_eq!(netmap.receive(0, &mut sink), Received::NoRoom);
    assert_eq!(sink.plain(), [frame(60)]);
    sink.rooms = usize::MAX;
    assert_eq!(netmap.receive(0, &mut sink), Received::Drained);
    assert_eq!(sink.plain(), [60, 61, 62].map(frame));
}

#[test]
fn a_frame_longer_than_the_buffers_is_dropped_or_waits() {
    let core = core();
    let netmap = open(&core, "vale0:a", 1, 1, Fragments::Several);
    let client = Client::new(&core, "vale0:b");
    client.send(&frame(3000));
    client.send(&frame(60));
    let mut sink = Sink::new(&[2048]);
    sink.grows = true;
    assert_eq!(netmap.receive(0, &mut sink), Received::NoRoom);
    assert!(sink.plain().is_empty());
    sink.grows = false;
    assert_eq!(netmap.receive(0, &mut sink), Received::Drained);
    assert_eq!(sink.plain(), [frame(60)]);
    assert_eq!(sink.dropped, [Dropped::TooLong]);
}

#[test]
fn a_turn_ends_after_its_budget_and_goes_on_in_the_next() {
    let core = core();
    let netmap = open(&core, "vale0:a", 1, 1, Fragments::Several);
    let client = Client::new(&core, "vale0:b");
    for _ in 0..200 {
        client.send(&frame(60));
    }
    let mut sink = Sink::new(&[2048]);
    sink.budget = 100;
    assert_eq!(netmap.receive(0, &mut sink), Received::Budget);
    assert_eq!(sink.plain().len(), 100);
    sink.budget = usize::MAX;
    assert_eq!(netmap.receive(0, &mut sink), Received::Drained);
    assert_eq!(sink.plain().len(), 200);
}

/// Whoever shares the port's memory can write what it likes into its slots.
#[test]
fn slots_that_make_no_sense_are_dropped_and_counted() {
    use crate::netmap::abi::{NS_MOREFRAG, Slot};
    type Spoil = fn(Slot) -> Slot;
    let cases: [(Spoil, Dropped); 5] = [
        (|slot| Slot { buf_idx: 0, ..slot }, Dropped::Malformed),
        (
            |slot| Slot {
                buf_idx: u32::MAX,
                ..slot
            },
            Dropped::Malformed,
        ),
        (|slot| Slot { len: 2049, ..slot }, Dropped::Malformed),
        (|slot| Slot { len: 13, ..slot }, Dropped::Malformed),
        (
            |slot| Slot {
                len: 2048,
                flags: NS_MOREFRAG,
                ..slot
            },
            Dropped::Malformed,
        ),
    ];
    for (nth, (spoil, why)) in cases.into_iter().enumerate() {
        let core = core();
        let port = Faulty::new(&core, "vale0:a");
        let netmap = port.open(1);
        let client = Client::new(&core, "vale0:b");
        for len in [60, 61, 62] {
            client.send(&frame(len));
        }
        port.rxsync().unwrap();
        let ring = port.ring(Direction::Rx, 0).unwrap();
        // The last one, so that "more" leads out of the ring.
        let last = (ring.tail() + ring.num_slots() - 1) % ring.num_slots();
        ring.set_slot(last, spoil(ring.slot(last).unwrap()))
            .unwrap();
        let mut sink = Sink::new(&[2048]);
        assert_eq!(
            netmap.receive(0, &mut sink),
            Received::Drained,
            "case {nth}"
        );
        assert_eq!(sink.plain(), [60, 61].map(frame), "case {nth}");
        assert_eq!(sink.dropped, [why], "case {nth}");
        client.send(&frame(63));
        netmap.receive(0, &mut sink);
        assert_eq!(sink.plain().last(), Some(&frame(63)), "case {nth}");
    }
}

#[test]
fn a_transmit_slot_without_a_buffer_drops_its_frame() {
    let core = core();
    let port = Faulty::new(&core, "vale0:a");
    let netmap = port.open(1);
    let ring = port.ring(Direction::Tx, 0).unwrap();
    let slot = ring.slot(0).unwrap();
    ring.set_slot(0, crate::netmap::abi::Slot { buf_idx: 1, ..slot });
    let sent = send(&netmap, 0, &[(NetHeader::default(), frame(60))]);
    assert_eq!((sent.frames, sent.dropped), (0, 1));
}
