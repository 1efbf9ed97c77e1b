//! Halves of pipes' links that a client has been lent, as it syncs them itself:
//! what a registration's rings are to a thread of the client.
//!
//! It has the region mapped, like its program. What it reads there may be the
//! claim of whoever shares the region, and is judged as the service judges it.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::poll::PollFlags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::pass::{Passing, so_far};
use crate::netmap::kring::Synced;
use crate::netmap::mem::{Buffers, Busy, Mapped, Progress, RingView};
use crate::netmap::poll::{IN, OUT, Polled, poll};
use crate::netmap::port::Direction;
use crate::netmap::sync::{self, User};

/// What a client has to know of the rings that it is lent, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The region's buffers.
    pub buffers: Buffers,
    /// The registration's flags.
    pub flags: u64,
    /// The client's number as a holder.
    pub holder: NonZeroU32,
    /// Its transmit rings.
    pub tx: Vec<RingTerms>,
    /// Its receive rings.
    pub rx: Vec<RingTerms>,
}

/// Where the two rings of a link are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RingTerms {
    /// The client's ring, in bytes from the start of the region.
    pub own: u64,
    /// The ring at the other end.
    pub other: u64,
    /// Slots of either.
    pub slots: u64,
}

/// What [`Terms`] begin with.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Head {
    buffers: Buffers,
    flags: u64,
    holder: u32,
    /// How many of the rings are transmit rings.
    tx: u32,
}

impl Terms {
    /// Their bytes.
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            buffers: self.buffers,
            flags: self.flags,
            holder: self.holder.get(),
            // No registration has that many.
            tx: u32::try_from(self.tx.len()).unwrap_or(u32::MAX),
        };
        let rings = self.tx.iter().chain(&self.rx);
        let rings = rings.flat_map(|ring| ring.as_bytes().to_vec());
        head.as_bytes().iter().copied().chain(rings).collect()
    }

    /// Those with these bytes, if they are any.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rings) = Head::read_from_prefix(bytes).ok()?;
        let mut tx = <[RingTerms]>::ref_from_bytes(rings).ok()?.to_vec();
        let rx = tx.split_off(usize::try_from(head.tx).ok().filter(|at| *at <= tx.len())?);
        Some(Self {
            buffers: head.buffers,
            flags: head.flags,
            holder: NonZeroU32::new(head.holder)?,
            tx,
            rx,
        })
    }
}

/// The rings of one registration, for one thread.
#[derive(Debug)]
pub struct Borrowed {
    memory: Mapped,
    terms: Terms,
    /// A half turned out to be the client's no more.
    lost: Cell<bool>,
    /// Somebody sleeps until what was passed comes.
    awaited: Cell<bool>,
}

impl Borrowed {
    /// Maps the region `fd` of `bytes` bytes, for rings as `terms` say.
    ///
    /// # Errors
    /// Those of mmap(2); `EINVAL`: the rings are not inside.
    pub fn new(fd: BorrowedFd<'_>, bytes: u64, terms: Terms) -> nix::Result<Self> {
        let borrowed = Self {
            memory: Mapped::new(fd, bytes, terms.buffers)?,
            terms,
            lost: Cell::new(false),
            awaited: Cell::new(false),
        };
        let all = borrowed.terms.tx.iter().chain(&borrowed.terms.rx);
        for ring in all {
            borrowed.both(ring).ok_or(Errno::EINVAL)?;
        }
        Ok(borrowed)
    }

    fn rings(&self, direction: Direction) -> &[RingTerms] {
        match direction {
            Direction::Tx => &self.terms.tx,
            Direction::Rx => &self.terms.rx,
        }
    }

    /// The client's ring, and the one at the other end.
    #[inline]
    fn both(&self, ring: &RingTerms) -> Option<[(RingView<'_>, Progress<'_>); 2]> {
        let slots = u32::try_from(ring.slots).ok()?;
        let own = self.memory.ring(ring.own, slots)?;
        Some([own, self.memory.ring(ring.other, slots)?])
    }

    #[inline]
    fn find(
        &self,
        direction: Direction,
        index: usize,
    ) -> Option<[(RingView<'_>, Progress<'_>); 2]> {
        self.both(self.rings(direction).get(index)?)
    }

    /// All of it is the client's, as far as it knows.
    #[inline]
    fn is_held(&self) -> bool {
        [Direction::Tx, Direction::Rx].iter().all(|direction| {
            let mut rings = self.rings(*direction).iter();
            rings.all(|ring| {
                let both = self.both(ring);
                both.is_some_and(|[(_, progress), _]| progress.is_held_by(self.terms.holder))
            })
        })
    }

    /// `NIOCTXSYNC`, `NIOCRXSYNC`. `None`: a half is the client's no more, and
    /// the service is to be asked.
    #[inline]
    pub fn sync_each(&self, direction: Direction) -> Option<()> {
        for index in 0..self.rings(direction).len() {
            self.sync_ring(direction, index)?;
        }
        Some(())
    }

    /// poll(2), without waiting. `None` as above.
    #[inline]
    pub fn poll(&self, events: PollFlags) -> Option<PollFlags> {
        self.lost.set(!self.is_held());
        if self.lost.get() {
            return None;
        }
        let found = poll(self, self.terms.flags, events, false);
        (!self.lost.get()).then_some(found)
    }

    /// What `events` ask for may have come since the last sync, or a half is the
    /// client's no more.
    #[inline]
    pub fn has_news(&self, events: PollFlags) -> bool {
        let moved = |direction| {
            self.rings(direction).iter().any(|ring| {
                let both = self.both(ring);
                both.is_none_or(|[(view, own), (_, other)]| {
                    own.state().1.hwtail != so_far(&other, &view)
                })
            })
        };
        events.intersects(IN) && moved(Direction::Rx)
            || events.intersects(OUT) && moved(Direction::Tx)
            || !self.is_held()
    }

    /// Whether somebody has to be told of what was passed since this was asked
    /// last.
    #[inline]
    pub fn take_awaited(&self) -> bool {
        self.awaited.replace(false)
    }

    fn sync_ring(&self, direction: Direction, index: usize) -> Option<Synced> {
        let both = self.find(direction, index)?;
        let [(_, progress), _] = both;
        self.sync_begun(direction, both, progress.begin(self.terms.holder)?)
    }

    /// A sync that has begun, of a half that may have been lost since.
    pub(super) fn sync_begun(
        &self,
        direction: Direction,
        [(own, progress), (other, others)]: [(RingView<'_>, Progress<'_>); 2],
        busy: Busy<'_>,
    ) -> Option<Synced> {
        let (mut user, before) = progress.state();
        let checked = match direction {
            Direction::Tx => sync::txsync_prologue(&mut user, &own, None),
            Direction::Rx => sync::rxsync_prologue(&mut user, before, &own, None),
        };
        if checked.is_err() {
            sync::reinit(&mut user, before, &own);
        }
        // Who was taken for dead meanwhile says nothing that is not so any more:
        // what it has passed is in `passed`, which the service goes by.
        let is_held = || progress.is_held_by(self.terms.holder);
        let passed = match direction {
            Direction::Tx => Passing {
                tx: own,
                rx: other,
                tx_progress: progress,
                rx_progress: others,
            }
            .send(user.rhead, before, |_| is_held()),
            Direction::Rx => Passing {
                tx: other,
                rx: own,
                tx_progress: others,
                rx_progress: progress,
            }
            .take(user.rhead, before, is_held),
        };
        if !is_held() {
            return None;
        }
        sync::finalize(&mut user, passed.after, &own, false);
        if direction == Direction::Rx {
            sync::timestamp(&own);
        }
        progress.set_state(user, passed.after);
        drop(busy);
        if passed.more && progress.is_awaited() {
            self.awaited.set(true);
        }
        Some(Synced::new(checked.is_err(), &user))
    }
}

impl Polled for Borrowed {
    fn count(&self, direction: Direction) -> usize {
        self.rings(direction).len()
    }

    #[inline]
    fn at(&self, direction: Direction, index: usize) -> Option<(RingView<'_>, User)> {
        let [(own, progress), _] = self.find(direction, index)?;
        Some((own, progress.state().0))
    }

    #[inline]
    fn hwcur(&self, index: usize) -> u32 {
        let found = self.find(Direction::Tx, index);
        found.map_or(0, |[(_, progress), _]| progress.state().1.hwcur)
    }

    #[inline]
    fn sync(&self, direction: Direction, index: usize) -> Result<Synced, Errno> {
        self.sync_ring(direction, index).ok_or_else(|| {
            self.lost.set(true);
            Errno::EAGAIN
        })
    }

    /// The service is told when the thread goes to sleep.
    fn wait_for(&self, _: Direction) {}
}
