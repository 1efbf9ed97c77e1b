//! What a driver knows of a device that uses chains in the order in which it
//! was given them (`VIRTIO_F_IN_ORDER`; sections 2.7.9 and 2.8.8).

use std::collections::VecDeque;

use super::{QueueError, Segment};

/// The chains that such a device has. What it says to be used stands for every
/// chain before it as well.
#[derive(Debug)]
pub(super) struct InOrder {
    /// What names them, the oldest first.
    chains: VecDeque<u16>,
    /// How many of the oldest have come back and were not popped.
    back: usize,
    /// Name and length of the last of those, as the device wrote them.
    last: (u32, u32),
}

impl InOrder {
    /// A device that has none of up to `size` chains.
    pub(super) fn new(size: u16) -> Self {
        Self {
            chains: VecDeque::with_capacity(size.into()),
            back: 0,
            last: (0, 0),
        }
    }

    /// The device gets a chain more.
    #[inline]
    pub(super) fn add(&mut self, chain: u16) {
        self.chains.push_back(chain);
    }

    /// How many chains have come back that are to be popped without another
    /// look at the ring.
    #[inline]
    pub(super) fn back(&self) -> usize {
        self.back
    }

    /// All chains, the oldest first.
    pub(super) fn chains(&self) -> impl Iterator<Item = u16> {
        self.chains.iter().copied()
    }

    /// How many of the oldest `most` chains are used once `id` is.
    #[inline]
    pub(super) fn up_to(&self, id: u32, most: usize) -> Option<usize> {
        let mut chains = self.chains().take(most);
        chains
            .position(|chain| u32::from(chain) == id)
            .map(|at| at + 1)
    }

    /// The next chain that came back, and its length if the device wrote one.
    /// If the last batch is at an end, `used` reads the next one from the ring;
    /// it has at most `most` chains.
    #[inline]
    pub(super) fn pop(
        &mut self,
        most: usize,
        used: impl FnOnce() -> (u32, u32),
    ) -> Result<(u16, Option<u32>), QueueError> {
        if self.back == 0 {
            self.last = used();
            self.back = self.up_to(self.last.0, most).unwrap_or(0);
        }
        let chain = self.chains.pop_front().filter(|_| self.back > 0);
        let chain = chain.ok_or(QueueError::UsedId { id: self.last.0 })?;
        self.back -= 1;
        Ok((chain, (self.back == 0).then_some(self.last.1)))
    }

    /// The device has none any more.
    pub(super) fn clear(&mut self) {
        self.chains.clear();
        self.back = 0;
    }
}

/// The bytes of a chain for the device to write: all are written where it says
/// nothing of their number.
#[inline]
pub(super) fn room(chain: &[Segment]) -> u32 {
    let writable = chain.iter().filter(|segment| segment.device_writes);
    writable.fold(0, |room, segment| room.saturating_add(segment.len))
}
