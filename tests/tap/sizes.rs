//! Frames of every size, both ways, with every byte looked at.

use vtnetd::driver::net::{NetDriver, NetOptions};

use crate::bed::Bed;
use crate::frames::{GUEST, PEER, pattern};
use crate::host::{LONG, PacketSocket, in_namespace, run};

/// The largest that a tap can have.
const MTU: usize = 65535 - 14;
const LONGEST: usize = 65535;

/// All short ones, those around page and buffer sizes, a selection of the rest.
fn sizes() -> impl Iterator<Item = usize> {
    let near = (11..16).flat_map(|bit| (1 << bit) - 20..(1 << bit) + 20);
    let rest = (2000..LONGEST).step_by(487);
    (14..1600).chain(near).chain(rest).chain([LONGEST])
}

fn cross(guest: &mut NetDriver, host: &PacketSocket) {
    let pair = guest.pair(0);
    for (seed, len) in (0..).zip(sizes()) {
        let frame = pattern(PEER, GUEST, seed, len);
        pair.tx.send(&frame).unwrap();
        assert!(host.recv_from(GUEST) == frame, "{len} bytes to the host");
        let frame = pattern(GUEST, PEER, seed, len);
        host.send(&frame);
        let got = pair.rx.recv(LONG).unwrap().expect("no frame arrived");
        assert!(got.frame == frame, "{len} bytes to the guest");
    }
}

/// The MTU grows after the tap was opened, so that long frames are longer than
/// what room is asked for at first.
fn bed() -> Bed {
    let bed = Bed::new("tap0", 1);
    run(&format!("ip link set tap0 mtu {MTU}"));
    bed
}

#[test]
fn every_size_crosses_both_ways_in_merged_buffers() {
    in_namespace(|| {
        let bed = bed();
        let host = PacketSocket::new("tap0");
        let mut guest = bed.guest(
            0,
            NetOptions {
                max_frame: LONGEST,
                rx_buffer: 1536,
                ..NetOptions::default()
            },
        );
        cross(&mut guest, &host);
    });
}

#[test]
fn every_size_crosses_both_ways_in_one_long_buffer() {
    in_namespace(|| {
        let bed = bed();
        let host = PacketSocket::new("tap0");
        let features = vtnetd::virtio::spec::feature::VERSION_1
            | vtnetd::virtio::spec::feature::VHOST_USER_PROTOCOL_FEATURES;
        let mut guest = bed.guest_with(
            features,
            NetOptions {
                ring_size: 16,
                max_frame: LONGEST,
                rx_buffer: LONGEST + 12,
                ..NetOptions::default()
            },
        );
        cross(&mut guest, &host);
        assert_eq!(bed.rx(0).too_long.get(), 0);
    });
}
