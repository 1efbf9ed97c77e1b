//! The gate of a ring: stopped means drained, and commits are
//! seen in the order of reservation.

use std::sync::mpsc;
use std::thread;

use super::bed::{Guest, frame};
use super::{MODERN, PLAIN, two};
use crate::device::vring::Vring;
use crate::driver::queue::DriverQueue;
use crate::virtio::memory::{Readable, Writable};
use crate::virtio::queue::{Chain, Parts, Pop, VirtQueue};

struct Ignore;

impl<'m> Parts<'m> for Ignore {
    fn readable(&mut self, _part: Readable<'m>) -> Option<()> {
        Some(())
    }
    fn writable(&mut self, _part: Writable<'m>) -> Option<()> {
        Some(())
    }
}

/// Takes one chain under `lease`.
fn take(lease: &crate::device::vring::Lease<'_>) -> (crate::device::vring::Reservation, Chain) {
    let mut taken = None;
    let reservation = lease.reserve(|queue| {
        let Pop::Chain(chain) = queue.pop(lease.memory(), &mut Ignore)? else {
            return Ok(0);
        };
        taken = Some(chain);
        Ok(1)
    });
    (reservation.unwrap(), taken.unwrap())
}

fn receiver(buffers: u32) -> [Guest; 2] {
    let [a, mut b] = two([MODERN; 2]);
    b.offer(buffers, &[2048]);
    [a, b]
}

#[test]
fn commits_are_published_in_the_order_of_reservation() {
    let [_a, mut b] = receiver(4);
    let vring = &b.pair.rx;
    let (first, second) = (vring.lease().unwrap(), vring.lease().unwrap());
    let (early, chain1) = take(&first);
    let (late, chain2) = take(&second);
    second.commit(late, [(chain2, 22)].into_iter(), || {});
    assert_eq!(b.rx.pop().unwrap(), None, "the first is still out");
    first.commit(early, [(chain1, 11)].into_iter(), || {});
    let lens: Vec<_> = std::iter::from_fn(|| b.rx.pop().unwrap())
        .map(|c| c.len)
        .collect();
    assert_eq!(lens, [11, 22]);
}

/// Whatever changes the ring waits for the leases that are out, and lets no new
/// one in.
#[test]
fn a_change_waits_for_leases_and_keeps_new_ones_out() {
    type Change = fn(&Vring);
    let changes: [Change; 5] = [
        |vring| drop(vring.stop()),
        |vring| drop(vring.reset()),
        |vring| vring.set_call(None).unwrap(),
        |vring| vring.set_memory(Default::default()).unwrap(),
        |vring| vring.enable(false),
    ];
    for change in changes {
        let [_a, b] = receiver(4);
        let vring = &b.pair.rx;
        let lease = vring.lease().unwrap();
        let (reservation, chain) = take(&lease);
        let (done, finished) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                change(vring);
                done.send(()).unwrap();
            });
            // The gate is closed once no new lease is given.
            while vring.lease().is_some() {
                thread::yield_now();
            }
            assert!(finished.try_recv().is_err(), "it waits");
            lease.commit(reservation, [(chain, 1)].into_iter(), || {});
            finished.recv().unwrap();
        });
    }
}

#[test]
fn a_lease_that_is_dropped_opens_the_gate_too() {
    let [_a, b] = receiver(1);
    drop(b.pair.rx.lease().unwrap());
    b.pair.rx.stop();
    assert!(b.pair.rx.lease().is_none());
}

/// Two workers send to one guest while the control thread stops and starts its
/// ring: nothing is written into a stopped ring, and nothing hangs.
#[test]
fn a_ring_may_be_stopped_and_started_in_the_middle_of_traffic() {
    let switch = std::sync::Arc::new(crate::netmap::vale::Switch::new("vale0"));
    let mut receiver = Guest::on(&switch, 9, MODERN);
    receiver.offer(64, &[2048]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stopped = std::sync::atomic::Ordering::SeqCst;
    thread::scope(|scope| {
        for n in [1, 2] {
            let mut sender = Guest::on(&switch, n, MODERN);
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(stopped) {
                    sender.send(&[(PLAIN, frame(9, n, 60)), (PLAIN, frame(9, n, 1514))], &[]);
                }
            });
        }
        for _ in 0..200 {
            let (base, kick) = receiver.pair.rx.stop();
            let used = receiver.rx.ring().used_index();
            assert_eq!(base, used.into(), "everything taken has come back");
            receiver.received();
            receiver.offer(0, &[]);
            assert_eq!(
                receiver.rx.ring().used_index(),
                used,
                "a stopped ring is silent"
            );
            receiver.pair.rx.set_base(base).unwrap();
            receiver.pair.rx.set_kick(kick).1.unwrap();
            while receiver.rx.ring().used_index() == used && receiver.rx.outstanding() > 0 {
                thread::yield_now();
            }
            receiver.received();
            let free = 64 - u32::from(receiver.rx.outstanding());
            receiver.offer(free, &[2048]);
        }
        stop.store(true, stopped);
    });
}
