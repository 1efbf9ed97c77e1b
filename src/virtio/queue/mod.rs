//! Virtqueues, the device's side.
//!
//! A queue hands out *chains*: runs of buffers that the driver offers. Each
//! chain comes back as *used*, in the order in which it was taken, at a
//! position that is known from the start; so whoever holds several chains may
//! fill them side by side and only the publishing is in order.
//!
//! [`VirtQueue`] is what every ring format offers. What the driver wrote is a
//! claim: each index, length and address is read once and checked before use.
//! A chain that breaks the rules is handed back empty ([`Pop::Bad`]); a ring
//! that breaks them cannot be gone on with ([`RingError`]).

mod descriptor;
mod either;
mod packed;
mod position;
mod split;

use std::ptr::NonNull;
use std::sync::Arc;

use super::memory::{GuestMemory, Readable, View, Writable};
use super::spec::feature;

pub use either::Queue;
pub use packed::PackedQueue;
pub use position::Position;
pub use split::SplitQueue;

/// Front-end addresses of the three parts of a ring (bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor table (split) or ring (packed).
    pub desc: u64,
    /// Available ring; driver event suppression.
    pub avail: u64,
    /// Used ring; device event suppression.
    pub used: u64,
}

/// Which negotiated features change how a ring works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// `VIRTIO_F_EVENT_IDX`.
    pub event_idx: bool,
    /// `VIRTIO_F_INDIRECT_DESC`.
    pub indirect: bool,
    /// `VIRTIO_F_NOTIFY_ON_EMPTY`.
    pub notify_on_empty: bool,
    /// `VIRTIO_F_RING_PACKED`.
    pub packed: bool,
    /// `VIRTIO_F_IN_ORDER`.
    pub in_order: bool,
}

impl From<u64> for RingFeatures {
    fn from(features: u64) -> Self {
        let has = |bit| features & bit != 0;
        Self {
            event_idx: has(feature::EVENT_IDX),
            indirect: has(feature::INDIRECT_DESC),
            notify_on_empty: has(feature::NOTIFY_ON_EMPTY) && !has(feature::VERSION_1),
            packed: has(feature::RING_PACKED) && has(feature::VERSION_1),
            in_order: has(feature::IN_ORDER) && has(feature::VERSION_1),
        }
    }
}

/// A ring cannot be set up as the front end says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// Not from 1 to 32768, or, for a split ring, not a power of two.
    #[error("ring size {0} is not a power of two from 1 to 32768 (packed rings: any number)")]
    Size(u16),
    /// Not an index that the ring can be at.
    #[error("the ring cannot go on from {0:#x}: that is not one of its indices")]
    Base(u32),
    /// Section 2.7's alignment.
    #[error("the {0} at {1:#x} is not aligned to {2} bytes")]
    Alignment(&'static str, u64, u64),
    /// Not inside one region.
    #[error("the {0} at {1:#x} is not in guest memory: share all of it with share=on")]
    Unmapped(&'static str, u64),
}

/// The ring itself is wrong; it must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// More chains than the ring has entries: a malicious or broken driver.
    #[error("the driver's available index {avail} is more than {size} ahead of ours, {ours}")]
    AvailIndex {
        /// What the driver wrote.
        avail: u16,
        /// The next index that we would take.
        ours: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// A packed ring's chain goes on into descriptors that the device has not
    /// given back, so where the next one begins cannot be told.
    #[error("a chain at descriptor {at} of a packed ring is longer than what is available")]
    Endless {
        /// Where it begins.
        at: u16,
    },
    /// The entry names no descriptor, so nothing can be handed back.
    #[error("available entry names descriptor {head} of {size}")]
    Head {
        /// What the driver wrote.
        head: u16,
        /// Entries of the ring.
        size: u16,
    },
}

/// Why a chain is handed back with length 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// `next` names no descriptor.
    #[error("a descriptor's next is beyond the table")]
    Next,
    /// More descriptors than the table has: a loop.
    #[error("a chain is longer than its table")]
    Loop,
    /// More buffers than anyone here takes.
    #[error("a chain has too many buffers")]
    TooLong,
    /// A buffer or an indirect table outside guest memory.
    #[error("a buffer is not in guest memory")]
    Unmapped,
    /// An indirect table that the specification forbids (2.7.5.3).
    #[error("an indirect descriptor is not allowed here, or its length is wrong")]
    Indirect,
    /// A readable buffer after a writable one (2.7.4.2).
    #[error("a readable buffer follows a writable one")]
    Order,
}

/// A chain that was taken and must come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Chain {
    /// What names it to the driver: its first descriptor (split) or buffer ID
    /// (packed).
    head: u16,
    /// Where its used entry goes: an index (split) or [`Position`] (packed).
    at: u16,
}

/// What [`VirtQueue::pop`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pop {
    /// Nothing is waiting.
    Empty,
    /// A chain, whose buffers were pushed.
    Chain(Chain),
    /// A chain to be handed back with length 0; some of its buffers may have
    /// been pushed and are to be forgotten.
    Bad(Chain, ChainFault),
}

/// Takes the buffers of a chain as they are found. `None` refuses: the chain
/// is too long.
pub trait Parts<'m> {
    /// A buffer that the driver lets us read.
    fn readable(&mut self, part: Readable<'m>) -> Option<()>;
    /// A buffer that the driver lets us write.
    fn writable(&mut self, part: Writable<'m>) -> Option<()>;
}

/// The device's side of a virtqueue of any format.
pub trait VirtQueue: Sized {
    /// Sets a ring up in `memory`, to go on from `base`: the index of the next
    /// available entry, for a packed ring with its wrap counter in bit 15 and
    /// the same for the next used entry above that.
    ///
    /// # Errors
    /// When size, alignment, place or base of the ring are wrong.
    fn new(
        memory: Arc<GuestMemory>,
        size: u16,
        at: RingAddresses,
        base: u32,
        features: RingFeatures,
    ) -> Result<Self, SetupError>;

    /// Takes the next chain, whose buffers are looked up in `memory`.
    ///
    /// # Errors
    /// When the ring is wrong and must stop.
    fn pop<'m>(
        &mut self,
        memory: &'m GuestMemory,
        parts: &mut impl Parts<'m>,
    ) -> Result<Pop, RingError>;

    /// Takes the next chains as long as each is what most are: one buffer, of
    /// the kind that `V` is, in the memory region of the last one; at most
    /// `most`, each handed to `take`. Returns how many. What else waits, and
    /// what is wrong, is for [`pop`](Self::pop).
    ///
    /// # Errors
    /// When the ring is wrong and must stop.
    fn pop_lone<'m, V: View<'m>>(
        &mut self,
        memory: &'m GuestMemory,
        most: usize,
        take: impl FnMut(Chain, V),
    ) -> Result<usize, RingError>;

    /// Gives back `chain`, the last that was taken: it was not used.
    fn unpop(&mut self, chain: Chain);

    /// Writes the used entry of `chain`, into which `len` bytes were written.
    /// The driver sees it once it and those before it are published, which are
    /// published together with it or earlier.
    fn put_used(&mut self, chain: Chain, len: u32);

    /// Writes the used entries of all of these.
    #[inline]
    fn put_all_used(&mut self, used: impl Iterator<Item = (Chain, u32)>) {
        for (chain, len) in used {
            self.put_used(chain, len);
        }
    }

    /// Writes the used entries of `chains`, into which nothing was written:
    /// all that the next [`publish`](Self::publish) shows. Where the driver
    /// knows the order of chains, the last one stands for all (2.7.9, 2.8.8).
    fn put_batch_used(&mut self, chains: &[Chain]);

    /// Shows the driver the next `count` used entries, all of them written.
    fn publish(&mut self, count: u16);

    /// Whether the driver wants an interrupt for what was published since the
    /// last time this was asked.
    fn wants_interrupt(&mut self) -> bool;

    /// Asks for a kick when more chains come than are waiting now; then looks
    /// once more. Returns whether more than `beyond` are waiting; if so, there
    /// may be no kick.
    ///
    /// # Errors
    /// When the ring is wrong and must stop.
    fn enable_kicks(&mut self, beyond: u16) -> Result<bool, RingError>;

    /// Asks for no kicks, as far as the format can.
    fn disable_kicks(&mut self);

    /// Where the ring can be gone on with ([`new`](Self::new)): what
    /// `GET_VRING_BASE` answers.
    fn base(&self) -> u32;

    /// The most chains that the driver was ever seen to have on the ring at a
    /// time: what it can be expected to offer again.
    fn most_offered(&self) -> u16;
}

/// Looks up the part `name` of a ring: `len` bytes at front-end address `addr`,
/// aligned to `align`.
fn place(
    memory: &GuestMemory,
    name: &'static str,
    addr: u64,
    align: u64,
    len: u64,
) -> Result<NonNull<u8>, SetupError> {
    if addr % align != 0 {
        return Err(SetupError::Alignment(name, addr, align));
    }
    let host = memory
        .user_range(addr, len)
        .ok_or(SetupError::Unmapped(name, addr))?;
    // A region may begin anywhere in its descriptor, so its front-end address
    // and ours need not be aligned alike.
    if host.addr().get() as u64 % align != 0 {
        return Err(SetupError::Alignment(name, addr, align));
    }
    Ok(host)
}

#[cfg(test)]
mod tests;
