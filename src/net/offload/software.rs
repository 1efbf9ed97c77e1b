//! A frame made complete for a receiver that takes no offloads: its checksum
//! is filled in, or it is cut into segments.

use std::cell::RefCell;
use std::ops::Range;

use arrayvec::ArrayVec;

use super::{Checksums, MAX_HEADER, Segments, complete_checksum};
use crate::net::frame::{BATCH, Batch, Frame, MAX_FRAME};
use crate::virtio::net_header::{GSO_NONE, NetHeader};

thread_local! {
    /// Where a frame is put together to be changed; made once a thread.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_FRAME].into());
}

/// Most segments that are given out at once.
pub const CHUNK: usize = BATCH / 2;

/// Whatever takes complete frames, some at a time, at most [`CHUNK`]: each in
/// two parts, of which the second may be empty.
type Out<'o> = &'o mut dyn FnMut(&[(&[u8], &[u8])]);

/// Copies `frame` of `batch`, whose header was checked, and gives `out` the
/// complete frames that it becomes. None at all when the sender has meanwhile
/// made something else of it.
#[cold]
pub fn finish(batch: &Batch<'_>, frame: &Frame, out: Out<'_>) {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut len = 0;
        for part in batch.parts(frame) {
            len += part.read(&mut scratch[len..]);
        }
        if let Some(bytes) = scratch.get_mut(..len.min(frame.len as usize)) {
            finish_linear(bytes, &frame.header, out);
        }
    });
}

/// As [`finish`], for a frame in one piece, which is changed.
pub fn finish_linear(bytes: &mut [u8], header: &NetHeader, out: Out<'_>) {
    if header.gso_type == GSO_NONE {
        complete_checksum(bytes, header);
        out(&[(bytes, &[])]);
    } else {
        segment(bytes, header, out);
    }
}

fn segment(bytes: &[u8], header: &NetHeader, out: Out<'_>) {
    // A checked header describes the frame; if the guest has changed it since,
    // there is nothing to send.
    let Ok(mut segments) = Segments::new(bytes, header, Checksums::Complete) else {
        return;
    };
    let mut heads = [[0; MAX_HEADER]; CHUNK];
    loop {
        let mut cut = ArrayVec::<(usize, Range<usize>), CHUNK>::new();
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
        out(&frames);
    }
}
