//! What a device is connected to.
//!
//! A back end is found by the prefix of its name, as in bhyve(8): `tap0` is a
//! tap, `vale0:vm1` a port of a switch. Frames go to it in batches; it gives
//! frames either when it is asked ([`Backend::receive`], after its descriptor
//! became readable) or by itself, through the [`Attachment`] that the device
//! hands it.

pub mod host;
pub mod netgraph;
pub mod netmap;
mod none;
mod tap;
mod vale;

use std::io;
use std::ops::AddAssign;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::net::ethernet::Mac;
use crate::net::frame::Batch;
use crate::netmap::attachment::Attachment;
use crate::netmap::name::switch_port;
use crate::netmap::register::RegisterError;
use crate::netmap::vale::{PortError, Switches};
use crate::virtio::memory::Writable;
use crate::virtio::net_header::NetHeader;
use host::{Host, HostSide, InProcess, Operation};
use netgraph::Link;

pub use none::Unconnected;
pub use tap::{Tap, TapHost};
pub use vale::Vale;

/// Most queue pairs of a device.
pub const MAX_PAIRS: u16 = 8;

/// What became of a batch, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames that were taken.
    pub frames: u32,
    /// Their bytes, Ethernet headers included.
    pub bytes: u64,
    /// Frames that were not.
    pub dropped: u32,
}

impl AddAssign for Sent {
    fn add_assign(&mut self, more: Self) {
        self.frames += more.frames;
        self.bytes += more.bytes;
        self.dropped += more.dropped;
    }
}

/// Why [`Backend::receive`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing is waiting; the descriptor will become readable again.
    Drained,
    /// The guest has no buffers (or too few for the next frame).
    NoRoom,
    /// The turn's budget is used up; more may be waiting.
    Budget,
}

/// Why a pulled frame is thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It is longer than the guest's buffers.
    TooLong,
    /// It needs an offload that the guest does not take.
    Offload,
    /// It is shorter than an Ethernet header.
    TooShort,
    /// What says where it lies makes no sense.
    Malformed,
}

/// Where a pulled frame goes: straight into the guest's buffers.
pub trait Room {
    /// Room for the next frame of up to `len` bytes (without the virtio-net
    /// header), as much as the guest has, maybe less than `len`, maybe more. To
    /// be followed by `finish`, or by `room` again when there was no frame.
    ///
    /// # Errors
    /// What [`Backend::receive`] is to return now: [`Received::NoRoom`] when
    /// there is no buffer at all, [`Received::Budget`] when this turn has had
    /// enough.
    fn room(&mut self, len: usize) -> Result<&[Writable<'_>], Received>;

    /// The room holds a frame of `len` bytes now, which is checked here
    /// against the room. `header` is what the guest is told of it: made of
    /// checked fields, nothing that the guest has not negotiated.
    fn finish(&mut self, header: &NetHeader, len: usize);

    /// The last room was too small for a frame of `len` bytes. Whether it is
    /// worth keeping, to be offered again after [`Received::NoRoom`]: the guest
    /// can be expected to post more buffers, and they can hold it.
    fn may_grow(&self, len: usize) -> bool;

    /// A frame had to be thrown away; to be counted.
    fn drop(&mut self, why: Dropped);
}

/// A way to the host's network, shared by the control thread and the workers.
pub trait Backend: Send + Sync {
    /// The virtio-net offload bits that can be offered.
    fn features(&self) -> u64;

    /// What the guest has negotiated, and the length of its virtio-net header.
    ///
    /// # Errors
    /// When the host refuses to switch its side.
    fn set_features(&self, features: u64, header_len: usize) -> io::Result<()>;

    /// Most queue pairs that this back end serves at once.
    fn max_pairs(&self) -> u16;

    /// How many pairs receive now, from the first on.
    fn set_active_pairs(&self, _pairs: u16) {}

    /// Sends the frames of `batch`, in order, on queue pair `pair`: they are on
    /// their way after [`flush`](Self::flush) at the latest.
    fn send(&self, pair: usize, batch: &Batch<'_>) -> Sent;

    /// Most batches between two calls of [`flush`](Self::flush): several, where
    /// the host takes them for the price of one.
    fn batches(&self) -> usize {
        1
    }

    /// What `pair` has sent since the last time goes on its way. `false`: it is
    /// lost, for the host side turns out to be gone.
    #[must_use = "what is lost is to be counted"]
    fn flush(&self, _pair: usize) -> bool {
        true
    }

    /// The descriptor that becomes readable when frames wait for `pair`. A
    /// back end without one pushes, or never receives.
    fn rx_fd(&self, _pair: usize) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Receives frames for `pair` until none is left or `rx` has no room.
    fn receive(&self, _pair: usize, _rx: &mut dyn Room) -> Received {
        Received::Drained
    }

    /// Gives a pushing back end its way to the guest, whose address is `mac`.
    ///
    /// # Errors
    /// When that address is already on the same switch.
    fn attach(&self, _mac: Mac, _receiver: Arc<dyn Attachment>) -> Result<(), AttachError> {
        Ok(())
    }

    /// Undoes [`attach`](Self::attach).
    fn detach(&self) {}

    /// The host side may go away and come back. Only then are
    /// [`is_lost`](Self::is_lost) and [`recover`](Self::recover) called, once a
    /// second, by the control thread; it logs each change in one line.
    fn can_be_lost(&self) -> bool {
        false
    }

    /// The host side is gone. Frames are dropped meanwhile, nothing fails, and
    /// the guest is told that its link is down.
    fn is_lost(&self) -> bool {
        false
    }

    /// Tries to have the host side back; when it succeeds, `is_lost` is false
    /// and what the guest negotiated is in force again. The numbers of the
    /// descriptors ([`rx_fd`](Self::rx_fd)) stay, and are watched anew.
    ///
    /// # Errors
    /// When it is not back ([`OpenError::Absent`]), or cannot be had although
    /// it is.
    fn recover(&self) -> Result<(), OpenError> {
        Ok(())
    }
}

/// A device cannot be attached to its switch.
pub type AttachError = PortError;

/// The prefixes of the back ends, in the order in which they are tried.
pub const PREFIXES: &[&str] = &["none", "tap", "vmnet", "vale", "netmap", "netgraph"];

/// Why a back end cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No back end has such a prefix.
    #[error(
        "{0}: no such back end; there are none, tapN, vmnetN, valeX:PORT, netmap:IF and netgraph"
    )]
    Unknown(String),
    /// Only FreeBSD has it.
    #[error("{0}: only FreeBSD has it; take a tap, or a switch, as in vale0:vm1")]
    FreeBsdOnly(String),
    /// Only FreeBSD has a switch in its kernel.
    #[error("{0}: type=kernel: only FreeBSD has it; leave type= out")]
    KernelSwitch(String),
    /// The back end has no such operation.
    #[error("{0:?}: this kind of back end cannot do that; report it as a defect of vtnetd")]
    Operation(Operation),
    /// The opener says no, in these words.
    #[error("{message}")]
    Opener {
        /// What a process ends with that cannot do without (sysexits(3)).
        exit: u8,
        /// What is wrong, and the cure.
        message: String,
    },
    /// There is nothing of that name now, but there may be later. The whole
    /// message.
    #[error("{0}")]
    Absent(String),
    /// What the other half has sent is not what was agreed on.
    #[error("{0}: the opener handed over something else; restart vtnetd")]
    Mismatch(String),
    /// The name of a switch port is wrong.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The name of a netmap port is wrong.
    #[error(transparent)]
    Netmap(#[from] RegisterError),
    /// The system refuses.
    #[error("{name}: {error}; {cure}")]
    System {
        /// What was to be opened.
        name: String,
        /// What the system says.
        error: io::Error,
        /// What helps.
        cure: &'static str,
    },
}

/// Whose switch a `vale` port is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SwitchType {
    /// The kernel's where it has netmap, else our own.
    #[default]
    Any,
    /// The kernel's.
    Kernel,
    /// Our own, of the netmap core in this process.
    Core,
}

/// What to connect a device to, as the configuration says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name, such as `tap0`, `vale0:vm1` or `none`.
    pub name: String,
    /// Queue pairs to open it for.
    pub pairs: u16,
    /// The connection, if it is a netgraph back end.
    pub netgraph: Option<Link>,
    /// Every frame that is sent ends on this host (`offload=local`).
    pub local: bool,
    /// The kind of switch, if it is a `vale` port.
    pub switch: SwitchType,
}

impl Spec {
    /// The back end `name`, which is no netgraph back end.
    pub fn new(name: &str, pairs: u16) -> Self {
        Self {
            name: name.to_owned(),
            pairs,
            netgraph: None,
            local: false,
            switch: SwitchType::Any,
        }
    }
}

/// The privileged half of the back end `spec`, if it has one. Nothing is
/// opened yet.
///
/// # Errors
/// There is no such back end, or not on this system.
pub fn host_side(spec: &Spec) -> Result<Option<Box<dyn HostSide>>, OpenError> {
    let name = &spec.name;
    if let Some(link) = &spec.netgraph {
        netgraph_host(link).map(Some)
    } else if name == "none" {
        Ok(None)
    } else if name.starts_with("vmnet") && cfg!(not(target_os = "freebsd")) {
        Err(OpenError::FreeBsdOnly(name.clone()))
    } else if name.starts_with("tap") || name.starts_with("vmnet") {
        Ok(Some(Box::new(TapHost::new(name, spec.pairs))))
    } else if name.starts_with("netmap:") {
        netmap_host(spec).map(Some)
    } else if name.starts_with("vale") {
        vale_host(spec)
    } else {
        Err(OpenError::Unknown(name.clone()))
    }
}

/// The back end `spec` has a privileged half, or there is none of that name.
pub fn has_host_side(spec: &Spec) -> bool {
    !matches!(host_side(spec), Ok(None))
}

/// Makes the back end `spec`, whose privileged half is `host`. Switches are
/// those of `switches`.
///
/// # Errors
/// When there is no such back end or it cannot be had.
pub fn build(
    spec: &Spec,
    host: Option<Arc<dyn Host>>,
    switches: &Switches,
) -> Result<Arc<dyn Backend>, OpenError> {
    match host {
        Some(host) => connect(spec, host),
        None if spec.name == "none" => Ok(Arc::new(Unconnected)),
        None => {
            let (switch, port) = switch_port(&spec.name).map_err(PortError::from)?;
            Ok(Arc::new(Vale::new(switches.get(switch), port)))
        }
    }
}

/// Opens the back end `spec`, both halves in this process. Switches are those
/// of `switches`.
///
/// # Errors
/// When there is no such back end or it cannot be had.
pub fn open(spec: &Spec, switches: &Switches) -> Result<Arc<dyn Backend>, OpenError> {
    let host = host_side(spec)?.map(|side| InProcess::new(side) as Arc<dyn Host>);
    build(spec, host, switches)
}

#[cfg(target_os = "freebsd")]
fn netgraph_host(link: &Link) -> Result<Box<dyn HostSide>, OpenError> {
    Ok(Box::new(netgraph::NetgraphHost::new(link)))
}

#[cfg(not(target_os = "freebsd"))]
fn netgraph_host(link: &Link) -> Result<Box<dyn HostSide>, OpenError> {
    Err(OpenError::FreeBsdOnly(link.to_string()))
}

#[cfg(target_os = "freebsd")]
fn netmap_host(spec: &Spec) -> Result<Box<dyn HostSide>, OpenError> {
    Ok(Box::new(netmap::NetmapHost::new(&spec.name, spec.pairs)?))
}

#[cfg(not(target_os = "freebsd"))]
fn netmap_host(spec: &Spec) -> Result<Box<dyn HostSide>, OpenError> {
    Err(OpenError::FreeBsdOnly(spec.name.clone()))
}

/// The kernel's switch, or `None`: one in this process.
fn vale_host(spec: &Spec) -> Result<Option<Box<dyn HostSide>>, OpenError> {
    match spec.switch {
        SwitchType::Core => Ok(None),
        SwitchType::Any if !kernel_switches(&spec.name) => Ok(None),
        SwitchType::Kernel if cfg!(not(target_os = "freebsd")) => {
            Err(OpenError::KernelSwitch(spec.name.clone()))
        }
        SwitchType::Any | SwitchType::Kernel => netmap_host(spec).map(Some),
    }
}

/// Whether the kernel has switches; says so once if it could and has none.
#[cfg(target_os = "freebsd")]
fn kernel_switches(name: &str) -> bool {
    static SAID: std::sync::Once = std::sync::Once::new();
    let there = crate::netmap::kernel::is_there();
    if !there {
        SAID.call_once(|| {
            tracing::warn!(
                "{name}: this kernel has no netmap, so the switch is vtnetd's own; kldload netmap"
            );
        });
    }
    there
}

#[cfg(not(target_os = "freebsd"))]
fn kernel_switches(_name: &str) -> bool {
    false
}

/// The other half of what [`host_side`] has made.
fn connect(spec: &Spec, host: Arc<dyn Host>) -> Result<Arc<dyn Backend>, OpenError> {
    #[cfg(target_os = "freebsd")]
    if spec.netgraph.is_some() {
        return Ok(Arc::new(netgraph::Netgraph::open(&spec.name, host)?));
    }
    #[cfg(target_os = "freebsd")]
    if spec.name.starts_with("netmap:") || spec.name.starts_with("vale") {
        let source = Box::new(netmap::Kernel::new(host));
        let netmap = netmap::Netmap::open(&spec.name, source, spec.pairs)?;
        return Ok(Arc::new(netmap));
    }
    Ok(Arc::new(Tap::open(spec, host)?))
}
