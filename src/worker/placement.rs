//! Which worker a queue pair is moved to, by what the workers had to do.
//!
//! A pair stays where it is, for there its memory is in the cache, until its
//! worker has had no time left for a while and another has. Then the pair is
//! moved that leaves both with the least to do; and nothing for a while, until
//! it shows what came of it.

/// Thousandths of its time that a worker with no time left works.
const SATURATED: u16 = 900;
/// Thousandths that the busier of both workers must gain by a move.
const GAIN: u64 = 100;
/// Looks in a row at which the same worker is saturated before a pair is moved.
const LOOKS: u32 = 3;
/// Looks after a move at which nothing is moved.
const REST: u32 = 10;

/// What a worker did between two looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Thousandths of the time that were work.
    pub busy: u16,
    /// The number of each of its queue pairs, and the frames that it sent or
    /// received.
    pub pairs: Vec<(usize, u64)>,
}

impl Load {
    fn frames(&self) -> u64 {
        self.pairs.iter().map(|(_, frames)| frames).sum()
    }
}

/// A pair is to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The pair's number.
    pub pair: usize,
    /// The worker's number.
    pub to: usize,
}

/// Decides from look to look.
#[derive(Debug, Default)]
pub struct Placement {
    /// The worker that was saturated at the last looks, and at how many.
    saturated: Option<(usize, u32)>,
    rest: u32,
}

impl Placement {
    /// What to do after a look at all workers, the first one's load first.
    pub fn look(&mut self, loads: &[Load]) -> Option<Move> {
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        let found = better(loads);
        self.saturated = found.map(|(from, _)| match self.saturated {
            Some((last, looks)) if last == from => (from, looks + 1),
            _ => (from, 1),
        });
        let (_, looks) = self.saturated?;
        if looks < LOOKS {
            return None;
        }
        self.saturated = None;
        self.rest = REST;
        found.map(|(_, better)| better)
    }
}

/// The worker that has no time left, and the move that helps it most.
fn better(loads: &[Load]) -> Option<(usize, Move)> {
    let numbered = || loads.iter().enumerate();
    // What keeps a worker busy besides frames, such as netmap's clients, is not
    // helped by a move, and must not hide another that is.
    let carrying = numbered().filter(|(_, load)| load.frames() > 0);
    let (from, busiest) = carrying.max_by_key(|(_, load)| load.busy)?;
    let (to, idlest) = numbered().min_by_key(|(_, load)| load.busy)?;
    let frames = busiest.frames();
    if busiest.busy < SATURATED {
        return None;
    }
    let busy = u64::from(busiest.busy);
    let moved = busiest.pairs.iter().map(|&(pair, of_pair)| {
        let share = busy * of_pair / frames;
        let most = (busy - share).max(u64::from(idlest.busy) + share);
        (most, share, pair)
    });
    // Of two that help as much, the one with less to take along.
    let (most, _, pair) = moved.min()?;
    (most + GAIN <= busy).then_some((from, Move { pair, to }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(busy: u16, pairs: &[(usize, u64)]) -> Load {
        Load {
            busy,
            pairs: pairs.to_vec(),
        }
    }

    fn looks(placement: &mut Placement, loads: &[Load], count: usize) -> Vec<Option<Move>> {
        (0..count).map(|_| placement.look(loads)).collect()
    }

    #[test]
    fn a_pair_moves_once_its_worker_has_had_no_time_for_a_while() {
        let loads = [
            load(1000, &[(0, 500), (2, 500)]),
            load(300, &[(1, 10), (3, 0)]),
        ];
        let mut placement = Placement::default();
        let moved = Some(Move { pair: 0, to: 1 });
        assert_eq!(looks(&mut placement, &loads, 3), [None, None, moved]);
        // And none until that has shown, nor at once afterwards.
        let mut rest = vec![None; 12];
        rest.push(moved);
        assert_eq!(looks(&mut placement, &loads, 13), rest);
    }

    #[test]
    fn a_worker_that_is_busy_without_frames_hides_no_other() {
        let saturated = load(950, &[(0, 50), (2, 50)]);
        let idle = load(0, &[(1, 0)]);
        for without in [load(1000, &[]), load(1000, &[(3, 0)])] {
            let loads = [saturated.clone(), idle.clone(), without];
            let mut placement = Placement::default();
            let moved = Some(Move { pair: 0, to: 1 });
            assert_eq!(looks(&mut placement, &loads, 3), [None, None, moved]);
        }
    }

    #[test]
    fn a_short_peak_moves_nothing() {
        let high = [load(950, &[(0, 5), (2, 5)]), load(0, &[])];
        let low = [load(850, &[(0, 5), (2, 5)]), load(0, &[])];
        let other = [load(0, &[]), load(950, &[(0, 5), (2, 5)])];
        let mut placement = Placement::default();
        for loads in [&high, &high, &low, &high, &high, &other, &high, &high] {
            assert_eq!(placement.look(loads), None);
        }
        assert!(placement.look(&high).is_some());
    }

    #[test]
    fn the_pair_moves_that_leaves_the_least_to_do() {
        for (busy, pairs, moved) in [
            // Most of the load stays, or goes where nothing is.
            (0, vec![(0, 80), (1, 20)], Some(1)),
            (0, vec![(0, 50), (1, 30), (2, 20)], Some(0)),
            (500, vec![(0, 50), (1, 30), (2, 20)], Some(2)),
            // One pair is not divided, and what does not work does not help.
            (0, vec![(0, 100)], None),
            (0, vec![(0, 100), (1, 0)], None),
            (0, vec![(0, 0), (1, 0)], None),
            (0, vec![], None),
            // Both would be as busy as the first was.
            (850, vec![(0, 50), (1, 50)], None),
            (1000, vec![(0, 50), (1, 50)], None),
        ] {
            let loads = [load(1000, &pairs), load(busy, &[])];
            let found = better(&loads).map(|(_, found)| found.pair);
            assert_eq!(found, moved, "{pairs:?} beside {busy}");
        }
        assert_eq!(better(&[]), None);
        assert_eq!(better(&[load(1000, &[(0, 1), (1, 1)])]), None, "one worker");
    }
}
