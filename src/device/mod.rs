//! The virtio-net device (section 5.1): configuration space, features, and the
//! queues of up to [`MAX_PAIRS`] pairs.
//!
//! [`Device`] is what a front end drives, from the control thread. The queues
//! are worked on by [`QueuePair`], from the workers; the gate in [`vring`] is
//! what lets both happen at once.

mod config;
mod ctrl;
mod error;
mod features;
mod filter;
mod host;
pub mod mac;
pub mod notifier;
mod pair;
mod queue_port;
mod queues;
mod report;
mod rx;
mod seats;
pub mod stats;
mod steering;
mod tx;
pub mod vring;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use crate::backend::MAX_PAIRS;
use crate::backend::{AttachError, Backend};
use crate::net::ethernet::Mac;
use crate::net::frame::Batch;
use crate::virtio::memory::{GuestMemory, Readable};
use crate::virtio::net_header::NetHeader;
use crate::virtio::queue::RingFeatures;
use crate::virtio::spec::{feature, net, status};
use crate::worker::{Occupant, Seat, Workers};

use config::{Config, MAC_LEN};
use ctrl::ControlQueue;
pub use error::DeviceError;
use filter::Filter;
use host::HostSide;
use pair::header_len;
pub use pair::{Event, QueuePair, Shared};
use queue_port::QueuePort;
use queues::unwatch;

/// Bytes of the configuration space.
pub const CONFIG_LEN: usize = config::LEN;

/// What a device is made of.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// Its name, which begins every message about it.
    pub name: String,
    /// Its address.
    pub mac: Mac,
    /// Its largest MTU in bytes, if it is to say one.
    pub mtu: Option<u16>,
    /// Queue pairs, 1 to [`MAX_PAIRS`]; fewer if the back end has fewer.
    pub pairs: u16,
    /// The link is up.
    pub link: bool,
}

/// What the front end has set, besides the rings.
#[derive(Default)]
struct Session {
    memory: Arc<GuestMemory>,
    status: u8,
    /// What NET_SET_MTU said.
    mtu: Option<u16>,
}

type Listener = Box<dyn Fn() + Send + Sync>;

/// A virtio-net device.
pub struct Device {
    shared: Arc<Shared>,
    pairs: Vec<Arc<QueuePair>>,
    ctrl: Option<Arc<ControlQueue>>,
    seats: Vec<Seat>,
    options: DeviceOptions,
    session: Mutex<Session>,
    listener: Mutex<Option<Listener>>,
    host: Mutex<HostSide>,
}

impl Device {
    /// A device on `backend`, whose queue pairs `workers` run.
    ///
    /// # Errors
    /// When the back end does not take it: its address is on the switch
    /// already.
    pub fn new(
        mut options: DeviceOptions,
        backend: Arc<dyn Backend>,
        workers: &Workers,
    ) -> Result<Arc<Self>, AttachError> {
        let max = backend.max_pairs().min(MAX_PAIRS);
        options.pairs = options.pairs.clamp(1, max);
        let config = Config {
            mac: options.mac,
            link: options.link,
            announce: false,
            pairs: options.pairs,
            mtu: options.mtu,
        };
        let shared = Arc::new(Shared::new(options.name.clone(), backend, config));
        let ctrl = Arc::new(ControlQueue::new(Arc::clone(&shared), options.pairs));
        let pairs: Vec<_> = (0..usize::from(options.pairs))
            .map(|index| {
                let ctrl = (index == 0).then(|| Arc::clone(&ctrl));
                Arc::new(QueuePair::new(index, Arc::clone(&shared), ctrl))
            })
            .collect();
        let port = QueuePort::new(Arc::clone(&shared), pairs.clone());
        shared.backend.attach(options.mac, Arc::new(port))?;
        let seats: Vec<_> = pairs
            .iter()
            .map(|pair| workers.seat(Occupant::Pair(Arc::clone(pair))))
            .collect();
        let host = HostSide::new(options.link);
        let device = Self {
            shared,
            pairs,
            ctrl: Some(ctrl),
            seats,
            options,
            session: Mutex::default(),
            listener: Mutex::default(),
            host: Mutex::new(host),
        };
        device.watch_backend();
        Ok(Arc::new(device))
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host(&self) -> MutexGuard<'_, HostSide> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The features that are offered, the same at any time.
    pub fn features(&self) -> u64 {
        features::offered(&self.options, self.shared.backend.features())
    }

    /// The features that were negotiated.
    pub fn acked_features(&self) -> u64 {
        self.shared.features()
    }

    /// Takes what the driver negotiated.
    ///
    /// # Errors
    /// When it was not offered, or the back end fails.
    pub fn set_features(&self, acked: u64) -> Result<(), DeviceError> {
        let unknown = acked & !self.features();
        if unknown != 0 {
            return Err(DeviceError::Features(unknown));
        }
        let acked = features::effective(acked);
        if acked == self.shared.features() {
            return Ok(());
        }
        self.shared
            .backend
            .set_features(acked, header_len(acked))
            .map_err(DeviceError::Backend)?;
        for (index, (vring, _, _)) in self.queues().enumerate() {
            vring
                .set_features(RingFeatures::from(acked))
                .map_err(|fault| DeviceError::Vring(index, fault))?;
        }
        self.shared.set_features(acked);
        self.shared.limit_frames();
        let mac = self.shared.config().mac;
        self.shared.set_filter(Filter::after_reset(mac, acked));
        self.count_active_pairs();
        Ok(())
    }

    /// How many queue pairs there are.
    pub fn queue_pairs(&self) -> u16 {
        self.options.pairs
    }

    /// The table of guest memory.
    pub fn memory(&self) -> Arc<GuestMemory> {
        Arc::clone(&self.session().memory)
    }

    /// Takes another table. Every ring is found anew in it; when this returns,
    /// nobody uses the old one any more.
    ///
    /// # Errors
    /// When a ring that runs is not in the new table; that ring stops.
    pub fn set_memory(&self, memory: Arc<GuestMemory>) -> Result<(), DeviceError> {
        self.session().memory = Arc::clone(&memory);
        let mut result = Ok(());
        for (index, (vring, seat, _)) in self.queues().enumerate() {
            let before = vring.is_active();
            if let Err(fault) = vring.set_memory(Arc::clone(&memory)) {
                result = Err(DeviceError::Vring(index, fault));
            }
            seat.changed();
            self.tell_of(index, before, vring);
        }
        result
    }

    /// The MTU that counts: the configured one, or what the front end said.
    pub fn mtu(&self) -> Option<u16> {
        self.options.mtu.or(self.session().mtu)
    }

    /// Takes the front end's MTU.
    ///
    /// # Errors
    /// When it disagrees with the configured one or is impossible.
    pub fn set_mtu(&self, mtu: u16) -> Result<(), DeviceError> {
        if let Some(ours) = self.options.mtu.filter(|ours| *ours != mtu) {
            return Err(DeviceError::Mtu { wanted: mtu, ours });
        }
        if mtu < features::MIN_MTU {
            return Err(DeviceError::MtuRange(mtu));
        }
        tracing::debug!("{}: the front end's MTU: {mtu}", self.options.name);
        self.session().mtu = Some(mtu);
        let changed = self.shared.config().mtu.replace(mtu) != Some(mtu);
        self.shared.limit_frames();
        if changed {
            self.notify();
        }
        Ok(())
    }

    /// Says on the guest's behalf where it is now, after a migration: a RARP
    /// request from `mac`, as QEMU builds it (RFC 903).
    ///
    /// # Errors
    /// When the guest has negotiated to announce itself, it is asked to, and
    /// there is nothing to fail.
    pub fn announce(&self, mac: [u8; 6]) -> Result<(), DeviceError> {
        if self.shared.features() & (net::F_GUEST_ANNOUNCE | net::F_CTRL_VQ)
            == net::F_GUEST_ANNOUNCE | net::F_CTRL_VQ
        {
            self.shared.config().announce = true;
            self.notify();
            return Ok(());
        }
        let frame = rarp(mac);
        let mut batch = Batch::new();
        let mut ether = [0; 14];
        ether.copy_from_slice(&frame[..14]);
        if batch.push_part(0, Readable::from_slice(&frame)).is_some() {
            let len = u32::try_from(frame.len()).unwrap_or(0);
            batch.push_frame(0, len, ether, NetHeader::default());
            self.shared.backend.send(0, &batch);
            // Nobody counts it.
            let _ = self.shared.backend.flush(0);
        }
        Ok(())
    }

    /// Reads from the configuration space.
    ///
    /// # Errors
    /// When that is not all inside.
    pub fn read_config(&self, offset: u32, into: &mut [u8]) -> Result<(), DeviceError> {
        let raw = self.shared.config().to_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let from = raw
            .get(start..)
            .and_then(|rest| rest.get(..into.len()))
            .ok_or(config_error(offset, into.len(), "read"))?;
        into.copy_from_slice(from);
        Ok(())
    }

    /// Writes to the configuration space, and only to the MAC address: that is
    /// read-only for all drivers but legacy ones without
    /// `VIRTIO_NET_F_CTRL_MAC_ADDR` (5.1.4.2), if it is not restored after a
    /// migration.
    ///
    /// # Errors
    /// When that is not all inside the address, or not for the driver to do.
    pub fn write_config(&self, offset: u32, from: &[u8], restore: bool) -> Result<(), DeviceError> {
        let read_only = feature::VERSION_1 | net::F_CTRL_MAC_ADDR;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut mac = self.shared.config().mac;
        let into = mac.0[..MAC_LEN]
            .get_mut(start..)
            .and_then(|rest| rest.get_mut(..from.len()))
            .filter(|_| restore || self.shared.features() & read_only == 0)
            .ok_or(config_error(offset, from.len(), "written"))?;
        into.copy_from_slice(from);
        self.shared.set_mac(mac);
        Ok(())
    }

    /// The device status.
    pub fn status(&self) -> u8 {
        self.session().status
    }

    /// Takes the driver's device status; 0 resets the device.
    ///
    /// # Errors
    /// When the driver goes on without features.
    pub fn set_status(&self, status: u8) -> Result<(), DeviceError> {
        if status == 0 {
            self.reset();
            return Ok(());
        }
        // A legacy driver knows no FEATURES_OK.
        let modern = self.shared.features() & feature::VERSION_1 != 0;
        if modern && status & status::DRIVER_OK != 0 && status & status::FEATURES_OK == 0 {
            return Err(DeviceError::Status(status));
        }
        self.session().status = status;
        Ok(())
    }

    /// Resets the device: every ring is stopped and disabled, in the middle of
    /// traffic if need be, and features are forgotten. Memory stays.
    pub fn reset(&self) {
        for (vring, seat, _) in self.queues() {
            unwatch(seat, &vring.reset());
        }
        self.session().status = 0;
        self.shared.set_features(0);
        self.shared.limit_frames();
        if let Err(error) = self.shared.backend.set_features(0, header_len(0)) {
            // The next driver's features are set again.
            tracing::warn!("{}: offloads not reset: {error}", self.options.name);
        }
        self.shared.set_active_pairs(1);
        self.shared.steering.clear();
        let mac = self.options.mac;
        self.shared.set_filter(Filter::after_reset(mac, 0));
        let mut config = self.shared.config();
        config.mac = mac;
        config.announce = false;
    }

    /// The front end is gone: everything that it gave is given back.
    pub fn disconnect(&self) {
        self.reset();
        let mtu = self.options.mtu;
        self.shared.config().mtu = mtu;
        self.shared.limit_frames();
        *self.session() = Session::default();
        for (vring, _, _) in self.queues() {
            // Without a ring, nothing can fail.
            let _ = vring.set_memory(Arc::default());
            let _ = vring.set_err(None);
        }
        self.set_config_listener(None);
    }

    /// Who is told when the configuration space changes.
    pub fn set_config_listener(&self, listener: Option<Listener>) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = listener;
    }

    fn notify(&self) {
        let listener = self.listener.lock();
        if let Some(listener) = &*listener.unwrap_or_else(PoisonError::into_inner) {
            listener();
        }
    }

    /// Sets the link up or down; the driver is told if it listens. A link
    /// without a host side stays down until that is back.
    pub fn set_link(&self, up: bool) {
        let mut host = self.host();
        host.link = up;
        self.apply_link(&host);
    }

    fn apply_link(&self, host: &HostSide) {
        let up = host.is_link_up();
        if self.shared.is_link_up() != up {
            self.shared.set_link(up);
            for seat in &self.seats {
                seat.changed();
            }
            self.notify();
        }
    }

    /// Begins the next epoch of the table of flows; to be called every few
    /// seconds.
    pub fn age_flows(&self) {
        self.shared.steering.age();
    }

    /// Guest memory has vanished: the connection should be closed.
    pub fn is_broken(&self) -> bool {
        self.session().memory.is_broken()
    }

    /// The queue pairs, for their counters.
    pub fn pairs(&self) -> &[Arc<QueuePair>] {
        &self.pairs
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.disconnect();
        if !self.host().is_lost() {
            self.unwatch_backend();
        }
        self.shared.backend.detach();
    }
}

fn config_error(offset: u32, len: usize, what: &'static str) -> DeviceError {
    DeviceError::Config {
        offset,
        end: u64::from(offset).saturating_add(len as u64),
        what,
    }
}

/// A reverse ARP request, padded to Ethernet's minimum without FCS.
fn rarp(mac: [u8; 6]) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    // RARP; Ethernet, IPv4, 6 and 4 bytes of address, "request reverse".
    frame[12..22].copy_from_slice(&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    frame[22..28].copy_from_slice(&mac);
    frame[32..38].copy_from_slice(&mac);
    frame
}

#[cfg(test)]
mod tests;
