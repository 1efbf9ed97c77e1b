//! A half of a pipe's link that is lent: its holder and the service, which takes
//! it back, and somebody who sleeps at the other half.

use std::num::NonZeroU32;
use std::sync::Arc;

use vtnetd::netmap::mem::{Line, Progress};
use vtnetd::netmap::sync::{Hardware, User};
use vtnetd::word::model::{Bell, explore, spawn};

/// Changes of threads that could have gone on, in one run of a model.
const CHANGES: usize = 3;
const HOLDER: NonZeroU32 = NonZeroU32::new(7).unwrap();

/// Where a half is after so many syncs.
fn state(syncs: u32) -> (User, Hardware) {
    let user = User {
        rhead: syncs,
        rcur: syncs,
        rtail: syncs,
    };
    let hardware = Hardware {
        hwcur: syncs,
        hwtail: syncs,
    };
    (user, hardware)
}

fn set(progress: &Progress<'_>, syncs: u32) {
    let (user, hardware) = state(syncs);
    progress.set_state(user, hardware);
}

/// Once the service has it back, it has all that the holder did, and the holder
/// does no more.
#[test]
fn what_is_taken_back_is_the_services_alone() {
    const SERVICES: u32 = 100;
    let model = || {
        let line = Arc::new(Line::default());
        line.share();
        let progress = Progress::private(&line);
        set(&progress, 0);
        assert!(progress.lend(HOLDER));
        let theirs = Arc::clone(&line);
        let holder = spawn(move || {
            let progress = Progress::private(&theirs);
            for nth in 0..2 {
                let Some(busy) = progress.begin(HOLDER) else {
                    return;
                };
                assert_eq!(progress.state(), state(nth));
                set(&progress, nth + 1);
                drop(busy);
            }
        });
        let at_once = progress.recall();
        if at_once {
            let (user, _) = progress.state();
            assert_eq!(progress.state(), state(user.rhead));
            set(&progress, SERVICES);
        }
        holder.join().unwrap();
        assert!(progress.recall());
        let (user, _) = progress.state();
        assert_eq!(progress.state(), state(user.rhead));
        assert_eq!(user.rhead == SERVICES, at_once);
    };
    explore(CHANGES, &[Arc::new(model)]);
}

/// Who sleeps until more is passed is told, or has seen it before. Whoever tells
/// asks who is there to be told: here, whose word in a line of its own is 1.
#[test]
fn nobody_sleeps_over_what_is_passed() {
    let model = || {
        let line = Arc::new(Line::default());
        line.share();
        let there = Arc::new(Line::default());
        there.share();
        let bell = Arc::new(Bell::default());
        let theirs = (Arc::clone(&line), Arc::clone(&there));
        let ring = Arc::clone(&bell);
        let holder = spawn(move || {
            let progress = Progress::private(&theirs.0);
            let there = Progress::private(&theirs.1);
            for passed in 1..=3 {
                progress.pass(passed);
                if progress.is_awaited() {
                    progress.told();
                    if there.passed() == 1 {
                        there.pass(0);
                        ring.ring();
                    }
                }
            }
        });
        let progress = Progress::private(&line);
        let there = Progress::private(&there);
        let mut seen = 0;
        while seen != 3 {
            there.pass(1);
            progress.await_more();
            if progress.passed() == seen {
                bell.wait();
            }
            seen = progress.passed();
        }
        holder.join().unwrap();
    };
    explore(CHANGES, &[Arc::new(model)]);
}
