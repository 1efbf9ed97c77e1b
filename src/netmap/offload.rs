//! Frames for a receiver that cannot take them as they are: checksums are
//! completed and long segments cut in software, on the way through a switch.

use arrayvec::ArrayVec;

use super::attachment::Attachment;
use crate::net::frame::{BATCH, Batch, ETHER_HEADER};
use crate::net::offload::{accepts, software};
use crate::virtio::memory::Readable;
use crate::virtio::net_header::NetHeader;

/// Gives the frames at `picks` to `receiver`, each as the receiver can take it.
#[inline]
pub fn deliver(receiver: &dyn Attachment, ring: usize, batch: &Batch<'_>, picks: &[u16]) {
    let offloads = receiver.offloads();
    let fits = |pick: &u16| {
        let frame = batch.frames().get(usize::from(*pick));
        frame.is_none_or(|frame| accepts(&frame.header, offloads))
    };
    if picks.iter().all(fits) {
        if !picks.is_empty() {
            receiver.deliver(ring, batch, picks);
        }
        return;
    }
    // In order: runs of frames that fit, and between them those that do not.
    for run in picks.chunk_by(|a, b| fits(a) && fits(b)) {
        match run {
            [pick] if !fits(pick) => {
                if let Some(frame) = batch.frames().get(usize::from(*pick)) {
                    software::finish(batch, frame, &mut |frames| send(receiver, ring, frames));
                }
            }
            _ => {
                receiver.deliver(ring, batch, run);
            }
        }
    }
}

/// Delivers frames of our own memory, each in two parts.
fn send(receiver: &dyn Attachment, ring: usize, frames: &[(&[u8], &[u8])]) {
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
    receiver.deliver(ring, &batch, &picks);
}
