//! The rings that one registration has bound.

use std::ops::Range;
use std::sync::Arc;

use super::{RegisterError, Request, RingMode};
use crate::event::Waker;
use crate::netmap::abi::nmreq;
use crate::netmap::adapter::{Adapter, Bound};
use crate::netmap::kring::Listener;
use crate::netmap::mem::{InterfaceMemory, InterfaceSpec};
use crate::netmap::port::Direction;
use crate::netmap::rings::{BindError, HostRings, Shape};

/// Rings and who is woken when they get frames, or room; unbound when dropped.
#[derive(Debug)]
pub(super) struct Bindings {
    adapter: Arc<Adapter>,
    tx: Vec<Bound>,
    rx: Vec<Bound>,
    listener: Arc<Listener>,
}

/// The rings of a port that a request means, of each direction
/// (`netmap_interp_ringid`). Those of the host are behind the others.
///
/// # Errors
/// When the port has none such.
pub(super) fn selected(
    request: &Request,
    shape: &Shape,
    host: HostRings,
) -> Result<[(Direction, Range<usize>); 2], RegisterError> {
    let name = || request.name.clone();
    let select = |direction: Direction, excluded: u64| {
        let rings = shape.rings(direction);
        let first_host = usize::from(rings);
        let hosts = host.rings(direction);
        let end = first_host + usize::from(hosts);
        if request.flags & excluded != 0 {
            return Ok((direction, 0..0));
        }
        match request.mode {
            RingMode::All | RingMode::Null => Ok((direction, 0..rings.into())),
            RingMode::One(ring) if ring >= shape.tx_rings && ring >= shape.rx_rings => {
                Err(RegisterError::NoSuchRing {
                    name: name(),
                    ring,
                    tx: shape.tx_rings,
                    rx: shape.rx_rings,
                })
            }
            // A direction that has fewer rings gives its first, if it has one.
            RingMode::One(ring) => {
                let ring = usize::from(if ring < rings { ring } else { 0 });
                Ok((direction, ring..(ring + 1).min(rings.into())))
            }
            RingMode::Host | RingMode::AllAndHost | RingMode::OneHost(_)
                if host == HostRings::default() =>
            {
                Err(RegisterError::NoHostRings(name()))
            }
            RingMode::Host => Ok((direction, first_host..end)),
            RingMode::AllAndHost => Ok((direction, 0..end)),
            RingMode::OneHost(ring) if ring >= host.tx && ring >= host.rx => {
                Err(RegisterError::NoSuchHostRing {
                    name: name(),
                    ring,
                    tx: host.tx,
                    rx: host.rx,
                })
            }
            RingMode::OneHost(ring) => {
                let ring = first_host + usize::from(if ring < hosts { ring } else { 0 });
                Ok((direction, ring..(ring + 1).min(end)))
            }
            RingMode::Other(mode) => Err(RegisterError::Mode { name: name(), mode }),
        }
    };
    Ok([
        select(Direction::Tx, nmreq::NR_RX_RINGS_ONLY)?,
        select(Direction::Rx, nmreq::NR_TX_RINGS_ONLY)?,
    ])
}

impl Bindings {
    /// Binds what `request` means.
    ///
    /// # Errors
    /// Nothing stays bound.
    pub(super) fn new(request: &Request, adapter: &Arc<Adapter>) -> Result<Self, RegisterError> {
        let name = || request.name.clone();
        let rings = selected(request, &adapter.shape(), adapter.rings().host())?;
        let waker = Waker::new().map_err(|error| RegisterError::Waker {
            name: name(),
            error: error.kind(),
        })?;
        // Whatever fails from here on, dropping this takes it back.
        let mut bindings = Self {
            adapter: Arc::clone(adapter),
            tx: Vec::new(),
            rx: Vec::new(),
            listener: Arc::new(Listener::new(waker)),
        };
        let exclusive = request.flags & nmreq::NR_EXCLUSIVE != 0;
        let [(_, tx), _] = &rings;
        let forward_down = tx.start == 0 && tx.end >= usize::from(adapter.shape().tx_rings);
        for (direction, rings) in rings {
            for ring in rings {
                let bound = adapter.bind(direction, ring, exclusive);
                let mut bound = bound.map_err(|error| match error {
                    // It names the interface itself.
                    BindError::Device(error) => error.into(),
                    error => RegisterError::Bind {
                        name: name(),
                        error,
                    },
                })?;
                bound.kring.add_listener(&bindings.listener);
                bound.forward_down = forward_down;
                match direction {
                    Direction::Tx => bindings.tx.push(bound),
                    Direction::Rx => bindings.rx.push(bound),
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
        } = self.adapter.shape();
        // Behind each direction's rings stand those of the host, or a place for
        // one, never bound.
        let host = self.adapter.rings().host();
        let (host_tx_rings, host_rx_rings) = (host.tx.max(1), host.rx.max(1));
        let behind_tx = usize::from(tx_rings) + usize::from(host_tx_rings);
        let all = behind_tx + usize::from(rx_rings) + usize::from(host_rx_rings);
        let mut rings = vec![None; all];
        let tx = self.tx.iter().map(|bound| (bound.index, bound));
        let rx = self.rx.iter().map(|bound| (behind_tx + bound.index, bound));
        for (at, bound) in tx.chain(rx) {
            if let Some(place) = rings.get_mut(at) {
                *place = Some(bound.kring.memory());
            }
        }
        let interface = self.adapter.region().interface(&InterfaceSpec {
            name: self.adapter.name(),
            tx_rings,
            rx_rings,
            host_tx_rings,
            host_rx_rings,
            rings: &rings,
            extra_bufs: request.extra_bufs(),
        });
        interface.map_err(|error| RegisterError::Memory {
            name: request.name.clone(),
            error,
        })
    }

    /// The port whose rings these are.
    pub(super) fn adapter(&self) -> &Arc<Adapter> {
        &self.adapter
    }

    /// The bound rings of one direction.
    #[inline]
    pub(super) fn bound(&self, direction: Direction) -> &[Bound] {
        match direction {
            Direction::Tx => &self.tx,
            Direction::Rx => &self.rx,
        }
    }

    /// The registration is made.
    pub(super) fn keep(&self) {
        for bound in self.tx.iter().chain(&self.rx) {
            bound.keep();
        }
    }

    /// Who is woken.
    pub(super) fn listener(&self) -> &Listener {
        &self.listener
    }
}

impl Drop for Bindings {
    fn drop(&mut self) {
        for (direction, all) in [(Direction::Rx, &mut self.rx), (Direction::Tx, &mut self.tx)] {
            for bound in all.drain(..) {
                bound.kring.remove_listener(&self.listener);
                self.adapter.unbind(direction, &bound);
            }
        }
    }
}
