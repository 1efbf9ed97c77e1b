//! How long to look for something in vain before sleeping.

use std::time::{Duration, Instant};

/// How long a hot pair is looked at in vain before it rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polling {
    /// This long, or less where it was not worth it of late. Zero: not at all.
    AtMost(Duration),
    /// It never rests: its worker has a processor for itself.
    Always,
}

impl Default for Polling {
    /// A few times as long as it takes to wake somebody up.
    fn default() -> Self {
        Self::AtMost(Duration::from_micros(50))
    }
}

/// The least that [`Patience`] comes down to: as long as a few looks take.
const LEAST: Duration = Duration::from_micros(4);
/// What a look counts at most. Between looks others have the processor, and what
/// they took of it was not in vain; nor is a machine slow to look but not to wake
/// somebody up.
const LOOK: Duration = Duration::from_nanos(250);
/// How many times its patience somebody looks at most, however few looks that
/// are: on a busy machine who sleeps is woken sooner than who gives way is back.
const MOST: u32 = 20;

/// Looks in vain, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Vain {
    begun: Instant,
    looks: u32,
}

impl Vain {
    /// The first begins.
    pub fn begin() -> Self {
        Self {
            begun: Instant::now(),
            looks: 0,
        }
    }

    /// Time since the first.
    fn time(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// How long somebody looks in vain now. Where work comes while it looks, it
/// gets more patient, up to the limit; where it has looked in vain, it soon
/// loses patience: at a thousand frames a second it mostly sleeps, under load
/// it never does.
#[derive(Debug)]
pub struct Patience {
    limit: Polling,
    now: Duration,
}

impl Patience {
    /// As patient as `limit` lets it be.
    pub fn new(limit: Polling) -> Self {
        let now = match limit {
            Polling::AtMost(most) => most,
            Polling::Always => Duration::MAX,
        };
        Self { limit, now }
    }

    /// Whether one look more in vain brings it to its end.
    #[inline]
    pub fn ends_with(&self, vain: &mut Vain) -> bool {
        vain.looks = vain.looks.saturating_add(1);
        self.is_over(vain.looks, vain.time())
    }

    /// After so many looks, in so much time.
    #[inline]
    fn is_over(&self, looks: u32, time: Duration) -> bool {
        let enough = looks * LOOK >= self.now;
        time >= self.now.saturating_mul(if enough { 1 } else { MOST })
    }

    /// Work came before it was at an end.
    pub fn reward(&mut self) {
        if let Polling::AtMost(most) = self.limit {
            self.now = (2 * self.now).min(most);
        }
    }

    /// It had come to its end, and work came so long after the first look: where
    /// that is within the limit, it should have lasted.
    pub fn regret(&mut self, waited: Duration) {
        if let Polling::AtMost(most) = self.limit {
            if waited <= most {
                self.now = most;
            }
        }
    }

    /// It has come to its end.
    pub fn disappoint(&mut self) {
        if let Polling::AtMost(most) = self.limit {
            self.now = (self.now / 4).max(LEAST).min(most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_lasts_under_load_and_is_soon_lost_without() {
        let micros = Duration::from_micros;
        let mut patience = Patience::new(Polling::default());
        assert_eq!(patience.now, micros(50));
        patience.disappoint();
        patience.disappoint();
        assert_eq!(patience.now, LEAST);
        patience.disappoint();
        assert_eq!(patience.now, LEAST);
        // A reward and a disappointment in turn, as with an answer that comes
        // at once and a question that does not.
        for _ in 0..100 {
            patience.reward();
            patience.disappoint();
        }
        assert_eq!(patience.now, LEAST);
        for _ in 0..4 {
            patience.reward();
        }
        assert_eq!(patience.now, micros(50));
        patience.reward();
        assert_eq!(patience.now, micros(50));
    }

    #[test]
    fn patience_that_should_have_lasted_is_back_at_once() {
        let mut patience = Patience::new(Polling::default());
        let limit = patience.now;
        patience.disappoint();
        patience.regret(2 * limit);
        assert_eq!(patience.now, limit / 4);
        patience.regret(limit);
        assert_eq!(patience.now, limit);
    }

    #[test]
    fn looks_that_take_long_are_not_much_fewer() {
        let micros = Duration::from_micros;
        let patience = Patience::new(Polling::default());
        // Time alone is not all, and neither are looks.
        assert!(!patience.is_over(199, micros(999)));
        assert!(!patience.is_over(1000, micros(49)));
        assert!(patience.is_over(200, micros(50)));
        // But there is an end.
        assert!(patience.is_over(1, micros(1000)));
        // Where there is none, one is enough.
        let none = Patience::new(Polling::AtMost(Duration::ZERO));
        assert!(none.ends_with(&mut Vain::begin()));
        let endless = Patience::new(Polling::Always);
        assert!(!endless.is_over(u32::MAX, Duration::from_secs(1 << 40)));
    }

    #[test]
    fn limits_of_patience_are_kept() {
        let mut none = Patience::new(Polling::AtMost(Duration::ZERO));
        none.disappoint();
        none.reward();
        none.regret(Duration::ZERO);
        assert_eq!(none.now, Duration::ZERO);
        let mut endless = Patience::new(Polling::Always);
        endless.disappoint();
        endless.reward();
        assert_eq!(endless.now, Duration::MAX);
    }
}
