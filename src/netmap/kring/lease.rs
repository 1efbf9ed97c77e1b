//! Leases: room reserved in a receive ring.

use std::ops::Range;

use super::{Counts, Kring, lock};
use crate::netmap::mem::RingView;

/// Some slots of a receive ring that are this sender's to write, until it is
/// dropped: then those that were written are committed.
#[derive(Debug)]
pub struct Lease<'k> {
    kring: &'k Kring,
    view: RingView<'k>,
    number: u64,
    start: u32,
    at: u32,
    left: u32,
    counts: Counts,
}

impl Kring {
    /// Reserves up to `want` slots, as many as there are; `None` when there is
    /// none, or the ring is stopped.
    pub fn reserve(&self, want: u32) -> Option<Lease<'_>> {
        let view = self.view();
        let mut queue = lock(&self.queue);
        let slots = want.min(queue.space(&view));
        if slots == 0 || queue.stopped {
            return None;
        }
        let start = queue.hwlease;
        queue.hwlease = advance(&view, start, slots);
        let number = queue.done + queue.leases.len() as u64;
        queue.leases.push_back(None);
        Some(Lease {
            kring: self,
            view,
            number,
            start,
            at: start,
            left: slots,
            counts: Counts::default(),
        })
    }
}

/// The slot `count` after `at`, both at most the number of slots.
fn advance(view: &RingView<'_>, at: u32, count: u32) -> u32 {
    let slots = view.num_slots();
    let room = slots - at;
    if count < room {
        at + count
    } else {
        count - room
    }
}

impl<'k> Lease<'k> {
    /// Slots that are not written yet.
    #[inline]
    pub fn left(&self) -> u32 {
        self.left
    }

    /// The ring.
    #[inline]
    pub fn view(&self) -> RingView<'k> {
        self.view
    }

    /// The slots that are not written yet, as up to two ranges that do not go
    /// round.
    #[inline]
    pub fn slots(&self) -> [Range<u32>; 2] {
        self.view
            .runs(self.at..advance(&self.view, self.at, self.left))
    }

    /// The slot `nth` after those that are written, if it is in the lease.
    #[inline]
    pub fn slot(&self, nth: u32) -> Option<u32> {
        (nth < self.left).then(|| advance(&self.view, self.at, nth))
    }

    /// The next `slots` are written.
    #[inline]
    pub fn written(&mut self, slots: u32) {
        let slots = slots.min(self.left);
        self.at = advance(&self.view, self.at, slots);
        self.left -= slots;
    }

    /// What is counted when the lease ends.
    #[inline]
    pub fn counts(&mut self) -> &mut Counts {
        &mut self.counts
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.kring.queue);
        let last = self.number + 1 == queue.done + queue.leases.len() as u64;
        let mut keep = true;
        if self.left > 0 && last {
            queue.hwlease = self.at;
            keep = self.at != self.start;
        } else {
            // Others have reserved behind: what is not used stays, as empty
            // slots, which readers step over.
            while let Some(at) = self.slot(0) {
                self.view.set_len_and_flags(at, 0, 0);
                self.written(1);
            }
        }
        if keep {
            let place = usize::try_from(self.number - queue.done).ok();
            if let Some(end) = place.and_then(|at| queue.leases.get_mut(at)) {
                *end = Some(self.at);
            }
        } else {
            queue.leases.pop_back();
        }
        let before = queue.hardware.hwtail;
        while let Some(&Some(end)) = queue.leases.front() {
            queue.leases.pop_front();
            queue.done += 1;
            queue.hardware.hwtail = end;
        }
        let after = queue.hardware.hwtail;
        let published = after != before;
        if published && self.kring.watch.is_watched() {
            // Nobody else can touch these slots before the lock is given back.
            self.kring.watch.copy(&self.view, before..after, 0);
        }
        self.kring.counters.add(&self.counts);
        if queue.stopped && queue.leases.is_empty() {
            self.kring.drained.notify_all();
        }
        drop(queue);
        if published {
            self.kring.notify();
        }
    }
}
