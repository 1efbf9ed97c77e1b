//! The two halves of a back end.
//!
//! What names and opens things on the host is a [`HostSide`]. It runs in the
//! opener, the privileged process (`sandbox::opener`), and keeps there what
//! later operations need. What carries frames is the
//! [`Backend`](super::Backend), in the sandboxed process. It reaches its other
//! half through a [`Host`], and gets descriptors and plain facts from it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use super::OpenError;

/// Most descriptors that one [`Opened`] has.
pub const MAX_FDS: usize = 64;
/// Most numbers that one [`Opened`] has.
pub const MAX_NUMBERS: usize = 128;
/// Most bytes of the text of an [`Opened`].
pub const MAX_TEXT: usize = 1024;

/// An open back end: what its host side hands over. What stands where is
/// agreed on by the two halves; the opener only carries it.
#[derive(Debug, Default)]
pub struct Opened {
    /// Descriptors, at most [`MAX_FDS`], each with the least rights already.
    pub fds: Vec<OwnedFd>,
    /// Facts that are numbers, at most [`MAX_NUMBERS`].
    pub numbers: Vec<u64>,
    /// A fact that is text, at most [`MAX_TEXT`] bytes, such as the name of an
    /// interface that was made.
    pub text: String,
}

/// What a back end can ask of its open host side: small numbers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Have the interface use these virtio-net features.
    SetFeatures(u64),
    /// Have the port put virtio-net headers of so many bytes before frames.
    SetHeaderLen(u16),
}

/// The privileged half. It knows from the configuration what it is about; a
/// request adds small numbers only, and those are checked here.
pub trait HostSide: Send {
    /// Opens it, or opens it again after it was lost. What an earlier call has
    /// opened and is still kept here is closed first.
    ///
    /// # Errors
    /// It cannot be had, for now or at all. [`OpenError::Absent`], which the
    /// opener passes on as such, when it is lost and not yet back.
    fn open(&mut self) -> Result<Opened, OpenError>;

    /// Does what the sandboxed process cannot do itself.
    ///
    /// # Errors
    /// This kind of back end has no such operation, or the system refuses.
    fn operate(&mut self, operation: Operation) -> Result<(), OpenError> {
        Err(OpenError::Operation(operation))
    }
}

/// The privileged half as the other one sees it. Calls wait for the answer.
pub trait Host: Send + Sync {
    /// As [`HostSide::open`].
    ///
    /// # Errors
    /// Those of [`HostSide::open`], and that the opener has ended.
    fn open(&self) -> Result<Opened, OpenError>;

    /// As [`HostSide::operate`].
    ///
    /// # Errors
    /// Those of [`HostSide::operate`], and that the opener has ended.
    fn operate(&self, operation: Operation) -> Result<(), OpenError>;
}

/// A host side in the same process: for programs that are not sandboxed.
pub struct InProcess(Mutex<Box<dyn HostSide>>);

impl InProcess {
    /// `side`, to be shared.
    pub fn new(side: Box<dyn HostSide>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(side)))
    }
}

impl Host for InProcess {
    fn open(&self) -> Result<Opened, OpenError> {
        let mut side = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        side.open()
    }

    fn operate(&self, operation: Operation) -> Result<(), OpenError> {
        let mut side = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        side.operate(operation)
    }
}
