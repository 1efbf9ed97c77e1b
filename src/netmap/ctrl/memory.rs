//! A client's memory, as control requests see it: bytes that are copied in and
//! out. Who implements it decides how, for instance by asking the client's own
//! process; nothing here follows an address.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

/// There is no memory where a client said it is, or not for this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has no memory there")]
pub struct Fault;

impl From<Fault> for Errno {
    fn from(_: Fault) -> Self {
        Self::EFAULT
    }
}

/// A client's memory. At most [`LARGEST`] bytes are copied at once.
pub trait ClientMemory {
    /// Copies from the client's address `at` until `into` is full.
    ///
    /// # Errors
    /// When not all of it is there.
    fn copy_in(&mut self, at: u64, into: &mut [u8]) -> Result<(), Fault>;

    /// Copies `from` to the client's address `at`.
    ///
    /// # Errors
    /// When not all of it is there to be written.
    fn copy_out(&mut self, at: u64, from: &[u8]) -> Result<(), Fault>;

    /// The shared object that the client's memory for a new region was made
    /// (`NETMAP_REQ_OPT_EXTMEM`): the option's `nro_usrptr` is its first byte.
    /// It is asked for once.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: it is not in an object that could be had.
    fn object(&mut self) -> Result<OwnedFd, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Gives the client a descriptor with the answer: that of a sync loop to be
    /// run, or to be waited for. At most one for each request.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: it has nobody who could do that.
    fn hand_over(&mut self, descriptor: OwnedFd) -> Result<(), Errno> {
        let _ = descriptor;
        Err(Errno::EOPNOTSUPP)
    }
}

/// Most bytes that are copied at once.
pub const LARGEST: usize = crate::netmap::abi::NETMAP_REQ_MAXSIZE;
