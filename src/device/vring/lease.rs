//! How a frame is let into a ring from outside: reserve, copy, commit.

use std::sync::Arc;

use super::{Claim, MAX_LEASES, State, Vring, VringFault};
use crate::virtio::memory::GuestMemory;
use crate::virtio::queue::{Chain, Queue, RingError, VirtQueue};

impl Vring {
    /// Lets a frame in from outside. `None`: the ring is stopped, disabled, or
    /// about to stop.
    pub fn lease(&self) -> Option<Lease<'_>> {
        let mut state = self.lock();
        if state.closing || !self.is_enabled() || state.leases >= MAX_LEASES {
            return None;
        }
        let memory = Arc::clone(&state.active.as_ref()?.memory);
        state.leases += 1;
        Some(Lease {
            vring: self,
            memory: Some(memory),
        })
    }
}

/// A promise that the ring stays as it is until this is committed or dropped.
pub struct Lease<'v> {
    vring: &'v Vring,
    /// Let go before the gate is told, so that a table is gone when the gate
    /// says that nobody uses it.
    memory: Option<Arc<GuestMemory>>,
}

/// Chains that were reserved under a lease, to be committed.
#[must_use]
pub struct Reservation(u64);

impl Lease<'_> {
    /// The table of the ring's buffers.
    pub fn memory(&self) -> &GuestMemory {
        static NOTHING: GuestMemory = GuestMemory::new_empty();
        self.memory.as_deref().unwrap_or(&NOTHING)
    }

    /// Takes chains from the ring, all in one go: `take` returns how many.
    pub fn reserve(
        &self,
        take: impl FnOnce(&mut Queue) -> Result<u16, RingError>,
    ) -> Option<Reservation> {
        let mut state = self.vring.lock();
        match take(&mut state.active.as_mut()?.queue) {
            Ok(0) => None,
            Ok(chains) => {
                let number = state.next_claim;
                state.next_claim += 1;
                state.claims.push_back(Claim {
                    number,
                    chains,
                    done: false,
                });
                Some(Reservation(number))
            }
            Err(error) => {
                self.vring.fail(&mut state, error.into());
                None
            }
        }
    }

    /// Writes the used entries of the reservation (its chains, in order, with
    /// the bytes written into each), publishes what is complete up to here,
    /// and ends the lease. `count` runs under the lock, for counters.
    pub fn commit(
        mut self,
        reservation: Reservation,
        used: impl Iterator<Item = (Chain, u32)>,
        count: impl FnOnce(),
    ) {
        let broken = self.memory().is_broken();
        let mut state = self.vring.lock();
        if let Some(active) = &mut state.active {
            let used = used.map(move |(chain, len)| (chain, if broken { 0 } else { len }));
            active.queue.put_all_used(used);
        }
        count();
        let mut claims = state.claims.iter_mut();
        if let Some(claim) = claims.find(|claim| claim.number == reservation.0) {
            claim.done = true;
        }
        let mut published = 0;
        while let Some(claim) = state.claims.front().filter(|claim| claim.done) {
            published += claim.chains;
            state.claims.pop_front();
        }
        if published > 0 {
            if let Some(active) = &mut state.active {
                active.queue.publish(published);
            }
            if let Err(fault) = state.interrupt() {
                self.vring.fail(&mut state, fault);
            }
        }
        if broken {
            self.vring.fail(&mut state, VringFault::Memory);
        }
        self.end(&mut state);
    }

    fn end(&mut self, state: &mut State) {
        if self.memory.take().is_none() {
            return;
        }
        state.leases -= 1;
        if state.leases == 0 {
            // What a failed ring never published is gone with it.
            state.claims.clear();
            if state.closing {
                self.vring.drained.notify_all();
            }
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.memory.is_some() {
            self.end(&mut self.vring.lock());
        }
    }
}
