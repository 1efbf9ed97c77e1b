//! What a client may ask for, and why it may be refused.

use std::io;

use crate::netmap::abi;
use crate::netmap::abi::nmreq::{self, RegisterBody};
use crate::netmap::mem::MemError;
use crate::netmap::name::NameError;
use crate::netmap::ring_port::{BindError, Shape};
use crate::netmap::vale::PortError;

/// Which rings to bind (`nr_mode` with `nr_ringid`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RingMode {
    /// All but the host's.
    #[default]
    All,
    /// The host's.
    Host,
    /// All, and the host's.
    AllAndHost,
    /// One pair.
    One(u16),
    /// One pair of the host's.
    OneHost(u16),
    /// Memory without a port.
    Null,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `nr_name`.
    pub name: String,
    /// Which rings.
    pub mode: RingMode,
    /// `NR_` flags.
    pub flags: u64,
    /// Transmit rings of a port that is not there yet; 0: one.
    pub tx_rings: u16,
    /// Receive rings likewise.
    pub rx_rings: u16,
    /// Slots of a transmit ring likewise; 0: 1024.
    pub tx_slots: u32,
    /// Slots of a receive ring likewise.
    pub rx_slots: u32,
    /// The region; 0: one of its own for a new port.
    pub mem_id: u16,
    /// Buffers that belong to no ring.
    pub extra_bufs: u32,
}

impl Request {
    /// All rings of a port with all defaults.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            mode: RingMode::default(),
            flags: 0,
            tx_rings: 0,
            rx_rings: 0,
            tx_slots: 0,
            rx_slots: 0,
            mem_id: 0,
            extra_bufs: 0,
        }
    }

    /// From the body of a control request.
    ///
    /// # Errors
    /// When `nr_mode` is none that is served.
    pub fn from_body(name: &str, body: &RegisterBody) -> Result<Self, RegisterError> {
        let mode = match body.nr_mode {
            nmreq::NR_REG_ALL_NIC => RingMode::All,
            nmreq::NR_REG_SW => RingMode::Host,
            nmreq::NR_REG_NIC_SW => RingMode::AllAndHost,
            nmreq::NR_REG_ONE_NIC => RingMode::One(body.nr_ringid),
            nmreq::NR_REG_ONE_SW => RingMode::OneHost(body.nr_ringid),
            nmreq::NR_REG_NULL => RingMode::Null,
            mode => {
                return Err(RegisterError::Mode {
                    name: name.to_owned(),
                    mode,
                });
            }
        };
        Ok(Self {
            name: name.to_owned(),
            mode,
            flags: body.nr_flags,
            tx_rings: body.nr_tx_rings,
            rx_rings: body.nr_rx_rings,
            tx_slots: body.nr_tx_slots,
            rx_slots: body.nr_rx_slots,
            mem_id: body.nr_mem_id,
            extra_bufs: body.nr_extra_bufs,
        })
    }

    /// Extra buffers, within the kernel's bound.
    pub(super) fn extra_bufs(&self) -> u32 {
        self.extra_bufs.min(128 * abi::NM_BDG_MAXSLOTS)
    }

    /// The shape of a new port: what is asked for, within the kernel's bounds.
    pub(super) fn shape(&self) -> Shape {
        let rings = |want: u16| want.clamp(1, abi::NM_BDG_MAXRINGS);
        let slots = |want: u32| match want {
            0 => abi::NM_BRIDGE_RINGSIZE,
            _ => want.min(abi::NM_BDG_MAXSLOTS),
        };
        Shape {
            tx_rings: rings(self.tx_rings),
            rx_rings: rings(self.rx_rings),
            tx_slots: slots(self.tx_slots),
            rx_slots: slots(self.rx_slots),
        }
    }
}

/// Why a registration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A name that no port can have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An `nr_mode` that does not exist, or is given up.
    #[error(
        "{name}: nr_mode {mode} binds no rings; take NR_REG_ALL_NIC, or for a pipe a name with \
         {{ or }}"
    )]
    Mode {
        /// The port.
        name: String,
        /// What was asked for.
        mode: u32,
    },
    /// Something that this core does not have.
    #[error("{name}: {what} are not served by this core")]
    NotServed {
        /// The port.
        name: String,
        /// What.
        what: &'static str,
    },
    /// Ports of a switch have no host rings.
    #[error("{0}: a switch port has no host rings; leave ^ and * away")]
    NoHostRings(String),
    /// The port has fewer rings.
    #[error("{name}: there is no ring {ring}: the port has {tx} transmit and {rx} receive rings")]
    NoSuchRing {
        /// The port.
        name: String,
        /// What was asked for.
        ring: u16,
        /// Its transmit rings.
        tx: u16,
        /// Its receive rings.
        rx: u16,
    },
    /// The port is there, in another region.
    #[error("{name}: the port is in memory region {has}, not {want}; leave the region away")]
    OtherRegion {
        /// The port.
        name: String,
        /// Where it is.
        has: u16,
        /// What was asked for.
        want: u16,
    },
    /// The port's frames begin with a virtio-net header, which the client did
    /// not say it knows.
    #[error(
        "{0}: frames of this port begin with a virtio-net header; register with NR_ACCEPT_VNET_HDR"
    )]
    VnetHeader(String),
    /// A ring cannot be bound.
    #[error("{name}: {error}")]
    Bind {
        /// The port.
        name: String,
        /// Why not.
        error: BindError,
    },
    /// The switch refuses the port.
    #[error(transparent)]
    Switch(#[from] PortError),
    /// No memory.
    #[error("{name}: {error}")]
    Memory {
        /// The port.
        name: String,
        /// Why not.
        error: MemError,
    },
    /// No descriptors to wake the client by.
    #[error("{name}: cannot make a wake-up descriptor: {error}")]
    Waker {
        /// The port.
        name: String,
        /// Why not.
        error: io::ErrorKind,
    },
}
