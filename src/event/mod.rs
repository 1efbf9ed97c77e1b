//! The event loop: one interface over epoll(7) on Linux and kqueue(2) on
//! FreeBSD.
//!
//! A [`Poller`] watches descriptors and says which of them are ready, each by
//! the token it was added under. A [`Waker`] makes another thread's `wait`
//! return. [`Signals`] turns signals into a descriptor that a poller watches
//! like any other. An [`Alarm`] ends system calls that others make block.
//! [`give_way`] and [`leave`] let others have a processor.
//!
//! Two kinds of trigger:
//!
//! - *level*: ready is told on every [`Poller::wait`] for as long as it lasts;
//! - *edge*: ready is told once, when it becomes so, and again when more
//!   arrives. Whoever is told must read or write until it would block.
//!
//! What holds on both systems, and callers may build on:
//!
//! - what is ready already when a descriptor is added or modified is told by
//!   the next wait, with either trigger;
//! - a wait that a signal handler interrupts is not an error, it returns
//!   without events;
//! - a descriptor must be removed before it is closed: when another process
//!   holds a duplicate, as a VMM does of every descriptor it passed, closing
//!   alone leaves epoll telling about it for ever;
//! - events that a wait has returned may name a token that was removed while
//!   the ones before it were handled. Tokens should not be used again at once.

mod alarm;
#[cfg(target_os = "linux")]
mod epoll;
#[cfg(target_os = "linux")]
use epoll as sys;
#[cfg(not(target_os = "linux"))]
mod kqueue;
#[cfg(not(target_os = "linux"))]
use kqueue as sys;
mod give_way;
mod processor;
#[cfg(test)]
mod tests;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

pub use alarm::{Alarm, PERIOD, rings};
pub use give_way::give_way;
pub use nix::sys::signal::Signal;
pub use processor::{leave, processor};

/// Most events that one [`Poller::wait`] returns; the rest come with the next.
pub const EVENTS: usize = 64;

/// The signals that [`Signals`] blocks and receives; a SIGHUP that is ignored
/// stays ignored.
pub const SIGNALS: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
];

/// What to be told about a descriptor.
///
/// With neither `read` nor `write` the descriptor rests. epoll still tells of
/// a hang-up then and kqueue does not, so a descriptor that may hang up should
/// be removed instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// There is something to read, a connection to accept, or the end.
    pub read: bool,
    /// There is room to write, or connect(2) is done.
    pub write: bool,
    /// Told once for each change (EPOLLET, EV_CLEAR), not as long as it lasts.
    pub edge: bool,
}

impl Interest {
    /// Readable, level-triggered.
    pub const READ: Self = Self {
        read: true,
        write: false,
        edge: false,
    };
    /// Readable, edge-triggered.
    pub const READ_EDGE: Self = Self {
        edge: true,
        ..Self::READ
    };
    /// Writable, level-triggered.
    pub const WRITE: Self = Self {
        read: false,
        write: true,
        edge: false,
    };
    /// Readable or writable, level-triggered.
    pub const READ_WRITE: Self = Self {
        write: true,
        ..Self::READ
    };
}

/// One descriptor is ready.
///
/// A descriptor that is both readable and writable may come as one event
/// (epoll) or as two (kqueue).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What the descriptor was added under.
    pub token: u64,
    /// A read, or accept(2), will not block.
    pub readable: bool,
    /// A write will not block, or connect(2) is done.
    pub writable: bool,
    /// The peer has closed, at least its sending side, or the descriptor has
    /// failed. What was sent before that can still be read.
    pub hangup: bool,
}

/// What a wait has returned; used again for the next one, so that waiting
/// allocates nothing.
#[derive(Debug)]
pub struct Events(sys::Events);

impl Events {
    /// Room for [`EVENTS`] events.
    pub fn new() -> Self {
        Self(sys::Events::new())
    }

    /// The events, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.0.iter()
    }

    /// The wait ended without an event: by time, or by a signal.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

/// Watches descriptors. All methods take `&self`, and any thread may add and
/// remove while another waits.
#[derive(Debug)]
pub struct Poller(sys::Poller);

impl Poller {
    /// Opens an epoll or kqueue descriptor, closed on exec.
    ///
    /// # Errors
    /// Those of epoll_create1(2) or kqueue(2): no descriptors or memory left.
    pub fn new() -> io::Result<Self> {
        sys::Poller::new().map(Self)
    }

    /// Watches `fd`, which must not be watched already, under `token`.
    ///
    /// # Errors
    /// Those of epoll_ctl(2) or kevent(2): no memory left, a descriptor that
    /// cannot be watched (on Linux a regular file), or, which only epoll
    /// notices, one that is watched already.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.0.add(fd, token, interest)
    }

    /// Changes what `fd` is watched for, and its token.
    ///
    /// # Errors
    /// Those of epoll_ctl(2) or kevent(2); epoll says `NotFound` when it was
    /// not watched, kqueue adds it.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.0.modify(fd, token, interest)
    }

    /// Watches `fd` no longer.
    ///
    /// # Errors
    /// Those of epoll_ctl(2) or kevent(2); `NotFound` when it was not watched.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.remove(fd)
    }

    /// Waits until something is ready, but no longer than `timeout` (rounded
    /// up to what the system counts in; `None`: without end), and fills
    /// `events` anew.
    ///
    /// # Errors
    /// Those of epoll_wait(2) or kevent(2), except EINTR.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        self.0.wait(&mut events.0, timeout)
    }
}

/// Readable while an event waits, so that one poller can watch another.
impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes a [`Poller::wait`] of another thread return: an eventfd on Linux, a
/// pipe elsewhere.
///
/// Wake-ups add up to one. None is lost when the woken thread calls
/// [`Waker::drain`] first and then looks for what it was woken for.
#[derive(Debug)]
pub struct Waker(sys::Waker);

impl Waker {
    /// A waker that nobody has woken yet.
    ///
    /// # Errors
    /// Those of eventfd(2) or pipe2(2): no descriptors or memory left.
    pub fn new() -> io::Result<Self> {
        sys::Waker::new().map(Self)
    }

    /// Makes the waker's descriptor readable. Never blocks and cannot fail.
    pub fn wake(&self) {
        self.0.wake();
    }

    /// Makes it unreadable again. Never blocks.
    pub fn drain(&self) {
        self.0.drain();
    }

    /// What eight bytes can be written to in place of [`Waker::wake`], also
    /// from a signal handler, where only write(2) may be called.
    pub fn notify_fd(&self) -> BorrowedFd<'_> {
        self.0.notify_fd()
    }
}

/// What a [`Poller`] watches, for reading.
impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Receives [`SIGNALS`] in the event loop, where any function may be called:
/// signalfd(2) on Linux, EVFILT_SIGNAL in a kqueue of its own elsewhere.
#[derive(Debug)]
pub struct Signals(sys::Signals);

impl Signals {
    /// Blocks the signals in the calling thread and receives them from now on,
    /// but SIGHUP not where it is ignored: nohup(1) means that.
    ///
    /// To be called before other threads are started, which inherit the mask:
    /// a thread that has them unblocked would die of them. They stay blocked
    /// when this is dropped.
    ///
    /// # Errors
    /// Those of signalfd(2) or kevent(2): no descriptors or memory left.
    pub fn new() -> io::Result<Self> {
        sys::Signals::new(&wanted()).map(Self)
    }

    /// The next signal that has arrived, if any. Never blocks. Equal signals
    /// that arrive before the first of them is taken count as one.
    pub fn next(&self) -> Option<Signal> {
        self.0.next()
    }
}

/// What a [`Poller`] watches, for reading.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What of [`SIGNALS`] is to be received.
fn wanted() -> Vec<Signal> {
    let mut wanted = SIGNALS.to_vec();
    wanted.retain(|&signal| signal != Signal::SIGHUP || !is_ignored(signal));
    wanted
}

fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: this asks only, with room for the answer, which is a structure of
    // numbers and thus initialised.
    unsafe {
        libc::sigaction(signal as i32, ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
