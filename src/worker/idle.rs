//! How much of its time a worker has nothing to do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A worker's time without work. It alone writes here, while it looks in vain and
/// when work begins again; while there is work this costs no look at the clock.
pub(super) struct Idle {
    start: Instant,
    /// Nanoseconds of all spans that are over.
    spent: AtomicU64,
    /// When the span began that is not, in nanoseconds from `start`, plus one;
    /// 0: the worker works.
    since: AtomicU64,
    /// When there was nothing to do last: from then on there was work, if there
    /// is any.
    last: AtomicU64,
}

impl Idle {
    /// The time of a worker that is started now, and sleeps until it is woken.
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            spent: AtomicU64::new(0),
            since: AtomicU64::new(1),
            last: AtomicU64::new(0),
        }
    }

    fn nanoseconds(&self, at: Instant) -> u64 {
        let nanoseconds = at.saturating_duration_since(self.start).as_nanos();
        u64::try_from(nanoseconds).unwrap_or(u64::MAX - 1)
    }

    /// There was nothing to do until now.
    #[inline]
    pub(super) fn note(&self) {
        self.note_at(Instant::now());
    }

    fn note_at(&self, at: Instant) {
        let now = self.nanoseconds(at);
        self.last.store(now, Ordering::Relaxed);
        if self.since.load(Ordering::Relaxed) == 0 {
            self.since.store(now + 1, Ordering::Relaxed);
        }
    }

    /// There was something to do, since there was nothing last.
    #[inline]
    pub(super) fn end(&self) {
        let since = self.since.load(Ordering::Relaxed);
        if since != 0 {
            let span = self.last.load(Ordering::Relaxed).saturating_sub(since - 1);
            let spent = self.spent.load(Ordering::Relaxed);
            self.spent.store(spent + span, Ordering::Relaxed);
            self.since.store(0, Ordering::Relaxed);
        }
    }

    /// Nanoseconds without work until `at`. Who asks while the worker writes
    /// may be told of a span twice, or not yet.
    fn until(&self, at: Instant) -> u64 {
        let now = match self.since.load(Ordering::Relaxed) {
            0 => 0,
            since => self.nanoseconds(at).saturating_sub(since - 1),
        };
        self.spent.load(Ordering::Relaxed).saturating_add(now)
    }

    /// How long there was work, until `at`.
    pub(super) fn worked(&self, at: Instant) -> Duration {
        let time = at.saturating_duration_since(self.start);
        time.saturating_sub(Duration::from_nanos(self.until(at)))
    }
}

/// What was read last of an [`Idle`].
#[derive(Clone, Copy)]
pub(super) struct Reading {
    at: Instant,
    idle: u64,
    /// Thousandths of the time before that were work.
    pub(super) busy: u16,
}

impl Reading {
    pub(super) fn first(of: &Idle) -> Self {
        Self {
            at: of.start,
            idle: 0,
            busy: 0,
        }
    }

    /// Reads again, at `now`.
    pub(super) fn next(self, of: &Idle, now: Instant) -> Self {
        let idle = of.until(now);
        let time = now.saturating_duration_since(self.at).as_nanos().max(1);
        let without = u128::from(idle.saturating_sub(self.idle)).min(time);
        let busy = u16::try_from((time - without) * 1000 / time).unwrap_or(1000);
        Self {
            at: now,
            idle,
            busy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It sleeps, and would be taken for the busiest otherwise.
    #[test]
    fn a_worker_that_was_never_woken_has_not_worked() {
        let idle = Idle::new();
        let at = |ms| idle.start + Duration::from_millis(ms);
        let first = Reading::first(&idle).next(&idle, at(100));
        assert_eq!(first.busy, 0);
        assert_eq!(idle.worked(at(100)), Duration::ZERO);
        // Woken, and there was something to do.
        idle.note_at(at(150));
        idle.end();
        assert_eq!(first.next(&idle, at(200)).busy, 500);
        assert_eq!(idle.worked(at(200)), Duration::from_millis(50));
    }

    #[test]
    fn time_is_work_but_for_the_spans_without() {
        let idle = Idle::new();
        idle.end();
        let at = |ms| idle.start + Duration::from_millis(ms);
        let first = Reading::first(&idle).next(&idle, at(100));
        assert_eq!(first.busy, 1000);
        // A span that goes on, then one that is over.
        idle.since.store(150_000_001, Ordering::Relaxed);
        assert_eq!(idle.worked(at(200)), Duration::from_millis(150));
        let second = first.next(&idle, at(200));
        assert_eq!(second.busy, 500);
        idle.since.store(0, Ordering::Relaxed);
        idle.spent.store(75_000_000, Ordering::Relaxed);
        let third = second.next(&idle, at(300));
        assert_eq!(third.busy, 750);
        // Told twice and put right, no time is negative.
        idle.spent.store(50_000_000, Ordering::Relaxed);
        assert_eq!(third.next(&idle, at(400)).busy, 1000);
    }

    /// The round that work is found in is work, however short it is.
    #[test]
    fn a_span_lasts_up_to_the_last_look_in_vain() {
        let idle = Idle::new();
        let at = |ms| idle.start + Duration::from_millis(ms);
        idle.end();
        assert_eq!(idle.spent.load(Ordering::Relaxed), 0);
        for ms in [10, 20, 30] {
            idle.note_at(at(ms));
            assert_eq!(idle.since.load(Ordering::Relaxed), 10_000_001);
        }
        assert_eq!(idle.until(at(35)), 25_000_000);
        idle.end();
        assert_eq!(idle.since.load(Ordering::Relaxed), 0);
        idle.end();
        assert_eq!(idle.until(at(40)), 20_000_000);
        idle.note_at(at(50));
        idle.end();
        assert_eq!(idle.until(at(60)), 20_000_000);
    }
}
