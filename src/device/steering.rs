//! Which receive queue a frame goes to, where the driver has several in use:
//! that of the pair on which it last sent a frame of the same flow (automatic
//! receive steering, 5.1.6.5.5). For other flows their number decides. Either
//! way the frames of a flow go to one queue, and stay in order.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use crate::net::frame::Batch;

/// Flows that are known at a time: a power of two.
const FLOWS: usize = 1024;

/// A flow that the driver has sent. A flow's number says where its entry is,
/// and no other takes that place while it is in use: two flows that took it from
/// each other would be led from one queue to the other all the time.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    number: u32,
    /// When it was sent last.
    epoch: u16,
    /// On which pair, counted from 1; 0: there is no entry.
    pair: u16,
}

impl Entry {
    fn to_bits(self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.epoch) << 16 | u64::from(self.pair)
    }

    #[expect(clippy::cast_possible_truncation, reason = "fields of the word")]
    fn from_bits(bits: u64) -> Self {
        Self {
            number: (bits >> 32) as u32,
            epoch: (bits >> 16) as u16,
            pair: bits as u16,
        }
    }
}

/// The flows of a device. Every pair's worker writes, every sender reads.
pub(super) struct Steering {
    /// Empty where there is nothing to choose.
    flows: Box<[AtomicU64]>,
    /// Time, in steps of [`age`](Self::age).
    epoch: AtomicU16,
}

impl Steering {
    /// For a device of so many pairs.
    pub(super) fn new(pairs: u16) -> Self {
        let flows = if pairs > 1 { FLOWS } else { 0 };
        Self {
            flows: (0..flows).map(|_| AtomicU64::new(0)).collect(),
            epoch: AtomicU16::new(0),
        }
    }

    fn place(&self, number: u32) -> Option<&AtomicU64> {
        self.flows.get(number as usize % FLOWS)
    }

    /// The driver has sent `batch` on pair `pair`.
    pub(super) fn learn(&self, batch: &mut Batch<'_>, pair: usize) {
        if self.flows.is_empty() {
            return;
        }
        // Whoever receives them may have several pairs, too.
        batch.find_flows();
        let mut last = None;
        for &flow in batch.flows() {
            if last.replace(flow) != Some(flow) {
                self.note(flow, pair);
            }
        }
    }

    fn note(&self, number: u32, pair: usize) {
        let Some(place) = self.place(number) else {
            return;
        };
        let epoch = self.epoch.load(Ordering::Relaxed);
        let there = Entry::from_bits(place.load(Ordering::Relaxed));
        let in_use = there.pair != 0 && epoch.wrapping_sub(there.epoch) <= 1;
        if in_use && there.number != number {
            return;
        }
        let pair = u16::try_from(pair).map_or(0, |pair| pair + 1);
        let entry = Entry {
            number,
            epoch,
            pair,
        };
        // Most often it is there, in the cache of everybody who looks.
        if entry != there {
            place.store(entry.to_bits(), Ordering::Relaxed);
        }
    }

    /// Which of the first `active` pairs the frames of a flow go to.
    #[inline]
    pub(super) fn pair_of(&self, number: u32, active: usize) -> usize {
        let known = self.place(number).and_then(|place| {
            let there = Entry::from_bits(place.load(Ordering::Relaxed));
            let pair = usize::from(there.pair).checked_sub(1)?;
            (there.number == number && pair < active).then_some(pair)
        });
        known.unwrap_or_else(|| {
            let share = (u64::from(number) * active as u64) >> 32;
            usize::try_from(share).unwrap_or(0)
        })
    }

    /// Begins the next epoch: a flow of which nothing was sent in a whole one
    /// gives way to another.
    pub(super) fn age(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets every flow.
    pub(super) fn clear(&self) {
        for flow in &self.flows {
            flow.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_comes_back_to_where_it_was_sent() {
        let steering = Steering::new(4);
        let flows = [1, 2, u32::MAX, 0x8000_0000];
        for pair in 0..4 {
            for flow in flows {
                steering.note(flow, pair);
                assert_eq!(steering.pair_of(flow, 4), pair);
            }
        }
        // The driver has given up the last pairs.
        for flow in flows {
            assert_eq!(steering.pair_of(flow, 2), Steering::new(4).pair_of(flow, 2));
        }
        steering.clear();
        assert_eq!(steering.pair_of(1, 4), 0);
    }

    #[test]
    fn unknown_flows_are_spread_over_the_pairs_in_use() {
        let steering = Steering::new(8);
        for active in 1..=8 {
            let mut counts = vec![0_usize; active];
            for flow in 0..800 {
                counts[steering.pair_of(flow * (u32::MAX / 800), active)] += 1;
            }
            let even = 800 / active;
            assert!(counts.iter().all(|count| count.abs_diff(even) <= 2));
        }
    }

    /// Two flows with one place: the second is steered by its number until the
    /// first has rested.
    #[test]
    fn a_flow_in_use_keeps_its_place() {
        let (first, second) = (5, 5 + 1024);
        let steering = Steering::new(2);
        let unknown = steering.pair_of(second, 2);
        let other = 1 - unknown;
        steering.note(first, 1);
        for _ in 0..3 {
            steering.age();
            steering.note(second, other);
            assert_eq!(steering.pair_of(second, 2), unknown);
            steering.note(first, 1);
            assert_eq!(steering.pair_of(first, 2), 1);
        }
        steering.age();
        steering.age();
        steering.note(second, other);
        assert_eq!(steering.pair_of(second, 2), other);
    }

    #[test]
    fn one_pair_needs_no_table() {
        let steering = Steering::new(1);
        steering.note(7, 0);
        assert_eq!(steering.pair_of(7, 1), 0);
        assert!(steering.flows.is_empty());
    }
}
