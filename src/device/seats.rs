//! Which workers serve a device, and how a pair comes from one to another.

use std::os::fd::AsFd;

use super::queues::unwatch;
use super::vring::Kick;
use super::{Device, Event};
use crate::worker::{Seat, Workers};

impl Device {
    /// The number of each pair's worker among `workers`.
    pub fn workers_of_pairs(&self, workers: &Workers) -> impl Iterator<Item = Option<usize>> {
        self.seats.iter().map(|seat| workers.number_of(seat))
    }

    /// Has pair `index` served by worker `to` of `workers`. It changes hands
    /// between two turns, and what its driver and the host do meanwhile is seen
    /// by the new one.
    pub fn move_pair(&self, index: usize, workers: &Workers, to: usize) {
        let Some((pair, seat)) = self.pairs.iter().zip(&self.seats).nth(index) else {
            return;
        };
        let mine = |of: &Seat| std::ptr::eq(of, seat);
        let queues = self.queues().filter(|(_, of, _)| mine(of));
        let kicks: Vec<_> = queues
            .map(|(vring, _, event)| (vring.kick(), event))
            .collect();
        let host = self.host();
        let backend = self.shared.backend.rx_fd(pair.index);
        let backend = backend.filter(|_| !host.is_lost());
        for (kick, _) in &kicks {
            unwatch(seat, kick);
        }
        if let Some(fd) = backend {
            seat.unwatch(fd);
        }
        seat.move_to(workers, to);
        let kicks = kicks.iter().filter_map(|(kick, event)| match kick {
            Kick::Fd(fd) => Some((fd.as_fd(), *event)),
            Kick::Poll | Kick::Unset => None,
        });
        for (fd, event) in kicks.chain(backend.map(|fd| (fd, Event::Backend))) {
            if let Err(error) = seat.watch(fd, event) {
                let name = &self.shared.name;
                tracing::error!("{name}: pair {index} is no longer told of {event:?}: {error}");
            }
        }
        seat.changed();
    }
}
