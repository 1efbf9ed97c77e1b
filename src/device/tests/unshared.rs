//! A ring whose front end shares no memory: nothing is wrong with it, and it
//! carries no frame, so whoever reads the log is told.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use super::bed::{SIZE, pipe};
use crate::device::vring::{Kick, Vring};
use crate::driver::memory::DriverMemory;
use crate::driver::queue::{DriverQueue, QueueOptions, SplitQueue};

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// How often it was said since this was asked last.
    fn warnings(&self) -> usize {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        let of_ring = text.matches("WARN guest1 rx0: ").count();
        assert_eq!(
            of_ring,
            text.matches("without sharing guest memory").count()
        );
        assert_eq!(of_ring, text.matches("share=on").count(), "with its cure");
        of_ring
    }
}

#[test]
fn a_start_without_memory_is_said_once() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt()
        .with_target(false)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(lines, || starts(&log));
}

fn starts(log: &Log) {
    let mut memory = DriverMemory::of_len(1 << 20, 1).unwrap();
    let queue = SplitQueue::new(&mut memory, SIZE, QueueOptions::from(0)).unwrap();
    let vring = Vring::new("guest1 rx0".into());
    let kick = || vring.set_kick(Kick::Poll).1.unwrap();

    // A ring that is not complete lacks more than memory.
    kick();
    vring.set_size(SIZE).unwrap();
    assert_eq!(log.warnings(), 0);
    vring.set_addresses(queue.addresses()).unwrap();
    assert_eq!(log.warnings(), 1);
    assert!(!vring.is_active() && !vring.is_failed());
    // Whatever else is said of the ring meanwhile.
    vring.set_call(Some(pipe().1)).unwrap();
    vring.enable(true);
    kick();
    assert_eq!(log.warnings(), 0);
    // Late, but right.
    vring.set_memory(Arc::clone(memory.table())).unwrap();
    assert!(vring.is_active());

    // Another start.
    vring.stop();
    vring.set_memory(Arc::default()).unwrap();
    assert_eq!(log.warnings(), 0);
    kick();
    assert_eq!(log.warnings(), 1);

    // Memory that is changed region by region while the ring runs.
    vring.stop();
    vring.set_memory(Arc::clone(memory.table())).unwrap();
    kick();
    vring.set_memory(Arc::default()).unwrap();
    vring.set_memory(Arc::clone(memory.table())).unwrap();
    assert!(vring.is_active());
    assert_eq!(log.warnings(), 0);
}
