//! What a loop does between two turns, and who wakes it.

use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::job::Running;
use crate::event::{Events, Interest, Poller};

/// The kernel's loop looks again after this time, whatever happens.
const LONGEST: Duration = Duration::from_secs(3);
/// Token of the end of the loop, and of the rings; those of the client's
/// descriptors are the rings' numbers.
const STOP: u64 = u64::MAX;
const RINGS: u64 = u64::MAX - 1;

/// How one loop sleeps.
pub(super) struct Sleeper<'r> {
    running: &'r Running,
    /// None: nobody tells.
    poller: Option<Poller>,
}

impl<'r> Sleeper<'r> {
    /// Of the loop whose rings tell by `rings`.
    ///
    /// # Errors
    /// A descriptor of the client's is not open, or no eventfd.
    pub(super) fn new(running: &'r Running, rings: BorrowedFd<'_>) -> Result<Self, Errno> {
        let events = &running.job().events;
        for fd in events.iter().flat_map(|ring| [ring.ioeventfd, ring.irqfd]) {
            if fd >= 0 {
                check_eventfd(fd)?;
            }
        }
        let errno =
            |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        let mut poller = None;
        if running.job().has_events() {
            let all = Poller::new().map_err(errno)?;
            all.add(running.as_fd(), STOP, Interest::READ)
                .map_err(errno)?;
            all.add(rings, RINGS, Interest::READ).map_err(errno)?;
            let edge = Interest {
                edge: true,
                ..Interest::READ
            };
            for (nth, ring) in (0..).zip(events) {
                // SAFETY: it is open, which was checked, and the borrow ends
                // with the call; whose number it is later does not matter.
                let fd = unsafe { BorrowedFd::borrow_raw(ring.ioeventfd) };
                match all.add(fd, nth, edge) {
                    // One for several rings: all of them hear it.
                    Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                    added => added.map_err(errno)?,
                }
            }
            poller = Some(all);
        }
        Ok(Self { running, poller })
    }

    /// Somebody wakes the loop: it can sleep without end.
    pub(super) fn has_events(&self) -> bool {
        self.poller.is_some()
    }

    /// Sleeps as long as the client has asked for. `true`: the loop is to end.
    pub(super) fn nap(&self) -> bool {
        let pause = Duration::from_micros(self.running.job().plan.sleep_us.into());
        let mut fds = [PollFd::new(self.running.as_fd(), PollFlags::POLLIN)];
        let slept = ppoll(&mut fds, Some(TimeSpec::from_duration(pause)), None);
        !matches!(slept, Ok(0) | Err(Errno::EINTR))
    }

    /// Waits for whoever wakes the loop; without `asleep` it only looks.
    pub(super) fn sleep(&self, asleep: bool) -> Slept {
        let mut slept = Slept::default();
        let Some(poller) = &self.poller else {
            return slept;
        };
        let longest = if asleep { LONGEST } else { Duration::ZERO };
        let mut events = Events::new();
        slept.stopped = poller.wait(&mut events, Some(longest)).is_err();
        slept.stopped |= events.iter().any(|event| event.token == STOP);
        let own = &self.running.job().events;
        let kicked = events.iter().filter_map(|event| {
            let nth = usize::try_from(event.token).ok()?;
            own.get(nth).map(|ring| ring.ioeventfd)
        });
        let kicked: Vec<RawFd> = kicked.collect();
        let rings = own.iter().enumerate();
        let rings = rings.filter(|(_, ring)| kicked.contains(&ring.ioeventfd));
        slept.kicked.extend(rings.map(|(nth, _)| nth));
        slept
    }
}

/// What has ended a loop's sleep.
#[derive(Debug, Default)]
pub(super) struct Slept {
    /// The loop is to end.
    pub stopped: bool,
    /// The rings whose client woke the loop.
    pub kicked: Vec<usize>,
}

/// Wakes a client. What has no room has been woken often enough.
pub(super) fn signal(fd: RawFd) {
    if fd < 0 {
        return;
    }
    // SAFETY: eight bytes are read from where they are; a number that is no
    // descriptor any more makes the call fail.
    unsafe { libc::write(fd, (&raw const ONE).cast(), size_of::<u64>()) };
}

static ONE: u64 = 1;

/// Checks that a number of the client's is an eventfd, as the kernel does.
#[cfg(target_os = "linux")]
fn check_eventfd(fd: RawFd) -> Result<(), Errno> {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    match link {
        Ok(target) if target.as_os_str() == "anon_inode:[eventfd]" => Ok(()),
        Ok(_) => Err(Errno::EINVAL),
        Err(_) => Err(Errno::EBADF),
    }
}

/// FreeBSD's kernel has no events for its loop, and who asks for them gets no
/// loop.
#[cfg(not(target_os = "linux"))]
fn check_eventfd(_: RawFd) -> Result<(), Errno> {
    Err(Errno::EOPNOTSUPP)
}
