//! How many batches a back end has at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::bed::{Guest, TX_SIZE, frame};
use super::{MODERN, PLAIN};
use crate::backend::{Backend, Sent};
use crate::device::pair::QueuePair;
use crate::net::frame::{BATCH, Batch};

/// What a back end was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Send(usize),
    Flush,
}

/// Takes several batches at once.
#[derive(Default)]
struct Gathering {
    batches: usize,
    gone: AtomicBool,
    calls: Mutex<Vec<Call>>,
    pair: OnceLock<Arc<QueuePair>>,
}

impl Backend for Gathering {
    fn features(&self) -> u64 {
        0
    }

    fn set_features(&self, _features: u64, _header_len: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn max_pairs(&self) -> u16 {
        1
    }

    fn send(&self, _pair: usize, batch: &Batch<'_>) -> Sent {
        let frames = batch.frames();
        self.calls.lock().unwrap().push(Call::Send(frames.len()));
        Sent {
            frames: frames.len().try_into().unwrap(),
            bytes: frames.iter().map(|frame| u64::from(frame.len)).sum(),
            dropped: 0,
        }
    }

    fn batches(&self) -> usize {
        self.batches
    }

    fn flush(&self, _pair: usize) -> bool {
        let mut calls = self.calls.lock().unwrap();
        let pair = self.pair.get().unwrap();
        assert!(pair.tx.is_locked());
        // The driver may have its frames back by now, and somebody asks.
        let sent = calls.iter().map(|call| match *call {
            Call::Send(frames) => frames as u64,
            Call::Flush => 0,
        });
        assert_eq!(pair.tx_stats.frames.get(), sent.sum());
        calls.push(Call::Flush);
        !self.gone.load(Ordering::Relaxed)
    }
}

fn guest(batches: usize) -> (Guest, Arc<Gathering>) {
    let back_end = Arc::new(Gathering {
        batches,
        ..Gathering::default()
    });
    let guest = Guest::new(1, MODERN, Arc::clone(&back_end) as _);
    assert!(back_end.pair.set(Arc::clone(&guest.pair)).is_ok());
    (guest, back_end)
}

fn send(guest: &mut Guest, frames: usize) {
    let frames: Vec<_> = (0..frames).map(|_| (PLAIN, frame(2, 1, 60))).collect();
    guest.send(&frames, &[]);
}

/// And the ring is not let go of in between: once it is stopped, nothing goes.
#[test]
fn what_waits_is_sent_with_one_flush() {
    let (mut guest, back_end) = guest(4);
    send(&mut guest, 3 * BATCH + 8);
    let all = [BATCH, BATCH, BATCH, 8].map(Call::Send);
    assert_eq!(
        *back_end.calls.lock().unwrap(),
        [&all[..], &[Call::Flush]].concat()
    );
    let stats = &guest.pair.tx_stats;
    assert_eq!((stats.frames.get(), stats.bytes.get()), (200, 200 * 60));
    assert_eq!(stats.batches.get(), 4);
}

#[test]
fn a_turn_has_as_many_batches_as_the_back_end_would_have() {
    let (mut guest, back_end) = guest(3);
    send(&mut guest, TX_SIZE.into());
    let [batch, flush] = [Call::Send(BATCH), Call::Flush];
    let calls = [batch, batch, batch, flush, batch, flush];
    assert_eq!(*back_end.calls.lock().unwrap(), calls);
}

#[test]
fn what_is_lost_at_the_end_of_a_turn_counts_as_dropped() {
    let (mut guest, back_end) = guest(4);
    back_end.gone.store(true, Ordering::Relaxed);
    send(&mut guest, 100);
    let stats = &guest.pair.tx_stats;
    assert_eq!((stats.frames.get(), stats.bytes.get()), (0, 0));
    assert_eq!(stats.dropped.get(), 100);
}
