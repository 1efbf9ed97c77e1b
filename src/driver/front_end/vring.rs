//! The messages about one vring.

use std::os::fd::BorrowedFd;

use super::{FrontEnd, FrontEndError, nonsense};
use crate::frontend::vhost_user::Request;
use crate::frontend::vhost_user::message::{VringAddress, VringFd, VringState};
use crate::virtio::queue::RingAddresses;
use crate::virtio::spec::feature;

/// One vring as the back end is to see it.
#[derive(Clone, Copy, Debug)]
pub struct Vring<'a> {
    /// Which queue.
    pub index: u16,
    /// Entries.
    pub size: u16,
    /// Where the back end is to begin ([`DriverQueue::base`]).
    ///
    /// [`DriverQueue::base`]: crate::driver::queue::DriverQueue::base
    pub base: u32,
    /// Front-end addresses of its parts.
    pub addresses: RingAddresses,
    /// What the back end reads kicks from; without it polls.
    pub kick: Option<BorrowedFd<'a>>,
    /// What the back end writes interrupts to.
    pub call: Option<BorrowedFd<'a>>,
    /// What the back end writes to when the queue has failed.
    pub err: Option<BorrowedFd<'a>>,
}

impl FrontEnd {
    /// Sets up a vring and starts it.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn start_vring(&mut self, vring: &Vring<'_>) -> Result<(), FrontEndError> {
        let index = u32::from(vring.index);
        let short = u8::try_from(vring.index)
            .map_err(|_| FrontEndError::DoesNotFit("a queue's index above 255"))?;
        let state = |num| VringState { index, num };
        let size = state(vring.size.into());
        self.command(Request::SetVringNum, &size.to_bytes(), &[])?;
        self.command(Request::SetVringBase, &state(vring.base).to_bytes(), &[])?;
        let address = VringAddress {
            index,
            flags: 0,
            desc: vring.addresses.desc,
            used: vring.addresses.used,
            avail: vring.addresses.avail,
            log: 0,
        };
        self.command(Request::SetVringAddr, &address.to_bytes(), &[])?;
        if vring.err.is_some() {
            self.set_vring_fd(Request::SetVringErr, short, vring.err)?;
        }
        self.set_vring_fd(Request::SetVringCall, short, vring.call)?;
        self.set_vring_fd(Request::SetVringKick, short, vring.kick)
    }

    /// Sends one of the three messages that give a vring a descriptor, or say
    /// that it has none.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn set_vring_fd(
        &mut self,
        request: Request,
        index: u8,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), FrontEndError> {
        let no_fd = fd.is_none();
        let payload = VringFd { index, no_fd }.to_bytes();
        self.command(request, &payload, fd.as_slice())
    }

    /// Enables or disables a vring. Nothing is said without protocol features:
    /// there a vring is enabled when it starts.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn enable_vring(&mut self, index: u16, enable: bool) -> Result<(), FrontEndError> {
        if self.features & feature::VHOST_USER_PROTOCOL_FEATURES == 0 {
            return Ok(());
        }
        let state = VringState {
            index: u32::from(index),
            num: u32::from(enable),
        };
        self.command(Request::SetVringEnable, &state.to_bytes(), &[])
    }

    /// Stops a vring: when this returns the back end no longer touches it.
    /// Returns where it would have gone on.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn stop_vring(&mut self, index: u16) -> Result<u32, FrontEndError> {
        let request = Request::GetVringBase;
        let index = u32::from(index);
        let answer = self.query(request, &VringState { index, num: 0 }.to_bytes())?;
        VringState::from_bytes(&answer.payload)
            .filter(|state| state.index == index)
            .map(|state| state.num)
            .ok_or_else(|| nonsense(request, &answer))
    }
}
