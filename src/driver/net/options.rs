//! What a driver can be told to do, and how it lays out its buffers.

use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::{DriverError, TIMEOUT};
use crate::driver::front_end::{Negotiation, PROTOCOL_FEATURES};
use crate::driver::memory::{Memfd, MemorySource};
use crate::driver::notifier::Signalling;
use crate::driver::queue::{QueueOptions, Segment};
use crate::virtio::net_header::LEN;
use crate::virtio::spec::{feature, net};

/// Most buffers in one chain.
pub const MAX_SEGMENTS: usize = 512;

/// What the driver negotiates unless it is told otherwise: everything but
/// offloads, so that whole and finished frames arrive, and but the control
/// queue, which few back ends handle.
pub const FEATURES: u64 = net::F_MTU
    | net::F_MAC
    | net::F_MRG_RXBUF
    | net::F_STATUS
    | net::F_MQ
    | feature::ANY_LAYOUT
    | feature::INDIRECT_DESC
    | feature::EVENT_IDX
    | feature::VHOST_USER_PROTOCOL_FEATURES
    | feature::VERSION_1;

/// Offloads in both directions, for who can tell an unfinished frame.
pub const OFFLOADS: u64 = net::HOST_OFFLOADS | net::GUEST_OFFLOADS;

/// How header and frame are laid out in a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The header has a buffer of its own.
    pub header_apart: bool,
    /// Longest buffer in bytes; 0: as long as need be.
    pub piece: u32,
}

impl Layout {
    /// Cuts the `header_len + len` bytes at guest address `addr`.
    #[inline]
    pub(super) fn split(
        self,
        addr: u64,
        header_len: usize,
        len: usize,
        make: fn(u64, u32) -> Segment,
        into: &mut ArrayVec<Segment, MAX_SEGMENTS>,
    ) -> Result<(), DriverError> {
        let total = u32::try_from(header_len + len)
            .map_err(|_| DriverError::FrameTooLong(len, u32::MAX as usize))?;
        if !self.header_apart && self.piece == 0 {
            into.push(make(addr, total));
            return Ok(());
        }
        let header = u32::try_from(header_len).unwrap_or(0);
        let piece = if self.piece == 0 { total } else { self.piece };
        let mut at = 0;
        while at < total {
            let mut take = piece.min(total - at);
            if self.header_apart && at < header {
                take = take.min(header - at);
            }
            into.try_push(make(addr + u64::from(at), take))
                .map_err(|_| DriverError::Pieces)?;
            at += take;
        }
        Ok(())
    }
}

/// How to drive a device.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// What to negotiate.
    pub negotiation: Negotiation,
    /// Queue pairs.
    pub pairs: u16,
    /// Entries of each RX and TX queue.
    pub ring_size: u16,
    /// Longest frame to be sent, in bytes.
    pub max_frame: usize,
    /// Length of a receive buffer in bytes, header included.
    pub rx_buffer: usize,
    /// How chains are laid out.
    pub layout: Layout,
    /// Memory regions to spread rings and buffers over.
    pub regions: usize,
    /// What is behind the memory.
    pub memory: Arc<dyn MemorySource>,
    /// By what to notify and be notified.
    pub signalling: Signalling,
    /// Give the back end no descriptor to read kicks from and none to write
    /// interrupts to: both sides poll.
    pub silent: bool,
    /// How long the back end may take to answer, or to give back a frame.
    pub timeout: Duration,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            negotiation: Negotiation {
                features: FEATURES,
                required: 0,
                protocol: PROTOCOL_FEATURES,
            },
            pairs: 1,
            ring_size: 256,
            max_frame: 1518,
            rx_buffer: 2048,
            layout: Layout::default(),
            regions: 1,
            memory: Arc::new(Memfd),
            signalling: Signalling::default(),
            silent: false,
            timeout: TIMEOUT,
        }
    }
}

impl NetOptions {
    /// Entries of the control queue.
    pub(super) const CONTROL_SIZE: u16 = 64;

    /// Bytes from one receive buffer to the next.
    pub(super) fn rx_slot(&self) -> usize {
        self.rx_buffer.max(LEN).next_multiple_of(64)
    }

    /// Bytes from one transmit buffer to the next.
    pub(super) fn tx_slot(&self) -> usize {
        (self.max_frame + LEN).next_multiple_of(64)
    }

    /// More than all queues and buffers take; what is not used costs nothing.
    pub(super) fn memory_bytes(&self) -> u64 {
        let entries = usize::from(self.ring_size);
        let table = 16 * usize::from(QueueOptions::INDIRECT);
        let ring = 64 * entries + table * entries + 4096;
        let pair = 2 * ring + (self.rx_slot() + self.tx_slot()) * entries;
        let total = usize::from(self.pairs.max(1)) * pair + (1 << 20);
        u64::try_from(total).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(layout: Layout, header: usize, len: usize) -> Vec<(u64, u32)> {
        let mut chain = ArrayVec::new();
        layout
            .split(100, header, len, Segment::to_device, &mut chain)
            .unwrap();
        chain.iter().map(|s| (s.addr, s.len)).collect()
    }

    #[test]
    fn layouts_cover_every_byte_once() {
        let whole = Layout::default();
        assert_eq!(split(whole, 12, 60), [(100, 72)]);
        let apart = Layout {
            header_apart: true,
            piece: 0,
        };
        assert_eq!(split(apart, 10, 60), [(100, 10), (110, 60)]);
        assert_eq!(split(apart, 10, 0), [(100, 10)]);
        let small = Layout {
            header_apart: true,
            piece: 8,
        };
        assert_eq!(
            split(small, 12, 17),
            [(100, 8), (108, 4), (112, 8), (120, 8), (128, 1)]
        );
        let tiny = Layout {
            header_apart: false,
            piece: 1,
        };
        let mut chain = ArrayVec::new();
        assert!(matches!(
            tiny.split(0, 12, 501, Segment::to_device, &mut chain),
            Err(DriverError::Pieces)
        ));
    }
}
