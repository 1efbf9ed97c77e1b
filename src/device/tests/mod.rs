//! Tests of the device's queues, from guest to guest over a switch.

mod batches;
mod bed;
mod clients;
mod config;
mod control;
mod gate;
mod offloads;
mod rooms;
mod unshared;

use std::sync::Arc;

use bed::{Guest, SIZE, frame, signalled};

use crate::device::Event;
use crate::driver::queue::DriverQueue;
use crate::net::frame::Batch;
use crate::netmap::attachment::{Attachment, Delivered};
use crate::netmap::vale::Switch;
use crate::virtio::memory::{COPIED, Readable};
use crate::virtio::net_header::{F_DATA_VALID, F_NEEDS_CSUM, GSO_TCPV4, NetHeader};
use crate::virtio::queue::VirtQueue;
use crate::virtio::spec::{feature, net};
use crate::worker::Work;

/// A port that takes nothing.
struct Nobody;

impl Attachment for Nobody {
    fn offloads(&self) -> u64 {
        0
    }

    fn deliver(&self, _ring: usize, _batch: &Batch<'_>, _picks: &[u16]) -> Delivered {
        Delivered::default()
    }
}

const MODERN: u64 = feature::VERSION_1 | net::F_MRG_RXBUF;
const PLAIN: NetHeader = NetHeader {
    flags: 0,
    gso_type: 0,
    hdr_len: 0,
    gso_size: 0,
    csum_start: 0,
    csum_offset: 0,
    num_buffers: 0,
};

fn two(features: [u64; 2]) -> [Guest; 2] {
    let switch = Arc::new(Switch::new("vale0"));
    [(1, features[0]), (2, features[1])].map(|(n, features)| Guest::on(&switch, n, features))
}

fn received_frames(guest: &mut Guest) -> Vec<Vec<u8>> {
    guest
        .received()
        .into_iter()
        .map(|(_, frame)| frame)
        .collect()
}

#[test]
fn frames_of_every_length_arrive_whole_however_they_are_cut() {
    let header_len = 12;
    let cuts: [&[usize]; 6] = [
        &[],
        &[header_len],
        &[1, 2, 3],
        &[5, header_len + 3, header_len + 20],
        &[header_len, header_len + 14],
        &[30, 31, 32, 33, 4000],
    ];
    for receive in [
        &[2048_u32] as &[u32],
        &[1, 5, 2042],
        &[12, 2036],
        &[65562],
        &[256],
    ] {
        let [mut a, mut b] = two([MODERN; 2]);
        for (at, len) in [14, 15, 60, 64, 1500, 1514, 2035, 2036, 2037, 9014]
            .into_iter()
            .enumerate()
        {
            b.offer(
                u32::from(SIZE) / u32::try_from(receive.len()).unwrap(),
                receive,
            );
            let sent = frame(2, 1, len);
            a.send(&[(PLAIN, sent.clone())], cuts[at % cuts.len()]);
            let got = b.received();
            assert_eq!(got.len(), 1, "{len} bytes into {receive:?}");
            assert_eq!(got[0].1, sent);
            let room: usize = receive.iter().map(|&len| len as usize).sum();
            let buffers = (len + header_len).div_ceil(room);
            assert_eq!(usize::from(got[0].0.num_buffers), buffers);
            // The rest of the buffers goes with the guest.
            [a, b] = two([MODERN; 2]);
        }
    }
}

#[test]
fn the_longest_frame_is_carried_and_one_longer_is_not() {
    let [mut a, mut b] = two([MODERN; 2]);
    b.offer(64, &[2048]);
    let longest = frame(2, 1, crate::net::frame::MAX_FRAME);
    let longer = frame(2, 1, crate::net::frame::MAX_FRAME + 1);
    let short = frame(2, 1, 14)[..13].to_vec();
    a.send(
        &[(PLAIN, longer), (PLAIN, longest.clone()), (PLAIN, short)],
        &[],
    );
    assert_eq!(received_frames(&mut b), [longest]);
    assert_eq!(a.pair.tx_stats.bad_length.get(), 2);
}

#[test]
fn a_legacy_guest_has_a_header_of_ten_bytes() {
    let [mut a, mut b] = two([0, MODERN]);
    a.offer(1, &[2048]);
    b.offer(1, &[2048]);
    a.send(&[(PLAIN, frame(2, 1, 99))], &[10]);
    b.send(&[(PLAIN, frame(1, 2, 98))], &[12]);
    assert_eq!(received_frames(&mut b), [frame(2, 1, 99)]);
    let completion = a.rx_buffers.readable(0, 108);
    let mut bytes = [0; 108];
    completion.read(&mut bytes);
    let (header, rest) = bytes.split_at(10);
    assert_eq!((header, rest), (&[0_u8; 10][..], &frame(1, 2, 98)[..]));
}

/// From the sender's chain into the receiver's.
#[test]
fn a_frame_from_guest_to_guest_is_copied_once() {
    let [mut a, mut b] = two([MODERN; 2]);
    b.offer(32, &[2048]);
    let len = 1514;
    for token in 0..32 {
        let bytes = [vec![0; 12], frame(2, 1, len)].concat();
        a.send_raw(token, &bytes, &[12]);
    }
    COPIED.set(0);
    a.transmit();
    let copied = COPIED.get();
    assert_eq!(b.received().len(), 32);
    // Besides the frame, its two headers are looked at (the Ethernet header as
    // two words that share two bytes), and one is compared with what is in the
    // buffer and written.
    let each = len + 12 + 16 + 12 + 12;
    assert!(
        (32 * len..=32 * each).contains(&copied),
        "{copied} bytes for 32 frames of {len}"
    );
}

/// 5.1.6.4.1: without merged buffers a frame has one chain; what does not fit
/// is dropped, and the chain is there for the next.
#[test]
fn frames_longer_than_the_buffers_are_dropped_and_counted() {
    let [mut a, mut b] = two([feature::VERSION_1; 2]);
    b.offer(4, &[12 + 100]);
    a.send(
        &[
            (PLAIN, frame(2, 1, 101)),
            (PLAIN, frame(2, 1, 100)),
            (PLAIN, frame(2, 1, 99)),
        ],
        &[],
    );
    let got = b.received();
    assert_eq!(got.len(), 2);
    assert!(
        got.iter().all(|(header, _)| header.num_buffers == 1),
        "5.1.6.4.1"
    );
    assert_eq!(b.pair.rx_stats.too_long.get(), 1);
    assert_eq!(b.pair.rx_stats.frames.get(), 2);
    assert_eq!(a.tx.outstanding(), 0);
}

#[test]
fn without_buffers_frames_are_dropped_and_counted() {
    let [mut a, mut b] = two([MODERN; 2]);
    b.offer(2, &[600]);
    // The second needs two more buffers than there are, the third fits.
    let frames = [500, 2000, 400, 60].map(|len| (PLAIN, frame(2, 1, len)));
    a.send(&frames, &[]);
    assert_eq!(
        received_frames(&mut b),
        [frame(2, 1, 500), frame(2, 1, 400)]
    );
    assert_eq!(b.pair.rx_stats.no_buffers.get(), 2);
}

/// 5.1.4.1: not longer than the MTU, once that is negotiated.
#[test]
fn a_driver_that_negotiated_the_mtu_gets_no_longer_frame() {
    let [mut a, mut b] = two([MODERN, MODERN | net::F_MTU]);
    b.offer(8, &[4096]);
    let frames = [1514, 1515, 1518, 3000].map(|len| (PLAIN, frame(2, 1, len)));
    a.send(&frames, &[]);
    assert_eq!(b.received().len(), 1);
    assert_eq!(b.pair.rx_stats.too_long.get(), 3);
    // A VLAN tag is of the Ethernet header, which does not count.
    for tag in [[0x81, 0], [0x88, 0xa8]] {
        let frames = [1518, 1519].map(|len| {
            let mut frame = frame(2, 1, len);
            frame[12..14].copy_from_slice(&tag);
            (PLAIN, frame)
        });
        a.send(&frames, &[]);
        assert_eq!(b.received().len(), 1);
    }
    assert_eq!(b.pair.rx_stats.too_long.get(), 5);
}

/// What a guest receives is built from checked fields.
#[test]
fn a_header_is_never_passed_on_as_it_came() {
    let [mut a, mut b] = two([MODERN; 2]);
    b.offer(8, &[2048]);
    let junk = NetHeader {
        flags: F_DATA_VALID | 0xf8,
        hdr_len: 0xffff,
        gso_size: 77,
        csum_start: 1,
        csum_offset: 2,
        num_buffers: 0x7777,
        ..PLAIN
    };
    a.send(&[(junk, frame(2, 1, 60))], &[]);
    let want = NetHeader {
        num_buffers: 1,
        ..PLAIN
    };
    assert_eq!(b.received(), [(want, frame(2, 1, 60))]);
    // What was not negotiated is not done.
    let needs = NetHeader {
        flags: F_NEEDS_CSUM,
        csum_start: 20,
        csum_offset: 6,
        ..PLAIN
    };
    let segments = NetHeader {
        gso_type: GSO_TCPV4,
        gso_size: 100,
        ..needs
    };
    a.send(
        &[(needs, frame(2, 1, 60)), (segments, frame(2, 1, 600))],
        &[],
    );
    assert!(b.received().is_empty());
    assert_eq!(a.pair.tx_stats.bad_header.get(), 2);
}

/// 5.1.6.4: a header that asks for an offset outside the frame is refused.
#[test]
fn offsets_outside_the_frame_are_refused() {
    let [mut a, mut b] = two([MODERN | net::F_CSUM, MODERN | net::F_GUEST_CSUM]);
    b.offer(8, &[2048]);
    let ask = |csum_start, csum_offset| NetHeader {
        flags: F_NEEDS_CSUM,
        csum_start,
        csum_offset,
        ..PLAIN
    };
    a.send(
        &[
            (ask(14, 44), frame(2, 1, 60)),
            (ask(14, 45), frame(2, 1, 60)),
            (ask(60, 0), frame(2, 1, 60)),
            (ask(0xffff, 0xffff), frame(2, 1, 60)),
        ],
        &[],
    );
    assert_eq!(b.received().len(), 1);
    assert_eq!(a.pair.tx_stats.bad_header.get(), 3);
}

#[test]
fn bad_chains_come_back_empty_and_the_queue_goes_on() {
    let [mut a, mut b] = two([MODERN; 2]);
    b.offer(2, &[2048]);
    let outside = crate::driver::queue::Segment::to_device(1, 100);
    assert!(a.tx.add(&[outside], 63).unwrap());
    a.send(&[(PLAIN, frame(2, 1, 60))], &[]);
    assert_eq!(b.received().len(), 1);
    assert_eq!(a.pair.tx_stats.bad_chains.get(), 1);

    // A receive buffer that is not there: returned empty, the next is used.
    let nowhere = crate::driver::queue::Segment::from_device(1, 100);
    let [mut a, mut b] = two([MODERN; 2]);
    assert!(b.rx.add(&[nowhere], 63).unwrap());
    b.offer(1, &[2048]);
    a.send(&[(PLAIN, frame(2, 1, 60))], &[]);
    let empty = b.rx.pop().unwrap().unwrap();
    assert_eq!((empty.token, empty.len), (63, 0));
    assert_eq!(received_frames(&mut b), [frame(2, 1, 60)]);
    assert_eq!(b.pair.rx_stats.bad_chains.get(), 1);
}

#[test]
fn a_broken_ring_stops_alone_and_says_so() {
    let [mut a, mut b] = two([MODERN; 2]);
    b.offer(4, &[2048]);
    b.rx.ring().set_avail_index(SIZE * 2);
    a.send(&[(PLAIN, frame(2, 1, 60))], &[]);
    assert!(b.pair.rx.is_failed() && !b.pair.rx.is_active());
    assert!(signalled(&b.rx_err), "the error descriptor");
    assert!(!b.pair.tx.is_failed() && b.pair.tx.is_active());
    a.send(&[(PLAIN, frame(2, 1, 60))], &[]);
    // What it broke on is lost, too.
    assert_eq!(b.pair.rx_stats.not_ready.get(), 2);
}

/// FIELD-NOTES: a ring that is started but disabled is drained (transmit) or
/// left alone (receive).
#[test]
fn a_disabled_queue_is_drained_or_left_alone() {
    let [mut a, mut b] = two([MODERN; 2]);
    b.offer(4, &[2048]);
    a.pair.tx.enable(false);
    a.send(&[(PLAIN, frame(2, 1, 60))], &[]);
    assert_eq!(
        (a.pair.tx_stats.discarded.get(), b.received().len()),
        (1, 0)
    );
    a.pair.tx.enable(true);
    b.pair.rx.enable(false);
    a.send(&[(PLAIN, frame(2, 1, 60))], &[]);
    assert_eq!(
        (b.pair.rx_stats.not_ready.get(), b.received().len()),
        (1, 0)
    );
    b.pair.rx.enable(true);
    a.send(&[(PLAIN, frame(2, 1, 60))], &[]);
    assert_eq!(b.received().len(), 1);
}

#[test]
fn a_link_that_is_down_carries_nothing() {
    let [mut a, mut b] = two([MODERN; 2]);
    b.offer(4, &[2048]);
    b.pair.shared.set_link(false);
    a.send(&[(PLAIN, frame(2, 1, 60))], &[]);
    assert!(b.received().is_empty());
    b.pair.shared.set_link(true);
    a.pair.shared.set_link(false);
    a.send(&[(PLAIN, frame(2, 1, 60))], &[]);
    assert!(b.received().is_empty());
    a.pair.shared.set_link(true);
    a.send(&[(PLAIN, frame(2, 1, 60))], &[]);
    assert_eq!(b.received().len(), 1);
}

/// Memory that vanishes stops the device it belonged to, and no other.
#[test]
fn truncated_memory_stops_its_own_device() {
    crate::virtio::memory::install_fault_handler().unwrap();
    let [mut a, mut b] = two([MODERN; 2]);
    b.offer(8, &[2048]);
    a.send(&[(PLAIN, frame(2, 1, 60))], &[]);
    b.memory.truncate_region(0, 4096).unwrap();
    a.send(&[(PLAIN, frame(2, 1, 60)), (PLAIN, frame(2, 1, 61))], &[]);
    assert!(b.pair.rx.is_failed());
    assert!(
        a.vrings()
            .iter()
            .all(|vring| vring.is_active() && !vring.is_failed())
    );
}

#[test]
fn one_interrupt_is_sent_for_a_batch() {
    let [mut a, mut b] = two([MODERN | feature::EVENT_IDX; 2]);
    b.offer(32, &[2048]);
    let frames: Vec<_> = (60..92).map(|len| (PLAIN, frame(2, 1, len))).collect();
    a.send(&frames, &[]);
    let mut written = [0; 512];
    assert_eq!(nix::unistd::read(&b.rx_call, &mut written), Ok(8));
    assert_eq!(b.received().len(), 32);
}

#[test]
fn the_queue_is_where_get_vring_base_says() {
    let [mut a, mut b] = two([MODERN; 2]);
    b.offer(3, &[2048]);
    a.send(&[(PLAIN, frame(2, 1, 60)), (PLAIN, frame(2, 1, 60))], &[]);
    assert_eq!(b.pair.rx.stop().0, 2);
    assert_eq!(a.pair.tx.stop().0, 2);
    let at = b.rx.ring().addresses();
    let table = Arc::clone(b.memory.table());
    let again = crate::virtio::queue::SplitQueue::new(table, SIZE, at, 2, MODERN.into());
    assert_eq!(again.unwrap().base(), 2);
}

/// 2.7.10.1: spurious kicks are handled.
#[test]
fn a_kick_for_nothing_is_harmless() {
    let [mut a, mut b] = two([MODERN; 2]);
    for event in [
        Event::Transmit,
        Event::Receive,
        Event::Control,
        Event::Changed,
    ] {
        a.pair.note(event.into());
        assert!(!a.pair.turn());
    }
    b.offer(1, &[2048]);
    a.send(&[(PLAIN, frame(2, 1, 60))], &[]);
    assert_eq!(b.received().len(), 1);
}

/// 5.1.6.5.5.2: receive queues beyond `virtqueue_pairs` are not used.
#[test]
fn frames_go_to_the_receive_queues_in_use() {
    let [_a, b] = two([MODERN; 2]);
    let second = Guest::new(3, MODERN, Arc::new(crate::backend::Unconnected));
    let shared = Arc::clone(&b.pair.shared);
    let pairs = vec![Arc::clone(&b.pair), Arc::clone(&second.pair)];
    let port = super::queue_port::QueuePort::new(Arc::clone(&shared), pairs);
    let switch = Arc::new(Switch::new("vale1"));
    switch.attach("mq", None, Arc::new(port)).unwrap();
    let from = switch.attach("from", None, Arc::new(Nobody)).unwrap();
    let mut guests = [b, second];
    for guest in &mut guests {
        guest.offer(64, &[2048]);
    }
    let with = |flow, then: &mut dyn FnMut(&mut Batch<'_>)| {
        let bytes = frame(2, flow, 60);
        let mut batch = Batch::new();
        batch.push_part(0, Readable::from_slice(&bytes)).unwrap();
        batch.push_frame(0, 60, *bytes.first_chunk().unwrap(), PLAIN);
        then(&mut batch);
    };
    let mut got = |flow| {
        with(flow, &mut |batch| switch.forward(from, 0, batch));
        guests.each_mut().map(|guest| guest.received().len())
    };
    assert_eq!([20, 21, 22].map(&mut got), [[1, 0]; 3], "one pair in use");
    shared.set_active_pairs(2);
    for (pair, want) in [(0, [1, 0]), (1, [0, 1]), (0, [1, 0])] {
        for flow in 3..8 {
            with(flow, &mut |batch| shared.steering.learn(batch, pair));
            assert_eq!(got(flow), want, "flow {flow} was sent on pair {pair}");
        }
    }
    let unknown = [(); 2].map(|()| (20..36).map(&mut got).collect::<Vec<_>>());
    assert_eq!(unknown[0], unknown[1], "a flow goes one way");
    assert!(unknown[0].contains(&[1, 0]) && unknown[0].contains(&[0, 1]));
    // The last pair is given up, and what was sent on it comes to the first.
    with(3, &mut |batch| shared.steering.learn(batch, 1));
    shared.set_active_pairs(1);
    assert_eq!(got(3), [1, 0]);
}

/// Bad receive chains come back though there is no good one behind them, and
/// none is looked at for one frame after the other.
#[test]
fn bad_receive_chains_come_back_at_once() {
    let [mut a, mut b] = two([MODERN; 2]);
    let nowhere = crate::driver::queue::Segment::from_device(1, 100);
    for token in 0..u32::from(SIZE) {
        assert!(b.rx.add(&[nowhere], token).unwrap());
    }
    let _ = b.rx.publish();
    let frames: Vec<_> = (0..32).map(|n| (PLAIN, frame(2, 1, 60 + n))).collect();
    a.send(&frames, &[]);
    let lens: Vec<_> = std::iter::from_fn(|| b.rx.pop().unwrap())
        .map(|completion| completion.len)
        .collect();
    assert_eq!(lens, vec![0; SIZE.into()]);
    assert_eq!(b.pair.rx_stats.bad_chains.get(), u64::from(SIZE));
    assert_eq!(b.pair.rx_stats.no_buffers.get(), 32);
}
