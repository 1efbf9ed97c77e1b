//! Frames for a receiver that cannot take them as they are: checksums are
//! completed and long segments cut in software, on the way through a switch.

use std::cell::RefCell;

use arrayvec::ArrayVec;

use super::attachment::Attachment;
use crate::net::frame::{BATCH, Batch, ETHER_HEADER, Frame, MAX_FRAME};
use crate::net::offload::{Checksums, MAX_HEADER, Segments, accepts, complete_checksum};
use crate::virtio::memory::Readable;
use crate::virtio::net_header::{GSO_NONE, NetHeader};

thread_local! {
    /// Where a frame is put together to be changed; made once a thread.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_FRAME].into());
}

/// Most segments that are delivered at once.
const CHUNK: usize = BATCH / 2;

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
                    finish_in_software(receiver, ring, batch, frame);
                }
            }
            _ => {
                receiver.deliver(ring, batch, run);
            }
        }
    }
}

/// Copies the frame, makes it complete, and delivers what it became.
#[cold]
fn finish_in_software(receiver: &dyn Attachment, ring: usize, batch: &Batch<'_>, frame: &Frame) {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut len = 0;
        for part in batch.parts(frame) {
            len += part.read(&mut scratch[len..]);
        }
        let Some(bytes) = scratch.get_mut(..len.min(frame.len as usize)) else {
            return;
        };
        if frame.header.gso_type == GSO_NONE {
            complete_checksum(bytes, &frame.header);
            send(receiver, ring, &[(bytes, &[])]);
        } else {
            segment(receiver, ring, bytes, &frame.header);
        }
    });
}

/// Cuts the frame and delivers the segments, some at a time.
fn segment(receiver: &dyn Attachment, ring: usize, bytes: &[u8], header: &NetHeader) {
    // A checked header describes the frame; if the guest has changed it since,
    // there is nothing to send.
    let Ok(mut segments) = Segments::new(bytes, header, Checksums::Complete) else {
        return;
    };
    let mut heads = [[0; MAX_HEADER]; CHUNK];
    loop {
        let mut cut = ArrayVec::<(usize, std::ops::Range<usize>), CHUNK>::new();
        for head in &mut heads {
            match segments.next(head) {
                Some(segment) => cut.push((segment.head_len, segment.payload)),
                None => break,
            }
        }
        let frames: ArrayVec<(&[u8], &[u8]), CHUNK> = cut
            .iter()
            .zip(&heads)
            .filter_map(|((len, payload), head)| {
                Some((head.get(..*len)?, bytes.get(payload.clone())?))
            })
            .collect();
        if frames.is_empty() {
            return;
        }
        send(receiver, ring, &frames);
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
