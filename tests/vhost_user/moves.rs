//! A queue pair that goes from one worker to another while its driver sends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vtnetd::driver::front_end::FrontEnd;
use vtnetd::driver::net::{NetDriver, NetOptions};
use vtnetd::worker::Polling;

use crate::bed::{Bed, Plan};

fn drive(bed: &Bed) -> NetDriver {
    let front_end = FrontEnd::connect(&bed.directory.socket()).unwrap();
    NetDriver::start(front_end, &NetOptions::default()).unwrap()
}

#[test]
fn a_pair_that_moves_loses_nothing() {
    for polling in [
        Polling::default(),
        Polling::AtMost(Duration::ZERO),
        Polling::Always,
    ] {
        let bed = Bed::plan(Plan {
            polling,
            workers: 2,
            ..Plan::default()
        });
        let mut driver = drive(&bed);
        let worker = || bed.device.workers_of_pairs(&bed.workers).next().unwrap();
        // At rest, and each time there is something to do afterwards.
        for to in [1, 0, 0, 1, 7] {
            bed.device.move_pair(0, &bed.workers, to);
            assert_eq!(worker(), Some(to.min(1)));
            driver.pair(0).tx.send(&[0xff; 60]).unwrap();
            driver.pair(0).tx.drain().unwrap();
        }
        // In the middle of traffic.
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    driver.pair(0).tx.send(&[0xff; 60]).unwrap();
                }
                driver.pair(0).tx.drain().unwrap();
                done.store(true, Ordering::Release);
            });
            let mut to = 0;
            while !done.load(Ordering::Acquire) {
                bed.device.move_pair(0, &bed.workers, to);
                to = 1 - to;
            }
        });
        assert_eq!(bed.recorder.frames.load(Ordering::SeqCst), 20_005);
        assert_eq!(bed.device.pairs()[0].frames(), 20_005);
    }
}

/// New pairs go where there are the fewest.
#[test]
fn pairs_are_spread_over_the_workers() {
    let bed = Bed::plan(Plan {
        pairs: 4,
        workers: 2,
        ..Plan::default()
    });
    let workers: Vec<_> = bed
        .device
        .workers_of_pairs(&bed.workers)
        .flatten()
        .collect();
    assert_eq!(workers, [0, 1, 0, 1]);
    assert_eq!(bed.workers.measure().len(), 2);
}
