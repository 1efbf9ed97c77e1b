//! A queue port: how a switch delivers into a device's receive queues.
//!
//! Chains are reserved for all frames in one go under the ring's lock, filled
//! without it, and published in order: a frame is copied once, from wherever
//! the sender has it into the guest's buffers.

use std::ops::Range;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::pair::{QueuePair, Shared};
use super::vring::{Lease, Reservation};
use crate::net::frame::{BATCH, Batch, FRAME_PARTS, Frame, PARTS};
use crate::net::offload::accepts;
use crate::netmap::attachment::{Attachment, Delivered};
use crate::virtio::memory::{GuestMemory, Readable, Writable, copy};
use crate::virtio::net_header::{LEN, NetHeader};
use crate::virtio::queue::{Chain, Parts, Pop, Queue, RingError, VirtQueue};

/// Most chains in one reservation.
const CHAINS: usize = 512;
/// Most parts for one frame: its last chain may begin just below the limit.
const ROOM: usize = 2 * FRAME_PARTS;

/// The receive side of a device, on a switch.
pub struct QueuePort {
    shared: Arc<Shared>,
    pairs: Vec<Arc<QueuePair>>,
}

/// A frame and the room that was reserved for it.
struct Placed {
    pick: u16,
    parts: Range<usize>,
    chains: Range<usize>,
}

/// Chains and how many bytes each holds; afterwards: was given.
type Chains = ArrayVec<(Chain, u32), CHAINS>;

/// What one reservation holds.
struct Placement<'p, 'm> {
    frames: ArrayVec<Placed, BATCH>,
    parts: ArrayVec<Writable<'m>, PARTS>,
    chains: &'p mut Chains,
}

/// The writable buffers of a chain; readable ones are not for a receive queue.
struct Collect<'p, 'm> {
    parts: &'p mut ArrayVec<Writable<'m>, PARTS>,
    mark: usize,
    len: u64,
}

impl<'m> Parts<'m> for Collect<'_, 'm> {
    #[inline]
    fn readable(&mut self, _part: Readable<'m>) -> Option<()> {
        Some(())
    }

    #[inline]
    fn writable(&mut self, part: Writable<'m>) -> Option<()> {
        if self.parts.len() - self.mark >= FRAME_PARTS {
            return None;
        }
        self.len += part.len() as u64;
        part.prefetch();
        self.parts.try_push(part).ok()
    }
}

/// Why a frame has no room.
enum NoRoom {
    /// The guest has posted no buffer at all.
    Empty,
    /// It has some, but too few now.
    Few,
    /// Its buffers can never hold the frame.
    TooLong,
}

impl QueuePort {
    /// The receive side of the device that these pairs are.
    pub(super) fn new(shared: Arc<Shared>, pairs: Vec<Arc<QueuePair>>) -> Self {
        Self { shared, pairs }
    }

    /// Delivers as many of `picks` as one reservation holds. Returns how many
    /// were dealt with and what the guest got.
    fn deliver_some(
        &self,
        pair: &QueuePair,
        batch: &Batch<'_>,
        picks: &[u16],
    ) -> (usize, Delivered) {
        let Some(lease) = pair.rx.lease() else {
            pair.rx_stats.not_ready.add_shared(picks.len() as u64);
            return (picks.len(), Delivered::default());
        };
        let mut chains = Chains::new();
        let (dealt, filled) = self.reserve_and_fill(pair, &lease, batch, picks, &mut chains);
        let Some((reservation, delivered)) = filled else {
            return (dealt, Delivered::default());
        };
        lease.commit(reservation, chains.iter().copied(), || {
            pair.rx_stats.frames.add(u64::from(delivered.frames));
            pair.rx_stats.bytes.add(delivered.bytes);
            pair.rx_stats.batches.add(1);
        });
        (dealt, delivered)
    }

    /// Reserves chains under the ring's lock and fills them without it.
    #[inline]
    fn reserve_and_fill(
        &self,
        pair: &QueuePair,
        lease: &Lease<'_>,
        batch: &Batch<'_>,
        picks: &[u16],
        chains: &mut Chains,
    ) -> (usize, Option<(Reservation, Delivered)>) {
        let mut placement = Placement {
            frames: ArrayVec::new(),
            parts: ArrayVec::new(),
            chains,
        };
        // After an error it does not matter how far it came: all are lost.
        let mut dealt = picks.len();
        let reserved = lease.reserve(|queue| {
            let memory = lease.memory();
            dealt = self.place(pair, queue, memory, batch, picks, &mut placement)?;
            Ok(u16::try_from(placement.chains.len()).unwrap_or(u16::MAX))
        });
        let Some(reservation) = reserved else {
            return (dealt, None);
        };
        let header_len = self.shared.header_len();
        let mut delivered = Delivered::default();
        for placed in &placement.frames {
            let Some(frame) = batch.frames().get(usize::from(placed.pick)) else {
                continue;
            };
            let parts = &placement.parts[placed.parts.clone()];
            let chains = &mut placement.chains[placed.chains.clone()];
            fill(batch, frame, header_len, parts, chains);
            delivered.frames += 1;
            delivered.bytes += u64::from(frame.len);
        }
        (dealt, Some((reservation, delivered)))
    }

    /// Reserves room for the frames at `picks`, in order; returns for how many
    /// it was decided. Runs under the ring's lock.
    fn place<'m>(
        &self,
        pair: &QueuePair,
        queue: &mut Queue,
        memory: &'m GuestMemory,
        batch: &Batch<'_>,
        picks: &[u16],
        placement: &mut Placement<'_, 'm>,
    ) -> Result<usize, RingError> {
        let header_len = self.shared.header_len();
        let mergeable = self.shared.is_mergeable();
        let offloads = self.shared.guest_offloads();
        let filter = self.shared.filter();
        // What found no room for this many bytes finds none for more.
        let mut too_much = usize::MAX;
        let mut budget = 2 * CHAINS;
        for (at, &pick) in picks.iter().enumerate() {
            let full = placement.parts.remaining_capacity() < ROOM
                || placement.chains.remaining_capacity() < FRAME_PARTS;
            if full && at > 0 {
                return Ok(at);
            }
            let Some(frame) = batch.frames().get(usize::from(pick)) else {
                continue;
            };
            if !self.shared.fits_mtu(&frame.header, frame.len as usize) {
                pair.rx_stats.too_long.add(1);
                continue;
            }
            // The guest may have changed its mind since the switch asked.
            if !accepts(&frame.header, offloads) {
                pair.rx_stats.bad_header.add(1);
                continue;
            }
            if !filter.passes(batch.parts(frame).iter().copied()) {
                pair.rx_stats.filtered.add(1);
                continue;
            }
            let need = frame.len as usize + header_len;
            if mergeable && need >= too_much {
                pair.rx_stats.no_buffers.add(1);
                continue;
            }
            let parts = placement.parts.len();
            let (first, room) =
                reserve(pair, queue, memory, need, mergeable, placement, &mut budget)?;
            let Err(why) = room else {
                placement.frames.push(Placed {
                    pick,
                    parts: parts..placement.parts.len(),
                    chains: first..placement.chains.len(),
                });
                continue;
            };
            placement.parts.truncate(parts);
            for (chain, _) in placement.chains.drain(first..).rev() {
                queue.unpop(chain);
            }
            too_much = need;
            match why {
                NoRoom::TooLong => pair.rx_stats.too_long.add(1),
                NoRoom::Few => pair.rx_stats.no_buffers.add(1),
                NoRoom::Empty => {
                    pair.rx_stats.no_buffers.add((picks.len() - at) as u64);
                    return Ok(picks.len());
                }
            }
        }
        Ok(picks.len())
    }
}

/// Takes chains for `need` bytes: several when they are mergeable, else one.
/// Returns the index of the first, behind bad ones that are handed back empty
/// in any case, and whether there is room. `budget` is how many chains may
/// still be looked at in this turn. A bad one among the frame's counts as one of the frame's buffers, because the
/// driver counts used entries.
#[inline]
fn reserve<'m>(
    pair: &QueuePair,
    queue: &mut Queue,
    memory: &'m GuestMemory,
    need: usize,
    mergeable: bool,
    placement: &mut Placement<'_, 'm>,
    budget: &mut usize,
) -> Result<(usize, Result<(), NoRoom>), RingError> {
    let mark = placement.parts.len();
    let mut first = placement.chains.len();
    let mut room = 0;
    loop {
        let before = placement.parts.len();
        let mut collect = Collect {
            parts: &mut placement.parts,
            mark: before,
            len: 0,
        };
        if *budget == 0 {
            return Ok((first, Err(NoRoom::Empty)));
        }
        *budget -= 1;
        let popped = queue.pop(memory, &mut collect)?;
        let len = collect.len;
        let chain = match popped {
            Pop::Empty if placement.chains.len() == first => {
                return Ok((first, Err(NoRoom::Empty)));
            }
            Pop::Empty => return Ok((first, Err(NoRoom::Few))),
            Pop::Bad(chain, fault) => {
                tracing::debug!("{}: receive chain returned: {fault}", pair.shared.name);
                pair.rx_stats.bad_chains.add(1);
                placement.parts.truncate(before);
                if placement.chains.try_push((chain, 0)).is_err() {
                    queue.unpop(chain);
                    return Ok((first, Err(NoRoom::TooLong)));
                }
                if room == 0 {
                    first = placement.chains.len();
                }
                continue;
            }
            Pop::Chain(chain) => chain,
        };
        let capacity = u32::try_from(len).unwrap_or(u32::MAX);
        if placement.chains.try_push((chain, capacity)).is_err() {
            queue.unpop(chain);
            return Ok((first, Err(NoRoom::TooLong)));
        }
        room += capacity as usize;
        if room >= need {
            return Ok((first, Ok(())));
        }
        if !mergeable || placement.parts.len() - mark >= FRAME_PARTS {
            return Ok((first, Err(NoRoom::TooLong)));
        }
    }
}

/// Writes header and frame into `parts`, and into `chains` how many bytes each
/// was given.
#[inline]
fn fill(
    batch: &Batch<'_>,
    frame: &Frame,
    header_len: usize,
    parts: &[Writable<'_>],
    chains: &mut [(Chain, u32)],
) {
    let mut left = header_len + frame.len as usize;
    for (_, len) in chains.iter_mut() {
        *len = u32::try_from(left).map_or(*len, |left| left.min(*len));
        left -= *len as usize;
    }
    let header = NetHeader {
        num_buffers: u16::try_from(chains.len()).unwrap_or(u16::MAX),
        ..frame.header
    };
    write(&header, header_len, parts, batch.parts(frame));
}

/// Writes the virtio-net header into the first bytes of `parts`.
#[inline]
pub(super) fn write_header(header: &NetHeader, header_len: usize, parts: &[Writable<'_>]) {
    match parts.first() {
        Some(first) if header_len == LEN && first.len() >= LEN => {
            let (start, end) = header.to_halves();
            first.write_array(&start);
            first.skip(start.len()).write_array(&end);
        }
        _ => {
            let raw = header.to_bytes();
            let raw = &raw[..header_len.min(LEN)];
            copy(&[Readable::from_slice(raw)], parts);
        }
    }
}

/// Writes the virtio-net header and what follows it.
#[inline]
fn write(header: &NetHeader, header_len: usize, parts: &[Writable<'_>], body: &[Readable<'_>]) {
    write_header(header, header_len, parts);
    if let ([room], [frame]) = (parts, body) {
        room.skip(header_len).write_from(frame);
        return;
    }
    let mut skip = header_len;
    let room: ArrayVec<Writable<'_>, ROOM> = parts
        .iter()
        .take(ROOM)
        .map(|part| {
            let rest = part.skip(skip);
            skip = skip.saturating_sub(part.len());
            rest
        })
        .collect();
    copy(body, &room);
}

impl Attachment for QueuePort {
    fn offloads(&self) -> u64 {
        self.shared.guest_offloads()
    }

    fn deliver(&self, ring: usize, batch: &Batch<'_>, mut picks: &[u16]) -> Delivered {
        let mut total = Delivered::default();
        let Some(pair) = self.pairs.get(ring % self.shared.active_pairs()) else {
            return total;
        };
        if !self.shared.is_link_up() {
            pair.rx_stats.not_ready.add_shared(picks.len() as u64);
            return total;
        }
        while !picks.is_empty() {
            let (dealt, delivered) = self.deliver_some(pair, batch, picks);
            total.frames += delivered.frames;
            total.bytes += delivered.bytes;
            picks = picks.get(dealt.max(1)..).unwrap_or_default();
        }
        total
    }
}
