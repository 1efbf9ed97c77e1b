//! Monitors: ports that receive what other ports send and receive.
//!
//! A monitor of a client's port watches the port's rings (see
//! [`Watch`]). A guest's port has no rings to watch: its
//! monitor is told by the switch, gets copies, and each frame as a receiver
//! without offloads would get it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::abi::NS_TXMON;
use super::abi::nmreq::{NR_MONITOR_RX, NR_MONITOR_TX, NR_ZCOPY_MON};
use super::adapter::Adapter;
use super::attachment::{Attachment, Delivered};
use super::kring::{Kring, Watch};
use super::port::Direction;
use super::ring_port;
use super::rings::{Rings, Shape};
use super::vale::{Switch, Tap};
use crate::net::frame::Batch;

/// A monitor of a client's port.
#[derive(Debug)]
pub struct Monitor {
    /// The monitored port.
    pub parent: Arc<Adapter>,
    /// How often the port had been left when the monitor was made.
    epoch: u32,
    rings: Rings,
    flags: u64,
}

impl Monitor {
    /// A monitor of `parent`, with the monitor flags of a registration.
    pub fn new(parent: Arc<Adapter>, shape: Shape, flags: u64) -> Self {
        Self {
            epoch: parent.epoch(),
            rings: Rings::new(shape),
            flags,
            parent,
        }
    }

    /// `NR_MONITOR_TX`, `NR_MONITOR_RX`, `NR_ZCOPY_MON`.
    pub fn flags(&self) -> u64 {
        self.flags
    }

    /// Its own rings.
    pub fn rings(&self) -> &Rings {
        &self.rings
    }

    /// The port has been left by everybody since, and whoever came later is not
    /// watched.
    #[inline]
    pub fn is_orphan(&self) -> bool {
        self.epoch != self.parent.epoch()
    }

    /// The rings of the port that ring `index` of the monitor watches.
    fn watched(&self, index: usize) -> impl Iterator<Item = &Arc<Watch>> {
        [
            (Direction::Tx, NR_MONITOR_TX),
            (Direction::Rx, NR_MONITOR_RX),
        ]
        .into_iter()
        .filter(|(_, flag)| self.flags & flag != 0)
        .filter_map(move |(direction, _)| self.parent.rings().watch(direction, index))
    }

    /// Lets a ring of the monitor have what it watches.
    pub fn watch(&self, index: usize, kring: &Arc<Kring>) {
        for watch in self.watched(index) {
            if self.flags & NR_ZCOPY_MON != 0 {
                watch.add_zero_copy(kring);
            } else {
                watch.add_copy(kring);
            }
        }
    }

    /// Nothing comes to the ring any more when this returns.
    pub fn unwatch(&self, index: usize, kring: &Arc<Kring>) {
        for watch in self.watched(index) {
            watch.remove(kring);
        }
    }
}

/// Gets the frames of one direction from the switch.
struct Ear {
    rings: Arc<Rings>,
    /// [`NS_TXMON`] for what the guest sends.
    flags: u16,
}

impl Attachment for Ear {
    fn offloads(&self) -> u64 {
        0
    }

    fn deliver(&self, _: usize, batch: &Batch<'_>, picks: &[u16]) -> Delivered {
        match self.rings.load(Direction::Rx, 0).as_deref() {
            Some(Some(kring)) => ring_port::deliver(kring, self.flags, batch, picks),
            _ => Delivered::default(),
        }
    }
}

/// A monitor of a guest's port.
pub struct GuestMonitor {
    rings: Arc<Rings>,
    ears: [Arc<dyn Attachment>; 2],
    /// None once nobody holds the monitor.
    switch: Mutex<Option<Arc<Switch>>>,
    /// The guest's port, as long as it is there.
    port: Weak<()>,
}

impl std::fmt::Debug for GuestMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestMonitor")
            .field("rings", &self.rings)
            .finish_non_exhaustive()
    }
}

impl GuestMonitor {
    /// A monitor, with one receive ring, of the port `port` of `switch`. Gives
    /// the switch back when there is no such port.
    ///
    /// # Errors
    /// As said.
    pub fn new(
        switch: Arc<Switch>,
        port: &str,
        shape: Shape,
        flags: u64,
    ) -> Result<Self, Arc<Switch>> {
        let rings = Arc::new(Rings::new(shape));
        let [tx, rx]: [Arc<dyn Attachment>; 2] = [NS_TXMON, 0].map(|flags| {
            let rings = Arc::clone(&rings);
            Arc::new(Ear { rings, flags }) as _
        });
        let tap = |ear: &Arc<dyn Attachment>, sent| {
            let tap = Tap {
                receiver: Arc::clone(ear),
                sent: sent && flags & NR_MONITOR_TX != 0,
                received: !sent && flags & NR_MONITOR_RX != 0,
            };
            switch.tap(port, &tap)
        };
        let (Some(port), Some(_)) = (tap(&tx, true), tap(&rx, false)) else {
            return Err(switch);
        };
        Ok(Self {
            rings,
            ears: [tx, rx],
            switch: Mutex::new(Some(switch)),
            port,
        })
    }

    /// Its own rings.
    pub fn rings(&self) -> &Rings {
        &self.rings
    }

    /// The guest's port is gone.
    #[inline]
    pub fn is_orphan(&self) -> bool {
        self.port.strong_count() == 0
    }

    /// Listens no more; returns the switch, once.
    pub fn close(&self) -> Option<Arc<Switch>> {
        let mut switch = self.switch.lock().unwrap_or_else(PoisonError::into_inner);
        let switch = switch.take()?;
        for ear in &self.ears {
            switch.untap(ear);
        }
        Some(switch)
    }
}
