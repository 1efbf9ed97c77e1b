//! What poll(2) does on a registration (`netmap_poll`): transmit rings are
//! synced first, then receive rings; when nothing is ready, the client is
//! noted as one who waits, and everything is looked at once more, so that what
//! came in between is not slept over.

use nix::poll::PollFlags;

use super::Registration;
use crate::netmap::abi::nmreq::{NR_DO_RX_POLL, NR_NO_TX_POLL};
use crate::netmap::kring::Wake;
use crate::netmap::port::Direction;

/// What asks for room in transmit rings.
const OUT: PollFlags = PollFlags::POLLOUT.union(PollFlags::POLLWRNORM);
/// What asks for frames in receive rings.
const IN: PollFlags = PollFlags::POLLIN.union(PollFlags::POLLRDNORM);

impl Registration {
    /// Syncs as poll(2) does with `events`, and returns those that are ready.
    /// With `sleep`, [`Port::fd`](crate::netmap::port::Port::fd) becomes
    /// readable when that may have changed; the caller then asks again.
    ///
    /// As in the kernel, transmit rings are synced without `POLLOUT` too,
    /// unless the client has said `NR_NO_TX_POLL`; receive rings without
    /// `POLLIN` only where it has said `NR_DO_RX_POLL`, which the kernel
    /// documents and no longer heeds.
    pub fn poll(&self, events: PollFlags, sleep: bool) -> PollFlags {
        let mut found = PollFlags::empty();
        let mut wanted = events & (IN | OUT);
        let listener = self.bindings.listener();
        // What woke the client is answered now.
        listener.drain();
        self.look(&mut wanted, &mut found);
        self.poll_tx(&mut wanted, &mut found);
        if wanted.intersects(OUT) && sleep {
            listener.arm(Wake::ROOM);
            self.wait_for(Direction::Tx);
            self.poll_tx(&mut wanted, &mut found);
        }
        let release = self.flags & NR_DO_RX_POLL != 0 && !events.intersects(IN);
        if wanted.intersects(IN) || release {
            self.poll_rx(&mut wanted, &mut found);
        }
        if wanted.intersects(IN) && sleep {
            listener.arm(Wake::FRAMES);
            self.wait_for(Direction::Rx);
            self.poll_rx(&mut wanted, &mut found);
        }
        found
    }

    /// [`Port::fd`](crate::netmap::port::Port::fd) becomes readable when frames
    /// or room come from here on. Nothing is synced.
    pub(in crate::netmap) fn await_news(&self) {
        let listener = self.bindings.listener();
        listener.drain();
        listener.arm(Wake::ANY);
        self.wait_for(Direction::Tx);
        self.wait_for(Direction::Rx);
    }

    /// Where the client has not looked at what it has, there is nothing to
    /// sync for.
    fn look(&self, wanted: &mut PollFlags, found: &mut PollFlags) {
        let unseen = |direction| {
            self.bound(direction).iter().map(|bound| {
                let user = bound.kring.user();
                let view = bound.kring.view();
                let seen = view.cur() == user.rtail;
                let released = view.head() != user.rhead;
                (!seen, released)
            })
        };
        if unseen(Direction::Tx).any(|(unseen, _)| unseen) {
            satisfy(OUT, wanted, found);
        }
        let mut rx = unseen(Direction::Rx).peekable();
        if rx.peek().is_some() && rx.all(|(unseen, released)| unseen && !released) {
            satisfy(IN, wanted, found);
        }
    }

    fn poll_tx(&self, wanted: &mut PollFlags, found: &mut PollFlags) {
        if self.flags & NR_NO_TX_POLL != 0 && !wanted.intersects(OUT) {
            return;
        }
        for bound in self.bound(Direction::Tx) {
            let pending = bound.kring.view().head() != bound.kring.hardware().hwcur;
            if !wanted.intersects(OUT) && !pending {
                continue;
            }
            match self.adapter().sync(Direction::Tx, bound) {
                Ok(synced) => {
                    if synced.began_anew {
                        found.insert(PollFlags::POLLERR);
                    }
                    if synced.ready {
                        satisfy(OUT, wanted, found);
                    }
                }
                Err(_) => found.insert(PollFlags::POLLERR),
            }
        }
    }

    fn poll_rx(&self, wanted: &mut PollFlags, found: &mut PollFlags) {
        let asked = *wanted & IN;
        for bound in self.bound(Direction::Rx) {
            match self.adapter().sync(Direction::Rx, bound) {
                Ok(synced) => {
                    if synced.began_anew {
                        found.insert(PollFlags::POLLERR);
                    }
                    if synced.ready {
                        satisfy(asked, wanted, found);
                    }
                }
                Err(_) => found.insert(PollFlags::POLLERR),
            }
        }
    }
}

/// What of `events` is wanted is there.
fn satisfy(events: PollFlags, wanted: &mut PollFlags, found: &mut PollFlags) {
    found.insert(*wanted & events);
    wanted.remove(events);
}
