//! Frames to the device.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use super::line::Line;
use super::{DriverError, Flow, Layout, MAX_SEGMENTS};
use crate::driver::memory::Area;
use crate::driver::queue::{DriverQueue, Segment};
use crate::virtio::memory::Writable;
use crate::virtio::net_header::{LEN, NetHeader};

/// A transmit queue with a buffer (*slot*) for each entry of its ring.
#[derive(Debug)]
pub struct TxQueue {
    pub(super) queue: Box<dyn DriverQueue>,
    pub(super) line: Line,
    slots: Area,
    /// Bytes of a slot.
    slot: usize,
    /// Slots that the device does not have, the one used last on top.
    free: Vec<u16>,
    /// Length of the frame in each slot.
    lens: Box<[u32]>,
    taken: Flow,
    header_len: usize,
    layout: Layout,
    timeout: Duration,
    chain: ArrayVec<Segment, MAX_SEGMENTS>,
}

impl TxQueue {
    pub(super) fn new(
        queue: Box<dyn DriverQueue>,
        line: Line,
        slots: Area,
        header_len: usize,
        layout: Layout,
        timeout: Duration,
    ) -> Self {
        let slot = slots.len() / usize::from(queue.size());
        let free = (0..queue.size()).rev().collect();
        let lens = vec![0; usize::from(queue.size())].into_boxed_slice();
        Self {
            queue,
            line,
            slots,
            slot,
            free,
            lens,
            taken: Flow::default(),
            header_len,
            layout,
            timeout,
            chain: ArrayVec::new(),
        }
    }

    /// Longest frame in bytes that a slot holds.
    pub fn max_frame(&self) -> usize {
        self.slot - LEN
    }

    /// Frames that can be pushed before any comes back, when each takes one
    /// descriptor.
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// Frames that the device has.
    pub fn outstanding(&self) -> u16 {
        self.queue.outstanding()
    }

    /// Frames that the device has taken and given back.
    pub fn taken(&self) -> Flow {
        self.taken
    }

    /// Adds one frame of `len` bytes behind `header`; `fill` writes it, and is
    /// told which slot it writes to: what it wrote there the last time is there
    /// still. `false`, and nothing written, when there is no room until some
    /// frames come back. The device sees it after [`flush`](Self::flush).
    ///
    /// # Errors
    /// When no slot holds so long a frame.
    #[inline]
    pub fn push(
        &mut self,
        header: NetHeader,
        len: usize,
        fill: impl FnOnce(u16, Writable<'_>),
    ) -> Result<bool, DriverError> {
        let Some(&slot) = self.free.last() else {
            return Ok(false);
        };
        if len > self.max_frame() {
            return Err(DriverError::FrameTooLong(len, self.max_frame()));
        }
        // The frame is where it would be behind a header of 12 bytes: a shorter
        // one begins later.
        let start = usize::from(slot) * self.slot;
        let at = start + (LEN - self.header_len);
        self.chain.clear();
        self.layout.split(
            self.slots.guest_addr(at),
            self.header_len,
            len,
            Segment::to_device,
            &mut self.chain,
        )?;
        if !self.queue.add(&self.chain, u32::from(slot))? {
            return Ok(false);
        }
        self.free.pop();
        // A slot is shorter than 4 GiB.
        self.lens[usize::from(slot)] = u32::try_from(len).unwrap_or(u32::MAX);
        write_header(self.slots.writable(at, self.header_len), header);
        fill(slot, self.slots.writable(start + LEN, len));
        Ok(true)
    }

    /// Shows the device what was pushed, and kicks it if it wants that.
    #[inline]
    pub fn flush(&mut self) {
        if self.queue.publish() {
            self.line.kick();
        }
    }

    /// Takes back what the device is done with; returns how many frames.
    ///
    /// # Errors
    /// When the device returned what it was not given.
    #[inline]
    pub fn reclaim(&mut self) -> Result<usize, DriverError> {
        let mut count = 0;
        while let Some(done) = self.queue.pop()? {
            // Tokens are slot numbers of ours.
            let slot = u16::try_from(done.token).unwrap_or(0);
            self.taken.add(self.lens[usize::from(slot)] as usize);
            self.free.push(slot);
            count += 1;
        }
        Ok(count)
    }

    /// Sends one frame that needs nothing done to it; waits for room.
    ///
    /// # Errors
    /// [`DriverError::Timeout`] when there is no room for too long.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), DriverError> {
        self.send_with(NetHeader::default(), frame)
    }

    /// Sends one frame behind `header`; waits for room.
    ///
    /// # Errors
    /// [`DriverError::Timeout`] when there is no room for too long.
    pub fn send_with(&mut self, header: NetHeader, frame: &[u8]) -> Result<(), DriverError> {
        let until = Instant::now() + self.timeout;
        loop {
            self.reclaim()?;
            let pushed = self.push(header, frame.len(), |_, room| {
                room.write(frame);
            })?;
            self.flush();
            if pushed {
                return Ok(());
            }
            self.wait(until)?;
        }
    }

    /// Sends frames that need nothing done to them, as many at once as there is
    /// room for; waits for room.
    ///
    /// # Errors
    /// [`DriverError::Timeout`] when there is no room for too long.
    pub fn send_batch<'a>(
        &mut self,
        frames: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), DriverError> {
        for frame in frames {
            let fill = |_, room: Writable<'_>| {
                room.write(frame);
            };
            if !self.push(NetHeader::default(), frame.len(), fill)? {
                self.flush();
                self.send(frame)?;
            }
        }
        self.flush();
        Ok(())
    }

    /// Waits until the device has given everything back.
    ///
    /// # Errors
    /// [`DriverError::Timeout`] when that takes too long.
    pub fn drain(&mut self) -> Result<(), DriverError> {
        let until = Instant::now() + self.timeout;
        loop {
            self.reclaim()?;
            if self.queue.outstanding() == 0 {
                return Ok(());
            }
            self.wait(until)?;
        }
    }

    /// Waits until the device gives something back.
    fn wait(&mut self, until: Instant) -> Result<(), DriverError> {
        if self.line.wait(self.queue.as_mut(), until)? {
            return Ok(());
        }
        Err(DriverError::Timeout("give back transmitted frames"))
    }

    /// Asks for an interrupt when `count` more frames have come back. `true`:
    /// they have already, and there may be none.
    pub fn enable_interrupts_after(&mut self, count: u16) -> bool {
        self.queue.enable_interrupts_after(count)
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

    /// The queue below, for tests of what no driver should do. What is added to
    /// it directly needs tokens that are no slot's.
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

/// Writes as much of `header` as there is room for: 10 or 12 bytes. By words,
/// because this is done for each frame: bytes that are put together in memory
/// and then copied would wait for every store before them.
#[inline]
fn write_header(room: Writable<'_>, header: NetHeader) {
    let first = u64::from(header.flags)
        | u64::from(header.gso_type) << 8
        | u64::from(header.hdr_len) << 16
        | u64::from(header.gso_size) << 32
        | u64::from(header.csum_start) << 48;
    room.write_array(&first.to_le_bytes());
    room.skip(8).write_array(&header.csum_offset.to_le_bytes());
    room.skip(10).write_array(&header.num_buffers.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::memory::DriverMemory;

    #[test]
    fn a_header_written_by_words_is_the_header() {
        let header = NetHeader {
            flags: 1,
            gso_type: 2,
            hdr_len: 0x0403,
            gso_size: 0x0605,
            csum_start: 0x0807,
            csum_offset: 0x0a09,
            num_buffers: 0x0c0b,
        };
        let mut memory = DriverMemory::of_len(4096, 1).unwrap();
        let area = memory.allocate(16, 8).unwrap();
        write_header(area.writable(0, LEN), header);
        assert_eq!(area.readable(0, LEN).read_array(), Some(header.to_bytes()));
        area.clear();
        write_header(area.writable(0, 10), header);
        let [.., low, high] = area.readable(0, LEN).read_array::<LEN>().unwrap();
        assert_eq!((low, high), (0, 0), "a legacy header has 10 bytes");
    }
}
