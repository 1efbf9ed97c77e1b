//! What this object knows of the process's descriptors without asking the
//! system: numbers of its own, numbers that were seen to be connections, and
//! whether a number can have got another meaning since it was last looked at.
//!
//! None of it is the truth, which is the socket's own. It spares system calls,
//! and keeps our descriptors from a program that closes everything it finds. No
//! lock is taken, so signal handlers may come by.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::real::CLOSE;

/// Numbers below this can be in a [`Set`].
const NUMBERS: usize = 1 << 16;
/// Counters of changes; numbers share them.
const COUNTERS: usize = 1 << 12;

/// A set of descriptor numbers.
pub(crate) struct Set([AtomicU64; NUMBERS / 64]);

impl Set {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; NUMBERS / 64])
    }

    fn place(&self, fd: RawFd) -> Option<(&AtomicU64, u64)> {
        let number = usize::try_from(fd).ok()?;
        Some((self.0.get(number / 64)?, 1 << (number % 64)))
    }

    /// Adds `fd`, unless its number is too large.
    pub(crate) fn insert(&self, fd: RawFd) {
        if let Some((word, bit)) = self.place(fd) {
            word.fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// Takes `fd` out.
    pub(crate) fn remove(&self, fd: RawFd) {
        if let Some((word, bit)) = self.place(fd) {
            // Most are not in it, and nothing is written then.
            if word.load(Ordering::Acquire) & bit != 0 {
                word.fetch_and(!bit, Ordering::AcqRel);
            }
        }
    }

    /// Whether `fd` is in it.
    #[inline]
    pub(crate) fn contains(&self, fd: RawFd) -> bool {
        self.place(fd)
            .is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// The lowest number of it that is `first` or above.
    pub(crate) fn first_from(&self, first: RawFd) -> Option<RawFd> {
        let first = usize::try_from(first).ok()?;
        let words = self.0.iter().enumerate().skip(first / 64);
        words
            .filter_map(|(at, word)| {
                let mut bits = word.load(Ordering::Acquire);
                if at == first / 64 {
                    bits &= u64::MAX << (first % 64);
                }
                (bits != 0).then(|| at * 64 + bits.trailing_zeros() as usize)
            })
            .next()
            .and_then(|fd| RawFd::try_from(fd).ok())
    }

    /// Empties it, and calls `each` for what was in it.
    pub(crate) fn take(&self, mut each: impl FnMut(RawFd)) {
        for (at, word) in self.0.iter().enumerate() {
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let number = at * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if let Ok(fd) = RawFd::try_from(number) {
                    each(fd);
                }
            }
        }
    }
}

/// Descriptors of our own: channels and bells. The program has not opened them,
/// and cannot close them.
pub(crate) static OWN: Set = Set::new();

/// Descriptors that were seen to be connections.
pub(crate) static SEEN: Set = Set::new();

static CHANGES: [AtomicU32; COUNTERS] = [const { AtomicU32::new(0) }; COUNTERS];
/// Changes that concern any number.
static ALL: AtomicU32 = AtomicU32::new(0);
static FORKS: AtomicU32 = AtomicU32::new(0);

fn counter(fd: RawFd) -> &'static AtomicU32 {
    let number = usize::try_from(fd).unwrap_or(0);
    &CHANGES[number % COUNTERS]
}

/// How often `fd` has changed, not counting where many did at once.
#[inline]
pub(crate) fn changes_of(fd: RawFd) -> u32 {
    counter(fd).load(Ordering::Acquire)
}

/// When a descriptor was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u32, u32);

impl Stamp {
    /// Now.
    #[inline]
    pub(crate) fn now(fd: RawFd) -> Self {
        Self(changes_of(fd), ALL.load(Ordering::Acquire))
    }
}

/// `fd` is closed, or becomes another.
pub(crate) fn changes(fd: RawFd) {
    counter(fd).fetch_add(1, Ordering::AcqRel);
    SEEN.remove(fd);
}

/// Any number may have been closed, but for those of our own.
pub(crate) fn many_change() {
    ALL.fetch_add(1, Ordering::AcqRel);
}

/// In how many forks' children this process's memory has been.
#[inline]
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Acquire)
}

/// In the child of a fork: what was ours is the parent's. The copies are
/// closed, so that the service hears when the parent is gone.
pub(crate) fn forked() {
    FORKS.fetch_add(1, Ordering::AcqRel);
    if let Ok(close) = CLOSE.get() {
        OWN.take(|fd| {
            // SAFETY: they are numbers of our own, and whoever has them as
            // owned descriptors sees the count of forks and forgets them.
            unsafe { close(fd) };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let set = Box::new(Set::new());
        for fd in [0, 63, 64, 65_535] {
            set.insert(fd);
            assert!(set.contains(fd));
        }
        // Too large, or none at all: not kept, and no harm done.
        set.insert(65_536);
        set.insert(-1);
        assert!(!set.contains(65_536) && !set.contains(-1));
        set.remove(63);
        assert_eq!(set.first_from(0), Some(0));
        assert_eq!(set.first_from(1), Some(64));
        assert_eq!(set.first_from(65), Some(65_535));
        assert_eq!(set.first_from(65_536), None);
        let mut taken = Vec::new();
        set.take(|fd| taken.push(fd));
        assert_eq!(taken, [0, 64, 65_535]);
        assert!(!set.contains(64));
    }

    #[test]
    fn a_stamp_is_old_once_its_descriptor_has_changed() {
        let stamp = Stamp::now(77);
        assert_eq!(stamp, Stamp::now(77));
        SEEN.insert(77);
        changes(77);
        assert_ne!(stamp, Stamp::now(77));
        assert!(!SEEN.contains(77));
    }
}
