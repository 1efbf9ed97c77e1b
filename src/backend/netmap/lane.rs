//! The rings of an open port, and which queue pair uses which.
//!
//! A *lane* is one descriptor of the port with the rings it has bound: one, or
//! all where the port has but one descriptor. Where there are fewer lanes than
//! pairs, pairs share them under a lock; where there are more, a pair has
//! several to receive from.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::receive::Inbox;
use super::send::{Limits, send};
use super::{Fragments, Opening};
use crate::backend::{Received, Room, Sent};
use crate::net::frame::Batch;
use crate::netmap::abi::NETMAP_MAX_FRAGS;
use crate::netmap::port::{Direction, HeaderLen, Port};

/// One descriptor and its rings.
pub(super) struct Lane {
    port: Arc<dyn Port>,
    /// Whoever transmits.
    tx: Mutex<()>,
    /// Whoever receives.
    rx: Mutex<Inbox>,
}

impl Lane {
    pub(super) fn port(&self) -> &Arc<dyn Port> {
        &self.port
    }
}

/// All rings of a port.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Lanes with transmit rings, and those with receive rings, by number.
    senders: Vec<usize>,
    receivers: Vec<usize>,
    /// Most slots and bytes of a frame.
    slots: usize,
    longest: usize,
    /// [`HeaderLen::bytes`]; changes while nothing is under way.
    header_len: AtomicUsize,
    /// How many pairs receive.
    active: AtomicUsize,
}

impl Lanes {
    pub(super) fn new(opening: Opening) -> Self {
        let with = |direction: Direction| {
            let ports = opening.ports.iter().enumerate();
            let has = ports.filter(|(_, port)| port.ring_count(direction) > 0);
            has.map(|(at, _)| at).collect()
        };
        let header_len = opening
            .ports
            .first()
            .map_or(0, |port| port.header_len().map_or(0, HeaderLen::bytes));
        Self {
            senders: with(Direction::Tx),
            receivers: with(Direction::Rx),
            slots: match opening.fragments {
                Fragments::One => 1,
                Fragments::Several | Fragments::UpTo(_) => NETMAP_MAX_FRAGS,
            },
            longest: match opening.fragments {
                Fragments::UpTo(bytes) => bytes,
                Fragments::One | Fragments::Several => usize::MAX,
            },
            header_len: AtomicUsize::new(header_len),
            active: AtomicUsize::new(1),
            lanes: opening
                .ports
                .into_iter()
                .map(|port| Lane {
                    port,
                    tx: Mutex::default(),
                    rx: Mutex::default(),
                })
                .collect(),
        }
    }

    /// Has virtio-net headers in front of frames, if the port can: whether it
    /// does now.
    pub(super) fn have_headers(&self) -> bool {
        !self.lanes.is_empty() && self.set_header_len(HeaderLen::Full).is_ok()
    }

    /// Puts something else in front of every frame. What waits in receive rings
    /// begins with the old header, and is thrown away.
    ///
    /// # Errors
    /// When the port cannot, or is gone.
    pub(super) fn set_header_len(&self, len: HeaderLen) -> io::Result<()> {
        let Some(lane) = self.lanes.first() else {
            return Ok(());
        };
        lane.port.set_header_len(len)?;
        self.header_len.store(len.bytes(), Ordering::Relaxed);
        for lane in &self.lanes {
            let mut inbox = lane.rx.lock().unwrap_or_else(PoisonError::into_inner);
            inbox.clear(&*lane.port)?;
        }
        Ok(())
    }

    /// The lanes that pair `pair` receives from when `active` pairs do.
    pub(super) fn receivers(&self, pair: usize, active: usize) -> impl Iterator<Item = &Lane> {
        let shared = self.receivers.iter().enumerate();
        shared
            .filter(move |(nth, _)| nth % active.max(1) == pair)
            .filter_map(|(_, at)| self.lanes.get(*at))
    }

    /// From now on the first `active` pairs receive.
    pub(super) fn set_active(&self, active: usize) {
        self.active.store(active, Ordering::Relaxed);
    }

    /// The lane that `pair` sends on; `None` when no ring transmits.
    fn sender(&self, pair: usize) -> Option<&Lane> {
        let nth = pair.checked_rem(self.senders.len())?;
        self.lanes.get(*self.senders.get(nth)?)
    }

    /// Puts a batch into a ring of `pair`'s lane, to be sent by
    /// [`flush`](Self::flush); `None` when no ring transmits.
    ///
    /// # Errors
    /// When the port is gone.
    pub(super) fn send(&self, pair: usize, batch: &Batch<'_>) -> Option<io::Result<Sent>> {
        let lane = self.sender(pair)?;
        // Pairs beyond the first round have the lane's next ring.
        let ring = pair / self.senders.len() % lane.port.ring_count(Direction::Tx).max(1);
        let limits = Limits {
            slots: self.slots,
            longest: self.longest,
            header_len: self.header_len.load(Ordering::Relaxed),
        };
        let _turn = lane.tx.lock().unwrap_or_else(PoisonError::into_inner);
        Some(send(&*lane.port, ring, limits, batch))
    }

    /// Has what is in the rings of `pair`'s lane sent, with one sync.
    ///
    /// # Errors
    /// When the port is gone.
    pub(super) fn flush(&self, pair: usize) -> io::Result<()> {
        let Some(lane) = self.sender(pair) else {
            return Ok(());
        };
        let _turn = lane.tx.lock().unwrap_or_else(PoisonError::into_inner);
        lane.port.txsync()
    }

    /// Gives `pair`'s guest, which takes `offloads`, what is in its rings.
    pub(super) fn receive(&self, pair: usize, offloads: u64, rx: &mut dyn Room) -> Received {
        let header_len = self.header_len.load(Ordering::Relaxed);
        for lane in self.receivers(pair, self.active.load(Ordering::Relaxed)) {
            let mut inbox = lane.rx.lock().unwrap_or_else(PoisonError::into_inner);
            match inbox.receive(&*lane.port, header_len, offloads, rx) {
                Received::Drained => {}
                stopped => return stopped,
            }
        }
        Received::Drained
    }

    /// Gives back what was received, and gets what has come since. Whether
    /// that is anything.
    ///
    /// # Errors
    /// When the port is gone.
    pub(super) fn listen(&self, pair: usize) -> io::Result<bool> {
        let mut more = false;
        for lane in self.receivers(pair, self.active.load(Ordering::Relaxed)) {
            let _turn = lane.rx.lock().unwrap_or_else(PoisonError::into_inner);
            more |= lane.port.listen()?;
        }
        Ok(more)
    }

    /// Asks the port whether it is still there, on every lane that nobody is
    /// using just now.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn probe(&self) -> io::Result<()> {
        for lane in &self.lanes {
            if let Ok(_turn) = lane.rx.try_lock() {
                lane.port.rxsync()?;
            }
        }
        Ok(())
    }
}
