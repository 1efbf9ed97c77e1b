//! Waiting for connections and other descriptors in one call: what poll(2),
//! select(2), epoll_wait(2) and kevent(2) have in common.
//!
//! A connection is looked at as the kernel's netmap does in poll(2): the
//! service syncs, says what is there, and otherwise notes who waits. Then all
//! bells and the other descriptors are waited for, and everything is looked at
//! again. Where two programs keep each other busy, what one waits for comes
//! sooner than the system puts it to sleep: see [`linger`].

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::ptr;
use std::time::{Duration, Instant};

use libc::{c_int, c_short, pollfd, sigset_t, timespec};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use vtnetd::event::give_way;
use vtnetd::worker::{Patience, Polling, Vain};

use crate::cache::with_channel;
use crate::real::{POLL, PPOLL};

/// A connection that is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched {
    /// Its number.
    pub(crate) fd: RawFd,
    /// What for, in poll(2)'s words.
    pub(crate) events: c_short,
    /// What there is.
    pub(crate) found: c_short,
}

impl Watched {
    /// `events` as a channel has them.
    #[inline]
    fn wanted(&self) -> u16 {
        u16::from_ne_bytes(self.events.to_ne_bytes())
    }
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// Not at all.
    Look,
    /// Until something is there.
    Forever,
    /// So long, from the first wait on.
    For(Duration),
    /// Until then.
    Until(Instant),
}

impl Limit {
    /// As poll(2) and epoll_wait(2) count, in milliseconds; negative: for ever.
    pub(crate) fn from_milliseconds(timeout: c_int) -> Self {
        match u64::try_from(timeout) {
            Err(_) => Self::Forever,
            Ok(0) => Self::Look,
            Ok(milliseconds) => Self::For(Duration::from_millis(milliseconds)),
        }
    }

    /// As others count; `None`: for ever.
    ///
    /// # Errors
    /// `EINVAL`: it is no time.
    pub(crate) fn from_timespec(timeout: Option<timespec>) -> Result<Self, Errno> {
        let Some(timeout) = timeout else {
            return Ok(Self::Forever);
        };
        let seconds = u64::try_from(timeout.tv_sec);
        let rest = u32::try_from(timeout.tv_nsec);
        match (seconds, rest) {
            (Ok(0), Ok(0)) => Ok(Self::Look),
            (Ok(seconds), Ok(rest @ 0..1_000_000_000)) => {
                Ok(Self::For(Duration::new(seconds, rest)))
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Begins to count. What cannot be counted is for ever.
    fn begin(&mut self) {
        if let Self::For(time) = *self {
            *self = Instant::now()
                .checked_add(time)
                .map_or(Self::Forever, Self::Until);
        }
    }

    /// What is left, for a system call; `None`: for ever.
    fn left(self) -> Option<timespec> {
        let left = match self {
            Self::Forever => return None,
            Self::Look => Duration::ZERO,
            Self::For(time) => time,
            Self::Until(end) => end.saturating_duration_since(Instant::now()),
        };
        Some(timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: left.subsec_nanos().into(),
        })
    }
}

/// Looks at connections. With `arm`, who finds nothing is told of what comes,
/// until something is found. Returns at how many there is something.
#[inline]
pub(crate) fn look(watched: &mut [Watched], arm: bool) -> usize {
    let mut count = 0;
    for one in watched {
        let events = one.wanted();
        let arm = arm && count == 0;
        one.found = match with_channel(one.fd, |channel| channel.poll(events, arm)) {
            Some(Ok(found)) => c_short::from_ne_bytes(found.to_ne_bytes()),
            Some(Err(_)) => libc::POLLERR | libc::POLLHUP,
            None => libc::POLLNVAL,
        };
        if one.found != 0 {
            count += 1;
        }
    }
    count
}

thread_local! {
    /// Of this thread's waits.
    static PATIENCE: RefCell<Patience> = RefCell::new(Patience::new(Polling::default()));
}

fn with_patience<T>(with: impl FnOnce(&mut Patience) -> T) -> Option<T> {
    // A signal handler may come while its thread is in here, or at its end.
    let with = |patience: &RefCell<Patience>| Some(with(&mut *patience.try_borrow_mut().ok()?));
    PATIENCE.try_with(with).ok().flatten()
}

/// Lets others have the processor for a while, before the bells are waited for.
/// Returns whether something may have come.
fn linger(watched: &[Watched]) -> bool {
    let ready = |one: &Watched| {
        let ready = with_channel(one.fd, |channel| Ok(channel.is_ready(one.wanted())));
        !matches!(ready, Some(Ok(false)))
    };
    for one in watched {
        with_channel(one.fd, |channel| {
            channel.step_aside();
            Ok(())
        });
    }
    let mut vain = Vain::begin();
    loop {
        give_way();
        if watched.iter().any(ready) {
            with_patience(Patience::reward);
            return true;
        }
        let over = |patience: &mut Patience| {
            let over = patience.ends_with(&mut vain);
            if over {
                patience.disappoint();
            }
            over
        };
        if with_patience(over) != Some(false) {
            return false;
        }
    }
}

/// Signals that wait while this is there: one that came after the last look, but
/// before the system sleeps, would not end the sleep.
struct Held(SigSet);

impl Held {
    fn new() -> Result<Self, Errno> {
        let mut held = SigSet::all();
        // What a fault makes cannot wait.
        for fault in [
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGSEGV,
        ] {
            held.remove(fault);
        }
        held.thread_swap_mask(SigmaskHow::SIG_BLOCK).map(Self)
    }

    /// What ppoll(2) is to let through: what `mask` does, or if that is null
    /// what the thread did.
    fn mask(&self, mask: *const sigset_t) -> *const sigset_t {
        if mask.is_null() {
            ptr::from_ref(self.0.as_ref())
        } else {
            mask
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It was the thread's mask before.
        let _ = self.0.thread_set_mask();
    }
}

/// What ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Time.
    Late,
    /// So many of the other descriptors, or a bell, or both.
    By(usize),
}

/// After a [`look`] with `arm` that has found nothing: sleeps until something
/// may be there, at `watched` or at `others`, whose `revents` are set.
///
/// # Errors
/// Those of ppoll(2): `EINTR`, and no others.
#[cold]
pub(crate) fn sleep(
    watched: &[Watched],
    others: &mut Vec<pollfd>,
    limit: &mut Limit,
    mask: *const sigset_t,
) -> Result<Woken, Errno> {
    limit.begin();
    let held = Held::new()?;
    let begun = Instant::now();
    if linger(watched) {
        others.iter_mut().for_each(|other| other.revents = 0);
        return Ok(Woken::By(0));
    }
    let own = others.len();
    let mut something = false;
    for one in watched {
        match with_channel(one.fd, |channel| channel.sleep(one.wanted())) {
            Some(Ok(Some(fd))) => others.push(pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            }),
            // What it is, the next look finds out.
            _ => something = true,
        }
    }
    let ended = if something {
        others.iter_mut().for_each(|other| other.revents = 0);
        Ok(0)
    } else {
        wait(others, *limit, held.mask(mask))
    };
    for one in watched {
        if let Some(Err(_)) = with_channel(one.fd, |channel| channel.wake()) {
            something = true;
        }
    }
    others.truncate(own);
    let count = ended?;
    if count == 0 && !something {
        return Ok(Woken::Late);
    }
    let ready = others.iter().filter(|other| other.revents != 0);
    let ready = ready.count();
    if ready == 0 {
        with_patience(|patience| patience.regret(begun.elapsed()));
    }
    Ok(Woken::By(ready))
}

/// ppoll(2).
pub(crate) fn wait(
    fds: &mut [pollfd],
    limit: Limit,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    let left = limit.left();
    let left = left.as_ref().map_or(ptr::null(), ptr::from_ref);
    let count = libc::nfds_t::try_from(fds.len()).unwrap_or(libc::nfds_t::MAX);
    let ppoll = PPOLL.get()?;
    // SAFETY: so many structures, alive meanwhile; the time is, too, or null;
    // the mask is the program's, or null.
    let ready = unsafe { ppoll(fds.as_mut_ptr(), count, left, mask) };
    Errno::result(ready).map(|ready| usize::try_from(ready).unwrap_or(0))
}

/// poll(2), without waiting.
fn glance(fds: &mut [pollfd]) -> Result<usize, Errno> {
    if fds.is_empty() {
        return Ok(0);
    }
    let count = libc::nfds_t::try_from(fds.len()).unwrap_or(libc::nfds_t::MAX);
    let poll = POLL.get()?;
    // SAFETY: so many structures, alive meanwhile.
    let ready = unsafe { poll(fds.as_mut_ptr(), count, 0) };
    Errno::result(ready).map(|ready| usize::try_from(ready).unwrap_or(0))
}

/// ppoll(2) on connections and other descriptors. Returns at how many there is
/// something.
///
/// # Errors
/// Those of ppoll(2).
pub(crate) fn poll(
    watched: &mut [Watched],
    others: &mut Vec<pollfd>,
    mut limit: Limit,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    let mut last = matches!(limit, Limit::Look);
    loop {
        let found = look(watched, !last);
        if last || found > 0 {
            return Ok(found + glance(others)?);
        }
        // Once more before it returns: what was slept for may have come, and
        // the others as they are then.
        last = match sleep(watched, others, &mut limit, mask)? {
            Woken::Late => true,
            Woken::By(others) => others > 0,
        };
    }
}
