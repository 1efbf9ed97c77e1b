//! Frames from the device.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use super::line::Line;
use super::{DriverError, Layout, MAX_SEGMENTS};
use crate::driver::memory::Area;
use crate::driver::queue::{DriverQueue, Segment};
use crate::virtio::memory::{Readable, Writable};
use crate::virtio::net_header::{LEN, NetHeader};

/// Most buffers that one frame may be spread over: 64 KiB in buffers of 64.
const MAX_BUFFERS: usize = 1024;

/// One received frame, where it lies.
#[derive(Debug)]
pub struct RxFrame<'a> {
    /// The header in front of it.
    pub header: NetHeader,
    /// Length of the frame in bytes.
    pub len: usize,
    parts: &'a [Readable<'a>],
}

impl RxFrame<'_> {
    /// Copies the frame's beginning, as much as `into` holds; returns how much.
    #[inline]
    pub fn read(&self, into: &mut [u8]) -> usize {
        let mut at = 0;
        for part in self.parts {
            at += part.read(&mut into[at..]);
            if at == into.len() {
                break;
            }
        }
        at
    }

    /// Copies the frame, as much as `room` holds, without looking at it.
    #[inline]
    pub fn copy_to(&self, mut room: Writable<'_>) {
        for part in self.parts {
            let copied = room.write_from(part);
            room = room.skip(copied);
        }
    }

    /// The frame, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut frame = vec![0; self.len];
        self.read(&mut frame);
        frame
    }

    /// How many chains it came in.
    pub fn chains(&self) -> usize {
        self.parts.len()
    }
}

/// One received frame, copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The header in front of it.
    pub header: NetHeader,
    /// The frame.
    pub frame: Vec<u8>,
}

/// A receive queue with a buffer (*slot*) for each entry of its ring.
#[derive(Debug)]
pub struct RxQueue {
    pub(super) queue: Box<dyn DriverQueue>,
    pub(super) line: Line,
    slots: Area,
    /// Bytes of a slot.
    slot: usize,
    /// Bytes of a slot that are offered to the device.
    buffer: usize,
    free: Vec<u16>,
    header_len: usize,
    mergeable: bool,
    layout: Layout,
    chain: ArrayVec<Segment, MAX_SEGMENTS>,
}

impl RxQueue {
    pub(super) fn new(
        queue: Box<dyn DriverQueue>,
        line: Line,
        slots: Area,
        buffer: usize,
        header_len: usize,
        mergeable: bool,
        layout: Layout,
    ) -> Self {
        let slot = slots.len() / usize::from(queue.size());
        let free = (0..queue.size()).rev().collect();
        Self {
            queue,
            line,
            slots,
            slot,
            buffer: buffer.min(slot),
            free,
            header_len,
            mergeable,
            layout,
            chain: ArrayVec::new(),
        }
    }

    /// Offers the device every buffer that it does not have, at most `most`,
    /// and kicks it if it wants that. Returns how many.
    ///
    /// # Errors
    /// When the layout makes too many pieces of a buffer.
    pub fn fill(&mut self, most: usize) -> Result<usize, DriverError> {
        let mut count = 0;
        while count < most {
            let Some(&slot) = self.free.last() else {
                break;
            };
            self.chain.clear();
            self.layout.split(
                self.slots.guest_addr(usize::from(slot) * self.slot),
                self.header_len,
                self.buffer - self.header_len,
                Segment::from_device,
                &mut self.chain,
            )?;
            if !self.queue.add(&self.chain, u32::from(slot))? {
                break;
            }
            self.free.pop();
            count += 1;
        }
        if self.queue.publish() {
            self.line.kick();
        }
        Ok(count)
    }

    /// Takes at most `most` frames that have arrived, in order, hands each to
    /// `frame`, and offers their buffers anew. Returns how many.
    ///
    /// # Errors
    /// When the device broke the rules of its queue or of the header.
    pub fn receive(
        &mut self,
        most: usize,
        mut frame: impl FnMut(RxFrame<'_>),
    ) -> Result<usize, DriverError> {
        let mut count = 0;
        while count < most && self.take(&mut frame)? {
            count += 1;
        }
        if count > 0 {
            self.fill(usize::MAX)?;
        }
        Ok(count)
    }

    /// Takes one frame; `false` when there is none. Its buffers are then free.
    #[inline]
    fn take(&mut self, frame: &mut impl FnMut(RxFrame<'_>)) -> Result<bool, DriverError> {
        let Some(first) = self.queue.pop()? else {
            return Ok(false);
        };
        let slot = slot_of(first.token);
        self.free.push(slot);
        let len = self.filled(first.len)?;
        if len < self.header_len {
            return Err(DriverError::NoHeader(len));
        }
        let start = usize::from(slot) * self.slot;
        let mut raw = [0; LEN];
        self.slots.readable(start, self.header_len).read(&mut raw);
        let header = NetHeader::from_bytes(&raw);
        let len = len - self.header_len;
        let body = self.slots.readable(start + self.header_len, len);
        if !self.mergeable || header.num_buffers == 1 {
            let parts = &[body];
            frame(RxFrame { header, len, parts });
            return Ok(true);
        }
        self.take_rest(header, first.token, len, frame)?;
        Ok(true)
    }

    /// The other buffers of a frame that is spread over several.
    fn take_rest(
        &mut self,
        header: NetHeader,
        first: u32,
        first_len: usize,
        frame: &mut impl FnMut(RxFrame<'_>),
    ) -> Result<(), DriverError> {
        let buffers = usize::from(header.num_buffers);
        if buffers == 0 || buffers > MAX_BUFFERS {
            return Err(DriverError::NumBuffers(header.num_buffers));
        }
        let mut taken = vec![(slot_of(first), self.header_len, first_len)];
        while taken.len() < buffers {
            // Section 5.1.6.4.1: all of a frame's buffers become used at once.
            let next = self
                .queue
                .pop()?
                .ok_or(DriverError::NumBuffers(header.num_buffers))?;
            let slot = slot_of(next.token);
            self.free.push(slot);
            taken.push((slot, 0, self.filled(next.len)?));
        }
        let parts: Vec<_> = taken
            .iter()
            .map(|&(slot, skip, len)| {
                let start = usize::from(slot) * self.slot + skip;
                self.slots.readable(start, len)
            })
            .collect();
        frame(RxFrame {
            header,
            len: taken.iter().map(|(_, _, len)| len).sum(),
            parts: &parts,
        });
        Ok(())
    }

    /// Bytes of a buffer that the device says it wrote, which it can have.
    fn filled(&self, len: u32) -> Result<usize, DriverError> {
        usize::try_from(len)
            .ok()
            .filter(|&len| len <= self.buffer)
            .ok_or(DriverError::UsedLength(len, self.buffer))
    }

    /// The next frame; `None` when none arrives within `timeout`.
    ///
    /// # Errors
    /// When the device broke the rules, the queue failed or the back end is
    /// gone.
    pub fn recv(&mut self, timeout: Duration) -> Result<Option<Received>, DriverError> {
        let until = Instant::now() + timeout;
        loop {
            let mut received = None;
            self.receive(1, |frame| {
                received = Some(Received {
                    header: frame.header,
                    frame: frame.to_vec(),
                });
            })?;
            if received.is_some() {
                return Ok(received);
            }
            if !self.line.wait(self.queue.as_mut(), until)? {
                return Ok(None);
            }
        }
    }

    /// Buffers that the device has.
    pub fn outstanding(&self) -> u16 {
        self.queue.outstanding()
    }

    /// Asks for an interrupt when the next frame arrives. `true`: one has
    /// already, and there may be none.
    pub fn enable_interrupts(&mut self) -> bool {
        self.queue.enable_interrupts()
    }

    /// Asks for no interrupts.
    pub fn disable_interrupts(&mut self) {
        self.queue.disable_interrupts();
    }

    /// What becomes readable with an interrupt.
    pub fn interrupt_fd(&self) -> BorrowedFd<'_> {
        self.line.call().source()
    }

    /// Takes interrupts that have arrived; `false` when there were none.
    pub fn take_interrupts(&self) -> bool {
        self.line.call().drain()
    }

    /// The back end has reported, since the last time this was asked, that the
    /// queue has failed.
    pub fn has_failed(&self) -> bool {
        self.line.has_failed()
    }

    /// Kicks the device, whether it wants that or not.
    pub fn kick(&self) {
        self.line.kick();
    }

    /// The queue below, for tests of what no driver should do.
    pub fn queue(&mut self) -> &mut dyn DriverQueue {
        self.queue.as_mut()
    }

    /// Goes on with another queue, of no more entries than the first one; the
    /// device must have stopped using the old one.
    pub(super) fn replace(&mut self, queue: Box<dyn DriverQueue>) {
        self.queue = queue;
        self.reset();
    }

    pub(super) fn reset(&mut self) {
        self.queue.reset();
        self.free = (0..self.queue.size()).rev().collect();
    }
}

/// Tokens are slot numbers of ours.
fn slot_of(token: u32) -> u16 {
    u16::try_from(token).unwrap_or(0)
}
