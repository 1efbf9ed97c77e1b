//! What can go wrong with a driver.

use nix::errno::Errno;

use super::MAX_SEGMENTS;
use crate::driver::front_end::FrontEndError;
use crate::driver::memory::DriverMemoryError;
use crate::driver::queue::QueueError;

/// Why the driver cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The connection, or what the back end says on it.
    #[error(transparent)]
    FrontEnd(#[from] FrontEndError),
    /// A queue's memory, or what the back end did to it.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// No memory to share.
    #[error(transparent)]
    Memory(#[from] DriverMemoryError),
    /// Fewer queue pairs than wanted.
    #[error("queue pairs of the back end: {offered}, not {wanted}; ask for fewer")]
    Pairs {
        /// How many it says.
        offered: u64,
        /// How many were wanted.
        wanted: u16,
    },
    /// Nothing as long can be sent.
    #[error("a frame of {0} bytes does not fit a buffer of {1}")]
    FrameTooLong(usize, usize),
    /// The wanted layout takes too many descriptors.
    #[error("the layout makes more than {MAX_SEGMENTS} pieces of a frame; make them larger")]
    Pieces,
    /// A receive chain came back with less than a header.
    #[error("the device returned a receive buffer with {0} bytes, less than a header")]
    NoHeader(usize),
    /// A receive chain came back with more than it holds.
    #[error("the device says it wrote {0} bytes to a buffer of {1}")]
    UsedLength(u32, usize),
    /// The header's count of buffers is none, or more than came back.
    #[error("the device says that a frame is in {0} buffers, which did not come back at once")]
    NumBuffers(u16),
    /// The device refused a command on the control queue.
    #[error("the device refused the {0} with {1}")]
    Control(&'static str, u8),
    /// The device did not do in time what was waited for.
    #[error("the device did not {0} in time")]
    Timeout(&'static str),
    /// The back end reported on its error descriptor.
    #[error("the back end reports that queue {0} has failed")]
    QueueFailed(u16),
    /// The connection has ended.
    #[error("the back end has closed the connection")]
    Gone,
    /// No descriptors left, or similar.
    #[error("system: {0}")]
    System(#[from] Errno),
}
