//! What goes from one half of a link to the other: slots.
//!
//! It is the same code whoever runs it, the service or a client that has the
//! half ([`borrowed`](super::borrowed)); both halves are in one region.

use std::ops::Range;

use zerocopy::transmute;

use crate::netmap::abi::{NS_BUF_CHANGED, NS_MOREFRAG, Slot};
use crate::netmap::kring::Counts;
use crate::netmap::mem::{Progress, RingView};
use crate::netmap::sync::Hardware;

/// A link's two rings, and how far each half is.
#[derive(Clone, Copy, Debug)]
pub struct Passing<'m> {
    /// The transmit ring.
    pub tx: RingView<'m>,
    /// The receive ring that it leads to.
    pub rx: RingView<'m>,
    /// How far the transmit half is.
    pub tx_progress: Progress<'m>,
    /// How far the receive half is.
    pub rx_progress: Progress<'m>,
}

/// What came of one sync.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    /// How far the half is.
    pub after: Hardware,
    /// What went through.
    pub counts: Counts,
    /// The other half may go further.
    pub more: bool,
}

impl Passing<'_> {
    /// Sends the slots from `hwcur` up to `head`: whole frames are published,
    /// what is left of one waits for its end. What is about to be published is
    /// shown to `may`, which says whether it may be.
    #[inline]
    pub fn send(
        &self,
        head: u32,
        hardware: Hardware,
        may: impl FnOnce(Range<u32>) -> bool,
    ) -> Passed {
        let Self { tx, rx, .. } = self;
        let after = Hardware {
            hwcur: head,
            hwtail: so_far(&self.rx_progress, tx),
        };
        let mut counts = Counts::default();
        if hardware.hwcur == head {
            return Passed {
                after,
                counts,
                more: false,
            };
        }
        // What the receiver wants to have room for in front of the data.
        let with_room = |slot, theirs| {
            let offset = rx.offset(theirs);
            if rx.offset(slot) < offset {
                rx.with_offset(slot, offset)
            } else {
                slot
            }
        };
        let mut published = None;
        let passed = |slot: Slot, at| {
            counts.bytes += u64::from(slot.len);
            if slot.flags & NS_MOREFRAG == 0 {
                counts.frames += 1;
                published = Some(at);
            }
        };
        counts.bad_slots = pass((tx, hardware.hwcur..head), rx, with_room, passed);
        let end = published.map(|last| rx.next(last));
        let end = end.filter(|end| may(self.tx_progress.passed()..*end));
        if let Some(end) = end {
            self.tx_progress.pass(end);
        }
        Passed {
            after,
            counts,
            more: end.is_some(),
        }
    }

    /// Takes what was published, and gives back to the sender the slots from
    /// `hwcur` up to `head`, if `may` says so.
    #[inline]
    pub fn take(&self, head: u32, hardware: Hardware, may: impl FnOnce() -> bool) -> Passed {
        let Self { tx, rx, .. } = self;
        let after = Hardware {
            hwcur: head,
            hwtail: so_far(&self.tx_progress, rx),
        };
        let mut counts = Counts::default();
        let mut more = hardware.hwcur != head;
        if more {
            let released = (rx, hardware.hwcur..head);
            counts.bad_slots = pass(released, tx, |slot, _| slot, |_, _| {});
            more = may();
        }
        if more {
            let last = tx.num_slots().saturating_sub(1);
            self.rx_progress.pass(head.checked_sub(1).unwrap_or(last));
        }
        Passed {
            after,
            counts,
            more,
        }
    }
}

/// How far `ring` may go as the other half says, which may be a claim.
#[inline]
pub(super) fn so_far(other: &Progress<'_>, ring: &RingView<'_>) -> u32 {
    other.passed().min(ring.num_slots().saturating_sub(1))
}

/// Passes slots of `from` on to the same places of another ring, each as `fit`
/// makes it of itself and of what is there. `passed` is told of each, and where
/// it is. Returns how many were bad.
///
/// A slot that is there already is not written: a line that nobody writes need
/// not go from one processor to another, which takes longer than all that is
/// done for its slots.
#[inline]
fn pass(
    (from, slots): (&RingView<'_>, Range<u32>),
    to: &RingView<'_>,
    fit: impl Fn(Slot, Slot) -> Slot,
    mut passed: impl FnMut(Slot, u32),
) -> u64 {
    let mut bad_slots = 0;
    for run in from.runs(slots) {
        for at in run {
            // Both rings have as many.
            let (Some(ours), Some(theirs)) = (from.slot_words(at), to.slot_words(at)) else {
                continue;
            };
            let mut slot: Slot = transmute!(ours);
            let is_there = ours == theirs && slot.flags & NS_BUF_CHANGED == 0;
            if !is_there || !is_good(to, slot) {
                let good;
                (slot, good) = put((from, slot), (to, transmute!(theirs)), at, &fit);
                bad_slots += u64::from(!good);
            }
            passed(slot, at);
        }
    }
    bad_slots
}

/// It names a buffer of the region, and is not longer than that.
#[inline]
fn is_good(view: &RingView<'_>, slot: Slot) -> bool {
    view.is_buffer(slot.buf_idx) && u32::from(slot.len) <= view.buf_size()
}

/// Puts the slot `ours` at place `at` into the other ring, where `theirs` is. One
/// that is bad is empty there, and where need be has the buffer that is there.
/// Returns what is there now, and whether it was good.
fn put(
    (from, ours): (&RingView<'_>, Slot),
    (to, theirs): (&RingView<'_>, Slot),
    at: u32,
    fit: &impl Fn(Slot, Slot) -> Slot,
) -> (Slot, bool) {
    let mut slot = ours;
    let good = is_good(to, ours);
    if !good {
        slot.len = 0;
        if !to.is_buffer(ours.buf_idx) {
            slot.buf_idx = theirs.buf_idx;
        }
    }
    let slot = fit(slot, theirs);
    to.set_slot(at, slot);
    if ours.flags & NS_BUF_CHANGED != 0 {
        from.set_len_and_flags(at, ours.len, ours.flags & !NS_BUF_CHANGED);
    }
    (slot, good)
}
