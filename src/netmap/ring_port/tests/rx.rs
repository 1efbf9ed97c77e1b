//! What is written into which slots.

use super::*;

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
        assert_eq!(port.offloads(), net::GUEST_OFFLOADS & !net::GUEST_USO);
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
