//! Into a receive ring: frames are copied into the slots of a lease.

use arrayvec::ArrayVec;

use crate::net::frame::{BATCH, Batch, Frame};
use crate::netmap::abi::{NS_MOREFRAG, NS_PORT_SHIFT, NS_RFRAGS_MAX, Slot};
use crate::netmap::attachment::Delivered;
use crate::netmap::kring::{Counts, Kring, Lease};
use crate::netmap::mem::RingView;
use crate::virtio::memory::{Readable, Writable, copy};
use crate::virtio::net_header::NetHeader;

/// Most slots of one frame.
const FRAME_SLOTS: usize = NS_RFRAGS_MAX as usize;

/// Gives the frames of `batch` at `picks` to whoever reads the ring, in order,
/// each slot with
/// `flags`, as many as there is room for: like the kernel's, a frame that does not fit
/// takes those behind it with it.
pub(super) fn deliver(
    kring: &Kring,
    header_len: usize,
    flags: u16,
    batch: &Batch<'_>,
    picks: &[u16],
) -> Delivered {
    let mut total = Delivered::default();
    for picks in picks.chunks(BATCH) {
        let delivered = deliver_some(kring, header_len, flags, batch, picks);
        total.frames += delivered.frames;
        total.bytes += delivered.bytes;
    }
    total
}

/// A frame and how many slots it takes.
type Planned<'b> = (&'b Frame, u32);

fn deliver_some(
    kring: &Kring,
    header_len: usize,
    flags: u16,
    batch: &Batch<'_>,
    picks: &[u16],
) -> Delivered {
    let view = kring.view();
    // One slot always stays empty: a ring of one has room for nothing.
    if header_len == 0 && batch.is_plain() && view.num_slots() > 1 {
        let room = view.room();
        if batch.frames().iter().all(|frame| frame.len <= room) {
            return deliver_lone(kring, flags, batch, picks);
        }
    }
    let most = NS_RFRAGS_MAX.min(view.num_slots().saturating_sub(1));
    let mut refused = Counts::default();
    let mut plan = ArrayVec::<Planned<'_>, BATCH>::new();
    let mut need = 0;
    for pick in picks {
        let Some(frame) = batch.frames().get(usize::from(*pick)) else {
            continue;
        };
        let header = u32::try_from(header_len).unwrap_or_default();
        let bytes = frame.len.saturating_add(header);
        let slots = match view.room() {
            0 => u32::MAX,
            room if bytes <= room => 1,
            room => bytes.div_ceil(room),
        };
        if header_len == 0 && !frame.header.is_plain() {
            // It lost its header after the switch had asked.
            refused.bad_headers += 1;
        } else if slots > most {
            refused.long += 1;
        } else if !plan.is_full() {
            plan.push((frame, slots));
            need += slots;
        }
    }
    let Some(mut lease) = kring.reserve(need) else {
        refused.full += plan.len() as u64;
        kring.count(&refused);
        return Delivered::default();
    };
    *lease.counts() = refused;
    // As in `tx`: what is written next is not in the caches.
    for nth in 0..lease.left() {
        let slot = lease.slot(nth).and_then(|at| view.slot(at));
        if let Some(room) = slot.and_then(|slot| view.slot_buffer(slot)) {
            room.prefetch(0);
        }
    }
    let mut delivered = Delivered::default();
    for (done, (frame, slots)) in plan.iter().enumerate() {
        if *slots > lease.left() {
            lease.counts().full += (plan.len() - done) as u64;
            break;
        }
        if write(&mut lease, *slots, header_len, flags, batch, frame) {
            delivered.frames += 1;
            delivered.bytes += u64::from(frame.len);
        }
    }
    lease.counts().frames += u64::from(delivered.frames);
    lease.counts().bytes += delivered.bytes;
    delivered
}

/// The quick way: frames that nothing is in front of and of which each has room
/// in any slot, as most have.
fn deliver_lone(kring: &Kring, flags: u16, batch: &Batch<'_>, picks: &[u16]) -> Delivered {
    let mut delivered = Delivered::default();
    let want = u32::try_from(picks.len()).unwrap_or(u32::MAX);
    let Some(mut lease) = kring.reserve(want) else {
        kring.count(&Counts {
            full: want.into(),
            ..Counts::default()
        });
        return delivered;
    };
    let view = lease.view();
    let slots = lease.slots();
    // As in `tx`: what is written next is not in the caches.
    for run in slots.clone() {
        for slot in run.filter_map(|at| view.slot(at)) {
            if let Some(room) = view.slot_buffer(slot) {
                room.prefetch(0);
            }
        }
    }
    let mut bad_slots = 0u32;
    let mut frames = picks
        .iter()
        .filter_map(|pick| batch.frames().get(usize::from(*pick)));
    for run in slots {
        for (at, frame) in run.zip(frames.by_ref()) {
            let written = match batch.only_part(frame) {
                Some(part) => write_lone(&view, at, flags, part),
                None => write_one(&view, at, 0, flags, batch, frame),
            };
            if let Some(bytes) = written {
                delivered.frames += 1;
                delivered.bytes += bytes as u64;
            } else {
                bad_slots += 1;
                view.set_len_and_flags(at, 0, 0);
            }
        }
    }
    let left = lease.left();
    *lease.counts() = Counts {
        frames: delivered.frames.into(),
        bytes: delivered.bytes,
        full: want.saturating_sub(left).into(),
        bad_slots: bad_slots.into(),
        ..Counts::default()
    };
    lease.written(delivered.frames + bad_slots);
    delivered
}

/// Writes one frame into the next `slots` of the lease. `false`: the reader
/// has spoilt one of these slots, and gets them empty.
#[inline]
fn write(
    lease: &mut Lease<'_>,
    slots: u32,
    header_len: usize,
    extra: u16,
    batch: &Batch<'_>,
    frame: &Frame,
) -> bool {
    let good = match slots {
        1 => lease
            .slot(0)
            .and_then(|at| write_one(&lease.view(), at, header_len, extra, batch, frame))
            .map(drop),
        _ => write_many(lease, slots, header_len, extra, batch, frame),
    };
    if good.is_none() {
        lease.counts().bad_slots += 1;
        for at in (0..slots).filter_map(|nth| lease.slot(nth)) {
            lease.view().set_len_and_flags(at, 0, 0);
        }
    }
    lease.written(slots);
    good.is_some()
}

/// A frame of one part into one slot, as most are. Returns its length.
#[inline]
fn write_lone(view: &RingView<'_>, at: u32, extra: u16, part: &Readable<'_>) -> Option<usize> {
    let slot = view.slot(at)?;
    let len = view.slot_buffer(slot)?.write_from(part);
    say(view, at, slot, len, extra);
    Some(len)
}

/// Any frame into one slot. Returns how much of the slot it takes.
#[inline]
fn write_one(
    view: &RingView<'_>,
    at: u32,
    header_len: usize,
    extra: u16,
    batch: &Batch<'_>,
    frame: &Frame,
) -> Option<usize> {
    let slot = view.slot(at)?;
    let room = view.slot_buffer(slot)?;
    let len = fill(std::slice::from_ref(&room), header_len, batch, frame);
    say(view, at, slot, len, extra);
    Some(len)
}

/// Says in `slot` that it is all of a frame. One that says it already is not
/// written, so that its line stays with the reader, too.
#[inline]
fn say(view: &RingView<'_>, at: u32, slot: Slot, len: usize, extra: u16) {
    #[expect(clippy::cast_possible_truncation, reason = "buf_size fits u16")]
    let said = (len as u16, 1 << NS_PORT_SHIFT | extra);
    if said != (slot.len, slot.flags) {
        view.set_len_and_flags(at, said.0, said.1);
    }
}

fn write_many(
    lease: &Lease<'_>,
    slots: u32,
    header_len: usize,
    extra: u16,
    batch: &Batch<'_>,
    frame: &Frame,
) -> Option<()> {
    let view = lease.view();
    let mut rooms = ArrayVec::<Writable<'_>, FRAME_SLOTS>::new();
    for nth in 0..slots {
        let slot = view.slot(lease.slot(nth)?)?;
        rooms.try_push(view.slot_buffer(slot)?).ok()?;
    }
    let mut left = fill(&rooms, header_len, batch, frame);
    #[expect(clippy::cast_possible_truncation, reason = "at most 255 slots")]
    let count = (slots << NS_PORT_SHIFT) as u16;
    for (nth, room) in (0..slots).zip(&rooms) {
        #[expect(clippy::cast_possible_truncation, reason = "buf_size fits u16")]
        let len = left.min(room.len()) as u16;
        left -= usize::from(len);
        let more = if nth + 1 < slots { NS_MOREFRAG } else { 0 };
        view.set_len_and_flags(lease.slot(nth)?, len, count | more | extra);
    }
    Some(())
}

/// Copies header and frame; returns how many bytes were written.
fn fill(rooms: &[Writable<'_>], header_len: usize, batch: &Batch<'_>, frame: &Frame) -> usize {
    let parts = batch.parts(frame);
    if header_len == 0 {
        return match (rooms, parts) {
            ([room], [part]) => room.write_from(part),
            _ => copy(parts, rooms),
        };
    }
    let Some((first, rest)) = rooms.split_first() else {
        return 0;
    };
    // One frame, one header: as for a driver without mergeable buffers.
    let header = NetHeader {
        num_buffers: 1,
        ..frame.header
    };
    let raw = header.to_bytes();
    let header_len = first.write(&raw[..header_len.min(raw.len())]);
    let first = first.skip(header_len);
    if let ([], [part]) = (rest, parts) {
        return header_len + first.write_from(part);
    }
    let rooms: ArrayVec<Writable<'_>, FRAME_SLOTS> =
        std::iter::once(first).chain(rest.iter().copied()).collect();
    header_len + copy(parts, &rooms)
}
