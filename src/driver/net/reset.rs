//! Queues that are reset one by one while the others run, as section 2.6.1 has
//! it of a driver that changes their length. Over vhost-user a queue is reset by
//! stopping its vring, which stays enabled, and enabled by setting it up anew;
//! no feature need be negotiated for that.

use super::{DriverError, NetDriver, new_queue};

impl NetDriver {
    /// Resets the receive queue of a pair: afterwards the device does not touch
    /// it, and what it had is lost.
    ///
    /// # Errors
    /// As [`FrontEnd::stop_vring`](crate::driver::front_end::FrontEnd::stop_vring).
    ///
    /// # Panics
    /// When there are fewer pairs.
    pub fn reset_rx(&mut self, pair: usize) -> Result<(), DriverError> {
        self.front_end.stop_vring(self.pairs[pair].rx.line.index)?;
        Ok(())
    }

    /// As [`reset_rx`](Self::reset_rx), for the transmit queue.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// When there are fewer pairs.
    pub fn reset_tx(&mut self, pair: usize) -> Result<(), DriverError> {
        self.front_end.stop_vring(self.pairs[pair].tx.line.index)?;
        Ok(())
    }

    /// Enables a receive queue that was reset, with a ring of `size` entries
    /// elsewhere in memory: not more than at the start, for it has the buffers
    /// of then.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Panics
    /// When there are fewer pairs.
    pub fn enable_rx(&mut self, pair: usize, size: u16) -> Result<(), DriverError> {
        let queue = new_queue(&mut self.memory, size, self.features)?;
        let rx = &mut self.pairs[pair].rx;
        rx.replace(queue);
        rx.fill(usize::MAX)?;
        // What the device takes is what it finds: nothing was used yet.
        let base = rx.queue.resume_base();
        rx.line
            .restart(&mut self.front_end, rx.queue.as_ref(), base)
    }

    /// As [`enable_rx`](Self::enable_rx), for the transmit queue.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// When there are fewer pairs.
    pub fn enable_tx(&mut self, pair: usize, size: u16) -> Result<(), DriverError> {
        let queue = new_queue(&mut self.memory, size, self.features)?;
        let tx = &mut self.pairs[pair].tx;
        tx.replace(queue);
        let base = tx.queue.resume_base();
        tx.line
            .restart(&mut self.front_end, tx.queue.as_ref(), base)
    }
}
