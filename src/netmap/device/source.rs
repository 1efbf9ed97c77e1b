//! Where interfaces come from: what opens them, and what an open one is.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use crate::net::frame::{Batch, Frame};
use crate::netmap::attachment::Dropped;

/// Why an interface of the host cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {errno}; {cure}")]
pub struct DeviceError {
    name: String,
    errno: Errno,
    cure: String,
}

impl DeviceError {
    /// An error of the interface `name`, and what helps.
    pub fn new(name: &str, errno: Errno, cure: &str) -> Self {
        Self {
            name: name.to_owned(),
            errno,
            cure: cure.to_owned(),
        }
    }

    /// What helps.
    pub fn cure(&self) -> &str {
        &self.cure
    }

    /// What the system said.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

/// What is known of an interface that is not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its number.
    pub index: u32,
    /// Its MTU, in bytes.
    pub mtu: u32,
}

/// An open interface on its way from who may open it to who uses it.
#[derive(Debug, Default)]
pub struct Handles {
    /// Descriptors.
    pub fds: Vec<OwnedFd>,
    /// Facts that are numbers.
    pub numbers: Vec<u64>,
}

/// Who opens interfaces: the opener, or this process where it may.
pub trait Interfaces: Send + Sync {
    /// What is known of `name`; `None` when there is no such interface, or it
    /// is not one of those that may be used.
    ///
    /// # Errors
    /// The system says nothing about it.
    fn look(&self, name: &str) -> Result<Option<Facts>, DeviceError>;

    /// Opens `name`. With `promiscuous` it receives what is for others too, as
    /// long as it is open.
    ///
    /// # Errors
    /// It cannot be had.
    fn open(&self, name: &str, promiscuous: bool) -> Result<Device, DeviceError>;
}

/// An open interface. With this it is the host's again.
pub struct Device {
    /// The wire.
    pub nic: Arc<dyn Line>,
    /// The host's network stack.
    pub host: Arc<dyn Line>,
    /// What takes it from the one to the other.
    pub gate: Box<dyn Gate>,
    /// Its MTU, in bytes.
    pub mtu: u32,
}

/// What of an interface is not the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What comes in from the wire.
    pub rx: bool,
    /// What goes out to the wire: the host's frames do not.
    pub tx: bool,
    /// Somebody is there to take the host's frames.
    pub host: bool,
}

/// Takes frames from the host, and gives them back.
pub trait Gate: Send + Sync {
    /// From now on, as `taken` says.
    fn set(&self, taken: Taken);
}

/// A frame that has come and may be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Bytes of the frame.
    pub len: usize,
    /// Payload bytes of each segment that it is to become; 0: it is one frame.
    pub segment: usize,
}

/// What became of a frame that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is on its way.
    Sent,
    /// There is no room for now.
    Full,
    /// It cannot be sent, now or later.
    Lost,
}

/// A place where frames come and go: the wire, or the host's network stack.
/// Nothing here blocks.
pub trait Line: Send + Sync {
    /// Takes what has come, in order, as long as `fits`, but not more than one
    /// batch, and gives it to `take`. Returns how many frames are gone from the
    /// line, bad ones included; with 0 there is nothing, or it does not fit.
    fn receive(
        &self,
        fits: &mut dyn FnMut(Arrived) -> bool,
        take: &mut dyn FnMut(&Batch<'_>),
    ) -> usize;

    /// Sends one frame, which may ask for checksums and segmentation, but not for
    /// fragments.
    fn send(&self, batch: &Batch<'_>, frame: &Frame) -> Put;

    /// Readable when something has come, writable when there is room again.
    fn fd(&self) -> BorrowedFd<'_>;

    /// The descriptor has failed; `false`: it will not recover.
    fn settle(&self) -> bool;

    /// What was dropped here.
    fn dropped(&self) -> Dropped;
}
