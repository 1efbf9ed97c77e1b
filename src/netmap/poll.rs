//! What poll(2) does on somebody's rings (`netmap_poll`): transmit rings are
//! synced first, then receive rings; when nothing is ready, whoever sleeps is
//! noted, and everything is looked at once more, so that what came in between is
//! not slept over.

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::abi::nmreq::{NR_DO_RX_POLL, NR_NO_TX_POLL};
use super::kring::Synced;
use super::mem::RingView;
use super::port::Direction;
use super::sync::User;

/// What asks for room in transmit rings.
pub const OUT: PollFlags = PollFlags::POLLOUT.union(PollFlags::POLLWRNORM);
/// What asks for frames in receive rings.
pub const IN: PollFlags = PollFlags::POLLIN.union(PollFlags::POLLRDNORM);

/// Rings that can be polled, each way counted from 0.
pub trait Polled {
    /// How many there are.
    fn count(&self, direction: Direction) -> usize;

    /// One of them, and what its application has taken over; `None`: there is
    /// no such.
    fn at(&self, direction: Direction, index: usize) -> Option<(RingView<'_>, User)>;

    /// The first slot of a transmit ring that is not done with.
    fn hwcur(&self, index: usize) -> u32;

    /// Syncs one of them.
    ///
    /// # Errors
    /// It cannot be synced.
    fn sync(&self, direction: Direction, index: usize) -> Result<Synced, Errno>;

    /// Whoever polls is going to sleep until there is something in one of the
    /// rings of this direction.
    fn wait_for(&self, direction: Direction);
}

/// Syncs as poll(2) does with `events`, and returns those that are ready. With
/// `sleep`, [`Polled::wait_for`] is called for what is not.
///
/// As in the kernel, transmit rings are synced without `POLLOUT` too, unless the
/// registration's `flags` have `NR_NO_TX_POLL`; receive rings without `POLLIN`
/// only where they have `NR_DO_RX_POLL`, which the kernel documents and no
/// longer heeds.
pub fn poll(rings: &impl Polled, flags: u64, events: PollFlags, sleep: bool) -> PollFlags {
    let mut look = Look {
        rings,
        wanted: events & (IN | OUT),
        found: PollFlags::empty(),
    };
    look.at_what_is_there();
    let no_tx = flags & NR_NO_TX_POLL != 0;
    look.at_tx(no_tx);
    if look.wanted.intersects(OUT) && sleep {
        rings.wait_for(Direction::Tx);
        look.at_tx(no_tx);
    }
    let release = flags & NR_DO_RX_POLL != 0 && !events.intersects(IN);
    if look.wanted.intersects(IN) || release {
        look.at_rx();
    }
    if look.wanted.intersects(IN) && sleep {
        rings.wait_for(Direction::Rx);
        look.at_rx();
    }
    look.found
}

struct Look<'a, P> {
    rings: &'a P,
    wanted: PollFlags,
    found: PollFlags,
}

impl<P: Polled> Look<'_, P> {
    /// Where the client has not looked at what it has, there is nothing to
    /// sync for.
    fn at_what_is_there(&mut self) {
        let rings = self.rings;
        let unseen = |direction| {
            let all = 0..rings.count(direction);
            all.filter_map(move |index| rings.at(direction, index))
                .map(|(view, user)| (view.cur() != user.rtail, view.head() != user.rhead))
        };
        if unseen(Direction::Tx).any(|(unseen, _)| unseen) {
            self.satisfy(OUT);
        }
        let mut rx = unseen(Direction::Rx).peekable();
        if rx.peek().is_some() && rx.all(|(unseen, released)| unseen && !released) {
            self.satisfy(IN);
        }
    }

    fn at_tx(&mut self, no_tx: bool) {
        if no_tx && !self.wanted.intersects(OUT) {
            return;
        }
        for index in 0..self.rings.count(Direction::Tx) {
            let Some((view, _)) = self.rings.at(Direction::Tx, index) else {
                continue;
            };
            let pending = view.head() != self.rings.hwcur(index);
            if self.wanted.intersects(OUT) || pending {
                self.sync(Direction::Tx, index, OUT);
            }
        }
    }

    fn at_rx(&mut self) {
        let asked = self.wanted & IN;
        for index in 0..self.rings.count(Direction::Rx) {
            self.sync(Direction::Rx, index, asked);
        }
    }

    fn sync(&mut self, direction: Direction, index: usize, events: PollFlags) {
        match self.rings.sync(direction, index) {
            Ok(synced) => {
                if synced.began_anew {
                    self.found.insert(PollFlags::POLLERR);
                }
                if synced.ready {
                    self.satisfy(events);
                }
            }
            Err(_) => self.found.insert(PollFlags::POLLERR),
        }
    }

    /// What of `events` is wanted is there.
    fn satisfy(&mut self, events: PollFlags) {
        self.found.insert(self.wanted & events);
        self.wanted.remove(events);
    }
}
