//! A guest without a process: a device whose turns are taken by hand, and the
//! driver of its queues.

use std::sync::Arc;

use bed::{Error, Result};
use vtnetd::backend::Backend;
use vtnetd::device::{Device, DeviceOptions, Event, QueuePair};
use vtnetd::driver::memory::{Area, DriverMemory};
use vtnetd::driver::queue::{DriverQueue, PackedQueue, QueueOptions, Segment, SplitQueue};
use vtnetd::net::ethernet::Mac;
use vtnetd::virtio::net_header::LEN;
use vtnetd::virtio::spec::{feature, net};
use vtnetd::worker::{Polling, Work, Workers};

/// Entries of a ring, and buffers.
const SIZE: u16 = 256;
/// Bytes of a buffer, which holds a frame behind its header.
const BUFFER: u32 = 2048;
/// What a polling driver negotiates.
const FEATURES: u64 = feature::VERSION_1 | feature::EVENT_IDX | net::F_MRG_RXBUF;

/// The format of the rings.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    Split,
    Packed,
}

/// A device and its driver.
pub struct Guest {
    pair: Arc<QueuePair>,
    rx: Queue,
    tx: Queue,
    // Last: its memory is what the queues are in.
    _device: Arc<Device>,
}

/// A queue of the driver's, with a buffer for each entry.
struct Queue {
    ring: Box<dyn DriverQueue>,
    buffers: Area,
}

impl Queue {
    fn new(memory: &mut DriverMemory, format: Format) -> Result<Self> {
        let options = QueueOptions {
            event_idx: true,
            in_order: false,
            indirect: 0,
        };
        let mut ring: Box<dyn DriverQueue> = match format {
            Format::Split => Box::new(SplitQueue::new(memory, SIZE, options).map_err(broken)?),
            Format::Packed => Box::new(PackedQueue::new(memory, SIZE, options).map_err(broken)?),
        };
        ring.disable_interrupts();
        let buffers = memory.allocate(offset(SIZE.into()), 64).map_err(broken)?;
        Ok(Self { ring, buffers })
    }

    /// Adds a chain of one buffer, number `token`.
    fn add(&mut self, segment: impl Fn(u64, u32) -> Segment, token: u32, len: u32) -> Result<()> {
        let at = self.buffers.guest_addr(offset(token));
        match self.ring.add(&[segment(at, len)], token).map_err(broken)? {
            true => Ok(()),
            false => Err(Error::new("a ring has no room")),
        }
    }

    /// Takes back what the device is done with.
    fn take(&mut self) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        while let Some(done) = self.ring.pop().map_err(broken)? {
            tokens.push(done.token);
        }
        Ok(tokens)
    }

    /// Shows the device what was added. It is never kicked: it looks when it
    /// has a turn.
    fn publish(&mut self) {
        let _ = self.ring.publish();
    }
}

/// Where a buffer is among the others.
fn offset(number: u32) -> usize {
    (number * BUFFER) as usize
}

/// A driver or a device that does not do what it should.
pub fn broken(error: impl std::fmt::Display) -> Error {
    Error::new(error.to_string())
}

impl Guest {
    /// A guest with address `number`, connected to `backend`.
    pub fn new(number: u8, format: Format, backend: Arc<dyn Backend>) -> Result<Self> {
        let options = DeviceOptions {
            name: format!("guest{number}"),
            mac: Mac(address(number)),
            mtu: None,
            pairs: 1,
            link: true,
        };
        let workers = Workers::start(1, Polling::default())?;
        let device = Device::new(options, backend, &workers).map_err(broken)?;
        // From here on nobody has a turn but who calls `turns`.
        drop(workers);
        let features = match format {
            Format::Split => FEATURES,
            Format::Packed => FEATURES | feature::RING_PACKED,
        };
        let mut memory = DriverMemory::of_len(4 << 20, 1).map_err(broken)?;
        let mut rx = Queue::new(&mut memory, format)?;
        let tx = Queue::new(&mut memory, format)?;
        device.set_features(features).map_err(broken)?;
        device
            .set_memory(Arc::clone(memory.table()))
            .map_err(broken)?;
        for (index, queue) in [&rx, &tx].into_iter().enumerate() {
            start(&device, index, &*queue.ring).map_err(broken)?;
        }
        for token in 0..SIZE.into() {
            rx.add(Segment::from_device, token, BUFFER)?;
        }
        rx.publish();
        let pair = device.pairs().first();
        let pair = pair.ok_or_else(|| Error::new("a device without queues"))?;
        Ok(Self {
            pair: Arc::clone(pair),
            rx,
            tx,
            _device: device,
        })
    }

    /// Adds `frames` times the same frame.
    pub fn send(&mut self, frame: &[u8], frames: u32) -> Result<()> {
        let len = LEN + frame.len();
        for token in 0..frames {
            let room = self.tx.buffers.writable(offset(token), len);
            room.skip(LEN).write(frame);
            let len = u32::try_from(len).map_err(broken)?;
            self.tx.add(Segment::to_device, token, len)?;
        }
        self.tx.publish();
        Ok(())
    }

    /// The device's turns, until there is nothing to do.
    pub fn turns(&self) {
        while self.pair.turn() {}
    }

    /// Tells the device that frames wait at its back end.
    pub fn note_back_end(&self) {
        self.pair.note(Event::Backend.into());
    }

    /// How many frames were sent.
    pub fn sent(&mut self) -> Result<usize> {
        Ok(self.tx.take()?.len())
    }

    /// How many frames have come, whose buffers the device gets again.
    pub fn received(&mut self) -> Result<usize> {
        let tokens = self.rx.take()?;
        for &token in &tokens {
            self.rx.add(Segment::from_device, token, BUFFER)?;
        }
        self.rx.publish();
        Ok(tokens.len())
    }
}

fn start(
    device: &Device,
    index: usize,
    ring: &dyn DriverQueue,
) -> std::result::Result<(), vtnetd::device::DeviceError> {
    device.set_vring_size(index, ring.size())?;
    device.set_vring_addresses(index, ring.addresses())?;
    device.set_vring_base(index, ring.base())?;
    device.set_vring_kick(index, None)?;
    device.enable_vring(index, true)
}

/// The Ethernet address of guest or client `number`.
pub fn address(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

/// A frame of `len` bytes to number `to` from number `from`.
pub fn frame(to: u8, from: u8, len: usize) -> Vec<u8> {
    let mut frame = [address(to), address(from)].concat();
    frame.extend([0x88, 0xb5]);
    frame.resize(len, 0x5a);
    frame
}
