//! A client's syncs: what its worker does.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arc_swap::ArcSwap;
use nix::errno::Errno;
use nix::poll::PollFlags;

use super::number;
use super::wire::page::{Operation, Outcome, Service as Page};
use super::wire::socket::{quiet, ring};
use crate::netmap::ctrl::Control;
use crate::worker::Work;

/// What poll(2) can be asked to wait for.
const AWAITED: PollFlags = PollFlags::POLLIN
    .union(PollFlags::POLLRDNORM)
    .union(PollFlags::POLLOUT)
    .union(PollFlags::POLLWRNORM);

/// What a descriptor of a client is watched for by its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The client rings.
    Bell,
    /// What was waited for has come.
    Ready,
}

impl From<Event> for u64 {
    fn from(event: Event) -> Self {
        event as Self
    }
}

/// One thread's way to ask for syncs.
pub(super) struct Channel {
    page: Page,
    bell: OwnedFd,
    /// Number of the request that was answered last.
    last: AtomicU32,
    /// A poll has found nothing, and is to hear when there may be something.
    waiting: AtomicBool,
}

impl Channel {
    pub(super) fn new(page: Page, bell: OwnedFd) -> Self {
        Self {
            page,
            bell,
            last: AtomicU32::new(0),
            waiting: AtomicBool::new(false),
        }
    }

    /// What its client rings.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn request(&self) -> Option<(u32, Option<Operation>)> {
        self.page.request(self.last.load(Ordering::Relaxed))
    }

    fn ring_if(&self, asleep: bool) {
        if asleep {
            ring(self.bell.as_fd());
        }
    }
}

/// One open descriptor, as a worker sees it.
pub struct Client {
    control: Control,
    channels: ArcSwap<Vec<Arc<Channel>>>,
}

impl Client {
    pub(super) fn new(control: Control) -> Self {
        Self {
            control,
            channels: ArcSwap::default(),
        }
    }

    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    /// Looks at the page of `channel` from now on.
    pub(super) fn add(&self, channel: &Arc<Channel>) {
        self.channels.rcu(|old| {
            let mut all = Vec::clone(old);
            all.push(Arc::clone(channel));
            all
        });
    }

    /// Looks at it no longer.
    pub(super) fn remove(&self, channel: &Arc<Channel>) {
        self.channels.rcu(|old| {
            let mut all = Vec::clone(old);
            all.retain(|one| !Arc::ptr_eq(one, channel));
            all
        });
    }

    /// What somebody waits for may have come.
    fn has_fired(&self, channels: &[Arc<Channel>]) -> bool {
        let registration = self.control.registration();
        registration.is_some_and(|registration| registration.listener().has_fired())
            && channels
                .iter()
                .any(|channel| channel.waiting.load(Ordering::Relaxed))
    }

    /// Tells those who wait.
    fn tell(&self, channels: &[Arc<Channel>]) -> bool {
        if !self.has_fired(channels) {
            return false;
        }
        for channel in channels {
            if channel.waiting.swap(false, Ordering::Relaxed) {
                channel.ring_if(channel.page.ready());
            }
        }
        true
    }

    fn perform(&self, operation: Operation, channel: &Channel) -> Outcome {
        let errno = |result: Result<(), Errno>| result.map_or_else(number, |()| 0);
        match operation {
            Operation::Sync(direction) => Outcome {
                result: errno(self.control.sync(direction)),
                extra: 0,
            },
            Operation::Poll { events, arm } => {
                let events = PollFlags::from_bits_retain(i16::from_ne_bytes(events.to_ne_bytes()));
                let found = self.control.poll(events, arm);
                let waits = arm && found.is_empty() && events.intersects(AWAITED);
                channel.waiting.store(waits, Ordering::Relaxed);
                Outcome {
                    result: u16::from_ne_bytes(found.bits().to_ne_bytes()).into(),
                    extra: 0,
                }
            }
            Operation::Ring {
                direction,
                ring,
                pointers,
            } => match self.control.sync_ring(direction, ring.into(), pointers) {
                Ok(hardware) => Outcome {
                    result: 0,
                    extra: u64::from(hardware.hwcur) << 32 | u64::from(hardware.hwtail),
                },
                Err(errno) => Outcome {
                    result: number(errno),
                    extra: 0,
                },
            },
            Operation::Listen => {
                let listens = self.control.listen();
                channel.waiting.store(listens.is_ok(), Ordering::Relaxed);
                Outcome {
                    result: errno(listens),
                    extra: 0,
                }
            }
        }
    }

    fn set_awake(&self, channels: &[Arc<Channel>], awake: bool) {
        for channel in channels {
            channel.page.set_awake(awake);
        }
        if let Some(registration) = self.control.registration() {
            registration.listener().attend(awake);
        }
    }
}

impl Work for Client {
    fn note(&self, event: u64) {
        let channels = self.channels.load();
        if event == u64::from(Event::Bell) {
            for channel in channels.iter() {
                // Its end is seen by whoever looks after the channel.
                quiet(channel.bell());
            }
        }
        // A channel that has come since may not know it yet.
        self.set_awake(&channels, true);
    }

    fn begin(&self) {
        self.set_awake(&self.channels.load(), true);
    }

    fn turn(&self) -> bool {
        let channels = self.channels.load();
        let mut busy = self.tell(&channels);
        for channel in channels.iter() {
            let Some((nth, operation)) = channel.request() else {
                continue;
            };
            // A poll below would wait anew for what has come for others.
            self.tell(&channels);
            let outcome = match operation {
                Some(operation) => self.perform(operation, channel),
                None => Outcome {
                    result: number(Errno::EOPNOTSUPP),
                    extra: 0,
                },
            };
            channel.last.store(nth, Ordering::Relaxed);
            channel.ring_if(channel.page.answer(nth, outcome));
            busy = true;
        }
        busy
    }

    fn rest(&self) -> bool {
        let channels = self.channels.load();
        self.set_awake(&channels, false);
        self.has_fired(&channels) || channels.iter().any(|channel| channel.request().is_some())
    }
}
