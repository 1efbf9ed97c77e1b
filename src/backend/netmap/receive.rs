//! From receive rings into the guest's buffers.
//!
//! A frame for which the guest has no buffers stays in its slots. One that asks
//! for what this guest has not negotiated leaves them at once: it is finished
//! in software, checksummed or cut into segments.

use std::io;

use arrayvec::ArrayVec;

use crate::backend::{Dropped, Received, Room};
use crate::net::frame::{BATCH, ETHER_HEADER, FRAME_PARTS, MAX_FRAME};
use crate::net::offload::{self, Checksums, MAX_HEADER, Segments};
use crate::netmap::abi::NS_MOREFRAG;
use crate::netmap::mem::RingView;
use crate::netmap::port::{Direction, Port};
use crate::virtio::memory::{Readable, Writable, copy};
use crate::virtio::net_header::{GSO_NONE, LEN, NetHeader};
use crate::virtio::spec::net;

/// A frame that is being finished in software.
struct Finishing {
    /// As its sender wrote it, and checked.
    header: NetHeader,
    /// Bytes of it in the scratch room.
    len: usize,
    /// Segments that the guest has already.
    done: usize,
}

/// Who receives on a lane.
#[derive(Default)]
pub(super) struct Inbox {
    finishing: Option<Finishing>,
    /// Where frames are finished; made when the first one has to be.
    scratch: Vec<u8>,
    /// The ring to look at first, so that none is starved.
    first: usize,
}

/// What lies in the slots of one frame.
struct Found<'r> {
    parts: ArrayVec<Readable<'r>, FRAME_PARTS>,
    header: NetHeader,
    len: usize,
}

/// Slots that are no frame.
enum Bad {
    /// Nobody's: the rest of a lease that was not used up.
    Empty,
    /// Their contents make no sense.
    Malformed,
    /// Longer than any frame.
    TooLong,
}

impl Inbox {
    /// Throws away what waits in the rings.
    ///
    /// # Errors
    /// When the port is gone.
    pub(super) fn clear(&mut self, port: &dyn Port) -> io::Result<()> {
        self.finishing = None;
        port.rxsync()?;
        for index in 0..port.ring_count(Direction::Rx) {
            if let Some(ring) = port.ring(Direction::Rx, index) {
                release(&ring, ring.tail());
            }
        }
        port.rxsync()
    }

    /// Gives the guest what is in the rings, until there is nothing more or no
    /// room.
    pub(super) fn receive(
        &mut self,
        port: &dyn Port,
        header_len: usize,
        offloads: u64,
        rx: &mut dyn Room,
    ) -> Received {
        if let Err(received) = self.finish(rx) {
            return received;
        }
        let count = port.ring_count(Direction::Rx);
        for nth in 0..count {
            let index = (self.first + nth) % count;
            let Some(ring) = port.ring(Direction::Rx, index) else {
                continue;
            };
            if let Err(received) = self.receive_from(&ring, header_len, offloads, rx) {
                self.first = index + 1;
                return received;
            }
        }
        Received::Drained
    }

    /// What is in one ring. `Err` says why something is left.
    fn receive_from(
        &mut self,
        ring: &RingView<'_>,
        header_len: usize,
        offloads: u64,
        rx: &mut dyn Room,
    ) -> Result<(), Received> {
        let mut at = ring.head();
        let tail = ring.tail();
        // What is dropped counts as well, so that a flood of that ends, too.
        let mut budget = 2 * BATCH;
        while ring.distance(at, tail) > 0 {
            budget = budget.checked_sub(1).ok_or(Received::Budget)?;
            let (found, next) = collect(ring, at, tail, header_len);
            let given = match found {
                Ok(found) => self.give(&found, offloads, rx),
                Err(Bad::Empty) => Ok(()),
                Err(Bad::Malformed) => {
                    rx.drop(Dropped::Malformed);
                    Ok(())
                }
                Err(Bad::TooLong) => {
                    rx.drop(Dropped::TooLong);
                    Ok(())
                }
            };
            given?;
            at = next;
            release(ring, at);
            self.finish(rx)?;
        }
        Ok(())
    }

    /// Gives the guest one frame, or takes it to be finished. `Err`: it is to
    /// stay in its slots.
    fn give(
        &mut self,
        found: &Found<'_>,
        offloads: u64,
        rx: &mut dyn Room,
    ) -> Result<(), Received> {
        let checked = offload::check_parts(
            &found.header,
            net::HOST_OFFLOADS,
            &found.parts,
            u32::try_from(found.len).unwrap_or(u32::MAX),
        );
        let Ok(header) = checked else {
            rx.drop(Dropped::Offload);
            return Ok(());
        };
        if offload::accepts(&header, offloads, || &found.parts) {
            return deliver(&header, &found.parts, found.len, rx);
        }
        self.scratch.resize(MAX_FRAME, 0);
        let mut len = 0;
        for part in &found.parts {
            len += part.read(&mut self.scratch[len..]);
        }
        self.finishing = Some(Finishing {
            header,
            len,
            done: 0,
        });
        if header.gso_type == GSO_NONE {
            offload::complete_checksum(&mut self.scratch[..len], &header);
        }
        Ok(())
    }

    /// Gives the guest what is being finished, if anything is. `Err`: not all
    /// of it.
    fn finish(&mut self, rx: &mut dyn Room) -> Result<(), Received> {
        let Some(finishing) = &mut self.finishing else {
            return Ok(());
        };
        let frame = &self.scratch[..finishing.len];
        if finishing.header.gso_type == GSO_NONE {
            let part = Readable::from_slice(frame);
            deliver(&NetHeader::default(), &[part], frame.len(), rx)?;
        } else if let Ok(mut segments) =
            Segments::new(frame, &finishing.header, Checksums::Complete)
        {
            let mut head = [0; MAX_HEADER];
            let mut nth = 0;
            while let Some(segment) = segments.next(&mut head) {
                if nth >= finishing.done {
                    let parts = [
                        Readable::from_slice(head.get(..segment.head_len).unwrap_or_default()),
                        Readable::from_slice(
                            frame.get(segment.payload.clone()).unwrap_or_default(),
                        ),
                    ];
                    deliver(&NetHeader::default(), &parts, segment.frame_len(), rx)?;
                    finishing.done += 1;
                }
                nth += 1;
            }
        } else {
            // It was changed after it had been checked.
            rx.drop(Dropped::Offload);
        }
        self.finishing = None;
        Ok(())
    }
}

/// Gives the slots before `head` back, at the next sync.
fn release(ring: &RingView<'_>, head: u32) {
    ring.set_cur(head);
    ring.set_head(head);
}

/// Gives the guest one frame, or drops it. `Err`: the guest has no room for it
/// now.
fn deliver(
    header: &NetHeader,
    parts: &[Readable<'_>],
    len: usize,
    rx: &mut dyn Room,
) -> Result<(), Received> {
    let room = rx.room(len)?;
    let capacity: usize = room.iter().map(Writable::len).sum();
    if capacity >= len && copy(parts, room) == len {
        rx.finish(header, len);
    } else if rx.may_grow(len) {
        return Err(Received::NoRoom);
    } else {
        rx.drop(Dropped::TooLong);
    }
    Ok(())
}

/// What lies in the slots from `at` to the end of the frame, and the slot after
/// it. Any other user of the memory may have changed what the kernel wrote
/// there: each slot is read once.
fn collect<'r>(
    ring: &RingView<'r>,
    mut at: u32,
    tail: u32,
    header_len: usize,
) -> (Result<Found<'r>, Bad>, u32) {
    let mut parts = ArrayVec::new();
    let mut len = 0;
    let mut bad = None;
    loop {
        let Some(slot) = ring.slot(at) else {
            return (Err(Bad::Malformed), tail);
        };
        at = ring.next(at);
        len += usize::from(slot.len);
        match ring.buffer(slot.buf_idx) {
            _ if slot.len == 0 => {}
            Some(buffer) if usize::from(slot.len) <= buffer.len() => {
                let part = buffer.as_readable().truncate(slot.len.into());
                if parts.try_push(part).is_err() {
                    bad = Some(Bad::TooLong);
                }
            }
            _ => bad = Some(Bad::Malformed),
        }
        if slot.flags & NS_MOREFRAG == 0 {
            break;
        }
        if at == tail {
            bad = Some(Bad::Malformed);
            break;
        }
    }
    let found = match bad {
        Some(bad) => Err(bad),
        None => frame(parts, len, header_len),
    };
    (found, at)
}

/// Takes the header off the frame's parts.
fn frame(
    mut parts: ArrayVec<Readable<'_>, FRAME_PARTS>,
    len: usize,
    header_len: usize,
) -> Result<Found<'_>, Bad> {
    if len == 0 {
        return Err(Bad::Empty);
    }
    let mut raw = [0; LEN];
    if header_len > 0 {
        // As the kernel has it: whole in the first slot, before data or alone.
        let first = parts.first_mut().ok_or(Bad::Malformed)?;
        let head = raw.get_mut(..header_len).ok_or(Bad::Malformed)?;
        if first.read(head) < header_len {
            return Err(Bad::Malformed);
        }
        *first = first.skip(header_len);
    }
    let len = len - header_len;
    match len {
        0..ETHER_HEADER => Err(Bad::Malformed),
        ETHER_HEADER..=MAX_FRAME => Ok(Found {
            parts,
            header: NetHeader::from_bytes(&raw),
            len,
        }),
        _ => Err(Bad::TooLong),
    }
}
