//! Pipes: two ports, `PARENT{ID` and `PARENT}ID`, of which each receives what
//! the other sends. Both are in the parent's region, so what goes through a
//! pipe is slots, not bytes.
//!
//! Each transmit ring of one end is *linked* with the receive ring of the same
//! number at the other. The two rings have equally many slots and, between
//! them, one buffer for each: a slot that is sent takes its buffer to the other
//! ring, and when it is released, what the receiver left in it comes back.
//!
//! ```text
//! transmit ring   | free ...      | sent, not released | free ...
//! receive ring    | sender's ...  | receiver's         | sender's ...
//!                                 hwcur          published
//! ```
//!
//! A ring is linked when either end binds it, and stays so while the pipe has
//! a user: who closes one end and opens it again finds what was in it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use zerocopy::transmute;

use super::abi::{NS_BUF_CHANGED, NS_MOREFRAG, Slot};
use super::kring::{Counts, Kring, Synced};
use super::mem::{MemError, Region, RingView};
use super::port::Direction;
use super::rings::{Rings, Shape, ring_name};
use super::sync::Hardware;

/// One of a pipe's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// `PARENT{ID`
    Master,
    /// `PARENT}ID`
    Slave,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Master => Self::Slave,
            Self::Slave => Self::Master,
        }
    }
}

/// Both ends of a pipe.
#[derive(Debug)]
pub struct Pipe {
    id: String,
    names: [String; 2],
    region: Arc<Region>,
    rings: [Rings; 2],
    /// By who sends, and the ring's number.
    links: Mutex<HashMap<(End, usize), Arc<Link>>>,
}

impl Pipe {
    /// The pipe `id` below the port `parent`, whose master has the rings of
    /// `shape`.
    pub fn new(parent: &str, id: &str, region: Arc<Region>, shape: Shape) -> Self {
        Self {
            id: id.to_owned(),
            names: [format!("{parent}{{{id}"), format!("{parent}}}{id}")],
            region,
            rings: [Rings::new(shape), Rings::new(shape.swapped())],
            links: Mutex::default(),
        }
    }

    /// What follows the brace.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name of an end's port.
    pub fn name(&self, end: End) -> &str {
        let [master, slave] = &self.names;
        match end {
            End::Master => master,
            End::Slave => slave,
        }
    }

    /// An end's rings.
    pub fn rings(&self, end: End) -> &Rings {
        let [master, slave] = &self.rings;
        match end {
            End::Master => master,
            End::Slave => slave,
        }
    }

    /// The link that ring `index` of `end` has a half of, made if it is not
    /// there yet.
    ///
    /// # Errors
    /// When the region has too little left.
    pub fn link(
        &self,
        end: End,
        direction: Direction,
        index: usize,
    ) -> Result<Arc<Link>, MemError> {
        let sender = match direction {
            Direction::Tx => end,
            Direction::Rx => end.other(),
        };
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&(sender, index)) {
            return Ok(Arc::clone(link));
        }
        let half = |direction, full: bool| {
            let end = match direction {
                Direction::Tx => sender,
                Direction::Rx => sender.other(),
            };
            let rings = self.rings(end);
            let spec = rings.spec(direction, index);
            let memory = match full {
                true => self.region.ring(&spec)?,
                false => self.region.empty_ring(&spec)?,
            };
            let name = ring_name(self.name(end), direction, index);
            let watch = rings.watch(direction, index).cloned().unwrap_or_default();
            Ok(Arc::new(Kring::new(name, direction, memory, watch)))
        };
        // The side that asks has the buffers; the other's slots name them too.
        let full_tx = direction == Direction::Tx;
        let (tx, rx) = (
            half(Direction::Tx, full_tx)?,
            half(Direction::Rx, !full_tx)?,
        );
        let (from, to) = if full_tx { (&tx, &rx) } else { (&rx, &tx) };
        for at in 0..from.view().num_slots() {
            to.view()
                .set_slot(at, from.view().slot(at).unwrap_or_default());
        }
        let link = Arc::new(Link {
            tx_tail: AtomicU32::new(tx.hardware().hwtail),
            rx_tail: AtomicU32::new(rx.hardware().hwtail),
            kept: AtomicBool::new(false),
            tx,
            rx,
        });
        links.insert((sender, index), Arc::clone(&link));
        Ok(link)
    }

    /// A registration was refused: what was linked for it alone is given back.
    pub fn unlink_unused(&self) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, link| link.kept.load(Ordering::Relaxed));
    }
}

/// A transmit ring and the receive ring that it leads to.
#[derive(Debug)]
pub struct Link {
    tx: Arc<Kring>,
    rx: Arc<Kring>,
    /// The transmit ring's `hwtail` from its next sync on.
    tx_tail: AtomicU32,
    /// The receive ring's.
    rx_tail: AtomicU32,
    /// Some registration has had it.
    kept: AtomicBool,
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

impl Link {
    /// The half of one direction.
    pub fn kring(&self, direction: Direction) -> &Arc<Kring> {
        match direction {
            Direction::Tx => &self.tx,
            Direction::Rx => &self.rx,
        }
    }

    /// Somebody is registered with it: it stays as long as the pipe.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Sends: whole frames are published, what is left of one waits for its
    /// end.
    pub fn txsync(&self) -> Synced {
        self.tx.txsync_with(|head, hardware| {
            let after = Hardware {
                hwcur: head,
                hwtail: self.tx_tail.load(Ordering::Acquire),
            };
            if hardware.hwcur == head {
                return after;
            }
            let (tx, rx) = (self.tx.view(), self.rx.view());
            // What the receiver wants to have room for in front of the data.
            let with_room = |slot, theirs| {
                let offset = rx.offset(theirs);
                if rx.offset(slot) < offset {
                    rx.with_offset(slot, offset)
                } else {
                    slot
                }
            };
            let mut counts = Counts::default();
            let mut published = None;
            let passed = |slot: Slot, at| {
                counts.bytes += u64::from(slot.len);
                if slot.flags & NS_MOREFRAG == 0 {
                    counts.frames += 1;
                    published = Some(at);
                }
            };
            counts.bad_slots = pass((&tx, hardware.hwcur..head), &rx, with_room, passed);
            self.tx.count(&counts);
            if let Some(last) = published {
                let end = rx.next(last);
                let begin = self.rx_tail.load(Ordering::Relaxed);
                self.rx.watched(begin..end);
                self.rx_tail.store(end, Ordering::Release);
                self.rx.notify();
            }
            after
        })
    }

    /// Receives: what was published is the application's, what it released is
    /// the sender's again.
    pub fn rxsync(&self) -> Synced {
        self.rx.rxsync_with(|head, hardware| {
            let after = Hardware {
                hwcur: head,
                hwtail: self.rx_tail.load(Ordering::Acquire),
            };
            if hardware.hwcur != head {
                let (tx, rx) = (self.tx.view(), self.rx.view());
                let released = (&rx, hardware.hwcur..head);
                let bad_slots = pass(released, &tx, |slot, _| slot, |_, _| {});
                if bad_slots > 0 {
                    self.rx.count(&Counts {
                        bad_slots,
                        ..Counts::default()
                    });
                }
                let last = tx.num_slots().saturating_sub(1);
                let tail = head.checked_sub(1).unwrap_or(last);
                self.tx_tail.store(tail, Ordering::Release);
            }
            self.rx.set_hardware(after);
            if hardware.hwcur != head {
                self.tx.notify();
            }
            after
        })
    }
}

impl Drop for Link {
    /// Each buffer is named by one of the two rings from here on, so that each
    /// goes back once.
    fn drop(&mut self) {
        let (tx, rx) = (self.tx.view(), self.rx.view());
        let first = self.rx.hardware().hwcur;
        let sent = rx.distance(first, self.rx_tail.load(Ordering::Acquire));
        for at in 0..rx.num_slots() {
            let view = if rx.distance(first, at) < sent {
                &tx
            } else {
                &rx
            };
            view.set_slot(at, Slot::default());
        }
    }
}

#[cfg(test)]
mod tests;
