//! The quick way: each frame into one chain of one buffer, as the most are.

use arrayvec::ArrayVec;

use super::{Filled, Rules, count, update_header, write_header};
use crate::device::pair::QueuePair;
use crate::device::vring::Lease;
use crate::net::frame::{BATCH, Batch};
use crate::netmap::attachment::Delivered;
use crate::virtio::memory::{GuestMemory, Writable, copy};
use crate::virtio::net_header::{LEN, NetHeader};
use crate::virtio::queue::{Chain, Queue, RingError, VirtQueue};

/// Chains and how many bytes each is given.
type Used = ArrayVec<(Chain, u32), BATCH>;
/// Chains and their buffers.
type Free<'m> = ArrayVec<(Chain, Writable<'m>), BATCH>;
/// Frames by their number in a batch.
type Picks = ArrayVec<u16, BATCH>;

/// Delivers frames of `picks` in order, up to the first that does not go this
/// way. Returns how many were dealt with, and what the guest got.
pub(super) fn deliver(
    pair: &QueuePair,
    rules: &Rules<'_>,
    batch: &Batch<'_>,
    picks: &[u16],
) -> (usize, Delivered) {
    let Some(lease) = pair.rx.lease() else {
        return (0, Delivered::default());
    };
    let mut used = Used::new();
    let (dealt, filled) = reserve_and_fill(&lease, rules, batch, picks, &mut used);
    let Some((reservation, delivered)) = filled else {
        return (dealt, Delivered::default());
    };
    lease.commit(reservation, used.into_iter(), || {
        count(rules.stats, &delivered);
    });
    (dealt, delivered)
}

/// Takes chains under the ring's lock, and fills them without it.
#[inline]
fn reserve_and_fill(
    lease: &Lease<'_>,
    rules: &Rules<'_>,
    batch: &Batch<'_>,
    picks: &[u16],
    used: &mut Used,
) -> (usize, Filled) {
    let mut free = Free::new();
    let mut chosen = Picks::new();
    let mut dealt = 0;
    let mut all_fit = false;
    let reserved = lease.reserve(|queue| {
        let most = picks.len().min(BATCH);
        let shortest = take(queue, lease.memory(), most, rules.header_len, &mut free)?;
        let longest = rules.header_len + batch.longest() as usize;
        all_fit = rules.takes_all(batch) && longest <= shortest;
        if all_fit {
            dealt = free.len();
        } else {
            dealt = choose(rules, batch, picks, queue, &mut free, &mut chosen);
        }
        Ok(u16::try_from(free.len()).unwrap_or(u16::MAX))
    });
    let Some(reservation) = reserved else {
        return (dealt, None);
    };
    let placed = if all_fit { picks } else { &chosen };
    let delivered = fill(rules.header_len, batch, placed, &free, used);
    (dealt, Some((reservation, delivered)))
}

/// Takes up to `most` chains of one buffer; returns the length of the shortest.
#[inline]
fn take<'m>(
    queue: &mut Queue,
    memory: &'m GuestMemory,
    most: usize,
    header_len: usize,
    free: &mut Free<'m>,
) -> Result<usize, RingError> {
    let mut shortest = usize::MAX;
    queue.pop_lone(memory, most, |chain, room: Writable<'m>| {
        room.prefetch(header_len);
        shortest = shortest.min(room.len());
        free.push((chain, room));
    })?;
    Ok(shortest)
}

/// Writes the frames at `placed` with their headers into the `free` chains, one
/// into each, and notes in `used` how many bytes that were.
#[inline]
fn fill(
    header_len: usize,
    batch: &Batch<'_>,
    placed: &[u16],
    free: &Free<'_>,
    used: &mut Used,
) -> Delivered {
    let plain = NetHeader {
        num_buffers: 1,
        ..NetHeader::default()
    };
    let mut delivered = Delivered::default();
    for (&(chain, room), &pick) in free.iter().zip(placed) {
        let Some(frame) = batch.frames().get(usize::from(pick)) else {
            // A chain that was taken must come back.
            used.push((chain, 0));
            continue;
        };
        let header = match batch.is_plain() {
            true => plain,
            false => NetHeader {
                num_buffers: 1,
                ..frame.header
            },
        };
        let body = if header_len == LEN {
            update_header(&room, &header.to_halves());
            room.skip(LEN)
        } else {
            write_header(&header, header_len, std::slice::from_ref(&room));
            room.skip(header_len)
        };
        match batch.only_part(frame) {
            Some(part) => body.write_from(part),
            None => copy(batch.parts(frame), &[body]),
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a buffer's length is a u32"
        )]
        used.push((chain, header_len as u32 + frame.len));
        delivered.frames += 1;
        delivered.bytes += u64::from(frame.len);
    }
    delivered
}

/// Chooses those of `picks` that the guest is to have, for as long as each fits
/// into the next of the `free` chains; what is left of these goes back. Returns
/// how many frames were dealt with.
fn choose(
    rules: &Rules<'_>,
    batch: &Batch<'_>,
    picks: &[u16],
    queue: &mut Queue,
    free: &mut Free<'_>,
    chosen: &mut Picks,
) -> usize {
    let mut dealt = 0;
    for &pick in picks {
        if let Some(frame) = batch.frames().get(usize::from(pick)) {
            if rules.passes(batch, frame) {
                let need = rules.header_len + frame.len as usize;
                match free.get(chosen.len()) {
                    Some((_, room)) if room.len() >= need => chosen.push(pick),
                    _ => break,
                }
            }
        }
        dealt += 1;
    }
    for (chain, _) in free.drain(chosen.len()..).rev() {
        queue.unpop(chain);
    }
    dealt
}
