//! A batch into a transmit ring.

use std::io;

use arrayvec::ArrayVec;

use crate::backend::Sent;
use crate::net::frame::{Batch, Frame};
use crate::netmap::abi::{NETMAP_MAX_FRAGS, NS_MOREFRAG};
use crate::netmap::mem::RingView;
use crate::netmap::port::{Direction, Port};
use crate::virtio::memory::{Writable, copy};
use crate::virtio::net_header::NetHeader;

/// What the port takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most slots of a frame.
    pub slots: usize,
    /// Most bytes of a frame.
    pub longest: usize,
    /// Bytes of the virtio-net header in front of each frame.
    pub header_len: usize,
}

/// Copies the frames of `batch` into transmit ring `index`, for the next sync. A
/// frame that is too long for the port, or finds no room after a sync, is
/// dropped, and those behind it have their chance.
///
/// # Errors
/// When the port is gone: nothing of the batch counts as sent.
pub(super) fn send(
    port: &dyn Port,
    index: usize,
    limits: Limits,
    batch: &Batch<'_>,
) -> io::Result<Sent> {
    let mut sent = Sent::default();
    let Some(ring) = port.ring(Direction::Tx, index) else {
        sent.dropped = u32::try_from(batch.frames().len()).unwrap_or(u32::MAX);
        return Ok(sent);
    };
    let mut reclaimed = false;
    let mut at = ring.head();
    for frame in batch.frames() {
        let put = match put(&ring, at, limits, batch, frame) {
            Err(Refused::Full) if !reclaimed => {
                reclaimed = true;
                publish(&ring, at);
                port.txsync()?;
                put(&ring, at, limits, batch, frame)
            }
            put => put,
        };
        match put {
            Ok(next) => {
                at = next;
                sent.frames += 1;
                sent.bytes += u64::from(frame.len);
            }
            Err(_) => sent.dropped += 1,
        }
    }
    publish(&ring, at);
    Ok(sent)
}

fn publish(ring: &RingView<'_>, head: u32) {
    ring.set_cur(head);
    ring.set_head(head);
}

/// Why a frame is not sent.
#[derive(Clone, Copy, Debug)]
enum Refused {
    /// No room just now.
    Full,
    /// Not by this port.
    Unfit,
}

/// Puts one frame into the slots from `at` on. Returns the slot after it.
#[inline]
fn put(
    ring: &RingView<'_>,
    at: u32,
    limits: Limits,
    batch: &Batch<'_>,
    frame: &Frame,
) -> Result<u32, Refused> {
    let Limits {
        slots,
        longest,
        header_len,
    } = limits;
    if header_len == 0 && !frame.header.is_plain() {
        // What it asks for would be lost.
        return Err(Refused::Unfit);
    }
    let len = header_len + frame.len as usize;
    let size = ring.buf_size() as usize;
    let count = len.div_ceil(size);
    if count > slots || frame.len as usize > longest {
        return Err(Refused::Unfit);
    }
    if count > ring.distance(at, ring.tail()) as usize {
        return Err(Refused::Full);
    }
    let mut rooms = ArrayVec::<Writable<'_>, NETMAP_MAX_FRAGS>::new();
    let mut end = at;
    for _ in 0..count {
        // Other users of the memory may have spoilt the slot.
        let slot = ring.slot(end).ok_or(Refused::Unfit)?;
        let room = ring.buffer(slot.buf_idx).ok_or(Refused::Unfit)?;
        rooms.try_push(room).map_err(|_| Refused::Unfit)?;
        end = ring.next(end);
    }
    if fill(&mut rooms, header_len, batch, frame) != len {
        return Err(Refused::Unfit);
    }
    let mut left = len;
    let mut slot = at;
    while slot != end {
        let here = left.min(size);
        left -= here;
        let flags = if left > 0 { NS_MOREFRAG } else { 0 };
        #[expect(clippy::cast_possible_truncation, reason = "buf_size fits u16")]
        ring.set_len_and_flags(slot, here as u16, flags);
        slot = ring.next(slot);
    }
    Ok(end)
}

/// Copies header and frame; returns how many bytes that were.
#[inline]
fn fill(rooms: &mut [Writable<'_>], header_len: usize, batch: &Batch<'_>, frame: &Frame) -> usize {
    let mut done = 0;
    if header_len > 0 {
        let Some(first) = rooms.first_mut() else {
            return 0;
        };
        // The switch hands it to the receiver as it is: one frame, one header.
        let header = NetHeader {
            num_buffers: 1,
            ..frame.header
        };
        let raw = header.to_bytes();
        done = first.write(raw.get(..header_len).unwrap_or_default());
        *first = first.skip(done);
    }
    done + copy(batch.parts(frame), rooms)
}
