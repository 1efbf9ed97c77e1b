//! Why a request about a port was refused: for people, and as the kernel's
//! errno.

use std::io;

use nix::errno::Errno;

use super::OffsetError;
use crate::netmap::authority::{LimitError, Rights};
use crate::netmap::device::{DeviceError, PollingError};
use crate::netmap::mem::MemError;
use crate::netmap::name::NameError;
use crate::netmap::rings::BindError;
use crate::netmap::vale::PortError;

/// Why a request about a port was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A name that no port can have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name that no port of a switch can have.
    #[error("{error}")]
    SwitchName {
        /// The rule it breaks.
        error: NameError,
        /// The port was to be made.
        make: bool,
    },
    /// There is no such port, and it cannot be made.
    #[error(
        "{0}: there is no such port; name vale0:PORT, a persistent port made before, or an \
         interface of the host that vtnetd has as interface= in -N"
    )]
    NoPort(String),
    /// There is no such pipe.
    #[error("{0}: there is no such pipe; bind one end first")]
    NoPipe(String),
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
    /// An `nr_mode` that a pipe does not have.
    #[error("{0}: a pipe has no host rings; take NR_REG_ALL_NIC or NR_REG_ONE_NIC")]
    PipeMode(String),
    /// 64 already.
    #[error("{0}: the port has 64 pipes already; take another port")]
    TooManyPipes(String),
    /// A null port's region must be there already.
    #[error("{0}: a null port is memory that exists; name a region in nr_mem_id")]
    NullRegion(String),
    /// A null port that is too large.
    #[error("{0}: a null port has at most 256 rings each way, of 4096 slots; ask for fewer")]
    NullShape(String),
    /// A null port is its maker's alone.
    #[error("{0}: a null port cannot be looked up")]
    NullPort(String),
    /// A monitor of a port that nobody has bound.
    #[error("{0}: nobody has bound the port; there is nothing to monitor")]
    NotActive(String),
    /// A zero-copy monitor of a guest, or of a port that joins two switches.
    #[error("{0}: the frames there are in nobody's rings; take a copy monitor")]
    GuestMemory(String),
    /// `valeX:IF` for an interface that is not attached.
    #[error("{0}: the interface is not attached to the switch; attach it first")]
    NotAttached(String),
    /// The port has no host rings.
    #[error("{0}: the port has no host rings; leave ^ and * away")]
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
    /// The port has fewer host rings.
    #[error("{name}: there is no host ring {ring}: the port has {tx} to the host and {rx} from it")]
    NoSuchHostRing {
        /// The port.
        name: String,
        /// What was asked for.
        ring: u16,
        /// Its rings to the host.
        tx: u16,
        /// Its rings from the host.
        rx: u16,
    },
    /// An interface of the host that cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// `VALE_ATTACH` with a ring, or a mode that leaves the NIC out.
    #[error(
        "{0}: an interface is attached with all its rings; take NR_REG_ALL_NIC, or \
         NR_REG_NIC_SW for the host's as well"
    )]
    AttachMode(String),
    /// A virtio-net header before the frames of an interface.
    #[error("{0}: frames of an interface have no virtio-net header; set it on the other ports")]
    DeviceHeader(String),
    /// Polling of what cannot be polled, or not so.
    #[error("{name}: {error}")]
    Polling {
        /// The port.
        name: String,
        /// Why not.
        error: PollingError,
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
    /// Offsets were refused.
    #[error("{name}: {error}")]
    Offsets {
        /// The port.
        name: String,
        /// Why.
        error: OffsetError,
    },
    /// A right that the client does not have.
    #[error("{name}: the client may not {right} there; add allow= to vtnetd -N")]
    Forbidden {
        /// The port.
        name: String,
        /// What it may not.
        right: Rights,
    },
    /// A port whose memory is not the client's.
    #[error("{0}: the port is another user's; allow the right share, or use a port of one's own")]
    NotOwn(String),
    /// The user has as many ports as it may have.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The port has users.
    #[error("{0}: the port is in use; close what uses it first")]
    InUse(String),
    /// The port joins two switches.
    #[error("{name}: the port joins two switches; detach {second} first")]
    Joins {
        /// The port.
        name: String,
        /// Its name on the second of them.
        second: String,
    },
    /// The port would join switches that are joined.
    #[error(
        "{name}: frames come there from {first} already, and would go round; detach the port that \
         joins the two first"
    )]
    Loop {
        /// The port.
        name: String,
        /// The switch that it is on.
        first: String,
    },
    /// The port would join too many switches.
    #[error("{0}: more than 16 switches would be joined; take one switch for several of them")]
    Chain(String),
    /// A persistent port of that name is there.
    #[error("{0}: there is such a port already; choose another name")]
    Exists(String),
    /// It is not a port that can be deleted, attached or detached.
    #[error("{name}: {why}")]
    NotPersistent {
        /// The port.
        name: String,
        /// What it is.
        why: &'static str,
    },
}

impl RegisterError {
    /// What the kernel says in its place.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Name(_)
            | Self::Mode { .. }
            | Self::PipeMode(_)
            | Self::TooManyPipes(_)
            | Self::NullRegion(_)
            | Self::NullPort(_)
            | Self::NotActive(_)
            | Self::NotAttached(_)
            | Self::NoHostRings(_)
            | Self::NoSuchRing { .. }
            | Self::NoSuchHostRing { .. }
            | Self::AttachMode(_)
            | Self::NotPersistent { .. }
            | Self::Switch(PortError::Name(_)) => Errno::EINVAL,
            Self::SwitchName { make: false, .. } | Self::NoPort(_) => Errno::ENXIO,
            Self::NoPipe(_) => Errno::ENODEV,
            Self::GuestMemory(_) | Self::DeviceHeader(_) => Errno::EOPNOTSUPP,
            Self::Forbidden { .. } | Self::NotOwn(_) => Errno::EACCES,
            Self::VnetHeader(_) => Errno::EIO,
            Self::Loop { .. } => Errno::ELOOP,
            Self::Chain(_) => Errno::EMLINK,
            Self::InUse(_)
            | Self::Joins { .. }
            | Self::Bind {
                error: BindError::Busy { .. },
                ..
            }
            | Self::Switch(PortError::InUse(_) | PortError::DuplicateMac(..)) => Errno::EBUSY,
            Self::Exists(_) => Errno::EEXIST,
            Self::Device(error)
            | Self::Bind {
                error: BindError::Device(error),
                ..
            } => error.errno(),
            Self::Polling { error, .. } => error.errno(),
            Self::Offsets { error, .. } => error.errno(),
            Self::Memory { error, .. }
            | Self::Bind {
                error: BindError::Memory(error),
                ..
            } => match error {
                MemError::Size { .. }
                | MemError::Num { .. }
                | MemError::Cluster { .. }
                | MemError::NotSealed
                | MemError::Alignment { .. }
                | MemError::NoSuchRegion(_) => Errno::EINVAL,
                MemError::Beyond { .. } => Errno::EFAULT,
                MemError::Exhausted { .. }
                | MemError::TooSmall { .. }
                | MemError::NoRoom { .. }
                | MemError::System { .. }
                | MemError::Limit(_)
                | MemError::NoId => Errno::ENOMEM,
            },
            // There is nowhere left to put the port.
            Self::SwitchName { make: true, .. }
            | Self::NullShape(_)
            | Self::Switch(PortError::Full(_))
            | Self::Limit(_)
            | Self::Waker { .. } => Errno::ENOMEM,
        }
    }
}
