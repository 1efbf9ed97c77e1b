//! Several queue pairs, of which the guest serves as many as it likes.

use std::time::Instant;

use vtnetd::driver::net::{NetDriver, NetOptions};
use vtnetd::virtio::spec::net;

use crate::bed::Bed;
use crate::frames::{GUEST, Ip, PEER, UDP, complete, open, pattern, turned};
use crate::host::{LONG, PacketSocket, in_namespace};

/// Flows: enough that some of them go to each queue.
const FLOWS: u16 = 64;

fn two() -> NetOptions {
    NetOptions {
        pairs: 2,
        ..NetOptions::default()
    }
}

/// Sends one frame of each flow; returns how many arrived on each pair.
fn spread(guest: &mut NetDriver, host: &PacketSocket) -> Vec<usize> {
    for port in 0..FLOWS {
        let (header, mut frame) = open(Ip::V4, UDP, 1000 + port, &[0; 100]);
        complete(&header, &mut frame);
        host.send(&turned(frame));
    }
    let mut counts = vec![0; guest.pairs().len()];
    let until = Instant::now() + LONG;
    while counts.iter().sum::<usize>() < usize::from(FLOWS) {
        for (pair, count) in guest.pairs().iter_mut().zip(&mut counts) {
            *count += pair.rx.receive(usize::MAX, |_| {}).unwrap();
        }
        assert!(Instant::now() < until, "lost frames: {counts:?} arrived");
    }
    counts
}

#[test]
fn both_pairs_carry_frames() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 2);
        let host = PacketSocket::new("tap0");
        let mut guest = bed.guest(0, two());
        let counts = spread(&mut guest, &host);
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        for (seed, pair) in guest.pairs().iter_mut().enumerate() {
            let frame = pattern(PEER, GUEST, seed as u32, 200);
            pair.tx.send(&frame).unwrap();
            assert!(host.recv_from(GUEST) == frame, "pair {seed}");
        }
    });
}

#[test]
fn nothing_goes_to_a_queue_that_the_guest_does_not_serve() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 2);
        let host = PacketSocket::new("tap0");
        let mut guest = bed.guest(0, NetOptions::default());
        assert_eq!(spread(&mut guest, &host), [usize::from(FLOWS)]);
        drop(guest);
        // The next guest has both.
        let mut guest = bed.guest(0, two());
        let counts = spread(&mut guest, &host);
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    });
}

#[test]
fn the_control_queue_says_how_many_pairs_receive() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 2);
        let host = PacketSocket::new("tap0");
        let mut guest = bed.guest(net::F_CTRL_VQ, two());
        for _ in 0..3 {
            let counts = spread(&mut guest, &host);
            assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
            guest.control().unwrap().set_pairs(1).unwrap();
            assert_eq!(spread(&mut guest, &host), [usize::from(FLOWS), 0]);
            // What is still sent on the other pair is not lost.
            let frame = pattern(PEER, GUEST, 9, 200);
            guest.pair(1).tx.send(&frame).unwrap();
            assert!(host.recv_from(GUEST) == frame);
            guest.control().unwrap().set_pairs(2).unwrap();
        }
    });
}
