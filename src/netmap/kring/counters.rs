//! What a kring counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer at a time, and readers at any time.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    /// Adds; only by who holds the lock that the counter is under.
    #[inline]
    fn add(&self, more: u64) {
        if more > 0 {
            let now = self.0.load(Ordering::Relaxed);
            self.0.store(now.wrapping_add(more), Ordering::Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of a kring, written under its queue's lock.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* $name: Counter,)*
        }

        /// What the counters of a kring say.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Reads them all.
            pub fn read(&self) -> Counts {
                Counts { $($name: self.$name.get(),)* }
            }

            /// Adds what happened in one batch.
            #[inline]
            pub(super) fn add(&self, more: &Counts) {
                $(self.$name.add(more.$name);)*
            }
        }
    };
}

counters! {
    /// Frames that went through.
    frames,
    /// Their bytes, Ethernet headers included.
    bytes,
    /// Frames dropped because the receive ring was full.
    full,
    /// Frames dropped because they, or the first of their slots, had less than
    /// an Ethernet header.
    short,
    /// Frames dropped because they were too long: for a frame, or for the
    /// receive ring's slots.
    long,
    /// Slots whose buffer is none, or shorter than their length; their frames
    /// are dropped.
    bad_slots,
    /// Frames dropped because their virtio-net header does not fit them, or
    /// cannot be told to the receiver.
    bad_headers,
    /// Times that the ring had to begin anew.
    resets,
}
