//! The device's queues, as a front end sets them up one by one. Queues are
//! counted as vhost-user does: receive and transmit of each pair, then control.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::vring::{Kick, Vring, VringFault};
use super::{Device, DeviceError, Event, MAX_PAIRS, QueuePair};
use crate::virtio::queue::RingAddresses;
use crate::virtio::spec::net;
use crate::worker::Seat;

impl Device {
    /// How many queues there are.
    pub fn vrings(&self) -> usize {
        2 * self.pairs.len() + usize::from(self.ctrl.is_some())
    }

    /// All queues, in order: receive and transmit of each pair, then control.
    pub(super) fn queues(&self) -> impl Iterator<Item = (&Vring, &Seat, Event)> {
        let pairs = self.pairs.iter().zip(&self.seats).flat_map(|(pair, seat)| {
            [
                (&pair.rx, seat, Event::Receive),
                (&pair.tx, seat, Event::Transmit),
            ]
        });
        let ctrl = self.ctrl.iter().zip(&self.seats);
        pairs.chain(ctrl.map(|(ctrl, seat)| (&ctrl.vring, seat, Event::Control)))
    }

    pub(super) fn queue(&self, index: usize) -> Result<(&Vring, &Seat, Event), DeviceError> {
        self.queues()
            .nth(index)
            .ok_or_else(|| DeviceError::NoSuchQueue {
                index,
                queues: self.vrings(),
            })
    }

    /// The number of entries of a ring.
    ///
    /// # Errors
    /// When the queue does not exist or the size is impossible.
    pub fn set_vring_size(&self, index: usize, size: u16) -> Result<(), DeviceError> {
        self.change(index, |vring| vring.set_size(size))
    }

    /// The front-end addresses of a ring.
    ///
    /// # Errors
    /// When the queue does not exist or the ring cannot be there.
    pub fn set_vring_addresses(&self, index: usize, at: RingAddresses) -> Result<(), DeviceError> {
        self.change(index, |vring| vring.set_addresses(at))
    }

    /// Where to begin, as [`VirtQueue::new`](crate::virtio::queue::VirtQueue::new)
    /// has it.
    ///
    /// # Errors
    /// When the queue does not exist.
    pub fn set_vring_base(&self, index: usize, base: u32) -> Result<(), DeviceError> {
        self.change(index, |vring| vring.set_base(base))
    }

    /// Starts a ring: how its driver kicks, `None` if not at all.
    ///
    /// # Errors
    /// When the queue does not exist, the descriptor cannot be watched, or the
    /// ring cannot be set up.
    pub fn set_vring_kick(&self, index: usize, fd: Option<OwnedFd>) -> Result<(), DeviceError> {
        let (vring, seat, event) = self.queue(index)?;
        let before = vring.is_active();
        let kick = match fd {
            Some(fd) => {
                set_nonblocking(&fd).map_err(|error| DeviceError::Kick(index, error))?;
                Kick::Fd(Arc::new(fd))
            }
            None => Kick::Poll,
        };
        let (old, result) = vring.set_kick(kick.clone());
        unwatch(seat, &old);
        if let Kick::Fd(fd) = &kick {
            if let Err(error) = seat.watch(fd.as_fd(), event) {
                // Nobody would hear its driver.
                vring.stop();
                self.count_active_pairs();
                return Err(DeviceError::Kick(index, error));
            }
        }
        self.count_active_pairs();
        seat.changed();
        self.tell_of(index, before, vring);
        result.map_err(|fault| DeviceError::Vring(index, fault))
    }

    /// How to interrupt the driver; `None`: not at all.
    ///
    /// # Errors
    /// When the queue does not exist.
    pub fn set_vring_call(&self, index: usize, fd: Option<OwnedFd>) -> Result<(), DeviceError> {
        if let Some(fd) = &fd {
            set_nonblocking(fd).map_err(|error| DeviceError::Kick(index, error))?;
        }
        self.change(index, |vring| vring.set_call(fd))
    }

    /// How to say that a ring is wrong.
    ///
    /// # Errors
    /// When the queue does not exist.
    pub fn set_vring_err(&self, index: usize, fd: Option<OwnedFd>) -> Result<(), DeviceError> {
        if let Some(fd) = &fd {
            set_nonblocking(fd).map_err(|error| DeviceError::Kick(index, error))?;
        }
        self.change(index, |vring| vring.set_err(fd))
    }

    /// Enables or disables a ring.
    ///
    /// # Errors
    /// When the queue does not exist.
    pub fn enable_vring(&self, index: usize, enable: bool) -> Result<(), DeviceError> {
        let (vring, seat, _) = self.queue(index)?;
        vring.enable(enable);
        self.count_active_pairs();
        seat.changed();
        let (name, ring) = (self.name(), self.ring_name(index));
        let now = if enable { "enabled" } else { "disabled" };
        tracing::debug!("{name} {ring}: ring {now}");
        Ok(())
    }

    /// Stops a ring after the last access to it; returns where to go
    /// on.
    ///
    /// # Errors
    /// When the queue does not exist.
    pub fn stop_vring(&self, index: usize) -> Result<u32, DeviceError> {
        let (vring, seat, _) = self.queue(index)?;
        let (base, kick) = vring.stop();
        unwatch(seat, &kick);
        self.count_active_pairs();
        let (name, ring) = (self.name(), self.ring_name(index));
        tracing::debug!("{name} {ring}: ring stopped at {base:#x}");
        Ok(base)
    }

    /// Enables all rings, those that have not started too: what a front end
    /// expects that has not negotiated protocol features.
    pub fn enable_all_vrings(&self) {
        for (vring, seat, _) in self.queues() {
            vring.enable(true);
            seat.changed();
        }
        self.count_active_pairs();
    }

    fn change(
        &self,
        index: usize,
        change: impl FnOnce(&Vring) -> Result<(), VringFault>,
    ) -> Result<(), DeviceError> {
        let (vring, seat, _) = self.queue(index)?;
        let before = vring.is_active();
        let result = change(vring).map_err(|fault| DeviceError::Vring(index, fault));
        seat.changed();
        self.tell_of(index, before, vring);
        result
    }

    /// Logs that the ring runs, if it did not `before`. Why one runs no more is
    /// logged by whoever stops it.
    pub(super) fn tell_of(&self, index: usize, before: bool, vring: &Vring) {
        if !before && vring.is_active() {
            let (name, ring) = (self.name(), self.ring_name(index));
            tracing::debug!("{name} {ring}: ring started");
        }
    }

    /// Without the control queue it is the rings that are started and enabled
    /// that say how many pairs receive.
    pub(super) fn count_active_pairs(&self) {
        if self.shared.features() & net::F_CTRL_VQ == 0 {
            let receives = |pair: &&Arc<QueuePair>| pair.rx.is_enabled() && pair.rx.is_started();
            let pairs = self.pairs.iter().take_while(receives).count();
            let pairs = u16::try_from(pairs).unwrap_or(MAX_PAIRS);
            self.shared.set_active_pairs(pairs);
        }
    }
}

pub(super) fn unwatch(seat: &Seat, kick: &Kick) {
    if let Kick::Fd(fd) = kick {
        seat.unwatch(fd.as_fd());
    }
}

/// A descriptor from the front end must never block a worker.
fn set_nonblocking(fd: &OwnedFd) -> std::io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
