//! poll(2) on a registration: the rings that it has bound.

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::Registration;
use crate::netmap::abi::nmreq::{NR_DO_RX_POLL, NR_NO_TX_POLL};
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

    /// Answers a poll for room before what is there is sent, where there is more
    /// room than the application has used: it fills that meanwhile.
    /// [`go_on`](Self::go_on) sends; the room that makes is the application's
    /// from its next sync on, as it is with a device that takes its time. `None`:
    /// nothing was begun, and [`poll`](Self::poll) is to answer.
    pub(in crate::netmap) fn begin_poll(&self, events: PollFlags) -> Option<PollFlags> {
        let wanted = events & (IN | OUT);
        // These say what a poll syncs.
        if self.flags & (NR_NO_TX_POLL | NR_DO_RX_POLL) != 0 {
            return None;
        }
        // Of several rings one may have no room, which is to be waited for.
        let [bound] = self.bound(Direction::Tx) else {
            return None;
        };
        let begun =
            OUT.contains(wanted) && !wanted.is_empty() && self.adapter().begin_txsync(bound);
        begun.then_some(wanted)
    }

    /// Sends what a poll that was begun has found.
    pub(in crate::netmap) fn go_on(&self) {
        for bound in self.bound(Direction::Tx) {
            self.adapter().go_on_with_txsync(bound);
        }
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
