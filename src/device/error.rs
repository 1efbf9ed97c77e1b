//! What a device refuses, and why.

use super::vring::VringFault;

/// A device refuses what the front end wants.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no such queue.
    #[error("queue {index} does not exist; the device has {queues}")]
    NoSuchQueue {
        /// What was asked for.
        index: usize,
        /// How many there are.
        queues: usize,
    },
    /// Features that were not offered.
    #[error("features {0:#x} were not offered")]
    Features(u64),
    /// The back end cannot do what the guest negotiated.
    #[error("the back end refuses the negotiated offloads: {0}")]
    Backend(std::io::Error),
    /// A ring is wrong.
    #[error("queue {0}: {1}")]
    Vring(usize, VringFault),
    /// A kick descriptor cannot be watched.
    #[error("queue {0}: the kick descriptor cannot be watched: {1}")]
    Kick(usize, std::io::Error),
    /// Another MTU than the one that was configured.
    #[error("MTU {wanted} disagrees with mtu={ours}; set both alike")]
    Mtu {
        /// What the front end says.
        wanted: u16,
        /// What the device was given.
        ours: u16,
    },
    /// An MTU that Ethernet or the specification does not allow.
    #[error("MTU {0} is not within 68 to 65535")]
    MtuRange(u16),
    /// An access beyond the configuration space or to read-only bytes.
    #[error("configuration bytes {offset} to {end} cannot be {what}")]
    Config {
        /// First byte.
        offset: u32,
        /// One past the last.
        end: u64,
        /// What was tried.
        what: &'static str,
    },
    /// The driver's features were refused, and it goes on nevertheless.
    #[error("device status {0:#x} is not possible now")]
    Status(u8),
}
