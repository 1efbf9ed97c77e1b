//! What a client may ask for.

use crate::netmap::abi;
use crate::netmap::abi::nmreq::{self, RegisterBody};
use crate::netmap::abi::option::Offsets;
use crate::netmap::authority::Authority;
use crate::netmap::rings::{HostRings, Shape};

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
    /// An `nr_mode` that binds nothing.
    Other(u32),
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `nr_name`.
    pub name: String,
    /// Which rings.
    pub mode: RingMode,
    /// `nr_ringid`, which only some modes heed.
    pub ring: u16,
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
    /// Transmit rings to the host, of an interface that nobody has bound; 0:
    /// one.
    pub host_tx_rings: u16,
    /// Receive rings from the host likewise.
    pub host_rx_rings: u16,
    /// The region; 0: one of its own for a new port.
    pub mem_id: u16,
    /// Buffers that belong to no ring.
    pub extra_bufs: u32,
    /// Slots say where in the buffer their data begins.
    pub offsets: Option<Offsets>,
    /// Who asks.
    pub authority: Authority,
}

impl Request {
    /// All rings of a port with all defaults.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            mode: RingMode::default(),
            ring: 0,
            flags: 0,
            tx_rings: 0,
            rx_rings: 0,
            tx_slots: 0,
            rx_slots: 0,
            host_tx_rings: 0,
            host_rx_rings: 0,
            mem_id: 0,
            extra_bufs: 0,
            offsets: None,
            authority: Authority::default(),
        }
    }

    /// From the body of a control request.
    pub fn from_body(name: &str, body: &RegisterBody) -> Self {
        let mode = match body.nr_mode {
            nmreq::NR_REG_ALL_NIC => RingMode::All,
            nmreq::NR_REG_SW => RingMode::Host,
            nmreq::NR_REG_NIC_SW => RingMode::AllAndHost,
            nmreq::NR_REG_ONE_NIC => RingMode::One(body.nr_ringid),
            nmreq::NR_REG_ONE_SW => RingMode::OneHost(body.nr_ringid),
            nmreq::NR_REG_NULL => RingMode::Null,
            mode => RingMode::Other(mode),
        };
        Self {
            name: name.to_owned(),
            mode,
            ring: body.nr_ringid,
            flags: body.nr_flags,
            tx_rings: body.nr_tx_rings,
            rx_rings: body.nr_rx_rings,
            tx_slots: body.nr_tx_slots,
            rx_slots: body.nr_rx_slots,
            host_tx_rings: body.nr_host_tx_rings,
            host_rx_rings: body.nr_host_rx_rings,
            mem_id: body.nr_mem_id,
            extra_bufs: body.nr_extra_bufs,
            offsets: None,
            authority: Authority::default(),
        }
    }

    /// The monitor flags; a zero-copy monitor sees both directions.
    pub(super) fn monitors(&self) -> u64 {
        let both = nmreq::NR_MONITOR_TX | nmreq::NR_MONITOR_RX;
        if self.flags & nmreq::NR_ZCOPY_MON != 0 {
            both | nmreq::NR_ZCOPY_MON
        } else {
            self.flags & both
        }
    }

    /// Extra buffers, within the kernel's bound.
    pub(super) fn extra_bufs(&self) -> u32 {
        self.extra_bufs.min(128 * abi::NM_BDG_MAXSLOTS)
    }

    /// The shape of a new port of a switch: what is asked for, within the
    /// kernel's bounds.
    pub(super) fn shape(&self) -> Shape {
        let default = Shape {
            tx_rings: 1,
            rx_rings: 1,
            tx_slots: abi::NM_BRIDGE_RINGSIZE,
            rx_slots: abi::NM_BRIDGE_RINGSIZE,
        };
        self.bounded(default, abi::NM_BDG_MAXRINGS, abi::NM_BDG_MAXSLOTS)
    }

    /// The shape of a new pipe below a port of shape `parent`, as its master
    /// has it.
    pub(super) fn pipe_shape(&self, parent: Shape) -> Shape {
        let default = Shape {
            tx_rings: 1,
            rx_rings: 1,
            ..parent
        };
        self.bounded(default, abi::NM_PIPE_MAXRINGS, abi::NM_PIPE_MAXSLOTS)
    }

    /// The shape of a monitor of a port of shape `parent`: a receive ring for
    /// each pair.
    pub(super) fn monitor_shape(&self, parent: Shape) -> Shape {
        let slots = self.bounded(parent, u16::MAX, abi::NM_MONITOR_MAXSLOTS);
        Shape {
            tx_rings: 1,
            rx_rings: parent.rx_rings.max(parent.tx_rings),
            ..slots
        }
    }

    /// The host rings of an interface that nobody has bound.
    pub(super) fn host_rings(&self) -> HostRings {
        HostRings {
            tx: self.host_tx_rings.max(1),
            rx: self.host_rx_rings.max(1),
        }
    }

    /// What is asked for; the default for what is not, or where that is out
    /// of bounds the nearest.
    fn bounded(&self, default: Shape, most_rings: u16, most_slots: u32) -> Shape {
        let rings = |want: u16, default: u16| match want {
            0 => default.clamp(1, most_rings),
            _ => want.min(most_rings),
        };
        let slots = |want: u32, default: u32| match want {
            0 => default.clamp(1, most_slots),
            _ => want.min(most_slots),
        };
        Shape {
            tx_rings: rings(self.tx_rings, default.tx_rings),
            rx_rings: rings(self.rx_rings, default.rx_rings),
            tx_slots: slots(self.tx_slots, default.tx_slots),
            rx_slots: slots(self.rx_slots, default.rx_slots),
        }
    }

    /// The shape of a null port: exactly what is asked for.
    pub(super) fn null_shape(&self) -> Shape {
        Shape {
            tx_rings: self.tx_rings,
            rx_rings: self.rx_rings,
            tx_slots: self.tx_slots,
            rx_slots: self.rx_slots,
        }
    }
}
