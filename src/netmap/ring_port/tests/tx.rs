//! What is sent from which slots.

use super::*;

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
