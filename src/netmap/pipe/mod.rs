//! Pipes: two ports, `PARENT{ID` and `PARENT}ID`, of which each receives what
//! the other sends. Both are in the parent's region, so what goes through a
//! pipe is slots, not bytes.
//!
//! Each transmit ring of one end is *linked* with the receive ring of the same
//! number at the other. The two rings have equally many slots and, between
//! them, one buffer for each: a slot that is sent takes its buffer to the other
//! ring, and when it is released, what the receiver left in it comes back.
//!
//! ```text
//! transmit ring   | free ...      | sent, not released | free ...
//! receive ring    | sender's ...  | receiver's         | sender's ...
//!                                 hwcur          published
//! ```
//!
//! A ring is linked when either end binds it, and stays so while the pipe has
//! a user: who closes one end and opens it again finds what was in it.
//!
//! A client whose rings are pipes' can be lent its halves of their links: it
//! syncs them in its own threads then, with neither a system call nor the
//! service ([`borrowed`]). The service takes them back whenever somebody else
//! has to do with them ([`link`]).

pub mod borrowed;
pub mod link;
pub mod pass;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::kring::Kring;
use super::mem::{MemError, Region};
use super::port::Direction;
use super::rings::{Rings, Shape, ring_name};
pub use link::Link;

/// One of a pipe's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// `PARENT{ID`
    Master,
    /// `PARENT}ID`
    Slave,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Master => Self::Slave,
            Self::Slave => Self::Master,
        }
    }
}

/// Both ends of a pipe.
#[derive(Debug)]
pub struct Pipe {
    id: String,
    names: [String; 2],
    region: Arc<Region>,
    rings: [Rings; 2],
    /// By who sends, and the ring's number.
    links: Mutex<HashMap<(End, usize), Arc<Link>>>,
}

impl Pipe {
    /// The pipe `id` below the port `parent`, whose master has the rings of
    /// `shape`.
    pub fn new(parent: &str, id: &str, region: Arc<Region>, shape: Shape) -> Self {
        Self {
            id: id.to_owned(),
            names: [format!("{parent}{{{id}"), format!("{parent}}}{id}")],
            region,
            rings: [Rings::new(shape), Rings::new(shape.swapped())],
            links: Mutex::default(),
        }
    }

    /// What follows the brace.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name of an end's port.
    pub fn name(&self, end: End) -> &str {
        let [master, slave] = &self.names;
        match end {
            End::Master => master,
            End::Slave => slave,
        }
    }

    /// An end's rings.
    pub fn rings(&self, end: End) -> &Rings {
        let [master, slave] = &self.rings;
        match end {
            End::Master => master,
            End::Slave => slave,
        }
    }

    /// The link that ring `index` of `end` has a half of, made if it is not
    /// there yet.
    ///
    /// # Errors
    /// When the region has too little left.
    pub fn link(
        &self,
        end: End,
        direction: Direction,
        index: usize,
    ) -> Result<Arc<Link>, MemError> {
        let sender = match direction {
            Direction::Tx => end,
            Direction::Rx => end.other(),
        };
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&(sender, index)) {
            return Ok(Arc::clone(link));
        }
        let half = |direction, full: bool| {
            let end = match direction {
                Direction::Tx => sender,
                Direction::Rx => sender.other(),
            };
            let rings = self.rings(end);
            let spec = rings.spec(direction, index);
            let memory = match full {
                true => self.region.ring(&spec)?,
                false => self.region.empty_ring(&spec)?,
            };
            let name = ring_name(self.name(end), direction, index);
            let watch = rings.watch(direction, index).cloned().unwrap_or_default();
            Ok(Arc::new(Kring::new(name, direction, memory, watch)))
        };
        // The side that asks has the buffers; the other's slots name them too.
        let full_tx = direction == Direction::Tx;
        let (tx, rx) = (
            half(Direction::Tx, full_tx)?,
            half(Direction::Rx, !full_tx)?,
        );
        let (from, to) = if full_tx { (&tx, &rx) } else { (&rx, &tx) };
        for at in 0..from.view().num_slots() {
            to.view()
                .set_slot(at, from.view().slot(at).unwrap_or_default());
        }
        let link = Arc::new(Link::new(tx, rx));
        links.insert((sender, index), Arc::clone(&link));
        Ok(link)
    }

    /// A registration was refused: what was linked for it alone is given back.
    pub fn unlink_unused(&self) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, link| link.is_kept());
    }

    /// Takes back what clients have been lent, before something changes that
    /// they do not know of.
    pub fn recall(&self) {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        // All are on their way before one is waited for.
        for (link, direction) in links
            .values()
            .flat_map(|link| [Direction::Tx, Direction::Rx].map(|direction| (link, direction)))
        {
            link.try_recall(direction);
        }
        for link in links.values() {
            link.recall();
        }
    }
}

#[cfg(test)]
mod tests;
