//! Identifications for packets that we fragment (RFC 7739, section 5.3).
//!
//! One must not come again for the same two addresses while fragments may be on
//! their way, and nobody else should be able to guess the next. So a counter,
//! which pairs of addresses share by hash, is added to a number that a keyed
//! hash gives each pair.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counters; a power of two.
const COUNTERS: usize = 64;

static NEXT: [AtomicU32; COUNTERS] = [const { AtomicU32::new(0) }; COUNTERS];
static KEYS: LazyLock<[RandomState; 2]> =
    LazyLock::new(|| [RandomState::new(), RandomState::new()]);

/// An identification for a packet from the first address to the second.
pub(super) fn next(addresses: (u128, u128)) -> u32 {
    let [place, base] = &*KEYS;
    let low_bits = |hash: u64| u32::try_from(hash & 0xffff_ffff).unwrap_or(0);
    let at = low_bits(place.hash_one(addresses)) as usize % COUNTERS;
    let count = NEXT
        .get(at)
        .map_or(0, |counter| counter.fetch_add(1, Ordering::Relaxed));
    low_bits(base.hash_one(addresses)).wrapping_add(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_comes_again_soon_and_pairs_differ() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            assert!(seen.insert(next((1, 2))));
        }
        // One pair in 400,000 runs may land within the numbers of the other.
        assert!(!seen.contains(&next((3, 4))) || !seen.contains(&next((5, 6))));
    }
}
