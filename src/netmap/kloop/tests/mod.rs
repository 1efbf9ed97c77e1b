//! Loops on real rings: the client in one thread, its loop in another.

mod bed;

use std::sync::atomic::Ordering;
use std::thread;

use nix::errno::Errno;

use super::*;
#[cfg(target_os = "linux")]
use crate::netmap::abi::option::*;
use bed::{App, core};

/// Both ends of a pipe, each with a loop, send to each other all at once; short
/// rings, so that each is full and empty often.
fn both_ways(mode: Option<u32>, frames: u32) {
    let core = core();
    let [a, b] = ["vale0:p{1", "vale0:p}1"].map(|name| App::new(&core, name, 16));
    let events = mode.is_some();
    a.while_looping(mode, 0, || {
        b.while_looping(mode, 0, || {
            thread::scope(|scope| {
                for (from, to) in [(&a, &b), (&b, &a)] {
                    let (mut tx, mut rx) = (from.half(Direction::Tx), to.half(Direction::Rx));
                    scope.spawn(move || tx.send(0..frames, events));
                    scope.spawn(move || assert_eq!(rx.receive(0..frames, events), 0));
                }
            });
        });
    });
}

#[test]
fn a_loop_that_looks_by_itself() {
    both_ways(None, 2_000);
}

#[cfg(target_os = "linux")]
#[test]
fn a_loop_that_is_woken_and_wakes() {
    both_ways(Some(0), 10_000);
}

#[cfg(target_os = "linux")]
#[test]
fn rings_that_are_synced_when_their_client_says_so() {
    for mode in [
        NM_OPT_SYNC_KLOOP_DIRECT_TX,
        NM_OPT_SYNC_KLOOP_DIRECT_RX,
        NM_OPT_SYNC_KLOOP_DIRECT_TX | NM_OPT_SYNC_KLOOP_DIRECT_RX,
    ] {
        both_ways(Some(mode), 5_000);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn ports_of_a_switch() {
    let core = core();
    let [a, b] = ["vale0:a", "vale0:b"].map(|name| App::new(&core, name, 1024));
    a.while_looping(Some(0), 0, || {
        b.while_looping(Some(0), 0, || {
            // Fewer than the ring has slots: none is dropped.
            a.half(Direction::Tx).send(0..1000, true);
            assert_eq!(b.half(Direction::Rx).receive(0..1000, true), 0);
        });
    });
}

#[test]
fn a_client_that_says_nonsense_spoils_its_ring_alone() {
    let core = core();
    let [a, b] = ["vale0:p{1", "vale0:p}1"].map(|name| App::new(&core, name, 16));
    a.while_looping(None, 50, || {
        b.while_looping(None, 50, || {
            let (mut tx, mut rx) = (a.half(Direction::Tx), b.half(Direction::Rx));
            tx.send(0..10, false);
            assert_eq!(rx.receive(0..10, false), 0);
            let (mut other_tx, mut other_rx) = (b.half(Direction::Tx), a.half(Direction::Rx));
            let [head, cur, _] = tx.atok();
            for (nth, wrong) in (0..).zip([16, u32::MAX, 12]) {
                cur.store(wrong.wrapping_sub(1), Ordering::Relaxed);
                head.store(wrong, Ordering::Relaxed);
                // The second frame comes in a later round than the first: the
                // loop has looked at the wrong numbers between.
                for frame in [2 * nth, 2 * nth + 1] {
                    other_tx.send(frame..frame + 1, false);
                    assert_eq!(other_rx.receive(frame..frame + 1, false), 0);
                }
            }
            // Where the port is, the client can go on.
            let hwcur = tx.ktoa()[0].load(Ordering::Relaxed);
            head.store(hwcur, Ordering::SeqCst);
            cur.store(hwcur, Ordering::SeqCst);
            tx.head = hwcur;
            for from in (10..500).step_by(10) {
                tx.send(from..from + 10, false);
                assert_eq!(rx.receive(from..from + 10, false), 0);
            }
        });
    });
}

#[test]
fn a_loop_ends_when_it_is_stopped_and_can_begin_again() {
    let core = core();
    let app = App::new(&core, "vale0:a", 16);
    let modes: &[Option<u32>] = if cfg!(target_os = "linux") {
        &[None, Some(0), Some(3)]
    } else {
        &[None]
    };
    for mode in modes {
        // Asleep for a second, or for good.
        app.while_looping(*mode, 1_000_000, || {
            assert_eq!(app.start(*mode, 0).err(), Some(Errno::EBUSY));
        });
    }
    app.stop();
    assert!(app.start(None, 0).unwrap().is_none(), "stopped already");
}

#[cfg(target_os = "linux")]
#[test]
fn descriptors_that_are_no_eventfds() {
    let core = core();
    let mut app = App::new(&core, "vale0:a", 16);
    let [_, irq] = &mut app.irqfds;
    *irq = std::fs::File::open("/dev/null").unwrap().into();
    let socket = app.start(Some(0), 0).unwrap().unwrap();
    assert_eq!(app.run(socket), Err(Errno::EINVAL));
    // It has ended.
    assert!(app.start(None, 0).unwrap().is_some());
}
