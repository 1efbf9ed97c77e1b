//! Ring ports: an attachment of a switch that stands on krings, for netmap
//! clients.
//!
//! What a client sends is forwarded by its own thread, straight out of its
//! buffers; what it receives is copied into its buffers by the senders.

mod rx;
mod tx;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;

use super::attachment::{Attachment, Delivered};
use super::kring::Kring;
use super::mem::{MemError, Region, RingSpec};
use super::port::{Direction, HeaderLen};
use crate::net::frame::Batch;
use crate::virtio::spec::net;

/// How many rings a port has, and how long they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Transmit rings.
    pub tx_rings: u16,
    /// Receive rings.
    pub rx_rings: u16,
    /// Slots of each transmit ring.
    pub tx_slots: u32,
    /// Slots of each receive ring.
    pub rx_slots: u32,
}

/// Why rings cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Somebody has a ring for itself, or wants one that others have.
    #[error("ring {ring} is bound already, and one of its users wants it alone; choose another")]
    Busy {
        /// Which ring.
        ring: usize,
    },
    /// The region has too little left.
    #[error(transparent)]
    Memory(#[from] MemError),
}

/// A ring that comes and goes with its users.
#[derive(Debug, Default)]
struct Place {
    kring: ArcSwapOption<Kring>,
}

/// Who uses a ring.
#[derive(Clone, Copy, Debug, Default)]
struct Users {
    count: u32,
    exclusive: bool,
}

/// Users of every ring.
#[derive(Debug)]
struct Bindings {
    tx: Vec<Users>,
    rx: Vec<Users>,
}

/// The rings of one port.
#[derive(Debug)]
pub struct RingPort {
    name: String,
    region: Arc<Region>,
    shape: Shape,
    tx: Box<[Place]>,
    rx: Box<[Place]>,
    bindings: Mutex<Bindings>,
    /// [`HeaderLen::bytes`]; senders read it once a batch.
    header_len: AtomicUsize,
    /// Frames for receive rings that nobody has bound.
    unbound: AtomicU64,
}

impl RingPort {
    /// A port without rings; they are made when they are bound.
    pub fn new(name: &str, region: Arc<Region>, shape: Shape) -> Self {
        let places = |count: u16| (0..count).map(|_| Place::default()).collect();
        let users = |count: u16| vec![Users::default(); count.into()];
        Self {
            name: name.to_owned(),
            region,
            shape,
            tx: places(shape.tx_rings),
            rx: places(shape.rx_rings),
            bindings: Mutex::new(Bindings {
                tx: users(shape.tx_rings),
                rx: users(shape.rx_rings),
            }),
            header_len: AtomicUsize::new(0),
            unbound: AtomicU64::new(0),
        }
    }

    /// Its name, for instance `vale0:a`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its rings and buffers are.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// How many rings, how long.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What is in front of every frame, sent and received.
    pub fn header_len(&self) -> HeaderLen {
        match self.header_bytes() {
            10 => HeaderLen::Legacy,
            12 => HeaderLen::Full,
            _ => HeaderLen::None,
        }
    }

    #[inline]
    fn header_bytes(&self) -> usize {
        self.header_len.load(Ordering::Relaxed)
    }

    /// Puts something else in front of every frame from the next batch on.
    pub fn set_header_len(&self, len: HeaderLen) {
        self.header_len.store(len.bytes(), Ordering::Relaxed);
    }

    /// Frames that were dropped because nobody had bound their ring.
    pub fn unbound_frames(&self) -> u64 {
        self.unbound.load(Ordering::Relaxed)
    }

    fn places(&self, direction: Direction) -> &[Place] {
        match direction {
            Direction::Tx => &self.tx,
            Direction::Rx => &self.rx,
        }
    }

    fn bindings(&self) -> MutexGuard<'_, Bindings> {
        // Each change is made whole before the next can panic.
        self.bindings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kring at `index`, while somebody has it bound.
    pub fn kring(&self, direction: Direction, index: usize) -> Option<Arc<Kring>> {
        self.places(direction).get(index)?.kring.load_full()
    }

    /// Binds one ring, which is made if nobody has it yet.
    ///
    /// # Errors
    /// When it is not to be shared, or memory is short; nothing is bound then.
    /// A ring that is not there is like one that is busy.
    pub fn bind(
        &self,
        direction: Direction,
        index: usize,
        exclusive: bool,
    ) -> Result<Arc<Kring>, BindError> {
        let busy = BindError::Busy { ring: index };
        let mut bindings = self.bindings();
        let users = bindings.users(direction, index).ok_or(busy.clone())?;
        let place = self.places(direction).get(index).ok_or(busy.clone())?;
        if users.count > 0 && (exclusive || users.exclusive) {
            return Err(busy);
        }
        let kring = match place.kring.load_full() {
            Some(kring) => kring,
            None => {
                let kring = Arc::new(self.new_kring(direction, index)?);
                place.kring.store(Some(Arc::clone(&kring)));
                kring
            }
        };
        users.count += 1;
        users.exclusive = exclusive;
        Ok(kring)
    }

    fn new_kring(&self, direction: Direction, index: usize) -> Result<Kring, MemError> {
        let rx = direction == Direction::Rx;
        let (slots, kind) = if rx {
            (self.shape.rx_slots, "RX")
        } else {
            (self.shape.tx_slots, "TX")
        };
        let memory = self.region.ring(&RingSpec {
            // Below the number of rings, which is a u16.
            id: u16::try_from(index).unwrap_or(u16::MAX),
            rx,
            slots,
            tail: Kring::first_tail(rx, slots),
        })?;
        Ok(Kring::new(format!("{} {kind}{index}", self.name), memory))
    }

    /// Takes one binding back. With the last, the ring closes: senders that
    /// are in it are waited for, then it goes with whoever still holds it.
    pub fn unbind(&self, direction: Direction, index: usize) {
        let mut bindings = self.bindings();
        let Some(users) = bindings.users(direction, index) else {
            return;
        };
        users.count = users.count.saturating_sub(1);
        if users.count > 0 {
            return;
        }
        users.exclusive = false;
        let place = self.places(direction).get(index);
        if let Some(kring) = place.and_then(|place| place.kring.swap(None)) {
            kring.stop();
        }
    }

    /// Sends what the application has put into transmit ring `index`, in
    /// batches that `forward` is given together with the ring's number.
    pub fn txsync(&self, index: usize, forward: &mut dyn FnMut(usize, &Batch<'_>)) {
        let Some(place) = self.tx.get(index) else {
            return;
        };
        if let Some(kring) = &*place.kring.load() {
            kring.txsync(|from, to| {
                tx::send(kring, from..to, self.header_bytes(), &mut |batch| {
                    forward(index, batch);
                });
            });
        }
    }

    /// Syncs receive ring `index`.
    pub fn rxsync(&self, index: usize) {
        if let Some(kring) = self.rx.get(index).and_then(|place| place.kring.load_full()) {
            kring.rxsync();
        }
    }
}

impl Bindings {
    fn users(&mut self, direction: Direction, index: usize) -> Option<&mut Users> {
        match direction {
            Direction::Tx => self.tx.get_mut(index),
            Direction::Rx => self.rx.get_mut(index),
        }
    }
}

impl Attachment for RingPort {
    fn offloads(&self) -> u64 {
        // Whoever asks for the header takes what it can say, as the kernel
        // assumes; without it nothing can be left unfinished.
        match self.header_len() {
            HeaderLen::None => 0,
            HeaderLen::Legacy | HeaderLen::Full => net::GUEST_OFFLOADS,
        }
    }

    fn deliver(&self, ring: usize, batch: &Batch<'_>, picks: &[u16]) -> Delivered {
        let place = self.rx.get(ring % self.rx.len().max(1));
        match place.map(|place| place.kring.load()).as_deref() {
            Some(Some(kring)) => rx::deliver(kring, self.header_bytes(), batch, picks),
            _ => {
                self.unbound
                    .fetch_add(picks.len() as u64, Ordering::Relaxed);
                Delivered::default()
            }
        }
    }
}

#[cfg(test)]
mod tests;
