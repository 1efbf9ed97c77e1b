//! A number that is counted up on the data path and read from anywhere.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer at a time (a queue's owner, or whoever holds the
/// lock that it is under), so that writing is a load and a store; anyone may
/// read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; for the one writer.
    #[inline]
    pub fn add(&self, n: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(n), Ordering::Relaxed);
    }

    /// What was counted too early is not counted after all; for the one writer.
    #[cold]
    pub fn take_back(&self, n: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_sub(n), Ordering::Relaxed);
    }

    /// Adds `n`, where several may write: off the fast path.
    pub fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What it says.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
