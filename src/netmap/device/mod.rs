//! Device ports: interfaces of the host as netmap ports.
//!
//! A port has one pair of rings on the wire, and rings of the host behind them
//! (`ni_host_tx_rings`, `ni_host_rx_rings`), as an interface has whose driver
//! knows nothing of netmap (netmap_generic.c). While a ring of the wire is
//! bound, what comes in there goes to it and no longer to the host's stack, and
//! what the host sends goes to a host ring, or nowhere; the interface keeps its
//! addresses and routes meanwhile. With the last ring it is the host's again,
//! whatever ends the client or this process.
//!
//! | module | job |
//! | --- | --- |
//! | `source` | who opens interfaces, and what an open one is |
//! | `linux` | packet sockets, taps, and what turns frames from one to the other |
//! | `elsewhere` | why there is nothing of it |
//! | `port` | rings on an open interface |
//! | `attached` | an interface on a switch (netmap's *bwrap*) |
//! | `interrupts` | the thread that waits for all of them |
//! | `polling` | the threads that look without waiting |

mod attached;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod end;
mod interrupts;
#[cfg(target_os = "linux")]
mod linux;
mod polling;
mod port;
mod source;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

#[cfg(not(target_os = "linux"))]
use elsewhere as sys;
#[cfg(target_os = "linux")]
use linux as sys;

pub use attached::{AttachError, Detached};
pub(in crate::netmap) use end::part_with;
use interrupts::Interrupts;
use polling::Pollers;
pub use polling::{PollingError, PollingRequest};
pub use port::DevicePort;
pub use source::{
    Arrived, Device, DeviceError, Facts, Gate, Handles, Interfaces, Line, Put, Taken,
};
pub use sys::{assemble, look, open};

/// The interfaces of the host that ports can be made of.
pub struct Devices {
    source: Arc<dyn Interfaces>,
    interrupts: Interrupts,
    pollers: Pollers,
}

impl std::fmt::Debug for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Devices").finish_non_exhaustive()
    }
}

impl Devices {
    /// Those that `source` opens. Starts the threads that they need, so that
    /// the sandbox can be sealed.
    ///
    /// # Errors
    /// The system gives no descriptors or threads.
    pub fn new(source: Arc<dyn Interfaces>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            source,
            interrupts: Interrupts::start()?,
            pollers: Pollers::start()?,
        }))
    }

    /// What is known of an interface; `None`: there is none that may be used.
    ///
    /// # Errors
    /// The system says nothing about it.
    pub fn look(&self, name: &str) -> Result<Option<Facts>, DeviceError> {
        self.source.look(name)
    }
}

/// Interfaces that this process opens itself: for programs that are not
/// sandboxed.
#[derive(Clone, Debug)]
pub struct Here {
    names: Vec<String>,
}

impl Here {
    /// Those named, and no others.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Arc<Self> {
        let names = names.into_iter().map(Into::into).collect();
        Arc::new(Self { names })
    }
}

impl Interfaces for Here {
    fn look(&self, name: &str) -> Result<Option<Facts>, DeviceError> {
        if !self.names.iter().any(|one| one == name) {
            return Ok(None);
        }
        look(name)
    }

    fn open(&self, name: &str, promiscuous: bool) -> Result<Device, DeviceError> {
        assemble(name, open(name, promiscuous)?)
    }
}
