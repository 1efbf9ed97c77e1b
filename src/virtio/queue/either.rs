//! A queue of the format that was negotiated.

use std::sync::Arc;

use super::{
    Chain, PackedQueue, Parts, Pop, RingAddresses, RingError, RingFeatures, SetupError, SplitQueue,
    VirtQueue,
};
use crate::virtio::memory::{GuestMemory, View};

/// The device's side of a split or a packed ring.
pub enum Queue {
    /// Without `VIRTIO_F_RING_PACKED`.
    Split(SplitQueue),
    /// With it.
    Packed(PackedQueue),
}

/// Has whichever queue is there do something.
macro_rules! either {
    ($self:ident, $queue:ident => $does:expr) => {
        match $self {
            Self::Split($queue) => $does,
            Self::Packed($queue) => $does,
        }
    };
}

impl VirtQueue for Queue {
    fn new(
        memory: Arc<GuestMemory>,
        size: u16,
        at: RingAddresses,
        base: u32,
        features: RingFeatures,
    ) -> Result<Self, SetupError> {
        Ok(if features.packed {
            Self::Packed(PackedQueue::new(memory, size, at, base, features)?)
        } else {
            Self::Split(SplitQueue::new(memory, size, at, base, features)?)
        })
    }

    #[inline]
    fn pop<'m>(
        &mut self,
        memory: &'m GuestMemory,
        parts: &mut impl Parts<'m>,
    ) -> Result<Pop, RingError> {
        either!(self, queue => queue.pop(memory, parts))
    }

    #[inline]
    fn pop_lone<'m, V: View<'m>>(
        &mut self,
        memory: &'m GuestMemory,
        most: usize,
        take: impl FnMut(Chain, V),
    ) -> Result<usize, RingError> {
        either!(self, queue => queue.pop_lone(memory, most, take))
    }

    #[inline]
    fn unpop(&mut self, chain: Chain) {
        either!(self, queue => queue.unpop(chain));
    }

    #[inline]
    fn put_used(&mut self, chain: Chain, len: u32) {
        either!(self, queue => queue.put_used(chain, len));
    }

    #[inline]
    fn put_all_used(&mut self, used: impl Iterator<Item = (Chain, u32)>) {
        either!(self, queue => queue.put_all_used(used));
    }

    #[inline]
    fn put_batch_used(&mut self, chains: &[Chain]) {
        either!(self, queue => queue.put_batch_used(chains));
    }

    #[inline]
    fn publish(&mut self, count: u16) {
        either!(self, queue => queue.publish(count));
    }

    fn wants_interrupt(&mut self) -> bool {
        either!(self, queue => queue.wants_interrupt())
    }

    fn enable_kicks(&mut self, beyond: u16) -> Result<bool, RingError> {
        either!(self, queue => queue.enable_kicks(beyond))
    }

    fn disable_kicks(&mut self) {
        either!(self, queue => queue.disable_kicks());
    }

    fn base(&self) -> u32 {
        either!(self, queue => queue.base())
    }

    fn most_offered(&self) -> u16 {
        either!(self, queue => queue.most_offered())
    }
}
