//! The rings that one registration has bound.

use std::ops::Range;
use std::sync::Arc;

use super::{RegisterError, Request, RingMode};
use crate::event::Waker;
use crate::netmap::abi::nmreq;
use crate::netmap::kring::{Kring, Listener};
use crate::netmap::mem::{InterfaceMemory, InterfaceSpec};
use crate::netmap::port::{Direction, HeaderLen};
use crate::netmap::ring_port::{RingPort, Shape};

/// Rings and who is woken when they get frames; unbound when dropped.
#[derive(Debug)]
pub(super) struct Bindings {
    port: Arc<RingPort>,
    tx: Vec<(usize, Arc<Kring>)>,
    rx: Vec<(usize, Arc<Kring>)>,
    listener: Arc<Listener>,
}

/// The rings that a request means, of each direction.
fn selected(
    request: &Request,
    shape: &Shape,
) -> Result<[(Direction, Range<usize>); 2], RegisterError> {
    let name = || request.name.clone();
    let (tx_rings, rx_rings) = (shape.tx_rings, shape.rx_rings);
    let select = |excluded: u64, rings: u16| {
        if request.flags & excluded != 0 {
            return Ok(0..0);
        }
        match request.mode {
            RingMode::All | RingMode::Null => Ok(0..rings.into()),
            RingMode::One(ring) if ring >= tx_rings && ring >= rx_rings => {
                Err(RegisterError::NoSuchRing {
                    name: name(),
                    ring,
                    tx: tx_rings,
                    rx: rx_rings,
                })
            }
            // A direction that has fewer rings gives its first.
            RingMode::One(ring) => {
                let ring = usize::from(if ring < rings { ring } else { 0 });
                Ok(ring..ring + 1)
            }
            RingMode::Host | RingMode::AllAndHost | RingMode::OneHost(_) => {
                Err(RegisterError::NoHostRings(name()))
            }
        }
    };
    Ok([
        (Direction::Tx, select(nmreq::NR_RX_RINGS_ONLY, tx_rings)?),
        (Direction::Rx, select(nmreq::NR_TX_RINGS_ONLY, rx_rings)?),
    ])
}

impl Bindings {
    /// Binds what `request` means.
    ///
    /// # Errors
    /// Nothing stays bound.
    pub(super) fn new(request: &Request, port: &Arc<RingPort>) -> Result<Self, RegisterError> {
        let name = || request.name.clone();
        let region = port.region();
        if request.mem_id != 0 && request.mem_id != region.id() {
            return Err(RegisterError::OtherRegion {
                name: name(),
                has: region.id(),
                want: request.mem_id,
            });
        }
        if port.header_len() != HeaderLen::None && request.flags & nmreq::NR_ACCEPT_VNET_HDR == 0 {
            return Err(RegisterError::VnetHeader(name()));
        }
        let rings = selected(request, &port.shape())?;
        let waker = Waker::new().map_err(|error| RegisterError::Waker {
            name: name(),
            error: error.kind(),
        })?;
        // Whatever fails from here on, dropping this takes it back.
        let mut bindings = Self {
            port: Arc::clone(port),
            tx: Vec::new(),
            rx: Vec::new(),
            listener: Arc::new(Listener::new(waker)),
        };
        let exclusive = request.flags & nmreq::NR_EXCLUSIVE != 0;
        for (direction, rings) in rings {
            for ring in rings {
                let bound = port.bind(direction, ring, exclusive);
                let kring = bound.map_err(|error| RegisterError::Bind {
                    name: name(),
                    error,
                })?;
                if direction == Direction::Rx {
                    kring.add_listener(&bindings.listener);
                    bindings.rx.push((ring, kring));
                } else {
                    bindings.tx.push((ring, kring));
                }
            }
        }
        Ok(bindings)
    }

    /// The `netmap_if` that leads a client to these rings.
    ///
    /// # Errors
    /// When the region has no room for it.
    pub(super) fn interface(&self, request: &Request) -> Result<InterfaceMemory, RegisterError> {
        let Shape {
            tx_rings, rx_rings, ..
        } = self.port.shape();
        // Behind each direction's rings stands one for the host, never bound.
        let behind_tx = usize::from(tx_rings) + 1;
        let mut rings = vec![None; behind_tx + usize::from(rx_rings) + 1];
        let tx = self.tx.iter().map(|(at, kring)| (*at, kring));
        let rx = self.rx.iter().map(|(at, kring)| (behind_tx + at, kring));
        for (at, kring) in tx.chain(rx) {
            if let Some(place) = rings.get_mut(at) {
                *place = Some(kring.memory());
            }
        }
        let interface = self.port.region().interface(&InterfaceSpec {
            name: &request.name,
            tx_rings,
            rx_rings,
            rings: &rings,
            extra_bufs: request.extra_bufs(),
        });
        interface.map_err(|error| RegisterError::Memory {
            name: request.name.clone(),
            error,
        })
    }

    /// The bound rings of one direction, each with its number on the port.
    #[inline]
    pub(super) fn krings(&self, direction: Direction) -> &[(usize, Arc<Kring>)] {
        match direction {
            Direction::Tx => &self.tx,
            Direction::Rx => &self.rx,
        }
    }

    /// Who is woken.
    pub(super) fn listener(&self) -> &Listener {
        &self.listener
    }
}

impl Drop for Bindings {
    fn drop(&mut self) {
        for (ring, kring) in self.rx.drain(..) {
            kring.remove_listener(&self.listener);
            self.port.unbind(Direction::Rx, ring);
        }
        for (ring, _) in self.tx.drain(..) {
            self.port.unbind(Direction::Tx, ring);
        }
    }
}
