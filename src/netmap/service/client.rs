//! A client's syncs: what its worker does.

use std::num::NonZeroU32;
#[cfg(loom)]
use std::os::fd::OwnedFd;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use nix::errno::Errno;
use nix::poll::PollFlags;

use super::number;
use super::strays::{Foreign, Strays};
use super::wire::page::{Operation, Outcome, Service as Page};
#[cfg(not(loom))]
use super::wire::socket::{quiet_from_anyone, ring};
use crate::event::processor;
use crate::netmap::ctrl::Control;
use crate::netmap::register::Registration;
#[cfg(loom)]
use crate::word::model::{quiet_from_anyone, ring};
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

/// Numbers of channels: none is another's, of whatever client.
static NUMBERS: AtomicU32 = AtomicU32::new(1);

/// One thread's way to ask for syncs.
pub(super) struct Channel {
    /// As a holder of rings.
    number: NonZeroU32,
    page: Page,
    bell: Foreign,
    /// Number of the request that was answered last.
    last: AtomicU32,
    /// A poll has found nothing, and is to hear when there may be something.
    waiting: AtomicBool,
    /// Its bell is not read any more.
    deaf: AtomicBool,
}

impl Channel {
    pub(super) fn new(page: Page, bell: Foreign) -> Self {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Self {
            // Four billion later one is left out.
            number: NonZeroU32::new(number).unwrap_or(NonZeroU32::MAX),
            page,
            bell,
            last: AtomicU32::new(0),
            waiting: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
        }
    }

    /// Reads what its client has rung. No descriptors belong there: whoever
    /// sends them on and on is not listened to any more, and what he still sends
    /// stays in the socket until that is closed. (To shut it down takes a right
    /// that he may have kept back, rights(4).)
    fn quiet(&self) {
        if self.deaf.load(Ordering::Relaxed) {
            return;
        }
        let brought = quiet_from_anyone(self.bell.as_fd());
        if brought.is_empty() {
            return;
        }
        for fd in brought {
            drop(self.bell.brought(fd));
        }
        let account = self.bell.account();
        if account.is_some_and(|account| Strays::are_too_many(account)) {
            self.deaf.store(true, Ordering::Relaxed);
        }
    }

    /// Its number as a holder of rings.
    pub(super) fn number(&self) -> NonZeroU32 {
        self.number
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

/// poll(2)'s events as they are in a request.
fn flags(events: u16) -> PollFlags {
    PollFlags::from_bits_retain(i16::from_ne_bytes(events.to_ne_bytes()))
}

/// What a poll is answered.
fn found_by_poll(found: PollFlags) -> Outcome {
    Outcome {
        result: u16::from_ne_bytes(found.bits().to_ne_bytes()).into(),
        extra: 0,
    }
}

/// One open descriptor, as a worker sees it.
pub struct Client {
    control: Control,
    channels: ArcSwap<Vec<Arc<Channel>>>,
    /// Which channel is looked at first.
    next: AtomicUsize,
    /// What those who wait were told of last ([`fired`]).
    ///
    /// [`fired`]: crate::netmap::kring::Listener::fired
    told: AtomicU32,
}

impl Client {
    pub(super) fn new(control: Control) -> Self {
        Self {
            control,
            channels: ArcSwap::default(),
            next: AtomicUsize::new(0),
            told: AtomicU32::new(0),
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
        if let Some(registration) = self.control.registration() {
            registration.take_back(channel.number);
        }
    }

    /// How often what somebody waits for may have come.
    fn fired(&self) -> u32 {
        let registration = self.control.registration();
        registration.map_or(0, |registration| registration.listener().fired())
    }

    /// What somebody waits for may have come.
    fn has_fired(&self, channels: &[Arc<Channel>]) -> bool {
        self.fired() != self.told.load(Ordering::Relaxed)
            && channels
                .iter()
                .any(|channel| channel.waiting.load(Ordering::Relaxed))
    }

    /// Tells those who wait.
    fn tell(&self, channels: &[Arc<Channel>]) -> bool {
        let fired = self.fired();
        if self.told.swap(fired, Ordering::Relaxed) == fired {
            return false;
        }
        let mut any = false;
        for channel in channels {
            if channel.waiting.swap(false, Ordering::Relaxed) {
                channel.ring_if(channel.page.ready());
                any = true;
            }
        }
        any
    }

    /// Answers a poll before what it has found is sent, where its thread need not
    /// wait for that; then [`go_on`](Self::go_on) is to be called.
    fn begin(&self, operation: Operation, channel: &Channel) -> Option<Outcome> {
        let Operation::Poll { events, .. } = operation else {
            return None;
        };
        let found = self.control.begin_poll(flags(events))?;
        channel.waiting.store(false, Ordering::Relaxed);
        Some(found_by_poll(found))
    }

    /// Sends what a poll that was begun has found.
    fn go_on(&self) {
        if let Some(registration) = self.control.registration() {
            registration.go_on();
        }
    }

    /// `None`: not yet. Another thread that has the client's rings is in the
    /// middle of a sync.
    fn perform(&self, operation: Operation, channel: &Channel) -> Option<Outcome> {
        if operation.is_sync() {
            let registration = self.control.registration();
            if registration.is_some_and(|registration| !registration.try_recall()) {
                return None;
            }
        }
        let errno = |result: Result<(), Errno>| result.map_or_else(number, |()| 0);
        Some(match operation {
            Operation::Sync(direction) => Outcome {
                result: errno(self.control.sync(direction)),
                extra: 0,
            },
            Operation::Poll { events, arm } => {
                let events = flags(events);
                let found = self.control.poll(events, arm);
                let waits = arm && found.is_empty() && events.intersects(AWAITED);
                channel.waiting.store(waits, Ordering::Relaxed);
                found_by_poll(found)
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
            Operation::Borrow => {
                let lent = self.control.lend(channel.number);
                Outcome {
                    result: errno(lent.then_some(()).ok_or(Errno::EAGAIN)),
                    extra: 0,
                }
            }
            Operation::Await { events } => {
                let registration = self.lent_to(channel);
                if let Some(registration) = registration {
                    registration.await_news(flags(events));
                    channel.waiting.store(true, Ordering::Relaxed);
                }
                Outcome {
                    result: errno(registration.map(drop).ok_or(Errno::EAGAIN)),
                    extra: 0,
                }
            }
            Operation::Tell => {
                let registration = self.control.registration();
                if let Some(registration) = registration {
                    registration.tell_others();
                }
                Outcome {
                    result: errno(registration.map(drop).ok_or(Errno::ENXIO)),
                    extra: 0,
                }
            }
        })
    }

    /// What is bound, if `channel` has its rings.
    fn lent_to(&self, channel: &Channel) -> Option<&Registration> {
        let registration = self.control.registration();
        registration.filter(|registration| registration.is_lent_to(channel.number))
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

#[cfg(loom)]
impl Client {
    /// A client with one channel, for a model.
    pub fn alone(control: Control, page: Page, strays: &Strays, bell: OwnedFd) -> Self {
        let client = Self::new(control);
        client.add(&Arc::new(Channel::new(page, strays.keep(bell))));
        client
    }
}

impl Work for Client {
    fn note(&self, event: u64) {
        let channels = self.channels.load();
        if event == u64::from(Event::Bell) {
            for channel in channels.iter() {
                // Its end is seen by whoever looks after the channel.
                channel.quiet();
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
        // One request a turn, however many threads ask: a sync of long rings
        // is long enough for whoever else is at this worker.
        let first = self.next.load(Ordering::Relaxed);
        for nth in 0..channels.len() {
            let at = first.wrapping_add(nth) % channels.len();
            let asked = channels.get(at).map(|channel| (channel, channel.request()));
            let Some((channel, Some((number, operation)))) = asked else {
                continue;
            };
            self.next.store(at + 1, Ordering::Relaxed);
            let begun = operation.and_then(|operation| self.begin(operation, channel));
            let outcome = match operation {
                _ if begun.is_some() => begun,
                Some(operation) => self.perform(operation, channel),
                None => Some(Outcome {
                    result: super::number(Errno::EOPNOTSUPP),
                    extra: 0,
                }),
            };
            let Some(outcome) = outcome else {
                busy = true;
                continue;
            };
            channel.last.store(number, Ordering::Relaxed);
            channel.page.set_place(processor());
            channel.ring_if(channel.page.answer(number, outcome));
            if begun.is_some() {
                self.go_on();
            }
            return true;
        }
        busy
    }

    fn rest(&self) -> bool {
        let channels = self.channels.load();
        self.set_awake(&channels, false);
        self.has_fired(&channels) || channels.iter().any(|channel| channel.request().is_some())
    }
}

#[cfg(test)]
mod tests;
