//! System calls that must not block for long, though others can make them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction,
};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

/// How long a call can block while the alarm is set, at most.
pub const PERIOD: Duration = Duration::from_millis(5);

/// By default nobody takes notice of it, and nobody sends it to us.
const SIGNAL: Signal = Signal::SIGURG;

/// How often an alarm of any thread has gone off.
static RINGS: AtomicU64 = AtomicU64::new(0);

/// How often an alarm of any thread has gone off: a number that is the same
/// before and after a call says that none has ended it. FreeBSD's eventfd says
/// of a write that was ended that it is done.
#[inline]
pub fn rings() -> u64 {
    RINGS.load(Ordering::Relaxed)
}

/// Ends system calls of its thread that block: while it is set they fail with
/// `EINTR` after [`PERIOD`].
///
/// A descriptor that a front end has passed is open in the front end, too, and
/// so are its flags: the front end can take `O_NONBLOCK` away again at any time.
/// An eventfd has no call that would not look at that flag.
#[derive(Debug)]
pub struct Alarm {
    timer: Timer,
    set: bool,
}

impl Alarm {
    /// An alarm for the calling thread, not set.
    ///
    /// # Errors
    /// Those of timer_create(2) and sigaction(2).
    pub fn new() -> io::Result<Self> {
        extern "C" fn went_off(_: libc::c_int) {
            RINGS.fetch_add(1, Ordering::Relaxed);
        }
        // Without SA_RESTART: a call that was interrupted is not to go on.
        let handler = SigHandler::Handler(went_off);
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler adds to an atomic number, and nobody else handles the signal.
        unsafe { sigaction(SIGNAL, &action) }?;
        SigSet::from(SIGNAL).thread_unblock()?;
        let event = SigEvent::new(SigevNotify::SigevThreadId {
            signal: SIGNAL,
            thread_id: thread_id(),
            si_value: 0,
        });
        let timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
        Ok(Self { timer, set: false })
    }

    /// Sets the alarm; it stays set until [`clear`](Self::clear). Costs nothing
    /// when it is set already.
    ///
    /// # Errors
    /// Those of timer_settime(2).
    pub fn set(&mut self) -> io::Result<()> {
        if !self.set {
            self.expire(Expiration::Interval(PERIOD.into()))?;
            self.set = true;
        }
        Ok(())
    }

    /// Lets calls block again.
    ///
    /// # Errors
    /// Those of timer_settime(2).
    pub fn clear(&mut self) -> io::Result<()> {
        if self.set {
            self.expire(Expiration::OneShot(Duration::ZERO.into()))?;
            self.set = false;
        }
        Ok(())
    }

    fn expire(&mut self, when: Expiration) -> io::Result<()> {
        Ok(self.timer.set(when, TimerSetTimeFlags::empty())?)
    }
}

#[cfg(target_os = "linux")]
fn thread_id() -> libc::pid_t {
    nix::unistd::gettid().as_raw()
}

#[cfg(target_os = "freebsd")]
fn thread_id() -> libc::lwpid_t {
    // SAFETY: it has no arguments and always succeeds.
    unsafe { libc::pthread_getthreadid_np() }
}
