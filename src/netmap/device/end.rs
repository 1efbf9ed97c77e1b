//! Frames between lines and what takes them: rings, and switches.

use std::ops::Range;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::source::{Arrived, Line, Put};
use crate::net::counter::Counter;
use crate::net::frame::{BATCH, Batch};
use crate::netmap::attachment::{Attachment, Delivered, Dropped};
use crate::netmap::kring::{Kring, Synced};
use crate::netmap::{offload, ring_port};
use crate::virtio::spec::net;

/// Most batches that one sync takes from a line.
const BATCHES: u32 = 64;

/// A line as a port of a switch.
pub(super) struct LineEnd {
    line: Arc<dyn Line>,
    full: Counter,
}

impl LineEnd {
    pub(super) fn new(line: Arc<dyn Line>) -> Arc<Self> {
        Arc::new(Self {
            line,
            full: Counter::default(),
        })
    }
}

impl Attachment for LineEnd {
    fn offloads(&self) -> u64 {
        // The kernel finishes them where the hardware does not, but for what
        // few kernels know.
        net::GUEST_OFFLOADS & !net::F_GUEST_UFO
    }

    fn deliver(&self, _: usize, batch: &Batch<'_>, picks: &[u16]) -> Delivered {
        let mut delivered = Delivered::default();
        for (nth, pick) in picks.iter().enumerate() {
            let Some(frame) = batch.frames().get(usize::from(*pick)) else {
                continue;
            };
            match self.line.send(batch, frame) {
                Put::Sent => {
                    delivered.frames += 1;
                    delivered.bytes += u64::from(frame.len);
                }
                Put::Lost => {}
                Put::Full => {
                    self.full.add_shared((picks.len() - nth) as u64);
                    break;
                }
            }
        }
        delivered
    }

    fn dropped(&self) -> Dropped {
        let dropped = self.line.dropped();
        Dropped {
            no_room: dropped.no_room + self.full.get(),
            ..dropped
        }
    }
}

/// Whoever reads a ring, without offloads.
struct Reader<'k>(&'k Kring);

impl Attachment for Reader<'_> {
    fn offloads(&self) -> u64 {
        0
    }

    fn deliver(&self, _: usize, batch: &Batch<'_>, picks: &[u16]) -> Delivered {
        ring_port::deliver(self.0, 0, batch, picks)
    }
}

/// Sends as many of the frames as there is room for; returns how many are done
/// with.
pub(super) fn send(line: &dyn Line, batch: &Batch<'_>) -> usize {
    let full = |frame| line.send(batch, frame) == Put::Full;
    let frames = batch.frames();
    frames.iter().position(full).unwrap_or(frames.len())
}

/// How many slots a frame takes, each with `room` bytes, whole or in segments.
fn slots(arrived: Arrived, room: usize) -> usize {
    let room = room.max(1);
    if arrived.segment == 0 {
        return arrived.len.div_ceil(room);
    }
    // A segment has the frame's headers too, which are at most a slot's.
    let each = arrived.segment.div_ceil(room) + 1;
    arrived.len.div_ceil(arrived.segment).saturating_mul(each)
}

/// Syncs a receive ring that has its frames from `line`. What the application
/// has released is shown to `released` before it is gone.
pub(super) fn receive(kring: &Kring, line: &dyn Line, released: impl FnOnce(Range<u32>)) -> Synced {
    let mut synced = kring.rxsync_after(released);
    let view = kring.view();
    let room = view.room() as usize;
    let whole = view.num_slots().saturating_sub(1) as usize;
    let mut came = false;
    for _ in 0..BATCHES {
        let mut left = kring.space() as usize;
        let mut fits = |arrived| {
            let need = slots(arrived, room).min(whole);
            let fits = need <= left;
            left = left.saturating_sub(need);
            fits
        };
        let gone = line.receive(&mut fits, &mut |batch| {
            #[expect(clippy::cast_possible_truncation, reason = "at most BATCH")]
            let picks: ArrayVec<u16, BATCH> =
                (0..batch.frames().len()).map(|at| at as u16).collect();
            offload::deliver(&Reader(kring), 0, batch, &picks);
        });
        if gone == 0 {
            break;
        }
        came = true;
    }
    if came {
        let again = kring.rxsync();
        synced.ready = again.ready;
        synced.began_anew |= again.began_anew;
    }
    synced
}

/// Lets go of `last`, which others are in the middle of using and will not find
/// again. Waits for them, though not for ever: to close an interface takes the
/// system milliseconds, which are to be this thread's and not a worker's.
pub(in crate::netmap) fn part_with<T: ?Sized>(last: Arc<T>) {
    const TURNS: u32 = 1000;
    for _ in 0..TURNS {
        if Arc::strong_count(&last) == 1 {
            break;
        }
        std::thread::yield_now();
    }
    drop(last);
}

/// Takes everything that has come, for nobody.
pub(super) fn discard(line: &dyn Line) {
    // A line that is fed as fast is not waited for.
    for _ in 0..BATCHES {
        if line.receive(&mut |_| true, &mut |_| {}) == 0 {
            return;
        }
    }
}
