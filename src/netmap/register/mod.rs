//! Registration: a client names a port, gets rings and memory, and gives them
//! back when it goes.
//!
//! A port of a switch comes into being with the first registration that names
//! it and goes with the last. Each ring is made when somebody binds it, so a
//! port with sixteen rings of which one is used has one.

mod bindings;
mod port_string;
mod request;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use port_string::parse_port_string;
pub use request::{RegisterError, Request, RingMode};

use super::abi::nmreq::{self, RegisterBody};
use super::kring::Kring;
use super::mem::{InterfaceMemory, PortNeeds, Region, RegionConfig, Regions, RingView};
use super::name::PortName;
use super::port::{Direction, HeaderLen, Port};
use super::ring_port::RingPort;
use super::vale::{PortId, Switch, Switches};
use bindings::Bindings;

/// Pipes that a port's own region has room for.
const PIPES: u32 = 2;

/// A ring port and its place on its switch.
struct Attached {
    ring_port: Arc<RingPort>,
    switch: Arc<Switch>,
    id: PortId,
}

/// A port and how many registrations it has.
struct Known {
    attached: Arc<Attached>,
    users: u32,
}

type Ports = HashMap<String, Known>;

/// The core: what ports and regions there are.
pub struct Netmap {
    switches: Arc<Switches>,
    regions: Regions,
    ports: Mutex<Ports>,
}

impl Netmap {
    /// A core whose ports are on `switches`, with a global region as `global`
    /// says, which is made when somebody asks for it.
    pub fn new(switches: Arc<Switches>, global: RegionConfig) -> Self {
        Self {
            switches,
            regions: Regions::new(global),
            ports: Mutex::default(),
        }
    }

    /// The memory regions.
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a client with a port, which is made if it is not there yet.
    ///
    /// # Errors
    /// Nothing is left behind.
    pub fn register(self: &Arc<Self>, request: &Request) -> Result<Registration, RegisterError> {
        let not_served = |what| RegisterError::NotServed {
            name: request.name.clone(),
            what,
        };
        if request.mode == RingMode::Null {
            return Err(not_served("null ports"));
        }
        let monitor = nmreq::NR_MONITOR_TX | nmreq::NR_MONITOR_RX | nmreq::NR_ZCOPY_MON;
        if request.flags & monitor != 0 {
            return Err(not_served("monitors"));
        }
        let (switch, port) = match PortName::parse(&request.name)? {
            PortName::Vale { switch, port } => (switch, port),
            PortName::Pipe { .. } => return Err(not_served("pipes")),
            PortName::Host(_) => return Err(not_served("interfaces of the host")),
        };
        let mut ports = self.ports();
        let attached = match ports.get_mut(&request.name) {
            Some(known) => {
                known.users += 1;
                Arc::clone(&known.attached)
            }
            None => {
                let attached = Arc::new(self.attach(request, switch, port)?);
                let known = Known {
                    attached: Arc::clone(&attached),
                    users: 1,
                };
                ports.insert(request.name.clone(), known);
                attached
            }
        };
        let bound = Bindings::new(request, &attached.ring_port)
            .and_then(|bindings| Ok((bindings.interface(request)?, bindings)));
        match bound {
            Ok((interface, bindings)) => Ok(Registration {
                core: Arc::clone(self),
                interface,
                bindings,
                attached,
            }),
            Err(error) => {
                leave(&mut ports, &request.name);
                Err(error)
            }
        }
    }

    /// Makes a port and attaches it to its switch.
    fn attach(
        &self,
        request: &Request,
        switch: &str,
        port: &str,
    ) -> Result<Attached, RegisterError> {
        let shape = request.shape();
        let region = match request.mem_id {
            0 => self.regions.private(&RegionConfig::private(&PortNeeds {
                tx_rings: shape.tx_rings,
                tx_slots: shape.tx_slots,
                rx_rings: shape.rx_rings,
                rx_slots: shape.rx_slots,
                extra_bufs: request.extra_bufs(),
                pipes: PIPES,
            })),
            id => self.regions.find(id),
        };
        let region = region.map_err(|error| RegisterError::Memory {
            name: request.name.clone(),
            error,
        })?;
        let ring_port = Arc::new(RingPort::new(&request.name, region, shape));
        let switch = self.switches.get(switch);
        let id = switch.attach(port, None, Arc::clone(&ring_port) as _)?;
        Ok(Attached {
            ring_port,
            switch,
            id,
        })
    }
}

/// One registration less; the last one's port leaves its switch.
fn leave(ports: &mut Ports, name: &str) {
    let Some(known) = ports.get_mut(name) else {
        return;
    };
    known.users = known.users.saturating_sub(1);
    if known.users == 0 {
        known.attached.switch.detach(known.attached.id);
        ports.remove(name);
    }
}

/// A client's hold on a port. Dropping it gives everything back.
pub struct Registration {
    core: Arc<Netmap>,
    interface: InterfaceMemory,
    bindings: Bindings,
    attached: Arc<Attached>,
}

impl Registration {
    /// The port that is behind.
    pub fn ring_port(&self) -> &Arc<RingPort> {
        &self.attached.ring_port
    }

    /// The memory that a client maps.
    pub fn region(&self) -> &Arc<Region> {
        self.attached.ring_port.region()
    }

    /// The bound kring `index`, from 0.
    #[inline]
    pub fn kring(&self, direction: Direction, index: usize) -> Option<&Arc<Kring>> {
        let krings = self.bindings.krings(direction);
        krings.get(index).map(|(_, kring)| kring)
    }

    /// `request` as it was answered: what is in use, in place of what was asked
    /// for.
    pub fn answer(&self, request: &RegisterBody) -> RegisterBody {
        let shape = self.ring_port().shape();
        RegisterBody {
            nr_offset: self.interface.offset(),
            nr_memsize: self.region().bytes(),
            nr_tx_slots: shape.tx_slots,
            nr_rx_slots: shape.rx_slots,
            nr_tx_rings: shape.tx_rings,
            nr_rx_rings: shape.rx_rings,
            nr_host_tx_rings: 0,
            nr_host_rx_rings: 0,
            nr_mem_id: self.region().id(),
            nr_extra_bufs: self.interface.extra_bufs(),
            ..*request
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Off the switch first, so that no frame comes any more; the rings go
        // with the fields.
        leave(&mut self.core.ports(), self.attached.ring_port.name());
    }
}

impl Port for Registration {
    fn name(&self) -> &str {
        self.ring_port().name()
    }

    fn ring_count(&self, direction: Direction) -> usize {
        self.bindings.krings(direction).len()
    }

    fn ring(&self, direction: Direction, index: usize) -> Option<RingView<'_>> {
        self.kring(direction, index).map(|kring| kring.view())
    }

    fn txsync(&self) -> io::Result<()> {
        let Attached {
            ring_port,
            switch,
            id,
        } = &*self.attached;
        for (ring, _) in self.bindings.krings(Direction::Tx) {
            ring_port.txsync(*ring, &mut |ring, batch| switch.forward(*id, ring, batch));
        }
        Ok(())
    }

    fn rxsync(&self) -> io::Result<()> {
        for (_, kring) in self.bindings.krings(Direction::Rx) {
            kring.rxsync();
        }
        Ok(())
    }

    fn header_len(&self) -> io::Result<HeaderLen> {
        Ok(self.ring_port().header_len())
    }

    fn set_header_len(&self, len: HeaderLen) -> io::Result<()> {
        self.ring_port().set_header_len(len);
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.bindings.listener().waker().as_fd()
    }

    fn listen(&self) -> io::Result<bool> {
        let listener = self.bindings.listener();
        listener.waker().drain();
        listener.arm();
        self.rxsync()?;
        let mut rings = self.bindings.krings(Direction::Rx).iter();
        Ok(rings.any(|(_, kring)| kring.view().available() > 0))
    }
}

#[cfg(test)]
mod tests;
