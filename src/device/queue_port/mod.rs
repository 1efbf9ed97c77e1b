//! A queue port: how a switch delivers into a device's receive queues.
//!
//! Chains are reserved for many frames in one go under the ring's lock, filled
//! without it, and published in order: a frame is copied once, from wherever
//! the sender has it into the guest's buffers. There are two ways to do it:
//! [`lone`] for as long as each frame fits into the guest's next buffer, and
//! [`spread`] for the others.

mod lone;
mod spread;

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::filter::Filter;
use super::pair::{QueuePair, Shared, fits_mtu};
use super::stats::RxStats;
use super::vring::Reservation;
use crate::backend::MAX_PAIRS;
use crate::net::frame::{BATCH, Batch, Frame};
use crate::net::offload::accepts;
use crate::netmap::attachment::{Attachment, Delivered};
use crate::virtio::memory::{Readable, Writable, copy};
use crate::virtio::net_header::{LEN, NetHeader};

/// The receive side of a device, on a switch.
pub struct QueuePort {
    shared: Arc<Shared>,
    pairs: Vec<Arc<QueuePair>>,
}

/// What a guest takes: looked up once for all frames of a delivery.
struct Rules<'r> {
    header_len: usize,
    /// A frame may be spread over several chains.
    mergeable: bool,
    /// Longest frame that needs no segmenting (bytes).
    max_frame: usize,
    offloads: u64,
    /// Which frames, if not all.
    filter: Option<&'r Filter>,
    stats: &'r RxStats,
}

impl Rules<'_> {
    /// Every frame of `batch` passes.
    fn takes_all(&self, batch: &Batch<'_>) -> bool {
        batch.is_plain() && batch.longest() as usize <= self.max_frame && self.filter.is_none()
    }

    /// Whether the guest is to have a frame; if not, it is counted.
    fn passes(&self, batch: &Batch<'_>, frame: &Frame) -> bool {
        let accepted = || accepts(&frame.header, self.offloads, || batch.parts(frame));
        let ether_type = || frame.ether.ether_type();
        let len = frame.len as usize;
        let refused = if !fits_mtu(self.max_frame, &frame.header, len, ether_type) {
            &self.stats.too_long
        } else if !batch.is_plain() && !accepted() {
            // It has changed its mind since the switch asked.
            &self.stats.bad_header
        } else {
            let parts = || batch.parts(frame).iter().copied();
            if self.filter.is_none_or(|filter| filter.passes(parts())) {
                return true;
            }
            &self.stats.filtered
        };
        refused.add(1);
        false
    }
}

/// The most bytes of a receive chain that no frame can use: it would be first in
/// line for ever.
#[inline]
pub(super) fn no_room(header_len: usize, mergeable: bool) -> u32 {
    match mergeable {
        true => 0,
        // It has 12 bytes at most.
        false => u32::try_from(header_len).unwrap_or(u32::MAX),
    }
}

/// A reservation, and what the guest gets with it.
type Filled = Option<(Reservation, Delivered)>;

/// Counts what a reservation brings, under the ring's lock.
fn count(stats: &RxStats, delivered: &Delivered) {
    stats.frames.add(u64::from(delivered.frames));
    stats.bytes.add(delivered.bytes);
    stats.batches.add(1);
}

/// Writes a whole virtio-net header, as [`NetHeader::to_halves`] has it, into
/// the first bytes of `room`, which holds it.
#[inline]
fn update_header(room: &Writable<'_>, (start, end): &([u8; 8], [u8; 4])) {
    if room.len() >= LEN {
        room.update(start);
        room.skip(start.len()).update(end);
    }
}

/// Writes the virtio-net header into the first bytes of `parts`.
#[inline]
pub(super) fn write_header(header: &NetHeader, header_len: usize, parts: &[Writable<'_>]) {
    match parts.first() {
        Some(first) if header_len == LEN && first.len() >= LEN => {
            update_header(first, &header.to_halves())
        }
        _ => {
            let raw = header.to_bytes();
            let raw = &raw[..header_len.min(LEN)];
            copy(&[Readable::from_slice(raw)], parts);
        }
    }
}

impl QueuePort {
    /// The receive side of the device that these pairs are.
    pub(super) fn new(shared: Arc<Shared>, pairs: Vec<Arc<QueuePair>>) -> Self {
        Self { shared, pairs }
    }

    /// Gives each of the first `active` pairs its flows' frames.
    fn steer(&self, active: usize, batch: &Batch<'_>, picks: &[u16]) -> Delivered {
        let mut total = Delivered::default();
        let mut shares: [ArrayVec<u16, BATCH>; MAX_PAIRS as usize] = Default::default();
        for picks in picks.chunks(BATCH) {
            let mut last = None;
            for &pick in picks {
                let Some(flow) = batch.flow(usize::from(pick)) else {
                    continue;
                };
                // Frames of one flow come together.
                let pair = match last {
                    Some((known, pair)) if known == flow => pair,
                    _ => self.shared.steering.pair_of(flow, active),
                };
                last = Some((flow, pair));
                if let Some(share) = shares.get_mut(pair) {
                    share.push(pick);
                }
            }
            for (pair, share) in self.pairs.iter().zip(&mut shares) {
                if !share.is_empty() {
                    let delivered = self.deliver_to(pair, batch, share);
                    total.frames += delivered.frames;
                    total.bytes += delivered.bytes;
                    share.clear();
                }
            }
        }
        total
    }

    fn deliver_to(&self, pair: &QueuePair, batch: &Batch<'_>, mut picks: &[u16]) -> Delivered {
        let mut total = Delivered::default();
        if !self.shared.is_link_up() {
            pair.rx_stats.not_ready.add_shared(picks.len() as u64);
            return total;
        }
        let filter = self.shared.filter();
        let rules = Rules {
            header_len: self.shared.header_len(),
            mergeable: self.shared.is_mergeable(),
            max_frame: self.shared.max_frame(),
            offloads: self.shared.guest_offloads(),
            filter: filter.active.then_some(&**filter),
            stats: &pair.rx_stats,
        };
        while !picks.is_empty() {
            let (mut dealt, mut delivered) = lone::deliver(pair, &rules, batch, picks);
            if dealt == 0 {
                (dealt, delivered) = spread::deliver(pair, &rules, batch, picks);
            }
            total.frames += delivered.frames;
            total.bytes += delivered.bytes;
            picks = picks.get(dealt.max(1)..).unwrap_or_default();
        }
        total
    }
}

impl Attachment for QueuePort {
    fn offloads(&self) -> u64 {
        self.shared.guest_offloads()
    }

    fn deliver(&self, _ring: usize, batch: &Batch<'_>, picks: &[u16]) -> Delivered {
        let active = self.shared.active_pairs();
        match self.pairs.first() {
            Some(pair) if active == 1 => self.deliver_to(pair, batch, picks),
            _ => self.steer(active, batch, picks),
        }
    }
}
