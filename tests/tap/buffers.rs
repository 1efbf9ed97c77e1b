//! Guests with too few buffers, too small ones, or late ones.

use std::time::Instant;

use vtnetd::driver::net::NetOptions;
use vtnetd::virtio::spec::net;

use crate::bed::{Bed, USUAL};
use crate::frames::{GUEST, PEER, pattern};
use crate::host::{LONG, PacketSocket, in_namespace, run};

fn options(ring_size: u16, rx_buffer: usize) -> NetOptions {
    NetOptions {
        ring_size,
        rx_buffer,
        ..NetOptions::default()
    }
}

#[test]
fn a_frame_longer_than_the_one_buffer_it_may_have_is_dropped_and_counted() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 1);
        let host = PacketSocket::new("tap0");
        let features = USUAL & !net::F_MRG_RXBUF;
        let mut guest = bed.guest_with(features, options(16, 500));
        for seed in 0..300 {
            host.send(&pattern(GUEST, PEER, seed, 1000));
            let short = pattern(GUEST, PEER, seed, 488);
            host.send(&short);
            let got = guest.pair(0).rx.recv(LONG).unwrap().expect("no frame");
            assert!(got.frame == short);
        }
        assert_eq!(bed.rx(0).too_long.get(), 300);
        assert_eq!(bed.rx(0).frames.get(), 300);
    });
}

#[test]
fn a_frame_longer_than_all_buffers_stalls_nothing() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 1);
        run("ip link set tap0 mtu 9000");
        let host = PacketSocket::new("tap0");
        let mut guest = bed.guest(0, options(4, 512));
        for seed in 0..300 {
            host.send(&pattern(GUEST, PEER, seed, 9000));
            // All four buffers.
            let fits = pattern(GUEST, PEER, seed, 4 * 512 - 12);
            host.send(&fits);
            let got = guest.pair(0).rx.recv(LONG).unwrap().expect("no frame");
            assert!(got.frame == fits);
        }
        assert_eq!(bed.rx(0).too_long.get(), 300);
    });
}

/// A driver need not post anew while half of its ring is full. A frame that
/// fits an empty ring but not the full half must not wait for what never comes.
#[test]
fn a_driver_that_posts_late_does_not_stall() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 1);
        run("ip link set tap0 mtu 9000");
        let host = PacketSocket::new("tap0");
        let mut guest = bed.guest(0, options(16, 512));
        let rx = &mut guest.pair(0).rx;
        let long = pattern(GUEST, PEER, 1, 15 * 512);
        let short = pattern(GUEST, PEER, 2, 60);
        for _ in 0..2 {
            host.send(&short);
        }
        let until = Instant::now() + LONG;
        while rx.queue().pop().unwrap().is_none() {
            assert!(Instant::now() < until, "no frame");
        }
        // 14 buffers are there, 16 are needed: not now, and perhaps never.
        host.send(&long);
        host.send(&short);
        let mut came = 1;
        while came < 3 {
            came += usize::from(rx.queue().pop().unwrap().is_some());
            assert!(Instant::now() < until, "{came} of 3 frames");
        }
        assert_eq!(bed.rx(0).too_long.get(), 1);
    });
}

/// Every burst overruns the ring before the driver looks at it, so each is a
/// chance to miss the kick.
#[test]
fn a_hundred_thousand_frames_pass_a_tiny_ring() {
    in_namespace(|| {
        const BURST: u32 = 200;
        let bed = Bed::new("tap0", 1);
        run("ip link set tap0 mtu 3000");
        let host = PacketSocket::new("tap0");
        let mut guest = bed.guest(0, options(8, 1024));
        let rx = &mut guest.pair(0).rx;
        // One to three buffers of eight.
        let len = |seed: u32| 60 + (seed as usize * 7919) % 2900;
        for first in (0..100_000).step_by(BURST as usize) {
            for seed in first..first + BURST {
                host.send(&pattern(GUEST, PEER, seed, len(seed)));
            }
            for seed in first..first + BURST {
                let got = rx.recv(LONG).unwrap();
                let got = got.unwrap_or_else(|| panic!("stalled at {seed}"));
                assert!(got.frame == pattern(GUEST, PEER, seed, len(seed)), "{seed}");
            }
        }
        assert_eq!(bed.rx(0).frames.get(), 100_000);
        assert_eq!(bed.rx(0).too_long.get(), 0);
    });
}
