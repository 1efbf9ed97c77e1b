//! How fast requests are answered: a sandboxed process that was taken over
//! could keep the kernel busy with making and removing interfaces.

use std::time::{Duration, Instant};

/// Requests that may come at once, as when a process with many devices starts.
const BURST: u32 = 2048;
/// How long it takes until one more may come: 256 a second.
const EACH: Duration = Duration::from_micros(3906);

/// Says how long to wait before the next request is answered.
#[derive(Debug)]
pub(super) struct Throttle {
    /// When all of the burst may come again.
    full: Instant,
}

impl Throttle {
    pub(super) fn new(now: Instant) -> Self {
        Self { full: now }
    }

    /// Takes one request into account.
    pub(super) fn delay(&mut self, now: Instant) -> Duration {
        self.full = self.full.max(now) + EACH;
        self.full
            .saturating_duration_since(now)
            .saturating_sub(EACH * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_what_follows_is_slow() {
        let begin = Instant::now();
        let mut throttle = Throttle::new(begin);
        for _ in 0..BURST {
            assert_eq!(throttle.delay(begin), Duration::ZERO);
        }
        assert_eq!(throttle.delay(begin), EACH);
        assert_eq!(throttle.delay(begin), EACH * 2);
        // Who has waited may go on.
        assert_eq!(throttle.delay(begin + EACH * 3), Duration::ZERO);
        // A rest gives back the burst, and no more than that.
        let later = begin + Duration::from_secs(3600);
        for _ in 0..BURST {
            assert_eq!(throttle.delay(later), Duration::ZERO);
        }
        assert_eq!(throttle.delay(later), EACH);
    }
}
