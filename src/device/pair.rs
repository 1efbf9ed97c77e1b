//! A queue pair: the unit of work. It belongs to one worker.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::config::Config;
use super::ctrl::ControlQueue;
use super::filter::Filter;
use super::stats::{RxStats, TxStats};
use super::steering::Steering;
use super::vring::{Kick, Vring};
use super::{rx, tx};
use crate::backend::Backend;
use crate::net::ethernet::{Mac, TAG_LEN, TYPE_SERVICE_VLAN, TYPE_VLAN};
use crate::net::frame::ETHER_HEADER;
use crate::virtio::net_header::{GSO_NONE, LEN, LEN_LEGACY, NetHeader};
use crate::virtio::queue::VirtQueue;
use crate::virtio::spec::{feature, net};
use crate::worker::Work;

/// What all pairs of a device share.
pub struct Shared {
    /// The device's name, for messages.
    pub name: String,
    /// Where frames go.
    pub backend: Arc<dyn Backend>,
    features: AtomicU64,
    guest_offloads: AtomicU64,
    active_pairs: AtomicU16,
    max_frame: AtomicUsize,
    link: AtomicBool,
    filter: ArcSwap<Filter>,
    pub(super) steering: Steering,
    config: Mutex<Config>,
}

impl Shared {
    pub(super) fn new(name: String, backend: Arc<dyn Backend>, config: Config) -> Self {
        // Where a pair waits for frames, it is said outside who gets which.
        let waits = backend.rx_fd(0).is_some();
        let steering = Steering::new(if waits { 1 } else { config.pairs });
        Self {
            name,
            backend,
            features: AtomicU64::new(0),
            guest_offloads: AtomicU64::new(0),
            active_pairs: AtomicU16::new(1),
            max_frame: AtomicUsize::new(usize::MAX),
            link: AtomicBool::new(config.link),
            filter: ArcSwap::default(),
            steering,
            config: Mutex::new(config),
        }
    }

    /// The negotiated features.
    #[inline]
    pub fn features(&self) -> u64 {
        self.features.load(Ordering::Relaxed)
    }

    /// Sets the negotiated features; the guest takes every offload that it has
    /// negotiated until it says otherwise.
    pub(super) fn set_features(&self, features: u64) {
        self.features.store(features, Ordering::Relaxed);
        self.set_guest_offloads(features & net::GUEST_OFFLOADS);
    }

    /// Length of the virtio-net header in bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        header_len(self.features())
    }

    /// A frame may be spread over several chains.
    #[inline]
    pub fn is_mergeable(&self) -> bool {
        self.features() & net::F_MRG_RXBUF != 0
    }

    /// What the guest takes unfinished.
    #[inline]
    pub fn guest_offloads(&self) -> u64 {
        self.guest_offloads.load(Ordering::Relaxed)
    }

    pub(super) fn set_guest_offloads(&self, offloads: u64) {
        self.guest_offloads.store(offloads, Ordering::Relaxed);
    }

    /// How many pairs receive, at least 1.
    #[inline]
    pub fn active_pairs(&self) -> usize {
        usize::from(self.active_pairs.load(Ordering::Relaxed).max(1))
    }

    pub(super) fn set_active_pairs(&self, pairs: u16) {
        self.active_pairs.store(pairs, Ordering::Relaxed);
        self.backend.set_active_pairs(pairs.max(1));
    }

    /// The longest frame that the guest may get, in bytes, but for those that
    /// it segments itself ([`fits_mtu`]).
    #[inline]
    pub(super) fn max_frame(&self) -> usize {
        self.max_frame.load(Ordering::Relaxed)
    }

    /// Derives [`max_frame`](Self::max_frame) from the features and the
    /// configuration space.
    pub(super) fn limit_frames(&self) {
        let max = if self.features() & net::F_MTU == 0 {
            usize::MAX
        } else {
            usize::from(self.config().mtu()) + ETHER_HEADER
        };
        self.max_frame.store(max, Ordering::Relaxed);
    }

    /// The link is up.
    #[inline]
    pub fn is_link_up(&self) -> bool {
        self.link.load(Ordering::Relaxed)
    }

    pub(super) fn set_link(&self, up: bool) {
        self.config().link = up;
        self.link.store(up, Ordering::Relaxed);
    }

    /// The configuration space.
    pub(super) fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the guest another address.
    pub(super) fn set_mac(&self, mac: Mac) {
        self.config().mac = mac;
        let mut filter = self.copy_filter();
        filter.mac = mac;
        self.set_filter(filter);
    }

    /// What the back end is to know: the negotiated features with the offloads
    /// that the guest takes now.
    pub(super) fn backend_features(&self) -> u64 {
        self.features() & !net::GUEST_OFFLOADS | self.guest_offloads()
    }

    /// Which frames the guest wants.
    #[inline]
    pub(super) fn filter(&self) -> Guard<Arc<Filter>> {
        self.filter.load()
    }

    pub(super) fn copy_filter(&self) -> Filter {
        Filter::clone(&self.filter.load())
    }

    pub(super) fn set_filter(&self, filter: Filter) {
        self.filter.store(Arc::new(filter));
    }
}

/// Whether a guest whose longest frame has `max` bytes may get one of `len`: a
/// driver that has negotiated the MTU must not get longer ones, but to be
/// segmented (5.1.4.1). A VLAN tag is of the Ethernet header and does not count
/// against the MTU; `ether_type` is asked only where that matters.
#[inline]
pub(super) fn fits_mtu(
    max: usize,
    header: &NetHeader,
    len: usize,
    ether_type: impl FnOnce() -> u16,
) -> bool {
    let is_tagged = || matches!(ether_type(), TYPE_VLAN | TYPE_SERVICE_VLAN);
    header.gso_type != GSO_NONE || len <= max || len - max <= TAG_LEN && is_tagged()
}

/// Length in bytes of the virtio-net header with these features (5.1.6.1).
#[inline]
pub fn header_len(features: u64) -> usize {
    if features & (net::F_MRG_RXBUF | feature::VERSION_1) == 0 {
        LEN_LEGACY
    } else {
        LEN
    }
}

/// A receive and a transmit queue.
pub struct QueuePair {
    /// Which pair of its device.
    pub index: usize,
    /// What it shares with the others.
    pub shared: Arc<Shared>,
    /// The receive queue.
    pub rx: Vring,
    /// The transmit queue.
    pub tx: Vring,
    /// What the receive queue did.
    pub rx_stats: RxStats,
    /// What the transmit queue did.
    pub tx_stats: TxStats,
    /// The control queue, which the first pair's worker serves.
    pub(super) ctrl: Option<Arc<ControlQueue>>,
    /// Frames may be waiting at the back end.
    pub(super) backend_ready: AtomicBool,
    /// The guest had no buffers; a kick says that it has.
    pub(super) rx_starved: AtomicBool,
}

/// Which queue of a pair a kick was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The receive queue was kicked.
    Receive,
    /// The transmit queue was kicked.
    Transmit,
    /// The control queue was kicked.
    Control,
    /// The back end's descriptor is readable.
    Backend,
    /// The front end has changed something: look at everything.
    Changed,
}

/// The number that it is watched under.
impl From<Event> for u64 {
    fn from(event: Event) -> Self {
        event as Self
    }
}

impl From<u64> for Event {
    fn from(number: u64) -> Self {
        match number {
            0 => Self::Receive,
            1 => Self::Transmit,
            2 => Self::Control,
            3 => Self::Backend,
            _ => Self::Changed,
        }
    }
}

impl QueuePair {
    pub(super) fn new(index: usize, shared: Arc<Shared>, ctrl: Option<Arc<ControlQueue>>) -> Self {
        let label = |queue| format!("{} {queue}{index}", shared.name);
        Self {
            index,
            rx: Vring::new(label("rx")),
            tx: Vring::new(label("tx")),
            shared,
            rx_stats: RxStats::default(),
            tx_stats: TxStats::default(),
            ctrl,
            // What waits before the first event must be seen, too.
            backend_ready: AtomicBool::new(true),
            rx_starved: AtomicBool::new(false),
        }
    }
}

impl QueuePair {
    /// Frames that its worker had to do with: those that the guest sent, and
    /// those that were waited for at the back end. What a switch delivers is
    /// the sender's work.
    pub fn frames(&self) -> u64 {
        let sent = self.tx_stats.frames.get() + self.tx_stats.dropped.get();
        let pulled = self.shared.backend.rx_fd(self.index).is_some();
        sent + if pulled {
            self.rx_stats.frames.get()
        } else {
            0
        }
    }
}

#[cfg(loom)]
impl QueuePair {
    /// A pair of no device, for a model, whose guest has no address.
    pub fn alone(backend: Arc<dyn Backend>, features: u64) -> Self {
        let config = Config {
            mac: Mac([0; 6]),
            link: true,
            announce: false,
            pairs: 1,
            mtu: None,
        };
        let shared = Shared::new("alone".to_owned(), backend, config);
        shared.set_features(features);
        Self::new(0, Arc::new(shared), None)
    }
}

impl Work for QueuePair {
    /// Notes an event; [`turn`](Self::turn) acts on it.
    fn note(&self, event: u64) {
        match event.into() {
            Event::Receive => {
                self.rx.drain_kick();
                self.rx_starved.store(false, Ordering::Relaxed);
            }
            Event::Transmit => self.tx.drain_kick(),
            Event::Control => {
                if let Some(ctrl) = &self.ctrl {
                    ctrl.vring.drain_kick();
                    ctrl.note();
                }
            }
            Event::Changed => {
                self.rx_starved.store(false, Ordering::Relaxed);
                self.backend_ready.store(true, Ordering::Release);
                if let Some(ctrl) = &self.ctrl {
                    ctrl.note();
                }
            }
            Event::Backend => self.backend_ready.store(true, Ordering::Release),
        }
    }

    /// One turn with a bounded budget: what waits on the transmit queue, what
    /// waits at the back end, and control commands. Returns whether there was
    /// anything to do.
    fn turn(&self) -> bool {
        let sent = tx::turn(self);
        let received = rx::turn(self);
        let commands = self.ctrl.as_ref().is_some_and(|ctrl| ctrl.turn());
        sent + received > 0 || commands
    }

    /// Work begins: no kicks are needed while the pair is looked at.
    fn begin(&self) {
        if let Some(mut turn) = self.tx.turn() {
            if let Some((queue, _)) = turn.active() {
                queue.disable_kicks();
            }
        }
    }

    /// Work ends: asks for kicks, and looks once more. `true`: there is work
    /// after all, or nobody will kick.
    fn rest(&self) -> bool {
        // A starved ring whose driver cannot kick is looked at again.
        let polled = self.rx_starved.load(Ordering::Relaxed)
            && self.rx.is_enabled()
            && matches!(self.rx.kick(), Kick::Poll);
        if polled {
            self.rx_starved.store(false, Ordering::Relaxed);
        }
        let transmit = self.tx.ask_for_kicks();
        let control = self.ctrl.as_ref().is_some_and(|ctrl| {
            let waiting = ctrl.vring.is_enabled() && ctrl.vring.ask_for_kicks();
            if waiting {
                ctrl.note();
            }
            waiting
        });
        let backend = self.backend_ready.load(Ordering::Acquire)
            && !self.rx_starved.load(Ordering::Relaxed)
            && self.rx.is_enabled()
            && self.shared.is_link_up()
            && self.rx.is_active()
            && self.shared.backend.rx_fd(self.index).is_some();
        transmit || control || backend || polled
    }
}

impl Vring {
    /// Enables kicks and looks once more. `true`: chains wait, or there is no
    /// descriptor to kick with.
    fn ask_for_kicks(&self) -> bool {
        let polled = matches!(self.kick(), Kick::Poll);
        let Some(mut turn) = self.turn() else {
            return false;
        };
        let Some((queue, _)) = turn.active() else {
            return false;
        };
        match queue.enable_kicks(0) {
            Ok(waiting) => waiting || polled,
            Err(error) => {
                turn.fail(error);
                false
            }
        }
    }
}
