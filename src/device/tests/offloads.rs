//! Who gets frames unfinished, between guests on a switch.

use super::{MODERN, PLAIN, two};
use crate::net::offload::tests::packet::{Packet, parse};
use crate::virtio::net_header::NetHeader;
use crate::virtio::spec::net;

/// Datagrams cross together from a guest that may send them so to one that
/// takes them so, and become single ones for another.
#[test]
fn datagrams_cross_together_where_both_guests_can() {
    let takes = MODERN | net::F_GUEST_CSUM;
    for (v6, own, other) in [
        (false, net::F_GUEST_USO4, net::F_GUEST_USO6),
        (true, net::F_GUEST_USO6, net::F_GUEST_USO4),
    ] {
        let mut packet = Packet::datagrams(v6, 2500);
        packet.tags = 1;
        let (header, mut frame) = (packet.header(1000), packet.frame());
        frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        for (features, together) in [
            (takes | own, true),
            (takes | own | other, true),
            (takes | other, false),
            (takes | net::F_GUEST_UFO, false),
            (MODERN | own | other, false),
        ] {
            let [mut a, mut b] = two([MODERN | net::F_CSUM | net::F_HOST_USO, features]);
            b.offer(8, &[4096]);
            a.send(&[(header, frame.clone())], &[]);
            let got = b.received();
            if together {
                let told = NetHeader {
                    num_buffers: 1,
                    ..header
                };
                assert_eq!(got, [(told, frame.clone())], "{features:#x}");
                continue;
            }
            let plain = NetHeader {
                num_buffers: 1,
                ..PLAIN
            };
            let lens: Vec<usize> = got.iter().map(|(_, one)| one.len()).collect();
            let headers = packet.headers();
            assert_eq!(lens, [1000, 1000, 500].map(|len| headers + len));
            for (told, one) in &got {
                assert_eq!(*told, plain, "{features:#x}");
                parse(one);
            }
        }
        // Who did not negotiate it cannot send it.
        for features in [
            MODERN | net::F_CSUM | net::F_HOST_UFO,
            MODERN | net::F_HOST_USO,
        ] {
            let [mut a, mut b] = two([features, takes | own]);
            b.offer(8, &[4096]);
            a.send(&[(header, frame.clone())], &[]);
            assert!(b.received().is_empty());
            assert_eq!(a.pair.tx_stats.bad_header.get(), 1);
        }
    }
}
