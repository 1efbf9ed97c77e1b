//! Krings: what the core knows of a ring, beside the ring itself.
//!
//! The application's half ([`User`]) belongs to whoever syncs. The other half,
//! how far the port is, is under the queue's lock: on a receive ring senders
//! move it, by *leases*. A sender reserves slots under the lock, copies
//! outside it, and commits; what is committed becomes the application's in the
//! order of the reservations, so one who is slow holds up those behind it but
//! overtakes nobody.
//!
//! ```text
//!        hwcur            hwtail            hwlease
//!   free | application's  | being written   | free
//! ```

mod counters;
mod lease;
mod watch;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

pub use counters::{Counters, Counts};
pub use lease::Lease;
pub use watch::Watch;

use super::abi::NS_TXMON;
use super::mem::{RingMemory, RingView};
use super::port::Direction;
use super::sync::{self, Hardware, Pointers, User};
use crate::event::Waker;

/// Who is to be woken when a receive ring gets frames, or a transmit ring gets
/// room.
#[derive(Debug)]
pub struct Listener {
    waker: Waker,
    /// The [`Wake`] bits that are waited for.
    armed: AtomicU8,
    /// How often it was armed no more.
    fired: AtomicU32,
    /// Somebody looks at `fired` all the time and needs no waking.
    attended: AtomicBool,
    /// The waker was woken and not drained since.
    woken: AtomicBool,
}

/// What a listener waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake(u8);

impl Wake {
    /// Frames in a receive ring.
    pub const FRAMES: Self = Self(1);
    /// Room in a transmit ring.
    pub const ROOM: Self = Self(2);
    /// Either.
    pub const ANY: Self = Self(3);

    pub(super) fn of(direction: Direction) -> Self {
        match direction {
            Direction::Rx => Self::FRAMES,
            Direction::Tx => Self::ROOM,
        }
    }
}

impl Listener {
    /// Nobody waits yet.
    pub fn new(waker: Waker) -> Self {
        Self {
            waker,
            armed: AtomicU8::new(0),
            fired: AtomicU32::new(0),
            attended: AtomicBool::new(false),
            woken: AtomicBool::new(false),
        }
    }

    /// The next `wake` wakes. Whoever arms looks once more before it sleeps:
    /// what came just before wakes nobody.
    pub fn arm(&self, wake: Wake) {
        self.armed.fetch_or(wake.0, Ordering::SeqCst);
    }

    /// What becomes readable, and is made unreadable again by `drain`.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// How often what was armed may have come: when several wait for different
    /// things, what one arms hides from nobody that it changes.
    pub fn fired(&self) -> u32 {
        self.fired.load(Ordering::SeqCst)
    }

    /// Says whether somebody asks [`fired`](Self::fired) all the time from now
    /// on, and is not to be woken. Whoever says no asks once more.
    pub fn attend(&self, attended: bool) {
        self.attended.store(attended, Ordering::SeqCst);
    }

    /// Makes the waker unreadable, if it was woken since.
    pub fn drain(&self) {
        if self.woken.load(Ordering::Relaxed) && self.woken.swap(false, Ordering::Acquire) {
            self.waker.drain();
        }
    }

    /// Wakes who is armed: one system call for each sleep, not each batch.
    fn notify(&self, wake: Wake) {
        // What was armed between the two for something else is gone as well:
        // who waits for that is told once too often, and not too seldom.
        if self.armed.load(Ordering::Relaxed) & wake.0 == 0
            || self.armed.swap(0, Ordering::SeqCst) == 0
        {
            return;
        }
        self.fired.fetch_add(1, Ordering::SeqCst);
        if !self.attended.load(Ordering::SeqCst) {
            self.waker.wake();
            // Afterwards: who drains in between is told once too often, and
            // drains then.
            self.woken.store(true, Ordering::Release);
        }
    }
}

/// What a sync found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The ring was wrong and begins anew.
    pub began_anew: bool,
    /// There are slots behind `cur`: frames, or room.
    pub ready: bool,
}

impl Synced {
    pub(super) fn new(began_anew: bool, user: &User) -> Self {
        Self {
            began_anew,
            ready: user.rcur != user.rtail,
        }
    }
}

/// What the queue's lock protects.
#[derive(Debug)]
struct Queue {
    hardware: Hardware,
    /// First slot that nobody has reserved.
    hwlease: u32,
    /// The leases that are out or wait for earlier ones: where each ends, once
    /// it is committed. Each has at least one slot, so there is room for all.
    leases: VecDeque<Option<u32>>,
    /// How many leases there were before the first of these.
    done: u64,
    /// No leases any more.
    stopped: bool,
}

/// The application's half.
#[derive(Debug)]
struct Application {
    user: User,
    /// Where it is at the next sync, if not where the ring says.
    given: Option<Pointers>,
}

/// One ring with its private state.
#[derive(Debug)]
pub struct Kring {
    name: String,
    direction: Direction,
    memory: RingMemory,
    watch: Arc<Watch>,
    user: Mutex<Application>,
    queue: Mutex<Queue>,
    drained: Condvar,
    listeners: ArcSwap<Vec<Arc<Listener>>>,
    counters: Counters,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic could leave here is numbers that are each valid.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kring {
    /// The tail that a new ring has: a transmit ring is the application's but
    /// for one slot, which always stays empty; a receive ring is empty.
    pub fn first_tail(rx: bool, slots: u32) -> u32 {
        if rx { 0 } else { slots.saturating_sub(1) }
    }

    /// A kring for a new ring, whose `tail` is [`Kring::first_tail`] and whose
    /// monitors are those of `watch`.
    pub fn new(name: String, direction: Direction, memory: RingMemory, watch: Arc<Watch>) -> Self {
        let view = memory.view();
        let (slots, hwtail) = (view.num_slots(), view.tail());
        Self {
            name,
            direction,
            watch,
            user: Mutex::new(Application {
                user: User {
                    rtail: hwtail,
                    ..User::default()
                },
                given: None,
            }),
            queue: Mutex::new(Queue {
                hardware: Hardware { hwcur: 0, hwtail },
                hwlease: hwtail,
                leases: VecDeque::with_capacity(slots as usize),
                done: 0,
                stopped: false,
            }),
            drained: Condvar::new(),
            listeners: ArcSwap::default(),
            counters: Counters::default(),
            memory,
        }
    }

    /// Its name, for instance `vale0:a RX0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ring itself.
    #[inline]
    pub fn view(&self) -> RingView<'_> {
        self.memory.view()
    }

    /// The ring's memory.
    pub fn memory(&self) -> &RingMemory {
        &self.memory
    }

    /// What went through, and what did not.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts what no lease counts.
    pub fn count(&self, counts: &Counts) {
        let _queue = lock(&self.queue);
        self.counters.add(counts);
    }

    /// How far the port is.
    pub fn hardware(&self) -> Hardware {
        lock(&self.queue).hardware
    }

    /// Slots that can be reserved.
    pub fn space(&self) -> u32 {
        lock(&self.queue).space(&self.view())
    }

    /// Wakes `listener` too from now on.
    pub fn add_listener(&self, listener: &Arc<Listener>) {
        self.listeners.rcu(|old| {
            let mut all = Vec::clone(old);
            all.push(Arc::clone(listener));
            all
        });
    }

    /// Wakes `listener` no longer.
    pub fn remove_listener(&self, listener: &Arc<Listener>) {
        self.listeners.rcu(|old| {
            let mut all = Vec::clone(old);
            all.retain(|one| !Arc::ptr_eq(one, listener));
            all
        });
    }

    /// The ring's monitors.
    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Wakes who waits for frames, or room.
    pub(super) fn notify(&self) {
        for listener in self.listeners.load().iter() {
            listener.notify(Wake::of(self.direction));
        }
    }

    /// Syncs a transmit ring: `send` is given the slots from the first up to
    /// but without the second, and sends them all.
    pub fn txsync(&self, send: impl FnOnce(u32, u32)) -> Synced {
        self.txsync_with(|head, hardware| self.send_until(head, hardware, send))
    }

    /// Has all slots up to `head` sent; how far the port is then.
    fn send_until(&self, head: u32, before: Hardware, send: impl FnOnce(u32, u32)) -> Hardware {
        if before.hwcur != head {
            send(before.hwcur, head);
        }
        let last = self.view().num_slots().saturating_sub(1);
        // All is sent; one slot stays empty.
        Hardware {
            hwcur: head,
            hwtail: head.checked_sub(1).unwrap_or(last),
        }
    }

    /// Syncs a transmit ring whose port does with the slots from `hwcur` up to
    /// the `head` that it is given what it wants, and says how far it is then.
    pub fn txsync_with(&self, port: impl FnOnce(u32, Hardware) -> Hardware) -> Synced {
        let Application { user, given } = &mut *lock(&self.user);
        let given = given.take();
        let view = self.view();
        let before = self.hardware();
        let mut began_anew = false;
        if let Err(error) = sync::txsync_prologue(user, &view, given) {
            self.begin_anew(user, before, &error);
            began_anew = true;
        }
        let head = user.rhead;
        if self.watch.is_watched() && before.hwcur != head {
            self.watch.copy(&view, before.hwcur..head, NS_TXMON);
        }
        let after = port(head, before);
        lock(&self.queue).hardware = after;
        if self.watch.is_watched() {
            // The slots that the port has done with since.
            let released = view.next(before.hwtail)..view.next(after.hwtail);
            self.watch.swap(&view, released, NS_TXMON);
        }
        sync::finalize(user, after, &view, given.is_some());
        Synced::new(began_anew, user)
    }

    /// Begins a sync of a transmit ring whose application need not wait for its
    /// end: there is room beyond `cur`. The room that the sync makes is the
    /// application's from the next sync on, begun or whole. `false`: nothing was
    /// begun, and the whole sync is to be done.
    pub fn begin_txsync(&self) -> bool {
        let Application { user, given } = &mut *lock(&self.user);
        // Monitors see slots change hands, which they do once in a sync.
        if given.is_some() || self.watch.is_watched() {
            return false;
        }
        let view = self.view();
        sync::finalize(user, self.hardware(), &view, false);
        let checked = sync::txsync_prologue(user, &view, None);
        checked.is_ok() && user.rcur != user.rtail
    }

    /// Goes on with a sync that was begun: `send` as for
    /// [`txsync`](Self::txsync). Nothing happens where another sync has done so.
    pub fn go_on_with_txsync(&self, send: impl FnOnce(u32, u32)) {
        // Held to the end, as in a whole sync: two programs may have the ring.
        let application = lock(&self.user);
        let after = self.send_until(application.user.rhead, self.hardware(), send);
        self.set_hardware(after);
        drop(application);
    }

    /// Syncs a receive ring: what the application has given back is free, and
    /// what was committed is its own.
    pub fn rxsync(&self) -> Synced {
        self.rxsync_after(|_| {})
    }

    /// As [`rxsync`](Self::rxsync); the slots that the application gives back
    /// are shown to `released` before they are free.
    pub fn rxsync_after(&self, released: impl FnOnce(Range<u32>)) -> Synced {
        self.rxsync_in_turn(released, |head, _| {
            let mut queue = lock(&self.queue);
            queue.hardware.hwcur = head;
            queue.hardware
        })
    }

    /// Syncs a receive ring whose port takes back the slots from `hwcur` up to
    /// the `head` that it is given, and says how far it is then.
    pub fn rxsync_with(&self, port: impl FnOnce(u32, Hardware) -> Hardware) -> Synced {
        self.rxsync_in_turn(|_| {}, port)
    }

    #[inline]
    fn rxsync_in_turn(
        &self,
        released: impl FnOnce(Range<u32>),
        port: impl FnOnce(u32, Hardware) -> Hardware,
    ) -> Synced {
        let Application { user, given } = &mut *lock(&self.user);
        let given = given.take();
        let view = self.view();
        let before = self.hardware();
        let mut began_anew = false;
        if let Err(error) = sync::rxsync_prologue(user, before, &view, given) {
            self.begin_anew(user, before, &error);
            began_anew = true;
        }
        released(before.hwcur..user.rhead);
        if self.watch.is_watched() {
            self.watch.swap(&view, before.hwcur..user.rhead, 0);
        }
        let after = port(user.rhead, before);
        sync::finalize(user, after, &view, given.is_some());
        if given.is_none() {
            sync::timestamp(&view);
        }
        Synced::new(began_anew, user)
    }

    /// The slots at `slots` are about to be the application's: its monitors
    /// see them now.
    #[inline]
    pub(super) fn watched(&self, slots: Range<u32>) {
        if self.watch.is_watched() {
            self.watch.copy(&self.view(), slots, 0);
        }
    }

    /// How far the port is, where it alone moves that.
    pub(super) fn set_hardware(&self, hardware: Hardware) {
        lock(&self.queue).hardware = hardware;
    }

    /// Goes on from where somebody else has brought the ring.
    pub(super) fn resume(&self, user: User, hardware: Hardware) {
        lock(&self.user).user = user;
        self.set_hardware(hardware);
    }

    /// What the application has not taken over yet, or given back.
    pub fn user(&self) -> User {
        lock(&self.user).user
    }

    /// The next sync takes these pointers, in place of those in the ring, and
    /// writes none there; `None`: it is as any other.
    pub fn give(&self, pointers: Option<Pointers>) {
        lock(&self.user).given = pointers;
    }

    #[cold]
    fn begin_anew(&self, user: &mut User, hardware: Hardware, error: &sync::SyncError) {
        let bad = sync::reinit(user, hardware, &self.view());
        self.count(&Counts {
            resets: 1,
            bad_slots: bad.into(),
            ..Counts::default()
        });
        tracing::debug!(
            "{}: {error}: the ring begins anew, {bad} bad slots",
            self.name
        );
    }

    /// Closes the ring to senders and waits for those that are in it. Copies
    /// are all they do there, so this is soon.
    pub fn stop(&self) {
        let mut queue = lock(&self.queue);
        queue.stopped = true;
        while !queue.leases.is_empty() {
            queue = self
                .drained
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Queue {
    /// Slots that are neither the application's nor reserved, but the one that
    /// always stays empty.
    #[inline]
    fn space(&self, view: &RingView<'_>) -> u32 {
        let busy = view.distance(self.hardware.hwcur, self.hwlease);
        view.num_slots().saturating_sub(1 + busy)
    }
}

#[cfg(test)]
mod tests;
