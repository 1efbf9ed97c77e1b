//! Every kind of guest memory and of kick and call descriptors that front ends on
//! both systems have, under a real driver; `tests/freebsd/launcher` has what is
//! FreeBSD's alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vtnetd::driver::front_end::FrontEnd;
use vtnetd::driver::memory::{Memfd, MemorySource};
use vtnetd::driver::net::{NetDriver, NetOptions};
use vtnetd::driver::notifier::Signalling;

use crate::bed::Bed;
use crate::file::Files;

#[test]
fn every_kind_of_memory_and_of_notification_works() {
    let bed = Bed::new();
    let memories: [Arc<dyn MemorySource>; 2] =
        [Arc::new(Memfd), Arc::new(Files(std::env::temp_dir()))];
    let signallings = [
        Signalling::Eventfd,
        Signalling::Pipe,
        Signalling::SocketPair,
    ];
    let mut sent = 0;
    for memory in &memories {
        for signalling in signallings {
            let options = NetOptions {
                memory: Arc::clone(memory),
                signalling,
                regions: 2,
                ..NetOptions::default()
            };
            let front_end = FrontEnd::connect(&bed.directory.socket()).unwrap();
            let mut driver = NetDriver::start(front_end, &options).unwrap();
            // More than a pipe or a ring holds unless both sides empty theirs.
            for _ in 0..1000 {
                driver.pair(0).tx.send(&[0xff; 60]).unwrap();
                driver.pair(0).tx.drain().unwrap();
                sent += 1;
                let counted = bed.recorder.frames.load(Ordering::SeqCst);
                assert_eq!(counted, sent, "{memory:?}, {signalling:?}");
            }
        }
    }
}
