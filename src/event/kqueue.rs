//! FreeBSD: kqueue(2). A token travels in `udata`, 64 bits wide on every
//! system that this is built for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::timespec;
use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::signal::SigSet;

use super::{EVENTS, Event, Interest, Signal};
use crate::sandbox::{Role, limit};

fn change(ident: usize, filter: EventFilter, flags: EvFlags, token: u64) -> KEvent {
    let token = isize::from_ne_bytes(token.to_ne_bytes());
    KEvent::new(ident, filter, flags, FilterFlag::empty(), 0, token)
}

#[derive(Debug)]
pub(super) struct Events {
    room: [KEvent; EVENTS],
    len: usize,
}

impl Events {
    pub(super) fn new() -> Self {
        Self {
            room: [change(0, EventFilter::EVFILT_READ, EvFlags::empty(), 0); EVENTS],
            len: 0,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.room.iter().take(self.len).map(|raw| {
            let filter = raw.filter().ok();
            Event {
                token: u64::from_ne_bytes(raw.udata().to_ne_bytes()),
                readable: filter == Some(EventFilter::EVFILT_READ),
                writable: filter == Some(EventFilter::EVFILT_WRITE),
                hangup: raw.flags().intersects(EvFlags::EV_EOF | EvFlags::EV_ERROR),
            }
        })
    }
}

#[derive(Debug)]
pub(super) struct Poller(Kqueue);

const FILTERS: [EventFilter; 2] = [EventFilter::EVFILT_READ, EventFilter::EVFILT_WRITE];

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let queue = Kqueue::new()?;
        limit(&queue, Role::EventQueue)?;
        Ok(Self(queue))
    }

    /// Applies one change; EV_RECEIPT makes kevent(2) answer about the change
    /// and not about what is ready.
    fn apply(
        &self,
        fd: BorrowedFd<'_>,
        filter: EventFilter,
        flags: EvFlags,
        token: u64,
    ) -> nix::Result<()> {
        let ident = usize::try_from(fd.as_raw_fd()).map_err(|_| Errno::EBADF)?;
        let change = change(ident, filter, flags | EvFlags::EV_RECEIPT, token);
        let mut answer = [change];
        self.0.kevent(&[change], &mut answer, None)?;
        match i32::try_from(answer[0].data()) {
            Ok(0) => Ok(()),
            Ok(error) => Err(Errno::from_raw(error)),
            Err(_) => Err(Errno::EINVAL),
        }
    }

    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let mut flags = EvFlags::EV_ADD;
        flags.set(EvFlags::EV_CLEAR, interest.edge);
        for (filter, wanted) in FILTERS.into_iter().zip([interest.read, interest.write]) {
            if wanted {
                self.apply(fd, filter, flags, token)?;
            }
        }
        Ok(())
    }

    /// Takes the filters out first: EV_ADD on one that exists leaves its
    /// trigger as it was. Nothing is lost between the two, as EV_ADD looks at
    /// the descriptor's state.
    pub(super) fn modify(
        &self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        match self.remove(fd) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.add(fd, token, interest),
        }
    }

    /// `NotFound` when neither filter was there.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let [read, write] = FILTERS.map(|filter| self.apply(fd, filter, EvFlags::EV_DELETE, 0));
        match (read, write) {
            (Ok(()), Ok(()) | Err(Errno::ENOENT)) | (Err(Errno::ENOENT), Ok(())) => Ok(()),
            (Err(error), _) | (_, Err(error)) => Err(error.into()),
        }
    }

    pub(super) fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.len = 0;
        // Longer than `time_t` counts is without end.
        let timeout = timeout.and_then(|duration| {
            Some(timespec {
                tv_sec: duration.as_secs().try_into().ok()?,
                tv_nsec: duration.subsec_nanos().into(),
            })
        });
        match self.0.kevent(&[], &mut events.room, timeout) {
            Ok(len) => {
                events.len = len;
                Ok(())
            }
            Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A pipe, both ends non-blocking.
#[derive(Debug)]
pub(super) struct Waker {
    read: OwnedFd,
    write: OwnedFd,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        limit(&read, Role::Awaited)?;
        limit(&write, Role::Waking)?;
        Ok(Self { read, write })
    }

    pub(super) fn wake(&self) {
        // EAGAIN: the pipe is full, which is readable as well.
        let _ = nix::unistd::write(&self.write, &1u64.to_ne_bytes());
    }

    pub(super) fn drain(&self) {
        let mut room = [0; 512];
        while nix::unistd::read(&self.read, &mut room).is_ok_and(|len| len == room.len()) {}
    }

    pub(super) fn notify_fd(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

/// A kqueue can itself be watched for reading, so signals get one of their own
/// and look like signalfd(2) from outside.
#[derive(Debug)]
pub(super) struct Signals(Kqueue);

impl Signals {
    /// The filters come first: between them and the mask a signal still has
    /// its default action, and none is lost.
    pub(super) fn new(signals: &[Signal]) -> io::Result<Self> {
        let queue = Kqueue::new()?;
        let changes = signals.iter().map(|&signal| {
            let number = usize::try_from(signal as i32).unwrap_or_default();
            change(number, EventFilter::EVFILT_SIGNAL, EvFlags::EV_ADD, 0)
        });
        let changes: Vec<_> = changes.collect();
        queue.kevent(&changes, &mut [], None)?;
        limit(&queue, Role::EventQueue)?;
        let set: SigSet = signals.iter().copied().collect();
        set.thread_block()?;
        Ok(Self(queue))
    }

    pub(super) fn next(&self) -> Option<Signal> {
        let at_once = timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut events = [change(0, EventFilter::EVFILT_SIGNAL, EvFlags::empty(), 0)];
        let len = self.0.kevent(&[], &mut events, Some(at_once)).ok()?;
        let [event] = events.get(..len)? else {
            return None;
        };
        let number = i32::try_from(event.ident()).ok()?;
        Signal::try_from(number).ok()
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
