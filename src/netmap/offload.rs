//! Frames for a receiver that cannot take them as they are: checksums are
//! completed and long segments cut in software, on the way through a switch.

use arrayvec::ArrayVec;

use super::attachment::{Attachment, Delivered};
use crate::net::frame::{BATCH, Batch, ETHER_HEADER};
use crate::net::offload::{accepts, software};
use crate::virtio::memory::Readable;
use crate::virtio::net_header::NetHeader;

/// What became of frames on their way to a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Frames that it took, segments counted one by one.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that it did not take.
    pub dropped: u64,
}

impl Outcome {
    /// `delivered` of the frames that were offered.
    #[inline]
    fn new(offered: usize, delivered: Delivered) -> Self {
        let frames = u64::from(delivered.frames);
        Self {
            frames,
            bytes: delivered.bytes,
            dropped: (offered as u64).saturating_sub(frames),
        }
    }

    fn add(&mut self, more: Self) {
        self.frames += more.frames;
        self.bytes += more.bytes;
        self.dropped += more.dropped;
    }
}

/// One frame that nobody got.
const LOST: Outcome = Outcome {
    frames: 0,
    bytes: 0,
    dropped: 1,
};

/// Gives the frames at `picks` to `receiver`, each as the receiver can take it.
#[inline]
pub fn deliver(
    receiver: &dyn Attachment,
    ring: usize,
    batch: &Batch<'_>,
    picks: &[u16],
) -> Outcome {
    let offloads = receiver.offloads();
    let fits = |pick: &u16| {
        let frame = batch.frames().get(usize::from(*pick));
        frame.is_none_or(|frame| accepts(&frame.header, offloads, || batch.parts(frame)))
    };
    if batch.is_plain() || picks.iter().all(fits) {
        if picks.is_empty() {
            return Outcome::default();
        }
        return Outcome::new(picks.len(), receiver.deliver(ring, batch, picks));
    }
    let mut outcome = Outcome::default();
    // In order: runs of frames that fit, and between them those that do not.
    for run in picks.chunk_by(|a, b| fits(a) && fits(b)) {
        match run {
            [pick] if !fits(pick) => {
                if let Some(frame) = batch.frames().get(usize::from(*pick)) {
                    let mut became = None;
                    software::finish(batch, frame, &mut |frames| {
                        let more = send(receiver, ring, frames);
                        became.get_or_insert_with(Outcome::default).add(more);
                    });
                    // A frame that its sender has spoilt becomes nothing.
                    outcome.add(became.unwrap_or(LOST));
                }
            }
            _ => outcome.add(Outcome::new(run.len(), receiver.deliver(ring, batch, run))),
        }
    }
    outcome
}

/// Delivers frames of our own memory, each in two parts.
fn send(receiver: &dyn Attachment, ring: usize, frames: &[(&[u8], &[u8])]) -> Outcome {
    let mut batch = Batch::new();
    let mut picks = ArrayVec::<u16, BATCH>::new();
    for (at, (head, body)) in frames.iter().enumerate() {
        let mark = batch.mark();
        let Some(ether) = head.first_chunk::<ETHER_HEADER>() else {
            continue;
        };
        let pushed = [head, body]
            .into_iter()
            .filter(|part| !part.is_empty())
            .all(|part| batch.push_part(mark, Readable::from_slice(part)).is_some());
        let (Ok(len), Ok(pick)) = (u32::try_from(head.len() + body.len()), u16::try_from(at))
        else {
            continue;
        };
        if pushed && batch.push_frame(mark, len, *ether, NetHeader::default()) && !picks.is_full() {
            picks.push(pick);
        }
    }
    Outcome::new(frames.len(), receiver.deliver(ring, &batch, &picks))
}
