//! A link: a transmit ring and the receive ring that it leads to, and who syncs
//! either half, the service or a client that it is lent to.
//!
//! **A loan.** The half's [`Progress`] gets what the kring knows, and the
//! client's number as its holder. Lent is what only the two ends have to do
//! with: not a ring that has monitors or offsets, nor one that fills its object.
//!
//! **Its end.** Whoever syncs a half in the service, or changes what the holder
//! does not know of, takes it back first: changes, then recalls, where a loan is
//! judged under the same lock. A client that is in a sync just then is waited
//! for, but no longer than [`PATIENCE`]: one that was stopped there publishes
//! nothing when it goes on, and one that only claims to be there spoils the rings
//! of those who share its region. What it had published by then is done with, and
//! whoever sleeps at the other half is told: the client may not get to it.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::pass::{Passing, so_far};
use crate::netmap::abi::Slot;
use crate::netmap::kring::{Kring, Synced};
use crate::netmap::mem::{Line, Progress};
use crate::netmap::port::Direction;
use crate::netmap::sync::{Hardware, User};

/// How long a sync of a client is waited for.
pub const PATIENCE: Duration = Duration::from_millis(5);

/// Who has a half.
#[derive(Debug, Default)]
struct Loan {
    holder: Option<NonZeroU32>,
    /// Since when it is wanted back.
    recalled: Option<Instant>,
}

/// One ring of a link.
#[derive(Debug)]
struct Half {
    kring: Arc<Kring>,
    /// Of a ring that has no room for it.
    line: Line,
    /// Held in every sync of the service's, and while a loan begins or ends.
    loan: Mutex<Loan>,
}

impl Half {
    fn new(kring: Arc<Kring>) -> Self {
        Self {
            kring,
            line: Line::default(),
            loan: Mutex::default(),
        }
    }

    #[inline]
    fn progress(&self) -> Progress<'_> {
        self.kring
            .memory()
            .progress()
            .unwrap_or_else(|| Progress::private(&self.line))
    }

    fn loan(&self) -> MutexGuard<'_, Loan> {
        // Each change of it is whole.
        self.loan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transmit ring and the receive ring that it leads to.
#[derive(Debug)]
pub struct Link {
    tx: Half,
    rx: Half,
    /// Some registration has had it.
    kept: AtomicBool,
}

impl Link {
    /// A link of two new rings, of which one has buffers for both.
    pub(super) fn new(tx: Arc<Kring>, rx: Arc<Kring>) -> Self {
        let (tx, rx) = (Half::new(tx), Half::new(rx));
        // What each may have from the other is where it stands itself.
        tx.progress().pass(rx.kring.hardware().hwtail);
        rx.progress().pass(tx.kring.hardware().hwtail);
        Self {
            tx,
            rx,
            kept: AtomicBool::new(false),
        }
    }

    #[inline]
    fn half(&self, direction: Direction) -> &Half {
        match direction {
            Direction::Tx => &self.tx,
            Direction::Rx => &self.rx,
        }
    }

    /// The ring of one direction.
    pub fn kring(&self, direction: Direction) -> &Arc<Kring> {
        &self.half(direction).kring
    }

    /// Somebody is registered with it: it stays as long as the pipe.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Somebody was.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    #[inline]
    fn passing(&self) -> Passing<'_> {
        Passing {
            tx: self.tx.kring.view(),
            rx: self.rx.kring.view(),
            tx_progress: self.tx.progress(),
            rx_progress: self.rx.progress(),
        }
    }

    /// Sends: whole frames are published, what is left of one waits for its
    /// end.
    pub fn txsync(&self) -> Synced {
        let _home = self.home(Direction::Tx);
        let (tx, rx) = (&self.tx.kring, &self.rx.kring);
        tx.txsync_with(|head, hardware| {
            let passed = self.passing().send(head, hardware, |slots| {
                rx.watched(slots);
                true
            });
            tx.count(&passed.counts);
            if passed.more {
                rx.notify();
            }
            passed.after
        })
    }

    /// Receives: what was published is the application's, what it released is
    /// the sender's again.
    pub fn rxsync(&self) -> Synced {
        let _home = self.home(Direction::Rx);
        let (tx, rx) = (&self.tx.kring, &self.rx.kring);
        rx.rxsync_with(|head, hardware| {
            let passed = self.passing().take(head, hardware, || true);
            rx.count(&passed.counts);
            rx.set_hardware(passed.after);
            if passed.more {
                tx.notify();
            }
            passed.after
        })
    }

    /// Somebody is going to sleep until the ring has frames, or room: a client
    /// that has the other half is to say when it passes some. Whoever sleeps
    /// looks once more.
    pub fn wait_for(&self, direction: Direction) {
        self.half(direction.other()).progress().await_more();
    }

    /// The client that has this half has passed something on: tells whoever
    /// sleeps at the other one.
    pub fn tell_other(&self, direction: Direction) {
        self.half(direction).progress().told();
        self.kring(direction.other()).notify();
    }

    /// Lends a half to the client with the number `holder`. Returns whether it
    /// has it now.
    pub fn lend(&self, direction: Direction, holder: NonZeroU32) -> bool {
        let half = self.half(direction);
        let mut loan = half.loan();
        let can_be = |half: &Half| {
            let memory = half.kring.memory();
            memory.progress().is_some()
                && memory.offsets().is_none()
                && !half.kring.watch().is_watched()
        };
        if loan.holder.is_some() || !can_be(&self.tx) || !can_be(&self.rx) {
            return loan.holder == Some(holder) && loan.recalled.is_none();
        }
        let progress = half.progress();
        progress.set_state(half.kring.user(), half.kring.hardware());
        let lent = progress.lend(holder);
        if lent {
            loan.holder = Some(holder);
        }
        lent
    }

    /// The half of this direction is lent to `holder`.
    pub fn is_lent_to(&self, direction: Direction, holder: NonZeroU32) -> bool {
        self.half(direction).loan().holder == Some(holder)
    }

    /// Takes a half back, if it is lent, without waiting. Returns whether it is
    /// the service's: to be asked again if not.
    pub fn try_recall(&self, direction: Direction) -> bool {
        self.come_home(direction, &mut self.half(direction).loan())
    }

    /// Takes a half back from `holder`, which is gone.
    pub fn take_back(&self, direction: Direction, holder: NonZeroU32) {
        let mut loan = self.half(direction).loan();
        if loan.holder == Some(holder) {
            self.end(direction, &mut loan);
        }
    }

    /// Nobody has this half bound any more: takes it back from whoever had it.
    pub(in crate::netmap) fn leave(&self, direction: Direction) {
        let mut loan = self.half(direction).loan();
        if loan.holder.is_some() {
            self.end(direction, &mut loan);
        }
    }

    /// Takes both halves back: what has changed before is known to whoever gets
    /// them next.
    pub fn recall(&self) {
        // Both are on their way before one is waited for, and a worker that has
        // to do with one does not wait meanwhile. One that is lent anew by then
        // is lent to somebody who knows.
        let begun = Instant::now();
        loop {
            let home = [Direction::Tx, Direction::Rx].map(|half| self.try_recall(half));
            if home == [true, true] || begun.elapsed() >= 2 * PATIENCE {
                return;
            }
            thread::yield_now();
        }
    }

    /// A half that is the service's while the guard is there.
    #[inline]
    fn home(&self, direction: Direction) -> MutexGuard<'_, Loan> {
        let mut loan = self.half(direction).loan();
        while loan.holder.is_some() && !self.come_home(direction, &mut loan) {
            thread::yield_now();
        }
        loan
    }

    /// Takes a half back if nobody is in a sync of it, or has been for too long.
    fn come_home(&self, direction: Direction, loan: &mut Loan) -> bool {
        if loan.holder.is_none() {
            return true;
        }
        let half = self.half(direction);
        if !half.progress().recall() {
            let since = *loan.recalled.get_or_insert_with(Instant::now);
            if since.elapsed() < PATIENCE {
                return false;
            }
            tracing::debug!("{}: a client does not end its sync", half.kring.name());
        }
        self.end(direction, loan);
        true
    }

    /// The kring goes on from where the holder says that it is. Numbers that are
    /// none of the ring's are the last slot's: what comes of them is the
    /// holder's.
    ///
    /// The holder may have been stopped, or have heard of this, between passing
    /// slots on and saying so, or telling who sleeps.
    fn end(&self, direction: Direction, loan: &mut Loan) {
        let half = self.half(direction);
        let view = half.kring.view();
        let progress = half.progress();
        progress.recall();
        let last = view.num_slots().saturating_sub(1);
        let (user, hardware) = progress.state();
        let mut user = User {
            rhead: user.rhead.min(last),
            rcur: user.rcur.min(last),
            rtail: user.rtail.min(last),
        };
        let mut hardware = Hardware {
            hwcur: hardware.hwcur.min(last),
            hwtail: hardware.hwtail.min(last),
        };
        let passed = so_far(&progress, &view);
        let done = match direction {
            Direction::Tx => passed,
            Direction::Rx => view.next(passed),
        };
        // Slots that the other half has got are not passed on again: they are
        // its own by now. (What is left of a frame is done with before it is
        // passed, and not among those that the application had.)
        let unsaid = view.distance(hardware.hwcur, done);
        if unsaid > 0 && unsaid <= view.distance(hardware.hwcur, hardware.hwtail) {
            hardware.hwcur = done;
            (user.rhead, user.rcur) = (done, done);
        }
        half.kring.resume(user, hardware);
        *loan = Loan::default();
        self.tell_other(direction);
    }
}

impl Drop for Link {
    /// Each buffer is named by one of the two rings from here on, so that each
    /// goes back once.
    fn drop(&mut self) {
        for direction in [Direction::Tx, Direction::Rx] {
            self.leave(direction);
        }
        let Passing { tx, rx, .. } = self.passing();
        let first = self.rx.kring.hardware().hwcur;
        let sent = rx.distance(first, self.tx.progress().passed());
        for at in 0..rx.num_slots() {
            let view = if rx.distance(first, at) < sent {
                &tx
            } else {
                &rx
            };
            view.set_slot(at, Slot::default());
        }
    }
}
