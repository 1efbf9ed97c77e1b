//! poll(2) on a registration: the rings that it has bound.

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::Registration;
use crate::netmap::kring::{Synced, Wake};
use crate::netmap::mem::RingView;
use crate::netmap::poll::{IN, OUT, Polled, poll};
use crate::netmap::port::Direction;
use crate::netmap::sync::User;

impl Registration {
    /// Syncs as poll(2) does with `events`, and returns those that are ready.
    /// With `sleep`, [`Port::fd`](crate::netmap::port::Port::fd) becomes
    /// readable when that may have changed; the caller then asks again.
    pub fn poll(&self, events: PollFlags, sleep: bool) -> PollFlags {
        // What woke the client is answered now.
        self.bindings.listener().drain();
        poll(self, self.flags, events, sleep)
    }

    /// [`Port::fd`](crate::netmap::port::Port::fd) becomes readable when what
    /// `events` ask for may come from here on. Nothing is synced.
    pub(in crate::netmap) fn await_news(&self, events: PollFlags) {
        self.bindings.listener().drain();
        for (direction, asks) in [(Direction::Tx, OUT), (Direction::Rx, IN)] {
            if events.intersects(asks) {
                Polled::wait_for(self, direction);
            }
        }
    }
}

impl Polled for Registration {
    fn count(&self, direction: Direction) -> usize {
        self.bound(direction).len()
    }

    fn at(&self, direction: Direction, index: usize) -> Option<(RingView<'_>, User)> {
        self.kring(direction, index)
            .map(|kring| (kring.view(), kring.user()))
    }

    fn hwcur(&self, index: usize) -> u32 {
        self.kring(Direction::Tx, index)
            .map_or(0, |kring| kring.hardware().hwcur)
    }

    fn sync(&self, direction: Direction, index: usize) -> Result<Synced, Errno> {
        let bound = self.bound(direction).get(index).ok_or(Errno::EINVAL)?;
        self.adapter().sync(direction, bound)
    }

    fn wait_for(&self, direction: Direction) {
        self.bindings.listener().arm(Wake::of(direction));
        for bound in self.bound(direction) {
            self.adapter().wait_for(direction, bound);
        }
    }
}
