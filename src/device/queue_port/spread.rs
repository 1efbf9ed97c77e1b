//! The general way: a frame goes into as many chains of as many buffers as it
//! takes.

use std::ops::Range;

use arrayvec::ArrayVec;

use super::{Filled, Rules, count, no_room, write_header};
use crate::device::pair::QueuePair;
use crate::device::vring::Lease;
use crate::net::frame::{BATCH, Batch, FRAME_PARTS, Frame, PARTS};
use crate::netmap::attachment::Delivered;
use crate::virtio::memory::{GuestMemory, Readable, Writable, copy};
use crate::virtio::net_header::NetHeader;
use crate::virtio::queue::{Chain, Parts, Pop, Queue, RingError, VirtQueue};

/// Most chains in one reservation.
const CHAINS: usize = 512;
/// Most parts for one frame: its last chain may begin just below the limit.
const ROOM: usize = 2 * FRAME_PARTS;

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
    header_len: usize,
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
        part.prefetch(self.header_len);
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

/// Delivers as many of `picks` as one reservation holds. Returns how many were
/// dealt with and what the guest got.
pub(super) fn deliver(
    pair: &QueuePair,
    rules: &Rules<'_>,
    batch: &Batch<'_>,
    picks: &[u16],
) -> (usize, Delivered) {
    let Some(lease) = pair.rx.lease() else {
        rules.stats.not_ready.add_shared(picks.len() as u64);
        return (picks.len(), Delivered::default());
    };
    let mut chains = Chains::new();
    let (dealt, filled) = reserve_and_fill(pair, &lease, rules, batch, picks, &mut chains);
    let Some((reservation, delivered)) = filled else {
        return (dealt, Delivered::default());
    };
    lease.commit(reservation, chains.iter().copied(), || {
        count(rules.stats, &delivered);
    });
    (dealt, delivered)
}

/// Reserves chains under the ring's lock and fills them without it.
fn reserve_and_fill(
    pair: &QueuePair,
    lease: &Lease<'_>,
    rules: &Rules<'_>,
    batch: &Batch<'_>,
    picks: &[u16],
    chains: &mut Chains,
) -> (usize, Filled) {
    let mut placement = Placement {
        frames: ArrayVec::new(),
        parts: ArrayVec::new(),
        chains,
    };
    // After an error it does not matter how far it came: all are lost.
    let mut dealt = picks.len();
    let reserved = lease.reserve(|queue| {
        let memory = lease.memory();
        dealt = place(pair, rules, queue, memory, batch, picks, &mut placement)?;
        Ok(u16::try_from(placement.chains.len()).unwrap_or(u16::MAX))
    });
    let Some(reservation) = reserved else {
        return (dealt, None);
    };
    let mut delivered = Delivered::default();
    for placed in &placement.frames {
        let Some(frame) = batch.frames().get(usize::from(placed.pick)) else {
            continue;
        };
        let parts = &placement.parts[placed.parts.clone()];
        let chains = &mut placement.chains[placed.chains.clone()];
        fill(batch, frame, rules.header_len, parts, chains);
        delivered.frames += 1;
        delivered.bytes += u64::from(frame.len);
    }
    (dealt, Some((reservation, delivered)))
}

/// Reserves room for the frames at `picks`, in order; returns for how many
/// it was decided. Runs under the ring's lock.
fn place<'m>(
    pair: &QueuePair,
    rules: &Rules<'_>,
    queue: &mut Queue,
    memory: &'m GuestMemory,
    batch: &Batch<'_>,
    picks: &[u16],
    placement: &mut Placement<'_, 'm>,
) -> Result<usize, RingError> {
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
        if !rules.passes(batch, frame) {
            continue;
        }
        let need = frame.len as usize + rules.header_len;
        if rules.mergeable && need >= too_much {
            pair.rx_stats.no_buffers.add(1);
            continue;
        }
        let parts = placement.parts.len();
        let (first, room) = reserve(pair, rules, queue, memory, need, placement, &mut budget)?;
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

/// Takes chains for `need` bytes: several when they are mergeable, else one.
/// Returns the index of the first, behind bad ones and ones without any room,
/// which are handed back empty in any case, and whether there is room. `budget`
/// is how many chains may still be looked at in this turn. A bad one among the
/// frame's counts as one of the frame's buffers, because the driver counts used
/// entries.
#[inline]
fn reserve<'m>(
    pair: &QueuePair,
    rules: &Rules<'_>,
    queue: &mut Queue,
    memory: &'m GuestMemory,
    need: usize,
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
            header_len: rules.header_len,
        };
        if *budget == 0 {
            return Ok((first, Err(NoRoom::Empty)));
        }
        *budget -= 1;
        let popped = queue.pop(memory, &mut collect)?;
        let len = collect.len;
        let found = match popped {
            Pop::Empty if placement.chains.len() == first => {
                return Ok((first, Err(NoRoom::Empty)));
            }
            Pop::Empty => return Ok((first, Err(NoRoom::Few))),
            Pop::Bad(chain, fault) => {
                tracing::debug!("{}: receive chain returned: {fault}", pair.shared.name);
                Err(chain)
            }
            Pop::Chain(chain) if len <= no_room(rules.header_len, rules.mergeable).into() => {
                Err(chain)
            }
            Pop::Chain(chain) => Ok(chain),
        };
        let chain = match found {
            Ok(chain) => chain,
            Err(chain) => {
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
        if !rules.mergeable || placement.parts.len() - mark >= FRAME_PARTS {
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

/// Writes the virtio-net header and what follows it.
fn write(header: &NetHeader, header_len: usize, parts: &[Writable<'_>], body: &[Readable<'_>]) {
    write_header(header, header_len, parts);
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
