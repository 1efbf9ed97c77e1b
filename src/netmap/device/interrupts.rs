//! The thread that waits for lines: it wakes who waits for a ring, and forwards
//! what comes in on an interface that is on a switch. What an interrupt does.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::source::Line;
use crate::event::{Event, Events, Interest, Poller, Waker};
use crate::netmap::port::Direction;
use crate::netmap::rings::Rings;
use crate::netmap::vale::{PortId, Switch};

/// Batches that one line forwards before the next has its turn.
const BATCHES: u32 = 4;
/// Token of the waker; no line has it.
const WAKE: u64 = u64::MAX;

/// What is done when there is something on a line.
pub(super) enum Handler {
    /// Whoever waits for these rings is told, once each time that somebody
    /// does.
    Wake {
        rings: Arc<Rings>,
        tx: Range<usize>,
        rx: Range<usize>,
    },
    /// What came goes to the switch.
    Forward(Forward),
}

/// A line on a switch.
pub(super) struct Forward {
    pub switch: Arc<Switch>,
    pub port: PortId,
}

impl Forward {
    /// Forwards what came, at most one batch; returns how many frames.
    pub(super) fn turn(&self, line: &dyn Line) -> usize {
        line.receive(&mut |_| true, &mut |batch| {
            self.switch.forward(self.port, 0, batch);
        })
    }
}

struct Entry {
    line: Arc<dyn Line>,
    handler: Handler,
    /// What is waited for. Held while the poller is told.
    interest: Mutex<Interest>,
    /// Held while the handler runs.
    busy: Mutex<()>,
    closed: AtomicBool,
}

struct Shared {
    poller: Poller,
    waker: Waker,
    lines: Mutex<HashMap<u64, Arc<Entry>>>,
    next: AtomicU64,
    stop: AtomicBool,
}

/// The thread, and what it waits for.
pub(super) struct Interrupts {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A line that is waited for, until it is dropped. Then its handler does not run
/// and will not.
pub(super) struct Interrupt {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    token: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one store.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Interrupts {
    /// # Errors
    /// The system gives no descriptors or threads.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            poller: Poller::new()?,
            waker: Waker::new()?,
            lines: Mutex::default(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let waker = shared.waker.as_fd();
        shared.poller.add(waker, WAKE, Interest::READ)?;
        let run = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("interrupts".to_owned())
            .spawn(move || run.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Waits for `line`: as often as something is there when it is forwarded;
    /// otherwise when somebody has [asked](Interrupt::ask).
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub(super) fn add(&self, line: Arc<dyn Line>, handler: Handler) -> io::Result<Interrupt> {
        let interest = match handler {
            Handler::Wake { .. } => Interest::default(),
            Handler::Forward(_) => Interest::READ,
        };
        let entry = Arc::new(Entry {
            line,
            handler,
            interest: Mutex::new(interest),
            busy: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let token = self.shared.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.shared.lines).insert(token, Arc::clone(&entry));
        let interrupt = Interrupt {
            shared: Arc::clone(&self.shared),
            entry,
            token,
        };
        let fd = interrupt.entry.line.fd();
        self.shared.poller.add(fd, token, interest)?;
        Ok(interrupt)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.waker.wake();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that waits for interfaces has panicked");
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut events = Events::new();
        while !self.stop.load(Ordering::Acquire) {
            if let Err(error) = self.poller.wait(&mut events, None) {
                // A poller that fails will not work again.
                tracing::error!("interfaces are not waited for any more: {error}");
                return;
            }
            for event in events.iter() {
                if event.token == WAKE {
                    self.waker.drain();
                    continue;
                }
                let entry = lock(&self.lines).get(&event.token).cloned();
                if let Some(entry) = entry {
                    self.handle(&entry, &event);
                }
            }
        }
    }

    fn handle(&self, entry: &Entry, event: &Event) {
        let _busy = lock(&entry.busy);
        if entry.closed.load(Ordering::Acquire) {
            return;
        }
        if event.hangup && !entry.line.settle() && self.poller.remove(entry.line.fd()).is_ok() {
            tracing::warn!("an interface that a netmap port is on has gone");
        }
        match &entry.handler {
            Handler::Wake { rings, tx, rx } => {
                // Rests before anybody is told, who may ask again at once.
                let done = Interest {
                    read: event.readable,
                    write: event.writable,
                    edge: false,
                };
                self.change(entry, event.token, |interest| Interest {
                    read: interest.read && !done.read,
                    write: interest.write && !done.write,
                    edge: false,
                });
                let wake = |direction, range: &Range<usize>| {
                    for kring in range.clone().filter_map(|at| rings.kring(direction, at)) {
                        kring.notify();
                    }
                };
                if event.readable {
                    wake(Direction::Rx, rx);
                }
                if event.writable {
                    wake(Direction::Tx, tx);
                }
            }
            Handler::Forward(forward) => {
                // Somebody else may look at it since.
                if !lock(&entry.interest).read {
                    return;
                }
                for _ in 0..BATCHES {
                    if forward.turn(&*entry.line) == 0 {
                        break;
                    }
                }
            }
        }
    }

    fn change(&self, entry: &Entry, token: u64, to: impl FnOnce(Interest) -> Interest) {
        let mut interest = lock(&entry.interest);
        let new = to(*interest);
        if new == *interest {
            return;
        }
        *interest = new;
        // A line that has failed is not watched any more.
        if let Err(error) = self.poller.modify(entry.line.fd(), token, new) {
            tracing::debug!("an interface is not waited for: {error}");
        }
    }
}

impl Interrupt {
    /// Somebody waits for frames from this line, or for room.
    pub(super) fn ask(&self, direction: Direction) {
        self.shared
            .change(&self.entry, self.token, |interest| match direction {
                Direction::Rx => Interest {
                    read: true,
                    ..interest
                },
                Direction::Tx => Interest {
                    write: true,
                    ..interest
                },
            });
    }

    /// Leaves the line to somebody else, or takes it back. The handler does not
    /// run when this returns.
    pub(super) fn rest(&self, rest: bool) {
        self.shared
            .change(&self.entry, self.token, |interest| Interest {
                read: !rest,
                ..interest
            });
        drop(lock(&self.entry.busy));
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.entry.closed.store(true, Ordering::Release);
        lock(&self.shared.lines).remove(&self.token);
        if let Err(error) = self.shared.poller.remove(self.entry.line.fd()) {
            tracing::debug!("an interface was not waited for: {error}");
        }
        // Whoever runs has seen it open.
        drop(lock(&self.entry.busy));
    }
}
