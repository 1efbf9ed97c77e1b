//! Adapters: a port of any kind, as registrations see it.
//!
//! | kind | transmit | receive |
//! | --- | --- | --- |
//! | VALE | forwarded by the switch, if the port is on one | what the switch delivers |
//! | pipe | to the other end | from the other end |
//! | monitor | refused | what the monitored rings had |
//! | device | to the wire or the host's stack | from there |
//! | null | stays where it is | nothing |

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use nix::errno::Errno;

use super::abi::nmreq::{NR_MONITOR_RX, NR_MONITOR_TX, NR_ZCOPY_MON};
use super::authority::Charge;
use super::bwrap::Second;
use super::device::DevicePort;
use super::kring::{Kring, Synced};
use super::mem::Region;
use super::monitor::{GuestMonitor, Monitor};
use super::pipe::{End, Link, Pipe};
use super::port::{Direction, HeaderLen};
use super::ring_port::RingPort;
use super::rings::{BindError, Rings, Shape};
use super::sync::{Hardware, Pointers};
use super::vale::{PortId, Switch};
use crate::net::frame::Batch;

/// Where a VALE port is attached.
#[derive(Debug)]
pub struct Place {
    /// The switch.
    pub switch: Arc<Switch>,
    /// Which port of it.
    pub id: PortId,
    /// The port's name there, for instance `vale0:a`.
    pub name: String,
}

/// How long a VALE port lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as it has users; it is made with its switch.
    Ephemeral,
    /// Until it is deleted.
    Persistent,
    /// As long as it has users, although it is named like an interface: the
    /// parent of pipes that nobody had made.
    Parent,
}

/// A port of a switch, or one that may be attached to one.
#[derive(Debug)]
pub struct ValePort {
    /// Its rings.
    pub ring_port: Arc<RingPort>,
    /// On whose account it is, if it is a client's.
    pub charge: Option<Charge>,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Where it is attached, if it is.
    pub place: ArcSwapOption<Place>,
    /// Where besides. Looked at and changed under the core's lock alone.
    pub second: ArcSwapOption<Second>,
}

/// One end of a pipe.
#[derive(Debug)]
pub struct PipeEnd {
    /// Both ends.
    pub pipe: Arc<Pipe>,
    /// Which.
    pub end: End,
    /// The port that the pipe is below.
    pub parent: Arc<Adapter>,
}

/// What kind of port it is.
#[derive(Debug)]
pub enum Kind {
    /// A port of a switch.
    Vale(ValePort),
    /// An end of a pipe.
    Pipe(PipeEnd),
    /// A monitor.
    Monitor(Monitor),
    /// A monitor of a guest's port.
    GuestMonitor(GuestMonitor),
    /// Memory, and rings that lead nowhere.
    Null(Rings),
    /// An interface of the host.
    Device(DevicePort),
}

/// A pipe below a port: its master and its slave.
type Ends = [Arc<Adapter>; 2];

/// A port of any kind.
#[derive(Debug)]
pub struct Adapter {
    name: String,
    region: Arc<Region>,
    kind: Kind,
    /// The pipes below it.
    pipes: Mutex<Vec<Ends>>,
    // The numbers are written under the core's lock alone.
    holders: AtomicU32,
    active: AtomicU32,
    epoch: AtomicU32,
    monitors: AtomicU32,
}

/// A ring that a registration has bound.
#[derive(Debug)]
pub struct Bound {
    /// Its number on the port.
    pub index: usize,
    /// The ring.
    pub kring: Arc<Kring>,
    /// A pipe's.
    link: Option<Arc<Link>>,
    /// Its registration has all transmit rings of the wire, so that frames may
    /// be forwarded there.
    pub forward_down: bool,
}

impl Adapter {
    /// A port that nobody holds yet.
    pub fn new(name: String, region: Arc<Region>, kind: Kind) -> Self {
        Self {
            name,
            region,
            kind,
            pipes: Mutex::default(),
            holders: AtomicU32::new(0),
            active: AtomicU32::new(0),
            epoch: AtomicU32::new(0),
            monitors: AtomicU32::new(0),
        }
    }

    /// A monitor of `parent`, with the monitor flags of a registration.
    pub fn monitor(parent: Arc<Self>, region: Arc<Region>, shape: Shape, flags: u64) -> Self {
        let number = parent.monitors.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}/{}#{number}", parent.name, monitor_letters(flags));
        let kind = Kind::Monitor(Monitor::new(parent, shape, flags));
        Self::new(name, region, kind)
    }

    /// Its own name; on a switch it may have another one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its rings and buffers are.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// What kind of port it is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// It as a port of a switch.
    pub fn vale(&self) -> Option<&ValePort> {
        match &self.kind {
            Kind::Vale(port) => Some(port),
            _ => None,
        }
    }

    /// It as an interface of the host.
    pub fn device(&self) -> Option<&DevicePort> {
        match &self.kind {
            Kind::Device(port) => Some(port),
            _ => None,
        }
    }

    /// It is on two switches, and nobody can have its rings.
    pub fn is_joint(&self) -> bool {
        self.vale().is_some_and(|vale| vale.second.load().is_some())
    }

    /// Its rings.
    pub fn rings(&self) -> &Rings {
        match &self.kind {
            Kind::Vale(port) => port.ring_port.rings(),
            Kind::Pipe(PipeEnd { pipe, end, .. }) => pipe.rings(*end),
            Kind::Monitor(monitor) => monitor.rings(),
            Kind::GuestMonitor(monitor) => monitor.rings(),
            Kind::Null(rings) => rings,
            Kind::Device(port) => port.rings(),
        }
    }

    /// How many rings, how long.
    pub fn shape(&self) -> Shape {
        self.rings().shape()
    }

    /// What is in front of every frame.
    pub fn header_len(&self) -> HeaderLen {
        self.vale()
            .map_or(HeaderLen::None, |port| port.ring_port.header_len())
    }

    /// The pipes below it.
    pub fn pipes(&self) -> MutexGuard<'_, Vec<Ends>> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody holds it.
    pub fn hold(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody holds it no more; returns how many do.
    pub fn release(&self) -> u32 {
        let before = self.holders.load(Ordering::Relaxed);
        let after = before.saturating_sub(1);
        self.holders.store(after, Ordering::Relaxed);
        after
    }

    /// How many hold it.
    pub fn holders(&self) -> u32 {
        self.holders.load(Ordering::Relaxed)
    }

    /// How often its last registration has gone.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// How many registrations it has.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// A registration was refused: what its rings left behind goes.
    pub fn forget_refused(&self) {
        if let Kind::Pipe(PipeEnd { pipe, .. }) = &self.kind {
            pipe.unlink_unused();
        }
    }

    /// One registration more.
    pub fn enter(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// One registration less. With the last the port leaves netmap mode, and
    /// its monitors have nothing to see any more.
    pub fn leave(&self) {
        let after = self.active().saturating_sub(1);
        self.active.store(after, Ordering::Relaxed);
        if after == 0 {
            self.epoch.fetch_add(1, Ordering::Relaxed);
            self.rings().unwatch();
        }
    }

    /// Binds one ring.
    ///
    /// # Errors
    /// When it is not to be shared, or memory is short; nothing is bound then.
    pub fn bind(
        &self,
        direction: Direction,
        index: usize,
        exclusive: bool,
    ) -> Result<Bound, BindError> {
        let mut link = None;
        let rings = self.rings();
        let kring = rings.bind(direction, index, exclusive, |watch| match &self.kind {
            Kind::Pipe(PipeEnd { pipe, end, .. }) => {
                let link = pipe.link(*end, direction, index)?;
                Ok(Arc::clone(link.kring(direction)))
            }
            _ => rings.make(&self.name, &self.region, direction, index, watch),
        })?;
        match &self.kind {
            Kind::Pipe(PipeEnd { pipe, end, .. }) => {
                // It is there by now.
                link = Some(pipe.link(*end, direction, index)?);
            }
            Kind::Monitor(monitor) if direction == Direction::Rx => {
                monitor.watch(index, &kring);
                if let Kind::Pipe(PipeEnd { pipe, .. }) = &monitor.parent.kind {
                    pipe.recall();
                }
            }
            Kind::Device(port) => {
                if let Err(error) = port.rings_changed() {
                    rings.unbind(direction, index);
                    return Err(error.into());
                }
            }
            _ => {}
        }
        Ok(Bound {
            index,
            kring,
            link,
            forward_down: false,
        })
    }

    /// Takes one binding back.
    pub fn unbind(&self, direction: Direction, bound: &Bound) {
        if let Kind::Vale(port) = &self.kind {
            // It keeps what its rings have counted.
            port.ring_port.unbind(direction, bound.index);
            return;
        }
        let Some(kring) = self.rings().unbind(direction, bound.index) else {
            return;
        };
        match &self.kind {
            // The other end goes on with it.
            Kind::Pipe(_) => {
                if let Some(link) = bound.link() {
                    link.leave(direction);
                }
            }
            Kind::Monitor(monitor) => {
                monitor.unwatch(bound.index, &kring);
                kring.stop();
            }
            Kind::Vale(_) | Kind::GuestMonitor(_) | Kind::Null(_) => kring.stop(),
            Kind::Device(port) => {
                kring.stop();
                if let Err(error) = port.rings_changed() {
                    tracing::warn!("{error}");
                }
            }
        }
    }

    /// Syncs a bound ring.
    ///
    /// # Errors
    /// `EIO`: a monitor's transmit ring, or a monitor whose port is gone;
    /// `ENXIO`: an interface that is not open.
    #[inline]
    pub fn sync(&self, direction: Direction, bound: &Bound) -> Result<Synced, Errno> {
        match (&self.kind, direction) {
            (Kind::Vale(port), Direction::Tx) => Ok(port.txsync(bound)),
            (Kind::Vale(_), Direction::Rx) => Ok(bound.kring.rxsync()),
            (Kind::Pipe(_), _) => match (&bound.link, direction) {
                (Some(link), Direction::Tx) => Ok(link.txsync()),
                (Some(link), Direction::Rx) => Ok(link.rxsync()),
                (None, _) => Err(Errno::EIO),
            },
            (Kind::Monitor(_) | Kind::GuestMonitor(_), Direction::Tx) => Err(Errno::EIO),
            (Kind::Monitor(monitor), Direction::Rx) if monitor.is_orphan() => Err(Errno::EIO),
            (Kind::GuestMonitor(monitor), Direction::Rx) if monitor.is_orphan() => Err(Errno::EIO),
            (Kind::Monitor(_) | Kind::GuestMonitor(_), Direction::Rx) => Ok(bound.kring.rxsync()),
            (Kind::Device(port), _) => {
                port.sync(direction, bound.index, &bound.kring, bound.forward_down)
            }
            (Kind::Null(_), Direction::Tx) => Ok(bound.kring.txsync_with(|_, hardware| hardware)),
            (Kind::Null(_), Direction::Rx) => Ok(bound.kring.rxsync_with(|_, hardware| hardware)),
        }
    }
}

impl Adapter {
    /// Begins to sync a bound transmit ring of a switch's port, as
    /// [`Kring::begin_txsync`].
    #[inline]
    pub fn begin_txsync(&self, bound: &Bound) -> bool {
        self.vale().is_some() && bound.kring.begin_txsync()
    }

    /// Goes on with a sync that was begun.
    #[inline]
    pub fn go_on_with_txsync(&self, bound: &Bound) {
        if let Some(port) = self.vale() {
            port.go_on_with_txsync(bound);
        }
    }

    /// Somebody is going to sleep until the ring has frames, or room.
    #[inline]
    pub fn wait_for(&self, direction: Direction, bound: &Bound) {
        match (&self.kind, &bound.link) {
            (Kind::Device(port), _) => port.wait_for(direction, bound.index),
            (_, Some(link)) => link.wait_for(direction),
            _ => {}
        }
    }

    /// Syncs a bound ring whose application is at `pointers`, whatever is in
    /// the ring; says how far the ring is then.
    ///
    /// # Errors
    /// `EINVAL`: the pointers are wrong, and the ring begins anew; those of
    /// [`sync`](Self::sync).
    pub fn sync_at(
        &self,
        direction: Direction,
        bound: &Bound,
        pointers: Pointers,
    ) -> Result<Hardware, Errno> {
        bound.kring.give(Some(pointers));
        let synced = self.sync(direction, bound);
        // A port that refuses has not taken them.
        bound.kring.give(None);
        match synced? {
            Synced {
                began_anew: true, ..
            } => Err(Errno::EINVAL),
            _ => Ok(bound.kring.hardware()),
        }
    }
}

/// What a monitor's name says of its flags.
pub fn monitor_letters(flags: u64) -> String {
    [
        (NR_ZCOPY_MON, 'z'),
        (NR_MONITOR_RX, 'r'),
        (NR_MONITOR_TX, 't'),
    ]
    .into_iter()
    .filter(|(flag, _)| flags & flag != 0)
    .map(|(_, letter)| letter)
    .collect()
}

impl Bound {
    /// The registration that has it is made.
    pub fn keep(&self) {
        if let Some(link) = &self.link {
            link.keep();
        }
    }

    /// The link that it is a half of, if it is a pipe's.
    #[inline]
    pub fn link(&self) -> Option<&Arc<Link>> {
        self.link.as_ref()
    }

    /// The rings that are synced with this one: its own, and the other half of
    /// a pipe's.
    pub fn krings(&self) -> impl Iterator<Item = &Arc<Kring>> {
        let other = self.link.as_ref().map(|link| {
            let [tx, rx] = [Direction::Tx, Direction::Rx].map(|way| link.kring(way));
            if Arc::ptr_eq(tx, &self.kring) { rx } else { tx }
        });
        std::iter::once(&self.kring).chain(other)
    }
}

impl ValePort {
    /// Sends what the application has put into the ring; a port that is on no
    /// switch drops it.
    #[inline]
    fn txsync(&self, bound: &Bound) -> Synced {
        match &*self.place.load() {
            Some(place) => self.ring_port.txsync(&bound.kring, &mut |batch| {
                place.switch.forward(place.id, bound.index, batch);
            }),
            None => bound.kring.txsync(|_, _| {}),
        }
    }

    /// Likewise, in a sync that was begun before.
    #[inline]
    fn go_on_with_txsync(&self, bound: &Bound) {
        match &*self.place.load() {
            Some(place) => {
                let forward = &mut |batch: &Batch<'_>| {
                    place.switch.forward(place.id, bound.index, batch);
                };
                self.ring_port.go_on_with_txsync(&bound.kring, forward);
            }
            None => bound.kring.go_on_with_txsync(|_, _| {}),
        }
    }
}
