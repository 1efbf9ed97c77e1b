//! The orders in which front ends say things.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use vtnetd::frontend::vhost_user::message::Request;
use vtnetd::virtio::spec::feature;

use crate::bed::Bed;
use crate::front::{Front, Memory, Notifiers};
use crate::traps::{offer, ready};

#[test]
fn a_ring_that_was_disabled_before_its_start_stays_disabled() {
    // As old QEMUs do it with the pairs that their guest does not use.
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    front.enable(1, false);
    let features = feature::VERSION_1.to_ne_bytes();
    front.done(Request::SetFeatures, &features, &[]);
    let memory = Memory::new();
    front.share(&memory);
    let ring = front.start(1, &memory);
    front.done(Request::SetFeatures, &features, &[]);
    assert_eq!(offer(&bed, &memory, &ring, 0), (1, 0));
    front.enable(1, true);
    assert_eq!(offer(&bed, &memory, &ring, 1), (2, 1));
}

#[test]
fn frames_come_on_pairs_that_are_started_and_enabled() {
    let bed = Bed::new();
    let receiving = || bed.recorder.pairs.load(Ordering::SeqCst);
    let (mut front, memory) = ready(&bed);
    let _rings = [0, 1].map(|ring| front.start(ring, &memory));
    for ring in 0..4 {
        front.enable(ring, true);
    }
    assert_eq!(receiving(), 1, "two are enabled, one is started");
    let _more = [2, 3].map(|ring| front.start(ring, &memory));
    assert_eq!(receiving(), 2);
    front.enable(2, false);
    assert_eq!(receiving(), 1);
    front.enable(2, true);
    assert_eq!(receiving(), 2);
    front.stop(2);
    assert_eq!(receiving(), 1);
    // Who knows no protocol features starts one pair, and all are enabled.
    drop(front);
    let mut front = bed.connect();
    front.send(Request::SetFeatures, &feature::VERSION_1.to_ne_bytes(), &[]);
    front.sync();
    assert_eq!(receiving(), 1);
}

#[test]
fn who_changes_the_call_descriptor_misses_no_interrupt() {
    // The old one, or none, may have had the interrupt when nobody listened.
    let bed = Bed::new();
    let (mut front, memory) = ready(&bed);
    let first = Notifiers::new();
    front.prepare(1, &memory, None);
    front.enable(1, true);
    front.signal(Request::SetVringKick, 1, Some(first.kick.as_fd()));
    // Nothing was used: there is nothing to say.
    front.signal(Request::SetVringCall, 1, Some(first.call.as_fd()));
    assert!(first.call.read().is_err());
    front.signal(Request::SetVringCall, 1, None);
    memory.offer_frame(1, 0);
    first.kick.write(1).unwrap();
    let used = (0..10_000).any(|_| {
        front.sync();
        memory.used(1) == 1
    });
    assert!(used);
    front.signal(Request::SetVringCall, 1, Some(first.call.as_fd()));
    first.interrupted();
    let second = Notifiers::new();
    front.signal(Request::SetVringCall, 1, Some(second.call.as_fd()));
    second.interrupted();
    // Not while the ring is stopped, nor before it has used anything since.
    front.stop(1);
    front.signal(Request::SetVringCall, 1, Some(first.call.as_fd()));
    front.done(Request::SetVringBase, &Front::state(1, 1), &[]);
    front.signal(Request::SetVringKick, 1, Some(first.kick.as_fd()));
    front.signal(Request::SetVringCall, 1, Some(second.call.as_fd()));
    assert!(first.call.read().is_err() && second.call.read().is_err());
}
