//! Virtqueues, the driver's side.
//!
//! A driver *adds* chains of buffers, *publishes* what it added, and *pops*
//! what the device has used. [`DriverQueue`] is what every ring format offers,
//! so that one test runs over all of them; [`SplitRing`] is the raw memory of
//! a split ring, for tests that write what no driver should.
//!
//! The device is checked here as the driver is there: an index or a length
//! that cannot be is an error, never a panic.

mod in_order;
mod packed;
mod packed_ring;
mod split;
mod split_ring;
#[cfg(test)]
mod tests;

pub use packed::PackedQueue;
pub use packed_ring::{PackedDescriptor, PackedRing};
pub use split::SplitQueue;
pub use split_ring::{Descriptor, SplitRing};

use super::memory::DriverMemoryError;
use crate::virtio::queue::{RingAddresses, RingFeatures};
use crate::virtio::spec::feature;

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// The device writes it; else the device reads it.
    pub device_writes: bool,
}

impl Segment {
    /// A buffer that the device reads.
    pub fn to_device(addr: u64, len: u32) -> Self {
        Self {
            addr,
            len,
            device_writes: false,
        }
    }

    /// A buffer that the device writes.
    pub fn from_device(addr: u64, len: u32) -> Self {
        Self {
            addr,
            len,
            device_writes: true,
        }
    }
}

/// How a queue works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// `VIRTIO_F_EVENT_IDX` was negotiated.
    pub event_idx: bool,
    /// `VIRTIO_F_IN_ORDER` was negotiated.
    pub in_order: bool,
    /// Longest chain that goes into an indirect table, 0 for none. Chains of
    /// one buffer and those longer than this take descriptors of the ring.
    pub indirect: u16,
}

impl QueueOptions {
    /// Buffers of an indirect table when nothing else was said.
    pub const INDIRECT: u16 = 16;
}

impl From<u64> for QueueOptions {
    /// What negotiated features mean.
    fn from(features: u64) -> Self {
        Self {
            event_idx: features & feature::EVENT_IDX != 0,
            in_order: RingFeatures::from(features).in_order,
            indirect: if features & feature::INDIRECT_DESC != 0 {
                Self::INDIRECT
            } else {
                0
            },
        }
    }
}

/// A chain that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What [`DriverQueue::add`] was told to remember.
    pub token: u32,
    /// How many bytes the device says it wrote; all that it could, where it
    /// says only that later chains are used.
    pub len: u32,
}

/// What the driver, or the device, cannot do.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Not a power of two from 1 to 32768 (packed rings: any number).
    #[error("ring size {0} is not a power of two from 1 to 32768 (packed rings: any number)")]
    Size(u16),
    /// No room in shared memory for the ring.
    #[error(transparent)]
    Memory(#[from] DriverMemoryError),
    /// The chain has no buffers, or more than the ring has descriptors.
    #[error("a chain of {0} buffers does not fit a ring of {1}")]
    Chain(usize, u16),
    /// The device's used index ran ahead of what it was given.
    #[error(
        "the device's used index is {used}, but only {given} chains were given to it from {from} on"
    )]
    UsedIndex {
        /// What the device wrote.
        used: u16,
        /// The next used entry that the driver would read.
        from: u16,
        /// Chains that the device has.
        given: u16,
    },
    /// The device returned a chain that it does not have.
    #[error("the device returned chain {id}, which it was not given, or returned already")]
    UsedId {
        /// What the device wrote.
        id: u32,
    },
}

/// The driver's side of a virtqueue of any format.
pub trait DriverQueue: Send + std::fmt::Debug {
    /// Entries of the ring.
    fn size(&self) -> u16;

    /// Front-end addresses of the ring's parts.
    fn addresses(&self) -> RingAddresses;

    /// What to set a vring up with (`SET_VRING_BASE`) when all chains have come
    /// back: where the next one will be published.
    fn base(&self) -> u32;

    /// What to set a vring up with after the device has died without a word:
    /// the new one takes again what was not given back.
    fn resume_base(&self) -> u32;

    /// Buffers that can be added as chains of one before anything comes back.
    fn free(&self) -> u16;

    /// Chains that the device has, or will have once they are published.
    fn outstanding(&self) -> u16;

    /// Adds a chain and remembers `token` for it; `false` when the ring has no
    /// room until some come back. The device sees it once it is published.
    ///
    /// # Errors
    /// [`QueueError::Chain`] when it would never fit.
    fn add(&mut self, chain: &[Segment], token: u32) -> Result<bool, QueueError>;

    /// Shows the device everything that was added. `true`: it wants a kick.
    #[must_use = "a device that wants a kick waits for it"]
    fn publish(&mut self) -> bool;

    /// The next chain that came back, if any.
    ///
    /// # Errors
    /// [`QueueError::UsedIndex`] and [`QueueError::UsedId`]; the queue is then
    /// good for nothing but [`reset`](Self::reset).
    fn pop(&mut self) -> Result<Option<Completion>, QueueError>;

    /// Asks for an interrupt when the next chain comes back; then looks once
    /// more. `true`: some came back meanwhile, and there may be no interrupt.
    #[must_use = "what came back meanwhile may raise no interrupt"]
    fn enable_interrupts(&mut self) -> bool;

    /// Asks for an interrupt only when `count` more chains have come back
    /// (formats and devices without an event index: as `enable_interrupts`).
    #[must_use = "what came back meanwhile may raise no interrupt"]
    fn enable_interrupts_after(&mut self, count: u16) -> bool;

    /// Asks for no interrupts, as far as the format can.
    fn disable_interrupts(&mut self);

    /// Forgets every chain and starts anew with an empty ring and index 0. The
    /// device must have stopped using the ring.
    fn reset(&mut self);
}
