//! The control queue (section 5.1.6.5).

use std::time::{Duration, Instant};

use super::DriverError;
use super::line::Line;
use crate::driver::memory::Area;
use crate::driver::queue::{DriverQueue, Segment};
use crate::virtio::spec::ctrl;

/// Longest command: class, command and data, in bytes.
pub(super) const MAX_COMMAND: usize = 4096;
/// What the acknowledgement holds before the device writes it.
const UNANSWERED: u8 = 0xff;

/// The control queue, one command at a time.
#[derive(Debug)]
pub struct ControlQueue {
    pub(super) queue: Box<dyn DriverQueue>,
    pub(super) line: Line,
    /// The command, then a byte for the acknowledgement.
    buffer: Area,
    timeout: Duration,
}

impl ControlQueue {
    pub(super) fn new(
        queue: Box<dyn DriverQueue>,
        line: Line,
        buffer: Area,
        timeout: Duration,
    ) -> Self {
        Self {
            queue,
            line,
            buffer,
            timeout,
        }
    }

    /// Sends a command with its data, laid out in as many buffers as `data` has
    /// parts, and returns the acknowledgement (`ctrl::OK` or `ctrl::ERR`).
    ///
    /// # Errors
    /// [`DriverError::Timeout`] when the device does not answer.
    pub fn command(&mut self, class: u8, command: u8, data: &[&[u8]]) -> Result<u8, DriverError> {
        let len = 2 + data.iter().map(|part| part.len()).sum::<usize>();
        if len > MAX_COMMAND {
            return Err(DriverError::FrameTooLong(len, MAX_COMMAND));
        }
        let mut chain = Vec::with_capacity(data.len() + 2);
        let mut at = 0;
        for part in [&[class, command][..]].iter().chain(data) {
            let written = self.buffer.writable(at, part.len()).write(part);
            let len = u32::try_from(written).unwrap_or(0);
            chain.push(Segment::to_device(self.buffer.guest_addr(at), len));
            at += written;
        }
        let ack = self.buffer.len() - 1;
        self.buffer.writable(ack, 1).write(&[UNANSWERED]);
        chain.push(Segment::from_device(self.buffer.guest_addr(ack), 1));
        self.queue.add(&chain, 0)?;
        if self.queue.publish() {
            self.line.kick();
        }
        let until = Instant::now() + self.timeout;
        while self.queue.pop()?.is_none() {
            if !self.line.wait(self.queue.as_mut(), until)? {
                return Err(DriverError::Timeout("answer on the control queue"));
            }
        }
        let [answer] = self
            .buffer
            .readable(ack, 1)
            .read_array()
            .unwrap_or([UNANSWERED]);
        Ok(answer)
    }

    /// Asks the device to use `pairs` queue pairs.
    ///
    /// # Errors
    /// [`DriverError::Control`] when it refuses.
    pub fn set_pairs(&mut self, pairs: u16) -> Result<(), DriverError> {
        let answer = self.command(ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &[&pairs.to_le_bytes()])?;
        accepted("number of queue pairs", answer)
    }

    /// Sets the device's MAC address.
    ///
    /// # Errors
    /// [`DriverError::Control`] when it refuses.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<(), DriverError> {
        let answer = self.command(ctrl::MAC, ctrl::MAC_ADDR_SET, &[&mac])?;
        accepted("MAC address", answer)
    }

    /// Turns a receive mode (`ctrl::RX_PROMISC` and so on) on or off.
    ///
    /// # Errors
    /// [`DriverError::Control`] when the device refuses.
    pub fn set_receive_mode(&mut self, mode: u8, on: bool) -> Result<(), DriverError> {
        let answer = self.command(ctrl::RX, mode, &[&[u8::from(on)]])?;
        accepted("receive mode", answer)
    }

    /// Sets the offloads that frames to us may have (feature bits).
    ///
    /// # Errors
    /// [`DriverError::Control`] when the device refuses.
    pub fn set_offloads(&mut self, offloads: u64) -> Result<(), DriverError> {
        let data = offloads.to_le_bytes();
        let answer = self.command(ctrl::GUEST_OFFLOADS, ctrl::GUEST_OFFLOADS_SET, &[&data])?;
        accepted("offloads", answer)
    }

    /// Says that the driver has announced itself.
    ///
    /// # Errors
    /// [`DriverError::Control`] when the device refuses.
    pub fn acknowledge_announcement(&mut self) -> Result<(), DriverError> {
        let answer = self.command(ctrl::ANNOUNCE, ctrl::ANNOUNCE_ACK, &[])?;
        accepted("announcement", answer)
    }
}

fn accepted(what: &'static str, answer: u8) -> Result<(), DriverError> {
    if answer == ctrl::OK {
        return Ok(());
    }
    Err(DriverError::Control(what, answer))
}
