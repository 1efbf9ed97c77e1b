//! What the queues of a device count.

use std::fmt;

use crate::net::counter::Counter;

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: Counter,)*
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut separator = "";
                $(
                    write!(f, "{separator}{}={}", stringify!($field), self.$field.get())?;
                    separator = " ";
                )*
                let _ = separator;
                Ok(())
            }
        }
    };
}

counters! {
    /// What a transmit queue did.
    TxStats {
        /// Frames that the back end took.
        frames,
        /// Bytes of these frames, Ethernet headers included.
        bytes,
        /// Frames that the back end did not take.
        dropped,
        /// Chains that break the rules of virtqueues.
        bad_chains,
        /// Frames shorter than an Ethernet header or longer than any frame.
        bad_length,
        /// Frames whose virtio-net header does not fit them.
        bad_header,
        /// Chains taken while the queue was disabled or the link was down.
        discarded,
        /// Batches.
        batches,
    }
}

counters! {
    /// What a receive queue did.
    RxStats {
        /// Frames given to the guest.
        frames,
        /// Bytes of these frames, Ethernet headers included.
        bytes,
        /// Frames for which the guest had no buffers.
        no_buffers,
        /// Frames longer than the guest's buffers.
        too_long,
        /// Frames shorter than an Ethernet header.
        too_short,
        /// Frames that need an offload that the guest does not take.
        bad_header,
        /// What came and was no frame.
        malformed,
        /// Frames that came while the ring was stopped or disabled or the
        /// link was down.
        not_ready,
        /// Frames that the guest's filters refused.
        filtered,
        /// Chains that break the rules of virtqueues.
        bad_chains,
        /// Batches.
        batches,
    }
}
