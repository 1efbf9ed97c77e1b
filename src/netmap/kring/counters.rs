//! What a kring counts.

use crate::net::counter::Counter;

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

        impl Counts {
            /// Adds what another ring has counted.
            pub fn add(&mut self, more: &Self) {
                $(self.$name = self.$name.wrapping_add(more.$name);)*
            }
        }

        impl Counters {
            /// Reads them all.
            pub fn read(&self) -> Counts {
                Counts { $($name: self.$name.get(),)* }
            }

            /// Adds what happened in one batch.
            #[inline]
            pub(super) fn add(&self, more: &Counts) {
                $(if more.$name > 0 {
                    self.$name.add(more.$name);
                })*
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
