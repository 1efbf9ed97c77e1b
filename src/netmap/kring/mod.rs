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

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

pub use counters::{Counters, Counts};
pub use lease::Lease;

use super::mem::{RingMemory, RingView};
use super::sync::{self, Hardware, User};
use crate::event::Waker;

/// Who is to be woken when a receive ring gets frames.
#[derive(Debug)]
pub struct Listener {
    waker: Waker,
    armed: AtomicBool,
}

impl Listener {
    /// Nobody waits yet.
    pub fn new(waker: Waker) -> Self {
        Self {
            waker,
            armed: AtomicBool::new(false),
        }
    }

    /// The next frames wake. Whoever arms looks once more before it sleeps:
    /// frames that came just before wake nobody.
    pub fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// What becomes readable, and is made unreadable again by `drain`.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Wakes who is armed: one system call for each sleep, not each batch.
    fn notify(&self) {
        if self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::SeqCst) {
            self.waker.wake();
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

/// One ring with its private state.
#[derive(Debug)]
pub struct Kring {
    name: String,
    memory: RingMemory,
    user: Mutex<User>,
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

    /// A kring for a new ring, whose `tail` is [`Kring::first_tail`].
    pub fn new(name: String, memory: RingMemory) -> Self {
        let view = memory.view();
        let (slots, hwtail) = (view.num_slots(), view.tail());
        Self {
            name,
            user: Mutex::new(User {
                rtail: hwtail,
                ..User::default()
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

    /// Wakes who waits for frames.
    fn notify(&self) {
        for listener in self.listeners.load().iter() {
            listener.notify();
        }
    }

    /// Syncs a transmit ring: `send` is given the slots from the first up to
    /// but without the second, and sends them all.
    pub fn txsync(&self, send: impl FnOnce(u32, u32)) {
        let mut user = lock(&self.user);
        let view = self.view();
        let hardware = self.hardware();
        if let Err(error) = sync::txsync_prologue(&mut user, &view) {
            self.begin_anew(&mut user, hardware, &error);
        }
        let head = user.rhead;
        if hardware.hwcur != head {
            send(hardware.hwcur, head);
        }
        // All is sent; one slot stays empty.
        let last = view.num_slots().saturating_sub(1);
        let hwtail = head.checked_sub(1).unwrap_or(last);
        let hardware = Hardware {
            hwcur: head,
            hwtail,
        };
        lock(&self.queue).hardware = hardware;
        sync::finalize(&mut user, hardware, &view);
    }

    /// Syncs a receive ring: what the application has given back is free, and
    /// what was committed is its own.
    pub fn rxsync(&self) {
        let mut user = lock(&self.user);
        let view = self.view();
        let hardware = self.hardware();
        if let Err(error) = sync::rxsync_prologue(&mut user, hardware, &view) {
            self.begin_anew(&mut user, hardware, &error);
        }
        let mut queue = lock(&self.queue);
        queue.hardware.hwcur = user.rhead;
        let hardware = queue.hardware;
        drop(queue);
        sync::finalize(&mut user, hardware, &view);
        sync::timestamp(&view);
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
