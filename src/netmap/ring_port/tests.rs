//! Tests of ring ports: what is sent from which slots, what is written into
//! which, and what comes back.

use super::*;
use crate::net::frame::FRAME_PARTS;
use crate::netmap::abi::{NS_BUF_CHANGED, NS_INDIRECT, NS_MOREFRAG, Slot};
use crate::netmap::kring::Counts;
use crate::netmap::mem::{PortNeeds, RegionConfig, Regions};
use crate::virtio::memory::Readable;
use crate::virtio::net_header::{F_DATA_VALID, F_NEEDS_CSUM, GSO_TCPV4, NetHeader};

const SLOTS: u32 = 64;

fn port(rings: u16) -> RingPort {
    port_of(rings, SLOTS)
}

fn port_of(rings: u16, slots: u32) -> RingPort {
    let needs = PortNeeds {
        tx_rings: rings,
        tx_slots: slots,
        rx_rings: rings,
        rx_slots: slots,
        extra_bufs: 0,
        pipes: 0,
    };
    let region = Regions::new(RegionConfig::global())
        .private(&RegionConfig::private(&needs))
        .unwrap();
    let shape = Shape {
        tx_rings: rings,
        rx_rings: rings,
        tx_slots: slots,
        rx_slots: slots,
    };
    RingPort::new("vale0:test", region, shape)
}

/// An Ethernet frame whose bytes count up.
fn frame(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from((at * 7 + at / 256) % 256).unwrap())
        .collect()
}

/// Puts slots into the transmit ring: contents and flags.
fn put(kring: &Kring, slots: &[(&[u8], u16)]) {
    let view = kring.view();
    let mut at = view.head();
    for (bytes, flags) in slots {
        let slot = view.slot(at).unwrap();
        view.buffer(slot.buf_idx).unwrap().write(bytes);
        let len = u16::try_from(bytes.len()).unwrap();
        let flags = *flags;
        view.set_slot(at, Slot { len, flags, ..slot });
        at = view.next(at);
    }
    view.set_cur(at);
    view.set_head(at);
}

/// Syncs and returns what was sent: header and contents.
fn sync(port: &RingPort) -> Vec<(NetHeader, Vec<u8>)> {
    let mut sent = Vec::new();
    port.txsync(0, &mut |ring, batch| {
        assert_eq!(ring, 0);
        for frame in batch.frames() {
            let mut bytes = Vec::new();
            for part in batch.parts(frame) {
                let mut copy = vec![0; part.len()];
                part.read(&mut copy);
                bytes.extend(copy);
            }
            assert_eq!(bytes.len(), frame.len as usize);
            assert_eq!(bytes[..14], frame.ether);
            sent.push((frame.header, bytes));
        }
    });
    sent
}

fn counts(kring: &Kring) -> Counts {
    kring.counters().read()
}

/// Sends one set of slots over a fresh port.
fn send(header: HeaderLen, slots: &[(&[u8], u16)]) -> (Vec<Vec<u8>>, Counts) {
    let port = port(1);
    port.set_header_len(header);
    let kring = port.bind(Direction::Tx, 0, false).unwrap();
    put(&kring, slots);
    let sent = sync(&port).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(kring.view().available(), SLOTS - 1, "all slots are back");
    (sent, counts(&kring))
}

const MORE: u16 = NS_MOREFRAG;

#[test]
fn slots_become_frames() {
    let long = frame(2048 * 3 + 5);
    let (sent, counts) = send(
        HeaderLen::None,
        &[
            (&frame(14), 0),
            (&frame(60), NS_BUF_CHANGED),
            (&long[..2048], MORE),
            (&long[2048..4096], MORE),
            (&long[4096..6144], MORE),
            (&long[6144..], 0),
            (&frame(2048), 0),
        ],
    );
    assert_eq!(sent, [frame(14), frame(60), long, frame(2048)]);
    assert_eq!((counts.frames, counts.bytes), (4, 14 + 60 + 6149 + 2048));
}

#[test]
fn short_frames_are_dropped() {
    let whole = frame(60);
    let (sent, counts) = send(
        HeaderLen::None,
        &[
            (&[], 0),
            (&frame(13), 0),
            (&whole, 0),
            // The Ethernet header must be in the first slot.
            (&whole[..13], MORE),
            (&whole[13..], 0),
            (&[], MORE),
            (&whole, 0),
            (&whole[..14], MORE),
            (&[], MORE),
            (&whole[14..], 0),
        ],
    );
    assert_eq!(sent, [whole.clone(), whole]);
    assert_eq!((counts.frames, counts.short), (2, 4));
}

#[test]
fn a_frame_that_goes_on_nowhere_ends_at_head() {
    let (sent, counts) = send(
        HeaderLen::None,
        &[(&frame(20), 0), (&frame(30), MORE), (&frame(10), MORE)],
    );
    let mut cut = frame(30);
    cut.extend(frame(10));
    assert_eq!(sent, [frame(20), cut]);
    assert_eq!(counts.short, 0);
}

/// Lets `spoil` change the second of three frames, the first slot of two.
fn spoilt(spoil: impl FnOnce(&mut Slot)) -> (usize, Counts) {
    let port = port(1);
    let kring = port.bind(Direction::Tx, 0, false).unwrap();
    put(
        &kring,
        &[
            (&frame(60), 0),
            (&frame(100), MORE),
            (&frame(100), 0),
            (&frame(60), 0),
        ],
    );
    let view = kring.view();
    let mut slot = view.slot(1).unwrap();
    spoil(&mut slot);
    view.set_slot(1, slot);
    let sent = sync(&port);
    assert!(sent.iter().all(|(_, bytes)| *bytes == frame(60)));
    (sent.len(), counts(&kring))
}

#[test]
fn a_wrong_slot_takes_its_frame_and_no_other() {
    for index in [0, 1, 1_000_000, u32::MAX] {
        let (sent, counts) = spoilt(|slot| slot.buf_idx = index);
        assert_eq!((sent, counts.bad_slots, counts.short), (2, 1, 0), "{index}");
    }
    for len in [2049, u16::MAX] {
        let (sent, counts) = spoilt(|slot| slot.len = len);
        assert_eq!((sent, counts.bad_slots), (2, 1), "{len}");
    }
    let (sent, counts) = spoilt(|slot| {
        slot.flags |= NS_INDIRECT;
        slot.ptr = 0x1000;
    });
    assert_eq!((sent, counts.bad_slots), (2, 1));
}

#[test]
fn a_frame_of_all_slots_is_too_long() {
    let port = port(1);
    let kring = port.bind(Direction::Tx, 0, false).unwrap();
    let full = frame(2048);
    let slots: Vec<(&[u8], u16)> = (0..SLOTS - 2).map(|_| (&full[..], MORE)).collect();
    put(&kring, &slots);
    put(&kring, &[(&full, 0)]);
    assert!(sync(&port).is_empty());
    assert_eq!(counts(&kring).long, 1);
    // The longest that may be: 65600 bytes are 32 slots and 64 bytes.
    let mut longest: Vec<(&[u8], u16)> = vec![(&full[..], MORE); 32];
    longest.push((&full[..64], 0));
    put(&kring, &longest);
    assert_eq!(sync(&port)[0].1.len(), 65600);
    longest[32] = (&full[..65], 0);
    put(&kring, &longest);
    assert!(sync(&port).is_empty());
    assert_eq!((counts(&kring).frames, counts(&kring).long), (1, 2));
}

#[test]
fn a_frame_of_too_many_slots_is_too_long() {
    let port = port_of(1, 512);
    let kring = port.bind(Direction::Tx, 0, false).unwrap();
    for (parts, frames, long) in [(FRAME_PARTS, 1, 0), (FRAME_PARTS + 1, 1, 1)] {
        let bytes = frame(14);
        let mut slots: Vec<(&[u8], u16)> = vec![(&bytes, MORE); parts - 1];
        slots.push((&bytes, 0));
        put(&kring, &slots);
        sync(&port);
        assert_eq!((counts(&kring).frames, counts(&kring).long), (frames, long));
    }
}

#[test]
fn the_changed_flag_is_taken_back() {
    let port = port(1);
    let kring = port.bind(Direction::Tx, 0, false).unwrap();
    put(&kring, &[(&frame(60), NS_BUF_CHANGED | 0x0200)]);
    sync(&port);
    assert_eq!(kring.view().slot(0).unwrap().flags, 0x0200);
}

#[test]
fn more_frames_than_a_batch_go_in_order() {
    let port = port(1);
    let kring = port.bind(Direction::Tx, 0, false).unwrap();
    for round in 0..7 {
        let frames: Vec<Vec<u8>> = (0..SLOTS - 1)
            .map(|n| frame(14 + (round + n) as usize))
            .collect();
        let slots: Vec<(&[u8], u16)> = frames.iter().map(|f| (&f[..], 0)).collect();
        put(&kring, &slots);
        let sent: Vec<Vec<u8>> = sync(&port).into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(sent, frames);
    }
    assert_eq!(counts(&kring).frames, 7 * u64::from(SLOTS - 1));
}

fn with_header(header: NetHeader, len: HeaderLen, bytes: &[u8]) -> Vec<u8> {
    let mut whole = header.to_bytes()[..len.bytes()].to_vec();
    whole.extend(bytes);
    whole
}

#[test]
fn a_header_is_taken_off() {
    for len in [HeaderLen::Legacy, HeaderLen::Full] {
        let plain = NetHeader {
            flags: F_DATA_VALID,
            hdr_len: 7,
            ..NetHeader::default()
        };
        let whole = with_header(plain, len, &frame(60));
        let split = len.bytes();
        let (sent, counts) = send(
            len,
            &[
                (&whole, 0),
                // Alone in the first slot.
                (&whole[..split], MORE),
                (&whole[split..], 0),
                // Partly in the first, or with nothing behind, or with less
                // than an Ethernet header.
                (&whole[..split - 1], MORE),
                (&whole[split - 1..], 0),
                (&whole[..split], 0),
                (&whole[..split + 13], 0),
                (&whole[..split], MORE),
                (&whole[split..split + 13], 0),
                (&whole[..split + 14], 0),
            ],
        );
        assert_eq!(sent, [frame(60), frame(60), frame(14)]);
        assert_eq!((counts.frames, counts.short), (3, 4));
    }
}

#[test]
fn a_header_is_believed_only_as_far_as_the_frame_goes() {
    let port = port(1);
    port.set_header_len(HeaderLen::Full);
    let kring = port.bind(Direction::Tx, 0, false).unwrap();
    let good = NetHeader {
        flags: F_NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 6,
        ..NetHeader::default()
    };
    let outside = NetHeader {
        csum_start: 60,
        ..good
    };
    let not_tcp = NetHeader {
        gso_type: GSO_TCPV4,
        gso_size: 100,
        ..good
    };
    for header in [good, outside, not_tcp] {
        put(
            &kring,
            &[(&with_header(header, HeaderLen::Full, &frame(60)), 0)],
        );
    }
    let sent = sync(&port);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0.flags, sent[0].0.csum_start), (F_NEEDS_CSUM, 34));
    assert_eq!((counts(&kring).frames, counts(&kring).bad_headers), (1, 2));
}

/// Delivers frames, each given in parts of at most `part` bytes.
fn deliver(port: &RingPort, header: &NetHeader, frames: &[Vec<u8>], part: usize) -> Delivered {
    let mut batch = Batch::new();
    for frame in frames {
        let mark = batch.mark();
        for chunk in frame.chunks(part) {
            batch.push_part(mark, Readable::from_slice(chunk)).unwrap();
        }
        let ether = *frame.first_chunk().unwrap();
        let len = u32::try_from(frame.len()).unwrap();
        assert!(batch.push_frame(mark, len, ether, *header));
    }
    let picks: Vec<u16> = (0..).take(frames.len()).collect();
    port.deliver(0, &batch, &picks)
}

/// Takes what has come: each frame's slot flags and its bytes.
fn receive(kring: &Kring) -> Vec<(Vec<u16>, Vec<u8>)> {
    kring.rxsync();
    let view = kring.view();
    let mut received = vec![(vec![], vec![])];
    let mut at = view.head();
    while at != view.tail() {
        let slot = view.slot(at).unwrap();
        let last = received.last_mut().unwrap();
        last.0.push(slot.flags);
        if let Some(buffer) = view.buffer(slot.buf_idx) {
            let mut bytes = vec![0; slot.len.into()];
            buffer.as_readable().read(&mut bytes);
            last.1.extend(bytes);
        }
        if slot.flags & NS_MOREFRAG == 0 {
            received.push((vec![], vec![]));
        }
        at = view.next(at);
    }
    received.pop();
    view.set_cur(at);
    view.set_head(at);
    kring.rxsync();
    received
}

#[test]
fn frames_fill_as_many_slots_as_they_need() {
    let plain = NetHeader::default();
    for part in [100_000, 2048, 1000, 300] {
        let port = port(1);
        let kring = port.bind(Direction::Rx, 0, false).unwrap();
        for lens in [
            vec![14, 60, 2047, 2048, 2049, 4096, 4097],
            vec![1514; 40],
            vec![65600],
        ] {
            let frames: Vec<Vec<u8>> = lens.into_iter().map(frame).collect();
            let delivered = deliver(&port, &plain, &frames, part);
            assert_eq!(delivered.frames as usize, frames.len());
            let received = receive(&kring);
            assert_eq!(received.len(), frames.len());
            for ((flags, bytes), sent) in received.iter().zip(&frames) {
                assert!(bytes == sent);
                let slots = sent.len().div_ceil(2048);
                assert_eq!(flags.len(), slots);
                let count = u16::try_from(slots).unwrap() << 8;
                for (nth, flags) in flags.iter().enumerate() {
                    let more = if nth + 1 < slots { MORE } else { 0 };
                    assert_eq!(*flags, count | more);
                }
            }
        }
    }
}

#[test]
fn the_header_is_written_in_front() {
    let header = NetHeader {
        flags: F_NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 16,
        ..NetHeader::default()
    };
    for len in [HeaderLen::Legacy, HeaderLen::Full] {
        let port = port(1);
        port.set_header_len(len);
        assert_eq!(port.offloads(), net::GUEST_OFFLOADS);
        let kring = port.bind(Direction::Rx, 0, false).unwrap();
        let frames = [
            frame(60),
            frame(2048 - len.bytes()),
            frame(2048),
            frame(5000),
        ];
        for part in [100_000, 14] {
            deliver(&port, &header, &frames, part.max(20));
            let received = receive(&kring);
            let told = NetHeader {
                num_buffers: 1,
                ..header
            };
            for ((_, bytes), sent) in received.iter().zip(&frames) {
                assert_eq!(*bytes, with_header(told, len, sent));
            }
            let slots: Vec<usize> = received.iter().map(|(flags, _)| flags.len()).collect();
            assert_eq!(slots, [1, 1, 2, 3]);
        }
    }
    assert_eq!(port(1).offloads(), 0);
}

#[test]
fn without_a_header_nothing_unfinished_is_delivered() {
    let port = port(1);
    let kring = port.bind(Direction::Rx, 0, false).unwrap();
    let unfinished = NetHeader {
        flags: F_NEEDS_CSUM,
        ..NetHeader::default()
    };
    let delivered = deliver(&port, &unfinished, &[frame(60)], 100);
    assert_eq!(delivered, Delivered::default());
    assert_eq!(counts(&kring).bad_headers, 1);
    assert!(receive(&kring).is_empty());
}

#[test]
fn a_full_ring_drops_and_goes_on_when_there_is_room() {
    let port = port(1);
    let kring = port.bind(Direction::Rx, 0, false).unwrap();
    let frames: Vec<Vec<u8>> = (0..40).map(|n| frame(100 + n)).collect();
    let plain = NetHeader::default();
    assert_eq!(deliver(&port, &plain, &frames, 9999).frames, 40);
    assert_eq!(deliver(&port, &plain, &frames, 9999).frames, 23);
    assert_eq!(deliver(&port, &plain, &frames, 9999).frames, 0);
    assert_eq!((counts(&kring).frames, counts(&kring).full), (63, 57));
    let received = receive(&kring);
    let expected: Vec<&Vec<u8>> = frames.iter().chain(&frames[..23]).collect();
    assert!(received.iter().map(|(_, bytes)| bytes).eq(expected));
    assert_eq!(deliver(&port, &plain, &frames, 9999).frames, 40);
    // Whole frames only.
    let long = vec![frame(2048 * 30)];
    assert_eq!(deliver(&port, &plain, &long, 9999).frames, 0);
    assert_eq!(receive(&kring).len(), 40);
    assert_eq!(kring.space(), SLOTS - 1);
}

#[test]
fn a_frame_with_more_slots_than_the_ring_is_dropped_and_the_next_is_not() {
    let port = port(1);
    let kring = port.bind(Direction::Rx, 0, false).unwrap();
    let bytes = frame(1000);
    let mut batch = Batch::new();
    let ether = *bytes.first_chunk().unwrap();
    // 64 slots are one more than can ever be free.
    for len in [2048 * 63 + 1, 1000] {
        let mark = batch.mark();
        batch.push_part(mark, Readable::from_slice(&bytes)).unwrap();
        batch.push_frame(mark, len, ether, NetHeader::default());
    }
    assert_eq!(port.deliver(0, &batch, &[0, 1]).frames, 1);
    assert_eq!(counts(&kring).long, 1);
    assert_eq!(receive(&kring).len(), 1);
}

#[test]
fn a_reader_that_spoils_its_slots_gets_them_empty() {
    let port = port(1);
    let kring = port.bind(Direction::Rx, 0, false).unwrap();
    let view = kring.view();
    for (at, buf_idx) in [(1, 0), (4, 1), (5, u32::MAX)] {
        let slot = view.slot(at).unwrap();
        view.set_slot(at, Slot { buf_idx, ..slot });
    }
    let frames = [
        frame(60),
        frame(3000),
        frame(60),
        frame(60),
        frame(60),
        frame(70),
    ];
    assert_eq!(
        deliver(&port, &NetHeader::default(), &frames, 9999).frames,
        3
    );
    assert_eq!(counts(&kring).bad_slots, 3);
    let received: Vec<Vec<u8>> = receive(&kring)
        .into_iter()
        .map(|(_, bytes)| bytes)
        .collect();
    let empty = Vec::new;
    assert_eq!(
        received,
        [
            frame(60),
            empty(),
            empty(),
            frame(60),
            empty(),
            empty(),
            frame(70)
        ]
    );
}

#[test]
fn nobody_reads_a_ring_that_is_not_bound() {
    let port = port(2);
    let plain = NetHeader::default();
    assert_eq!(deliver(&port, &plain, &[frame(60)], 99).frames, 0);
    assert_eq!(port.unbound_frames(), 1);
    let kring = port.bind(Direction::Rx, 1, false).unwrap();
    let bytes = frame(60);
    let mut batch = Batch::new();
    batch.push_part(0, Readable::from_slice(&bytes)).unwrap();
    batch.push_frame(0, 60, *bytes.first_chunk().unwrap(), plain);
    // Ring numbers are taken modulo the number of rings.
    assert_eq!(port.deliver(3, &batch, &[0]).frames, 1);
    assert_eq!(port.deliver(2, &batch, &[0]).frames, 0);
    assert_eq!(port.deliver(1, &batch, &[7, 0]).frames, 1);
    assert_eq!(receive(&kring).len(), 2);
}

#[test]
fn rings_are_made_by_the_first_user_and_go_with_the_last() {
    let port = port(2);
    let before = port.region().free();
    let taken = |rings: u32| [before[0], before[1] - rings, before[2] - rings * SLOTS];
    let first = port.bind(Direction::Rx, 1, false).unwrap();
    let second = port.bind(Direction::Rx, 1, false).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(port.region().free(), taken(1));
    assert_eq!(
        port.bind(Direction::Rx, 1, true).unwrap_err(),
        BindError::Busy { ring: 1 }
    );
    drop((first, second));
    port.unbind(Direction::Rx, 1);
    assert_eq!(port.region().free(), taken(1));
    port.unbind(Direction::Rx, 1);
    assert_eq!(port.region().free(), before);
    port.unbind(Direction::Rx, 1);
    drop(port.bind(Direction::Tx, 0, true).unwrap());
    assert!(port.bind(Direction::Tx, 0, false).is_err());
    assert!(port.bind(Direction::Tx, 0, true).is_err());
    port.unbind(Direction::Tx, 0);
    assert!(port.bind(Direction::Tx, 0, false).is_ok());
    assert!(port.bind(Direction::Tx, 2, false).is_err());
}

#[test]
fn a_bind_that_fails_for_want_of_memory_takes_nothing() {
    let port = port(1);
    let spec = RingSpec {
        id: 0,
        rx: false,
        slots: 1,
        tail: 0,
    };
    let hogs: Vec<_> = std::iter::from_fn(|| port.region().ring(&spec).ok()).collect();
    let before = port.region().free();
    assert!(matches!(
        port.bind(Direction::Rx, 0, true),
        Err(BindError::Memory(MemError::Exhausted { .. }))
    ));
    assert_eq!(port.region().free(), before);
    drop(hogs);
    assert!(port.bind(Direction::Rx, 0, true).is_ok());
}
