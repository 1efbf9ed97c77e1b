//! The quick way: each frame into one chain of one buffer, as the most are.

use arrayvec::ArrayVec;

use super::{Filled, Rules, count, update_header, write_header};
use crate::device::pair::QueuePair;
use crate::device::vring::Lease;
use crate::net::frame::{BATCH, Batch};
use crate::netmap::attachment::Delivered;
use crate::virtio::memory::{Writable, copy};
use crate::virtio::net_header::{LEN, NetHeader};
use crate::virtio::queue::{Chain, VirtQueue};

/// Chains and how many bytes each is given.
type Used = ArrayVec<(Chain, u32), BATCH>;

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
    let mut rooms = ArrayVec::<Writable<'_>, BATCH>::new();
    let mut placed = ArrayVec::<u16, BATCH>::new();
    let mut dealt = 0;
    let reserved = lease.reserve(|queue| {
        let most = picks.len().min(BATCH);
        queue.pop_lone(lease.memory(), most, |chain, room: Writable<'_>| {
            room.prefetch(rules.header_len);
            used.push((chain, 0));
            rooms.push(room);
        })?;
        let takes_all = rules.takes_all(batch);
        let mut free = rooms.iter().zip(used.iter_mut());
        for &pick in picks {
            if let Some(frame) = batch.frames().get(usize::from(pick)) {
                if takes_all || rules.passes(batch, frame) {
                    let need = rules.header_len + frame.len as usize;
                    match free.next() {
                        Some((room, (_, len))) if room.len() >= need => {
                            // A buffer's length is a u32.
                            *len = u32::try_from(need).unwrap_or(u32::MAX);
                            placed.push(pick);
                        }
                        _ => break,
                    }
                }
            }
            dealt += 1;
        }
        for (chain, _) in used.drain(placed.len()..).rev() {
            queue.unpop(chain);
        }
        Ok(u16::try_from(placed.len()).unwrap_or(u16::MAX))
    });
    let Some(reservation) = reserved else {
        return (dealt, None);
    };
    let mut delivered = Delivered::default();
    for (&pick, room) in placed.iter().zip(&rooms) {
        let Some(frame) = batch.frames().get(usize::from(pick)) else {
            continue;
        };
        let header = NetHeader {
            num_buffers: 1,
            ..frame.header
        };
        if rules.header_len == LEN {
            update_header(room, &header.to_halves());
        } else {
            write_header(&header, rules.header_len, std::slice::from_ref(room));
        }
        let room = room.skip(rules.header_len);
        match batch.parts(frame) {
            [part] => room.write_from(part),
            parts => copy(parts, &[room]),
        };
        delivered.frames += 1;
        delivered.bytes += u64::from(frame.len);
    }
    (dealt, Some((reservation, delivered)))
}
