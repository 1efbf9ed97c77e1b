//! Counting what arrived, what did not, and what came twice or late.

use super::{Probe, Verdict};

/// How far back a late frame can be told from a second copy.
const WINDOW: u32 = 1024;
/// Streams that are told apart; frames of more are counted as foreign.
const STREAMS: usize = 64;

/// What arrived of one stream's sequence numbers. Counting begins with the
/// first that arrives.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// The number after the highest so far.
    next: u32,
    /// A bit for each of the last [`WINDOW`] numbers: it has arrived.
    seen: [u64; (WINDOW / 64) as usize],
    lost: u64,
    late: u64,
    duplicate: u64,
}

impl Sequence {
    /// Begins with `first`.
    pub fn new(first: u32) -> Self {
        Self {
            next: first,
            // What was before counts as seen: nobody knows.
            seen: [u64::MAX; (WINDOW / 64) as usize],
            lost: 0,
            late: 0,
            duplicate: 0,
        }
    }

    fn bit(sequence: u32) -> (usize, u64) {
        let at = sequence % WINDOW;
        ((at / 64) as usize, 1 << (at % 64))
    }

    /// Counts one arrival.
    #[inline]
    pub fn arrived(&mut self, sequence: u32) {
        if sequence == self.next {
            let (word, bit) = Self::bit(sequence);
            self.seen[word] |= bit;
            self.next = sequence.wrapping_add(1);
        } else {
            self.out_of_turn(sequence);
        }
    }

    #[cold]
    fn out_of_turn(&mut self, sequence: u32) {
        let (word, bit) = Self::bit(sequence);
        let ahead = sequence.wrapping_sub(self.next);
        let behind = self.next.wrapping_sub(sequence);
        if ahead < 1 << 31 {
            self.lost += u64::from(ahead);
            for skipped in 0..ahead.min(WINDOW) {
                let (word, bit) = Self::bit(sequence.wrapping_sub(skipped + 1));
                self.seen[word] &= !bit;
            }
            self.seen[word] |= bit;
            self.next = sequence.wrapping_add(1);
        } else if behind <= WINDOW && self.seen[word] & bit != 0 {
            self.duplicate += 1;
        } else {
            self.seen[word] |= if behind <= WINDOW { bit } else { 0 };
            self.late += 1;
            self.lost = self.lost.saturating_sub(1);
        }
    }
}

/// What arrived, of all streams.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    streams: Vec<(u16, Sequence)>,
    /// Probes as they were sent.
    pub good: u64,
    /// Probes that changed on the way.
    pub corrupt: u64,
    /// Frames that are not ours.
    pub foreign: u64,
}

impl Tally {
    /// Counts one frame. A corrupt one counts as lost too: its number is
    /// nothing to go by.
    #[inline]
    pub fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Good(probe) => self.probe(probe),
            Verdict::Corrupt => self.corrupt += 1,
            Verdict::Foreign => self.foreign += 1,
        }
    }

    #[inline]
    fn probe(&mut self, probe: Probe) {
        let known = self.streams.iter_mut().find(|(id, _)| *id == probe.stream);
        if let Some((_, sequence)) = known {
            sequence.arrived(probe.sequence);
        } else if self.streams.len() < STREAMS {
            let mut sequence = Sequence::new(probe.sequence);
            sequence.arrived(probe.sequence);
            self.streams.push((probe.stream, sequence));
        } else {
            self.foreign += 1;
            return;
        }
        self.good += 1;
    }

    fn sum(&self, field: impl Fn(&Sequence) -> u64) -> u64 {
        self.streams.iter().map(|(_, s)| field(s)).sum()
    }

    /// Frames that were skipped and have not come since.
    pub fn lost(&self) -> u64 {
        self.sum(|s| s.lost)
    }

    /// Frames that came after one with a higher number.
    pub fn late(&self) -> u64 {
        self.sum(|s| s.late)
    }

    /// Frames that came again.
    pub fn duplicate(&self) -> u64 {
        self.sum(|s| s.duplicate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(numbers: &[u32]) -> (u64, u64, u64) {
        let mut sequence = Sequence::new(numbers[0]);
        numbers.iter().for_each(|&n| sequence.arrived(n));
        (sequence.lost, sequence.late, sequence.duplicate)
    }

    #[test]
    fn gaps_are_lost_until_they_are_filled() {
        assert_eq!(counted(&[5, 6, 7]), (0, 0, 0));
        assert_eq!(counted(&[5, 8]), (2, 0, 0));
        assert_eq!(counted(&[5, 8, 6]), (1, 1, 0));
        assert_eq!(counted(&[5, 8, 6, 6, 8, 5]), (1, 1, 3));
        // From before the first: nobody knows that it was not lost.
        assert_eq!(counted(&[5, 4]), (0, 0, 1));
    }

    #[test]
    fn numbers_wrap() {
        let max = u32::MAX;
        assert_eq!(counted(&[max - 1, max, 0, 1]), (0, 0, 0));
        assert_eq!(counted(&[max - 1, 1, max, 0]), (0, 2, 0));
    }

    #[test]
    fn a_gap_wider_than_the_window_leaves_nothing_seen() {
        assert_eq!(counted(&[0, 5000, 4990, 4990]), (4998, 1, 1));
        // Too far back to tell from a second copy.
        assert_eq!(counted(&[0, 5000, 3000, 3000]), (4997, 2, 0));
    }

    #[test]
    fn streams_are_counted_apart() {
        let mut tally = Tally::default();
        for sequence in 0..10 {
            for stream in 0..4 {
                tally.count(Verdict::Good(Probe {
                    stream,
                    sequence: sequence * u32::from(stream),
                    time: 0,
                }));
            }
        }
        tally.count(Verdict::Corrupt);
        tally.count(Verdict::Foreign);
        assert_eq!((tally.good, tally.corrupt, tally.foreign), (40, 1, 1));
        // Stream 0 repeats itself, 2 skips every other, 3 two of three.
        assert_eq!((tally.lost(), tally.duplicate(), tally.late()), (27, 9, 0));
    }
}
