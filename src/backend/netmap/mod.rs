//! A netmap port, `netmap:em0` or a kernel's `vale0:vm1` (netmap(4), vale(4)).
//!
//! What the guest sends is copied into transmit rings, and a batch is given to
//! the port with one sync; what comes is copied from receive rings straight
//! into guest memory. Both go through [`Port`], so the same code runs on
//! `/dev/netmap` and on a port of the core in this process.
//!
//! A port is opened as several [`Port`]s where it has several rings, one for
//! each (`lane`). Transmit rings are shared out to queue pairs for good, and
//! receive rings to those that the guest has active; whoever uses a ring holds
//! its lock.
//!
//! Frames carry a virtio-net header where the port can have one in front of
//! them, which ports of a switch can and interfaces cannot. It has 12 bytes
//! whatever the guest has: the two are made from each other, and between ports
//! whose headers differ the kernel loses frames. It puts the longer header and
//! all of a frame's first buffer into one of the receiver's, and they do not fit
//! (`bdg_mismatch_datapath` in netmap_offloadings.c).
//!
//! Nothing that a header says is believed before it is checked: whoever is on
//! the switch wrote it.

#[cfg(target_os = "freebsd")]
mod host;
#[cfg(target_os = "freebsd")]
mod kernel;
mod lane;
mod receive;
mod send;
#[cfg(test)]
mod tests;
mod wake;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::{Backend, MAX_PAIRS, OpenError, Received, Room, Sent};
use crate::net::frame::Batch;
use crate::netmap::port::{HeaderLen, Port};
use crate::virtio::spec::net;
#[cfg(target_os = "freebsd")]
pub use host::NetmapHost;
#[cfg(target_os = "freebsd")]
pub use kernel::Kernel;
use lane::Lanes;
use wake::Wake;

/// What is offered to a guest when the port takes virtio-net headers; the
/// reference's NETMAP_FEATURES. The kernel's VALE knows of no UDP segmentation,
/// and drops what it does not know.
pub const FEATURES: u64 = net::F_CSUM
    | net::F_HOST_TSO4
    | net::F_HOST_TSO6
    | net::F_HOST_UFO
    | net::F_GUEST_CSUM
    | net::F_GUEST_TSO4
    | net::F_GUEST_TSO6
    | net::F_GUEST_UFO;

/// Most batches that go with one sync, while chains wait: a system call, and a
/// receiver that is woken, for four times as many frames. Still a quarter of the
/// slots that a port of a switch has.
const BATCHES: usize = 4;

/// How long a frame may be, in buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragments {
    /// One buffer a frame: what the drivers of most interfaces take.
    One,
    /// Several slots a frame (`NS_MOREFRAG`), as ports of a switch and pipes
    /// take them.
    Several,
    /// Several slots for a frame of at most so many bytes: what an interface
    /// takes whose MTU is longer than a buffer. Drivers make a list of a frame's
    /// slots that has room for what an MTU needs, and trust us not to have more
    /// (`iflib_netmap_txsync` in net/iflib.c).
    UpTo(usize),
}

/// An open port.
pub struct Opening {
    /// One for each ring, or one for all.
    pub ports: Vec<Arc<dyn Port>>,
    /// How long frames may be.
    pub fragments: Fragments,
}

/// Where the port comes from: the opener, or the core in this process.
pub trait Source: Send + Sync {
    /// Opens the port, or opens it again after it was lost.
    ///
    /// # Errors
    /// It cannot be had, for now or at all.
    fn open(&self) -> Result<Opening, OpenError>;
}

/// A netmap port as a back end.
pub struct Netmap {
    name: String,
    source: Box<dyn Source>,
    lanes: ArcSwap<Lanes>,
    /// What wakes each queue pair.
    wakes: Box<[Wake]>,
    /// What the port can do, as feature bits.
    features: u64,
    /// Offloads that the guest takes, as feature bits.
    offloads: AtomicU64,
    /// The port is gone, and it was said.
    lost: AtomicBool,
    /// How many pairs receive; held while rings change hands.
    active: Mutex<usize>,
}

impl Netmap {
    /// Opens the port that `source` has, for `pairs` queue pairs, at most
    /// [`MAX_PAIRS`]. `name` is for messages.
    ///
    /// # Errors
    /// Those of [`Source::open`], and that there are no descriptors left.
    pub fn open(name: &str, source: Box<dyn Source>, pairs: u16) -> Result<Self, OpenError> {
        let system = |error| OpenError::System {
            name: name.to_owned(),
            error,
            cure: "let vtnetd have more descriptors (ulimit -n)",
        };
        let lanes = Lanes::new(source.open()?);
        let wakes = (0..pairs.clamp(1, MAX_PAIRS))
            .map(|_| Wake::new())
            .collect::<io::Result<_>>()
            .map_err(system)?;
        let features = if lanes.have_headers() { FEATURES } else { 0 };
        let netmap = Self {
            name: name.to_owned(),
            source,
            wakes,
            features,
            offloads: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            active: Mutex::new(1),
            lanes: ArcSwap::from_pointee(lanes),
        };
        netmap.share_out(&netmap.lanes.load(), 1).map_err(system)?;
        Ok(netmap)
    }

    fn active(&self) -> MutexGuard<'_, usize> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the first `active` pairs, and no others, woken for the receive
    /// rings of `lanes`.
    fn share_out(&self, lanes: &Lanes, active: usize) -> io::Result<()> {
        for (at, wake) in self.wakes.iter().enumerate() {
            let ports = lanes.receivers(at, active).map(|lane| lane.port().clone());
            wake.watch(ports.collect())?;
        }
        lanes.set_active(active);
        Ok(())
    }

    /// Notes that the port is gone; the control thread says so.
    fn lose(&self, error: &io::Error) {
        if !self.lost.swap(true, Ordering::Relaxed) {
            tracing::debug!("{}: {error}", self.name);
        }
    }
}

impl Backend for Netmap {
    fn features(&self) -> u64 {
        self.features
    }

    fn set_features(&self, features: u64, _header_len: usize) -> io::Result<()> {
        let offloads = features & net::GUEST_OFFLOADS;
        self.offloads.store(offloads, Ordering::Relaxed);
        Ok(())
    }

    fn max_pairs(&self) -> u16 {
        u16::try_from(self.wakes.len()).unwrap_or(MAX_PAIRS)
    }

    fn set_active_pairs(&self, pairs: u16) {
        let active = usize::from(pairs).clamp(1, self.wakes.len());
        let mut receiving = self.active();
        if *receiving == active {
            return;
        }
        if let Err(error) = self.share_out(&self.lanes.load(), active) {
            tracing::warn!("{}: rings not shared out anew: {error}", self.name);
            return;
        }
        *receiving = active;
    }

    fn send(&self, pair: usize, batch: &Batch<'_>) -> Sent {
        let none = || Sent {
            dropped: u32::try_from(batch.frames().len()).unwrap_or(u32::MAX),
            ..Sent::default()
        };
        if self.lost.load(Ordering::Relaxed) {
            return none();
        }
        let lanes = self.lanes.load();
        match lanes.send(pair, batch) {
            None => none(),
            Some(Ok(sent)) => sent,
            Some(Err(error)) => {
                self.lose(&error);
                none()
            }
        }
    }

    fn batches(&self) -> usize {
        BATCHES
    }

    fn flush(&self, pair: usize) -> bool {
        let flushed = match self.lost.load(Ordering::Relaxed) {
            true => return false,
            false => self.lanes.load().flush(pair),
        };
        if let Err(error) = &flushed {
            self.lose(error);
        }
        flushed.is_ok()
    }

    fn rx_fd(&self, pair: usize) -> Option<BorrowedFd<'_>> {
        self.wakes.get(pair).map(AsFd::as_fd)
    }

    fn receive(&self, pair: usize, rx: &mut dyn Room) -> Received {
        let Some(wake) = self.wakes.get(pair) else {
            return Received::Drained;
        };
        let lanes = self.lanes.load();
        let offloads = self.offloads.load(Ordering::Relaxed);
        // Before the rings are looked at, so that nothing that comes later is
        // missed.
        let mut looked = wake.rest().map(|()| true);
        while let Ok(true) = looked {
            if self.lost.load(Ordering::Relaxed) {
                return Received::Drained;
            }
            match lanes.receive(pair, offloads, rx) {
                Received::Drained => looked = lanes.listen(pair),
                stopped => return stopped,
            }
        }
        if let Err(error) = looked {
            self.lose(&error);
        }
        Received::Drained
    }

    fn can_be_lost(&self) -> bool {
        true
    }

    fn is_lost(&self) -> bool {
        if !self.lost.load(Ordering::Relaxed) {
            // An idle port would not say so.
            if let Err(error) = self.lanes.load().probe() {
                self.lose(&error);
            }
        }
        self.lost.load(Ordering::Relaxed)
    }

    fn recover(&self) -> Result<(), OpenError> {
        let system = |error| OpenError::System {
            name: self.name.clone(),
            error,
            cure: "restart vtnetd",
        };
        let lanes = Lanes::new(self.source.open()?);
        if self.features != 0 {
            lanes.set_header_len(HeaderLen::Full).map_err(system)?;
        }
        let active = self.active();
        self.share_out(&lanes, *active).map_err(system)?;
        // The old port, its descriptors and its memory go with the last batch
        // that is under way.
        self.lanes.store(Arc::new(lanes));
        self.lost.store(false, Ordering::Relaxed);
        // Whoever looked meanwhile looked at the old one.
        for wake in &self.wakes {
            wake.wake();
        }
        Ok(())
    }
}
