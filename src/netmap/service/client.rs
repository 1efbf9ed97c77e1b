//! A client's syncs: what its worker does.

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
use crate::netmap::ctrl::Control;
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

/// One thread's way to ask for syncs.
pub(super) struct Channel {
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
        Self {
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
        let told = self.tell(&channels);
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
            let outcome = match operation {
                Some(operation) => self.perform(operation, channel),
                None => Outcome {
                    result: super::number(Errno::EOPNOTSUPP),
                    extra: 0,
                },
            };
            channel.last.store(number, Ordering::Relaxed);
            channel.ring_if(channel.page.answer(number, outcome));
            return true;
        }
        told
    }

    fn rest(&self) -> bool {
        let channels = self.channels.load();
        self.set_awake(&channels, false);
        self.has_fired(&channels) || channels.iter().any(|channel| channel.request().is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, OwnedFd};

    use nix::sys::socket::{MsgFlags, recv};
    use nix::unistd::pipe;

    use super::super::strays::MOST;
    use super::*;
    use crate::netmap::abi::Slot;
    use crate::netmap::abi::legacy::{LegacyRequest, NIOCREGIF};
    use crate::netmap::authority::{Account, Limits, Resource};
    use crate::netmap::mem::RegionConfig;
    use crate::netmap::port::{Direction, Port};
    use crate::netmap::register::Netmap;
    use crate::netmap::service::tests::{slow_to_close, until};
    use crate::netmap::service::wire::page;
    use crate::netmap::service::wire::socket::{bell_pair, send_message};
    use crate::netmap::vale::Switches;

    fn bind(core: &Arc<Netmap>, name: &str) -> Control {
        let control = Control::new(Arc::clone(core));
        let mut request = LegacyRequest {
            nr_version: 14,
            nr_tx_slots: 4,
            nr_rx_slots: 4,
            ..LegacyRequest::default()
        };
        request.nr_name[..name.len()].copy_from_slice(name.as_bytes());
        control.legacy(NIOCREGIF, &mut request).unwrap();
        control
    }

    /// Sends `count` frames.
    fn send(control: &Control, count: u32) {
        let registration = control.registration().unwrap();
        let ring = registration.ring(Direction::Tx, 0).unwrap();
        let at = (0..count).fold(ring.head(), |at, _| {
            let slot = ring.slot(at).unwrap();
            ring.set_slot(at, Slot { len: 60, ..slot });
            ring.next(at)
        });
        ring.set_cur(at);
        ring.set_head(at);
        control.sync(Direction::Tx).unwrap();
    }

    fn channel(client: &Client) -> (Arc<Channel>, page::Client, OwnedFd) {
        let (page, fd) = Page::new().unwrap();
        let (bell, end) = bell_pair().unwrap();
        let bell = Strays::start().unwrap().keep(bell);
        let channel = Arc::new(Channel::new(page, bell));
        client.add(&channel);
        (channel, page::Client::new(fd.as_fd()).unwrap(), end)
    }

    fn ends() -> (Client, Control) {
        let core = Netmap::new(Arc::new(Switches::default()), RegionConfig::global());
        let core = Arc::new(core);
        let (one, other) = (bind(&core, "vale0:a{1"), bind(&core, "vale0:a}1"));
        (Client::new(one), other)
    }

    fn wait_for(events: PollFlags) -> Operation {
        Operation::Poll {
            events: u16::from_ne_bytes(events.bits().to_ne_bytes()),
            arm: true,
        }
    }

    #[test]
    fn who_waits_for_room_hides_no_frames_from_who_waits_for_these() {
        let (client, other) = ends();
        let (_one, mut reader, _end) = channel(&client);
        let (writer, _, _end) = channel(&client);
        // The ring is full.
        send(&client.control, 3);
        let _ = reader.ask(wait_for(PollFlags::POLLIN));
        assert!(client.turn());
        assert_eq!(reader.answer(), Some(Outcome::default()));
        let before = reader.ready();
        assert!(!client.turn());
        // It comes when the worker has begun with the other thread's poll.
        send(&other, 1);
        let found = client.perform(wait_for(PollFlags::POLLOUT), &writer);
        assert_eq!(found, Outcome::default());
        assert!(client.has_fired(&client.channels.load()));
        assert!(client.turn());
        assert_ne!(reader.ready(), before);
        assert!(!client.turn());
        // Nor does anybody hear of what came before they waited.
        let _ = reader.ask(wait_for(PollFlags::POLLIN));
        assert!(client.turn());
        assert_eq!(reader.answer().unwrap().result, 1, "POLLIN");
        assert!(!client.rest());
    }

    #[test]
    fn a_bell_that_brings_descriptors_on_and_on_is_not_read() {
        let account = Arc::new(Account::new(7, Limits::default()));
        let charge = account.charge(Resource::Channels, 1).unwrap();
        let (bell, end) = bell_pair().unwrap();
        let bell = Strays::start().unwrap().keep(bell);
        let channel = Channel::new(Page::new().unwrap().0, bell.on(Some(Arc::new(charge))));
        let is_read = |fd: OwnedFd| {
            send_message(end.as_fd(), b"x", &[fd.as_fd()]).unwrap();
            drop(fd);
            channel.quiet();
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            recv(channel.bell().as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
        };
        // One that cannot be closed keeps those behind it.
        let (slow, held) = slow_to_close();
        assert!(is_read(slow));
        for _ in 1..MOST {
            assert!(is_read(pipe().unwrap().0));
        }
        assert!(!is_read(pipe().unwrap().0));
        // Nor when all of them are gone.
        drop(held);
        until("all are closed", || account.has(Resource::Strays) == 0);
        assert!(!is_read(pipe().unwrap().0));
    }

    #[test]
    fn each_turn_is_one_request_and_nobody_is_left_out() {
        let (client, _other) = ends();
        let mut all: Vec<_> = (0..3).map(|_| channel(&client)).collect();
        let sync = Operation::Sync(Direction::Rx);
        for (_, page, _) in &mut all {
            let _ = page.ask(sync);
        }
        let answered = |all: &[(Arc<Channel>, page::Client, OwnedFd)]| {
            let pages = all.iter().map(|(_, page, _)| page);
            pages.filter(|page| page.answer().is_some()).count()
        };
        for want in [1, 1, 2] {
            assert!(client.turn());
            assert_eq!(answered(&all), want);
            // The first asks again and again.
            let _ = all[0].1.ask(sync);
        }
    }
}
