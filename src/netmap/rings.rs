//! The rings of one port: how many there may be, which of them somebody has
//! bound, and who watches them. A ring is made when it is first bound and goes
//! with its last user; its monitors stay.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwapOption, Guard};

use super::device::DeviceError;
use super::kring::{Kring, Watch};
use super::mem::{MemError, Region, RingSpec};
use super::port::Direction;

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

impl Shape {
    /// How many rings of this direction.
    pub fn rings(&self, direction: Direction) -> u16 {
        match direction {
            Direction::Tx => self.tx_rings,
            Direction::Rx => self.rx_rings,
        }
    }

    /// Slots of each ring of this direction.
    pub fn slots(&self, direction: Direction) -> u32 {
        match direction {
            Direction::Tx => self.tx_slots,
            Direction::Rx => self.rx_slots,
        }
    }

    /// The same, seen from the other end of a pipe.
    pub fn swapped(self) -> Self {
        Self {
            tx_rings: self.rx_rings,
            rx_rings: self.tx_rings,
            tx_slots: self.rx_slots,
            rx_slots: self.tx_slots,
        }
    }
}

/// How many rings a port has that lead to the host's own network stack. They
/// are numbered behind the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostRings {
    /// Transmit rings: to the host.
    pub tx: u16,
    /// Receive rings: from the host.
    pub rx: u16,
}

impl HostRings {
    /// How many rings of this direction.
    pub fn rings(self, direction: Direction) -> u16 {
        match direction {
            Direction::Tx => self.tx,
            Direction::Rx => self.rx,
        }
    }
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
    /// The interface behind the rings cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// A ring that comes and goes with its users.
#[derive(Debug, Default)]
struct Place {
    kring: ArcSwapOption<Kring>,
    watch: Arc<Watch>,
}

/// Who uses a ring.
#[derive(Clone, Copy, Debug, Default)]
struct Users {
    count: u32,
    exclusive: bool,
}

/// Something for each ring of both directions.
#[derive(Debug)]
struct PerRing<T> {
    tx: Box<[T]>,
    rx: Box<[T]>,
}

impl<T: Default> PerRing<T> {
    fn new(shape: Shape, host: HostRings) -> Self {
        let some = |direction| {
            let count = usize::from(shape.rings(direction)) + usize::from(host.rings(direction));
            (0..count).map(|_| T::default()).collect()
        };
        Self {
            tx: some(Direction::Tx),
            rx: some(Direction::Rx),
        }
    }
}

impl<T> PerRing<T> {
    fn get(&self, direction: Direction, index: usize) -> Option<&T> {
        match direction {
            Direction::Tx => self.tx.get(index),
            Direction::Rx => self.rx.get(index),
        }
    }

    fn get_mut(&mut self, direction: Direction, index: usize) -> Option<&mut T> {
        match direction {
            Direction::Tx => self.tx.get_mut(index),
            Direction::Rx => self.rx.get_mut(index),
        }
    }
}

/// The rings of one port.
#[derive(Debug)]
pub struct Rings {
    shape: Shape,
    host: HostRings,
    places: PerRing<Place>,
    users: Mutex<PerRing<Users>>,
}

impl Rings {
    /// None is made yet; none leads to the host.
    pub fn new(shape: Shape) -> Self {
        Self::with_host(shape, HostRings::default())
    }

    /// As [`new`](Self::new), with rings of the host behind the others.
    pub fn with_host(shape: Shape, host: HostRings) -> Self {
        Self {
            shape,
            host,
            places: PerRing::new(shape, host),
            users: Mutex::new(PerRing::new(shape, host)),
        }
    }

    /// How many rings, how long.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How many rings lead to the host.
    pub fn host(&self) -> HostRings {
        self.host
    }

    /// Somebody has bound one of these rings.
    pub fn any_bound(&self, direction: Direction, mut rings: Range<usize>) -> bool {
        rings.any(|ring| self.kring(direction, ring).is_some())
    }

    fn users(&self) -> MutexGuard<'_, PerRing<Users>> {
        // Each change is made whole before the next can panic.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kring at `index`, while somebody has it bound.
    pub fn kring(&self, direction: Direction, index: usize) -> Option<Arc<Kring>> {
        self.places.get(direction, index)?.kring.load_full()
    }

    /// All rings that are bound.
    pub fn krings(&self) -> impl Iterator<Item = Arc<Kring>> {
        let places = self.places.tx.iter().chain(&self.places.rx);
        places.filter_map(|place| place.kring.load_full())
    }

    /// The same for the data path.
    #[inline]
    pub fn load(&self, direction: Direction, index: usize) -> Option<Guard<Option<Arc<Kring>>>> {
        self.places
            .get(direction, index)
            .map(|place| place.kring.load())
    }

    /// The monitors of the ring at `index`.
    pub fn watch(&self, direction: Direction, index: usize) -> Option<&Arc<Watch>> {
        self.places.get(direction, index).map(|place| &place.watch)
    }

    /// Forgets all monitors.
    pub fn unwatch(&self) {
        for place in self.places.tx.iter().chain(&self.places.rx) {
            place.watch.clear();
        }
    }

    /// Binds one ring, which `make` makes if nobody has it yet.
    ///
    /// # Errors
    /// When it is not to be shared, or memory is short; nothing is bound then.
    /// A ring that is not there is like one that is busy.
    pub fn bind(
        &self,
        direction: Direction,
        index: usize,
        exclusive: bool,
        make: impl FnOnce(&Arc<Watch>) -> Result<Arc<Kring>, MemError>,
    ) -> Result<Arc<Kring>, BindError> {
        let busy = BindError::Busy { ring: index };
        let mut all = self.users();
        let users = all.get_mut(direction, index).ok_or(busy.clone())?;
        let place = self.places.get(direction, index).ok_or(busy.clone())?;
        if users.exclusive || (users.count > 0 && exclusive) {
            return Err(busy);
        }
        let kring = match place.kring.load_full() {
            Some(kring) => kring,
            None => {
                let kring = make(&place.watch)?;
                place.kring.store(Some(Arc::clone(&kring)));
                kring
            }
        };
        users.count += 1;
        users.exclusive = exclusive;
        Ok(kring)
    }

    /// How many have the ring bound.
    pub fn user_count(&self, direction: Direction, index: usize) -> u32 {
        let users = self.users();
        users.get(direction, index).map_or(0, |users| users.count)
    }

    /// Takes one binding back. With the last, the ring is nobody's: it is
    /// returned, and senders may still be in it.
    pub fn unbind(&self, direction: Direction, index: usize) -> Option<Arc<Kring>> {
        let mut all = self.users();
        let users = all.get_mut(direction, index)?;
        users.count = users.count.saturating_sub(1);
        if users.count > 0 {
            return None;
        }
        users.exclusive = false;
        self.places.get(direction, index)?.kring.swap(None)
    }

    /// Makes a ring with buffers, for a place.
    ///
    /// # Errors
    /// When the region has too little left.
    pub fn make(
        &self,
        port: &str,
        region: &Arc<Region>,
        direction: Direction,
        index: usize,
        watch: &Arc<Watch>,
    ) -> Result<Arc<Kring>, MemError> {
        let spec = self.spec(direction, index);
        let memory = region.ring(&spec)?;
        let name = ring_name(port, direction, index);
        Ok(Arc::new(Kring::new(
            name,
            direction,
            memory,
            Arc::clone(watch),
        )))
    }

    /// What a ring of this port is to be.
    pub fn spec(&self, direction: Direction, index: usize) -> RingSpec {
        let rx = direction == Direction::Rx;
        let slots = self.shape.slots(direction);
        RingSpec {
            // Below the number of rings, which is a u16.
            id: u16::try_from(index).unwrap_or(u16::MAX),
            rx,
            slots,
            tail: Kring::first_tail(rx, slots),
        }
    }
}

/// A kring's name, for instance `vale0:a RX0`.
pub fn ring_name(port: &str, direction: Direction, index: usize) -> String {
    let kind = match direction {
        Direction::Tx => "TX",
        Direction::Rx => "RX",
    };
    format!("{port} {kind}{index}")
}
