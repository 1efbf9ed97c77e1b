//! The interface itself: found or made, up or down, or gone; and errors that
//! say what helps.

use std::sync::Arc;

use vtnetd::backend::{self, Backend, OpenError, Spec};
use vtnetd::driver::net::{NetDriver, NetOptions, OFFLOADS};
use vtnetd::netmap::vale::Switches;
use vtnetd::virtio::net_header::{GSO_TCPV4, NetHeader};

use crate::bed::Bed;
use crate::frames::{GUEST, Ip, PEER, TCP, open, pattern, turned};
use crate::host::{LONG, PacketSocket, SHORT, in_namespace, is_up, run};

fn open_backend(name: &str, pairs: u16) -> Result<Arc<dyn Backend>, OpenError> {
    backend::open(&Spec::new(name, pairs), &Switches::default())
}

fn refused(name: &str, pairs: u16) -> String {
    match open_backend(name, pairs) {
        Ok(_) => panic!("{name} was opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_missing_interface_is_made_and_goes_with_us() {
    in_namespace(|| {
        assert_eq!(is_up("tap7"), None);
        let tap = open_backend("tap7", 1).unwrap();
        assert_eq!(is_up("tap7"), Some(true));
        drop(tap);
        assert_eq!(is_up("tap7"), None);
    });
}

#[test]
fn an_interface_that_is_there_stays_as_it_is() {
    in_namespace(|| {
        run("ip tuntap add dev tapx mode tap");
        drop(open_backend("tapx", 1).unwrap());
        assert_eq!(is_up("tapx"), Some(false));
        run("ip link set tapx up");
        drop(open_backend("tapx", 1).unwrap());
        assert_eq!(is_up("tapx"), Some(true));
    });
}

#[test]
fn one_queue_of_an_interface_with_several_will_do() {
    in_namespace(|| {
        run("ip tuntap add dev tap0 mode tap multi_queue");
        assert_eq!(open_backend("tap0", 1).unwrap().max_pairs(), 1);
        assert_eq!(open_backend("tap0", 4).unwrap().max_pairs(), 4);
    });
}

#[test]
fn errors_name_the_thing_and_the_cure() {
    in_namespace(|| {
        let held = open_backend("tap0", 1).unwrap();
        let busy = refused("tap0", 1);
        assert!(
            busy.starts_with("tap0: ") && busy.contains("another process has it"),
            "{busy}"
        );
        let single = refused("tap0", 2);
        assert!(
            single.contains("multi_queue") && single.contains("queues="),
            "{single}"
        );
        drop(held);

        run("ip link add tapbr type bridge");
        let bridge = refused("tapbr", 1);
        assert!(bridge.contains("not a tap interface"), "{bridge}");
        let long = refused("tap0123456789012", 1);
        assert!(long.contains("1 to 15 bytes"), "{long}");

        // This thread alone gives up its rights, for good.
        // SAFETY: numbers only.
        let became = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        assert_eq!(became, 0);
        let missing = refused("tap1", 1);
        assert!(
            missing.contains("ip tuntap add dev NAME mode tap user"),
            "{missing}"
        );
    });
}

#[test]
fn anothers_interface_needs_its_owner() {
    in_namespace(|| {
        run("ip tuntap add dev tap0 mode tap user 1");
        run("ip tuntap add dev tap1 mode tap user 65534");
        // SAFETY: numbers only.
        let became = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        assert_eq!(became, 0);
        let foreign = refused("tap0", 1);
        assert!(foreign.contains("interface's owner"), "{foreign}");
        open_backend("tap1", 1).unwrap();
    });
}

#[test]
fn down_and_up_while_running() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 1);
        let mut guest = bed.guest(0, NetOptions::default());
        let host = PacketSocket::new("tap0");
        for round in 1..4 {
            run("ip link set tap0 down");
            let lost = pattern(PEER, GUEST, 0, 100);
            let pair = guest.pair(0);
            pair.tx.send(&lost).unwrap();
            pair.tx.drain().unwrap();
            assert_eq!(bed.tx(0).dropped.get(), round);
            run("ip link set tap0 up");
            let there = pattern(PEER, GUEST, 1, 100);
            pair.tx.send(&there).unwrap();
            assert!(host.recv_from(GUEST) == there);
            let back = pattern(GUEST, PEER, 2, 100);
            host.send(&back);
            let got = pair.rx.recv(LONG).unwrap().expect("no frame");
            assert!(got.frame == back);
        }
    });
}

#[test]
fn an_interface_that_is_removed_takes_only_frames_along() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 1);
        let mut guest = bed.guest(OFFLOADS, NetOptions::default());
        let pair = guest.pair(0);
        run("ip link delete tap0");
        pair.tx.send(&pattern(PEER, GUEST, 0, 100)).unwrap();
        pair.tx.drain().unwrap();
        assert_eq!(bed.tx(0).dropped.get(), 1);
        assert_eq!(pair.rx.recv(SHORT).unwrap(), None);
        guest.reset().unwrap();
        let pair = guest.pair(0);
        pair.tx.send(&pattern(PEER, GUEST, 0, 100)).unwrap();
        pair.tx.drain().unwrap();
        assert_eq!(bed.tx(0).dropped.get(), 2);
    });
}

/// Frames go both ways. An interface that was up before it was opened may lose
/// the first: the kernel takes its time to see the carrier.
fn carries(guest: &mut NetDriver, seed: u8) {
    let host = PacketSocket::new("tap0");
    let there = pattern(PEER, GUEST, seed.into(), 100);
    let pair = guest.pair(0);
    pair.tx.send(&there).unwrap();
    assert!(host.recv_from(GUEST) == there);
    let back = pattern(GUEST, PEER, seed.into(), 900);
    let arrived = (0..100).any(|_| {
        host.send(&back);
        let got = pair.rx.recv(SHORT).unwrap();
        got.is_some_and(|got| got.frame == back)
    });
    assert!(arrived, "no frame");
}

#[test]
fn what_we_made_is_made_again() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 1);
        let mut guest = bed.guest(OFFLOADS, NetOptions::default());
        assert!(bed.check_host());
        for round in 0..3 {
            run("ip link delete tap0");
            assert!(bed.check_host());
            assert_eq!(is_up("tap0"), Some(true));
            carries(&mut guest, round);
        }
    });
}

#[test]
fn anothers_interface_is_waited_for() {
    in_namespace(|| {
        run("ip tuntap add dev tap0 mode tap multi_queue");
        run("ip link set tap0 up");
        let bed = Bed::new("tap0", 2);
        let mut guest = bed.guest(OFFLOADS, NetOptions::default());
        carries(&mut guest, 0);
        for round in 1..4 {
            run("ip link delete tap0");
            assert!(!bed.check_host() && !bed.check_host());
            assert_eq!(is_up("tap0"), None);
            let discarded = bed.tx(0).discarded.get();
            guest
                .pair(0)
                .tx
                .send(&pattern(PEER, GUEST, 0, 100))
                .unwrap();
            guest.pair(0).tx.drain().unwrap();
            assert_eq!(bed.tx(0).discarded.get(), discarded + 1);
            // Something else has the name.
            run("ip link add tap0 type bridge");
            assert!(!bed.check_host());
            run("ip link delete tap0");
            run("ip tuntap add dev tap0 mode tap multi_queue");
            run("ip link set tap0 up");
            assert!(bed.check_host());
            carries(&mut guest, round);
        }
    });
}

#[test]
fn offloads_are_in_force_again() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 1);
        let mut guest = bed.guest(OFFLOADS, NetOptions::default());
        run("ip link delete tap0");
        assert!(bed.check_host());
        let (header, frame) = open(Ip::V4, TCP, 1, &[7; 5000]);
        let header = NetHeader {
            gso_type: GSO_TCPV4,
            gso_size: 1448,
            ..header
        };
        PacketSocket::with_headers("tap0").send_with(header, &turned(frame));
        let got = guest.pair(0).rx.recv(LONG).unwrap().expect("no frame");
        assert_eq!(got.header.gso_type, GSO_TCPV4);
    });
}
