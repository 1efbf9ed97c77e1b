//! What every queue of the driver has beside its ring: kick, interrupt, error
//! report, and a way to notice that the back end is gone.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::DriverError;
use crate::driver::front_end::{FrontEnd, Vring};
use crate::driver::notifier::{Notifier, Signalling};
use crate::driver::queue::DriverQueue;

/// The notifications of one queue.
#[derive(Debug)]
pub(super) struct Line {
    /// The queue's index.
    pub(super) index: u16,
    kick: Notifier,
    call: Notifier,
    err: Notifier,
    /// Does not read, only sees the end of the connection.
    connection: Arc<OwnedFd>,
    /// The back end is asked to poll, and never to interrupt.
    silent: bool,
}

impl Line {
    pub(super) fn new(
        index: u16,
        signalling: Signalling,
        silent: bool,
        connection: Arc<OwnedFd>,
    ) -> nix::Result<Self> {
        Ok(Self {
            index,
            kick: Notifier::new(signalling)?,
            call: Notifier::new(signalling)?,
            err: Notifier::new(signalling)?,
            connection,
            silent,
        })
    }

    /// Enables the vring and sets it up from `base` on.
    pub(super) fn start(
        &self,
        front_end: &mut FrontEnd,
        queue: &dyn DriverQueue,
        base: u32,
    ) -> Result<(), DriverError> {
        // First, as QEMU does: a back end takes what it finds in a ring that
        // is started and disabled, and throws it away.
        front_end.enable_vring(self.index, true)?;
        self.restart(front_end, queue, base)
    }

    /// Sets the vring up anew after it was stopped; it is enabled still.
    pub(super) fn restart(
        &self,
        front_end: &mut FrontEnd,
        queue: &dyn DriverQueue,
        base: u32,
    ) -> Result<(), DriverError> {
        front_end.start_vring(&Vring {
            index: self.index,
            size: queue.size(),
            base,
            addresses: queue.addresses(),
            kick: (!self.silent).then(|| self.kick.source()),
            call: (!self.silent).then(|| self.call.sink()),
            err: Some(self.err.sink()),
        })?;
        Ok(())
    }

    pub(super) fn set_connection(&mut self, connection: Arc<OwnedFd>) {
        self.connection = connection;
    }

    #[inline]
    pub(super) fn kick(&self) {
        if !self.silent {
            self.kick.notify();
        }
    }

    pub(super) fn call(&self) -> &Notifier {
        &self.call
    }

    /// The back end has said that the queue failed.
    pub(super) fn has_failed(&self) -> bool {
        self.err.drain()
    }

    /// Waits for an interrupt, which `queue` is asked for; returns at once when
    /// there is something to pop already. `false`: `until` came first.
    pub(super) fn wait(
        &self,
        queue: &mut dyn DriverQueue,
        until: Instant,
    ) -> Result<bool, DriverError> {
        if self.silent {
            return self.spin(queue, until);
        }
        self.call.drain();
        let ready = queue.enable_interrupts();
        let waited = if ready { Ok(true) } else { self.poll(until) };
        queue.disable_interrupts();
        waited
    }

    /// Waits without interrupts.
    fn spin(&self, queue: &mut dyn DriverQueue, until: Instant) -> Result<bool, DriverError> {
        while !queue.enable_interrupts() {
            let now = Instant::now();
            if now >= until {
                return Ok(false);
            }
            // Only to see a failed queue or the end of the connection.
            self.poll(now)?;
            std::thread::yield_now();
        }
        Ok(true)
    }

    fn poll(&self, until: Instant) -> Result<bool, DriverError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // Rounded up, so that the end is really reached.
            let millis = left.as_micros().div_ceil(1000);
            let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
            let mut fds = [
                PollFd::new(self.call.source(), PollFlags::POLLIN),
                PollFd::new(self.err.source(), PollFlags::POLLIN),
                PollFd::new(self.connection.as_fd(), PollFlags::empty()),
            ];
            match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => {}
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(0) => {}
                Ok(_) => {
                    let is = |at: usize| fds[at].any() == Some(true);
                    if is(0) {
                        return Ok(true);
                    }
                    return Err(if is(1) {
                        DriverError::QueueFailed(self.index)
                    } else {
                        DriverError::Gone
                    });
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
