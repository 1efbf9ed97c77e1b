//! Frames of every size, both ways, with every byte looked at.

use bed::freebsd::{NgInterface, run};
use vtnetd::driver::net::{FEATURES, NetOptions};
use vtnetd::net::frame::MAX_FRAME;
use vtnetd::virtio::spec::net;

use super::bed::{GUEST, Middle, PEER, Peer, count, frame, served};
use crate::drive::SOON;

/// The shortest, those around pages and buffers, up to the longest.
fn sizes() -> Vec<usize> {
    let near = (6..17).flat_map(|bit| (1usize << bit) - 2..(1 << bit) + 3);
    let usual = [60, 61, 1500, 1514, 1518, 9014, MAX_FRAME - 1, MAX_FRAME];
    near.chain(usual).filter(|len| *len <= MAX_FRAME).collect()
}

/// With and without buffers that are merged.
fn guests() -> [NetOptions; 2] {
    let mut merged = NetOptions {
        max_frame: MAX_FRAME + 1,
        ..NetOptions::default()
    };
    merged.negotiation.features = FEATURES & !net::F_MTU;
    let mut whole = NetOptions {
        ring_size: 16,
        rx_buffer: MAX_FRAME + 12,
        ..merged.clone()
    };
    whole.negotiation.features &= !net::F_MRG_RXBUF;
    [merged, whole]
}

fn every_size_crosses(kind: &'static str) {
    let _middle = Middle::new(kind);
    let mut served = served("");
    let peer = Peer::new("link2");
    let (mut frames, mut bytes) = (0, 0);
    for options in guests() {
        let mut guest = served.drive(0, &options).unwrap();
        let pair = guest.pair(0);
        for (seed, len) in (0..).zip(sizes()) {
            let out = frame(PEER, GUEST, seed, len);
            pair.tx.send(&out).unwrap();
            let got = peer.recv().expect("no frame came out");
            assert!(got == out, "{len} bytes out: {} came", got.len());
            let back = frame(GUEST, PEER, seed + 1_000_000, len);
            peer.send(&back);
            let got = pair.rx.recv(SOON).unwrap().expect("no frame came in");
            assert!(
                got.frame == back,
                "{len} bytes in: {} came",
                got.frame.len()
            );
            assert!(got.header.is_plain());
            frames += 1;
            bytes += len as u64;
        }
        guest.stop().unwrap();
    }
    for queue in ["rx0", "tx0"] {
        assert_eq!(
            count(&mut served, "link1", queue, "frames"),
            frames,
            "{queue}"
        );
        assert_eq!(
            count(&mut served, "link1", queue, "bytes"),
            bytes,
            "{queue}"
        );
    }
    assert_eq!(count(&mut served, "link1", "tx0", "dropped"), 0);
    assert_eq!(count(&mut served, "link1", "rx0", "too_long"), 0);
}

pub fn every_size_crosses_a_hub() {
    every_size_crosses("hub");
}

pub fn every_size_crosses_a_bridge() {
    every_size_crosses("bridge");
}

pub fn what_is_too_long_is_counted() {
    let _middle = Middle::new("hub");
    let mut served = served("");
    let peer = Peer::new("link2");
    let mark = frame(GUEST, PEER, 7, 60);
    let mut lost = 0;
    for options in guests() {
        let mut guest = served.drive(0, &options).unwrap();
        let pair = guest.pair(0);
        // One byte more than there may be, both ways; what follows arrives.
        pair.tx.send(&frame(PEER, GUEST, 1, MAX_FRAME + 1)).unwrap();
        pair.tx.send(&frame(PEER, GUEST, 2, 60)).unwrap();
        assert!(peer.recv() == Some(frame(PEER, GUEST, 2, 60)));
        peer.send(&frame(GUEST, PEER, 3, MAX_FRAME + 1));
        // Not even an Ethernet header; a hub does not mind.
        peer.send(&[1; 13]);
        peer.send(&mark);
        assert!(pair.rx.recv(SOON).unwrap().unwrap().frame == mark);
        lost += 1;
        assert_eq!(count(&mut served, "link1", "tx0", "bad_length"), lost);
        assert_eq!(count(&mut served, "link1", "rx0", "too_long"), lost);
        assert_eq!(count(&mut served, "link1", "rx0", "too_short"), lost);
        guest.stop().unwrap();
    }
    // Short buffers that are not merged take no long frame.
    let [_, mut short] = guests();
    short.rx_buffer = 1526;
    let mut guest = served.drive(0, &short).unwrap();
    peer.send(&frame(GUEST, PEER, 4, 1515));
    peer.send(&frame(GUEST, PEER, 5, 1514));
    let got = guest.pair(0).rx.recv(SOON).unwrap().unwrap();
    assert!(got.frame == frame(GUEST, PEER, 5, 1514));
    assert_eq!(count(&mut served, "link1", "rx0", "too_long"), lost + 1);
}

/// The peer does not read: ng_socket(4) answers ENOBUFS, frames are dropped and
/// counted, and everything goes on once there is room.
pub fn a_full_receiver_costs_frames_only() {
    const LEN: usize = 32768;
    let _middle = Middle::new("hub");
    let mut served = served("");
    let peer = Peer::new("link2");
    let [options, _] = guests();
    let mut guest = served.drive(0, &options).unwrap();
    let tx = &mut guest.pair(0).tx;
    // Four times what the largest buffer holds.
    let all = 4 * (4 << 20) / LEN;
    for seed in 0..u32::try_from(all).unwrap() {
        tx.send(&frame(PEER, GUEST, seed, LEN)).unwrap();
    }
    tx.drain().unwrap();
    let mut arrived = 0;
    while let Some(got) = peer.try_recv() {
        // The first ones, in order.
        assert!(got == frame(PEER, GUEST, arrived, LEN), "frame {arrived}");
        arrived += 1;
    }
    let dropped = count(&mut served, "link1", "tx0", "dropped");
    assert!(arrived > 0 && dropped > 0, "{arrived} and {dropped}");
    assert_eq!(u64::from(arrived) + dropped, all as u64);
    assert_eq!(
        count(&mut served, "link1", "tx0", "frames"),
        u64::from(arrived)
    );
    guest.pair(0).tx.send(&frame(PEER, GUEST, 9, 60)).unwrap();
    assert!(peer.recv() == Some(frame(PEER, GUEST, 9, 60)));
}

/// An interface of the host on the same bridge: its stack answers the guest.
pub fn the_hosts_stack_answers() {
    let _middle = Middle::new("bridge");
    let host = NgInterface::connected(&format!("{}:", Middle::NAME), "link5").unwrap();
    run(&format!("ifconfig {} inet 198.51.100.1/24", host.name())).unwrap();
    let served = served("");
    let mut guest = served.drive(0, &NetOptions::default()).unwrap();
    let pair = guest.pair(0);
    // ARP: who has 198.51.100.1? tell 198.51.100.2 (RFC 826).
    let mut asked = [
        &[0xff; 6][..],
        &GUEST,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &GUEST,
    ]
    .concat();
    asked.extend([198, 51, 100, 2, 0, 0, 0, 0, 0, 0, 198, 51, 100, 1]);
    asked.resize(60, 0);
    pair.tx.send(&asked).unwrap();
    let answer = loop {
        let got = pair.rx.recv(SOON).unwrap().expect("the host is silent");
        // What it says of itself when it comes up is something else.
        if got.frame[..6] == GUEST {
            break got.frame;
        }
    };
    assert_eq!(answer[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 2], "{answer:?}");
    assert_eq!(answer[28..32], [198, 51, 100, 1]);
    assert_eq!(answer[32..42], [&GUEST[..], &[198, 51, 100, 2]].concat());
}
