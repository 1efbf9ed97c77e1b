//! Registration: a client names a port, gets rings and memory, and gives them
//! back when it goes.
//!
//! A port of a switch comes into being with the first registration that names
//! it and goes with the last; a persistent port stays until it is deleted.
//! Each ring is made when somebody binds it, so a port with sixteen rings of
//! which one is used has one.

mod bindings;
mod devices;
mod error;
mod find;
mod joins;
mod loans;
mod manage;
mod monitors;
mod offsets;
mod owner;
mod poll;
mod port_string;
mod request;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

pub use error::RegisterError;
pub use manage::{PortFacts, SwitchPort};
pub use offsets::OffsetError;
pub(in crate::netmap) use owner::switch_of;
pub use port_string::parse_port_string;
pub use request::{Request, RingMode};

use super::abi::nmreq::{self, RegisterBody};
use super::adapter::{Adapter, Bound};
use super::device::{DevicePort, Devices};
use super::kring::{Kring, Listener};
use super::mem::{InterfaceMemory, Region, RegionConfig, Regions, RingView};
use super::poll::Polled;
use super::port::{Direction, HeaderLen, Port};
use super::sync::{Hardware, Pointers};
use super::vale::Switches;
use bindings::Bindings;
use find::Search;

/// Pipes that a port's own region has room for.
const PIPES: u32 = 2;

/// The ports there are.
#[derive(Default)]
struct State {
    /// By their own names: `vale0:a`, or a persistent port's `per0`.
    ports: HashMap<String, Arc<Adapter>>,
    /// Persistent ports and interfaces that are on a switch, by their names
    /// there.
    attached: HashMap<String, Arc<Adapter>>,
}

/// The core: what ports and regions there are.
pub struct Netmap {
    switches: Arc<Switches>,
    regions: Regions,
    devices: Option<Arc<Devices>>,
    state: Mutex<State>,
}

impl Netmap {
    /// A core whose ports are on `switches`, with a global region as `global`
    /// says, which is made when somebody asks for it.
    pub fn new(switches: Arc<Switches>, global: RegionConfig) -> Self {
        Self {
            switches,
            regions: Regions::new(global),
            devices: None,
            state: Mutex::default(),
        }
    }

    /// The same with ports of the host's interfaces.
    pub fn with_devices(self, devices: Arc<Devices>) -> Self {
        Self {
            devices: Some(devices),
            ..self
        }
    }

    /// The memory regions.
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    /// Everything that makes, finds or removes a port holds this.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a client with a port, which is made if it is not there yet.
    ///
    /// # Errors
    /// Nothing is left behind.
    pub fn register(self: &Arc<Self>, request: &Request) -> Result<Registration, RegisterError> {
        self.register_in(request, None)
    }

    /// The same; a port that is made has its rings in `region`, if one is
    /// given, whatever the request says.
    ///
    /// # Errors
    /// Nothing is left behind.
    pub fn register_in(
        self: &Arc<Self>,
        request: &Request,
        region: Option<&Arc<Region>>,
    ) -> Result<Registration, RegisterError> {
        let mut state = self.state();
        let search = Search { make: true, region };
        let adapter = self.find(&mut state, request, search)?;
        if adapter.device().is_some_and(DevicePort::is_on_switch) {
            self.put(&mut state, &adapter);
            return Err(RegisterError::InUse(request.name.clone()));
        }
        if let Err(error) = Self::check_no_join(&request.name, &adapter) {
            self.put(&mut state, &adapter);
            return Err(error);
        }
        match bind(request, &adapter) {
            Ok(Parts {
                interface,
                bindings,
                max_offset,
            }) => {
                bindings.keep();
                adapter.enter();
                Ok(Registration {
                    interface,
                    bindings,
                    max_offset,
                    hold: Hold {
                        core: Arc::clone(self),
                        adapter,
                    },
                    flags: request.flags | request.monitors(),
                })
            }
            Err(error) => {
                adapter.forget_refused();
                self.put(&mut state, &adapter);
                Err(error)
            }
        }
    }
}

/// What a registration has of its port.
struct Parts {
    interface: InterfaceMemory,
    bindings: Bindings,
    max_offset: Option<u64>,
}

fn bind(request: &Request, adapter: &Arc<Adapter>) -> Result<Parts, RegisterError> {
    let accepts = request.flags & nmreq::NR_ACCEPT_VNET_HDR != 0;
    if adapter.header_len() != HeaderLen::None && !accepts {
        return Err(RegisterError::VnetHeader(request.name.clone()));
    }
    let bindings = Bindings::new(request, adapter)?;
    let offsets = request.offsets.as_ref();
    let max_offset = offsets.map(|offsets| bindings.set_offsets(offsets));
    let max_offset = max_offset
        .transpose()
        .map_err(|error| RegisterError::Offsets {
            name: request.name.clone(),
            error,
        })?;
    Ok(Parts {
        interface: bindings.interface(request)?,
        bindings,
        max_offset,
    })
}

/// A registration's hold on its port.
struct Hold {
    core: Arc<Netmap>,
    adapter: Arc<Adapter>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.core.state();
        self.adapter.leave();
        self.core.put(&mut state, &self.adapter);
    }
}

/// A client's hold on a port. Dropping it gives everything back.
pub struct Registration {
    interface: InterfaceMemory,
    // Rings go before the port does.
    bindings: Bindings,
    hold: Hold,
    flags: u64,
    max_offset: Option<u64>,
}

impl Registration {
    /// The port that is behind.
    pub fn adapter(&self) -> &Arc<Adapter> {
        &self.hold.adapter
    }

    /// The memory that a client maps.
    pub fn region(&self) -> &Arc<Region> {
        self.hold.adapter.region()
    }

    /// `nr_flags`; a zero-copy monitor has both directions in them.
    pub fn flags(&self) -> u64 {
        self.flags
    }

    /// The largest offset that slots may have, if they have offsets.
    pub fn max_offset(&self) -> Option<u64> {
        self.max_offset
    }

    /// The bound kring `index`, from 0.
    #[inline]
    pub fn kring(&self, direction: Direction, index: usize) -> Option<&Arc<Kring>> {
        self.bound(direction).get(index).map(|bound| &bound.kring)
    }

    /// The bound rings of one direction.
    #[inline]
    fn bound(&self, direction: Direction) -> &[Bound] {
        self.bindings.bound(direction)
    }

    /// `request` as it was answered: what is in use, in place of what was asked
    /// for.
    pub fn answer(&self, request: &RegisterBody) -> RegisterBody {
        let shape = self.adapter().shape();
        let host = self.adapter().rings().host();
        RegisterBody {
            nr_offset: self.interface.offset(),
            nr_memsize: self.region().bytes(),
            nr_tx_slots: shape.tx_slots,
            nr_rx_slots: shape.rx_slots,
            nr_tx_rings: shape.tx_rings,
            nr_rx_rings: shape.rx_rings,
            nr_host_tx_rings: host.tx,
            nr_host_rx_rings: host.rx,
            nr_mem_id: self.region().id(),
            nr_extra_bufs: self.interface.extra_bufs(),
            nr_flags: self.flags,
            ..*request
        }
    }

    /// Who is woken when frames or room come.
    pub(in crate::netmap) fn listener(&self) -> &Listener {
        self.bindings.listener()
    }

    /// Syncs the bound ring `index`, whose application is at `pointers`; says
    /// how far it is then.
    ///
    /// # Errors
    /// `EINVAL`: there is no such ring, or the pointers are wrong, and it begins
    /// anew; `EIO`: it has nothing to sync.
    #[inline]
    pub(super) fn sync_ring(
        &self,
        direction: Direction,
        index: usize,
        pointers: Pointers,
    ) -> Result<Hardware, Errno> {
        let bound = self.bound(direction).get(index).ok_or(Errno::EINVAL)?;
        self.adapter().sync_at(direction, bound, pointers)
    }

    /// Syncs every bound ring of one direction, whatever comes of the others:
    /// what ioctl(2) does.
    pub(super) fn sync_each(&self, direction: Direction) {
        for bound in self.bound(direction) {
            // A monitor's transmit ring, or one whose port is gone, has
            // nothing to sync.
            let _ = self.adapter().sync(direction, bound);
        }
    }

    /// Syncs every bound ring of one direction.
    fn sync(&self, direction: Direction) -> io::Result<()> {
        for bound in self.bound(direction) {
            self.adapter().sync(direction, bound)?;
        }
        Ok(())
    }
}

impl Port for Registration {
    fn name(&self) -> &str {
        self.adapter().name()
    }

    fn ring_count(&self, direction: Direction) -> usize {
        self.bound(direction).len()
    }

    fn ring(&self, direction: Direction, index: usize) -> Option<RingView<'_>> {
        self.kring(direction, index).map(|kring| kring.view())
    }

    fn txsync(&self) -> io::Result<()> {
        self.sync(Direction::Tx)
    }

    fn rxsync(&self) -> io::Result<()> {
        self.sync(Direction::Rx)
    }

    fn header_len(&self) -> io::Result<HeaderLen> {
        Ok(self.adapter().header_len())
    }

    fn set_header_len(&self, len: HeaderLen) -> io::Result<()> {
        let vale = self.adapter().vale();
        let vale = vale.ok_or(io::ErrorKind::Unsupported)?;
        vale.ring_port.set_header_len(len);
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.bindings.listener().waker().as_fd()
    }

    fn listen(&self) -> io::Result<bool> {
        let listener = self.bindings.listener();
        listener.waker().drain();
        self.wait_for(Direction::Rx);
        self.rxsync()?;
        let mut rings = self.bound(Direction::Rx).iter();
        Ok(rings.any(|bound| bound.kring.view().available() > 0))
    }
}

#[cfg(test)]
mod tests;
