//! A virtio-net driver (section 5.1) over a vhost-user connection.
//!
//! ```no_run
//! use std::path::Path;
//! use std::time::Duration;
//! use vtnetd::driver::front_end::FrontEnd;
//! use vtnetd::driver::net::{NetDriver, NetOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let back_end = FrontEnd::connect(Path::new("/run/vm1.sock"))?;
//! let mut driver = NetDriver::start(back_end, &NetOptions::default())?;
//! let pair = driver.pair(0);
//! pair.tx.send(&[0xff; 60])?;
//! if let Some(received) = pair.rx.recv(Duration::from_secs(1))? {
//!     println!("{} bytes", received.frame.len());
//! }
//! # Ok(())
//! # }
//! ```

mod config;
mod control;
mod error;
mod line;
mod options;
mod reset;
mod rx;
mod tx;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

pub use config::NetConfig;
pub use control::ControlQueue;
pub use error::DriverError;
pub use options::{FEATURES, Layout, MAX_SEGMENTS, NetOptions, OFFLOADS};
pub use rx::{Received, RxFrame, RxQueue};
pub use tx::TxQueue;

use super::front_end::FrontEnd;
use super::memory::DriverMemory;
use super::queue::{DriverQueue, PackedQueue, QueueOptions, SplitQueue};
use crate::frontend::vhost_user::message::protocol_feature;
use crate::virtio::net_header;
use crate::virtio::queue::RingFeatures;
use crate::virtio::spec::{feature, net, status};
use line::Line;

/// Device status: the driver has seen the device and can drive it (section
/// 2.1, ACKNOWLEDGE and DRIVER).
const KNOWN: u8 = 1 | 2;

/// Frames that went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Frames.
    pub frames: u64,
    /// Bytes of Ethernet frames, without the frame check sequence.
    pub bytes: u64,
}

impl Flow {
    /// Counts one frame of `len` bytes.
    #[inline]
    pub fn add(&mut self, len: usize) {
        self.frames += 1;
        self.bytes += len as u64;
    }

    /// What has been added since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            frames: self.frames - earlier.frames,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

impl std::iter::Sum for Flow {
    fn sum<I: Iterator<Item = Self>>(flows: I) -> Self {
        flows.fold(Self::default(), |all, flow| Self {
            frames: all.frames + flow.frames,
            bytes: all.bytes + flow.bytes,
        })
    }
}

/// A receive and a transmit queue.
#[derive(Debug)]
pub struct Pair {
    /// From the device.
    pub rx: RxQueue,
    /// To the device.
    pub tx: TxQueue,
}

/// A driver and the device that it drives.
#[derive(Debug)]
pub struct NetDriver {
    front_end: FrontEnd,
    memory: DriverMemory,
    pairs: Vec<Pair>,
    control: Option<ControlQueue>,
    features: u64,
    /// Where each queue is to go on, in the order of `queues`.
    bases: Vec<u32>,
}

impl NetDriver {
    /// Negotiates, sets up all queues, offers receive buffers and starts the
    /// device.
    ///
    /// # Errors
    /// When the back end refuses, or does not offer what `options` require.
    pub fn start(mut front_end: FrontEnd, options: &NetOptions) -> Result<Self, DriverError> {
        front_end.set_timeout(options.timeout);
        let features = front_end.negotiate(options.negotiation)?;
        let offered = front_end.queue_pairs()?;
        let wanted = options.pairs.max(1);
        if offered < u64::from(wanted) {
            return Err(DriverError::Pairs { offered, wanted });
        }
        let mut options = options.clone();
        if features & (feature::VERSION_1 | feature::ANY_LAYOUT) == 0 {
            // Section 5.1.6.6: legacy devices expect it so.
            options.layout.header_apart = true;
        }
        let len = options.memory_bytes();
        let mut memory = DriverMemory::of_source(
            &*options.memory,
            len * u64::try_from(options.regions.max(1)).unwrap_or(1),
            options.regions,
        )?;
        let connection = Arc::new(connection(&front_end)?);
        let mut make = Maker {
            options: &options,
            features,
            memory: &mut memory,
            connection,
        };
        let pairs = (0..wanted)
            .map(|pair| make.pair(pair))
            .collect::<Result<Vec<_>, _>>()?;
        let control = if features & net::F_CTRL_VQ != 0 {
            // Behind all pairs that the device has, used or not.
            let max = if features & net::F_MQ != 0 {
                offered
            } else {
                1
            };
            let index =
                u16::try_from(2 * max).map_err(|_| DriverError::Pairs { offered, wanted })?;
            Some(make.control(index)?)
        } else {
            None
        };
        let mut driver = Self {
            front_end,
            memory,
            pairs,
            control,
            features,
            bases: Vec::new(),
        };
        driver.go(None)?;
        if features & net::F_MQ != 0 && wanted > 1 {
            if let Some(control) = &mut driver.control {
                control.set_pairs(wanted)?;
            }
        }
        Ok(driver)
    }

    /// The connection, for messages while the device runs.
    pub fn front_end(&mut self) -> &mut FrontEnd {
        &mut self.front_end
    }

    /// The memory shared with the back end.
    pub fn memory(&mut self) -> &mut DriverMemory {
        &mut self.memory
    }

    /// Features in use.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// One pair of queues.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn pair(&mut self, index: usize) -> &mut Pair {
        &mut self.pairs[index]
    }

    /// All pairs; each may go to a thread of its own.
    pub fn pairs(&mut self) -> &mut [Pair] {
        &mut self.pairs
    }

    /// What becomes readable when there is something to do: the back end's own
    /// requests, and each queue's interrupts.
    pub fn wake_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let interrupts = self
            .pairs
            .iter()
            .flat_map(|pair| [pair.rx.interrupt_fd(), pair.tx.interrupt_fd()]);
        self.front_end.request_fd().into_iter().chain(interrupts)
    }

    /// The connection's descriptor, to see its end.
    pub fn connection_fd(&self) -> BorrowedFd<'_> {
        self.front_end.as_fd()
    }

    /// Takes all interrupts.
    ///
    /// # Errors
    /// [`DriverError::QueueFailed`] when the back end says so of a queue.
    pub fn take_interrupts(&self) -> Result<(), DriverError> {
        for (line, _) in queues(&self.pairs, self.control.as_ref()) {
            line.call().drain();
            if line.has_failed() {
                return Err(DriverError::QueueFailed(line.index));
            }
        }
        Ok(())
    }

    /// The control queue, if the back end handles it.
    pub fn control(&mut self) -> Option<&mut ControlQueue> {
        self.control.as_mut()
    }

    /// The device's configuration, as far as it is valid with the features in
    /// use.
    ///
    /// # Errors
    /// When the back end does not give it out.
    pub fn config(&mut self) -> Result<NetConfig, DriverError> {
        let raw = self.front_end.config(0, NetConfig::LEN)?;
        Ok(NetConfig::from_bytes(&raw, self.front_end.offered()))
    }

    /// Shares the memory, starts every queue and says that the driver is
    /// there. Queues go on at `bases`, or with what
    /// has not come back yet.
    fn go(&mut self, bases: Option<&[u32]>) -> Result<(), DriverError> {
        let with_status = self.front_end.protocol() & protocol_feature::STATUS != 0;
        if with_status {
            self.front_end.set_status(KNOWN | status::FEATURES_OK)?;
        }
        self.front_end.share(&self.memory)?;
        for pair in &mut self.pairs {
            pair.rx.fill(usize::MAX)?;
        }
        let queues = queues(&self.pairs, self.control.as_ref());
        for (at, (line, queue)) in queues.enumerate() {
            let base = bases.and_then(|bases| bases.get(at)).copied();
            let base = base.unwrap_or_else(|| queue.resume_base());
            line.start(&mut self.front_end, queue, base)?;
        }
        if with_status {
            let status = KNOWN | status::FEATURES_OK | status::DRIVER_OK;
            self.front_end.set_status(status)?;
        }
        Ok(())
    }

    /// Stops every queue, as for a pause: afterwards the back end touches no
    /// memory. Frames that are in the queues stay there.
    ///
    /// # Errors
    /// As [`FrontEnd::stop_vring`].
    pub fn stop(&mut self) -> Result<(), DriverError> {
        let indices: Vec<u16> = queues(&self.pairs, self.control.as_ref())
            .map(|(line, _)| line.index)
            .collect();
        self.bases.clear();
        for index in indices {
            self.front_end.enable_vring(index, false)?;
            self.bases.push(self.front_end.stop_vring(index)?);
        }
        Ok(())
    }

    /// Goes on where [`stop`](Self::stop) stopped.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn resume(&mut self) -> Result<(), DriverError> {
        let bases = std::mem::take(&mut self.bases);
        self.front_end.set_features(self.features)?;
        self.go(Some(&bases))
    }

    /// Resets the device, running or stopped, and starts it anew with empty
    /// queues and the same features, as when a driver is loaded again.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn reset(&mut self) -> Result<(), DriverError> {
        self.stop()?;
        self.front_end.reset()?;
        for pair in &mut self.pairs {
            pair.rx.reset();
            pair.tx.reset();
        }
        if let Some(control) = &mut self.control {
            control.queue.reset();
        }
        self.front_end.set_features(self.features)?;
        self.go(None)
    }

    /// Goes on with another back end after the first one died: frames that it
    /// had not given back are offered to the new one.
    ///
    /// # Errors
    /// As [`start`](Self::start); the features must be what they were.
    pub fn reconnect(
        &mut self,
        mut front_end: FrontEnd,
        options: &NetOptions,
    ) -> Result<(), DriverError> {
        front_end.set_timeout(options.timeout);
        let mut negotiation = options.negotiation;
        negotiation.features &= self.features;
        negotiation.required = self.features;
        front_end.negotiate(negotiation)?;
        let connection = Arc::new(connection(&front_end)?);
        self.front_end = front_end;
        let mut bases = Vec::new();
        for pair in &mut self.pairs {
            pair.rx.line.set_connection(Arc::clone(&connection));
            pair.tx.line.set_connection(Arc::clone(&connection));
        }
        if let Some(control) = &mut self.control {
            control.line.set_connection(connection);
        }
        for (_, queue) in queues(&self.pairs, self.control.as_ref()) {
            bases.push(queue.resume_base());
        }
        self.go(Some(&bases))
    }
}

/// Every queue with its notifications: RX and TX of each pair, then control.
fn queues<'a>(
    pairs: &'a [Pair],
    control: Option<&'a ControlQueue>,
) -> impl Iterator<Item = (&'a Line, &'a dyn DriverQueue)> {
    let data = pairs.iter().flat_map(|pair| {
        [
            (&pair.rx.line, pair.rx.queue.as_ref()),
            (&pair.tx.line, pair.tx.queue.as_ref()),
        ]
    });
    data.chain(control.map(|c| (&c.line, c.queue.as_ref())))
}

/// A duplicate of the connection's descriptor.
fn connection(front_end: &FrontEnd) -> Result<OwnedFd, DriverError> {
    let fd = front_end.as_fd().try_clone_to_owned();
    fd.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)).into())
}

/// A queue of the format that was negotiated.
fn new_queue(
    memory: &mut DriverMemory,
    size: u16,
    features: u64,
) -> Result<Box<dyn DriverQueue>, DriverError> {
    let options = QueueOptions::from(features);
    let mut queue: Box<dyn DriverQueue> = if RingFeatures::from(features).packed {
        Box::new(PackedQueue::new(memory, size, options)?)
    } else {
        Box::new(SplitQueue::new(memory, size, options)?)
    };
    queue.disable_interrupts();
    Ok(queue)
}

/// Makes queues, all in the same way.
struct Maker<'a> {
    options: &'a NetOptions,
    features: u64,
    memory: &'a mut DriverMemory,
    connection: Arc<OwnedFd>,
}

impl Maker<'_> {
    fn line(&self, index: u16) -> Result<Line, DriverError> {
        let connection = Arc::clone(&self.connection);
        let options = self.options;
        Ok(Line::new(
            index,
            options.signalling,
            options.silent,
            connection,
        )?)
    }

    fn pair(&mut self, pair: u16) -> Result<Pair, DriverError> {
        let options = self.options;
        let entries = usize::from(options.ring_size);
        let header_len = header_len(self.features);
        let mergeable = self.features & net::F_MRG_RXBUF != 0;
        let rx_queue = new_queue(self.memory, options.ring_size, self.features)?;
        let rx_slots = self.memory.allocate(options.rx_slot() * entries, 64)?;
        let tx_queue = new_queue(self.memory, options.ring_size, self.features)?;
        let tx_slots = self.memory.allocate(options.tx_slot() * entries, 64)?;
        Ok(Pair {
            rx: RxQueue::new(
                rx_queue,
                self.line(2 * pair)?,
                rx_slots,
                options.rx_buffer,
                header_len,
                mergeable,
                options.layout,
            ),
            tx: TxQueue::new(
                tx_queue,
                self.line(2 * pair + 1)?,
                tx_slots,
                header_len,
                options.layout,
                options.timeout,
            ),
        })
    }

    fn control(&mut self, index: u16) -> Result<ControlQueue, DriverError> {
        let queue = new_queue(self.memory, NetOptions::CONTROL_SIZE, self.features)?;
        let buffer = self.memory.allocate(control::MAX_COMMAND + 1, 64)?;
        let timeout = self.options.timeout;
        Ok(ControlQueue::new(queue, self.line(index)?, buffer, timeout))
    }
}

/// Length of the header that these features mean.
fn header_len(features: u64) -> usize {
    if features & (feature::VERSION_1 | net::F_MRG_RXBUF) == 0 {
        net_header::LEN_LEGACY
    } else {
        net_header::LEN
    }
}

/// How long the driver waits for a device, unless it is said otherwise.
pub const TIMEOUT: Duration = super::front_end::ANSWER_TIMEOUT;
