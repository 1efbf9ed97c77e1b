//! The software driver.

use std::time::Duration;

use vtnetd::driver::front_end::FrontEnd;
use vtnetd::driver::net::{Layout, NetDriver, NetOptions, Pair, Received, RxQueue};
use vtnetd::driver::notifier::Signalling;
use vtnetd::virtio::spec::{feature, net};

use crate::Peer;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A frame of `len` bytes that no other number has.
fn frame(len: usize, number: u16) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.extend((16..len).map(|at| u8::try_from((at * 7 + usize::from(number)) % 251).unwrap()));
    frame.truncate(len);
    frame
}

/// The number of frames that only show that the way is open.
const WARM_UP: u16 = u16::MAX;

/// Sends from one to the other until the first arrives: a vhost port starts
/// some time after its last message.
fn warm_up(from: &mut Pair, to: &mut Pair) {
    for _ in 0..1000 {
        from.tx.send(&frame(60, WARM_UP)).unwrap();
        if to.rx.recv(Duration::from_millis(20)).unwrap().is_some() {
            return;
        }
    }
    panic!("nothing arrives");
}

/// The next frame that is not one of those.
fn next(rx: &mut RxQueue) -> Received {
    loop {
        let received = rx.recv(TIMEOUT).unwrap().expect("a frame was lost");
        if received.frame != frame(60, WARM_UP) {
            return received;
        }
    }
}

fn exchange(peer: &Peer, options: &NetOptions, lens: &[usize]) {
    let connect = |port| {
        let front_end = FrontEnd::connect(&peer.socket(port)).unwrap();
        NetDriver::start(front_end, options).unwrap()
    };
    let (mut a, mut b) = (connect(0), connect(1));
    assert_eq!(a.features(), b.features());
    let (a, b) = (a.pair(0), b.pair(0));
    warm_up(a, b);
    warm_up(b, a);
    for &len in lens {
        one_way(a, b, len);
        one_way(b, a, len);
    }
}

/// Several rounds of the ring, in batches.
fn one_way(from: &mut Pair, to: &mut Pair, len: usize) {
    for batch in 0..20 {
        let frames: Vec<_> = (0..32).map(|i| frame(len, batch * 32 + i)).collect();
        from.tx
            .send_batch(frames.iter().map(Vec::as_slice))
            .unwrap();
        for sent in &frames {
            let received = next(&mut to.rx);
            assert_eq!(received.frame.len(), sent.len());
            assert_eq!(&received.frame, sent);
            assert!(received.header.is_plain());
        }
    }
    from.tx.drain().unwrap();
}

fn without(bits: u64) -> NetOptions {
    let mut options = NetOptions::default();
    options.negotiation.features &= !bits;
    options
}

fn packed_without(bits: u64) -> NetOptions {
    let mut options = without(bits);
    options.negotiation.features |= feature::RING_PACKED;
    options.negotiation.required = feature::RING_PACKED;
    options
}

/// One process, one row after the other: testpmd takes seconds to start.
pub fn frames_cross_whatever_is_negotiated() {
    let peer = Peer::start(1);
    let short: &[usize] = &[14, 60, 61, 64, 1500, 1514];
    exchange(&peer, &NetOptions::default(), short);
    exchange(&peer, &without(feature::EVENT_IDX), short);
    exchange(&peer, &without(net::F_MRG_RXBUF), short);
    exchange(&peer, &packed_without(0), short);
    exchange(&peer, &packed_without(feature::EVENT_IDX), short);
    exchange(&peer, &packed_without(feature::INDIRECT_DESC), short);
    exchange(&peer, &without(feature::INDIRECT_DESC), short);
    let legacy = feature::VERSION_1 | net::F_MRG_RXBUF | feature::ANY_LAYOUT;
    exchange(&peer, &without(legacy), short);
    exchange(
        &peer,
        &without(feature::VHOST_USER_PROTOCOL_FEATURES),
        short,
    );
    let mut options = NetOptions {
        max_frame: 9014,
        regions: 3,
        signalling: Signalling::Pipe,
        ..NetOptions::default()
    };
    options.layout = Layout {
        header_apart: true,
        piece: 700,
    };
    exchange(&peer, &options, &[60, 700, 1514, 9014]);
    options.silent = true;
    exchange(&peer, &options, short);
}
