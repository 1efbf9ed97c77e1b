//! One turn on one ring (`netmap_sync_kloop_tx_ring`,
//! `netmap_sync_kloop_rx_ring`).

use nix::errno::Errno;

use super::Rings;
use super::job::Job;
use super::sleep::signal;
use crate::netmap::mem::Entry;
use crate::netmap::port::Direction;
use crate::netmap::sync::{Hardware, Pointers};

/// Syncs in one turn, so that one busy ring keeps neither the others waiting
/// nor whoever ends the loop.
const SYNCS: u32 = 64;
/// Syncs of a receive ring that bring nothing before it is left.
const DRY: u32 = 2;

/// One ring, as the loop knows it.
#[derive(Debug)]
pub(super) struct LoopRing<'m> {
    direction: Direction,
    index: u16,
    slots: u32,
    entry: Entry<'m>,
    /// Wakes the client; negative: it is not woken.
    irq: i32,
    direct: bool,
    /// Nobody wakes the loop: it looks by itself.
    busy_wait: bool,
    /// `head` as it was taken over last.
    rhead: u32,
    /// `tail` as the client was told last.
    rtail: u32,
}

/// What comes after a sync.
enum Next {
    /// Another one, with these pointers.
    Sync(Pointers),
    /// Nothing more to do, for now.
    Leave,
}

impl<'m> LoopRing<'m> {
    pub(super) fn new(
        job: &Job,
        (direction, index): (Direction, u32),
        entry: Entry<'m>,
        nth: usize,
    ) -> Option<Self> {
        let direct = job.plan.is_direct(direction);
        let busy_wait = !job.has_events();
        Some(Self {
            direction,
            index: u16::try_from(index).ok()?,
            slots: job.plan.slots(direction),
            irq: job.events.get(nth).map_or(-1, |events| events.irqfd),
            direct,
            busy_wait,
            rhead: entry.pointers().head,
            rtail: entry.published().hwtail,
            entry,
        })
    }

    /// It is synced when its client says so alone.
    pub(super) fn is_direct(&self) -> bool {
        self.direct
    }

    /// Wakes the client, of a ring in direct mode.
    pub(super) fn interrupt(&self) {
        signal(self.irq);
    }

    /// Syncs until there is nothing to do. `true`: there still is.
    pub(super) fn turn(&mut self, rings: &mut impl Rings) -> bool {
        if !self.direct {
            self.entry.want_kick(false);
        }
        let mut pointers = self.entry.pointers();
        let mut news = false;
        let mut dry = 0;
        let mut busy = true;
        for _ in 0..SYNCS {
            let Ok(hardware) = self.sync(rings, pointers) else {
                if !self.busy_wait {
                    self.entry.want_kick(true);
                }
                busy = false;
                break;
            };
            dry += 1;
            if self.rtail != hardware.hwtail {
                self.rtail = hardware.hwtail;
                news = true;
                dry = 0;
            }
            self.tell(&mut news);
            match self.next(hardware, dry) {
                Next::Sync(next) => pointers = next,
                Next::Leave => {
                    busy = false;
                    break;
                }
            }
        }
        self.tell(&mut news);
        busy
    }

    fn sync(&mut self, rings: &mut impl Rings, pointers: Pointers) -> Result<Hardware, Errno> {
        let hardware = rings.sync(self.direction, self.index, pointers)?;
        self.rhead = pointers.head;
        self.entry.publish(hardware);
        Ok(hardware)
    }

    /// Wakes the client if there is something for it, and it waits for that. In
    /// the kernel's direct mode a ring is synced before the client's write
    /// returns, which then looks by itself; here it may be asleep by now.
    fn tell(&self, news: &mut bool) {
        if *news && self.irq >= 0 && self.entry.is_awaited() {
            signal(self.irq);
            *news = false;
        }
    }

    /// The client has nothing for the loop: a transmit ring has nothing to
    /// send, a receive ring has no room.
    fn is_idle(&self, pointers: Pointers, hardware: Hardware) -> bool {
        match self.direction {
            Direction::Tx => pointers.head == self.rhead,
            Direction::Rx => {
                let last = self.slots.saturating_sub(1);
                hardware.hwtail == pointers.head.checked_sub(1).unwrap_or(last)
            }
        }
    }

    fn next(&self, hardware: Hardware, dry: u32) -> Next {
        let mut pointers = self.entry.pointers();
        if self.is_idle(pointers, hardware) {
            if self.busy_wait {
                return Next::Leave;
            }
            // The client is to wake the loop from now on; what it has done
            // just before is seen here.
            self.entry.want_kick(true);
            pointers = self.entry.pointers();
            if self.is_idle(pointers, hardware) {
                return Next::Leave;
            }
            if !self.direct {
                self.entry.want_kick(false);
            }
            return Next::Sync(pointers);
        }
        // The port has no room, or no frames: it tells when it has.
        let waits = hardware.hwtail == self.rhead;
        if waits || (self.direction == Direction::Rx && dry >= DRY) {
            Next::Leave
        } else {
            Next::Sync(pointers)
        }
    }
}
