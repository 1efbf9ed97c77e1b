//! Pipes that a thread syncs itself, with neither a system call nor the service.
//!
//! Who has asked the service for a number of syncs asks it whether the rings can
//! be had. It may take them back, as when another thread uses the descriptor as
//! well; then they are asked for less often.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::PollFlags;
use vtnetd::netmap::pipe::borrowed::{Borrowed, Terms};
use vtnetd::netmap::port::Direction;
use vtnetd::netmap::service::wire::Answer;

/// Syncs of the service's before rings are asked for, at first and at most.
const FIRST: u32 = 16;
const MOST: u32 = 1 << 14;

/// What is known of the rings of a channel's connection.
#[derive(Debug, Default)]
enum Rings {
    /// The service was not asked.
    #[default]
    Unknown,
    /// They are none that a thread could sync itself.
    No,
    /// They can be had, or are.
    Mapped { rings: Borrowed, held: bool },
}

/// The rings of a channel's connection, if they are pipes'.
#[derive(Debug)]
pub(crate) struct Pipes {
    rings: Rings,
    /// Syncs of the service's before they are asked for.
    patience: u32,
    /// Syncs of whoever has synced last.
    syncs: u32,
    /// They were the thread's, and the service has no note of its polls.
    lost: bool,
}

impl Default for Pipes {
    fn default() -> Self {
        Self {
            rings: Rings::Unknown,
            patience: FIRST,
            syncs: 0,
            lost: false,
        }
    }
}

fn flags(events: u16) -> PollFlags {
    PollFlags::from_bits_retain(i16::from_ne_bytes(events.to_ne_bytes()))
}

impl Pipes {
    #[inline]
    fn held(&self) -> Option<&Borrowed> {
        match &self.rings {
            Rings::Mapped { rings, held: true } => Some(rings),
            _ => None,
        }
    }

    /// `NIOCTXSYNC`, `NIOCRXSYNC`. Returns whether it is done.
    #[inline]
    pub(crate) fn sync(&mut self, direction: Direction) -> bool {
        let Some(rings) = self.held() else {
            return false;
        };
        let done = rings.sync_each(direction).is_some();
        self.done(done);
        done
    }

    /// poll(2), without waiting; `None`: the service is to do it.
    #[inline]
    pub(crate) fn poll(&mut self, events: u16) -> Option<u16> {
        let found = self.held()?.poll(flags(events));
        self.done(found.is_some());
        found.map(|found| u16::from_ne_bytes(found.bits().to_ne_bytes()))
    }

    /// A sync of the thread's own, which was `done`, or the rings are gone.
    #[inline]
    fn done(&mut self, done: bool) {
        if done {
            self.syncs = self.syncs.saturating_add(1);
        } else {
            self.lose();
        }
    }

    /// They are the service's, as far as the thread knows.
    #[cold]
    pub(crate) fn lose(&mut self) {
        if let Rings::Mapped { held, .. } = &mut self.rings {
            self.lost |= std::mem::take(held);
        }
        // To get them has cost something.
        self.patience = if self.syncs > self.patience {
            FIRST
        } else {
            self.patience.saturating_mul(2).min(MOST)
        };
        self.syncs = 0;
    }

    /// Whether somebody is to be told of what was passed since this was asked
    /// last.
    #[inline]
    pub(crate) fn is_awaited(&self) -> bool {
        self.held().is_some_and(Borrowed::take_awaited)
    }

    /// What a poll was for may have come, where it was this thread's.
    #[inline]
    pub(crate) fn have_news(&self, events: u16) -> bool {
        self.held()
            .is_some_and(|rings| rings.has_news(flags(events)))
    }

    /// They are the thread's, as far as it knows.
    pub(crate) fn are_held(&self) -> bool {
        self.held().is_some()
    }

    /// Whether they were lost since this was asked last: the service may not
    /// know what polls were for.
    pub(crate) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// After a sync of the service's: it is time to ask for the rings.
    #[inline]
    pub(crate) fn are_due(&mut self) -> bool {
        if matches!(self.rings, Rings::No) {
            return false;
        }
        self.syncs = self.syncs.saturating_add(1);
        self.syncs > self.patience
    }

    /// Nobody knows whether they can be had.
    pub(crate) fn are_unknown(&self) -> bool {
        matches!(self.rings, Rings::Unknown)
    }

    /// Takes what the service has said of them.
    pub(crate) fn meet(&mut self, asked: Result<(Answer, Option<OwnedFd>), Errno>) {
        self.rings = asked
            .ok()
            .and_then(map)
            .map_or(Rings::No, |rings| Rings::Mapped { rings, held: false });
    }

    /// They can be had.
    pub(crate) fn can_be_had(&self) -> bool {
        matches!(self.rings, Rings::Mapped { .. })
    }

    /// They are the thread's, or not now.
    pub(crate) fn have(&mut self, had: bool) {
        if let (Rings::Mapped { held, .. }, true) = (&mut self.rings, had) {
            *held = true;
            self.syncs = 0;
        } else {
            self.lose();
        }
    }
}

/// The rings that an answer tells of.
fn map((answer, region): (Answer, Option<OwnedFd>)) -> Option<Borrowed> {
    let terms = answer.writes.first().filter(|_| answer.errno == 0)?;
    let terms = Terms::decode(&terms.data)?;
    Borrowed::new(region?.as_fd(), answer.value, terms).ok()
}
