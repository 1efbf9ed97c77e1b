//! A place at a worker, by which others reach it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{EVENTS_PER_SEAT, Occupant, Worker, Workers};
use crate::event::Interest;

/// A place at a worker. Dropping it takes away who has it.
pub struct Seat(Mutex<Place>);

pub(super) struct Place {
    pub(super) worker: Arc<Worker>,
    number: usize,
}

impl Seat {
    /// `occupant`, at `worker`.
    pub(super) fn new(worker: Arc<Worker>, occupant: Occupant) -> Self {
        let number = worker.admit(occupant);
        Self(Mutex::new(Place { worker, number }))
    }

    pub(super) fn place(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches `fd`; its events have the number `event`, below 7.
    ///
    /// # Errors
    /// What the poller says, for instance that the descriptor cannot be
    /// watched.
    pub fn watch(&self, fd: BorrowedFd<'_>, event: impl Into<u64>) -> io::Result<()> {
        let place = self.place();
        let token = place.number as u64 * EVENTS_PER_SEAT + event.into() % EVENTS_PER_SEAT;
        place.worker.poller.add(fd, token, Interest::READ_EDGE)
    }

    /// Watches `fd` no longer.
    pub fn unwatch(&self, fd: BorrowedFd<'_>) {
        if let Err(error) = self.place().worker.poller.remove(fd) {
            tracing::debug!("descriptor no longer watched: {error}");
        }
    }

    /// Has the worker look now.
    pub fn changed(&self) {
        let place = self.place();
        place.worker.mail().changed.push(place.number);
        place.worker.waker.wake();
    }

    /// Gives whoever has it to worker number `to`, if there is one. The old
    /// worker has done with it when this returns, but for what it was said to
    /// watch, which is to be watched anew; then the new one is to be told of the
    /// [change](Self::changed).
    pub fn move_to(&self, workers: &Workers, to: usize) {
        let Some(worker) = workers.workers.get(to) else {
            return;
        };
        let mut place = self.place();
        if let Some(occupant) = place.worker.dismiss(place.number) {
            place.number = worker.admit(occupant);
            place.worker = Arc::clone(worker);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let place = self.place();
        if let Some(seat) = place.worker.mail().seats.get_mut(place.number) {
            *seat = None;
        }
        // The worker lets go of it, should it be hot.
        place.worker.waker.wake();
    }
}
