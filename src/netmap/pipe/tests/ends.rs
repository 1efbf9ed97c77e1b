//! Tests of how loans end: what a client has done counts, whatever it says of
//! itself and however it went.

use super::loans::*;
use super::*;
use crate::event::Waker;
use crate::netmap::kring::{Listener, Wake};

/// A client that is stopped, or hears that a half is not its own any more, after
/// it has sent frames and before it says so.
#[test]
fn what_was_sent_is_not_sent_again() {
    // Whole frames, and the beginning of one.
    for (parts, whole) in [
        ([0, 0], 2),
        ([0, NS_MOREFRAG], 1),
        ([NS_MOREFRAG, NS_MOREFRAG], 0),
    ] {
        let region = region();
        let link = link(&region);
        let [tx, rx] = [Direction::Tx, Direction::Rx].map(|way| link.kring(way));
        assert!(link.lend(Direction::Tx, HOLDER));
        for (at, flags) in (0..).zip(parts) {
            let slot = tx.view().slot(at).unwrap();
            tx.view().set_slot(
                at,
                Slot {
                    len: 60,
                    flags,
                    ..slot
                },
            );
        }
        advance(&tx.view(), 2);
        let passed = passing(&link).send(2, tx.hardware(), |_| true);
        assert_eq!(passed.more, whole > 0);
        link.take_back(Direction::Tx, HOLDER);
        assert_eq!(tx.hardware().hwcur, whole);
        // The receiver puts another buffer in the place of each.
        link.rxsync();
        assert_eq!(rx.view().tail(), whole);
        for at in 0..whole {
            let slot = rx.view().slot(at).unwrap();
            let buf_idx = slot.buf_idx + 100;
            rx.view().set_slot(at, Slot { buf_idx, ..slot });
        }
        link.txsync();
        for at in 0..whole {
            assert_eq!(buffer(rx, at), buffer(tx, at) + 100);
        }
        // The rest comes after it.
        put(&link, &[(60, 0)]);
        link.rxsync();
        assert_eq!(rx.view().tail(), 3);
    }
}

/// As above, of what it has released.
#[test]
fn what_was_released_is_not_released_again() {
    let region = region();
    let link = link(&region);
    let [tx, rx] = [Direction::Tx, Direction::Rx].map(|way| link.kring(way));
    put(&link, &[(60, 0), (61, 0)]);
    assert_eq!(take(&link, false), [60, 61]);
    assert!(link.lend(Direction::Rx, HOLDER));
    advance(&rx.view(), 2);
    assert!(passing(&link).take(2, rx.hardware(), || true).more);
    link.take_back(Direction::Rx, HOLDER);
    assert_eq!(rx.hardware().hwcur, 2);
    // The sender has it, and puts something there.
    link.txsync();
    let slot = tx.view().slot(0).unwrap();
    tx.view().set_slot(0, Slot { len: 99, ..slot });
    link.rxsync();
    assert_eq!(tx.view().slot(0).unwrap().len, 99);
}

/// A half that is lent is where it was when it comes back.
#[test]
fn what_is_begun_of_a_frame_stays_begun() {
    let region = region();
    let link = link(&region);
    let tx = link.kring(Direction::Tx);
    put(&link, &[(60, NS_MOREFRAG); 3]);
    let before = (tx.user(), tx.hardware());
    assert!(link.lend(Direction::Tx, HOLDER));
    assert!(link.try_recall(Direction::Tx));
    assert_eq!((tx.user(), tx.hardware()), before);
}

/// A client that is stopped after it has passed something, and before it says
/// that somebody is to be told.
#[test]
fn who_sleeps_is_told_when_a_half_comes_back() {
    let region = region();
    let link = link(&region);
    let listener = Arc::new(Listener::new(Waker::new().unwrap()));
    link.kring(Direction::Rx).add_listener(&listener);
    let client = client(&region, &link, Direction::Tx);
    for fired in 0..3 {
        assert!(link.lend(Direction::Tx, HOLDER));
        listener.arm(Wake::FRAMES);
        link.wait_for(Direction::Rx);
        fill(&link, 60, 1);
        client.sync_each(Direction::Tx).unwrap();
        assert_eq!(listener.fired(), fired);
        match fired {
            0 => assert!(link.try_recall(Direction::Tx)),
            1 => link.take_back(Direction::Tx, HOLDER),
            _ => link.leave(Direction::Tx),
        }
        assert_eq!(listener.fired(), fired + 1);
        assert!(!link.is_lent_to(Direction::Tx, HOLDER));
    }
}

/// What a holder writes that is none of the ring's.
#[test]
fn places_outside_of_the_ring_are_believed_of_nobody() {
    let region = region();
    let link = link(&region);
    for direction in [Direction::Tx, Direction::Rx] {
        let kring = link.kring(direction);
        let progress = kring.memory().progress().unwrap();
        assert!(link.lend(direction, HOLDER));
        for word in 2..7 {
            progress.scribble(word, u32::MAX);
        }
        link.take_back(direction, HOLDER);
        let (user, hardware) = (kring.user(), kring.hardware());
        for at in [user.rhead, user.rcur, user.rtail] {
            assert!(at < SLOTS, "{direction:?} {user:?}");
        }
        assert!(hardware.hwcur < SLOTS && hardware.hwtail < SLOTS);
        // How far the other half may go.
        progress.scribble(7, u32::MAX);
        match direction {
            Direction::Tx => link.rxsync(),
            Direction::Rx => link.txsync(),
        };
        assert!(link.kring(direction.other()).hardware().hwtail < SLOTS);
    }
}

/// A pipe goes while a half is lent, and the sender has put buffers elsewhere
/// that it got back.
#[test]
fn what_is_lent_goes_back_once() {
    let region = region();
    let free = region.free();
    let link = link(&region);
    let receiver = client(&region, &link, Direction::Rx);
    put(&link, &[(60, 0), (61, 0)]);
    assert!(link.lend(Direction::Rx, HOLDER));
    receiver.sync_each(Direction::Rx).unwrap();
    assert_eq!(empty(&link, 2), [60, 61]);
    receiver.sync_each(Direction::Rx).unwrap();
    link.txsync();
    let tx = link.kring(Direction::Tx).view();
    let [first, last] = [0, 5].map(|at| tx.slot(at).unwrap());
    tx.set_slot(0, last);
    tx.set_slot(5, first);
    drop((receiver, link));
    assert_eq!(region.free(), free);
}

/// A client that was stopped in a sync, taken for dead, and goes on.
#[test]
fn a_sync_of_a_half_that_is_lost_publishes_nothing() {
    let region = region();
    let link = link(&region);
    put(&link, &[(60, 0), (61, 0)]);
    assert_eq!(take(&link, false), [60, 61]);
    link.txsync();
    for direction in [Direction::Tx, Direction::Rx] {
        let both = [direction, direction.other()].map(|way| {
            let kring = link.kring(way);
            (kring.view(), kring.memory().progress().unwrap())
        });
        let [(own, progress), _] = both;
        let before = progress.passed();
        let client = client(&region, &link, direction);
        assert!(link.lend(direction, HOLDER));
        advance(&own, 2);
        let busy = progress.begin(HOLDER).unwrap();
        link.take_back(direction, HOLDER);
        assert_eq!(client.sync_begun(direction, both, busy), None);
        assert_eq!(progress.passed(), before, "{direction:?}");
    }
}
