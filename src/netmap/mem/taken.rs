//! What somebody has of a region until it is dropped: rings, and interfaces with
//! their extra buffers.

use std::mem::offset_of;
use std::sync::{Arc, OnceLock};

use super::mapped::line_behind;
use super::progress::{LINE, Progress};
use super::region::Region;
use super::view::{RingParts, RingView, SlotOffsets};
use crate::netmap::abi;

/// What a ring is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSpec {
    /// Its number.
    pub id: u16,
    /// It is a receive ring.
    pub rx: bool,
    /// How many slots.
    pub slots: u32,
    /// The first `tail`.
    pub tail: u32,
}

/// A ring in a region. Its buffers, those that its slots name then, go back
/// when it is dropped.
#[derive(Debug)]
pub struct RingMemory {
    pub(super) region: Arc<Region>,
    pub(super) offset: u64,
    pub(super) index: u32,
    pub(super) slots: u32,
    pub(super) offsets: OnceLock<SlotOffsets>,
}

impl RingMemory {
    /// The ring as it lies there.
    #[inline]
    pub fn view(&self) -> RingView<'_> {
        let parts = RingParts {
            ring: self.region.at(self.offset),
            buffers: self.region.at(self.region.buffers.offset),
            slots: self.slots,
            buf_size: self.region.buffers.size,
            buf_num: self.region.buffers.num,
        };
        // SAFETY: the ring was made with so many slots, aligned to 8
        // bytes; it and all buffers are mapped while the region lives, which
        // the view borrows.
        let view = unsafe { RingView::new(parts) };
        match self.offsets.get() {
            Some(offsets) => view.with_offsets(*offsets),
            None => view,
        }
    }

    /// How far the ring is, for a pipe's, where its object has room for that
    /// behind the slots.
    #[inline]
    pub fn progress(&self) -> Option<Progress<'_>> {
        let line = line_behind(self.offset, self.slots);
        let end = self.offset + u64::from(self.region.rings.size);
        // SAFETY: inside of the ring's object, which is mapped while the region
        // lives; regions are aligned to pages, and lines in them to their size.
        (line + LINE as u64 <= end).then(|| unsafe { Progress::new(self.region.at(line)) })
    }

    /// Lets slots say where in the buffer their data begins, from now on.
    /// Returns how they do: as it was said first.
    pub fn set_offsets(&self, offsets: SlotOffsets) -> SlotOffsets {
        let offsets = *self.offsets.get_or_init(|| offsets);
        self.view().set_offset_mask(offsets.mask);
        offsets
    }

    /// How slots say where in the buffer their data begins, if they do.
    pub fn offsets(&self) -> Option<SlotOffsets> {
        self.offsets.get().copied()
    }

    /// Bytes from the start of the region.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        let mut pools = self.region.pools();
        let view = self.view();
        let mut lost = 0u32;
        for slot in (0..self.slots).filter_map(|at| view.slot(at)) {
            // A client may have written anything there; what is no buffer in
            // use is not taken, and what it lost comes back with the region.
            // Buffer 0 is that of slots that have none.
            lost += u32::from(slot.buf_idx != 0 && !pools.buffers.give(slot.buf_idx));
        }
        if lost > 0 {
            tracing::debug!(
                region = self.region.id(),
                "{lost} slots of a closed netmap ring named no buffer in use"
            );
        }
        pools.rings.give(self.index);
        self.region.tidy(&mut pools);
    }
}

/// What a `netmap_if` is to say.
#[derive(Clone, Copy, Debug)]
pub struct InterfaceSpec<'a> {
    /// The port's name; what passes 15 bytes is cut off.
    pub name: &'a str,
    /// Transmit rings, host rings not counted.
    pub tx_rings: u16,
    /// Receive rings, host rings not counted.
    pub rx_rings: u16,
    /// Places for transmit rings to the host; a port without has one, never
    /// bound.
    pub host_tx_rings: u16,
    /// Places for receive rings from the host likewise.
    pub host_rx_rings: u16,
    /// All rings: tx, host tx, rx, host rx; `None` for those not bound.
    pub rings: &'a [Option<&'a RingMemory>],
    /// Extra buffers wanted.
    pub extra_bufs: u32,
}

/// A `netmap_if` in a region, and its list of extra buffers, which go back when
/// it is dropped.
#[derive(Debug)]
pub struct InterfaceMemory {
    pub(super) region: Arc<Region>,
    pub(super) offset: u64,
    pub(super) index: u32,
    pub(super) extra_bufs: u32,
}

impl InterfaceMemory {
    /// Bytes from the start of the region (`nr_offset`).
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many extra buffers there were (`nr_extra_bufs`).
    pub fn extra_bufs(&self) -> u32 {
        self.extra_bufs
    }

    /// The first extra buffer, as the client left it.
    pub(super) fn extra_head(&self) -> u32 {
        let at = self.region.at(self.offset);
        // SAFETY: the field lies in the header, which is mapped.
        unsafe {
            at.add(offset_of!(abi::Interface, ni_bufs_head))
                .cast::<u32>()
                .read_volatile()
        }
    }
}

impl Drop for InterfaceMemory {
    fn drop(&mut self) {
        let mut pools = self.region.pools();
        let mut head = self.extra_head();
        // Ends: each step gives a buffer back that was taken, or stops.
        while let Some(link) = self.region.link(head) {
            // SAFETY: inside a buffer, aligned to 8 bytes.
            let next = unsafe { link.read_volatile() };
            if !pools.buffers.give(head) {
                break;
            }
            head = next;
        }
        pools.interfaces.give(self.index);
        self.region.tidy(&mut pools);
    }
}
