//! `--workers` and `--poll-us`: the threads that serve, and how long they look
//! for more work before they sleep.

use std::time::Duration;

use super::error::{Blame, UsageError};
use crate::worker::Polling;

/// Most workers that may be asked for.
const MAX_WORKERS: usize = 256;
/// Longest time to poll (microseconds): what polls longer polls always.
const MAX_POLL: u64 = 1_000_000;

/// The number of workers.
///
/// # Errors
/// It is not from 1 to 256.
pub(super) fn workers(text: &str) -> Result<usize, UsageError> {
    let count = text.parse().ok();
    let count = count.filter(|count| (1..=MAX_WORKERS).contains(count));
    count.ok_or_else(|| {
        format!("--workers={text}").blame(
            "not a number from 1 to 256",
            "leave it out for one on each processor, and no more than queue pairs",
        )
    })
}

/// How long to poll.
///
/// # Errors
/// It is neither `always` nor a number from 0 to 1000000.
pub(super) fn polling(text: &str) -> Result<Polling, UsageError> {
    if text == "always" {
        return Ok(Polling::Always);
    }
    let time = text.parse().ok().filter(|&time| time <= MAX_POLL);
    let time = time.map(|time| Polling::AtMost(Duration::from_micros(time)));
    time.ok_or_else(|| {
        format!("--poll-us={text}").blame(
            "not a number of microseconds up to 1000000",
            "write 50, 0 to sleep at once, or always",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_counted() {
        assert_eq!((workers("1"), workers("256")), (Ok(1), Ok(256)));
        for wrong in ["", "0", "257", "-1", "many", "1.5"] {
            let error = workers(wrong).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("--workers={wrong}: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn polling_has_an_end_or_not() {
        let micros = |time| Ok(Polling::AtMost(Duration::from_micros(time)));
        assert_eq!(polling("0"), micros(0));
        assert_eq!(polling("1000000"), micros(1_000_000));
        assert_eq!(polling("always"), Ok(Polling::Always));
        for wrong in ["", "1000001", "-1", "Always", "50us"] {
            let error = polling(wrong).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("--poll-us={wrong}: ")),
                "{error}"
            );
        }
    }
}
