//! Every rule of the prologues broken once, and both against a model.

use proptest::prelude::*;

use super::*;
use crate::netmap::abi::Slot;
use crate::netmap::mem::RingMemory;
use crate::netmap::mem::tests::lone_ring;

const N: u32 = 8;

fn ring(head: u32, cur: u32, tail: u32) -> RingMemory {
    let memory = lone_ring(false, N, tail);
    memory.view().set_head(head);
    memory.view().set_cur(cur);
    memory
}

/// What a prologue must say.
#[derive(Debug, PartialEq, Eq)]
enum Want {
    Good,
    Head,
    Cur,
}
use Want::{Cur, Good, Head};

fn said(result: Result<(), SyncError>) -> Want {
    match result {
        Ok(()) => Good,
        Err(SyncError::Head { .. }) => Head,
        Err(SyncError::Cur { .. }) => Cur,
    }
}

/// The application's slots are `first..tail`; each line is a rule of
/// nm_txsync_prologue or nm_rxsync_prologue: (first, tail, head, cur).
const RULES: [(u32, u32, u32, u32, Want); 34] = [
    // first <= tail: first <= head <= tail, head <= cur <= tail
    (2, 6, 2, 2, Good),
    (2, 6, 2, 6, Good),
    (2, 6, 4, 5, Good),
    (2, 6, 6, 6, Good),
    (2, 6, 1, 4, Head),
    (2, 6, 0, 0, Head),
    (2, 6, 7, 7, Head),
    (2, 6, 4, 3, Cur),
    (2, 6, 4, 1, Cur),
    (2, 6, 4, 7, Cur),
    (2, 6, 6, 7, Cur),
    (2, 6, 6, 2, Cur),
    // tail < first: head outside tail..first
    (6, 2, 6, 6, Good),
    (6, 2, 6, 2, Good),
    (6, 2, 7, 0, Good),
    (6, 2, 1, 2, Good),
    (6, 2, 2, 2, Good),
    (6, 2, 3, 3, Head),
    (6, 2, 5, 6, Head),
    // head <= tail: head <= cur <= tail
    (6, 2, 1, 0, Cur),
    (6, 2, 1, 3, Cur),
    (6, 2, 1, 7, Cur),
    // head >= first: cur outside tail..head
    (6, 2, 7, 6, Cur),
    (6, 2, 7, 3, Cur),
    (6, 2, 7, 5, Cur),
    // nothing is the application's
    (3, 3, 3, 3, Good),
    (3, 3, 4, 4, Head),
    (3, 3, 2, 3, Head),
    (3, 3, 3, 4, Cur),
    // not in the ring at all
    (2, 6, N, 4, Head),
    (6, 2, N, 7, Head),
    (2, 6, u32::MAX, 4, Head),
    (2, 6, 4, N, Cur),
    (6, 2, 7, u32::MAX, Cur),
];

#[test]
fn each_rule_of_a_transmit_ring() {
    for (first, tail, head, cur, want) in RULES {
        let memory = ring(head, cur, tail);
        let before = User {
            rhead: first,
            rcur: first,
            rtail: tail,
        };
        let mut user = before;
        let result = txsync_prologue(&mut user, &memory.view(), None);
        assert_eq!(said(result), want, "{first}..{tail}: {head}, {cur}");
        let taken = User {
            rhead: head,
            rcur: cur,
            rtail: tail,
        };
        assert_eq!(user, if want == Good { taken } else { before });
    }
}

#[test]
fn each_rule_of_a_receive_ring() {
    for (hwcur, hwtail, head, cur, want) in RULES {
        let memory = ring(head, cur, hwtail);
        // What the last sync said does not count, the hardware does.
        let before = User {
            rhead: 0,
            rcur: 0,
            rtail: hwtail,
        };
        let mut user = before;
        let hardware = Hardware { hwcur, hwtail };
        let result = rxsync_prologue(&mut user, hardware, &memory.view(), None);
        assert_eq!(said(result), want, "{hwcur}..{hwtail}: {head}, {cur}");
        let taken = User {
            rhead: head,
            rcur: cur,
            rtail: hwtail,
        };
        assert_eq!(user, if want == Good { taken } else { before });
    }
}

#[test]
fn an_overwritten_tail_is_put_right_and_not_believed() {
    for tail in [0, 3, 7, N, u32::MAX] {
        let user = User {
            rhead: 2,
            rcur: 2,
            rtail: 5,
        };
        let hardware = Hardware {
            hwcur: 2,
            hwtail: 5,
        };
        let memory = ring(5, 5, tail);
        let view = memory.view();
        assert_eq!(said(txsync_prologue(&mut user.clone(), &view, None)), Good);
        assert_eq!(view.tail(), 5);
        view.set_tail(tail);
        let mut user = user;
        assert_eq!(
            said(rxsync_prologue(&mut user, hardware, &view, None)),
            Good
        );
        assert_eq!(view.tail(), 5);
        // Nor does it let head pass what is the application's.
        view.set_head(6);
        view.set_cur(6);
        assert_eq!(said(txsync_prologue(&mut user.clone(), &view, None)), Head);
        assert_eq!(
            said(rxsync_prologue(&mut user, hardware, &view, None)),
            Head
        );
    }
}

#[test]
fn a_ring_that_begins_anew_has_no_bad_slot() {
    let memory = ring(99, u32::MAX, 77);
    let view = memory.view();
    let good = view.slot(0).unwrap();
    let bad_index = [0, 1, 1_000_000, u32::MAX];
    for (at, buf_idx) in (0..).zip(bad_index) {
        let len = 60;
        view.set_slot(
            at,
            Slot {
                buf_idx,
                len,
                ..good
            },
        );
    }
    view.set_slot(4, Slot { len: 2049, ..good });
    view.set_slot(5, Slot { len: 2048, ..good });
    let mut user = User::default();
    let hardware = Hardware {
        hwcur: 3,
        hwtail: 1,
    };
    assert_eq!(reinit(&mut user, hardware, &view), 5);
    assert_eq!((view.head(), view.cur(), view.tail()), (3, 3, 1));
    assert_eq!((user.rhead, user.rcur, user.rtail), (3, 3, 1));
    for at in 0..4 {
        let slot = view.slot(at).unwrap();
        assert_eq!((slot.buf_idx, slot.len), (0, 0));
    }
    let lens = [4, 5].map(|at| view.slot(at).unwrap());
    assert_eq!(lens[0], Slot { len: 0, ..good });
    assert_eq!(lens[1], Slot { len: 2048, ..good });
    assert_eq!(said(txsync_prologue(&mut user, &view, None)), Good);
}

#[test]
fn a_sync_ends_with_the_tail_and_the_time() {
    let memory = ring(0, 0, 0);
    let view = memory.view();
    let mut user = User::default();
    let hardware = Hardware {
        hwcur: 0,
        hwtail: 4,
    };
    finalize(&mut user, hardware, &view, false);
    assert_eq!((user.rtail, view.tail()), (4, 4));
    assert_eq!(view.timestamp(), Timeval::default());
    timestamp(&view);
    let ts = view.timestamp();
    assert!(ts.tv_sec > 1_700_000_000 && (0..1_000_000).contains(&ts.tv_usec));
}

/// The slots from `first` to `last`, walked one by one.
fn walk(n: u32, first: u32, last: u32) -> Vec<u32> {
    let mut slots = vec![first];
    while slots.last() != Some(&last) {
        let at = slots.last().map_or(0, |at| (at + 1) % n);
        slots.push(at);
    }
    slots
}

fn position(n: u32) -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..n, 1 => n..n + 3, 1 => any::<u32>()]
}

/// A ring's size, hardware, and what the application wrote.
fn scene() -> impl Strategy<Value = (u32, Hardware, [u32; 3])> {
    (1u32..12).prop_flat_map(|n| {
        let hardware = (0..n, 0..n).prop_map(|(hwcur, hwtail)| Hardware { hwcur, hwtail });
        (Just(n), hardware, [position(n), position(n), position(n)])
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]
    /// What is taken over is what a walk over the slots allows; whatever was
    /// there, a ring that begins anew is one that can be synced.
    #[test]
    fn what_is_taken_over_is_what_a_walk_allows((n, hardware, [head, cur, tail]) in scene()) {
        let memory = lone_ring(true, n, tail);
        let view = memory.view();
        view.set_head(head);
        view.set_cur(cur);
        let allowed = walk(n, hardware.hwcur, hardware.hwtail).contains(&head)
            && walk(n, head, hardware.hwtail).contains(&cur);
        let before = User { rhead: hardware.hwcur, rcur: 0, rtail: hardware.hwtail };
        let mut tx = before;
        let mut rx = before;
        prop_assert_eq!(txsync_prologue(&mut tx, &view, None).is_ok(), allowed);
        view.set_tail(tail);
        prop_assert_eq!(rxsync_prologue(&mut rx, hardware, &view, None).is_ok(), allowed);
        prop_assert_eq!(tx, rx);
        if allowed {
            prop_assert_eq!((rx.rhead, rx.rcur, view.tail()), (head, cur, hardware.hwtail));
        } else {
            prop_assert_eq!(rx, before);
            reinit(&mut rx, hardware, &view);
            prop_assert_eq!((view.head(), view.tail()), (hardware.hwcur, hardware.hwtail));
            prop_assert!(txsync_prologue(&mut rx, &view, None).is_ok());
            prop_assert!(rxsync_prologue(&mut rx, hardware, &view, None).is_ok());
        }
    }
}
