//! The sync page of a channel: a page of shared memory over which a thread asks
//! for syncs and gets its answers.
//!
//! ```text
//!  0 request  u64  client   number << 32 | operation
//!  8 sleeping u32  client 1; the service sets it to 0 when it rings
//! 12 head     u32  client  where it is in a ring of its loop
//! 16 cur      u32  client  likewise
//! 64 answer   u64  service  number << 32 | result
//! 72 extra    u64  service  more of the result
//! 80 awake    u32  service  it looks at the page
//! 84 ready    u32  service  how often what was waited for may have come
//! 88 place    u32  service  the processor it is on, plus one; 0: it does not say
//! ```
//!
//! **A request.** The client adds one to the request's number, stores number
//! and operation as one ([`Client::ask`]), and rings the bell if the service is
//! not awake. The answer is there when it has the request's number
//! ([`Client::answer`]); one at a time, and one that was given up (a signal came)
//! is overwritten by the next. The client looks for a while, gives up the
//! processor between looks, and then sleeps: [`Client::sleep`], *look once
//! more*, wait until the bell is readable, [`Client::wake`], read the bell empty,
//! look again.
//!
//! **The service** looks at the pages of busy clients round after round. One
//! that has asked nothing for a while rests: `awake` is 0 then, and the bell
//! brings it back. It rings the client's bell only when `sleeping` is set.
//!
//! Both sides store what they have to say first and look at the other's flag
//! then, with a sequentially consistent fence in between, so that at least one
//! of them sees the other: no wake-up is lost.
//!
//! **Waiting.** [`Operation::Poll`] with `arm` that finds nothing leaves a note
//! with the port: when something may have come, `ready` changes (and the bell
//! rings if the client sleeps), and the client asks again. `ready` is read before
//! the request is made. One note is one change; more may come. Who has its rings
//! itself ([`Operation::Borrow`]) leaves the note by [`Operation::Await`], and
//! looks at the rings once more.
//!
//! **Place.** A client on the processor that the service works on is in its way,
//! however often it gives that up, while there may be another that nobody needs.
//! So the service says with each answer where it is, and who waits for it there
//! goes elsewhere.
//!
//! **Sending.** [`Operation::Poll`] for room alone, where there is some, is
//! answered before what was handed over is sent. The service does that before it
//! looks at the page again, so that the next request waits for it, and the
//! client fills slots meanwhile.
//!
//! What is read here is the other side's claim: the service believes nothing
//! but the two numbers that it checks, and clients may scribble over all of it.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

use crate::netmap::port::Direction;
use crate::netmap::sync::Pointers;
use crate::word::{AtomicU32, AtomicU64, fence};

/// Bytes of a sync page's object. What is behind the fields is not used.
pub const PAGE: usize = 4096;

const REQUEST: usize = 0;
const SLEEPING: usize = 8;
const HEAD: usize = 12;
const CUR: usize = 16;
const ANSWER: usize = 64;
const EXTRA: usize = 72;
const AWAKE: usize = 80;
const READY: usize = 84;
const PLACE: usize = 88;

const TXSYNC: u32 = 1;
const RXSYNC: u32 = 2;
const POLL: u32 = 3;
const RING_TX: u32 = 4;
const RING_RX: u32 = 5;
const LISTEN: u32 = 6;
const BORROW: u32 = 7;
const AWAIT: u32 = 8;
const TELL: u32 = 9;
/// Of a poll's argument, beside its events.
const ARM: u32 = 1 << 16;

/// What a client asks for. In 32 bits: the kind in the lowest 8, its argument
/// in the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `NIOCTXSYNC`, `NIOCRXSYNC`. The result is an errno.
    Sync(Direction),
    /// What poll(2) does. The result is the events that are there.
    Poll {
        /// `POLLIN` and so on, the system's own numbers.
        events: u16,
        /// `ready` is to change when there may be more.
        arm: bool,
    },
    /// Syncs one of the bound rings, counted from 0, for a sync loop that the
    /// client runs itself: allowed when, and only when, a block of ring
    /// pointers is shared (`NETMAP_REQ_OPT_CSB`). The result is an errno, and
    /// `extra` is `hwcur << 32 | hwtail`.
    Ring {
        /// Which way the ring goes.
        direction: Direction,
        /// Which one.
        ring: u16,
        /// Where the client is in it.
        pointers: Pointers,
    },
    /// Leaves a note, as a poll with `arm` that finds nothing, for whatever
    /// comes in any ring; allowed as [`Ring`](Self::Ring). The result is an
    /// errno.
    Listen,
    /// The client syncs its rings itself from now on, as the terms say that it
    /// has got ([`Request::Borrow`](super::Request::Borrow)). The result is an
    /// errno: `EAGAIN`, not now.
    Borrow,
    /// Of a client that has its rings: leaves a note, as a poll with `arm` that
    /// finds nothing. The result is an errno: `EAGAIN`, it has them no more.
    Await {
        /// What for, as in a poll.
        events: u16,
    },
    /// Of a client that has its rings: whoever sleeps until it passes something
    /// on is to be told. The result is an errno.
    Tell,
}

impl Operation {
    /// The service syncs for it, and has to have the rings itself.
    pub(in crate::netmap::service) fn is_sync(self) -> bool {
        match self {
            Self::Sync(_) | Self::Poll { .. } | Self::Ring { .. } | Self::Listen => true,
            Self::Borrow | Self::Await { .. } | Self::Tell => false,
        }
    }

    fn to_word(self) -> u32 {
        match self {
            Self::Sync(Direction::Tx) => TXSYNC,
            Self::Sync(Direction::Rx) => RXSYNC,
            Self::Poll { events, arm } => {
                POLL | (u32::from(events) | if arm { ARM } else { 0 }) << 8
            }
            Self::Ring {
                direction, ring, ..
            } => {
                let kind = match direction {
                    Direction::Tx => RING_TX,
                    Direction::Rx => RING_RX,
                };
                kind | u32::from(ring) << 8
            }
            Self::Listen => LISTEN,
            Self::Borrow => BORROW,
            Self::Await { events } => AWAIT | u32::from(events) << 8,
            Self::Tell => TELL,
        }
    }

    /// `None`: there is no such operation.
    fn from_word(word: u32, pointers: impl FnOnce() -> Pointers) -> Option<Self> {
        let argument = word >> 8;
        #[expect(clippy::cast_possible_truncation, reason = "what is cut is told apart")]
        let short = argument as u16;
        Some(match word & 0xff {
            TXSYNC => Self::Sync(Direction::Tx),
            RXSYNC => Self::Sync(Direction::Rx),
            POLL => Self::Poll {
                events: short,
                arm: argument & ARM != 0,
            },
            RING_TX | RING_RX => Self::Ring {
                direction: if word & 0xff == RING_TX {
                    Direction::Tx
                } else {
                    Direction::Rx
                },
                ring: short,
                pointers: pointers(),
            },
            LISTEN => Self::Listen,
            BORROW => Self::Borrow,
            AWAIT => Self::Await { events: short },
            TELL => Self::Tell,
            _ => return None,
        })
    }
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// An errno, or a poll's events.
    pub result: u32,
    /// A ring's `hwcur << 32 | hwtail`.
    pub extra: u64,
}

/// A page that is mapped here.
#[derive(Debug)]
struct Mapping(NonNull<u8>);

// SAFETY: a mapping belongs to no thread, and all access to it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>) -> nix::Result<Self> {
        const LEN: NonZeroUsize = NonZeroUsize::new(PAGE).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the system's choice touches
        // no memory that this program knows.
        let base = unsafe { mmap(None, LEN, protection, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self(base.cast()))
    }

    #[inline]
    fn word<const AT: usize>(&self) -> &AtomicU32 {
        const { assert!(AT % 4 == 0 && AT + 4 <= PAGE) };
        // SAFETY: it is inside of the mapping, which lives as long as `self`,
        // and aligned; whoever else has it mapped makes atomic accesses, or
        // spoils numbers that are believed of nobody.
        unsafe { AtomicU32::from_ptr(self.0.add(AT).cast().as_ptr()) }
    }

    #[inline]
    fn long<const AT: usize>(&self) -> &AtomicU64 {
        const { assert!(AT % 8 == 0 && AT + 8 <= PAGE) };
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(self.0.add(AT).cast().as_ptr()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; nothing borrows it any more.
        if let Err(errno) = unsafe { munmap(self.0.cast(), PAGE) } {
            tracing::error!("sync page not unmapped: {errno}");
        }
    }
}

/// Two halves as one: number above, value below.
fn join(number: u32, value: u32) -> u64 {
    u64::from(number) << 32 | u64::from(value)
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of it")]
fn split(both: u64) -> (u32, u32) {
    ((both >> 32) as u32, both as u32)
}

/// The client's side.
#[derive(Debug)]
pub struct Client {
    page: Mapping,
    /// Number of the request that was made last.
    number: u32,
}

impl Client {
    /// Maps the page that the service has handed over.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn new(fd: BorrowedFd<'_>) -> nix::Result<Self> {
        let page = Mapping::new(fd)?;
        let (number, _) = split(page.long::<REQUEST>().load(Ordering::Relaxed));
        Ok(Self { page, number })
    }

    /// Makes a request, in place of one that may be there. Returns whether the
    /// bell is to be rung, for the service does not look.
    #[inline]
    #[must_use = "the service may have to be woken"]
    pub fn ask(&mut self, operation: Operation) -> bool {
        self.number = self.number.wrapping_add(1);
        if let Operation::Ring { pointers, .. } = operation {
            let Pointers { head, cur } = pointers;
            self.page.word::<HEAD>().store(head, Ordering::Relaxed);
            self.page.word::<CUR>().store(cur, Ordering::Relaxed);
        }
        let request = join(self.number, operation.to_word());
        self.page
            .long::<REQUEST>()
            .store(request, Ordering::Release);
        fence(Ordering::SeqCst);
        self.page.word::<AWAKE>().load(Ordering::Relaxed) == 0
    }

    /// The answer to the request that was made last, once it is there.
    #[inline]
    pub fn answer(&self) -> Option<Outcome> {
        let (number, result) = split(self.page.long::<ANSWER>().load(Ordering::Acquire));
        (number == self.number).then(|| Outcome {
            result,
            extra: self.page.long::<EXTRA>().load(Ordering::Relaxed),
        })
    }

    /// How often what is waited for may have come.
    #[inline]
    pub fn ready(&self) -> u32 {
        self.page.word::<READY>().load(Ordering::Acquire)
    }

    /// The processor that the service works on, as it said last; `None`: it
    /// rests, or does not know.
    #[inline]
    pub fn place(&self) -> Option<u32> {
        if self.page.word::<AWAKE>().load(Ordering::Relaxed) == 0 {
            return None;
        }
        let place = self.page.word::<PLACE>().load(Ordering::Relaxed);
        place.checked_sub(1)
    }

    /// The service is to ring when it has something to say. Whoever calls this
    /// looks once more before it waits for the bell.
    #[inline]
    pub fn sleep(&self) {
        self.page.word::<SLEEPING>().store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// It need not ring any more.
    #[inline]
    pub fn wake(&self) {
        self.page.word::<SLEEPING>().store(0, Ordering::Relaxed);
    }
}

/// The service's side.
#[derive(Debug)]
pub struct Service {
    page: Mapping,
}

impl Service {
    /// A new page, and the descriptor that is for the client. Nobody who has
    /// that can make it smaller.
    ///
    /// # Errors
    /// Those of memfd_create(2) and mmap(2): no descriptors or memory left.
    pub fn new() -> nix::Result<(Self, OwnedFd)> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = memfd_create(c"netmap-sync", flags)?;
        // It is small.
        ftruncate(&fd, libc::off_t::try_from(PAGE).unwrap_or_default())?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        let page = Mapping::new(fd.as_fd())?;
        Ok((Self { page }, fd))
    }

    /// The client's side of a page that a model's threads share, which is empty.
    /// Its mapping is the service's.
    #[cfg(loom)]
    pub fn share(&self) -> std::mem::ManuallyDrop<Client> {
        for (at, len, width) in [
            (REQUEST, 8, 8),
            (SLEEPING, 12, 4),
            (ANSWER, 16, 8),
            (AWAKE, 12, 4),
        ] {
            crate::word::model::share(self.page.0.as_ptr().wrapping_add(at), len, width);
        }
        std::mem::ManuallyDrop::new(Client {
            page: Mapping(self.page.0),
            number: 0,
        })
    }

    /// Number and operation of a request, if it is not `last`. An operation
    /// that does not exist is `None`.
    #[inline]
    pub fn request(&self, last: u32) -> Option<(u32, Option<Operation>)> {
        let (number, word) = split(self.page.long::<REQUEST>().load(Ordering::Acquire));
        let pointers = || Pointers {
            head: self.page.word::<HEAD>().load(Ordering::Relaxed),
            cur: self.page.word::<CUR>().load(Ordering::Relaxed),
        };
        (number != last).then(|| (number, Operation::from_word(word, pointers)))
    }

    /// Answers request `number`. Returns whether the bell is to be rung.
    #[inline]
    #[must_use = "the client may sleep"]
    pub fn answer(&self, number: u32, outcome: Outcome) -> bool {
        self.page
            .long::<EXTRA>()
            .store(outcome.extra, Ordering::Relaxed);
        let answer = join(number, outcome.result);
        self.page.long::<ANSWER>().store(answer, Ordering::Release);
        self.client_sleeps()
    }

    /// What was waited for may have come. Returns whether the bell is to be
    /// rung. Called by one thread at a time.
    #[inline]
    #[must_use = "the client may sleep"]
    pub fn ready(&self) -> bool {
        self.page.word::<READY>().fetch_add(1, Ordering::Release);
        self.client_sleeps()
    }

    /// Whether the client has to be rung for; it is said once for each sleep.
    #[inline]
    fn client_sleeps(&self) -> bool {
        fence(Ordering::SeqCst);
        let sleeping = self.page.word::<SLEEPING>();
        sleeping.load(Ordering::Relaxed) != 0 && sleeping.swap(0, Ordering::Relaxed) != 0
    }

    /// Says which processor the service is on.
    #[inline]
    pub fn set_place(&self, processor: Option<u32>) {
        let place = processor.map_or(0, |processor| processor.saturating_add(1));
        self.page.word::<PLACE>().store(place, Ordering::Relaxed);
    }

    /// Says whether the service looks at the page from now on. Whoever says no
    /// looks once more afterwards.
    #[inline]
    pub fn set_awake(&self, awake: bool) {
        self.page
            .word::<AWAKE>()
            .store(awake.into(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}
