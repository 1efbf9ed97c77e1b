//! VALE switches: learning bridges between attachments.
//!
//! A batch of frames is looked up first, then given to one destination after
//! the other, each with all that is for it in the sender's order. No lock is
//! taken on the way: the port table is a snapshot, the address table a table of
//! atomics.

mod port;
mod report;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use arrayvec::ArrayVec;

use super::attachment::Attachment;
use super::mac_table::{Entry, MacTable};
use super::name::NameError;
use crate::net::ethernet::Mac;
use crate::net::frame::{BATCH, Batch, Frame};
use port::{Port, Sent};
pub use port::{PortStatistics, Tap};

/// Most ports of one switch, as in netmap(4).
pub const MAX_PORTS: usize = 254;

/// For every port but the sender's.
const FLOOD: u8 = u8::MAX;
/// For nobody.
const NOWHERE: u8 = u8::MAX - 1;

/// Every frame of a batch.
const ALL: [u16; BATCH] = {
    let mut all = [0; BATCH];
    let mut at = 0;
    while at < BATCH {
        #[expect(clippy::cast_possible_truncation, reason = "at most BATCH")]
        {
            all[at] = at as u16;
        }
        at += 1;
    }
    all
};

type Ports = Vec<Option<Arc<Port>>>;

/// A port's number on its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortId(u8);

impl PortId {
    /// The number itself.
    pub fn index(self) -> u8 {
        self.0
    }
}

/// Why a port cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// A name that no port of a switch can have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The port is there already.
    #[error("{0} is in use: choose another port name")]
    InUse(String),
    /// All [`MAX_PORTS`] are in use.
    #[error("{0} has {MAX_PORTS} ports already: use another switch")]
    Full(String),
    /// Two ports with one address.
    #[error("mac {0} is already on {1}: give each device on a switch its own mac=")]
    DuplicateMac(Mac, String),
}

/// A learning bridge.
pub struct Switch {
    name: String,
    table: MacTable,
    ports: ArcSwap<Ports>,
    /// Taken to change `ports`.
    editing: Mutex<()>,
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Where each frame of a batch goes.
struct Plan {
    to: ArrayVec<u8, BATCH>,
    /// Where all go, if it is one place.
    only: Option<u8>,
    /// The different ports among them.
    ports: ArrayVec<u8, BATCH>,
    sent: Sent,
}

impl Switch {
    /// A switch without ports.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            table: MacTable::new(),
            ports: ArcSwap::default(),
            editing: Mutex::new(()),
        }
    }

    /// Its name, for instance `vale0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn edit(&self) -> MutexGuard<'_, ()> {
        self.editing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches `receiver` as port `name`. `mac` is the address of the guest
    /// behind it, where that is known.
    ///
    /// # Errors
    /// When the name or the address is taken or the switch is full.
    pub fn attach(
        &self,
        name: &str,
        mac: Option<Mac>,
        receiver: Arc<dyn Attachment>,
    ) -> Result<PortId, PortError> {
        let full_name = || format!("{}:{name}", self.name);
        let _editing = self.edit();
        let mut ports = Ports::clone(&self.ports.load());
        for port in ports.iter().flatten() {
            if port.name == name {
                return Err(PortError::InUse(full_name()));
            }
            if let Some(mac) = mac.filter(|_| port.mac == mac) {
                return Err(PortError::DuplicateMac(
                    mac,
                    format!("{}:{}", self.name, port.name),
                ));
            }
        }
        let free = ports.iter().position(Option::is_none);
        let at = free.unwrap_or(ports.len());
        let id = u8::try_from(at).unwrap_or(u8::MAX);
        if at >= MAX_PORTS {
            return Err(PortError::Full(self.name.clone()));
        }
        if free.is_none() {
            ports.push(None);
        }
        ports[at] = Some(Arc::new(Port::new(name, mac, receiver)));
        self.ports.store(Arc::new(ports));
        Ok(PortId(id))
    }

    /// Takes a port away, and what was learned of it.
    pub fn detach(&self, id: PortId) {
        let _editing = self.edit();
        let mut ports = Ports::clone(&self.ports.load());
        if let Some(port) = ports.get_mut(usize::from(id.0)) {
            *port = None;
        }
        self.ports.store(Arc::new(ports));
        self.table.forget_port(id.0);
    }

    /// The ports, each with its number, from the lowest.
    pub fn ports(&self) -> Vec<(PortId, String)> {
        let ports = self.ports.load();
        (0..u8::MAX)
            .zip(ports.iter())
            .filter_map(|(id, port)| Some((PortId(id), port.as_ref()?.name.clone())))
            .collect()
    }

    /// What each port has counted, from the lowest number.
    pub fn statistics(&self) -> Vec<PortStatistics> {
        let ports = self.ports.load();
        (0..u8::MAX)
            .zip(ports.iter())
            .filter_map(|(id, port)| Some(port.as_ref()?.statistics(PortId(id))))
            .collect()
    }

    /// Lets `tap` have frames of the port `name` too, until it is taken off or
    /// the port is gone; what is returned lasts as long as the port. `None`:
    /// there is no such port.
    pub fn tap(&self, name: &str, tap: &Tap) -> Option<Weak<()>> {
        let ports = self.ports.load();
        let mut all = ports.iter().flatten();
        let port = all.find(|port| port.name == name)?;
        port.add_tap(tap);
        Some(port.life())
    }

    /// Takes a tap off whatever port it is on.
    pub fn untap(&self, receiver: &Arc<dyn Attachment>) {
        for port in self.ports.load().iter().flatten() {
            port.remove_tap(receiver);
        }
    }

    /// How many ports there are.
    pub fn port_count(&self) -> usize {
        self.ports.load().iter().flatten().count()
    }

    /// Begins the next epoch of the address table. Returns how many addresses
    /// it knows.
    pub fn age(&self) -> usize {
        self.table.age()
    }

    /// The address table: address, port name and age in epochs.
    pub fn addresses(&self) -> Vec<(Mac, String, u8)> {
        let ports = self.ports.load();
        let describe = |entry: Entry| {
            let port = ports.get(usize::from(entry.port))?.as_ref()?;
            let [_, _, mac @ ..] = entry.mac.to_be_bytes();
            Some((Mac(mac), port.name.clone(), entry.age))
        };
        self.table.dump().into_iter().filter_map(describe).collect()
    }

    /// Forwards the frames of `batch`, which came in on port `from`, ring
    /// `ring`. What a destination has no room for is dropped there.
    pub fn forward(&self, from: PortId, ring: usize, batch: &Batch<'_>) {
        let ports = self.ports.load();
        let plan = self.plan(from, batch);
        if let Some(Some(port)) = ports.get(usize::from(from.0)) {
            port.sends(&plan.sent, ring, batch);
        }
        let all = &ALL[..plan.to.len()];
        let give_all = |id: u8| {
            if let Some(Some(port)) = ports.get(usize::from(id)) {
                port.receives(ring, batch, all);
            }
        };
        let others = (0..u8::MAX).take(ports.len()).filter(|&id| id != from.0);
        match plan.only {
            Some(FLOOD) => return others.for_each(give_all),
            Some(only) => return give_all(only),
            None => {}
        }
        let mut picks = ArrayVec::<u16, BATCH>::new();
        let give = |id: u8, picks: &mut ArrayVec<u16, BATCH>| {
            picks.clear();
            let to = plan.to.iter().enumerate();
            #[expect(clippy::cast_possible_truncation, reason = "at most BATCH")]
            picks.extend(
                to.filter(|&(_, &to)| to == id || to == FLOOD)
                    .map(|(at, _)| at as u16),
            );
            if let Some(Some(port)) = ports.get(usize::from(id)) {
                port.receives(ring, batch, picks);
            }
        };
        if plan.sent.flooded > 0 {
            for id in others {
                give(id, &mut picks);
            }
        } else {
            for &id in &plan.ports {
                give(id, &mut picks);
            }
        }
    }

    /// Learns where the frames came from and looks up where they go.
    #[inline]
    fn plan(&self, from: PortId, batch: &Batch<'_>) -> Plan {
        let mut plan = Plan {
            to: ArrayVec::new(),
            only: None,
            ports: ArrayVec::new(),
            sent: Sent::default(),
        };
        let mut last_source = u64::MAX;
        // Frames of one flow come together.
        let flows = |one: &Frame, next: &Frame| one.ether.is_of_one_flow_with(next.ether);
        for flow in batch.frames().chunk_by(flows) {
            let Some(first) = flow.first() else { continue };
            let source = first.ether.source();
            // Neither a group nor nobody can be where a frame comes from.
            if source != last_source && source >> 40 & 1 == 0 && source != 0 {
                self.table.learn(source, from.0);
            }
            last_source = source;
            let group = first.ether.is_for_group();
            let mut to = if group {
                FLOOD
            } else {
                let target = first.ether.destination();
                self.table.lookup(target).unwrap_or(FLOOD)
            };
            if to == from.0 {
                to = NOWHERE;
            }
            if to < NOWHERE && !plan.ports.contains(&to) {
                plan.ports.push(to);
            }
            let frames = flow.len() as u64;
            plan.sent.frames += frames;
            plan.sent.bytes += flow.iter().map(|frame| u64::from(frame.len)).sum::<u64>();
            if to == FLOOD {
                plan.sent.flooded += frames;
                plan.sent.unknown += if group { 0 } else { frames };
            }
            let same = plan.to.is_empty() || plan.only == Some(to);
            plan.only = same.then_some(to);
            plan.to.extend(std::iter::repeat_n(to, flow.len()));
        }
        plan
    }
}

/// The switches of this process. A switch's number is its place among them,
/// and stays what it is.
#[derive(Default)]
pub struct Switches(Mutex<Vec<Option<Arc<Switch>>>>);

impl Switches {
    fn table(&self) -> MutexGuard<'_, Vec<Option<Arc<Switch>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The switch of that name, made when missing.
    pub fn get(&self, name: &str) -> Arc<Switch> {
        let mut table = self.table();
        if let Some(switch) = table.iter().flatten().find(|switch| switch.name == name) {
            return Arc::clone(switch);
        }
        let switch = Arc::new(Switch::new(name));
        match table.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(Arc::clone(&switch)),
            None => table.push(Some(Arc::clone(&switch))),
        }
        switch
    }

    /// The switch of that name, if there is one, and its number.
    pub fn find(&self, name: &str) -> Option<(usize, Arc<Switch>)> {
        self.numbered()
            .into_iter()
            .find(|(_, switch)| switch.name == name)
    }

    /// The caller has done with `switch`: when it has no port and nobody else
    /// has it, it is gone.
    pub fn release(&self, switch: Arc<Switch>) {
        let mut table = self.table();
        let place = table
            .iter_mut()
            .find(|place| place.as_ref().is_some_and(|one| Arc::ptr_eq(one, &switch)));
        // Nobody can get hold of it meanwhile: the table is locked.
        let unused = switch.port_count() == 0 && Arc::strong_count(&switch) == 2;
        if let Some(place) = place.filter(|_| unused) {
            *place = None;
        }
    }

    /// Begins the next epoch on every switch. Returns how many addresses are
    /// known; with none there is nothing to age.
    pub fn age(&self) -> usize {
        self.table()
            .iter()
            .flatten()
            .map(|switch| switch.age())
            .sum()
    }

    /// Every switch.
    pub fn all(&self) -> Vec<Arc<Switch>> {
        self.table().iter().flatten().cloned().collect()
    }

    /// Every switch with its number, from the lowest.
    pub fn numbered(&self) -> Vec<(usize, Arc<Switch>)> {
        let table = self.table();
        let numbered = table.iter().enumerate();
        numbered
            .filter_map(|(at, switch)| Some((at, Arc::clone(switch.as_ref()?))))
            .collect()
    }
}

#[cfg(test)]
mod tests;
