//! Tests of krings: leases in every order, hostile contents, stopping.

use std::sync::mpsc;

use proptest::prelude::*;

use super::*;
use crate::netmap::abi::Slot;
use crate::netmap::mem::tests::lone_ring;

fn kring(rx: bool, slots: u32) -> Kring {
    let memory = lone_ring(rx, slots, Kring::first_tail(rx, slots));
    let direction = if rx { Direction::Rx } else { Direction::Tx };
    Kring::new("vale0:test".to_owned(), direction, memory, Arc::default())
}

/// Writes `value` as the next slot's length.
fn write(lease: &mut Lease<'_>, value: u16) {
    let at = lease.slot(0).unwrap();
    lease.view().set_len_and_flags(at, value, 0x100);
    lease.written(1);
}

/// Takes what is there, as an application does.
fn read(kring: &Kring) -> Vec<u16> {
    kring.rxsync();
    let view = kring.view();
    let mut lens = Vec::new();
    while view.available() > 0 {
        let at = view.head();
        lens.push(view.slot(at).unwrap().len);
        view.set_cur(view.next(at));
        view.set_head(view.next(at));
    }
    lens
}

/// Gives slots up to `to` to a transmit ring.
fn hand_over(kring: &Kring, to: u32) {
    kring.view().set_cur(to);
    kring.view().set_head(to);
}

/// The slots that a sync which was begun sends when it goes on.
fn go_on(kring: &Kring) -> Option<(u32, u32)> {
    let mut sent = None;
    kring.go_on_with_txsync(|from, to| sent = Some((from, to)));
    sent
}

#[test]
fn a_sync_that_was_begun_sends_what_was_there_and_makes_room_for_the_next() {
    let kring = kring(false, 8);
    let view = kring.view();
    hand_over(&kring, 3);
    assert!(kring.begin_txsync());
    // The application goes on meanwhile.
    hand_over(&kring, 5);
    assert_eq!(go_on(&kring), Some((0, 3)));
    assert_eq!(go_on(&kring), None, "once");
    assert_eq!(view.tail(), 7, "the application was not told");
    assert!(kring.begin_txsync());
    assert_eq!(view.tail(), 2);
    assert_eq!(go_on(&kring), Some((3, 5)));
    // Who has used all room waits for the end of the sync.
    hand_over(&kring, 4);
    assert!(!kring.begin_txsync());
    let mut sent = None;
    let synced = kring.txsync(|from, to| sent = Some((from, to)));
    assert_eq!((sent, synced.ready), (Some((5, 4)), true));
    assert_eq!(view.tail(), 3);
}

#[test]
fn a_whole_sync_sends_what_one_that_was_begun_has_not() {
    let kring = kring(false, 8);
    hand_over(&kring, 3);
    assert!(kring.begin_txsync());
    let mut sent = None;
    kring.txsync(|from, to| sent = Some((from, to)));
    assert_eq!(sent, Some((0, 3)));
    assert_eq!(kring.view().tail(), 2);
    assert_eq!(go_on(&kring), None);
}

/// Two programs may have one ring, each served by a worker of its own.
#[test]
fn a_ring_is_locked_until_a_sync_that_was_begun_is_over() {
    let kring = kring(false, 8);
    hand_over(&kring, 3);
    assert!(kring.begin_txsync());
    assert!(kring.user.try_lock().is_ok());
    kring.go_on_with_txsync(|_, _| assert!(kring.user.try_lock().is_err()));
    assert_eq!(kring.hardware().hwcur, 3);
}

#[test]
fn no_sync_begins_on_a_ring_that_is_wrong_or_whose_pointers_are_elsewhere() {
    let kring = kring(false, 8);
    hand_over(&kring, 9);
    assert!(!kring.begin_txsync());
    assert!(kring.txsync(|_, _| panic!("nothing to send")).began_anew);
    kring.give(Some(Pointers { head: 1, cur: 1 }));
    assert!(!kring.begin_txsync());
}

#[test]
fn commits_are_published_in_the_order_of_the_reservations() {
    let kring = kring(true, 16);
    let mut first = kring.reserve(2).unwrap();
    let mut second = kring.reserve(2).unwrap();
    let mut third = kring.reserve(1).unwrap();
    write(&mut third, 5);
    drop(third);
    write(&mut first, 1);
    write(&mut second, 3);
    write(&mut second, 4);
    drop(second);
    assert_eq!(read(&kring), [], "what is behind an open lease waits");
    write(&mut first, 2);
    drop(first);
    assert_eq!(read(&kring), [1, 2, 3, 4, 5]);
}

#[test]
fn what_the_last_lease_did_not_use_is_free_again() {
    let kring = kring(true, 16);
    let mut first = kring.reserve(5).unwrap();
    assert_eq!(kring.space(), 10);
    write(&mut first, 1);
    let mut second = kring.reserve(6).unwrap();
    write(&mut second, 6);
    drop(second);
    assert_eq!(kring.space(), 9);
    // Reserved and not used at all: as if it had not been.
    drop(kring.reserve(9).unwrap());
    assert_eq!(kring.space(), 9);
    // Not the last: its slots stay, empty.
    drop(first);
    assert_eq!(kring.space(), 9);
    assert_eq!(read(&kring), [1, 0, 0, 0, 0, 6]);
}

#[test]
fn a_lease_is_never_larger_than_the_room() {
    let kring = kring(true, 8);
    let lease = kring.reserve(100).unwrap();
    assert_eq!(lease.left(), 7, "one slot stays empty");
    assert!(kring.reserve(1).is_none());
    drop(lease);
    assert!(kring.reserve(0).is_none());
    let mut lease = kring.reserve(7).unwrap();
    for value in 0..7 {
        assert!(lease.slot(0).is_some());
        write(&mut lease, value);
    }
    assert!(lease.slot(0).is_none());
    lease.written(1);
    assert_eq!(lease.left(), 0);
    drop(lease);
    assert!(kring.reserve(1).is_none());
    assert_eq!(read(&kring), (0..7).collect::<Vec<_>>());
    assert!(kring.reserve(1).is_none(), "read, but not given back yet");
    kring.rxsync();
    assert_eq!(kring.space(), 7);
}

#[test]
fn a_stopped_ring_takes_no_lease_and_waits_for_those_that_are_out() {
    let kring = kring(true, 8);
    let mut lease = kring.reserve(3).unwrap();
    let (stopping, stopped) = mpsc::channel();
    std::thread::scope(|scope| {
        let stopper = scope.spawn(|| {
            kring.stop();
            stopping.send(()).unwrap();
        });
        // The stop is seen when nothing can be reserved any more.
        while let Some(other) = kring.reserve(1) {
            drop(other);
            std::thread::yield_now();
        }
        assert!(stopped.try_recv().is_err(), "a lease is out");
        write(&mut lease, 9);
        drop(lease);
        stopper.join().unwrap();
    });
    assert!(stopped.try_recv().is_ok());
    assert_eq!(read(&kring), [9]);
}

#[test]
fn whoever_waits_is_woken_once() {
    let kring = kring(true, 8);
    let listener = Arc::new(Listener::new(Waker::new().unwrap()));
    kring.add_listener(&listener);
    let is_woken = || {
        let poller = crate::event::Poller::new().unwrap();
        let interest = crate::event::Interest::READ;
        poller
            .add(std::os::fd::AsFd::as_fd(listener.waker()), 1, interest)
            .unwrap();
        let mut events = crate::event::Events::new();
        poller
            .wait(&mut events, Some(std::time::Duration::ZERO))
            .unwrap();
        listener.waker().drain();
        !events.is_empty()
    };
    let send = || write(&mut kring.reserve(1).unwrap(), 1);
    send();
    assert!(!is_woken(), "nobody waits");
    listener.arm(Wake::FRAMES);
    drop(kring.reserve(1));
    assert!(!is_woken(), "nothing came");
    send();
    assert!(is_woken());
    send();
    assert!(!is_woken(), "woken already");
    listener.arm(Wake::FRAMES);
    kring.remove_listener(&listener);
    send();
    assert!(!is_woken(), "gone");
}

#[test]
fn a_transmit_ring_hands_over_what_lies_before_head_once() {
    let kring = kring(false, 8);
    let view = kring.view();
    assert_eq!((view.head(), view.tail(), view.available()), (0, 7, 7));
    let sent = |head: u32| {
        view.set_cur(head);
        view.set_head(head);
        let mut sent = None;
        kring.txsync(|from, to| sent = Some((from, to)));
        sent
    };
    assert_eq!(sent(0), None);
    assert_eq!(sent(5), Some((0, 5)));
    assert_eq!((view.tail(), view.available()), (4, 7));
    assert_eq!(sent(5), None);
    assert_eq!(sent(4), Some((5, 4)));
    assert_eq!(view.tail(), 3);
}

#[test]
fn a_wrong_transmit_ring_sends_nothing_and_begins_anew() {
    let kring = kring(false, 8);
    let view = kring.view();
    let good = view.slot(3).unwrap();
    view.set_slot(3, Slot { buf_idx: 1, ..good });
    view.set_head(8);
    kring.txsync(|_, _| panic!("sent"));
    assert_eq!((view.head(), view.cur(), view.tail()), (0, 0, 7));
    assert_eq!(view.slot(3).unwrap().buf_idx, 0);
    let counts = kring.counters().read();
    assert_eq!((counts.resets, counts.bad_slots), (1, 1));
}

#[test]
fn a_wrong_receive_ring_loses_nothing() {
    let kring = kring(true, 8);
    let mut lease = kring.reserve(3).unwrap();
    for value in [1, 2, 3] {
        write(&mut lease, value);
    }
    drop(lease);
    kring.rxsync();
    let view = kring.view();
    for (head, cur) in [(4, 4), (8, 0), (2, 1), (u32::MAX, u32::MAX)] {
        view.set_cur(cur);
        view.set_head(head);
        kring.rxsync();
        assert_eq!((view.head(), view.cur(), view.tail()), (0, 0, 3));
        assert_eq!(kring.space(), 4);
    }
    assert_eq!(kring.counters().read().resets, 4);
    assert_eq!(read(&kring), [1, 2, 3]);
}

#[test]
fn two_senders_keep_their_order_and_lose_nothing() {
    const EACH: u16 = 20_000;
    let kring = kring(true, 64);
    std::thread::scope(|scope| {
        for sender in [0, 0x8000] {
            let kring = &kring;
            scope.spawn(move || {
                let mut next = 0;
                while next < EACH {
                    let Some(mut lease) = kring.reserve(5) else {
                        std::thread::yield_now();
                        continue;
                    };
                    // Sometimes less than was reserved.
                    let mut quota = 1 + next % 5;
                    while quota > 0 && lease.left() > 0 && next < EACH {
                        // Length 0 means an unused slot.
                        write(&mut lease, sender | (next + 1));
                        next += 1;
                        quota -= 1;
                    }
                }
            });
        }
        let mut next = [1, 1];
        while next != [EACH + 1; 2] {
            for value in read(&kring) {
                if value != 0 {
                    let expected = &mut next[usize::from(value >> 15)];
                    assert_eq!(value & 0x7fff, *expected);
                    *expected += 1;
                }
            }
        }
    });
    kring.rxsync();
    assert_eq!(kring.space(), 63);
    assert_eq!(kring.counters().read().resets, 0);
}

/// What happens to a ring in the property below.
#[derive(Clone, Debug)]
enum Step {
    Reserve(u32),
    /// Ends one of the leases that are out, having written so many slots.
    End(usize, u32),
    /// Reads and gives back so many.
    Read(u32),
    /// Writes anything into the ring.
    Scribble(u32, u32, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u32..6).prop_map(Step::Reserve),
        3 => (any::<usize>(), 0u32..6).prop_map(|(which, used)| Step::End(which, used)),
        3 => (0u32..9).prop_map(Step::Read),
        1 => (0u32..12, 0u32..12, any::<u32>())
            .prop_map(|(head, cur, tail)| Step::Scribble(head, cur, tail)),
    ]
}

proptest! {
    /// Against a plain list: each lease's frames come out once, in the order
    /// of the leases, whatever the application writes in between.
    #[test]
    fn a_ring_is_a_queue(steps in proptest::collection::vec(step(), 1..200)) {
        let kring = kring(true, 8);
        let view = kring.view();
        // What was reserved: None while the lease is out, then what it wrote.
        let mut model: std::collections::VecDeque<(u64, Option<Vec<u16>>)> = Default::default();
        let mut out: Vec<(u64, Lease<'_>)> = Vec::new();
        let (mut number, mut value) = (0, 1);
        for step in steps {
            match step {
                Step::Reserve(want) => {
                    let space = kring.space();
                    let lease = kring.reserve(want);
                    prop_assert_eq!(lease.as_ref().map_or(0, Lease::left), want.min(space));
                    if let Some(lease) = lease {
                        number += 1;
                        model.push_back((number, None));
                        out.push((number, lease));
                    }
                }
                Step::End(which, used) => {
                    if out.is_empty() {
                        continue;
                    }
                    let (number, mut lease) = out.remove(which % out.len());
                    let mut wrote = Vec::new();
                    for _ in 0..used.min(lease.left()) {
                        write(&mut lease, value);
                        wrote.push(value);
                        value += 1;
                    }
                    drop(lease);
                    let entry = model.iter_mut().find(|(n, _)| *n == number).unwrap();
                    entry.1 = Some(wrote);
                }
                Step::Read(most) => {
                    kring.rxsync();
                    let mut expected: Vec<u16> = Vec::new();
                    for (_, wrote) in model.iter().map_while(|(n, w)| w.as_ref().map(|w| (n, w))) {
                        expected.extend(wrote);
                    }
                    let there: Vec<u16> = (0..view.available())
                        .map(|nth| view.slot((view.head() + nth) % 8).unwrap().len)
                        .collect();
                    let frames: Vec<u16> = there.iter().copied().filter(|len| *len != 0).collect();
                    prop_assert_eq!(frames, expected);
                    // Give some back.
                    let back = most.min(view.available());
                    let mut gone = there[..back as usize].iter().filter(|len| **len != 0).count();
                    while gone > 0 {
                        let wrote = model.front_mut().unwrap().1.as_mut().unwrap();
                        let here = gone.min(wrote.len());
                        wrote.drain(..here);
                        gone -= here;
                        if wrote.is_empty() {
                            model.pop_front();
                        }
                    }
                    let head = (view.head() + back) % 8;
                    view.set_cur(head);
                    view.set_head(head);
                    kring.rxsync();
                }
                Step::Scribble(head, cur, tail) => {
                    // Only what is wrong: what is right gives slots back.
                    kring.rxsync();
                    let hardware = kring.hardware();
                    let (first, last) = (hardware.hwcur, hardware.hwtail);
                    let behind = |from: u32, to: u32| (to + 8 - from) % 8;
                    let good = head < 8 && cur < 8
                        && behind(first, head) <= behind(first, last)
                        && behind(head, cur) <= behind(head, last);
                    if !good {
                        view.set_head(head);
                        view.set_cur(cur);
                        view.set_tail(tail);
                        let space = kring.space();
                        kring.rxsync();
                        prop_assert_eq!(kring.space(), space);
                        prop_assert_eq!(view.available(), behind(first, last));
                    }
                }
            }
        }
    }
}
