//! Receive chains in which there is no room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bed::{Guest, frame};
use super::{MODERN, PLAIN, two};
use crate::backend::{Backend, Received, Room, Sent};
use crate::device::rx;
use crate::driver::queue::{DriverQueue, Segment};
use crate::net::frame::Batch;
use crate::virtio::memory::{Readable, copy};
use crate::virtio::net_header::NetHeader;
use crate::virtio::spec::feature;

/// Has one frame for its guest.
#[derive(Default)]
struct Waiting {
    taken: AtomicBool,
}

impl Backend for Waiting {
    fn features(&self) -> u64 {
        0
    }

    fn set_features(&self, _features: u64, _header_len: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn max_pairs(&self) -> u16 {
        1
    }

    fn send(&self, _pair: usize, _batch: &Batch<'_>) -> Sent {
        Sent::default()
    }

    fn receive(&self, _pair: usize, rx: &mut dyn Room) -> Received {
        if self.taken.load(Ordering::Relaxed) {
            return Received::Drained;
        }
        let frame = frame(2, 1, 60);
        match rx.room(frame.len()) {
            Ok(room) => copy(&[Readable::from_slice(&frame)], room),
            Err(why) => return why,
        };
        rx.finish(&NetHeader::default(), frame.len());
        self.taken.store(true, Ordering::Relaxed);
        Received::Drained
    }
}

/// Offers chains that nothing can be written into, then a good one; returns the
/// tokens of the former.
fn offer(guest: &mut Guest, features: u64) -> Vec<u32> {
    let address = guest.rx_buffers.guest_addr(0);
    let readable = Segment::to_device(address, 2048);
    let empty = Segment::from_device(address, 0);
    let mut useless = vec![(61, readable), (62, empty)];
    if features == feature::VERSION_1 {
        // A header alone is no room where buffers are not merged.
        useless.push((63, Segment::from_device(address, 12)));
    }
    for (token, segment) in &useless {
        assert!(guest.rx.add(&[*segment], *token).unwrap());
    }
    guest.offer(1, &[2048]);
    useless.into_iter().map(|(token, _)| token).collect()
}

fn check(guest: &mut Guest, useless: &[u32]) {
    for &token in useless {
        let back = guest.rx.pop().unwrap().unwrap();
        assert_eq!((back.token, back.len), (token, 0));
    }
    let [(header, got)] = <[_; 1]>::try_from(guest.received()).unwrap();
    assert_eq!((header.num_buffers, got), (1, frame(2, 1, 60)));
    let stats = &guest.pair.rx_stats;
    assert_eq!(stats.bad_chains.get(), useless.len() as u64);
}

/// They would be first for ever.
#[test]
fn chains_without_room_come_back_empty_from_a_switch() {
    for features in [feature::VERSION_1, MODERN] {
        let [mut a, mut b] = two([features; 2]);
        let useless = offer(&mut b, features);
        a.send(&[(PLAIN, frame(2, 1, 60))], &[]);
        check(&mut b, &useless);
    }
}

#[test]
fn chains_without_room_come_back_empty_from_a_back_end() {
    for features in [feature::VERSION_1, MODERN] {
        let mut guest = Guest::new(2, features, Arc::new(Waiting::default()));
        let useless = offer(&mut guest, features);
        guest.pair.backend_ready.store(true, Ordering::Release);
        rx::turn(&guest.pair);
        check(&mut guest, &useless);
    }
}
