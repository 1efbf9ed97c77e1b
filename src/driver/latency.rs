//! A distribution of times, in fixed room: buckets of a width that grows with
//! the value, so that every value is known to within 1/32 of itself.

use std::time::Duration;

/// Buckets of one power of two.
const STEPS: usize = 32;
/// `STEPS` as a power of two.
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Values below `STEPS`, then a row of `STEPS` for each further power.
const BUCKETS: usize = STEPS * (64 - STEP_BITS as usize + 1);

/// How often which times, in nanoseconds, were seen.
#[derive(Clone, Debug)]
pub struct Latency {
    buckets: Box<[u64]>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS].into_boxed_slice(),
            count: 0,
            sum: 0,
            min: u64::MAX,
            max: 0,
        }
    }
}

/// Which bucket a value falls into.
fn bucket(value: u64) -> usize {
    let bits = 64 - value.leading_zeros();
    // The row, and the STEP_BITS bits behind the value's highest.
    let row = bits.saturating_sub(STEP_BITS);
    let shift = row.saturating_sub(1);
    let step = usize::try_from(value >> shift).unwrap_or(0) % STEPS;
    row as usize * STEPS + step
}

/// The highest value of a bucket.
fn top(bucket: usize) -> u64 {
    let row = u32::try_from(bucket / STEPS).unwrap_or(0);
    let step = (bucket % STEPS) as u64;
    if row == 0 {
        return step;
    }
    let lowest = (STEPS as u64 + step) << (row - 1);
    lowest + ((1 << (row - 1)) - 1)
}

impl Latency {
    /// Counts one time.
    pub fn record(&mut self, nanoseconds: u64) {
        self.buckets[bucket(nanoseconds)] += 1;
        self.count += 1;
        self.sum += u128::from(nanoseconds);
        self.min = self.min.min(nanoseconds);
        self.max = self.max.max(nanoseconds);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The shortest; zero when none was counted, as with all that follow.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(if self.count == 0 { 0 } else { self.min })
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The mean.
    pub fn mean(&self) -> Duration {
        let mean = self.sum / u128::from(self.count.max(1));
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The time that `permille` of a thousand do not exceed, to within 1/32
    /// and never above [`max`](Self::max).
    pub fn quantile(&self, permille: u64) -> Duration {
        let rank = (u128::from(self.count) * u128::from(permille)).div_ceil(1000);
        let mut below = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            below += u128::from(*count);
            if below >= rank.max(1) {
                return Duration::from_nanos(top(at).min(self.max));
            }
        }
        self.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_without_gaps() {
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
        for at in 0..BUCKETS {
            assert_eq!(bucket(top(at)), at);
            if at + 1 < BUCKETS {
                assert_eq!(bucket(top(at) + 1), at + 1);
            }
        }
    }

    #[test]
    fn quantiles_are_within_a_thirtysecond() {
        let mut latency = Latency::default();
        for n in 1..=100_000 {
            latency.record(n * 10);
        }
        assert_eq!(latency.min(), Duration::from_nanos(10));
        assert_eq!(latency.max(), Duration::from_millis(1));
        assert_eq!(latency.mean(), Duration::from_nanos(500_005));
        for (permille, exact) in [(500, 500_000), (900, 900_000), (990, 990_000)] {
            let found = latency.quantile(permille);
            assert!(
                found >= Duration::from_nanos(exact),
                "{permille}: {found:?}"
            );
            assert!(found <= Duration::from_nanos(exact + exact / 32));
        }
        assert_eq!(latency.quantile(1000), latency.max());
    }

    #[test]
    fn nothing_counted_is_zero() {
        let latency = Latency::default();
        let all = [
            latency.min(),
            latency.mean(),
            latency.quantile(500),
            latency.max(),
        ];
        assert_eq!(all, [Duration::ZERO; 4]);
    }
}
