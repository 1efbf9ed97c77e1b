//! How long to look for something in vain before sleeping.

use std::time::Duration;

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

    /// How long to look.
    pub fn now(&self) -> Duration {
        self.now
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
        let limit = patience.now();
        patience.disappoint();
        patience.regret(2 * limit);
        assert_eq!(patience.now(), limit / 4);
        patience.regret(limit);
        assert_eq!(patience.now(), limit);
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
