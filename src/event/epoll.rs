//! Linux: epoll(7), eventfd(2), signalfd(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{EVENTS, Event, Interest, Signal};

#[derive(Debug)]
pub(super) struct Events {
    room: [EpollEvent; EVENTS],
    len: usize,
}

impl Events {
    pub(super) fn new() -> Self {
        Self {
            room: [EpollEvent::empty(); EVENTS],
            len: 0,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.room.iter().take(self.len).map(|raw| {
            let is = |flags| raw.events().intersects(flags);
            // EPOLLERR and EPOLLHUP are told unasked; the read or the write
            // that follows returns what is the matter.
            let failed = is(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
            Event {
                token: raw.data(),
                readable: failed || is(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP),
                writable: failed || is(EpollFlags::EPOLLOUT),
                hangup: failed || is(EpollFlags::EPOLLRDHUP),
            }
        })
    }
}

#[derive(Debug)]
pub(super) struct Poller(Epoll);

fn event(token: u64, interest: Interest) -> EpollEvent {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, interest.read);
    flags.set(EpollFlags::EPOLLOUT, interest.write);
    flags.set(EpollFlags::EPOLLET, interest.edge);
    EpollEvent::new(flags, token)
}

/// In milliseconds, rounded up: a deadline that is nearly reached must not make
/// its waiter spin. 24 days and more are without end.
fn timeout(timeout: Option<Duration>) -> EpollTimeout {
    timeout
        .map(|duration| duration.as_nanos().div_ceil(1_000_000))
        .and_then(|millis| i32::try_from(millis).ok())
        .and_then(|millis| EpollTimeout::try_from(millis).ok())
        .unwrap_or(EpollTimeout::NONE)
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.0.add(fd, event(token, interest))?)
    }

    pub(super) fn modify(
        &self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(self.0.modify(fd, &mut event(token, interest))?)
    }

    pub(super) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.0.delete(fd)?)
    }

    pub(super) fn wait(&self, events: &mut Events, until: Option<Duration>) -> io::Result<()> {
        events.len = 0;
        match self.0.wait(&mut events.room, timeout(until)) {
            Ok(len) => {
                events.len = len;
                Ok(())
            }
            Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

#[derive(Debug)]
pub(super) struct Waker(EventFd);

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_flags(flags)?))
    }

    pub(super) fn wake(&self) {
        // EAGAIN: the counter is full, which is readable as well.
        let _ = self.0.write(1);
    }

    pub(super) fn drain(&self) {
        // EAGAIN: nobody has written, or another thread has read.
        let _ = self.0.read();
    }

    pub(super) fn notify_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    pub(super) fn new(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags)?))
    }

    pub(super) fn next(&self) -> Option<Signal> {
        // A descriptor of ours that is read in full: there is no error but
        // EAGAIN, which is `None`.
        let info = self.0.read_signal().ok()??;
        let number = i32::try_from(info.ssi_signo).ok()?;
        Signal::try_from(number).ok()
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
