//! Where each MAC address was last seen.
//!
//! An entry is one atomic word: 48 bits of address, 8 of port, 8 of the epoch
//! in which it was last heard. So workers learn and look up without a lock,
//! and an address that stays where it is costs no write within an epoch.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Entries that share a hash value, one cache line.
const WAYS: usize = 8;
/// Hash values.
const BUCKETS: usize = 512;
/// Epochs after which an address that was not heard is forgotten.
pub const MAX_AGE: u8 = 30;

#[repr(align(64))]
#[derive(Default)]
struct Bucket([AtomicU64; WAYS]);

/// A learning table of 4096 addresses.
pub struct MacTable {
    buckets: Box<[Bucket]>,
    epoch: AtomicU8,
}

/// An entry that is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The address, in the low 48 bits.
    pub mac: u64,
    /// The port's number.
    pub port: u8,
    /// Epochs since it was heard.
    pub age: u8,
}

impl MacTable {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Bucket::default()).collect(),
            epoch: AtomicU8::new(0),
        }
    }

    #[inline]
    fn bucket(&self, mac: u64) -> &[AtomicU64; WAYS] {
        // Fibonacci hashing: the high bits are the well-mixed ones.
        let hash = mac.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BUCKETS.ilog2());
        #[expect(clippy::cast_possible_truncation, reason = "a bucket's number")]
        &self.buckets[hash as usize % BUCKETS].0
    }

    /// Notes that `mac` was heard on `port`.
    #[inline]
    pub fn learn(&self, mac: u64, port: u8) {
        let epoch = self.epoch.load(Ordering::Relaxed);
        let new = mac << 16 | u64::from(port) << 8 | u64::from(epoch);
        let bucket = self.bucket(mac);
        for entry in bucket {
            let old = entry.load(Ordering::Relaxed);
            if old >> 16 == mac {
                if old != new {
                    entry.store(new, Ordering::Relaxed);
                }
                return;
            }
        }
        self.insert(bucket, new, epoch);
    }

    /// Takes a free place, or that of the address that was silent longest.
    #[cold]
    fn insert(&self, bucket: &[AtomicU64; WAYS], new: u64, epoch: u8) {
        let silence = |entry: &&AtomicU64| {
            let old = entry.load(Ordering::Relaxed);
            if old == 0 {
                u16::MAX
            } else {
                u16::from(epoch.wrapping_sub(age_stamp(old)))
            }
        };
        if let Some(place) = bucket.iter().max_by_key(silence) {
            place.store(new, Ordering::Relaxed);
        }
    }

    /// The port on which `mac` was last heard.
    #[inline]
    pub fn lookup(&self, mac: u64) -> Option<u8> {
        self.bucket(mac).iter().find_map(|entry| {
            let entry = entry.load(Ordering::Relaxed);
            #[expect(clippy::cast_possible_truncation, reason = "a field")]
            (entry >> 16 == mac && entry != 0).then_some((entry >> 8) as u8)
        })
    }

    fn entries(&self) -> impl Iterator<Item = &AtomicU64> {
        self.buckets.iter().flat_map(|bucket| &bucket.0)
    }

    /// Begins the next epoch and forgets what was silent for [`MAX_AGE`].
    /// Returns how many addresses are left.
    pub fn age(&self) -> usize {
        let epoch = self.epoch.load(Ordering::Relaxed).wrapping_add(1);
        self.epoch.store(epoch, Ordering::Relaxed);
        self.retain(|entry| entry.age <= MAX_AGE)
    }

    /// Forgets every address of a port that is gone.
    pub fn forget_port(&self, port: u8) {
        self.retain(|entry| entry.port != port);
    }

    fn retain(&self, keep: impl Fn(Entry) -> bool) -> usize {
        let epoch = self.epoch.load(Ordering::Relaxed);
        let mut left = 0;
        for place in self.entries() {
            let raw = place.load(Ordering::Relaxed);
            if raw == 0 {
                continue;
            }
            // One that is heard right now stays.
            let drop = !keep(unpack(raw, epoch))
                && place
                    .compare_exchange(raw, 0, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok();
            left += usize::from(!drop);
        }
        left
    }

    /// What is in the table, in no order.
    pub fn dump(&self) -> Vec<Entry> {
        let epoch = self.epoch.load(Ordering::Relaxed);
        self.entries()
            .map(|entry| entry.load(Ordering::Relaxed))
            .filter(|&raw| raw != 0)
            .map(|raw| unpack(raw, epoch))
            .collect()
    }
}

impl Default for MacTable {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a field")]
fn age_stamp(raw: u64) -> u8 {
    raw as u8
}

fn unpack(raw: u64, epoch: u8) -> Entry {
    #[expect(clippy::cast_possible_truncation, reason = "a field")]
    let port = (raw >> 8) as u8;
    Entry {
        mac: raw >> 16,
        port,
        age: epoch.wrapping_sub(age_stamp(raw)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_where_it_was_last_heard() {
        let table = MacTable::new();
        assert_eq!(table.lookup(0x0200_0000_0001), None);
        table.learn(0x0200_0000_0001, 3);
        table.learn(0x0200_0000_0002, 0);
        assert_eq!(table.lookup(0x0200_0000_0001), Some(3));
        assert_eq!(table.lookup(0x0200_0000_0002), Some(0));
        table.learn(0x0200_0000_0001, 253);
        assert_eq!(table.lookup(0x0200_0000_0001), Some(253));
        assert_eq!(table.dump().len(), 2);
    }

    #[test]
    fn silent_addresses_are_forgotten_and_heard_ones_are_not() {
        let table = MacTable::new();
        table.learn(1, 1);
        table.learn(2, 2);
        for _ in 0..MAX_AGE {
            assert_eq!(table.age(), 2);
            table.learn(2, 2);
        }
        assert_eq!(table.age(), 1);
        assert_eq!((table.lookup(1), table.lookup(2)), (None, Some(2)));
    }

    #[test]
    fn a_port_takes_its_addresses_with_it() {
        let table = MacTable::new();
        table.learn(1, 1);
        table.learn(2, 2);
        table.forget_port(1);
        assert_eq!((table.lookup(1), table.lookup(2)), (None, Some(2)));
    }

    #[test]
    fn a_full_bucket_gives_up_the_address_that_was_silent_longest() {
        let table = MacTable::new();
        let home = table.bucket(1).as_ptr();
        let same: Vec<u64> = (1..)
            .filter(|&mac| table.bucket(mac).as_ptr() == home)
            .take(WAYS + 1)
            .collect();
        let (last, first) = same.split_last().unwrap();
        for &mac in first {
            table.learn(mac, 7);
        }
        table.age();
        for &mac in &first[1..] {
            table.learn(mac, 7);
        }
        table.learn(*last, 8);
        assert_eq!(table.lookup(first[0]), None);
        assert_eq!(table.lookup(*last), Some(8));
        assert!(first[1..].iter().all(|&mac| table.lookup(mac) == Some(7)));
    }
}
