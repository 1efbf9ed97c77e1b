//! From a transmit ring: slots become batches of frames.

use std::ops::Range;

use arrayvec::ArrayVec;

use crate::net::frame::{BATCH, Batch, EtherHeader, MAX_FRAME};
use crate::net::offload;
use crate::netmap::abi::{NS_BUF_CHANGED, NS_FORWARD, NS_INDIRECT, NS_MOREFRAG, Slot};
use crate::netmap::kring::{Counts, Kring};
use crate::netmap::mem::RingView;
use crate::virtio::memory::Readable;
use crate::virtio::net_header::{LEN, NetHeader};
use crate::virtio::spec::net;

/// Sends the frames in `slots`, going round, and counts them.
///
/// As in the kernel, the virtio-net header of `header_len` bytes must lie in a
/// frame's first slot, before data or alone; the first slot with data must
/// hold the whole Ethernet header; and a frame that says it goes on where the
/// ring does not ends there. Other than in the kernel, a slot that is wrong
/// takes its whole frame with it, and data in the client's own address space
/// (`NS_INDIRECT`) is wrong.
pub(super) fn send(
    kring: &Kring,
    slots: Range<u32>,
    header_len: usize,
    forward: &mut dyn FnMut(&Batch<'_>),
) {
    let view = kring.view();
    let mut counts = Counts::default();
    let mut at = slots.start;
    while at != slots.end {
        fetch(&view, at..slots.end);
        let mut batch = Batch::new();
        while at != slots.end && !batch.is_full() {
            if header_len == 0 {
                at = collect_lone(&view, at..slots.end, &mut batch, &mut counts);
                if at == slots.end || batch.is_full() {
                    break;
                }
            }
            at = collect(&view, at, slots.end, header_len, &mut batch, &mut counts);
        }
        if !batch.frames().is_empty() {
            forward(&batch);
        }
    }
    kring.count(&counts);
}

/// Adds the frames in the first of `slots` that are as most are, [`lone`], up to
/// the first that is another. Returns its slot.
#[inline]
fn collect_lone<'m>(
    view: &RingView<'m>,
    slots: Range<u32>,
    batch: &mut Batch<'m>,
    counts: &mut Counts,
) -> u32 {
    let start = slots.start;
    let [run, _] = view.runs(slots);
    let found = run.map_while(|at| lone(view, view.slot(at)?));
    let (frames, bytes) = batch.extend_lone(found);
    counts.frames += u64::from(frames);
    counts.bytes += bytes;
    // All of them were in the run.
    let at = start + frames;
    if at == view.num_slots() { 0 } else { at }
}

/// Has the processor fetch what the next batch from `slots` begins with: rings
/// are larger than its caches, and their buffers lie where few of them fit.
#[inline]
fn fetch(view: &RingView<'_>, slots: Range<u32>) {
    #[expect(clippy::cast_possible_truncation, reason = "it is small")]
    let mut left = BATCH as u32;
    for Range { start, end } in view.runs(slots) {
        let run = start..end.min(start + left);
        left -= run.end - start;
        for slot in run.filter_map(|at| view.slot(at)) {
            if let Some(buffer) = view.slot_buffer(slot) {
                buffer.as_readable().truncate(slot.len.into()).prefetch();
            }
        }
    }
}

/// Sends as many of the frames in `slots` as `forward` takes, and counts them;
/// returns the first slot that is left.
pub(super) fn send_some(
    kring: &Kring,
    slots: Range<u32>,
    forward: &mut dyn FnMut(&Batch<'_>) -> usize,
) -> u32 {
    let view = kring.view();
    let mut counts = Counts::default();
    let mut at = slots.start;
    let mut full = false;
    while at != slots.end && !full {
        let mut batch = Batch::new();
        // Where each frame begins, and what was counted before it.
        let mut starts = ArrayVec::<(u32, Counts), BATCH>::new();
        while at != slots.end && !batch.is_full() {
            let before = (at, counts);
            let frames = batch.frames().len();
            at = collect(&view, at, slots.end, 0, &mut batch, &mut counts);
            if batch.frames().len() > frames && !starts.is_full() {
                starts.push(before);
            }
        }
        if batch.frames().is_empty() {
            continue;
        }
        if let Some((left, before)) = starts.get(forward(&batch)) {
            (at, counts) = (*left, *before);
            full = true;
        }
    }
    kring.count(&counts);
    at
}

/// Forwards the frames in `slots` whose first slot is marked, and takes the
/// mark off.
pub(super) fn send_marked(kring: &Kring, slots: Range<u32>, forward: &mut dyn FnMut(&Batch<'_>)) {
    let view = kring.view();
    let mut refused = Counts::default();
    let mut at = slots.start;
    while at != slots.end {
        let mut batch = Batch::new();
        while at != slots.end && !batch.is_full() {
            let slot = view.slot(at).unwrap_or_default();
            if slot.flags & NS_FORWARD == 0 {
                at = view.next(at);
                continue;
            }
            view.set_len_and_flags(at, slot.len, slot.flags & !NS_FORWARD);
            at = collect(&view, at, slots.end, 0, &mut batch, &mut refused);
        }
        if !batch.frames().is_empty() {
            forward(&batch);
        }
    }
    // They were counted when they came.
    kring.count(&Counts {
        frames: 0,
        bytes: 0,
        ..refused
    });
}

/// Why a frame is not sent.
#[derive(Clone, Copy, Debug)]
enum Refused {
    Short,
    Long,
    BadSlot,
    BadHeader,
}

/// A frame of which not all slots were looked at.
struct Pending {
    mark: usize,
    raw: [u8; LEN],
    header_seen: bool,
    ether: Option<EtherHeader>,
    len: usize,
}

/// Adds one frame, from slot `at` on, to the batch, if it is good. Returns the
/// slot after it.
#[inline]
fn collect<'m>(
    view: &RingView<'m>,
    at: u32,
    end: u32,
    header_len: usize,
    batch: &mut Batch<'m>,
    counts: &mut Counts,
) -> u32 {
    if header_len == 0 {
        if let Some(found) = view.slot(at).and_then(|slot| lone(view, slot)) {
            let (frames, bytes) = batch.extend_lone(std::iter::once(found));
            counts.frames += u64::from(frames);
            counts.bytes += bytes;
            return view.next(at);
        }
    }
    assemble(view, at, end, header_len, batch, counts)
}

/// The quick way: a good frame of one slot in which there is nothing to be
/// seen to, as most are.
#[inline]
fn lone<'m>(view: &RingView<'m>, slot: Slot) -> Option<(Readable<'m>, EtherHeader)> {
    if slot.flags & (NS_MOREFRAG | NS_INDIRECT | NS_BUF_CHANGED) != 0 {
        return None;
    }
    let buffer = view.slot_buffer(slot)?;
    if usize::from(slot.len) > buffer.len() {
        return None;
    }
    let part = buffer.as_readable().truncate(slot.len.into());
    Some((part, EtherHeader::read(&part, 0)?))
}

/// Any frame, as [`collect`].
fn assemble<'m>(
    view: &RingView<'m>,
    mut at: u32,
    end: u32,
    header_len: usize,
    batch: &mut Batch<'m>,
    counts: &mut Counts,
) -> u32 {
    let mut pending = Pending {
        mark: batch.mark(),
        raw: [0; LEN],
        header_seen: header_len == 0,
        ether: None,
        len: 0,
    };
    let mut refused = None;
    loop {
        // All indices are from our own cursors: the slot is there.
        let Some(slot) = view.slot(at) else {
            return end;
        };
        if slot.flags & NS_BUF_CHANGED != 0 {
            view.set_len_and_flags(at, slot.len, slot.flags & !NS_BUF_CHANGED);
        }
        at = view.next(at);
        let last = slot.flags & NS_MOREFRAG == 0 || at == end;
        if refused.is_none() {
            refused = pending.add(view, slot, header_len, batch).err();
        }
        if last {
            break;
        }
    }
    let result = match refused {
        None => pending.finish(batch),
        Some(why) => Err(why),
    };
    match result {
        Ok(bytes) => {
            counts.frames += 1;
            counts.bytes += bytes;
        }
        Err(why) => {
            batch.discard(pending.mark);
            *match why {
                Refused::Short => &mut counts.short,
                Refused::Long => &mut counts.long,
                Refused::BadSlot => &mut counts.bad_slots,
                Refused::BadHeader => &mut counts.bad_headers,
            } += 1;
        }
    }
    at
}

impl Pending {
    /// Adds one slot.
    #[inline]
    fn add<'m>(
        &mut self,
        view: &RingView<'m>,
        slot: Slot,
        header_len: usize,
        batch: &mut Batch<'m>,
    ) -> Result<(), Refused> {
        let buffer = view.slot_buffer(slot).ok_or(Refused::BadSlot)?;
        if slot.flags & NS_INDIRECT != 0 || usize::from(slot.len) > buffer.len() {
            return Err(Refused::BadSlot);
        }
        let mut part = buffer.as_readable().truncate(slot.len.into());
        if !self.header_seen {
            self.header_seen = true;
            if part.len() < header_len {
                return Err(Refused::Short);
            }
            part.truncate(header_len).read(&mut self.raw);
            part = part.skip(header_len);
            if part.is_empty() {
                return Ok(());
            }
        }
        if self.ether.is_none() {
            self.ether = Some(EtherHeader::read(&part, 0).ok_or(Refused::Short)?);
        }
        self.len += part.len();
        if part.is_empty() {
            return Ok(());
        }
        if self.len > MAX_FRAME {
            return Err(Refused::Long);
        }
        batch.push_part(self.mark, part).ok_or(Refused::Long)
    }

    /// Makes what was added a frame; returns how long it is.
    #[inline]
    fn finish(&self, batch: &mut Batch<'_>) -> Result<u64, Refused> {
        let ether = self.ether.ok_or(Refused::Short)?;
        // At most MAX_FRAME.
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        let parts = batch.pending(self.mark..batch.mark());
        let header = NetHeader::from_bytes(&self.raw);
        let header = offload::check_parts(&header, net::HOST_OFFLOADS, parts, len)
            .map_err(|_| Refused::BadHeader)?;
        if batch.push_frame(self.mark, len, ether, header) {
            Ok(len.into())
        } else {
            Err(Refused::Long)
        }
    }
}
