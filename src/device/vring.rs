//! One virtqueue of a device, with what the front end said of it.
//!
//! The ring has a *gate*: stopped means drained. Its owner works on it in *turns*, with
//! the lock held. Switch workers that deliver into a receive ring take a
//! *lease*: they reserve chains under the lock, copy without it, and commit
//! under it; commits publish in the order of reservation. Whatever changes the
//! ring closes the gate to new leases, waits for those that are out, and only
//! then acts. So after a stop nothing touches guest memory any more.

mod lease;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::notifier::{Blocks, drain, signal};
use crate::virtio::memory::GuestMemory;
use crate::virtio::queue::{
    PackedQueue, Queue, RingAddresses, RingError, RingFeatures, SetupError, VirtQueue,
};

pub use lease::{Lease, Reservation};

/// Most leases on one ring at a time; each worker has one at most.
const MAX_LEASES: usize = 512;

/// How the driver says that it has added chains.
#[derive(Clone, Debug, Default)]
pub enum Kick {
    /// Not set: the ring is stopped.
    #[default]
    Unset,
    /// No descriptor: the ring is to be polled.
    Poll,
    /// An eventfd, a pipe or a socket.
    Fd(Arc<OwnedFd>),
}

/// Why a ring does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VringFault {
    /// It cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The driver broke it.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Its memory vanished.
    #[error("guest memory was truncated under the ring")]
    Memory,
    /// Its kick or call descriptor blocks.
    #[error(transparent)]
    Blocks(#[from] Blocks),
}

/// A reservation that is not published yet.
#[derive(Clone, Copy, Debug)]
struct Claim {
    number: u64,
    chains: u16,
    done: bool,
}

/// A ring that can be worked on.
pub struct Active {
    /// The ring.
    pub queue: Queue,
    /// The table in which its buffers are looked up.
    pub memory: Arc<GuestMemory>,
}

/// Everything behind the lock.
#[derive(Default)]
struct State {
    size: u16,
    addresses: Option<RingAddresses>,
    /// Where to go on; `None`: from the start.
    base: Option<u32>,
    kick: Kick,
    call: Option<OwnedFd>,
    err: Option<OwnedFd>,
    features: RingFeatures,
    memory: Arc<GuestMemory>,
    /// There while size, addresses, memory and kick are, and nothing is wrong.
    active: Option<Active>,
    /// Since the kick was set the ring had memory, or was said to have none.
    settled: bool,
    /// Something was used since the ring was started.
    has_used: bool,
    /// The gate: no new leases.
    closing: bool,
    leases: usize,
    claims: VecDeque<Claim>,
    next_claim: u64,
}

/// One virtqueue.
pub struct Vring {
    label: String,
    state: Mutex<State>,
    drained: Condvar,
    /// A started ring is worked on when enabled, and drained when not.
    enabled: AtomicBool,
    failed: AtomicBool,
}

impl Vring {
    /// A ring of which the front end has said nothing; `label` names it in
    /// messages.
    pub fn new(label: String) -> Self {
        let vring = Self {
            label,
            state: Mutex::default(),
            drained: Condvar::new(),
            enabled: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        };
        vring.lock().claims.reserve(MAX_LEASES);
        vring
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave half a state behind: it aborts the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the gate, waits until nobody is inside, and changes the state.
    /// The ring is set up anew afterwards from where it was, if it can be.
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> Result<R, VringFault> {
        let mut state = self.lock();
        state.closing = true;
        while state.leases > 0 {
            state = self
                .drained
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(active) = state.active.take() {
            state.base = Some(active.queue.base());
        }
        let result = change(&mut state);
        state.closing = false;
        let outcome = state.activate();
        let fault = outcome.err();
        if let Some(fault) = fault {
            self.report(&mut state, fault);
        }
        let blind = state.starts_without_memory();
        drop(state);
        if blind {
            tracing::warn!(
                "{}: the front end has started the ring without sharing guest memory: no frames \
                 until it does; share all of it: QEMU's memory-backend-memfd with share=on, and \
                 -numa node,memdev=; Cloud Hypervisor's --memory shared=on",
                self.label
            );
        }
        self.failed.store(fault.is_some(), Ordering::Relaxed);
        fault.map_or(Ok(result), Err)
    }

    /// Number of entries.
    ///
    /// # Errors
    /// As all changes: when the ring is complete now and cannot be set up.
    pub fn set_size(&self, size: u16) -> Result<(), VringFault> {
        let packed = self.lock().features.packed;
        let possible = packed || size.is_power_of_two();
        if size == 0 || !possible || size > crate::virtio::spec::MAX_QUEUE_SIZE {
            return Err(SetupError::Size(size).into());
        }
        self.change(|state| state.size = size)
    }

    /// Where the ring is.
    ///
    /// # Errors
    /// As for [`set_size`](Self::set_size).
    pub fn set_addresses(&self, at: RingAddresses) -> Result<(), VringFault> {
        self.change(|state| state.addresses = Some(at))
    }

    /// Where to go on, as [`VirtQueue::new`] has it.
    ///
    /// # Errors
    /// As for [`set_size`](Self::set_size).
    pub fn set_base(&self, base: u32) -> Result<(), VringFault> {
        let packed = self.lock().features.packed;
        if !packed && base > u16::MAX.into() {
            return Err(SetupError::Base(base).into());
        }
        self.change(|state| state.base = Some(base))
    }

    /// The negotiated features.
    ///
    /// # Errors
    /// As for [`set_size`](Self::set_size).
    pub fn set_features(&self, features: RingFeatures) -> Result<(), VringFault> {
        if self.lock().features == features {
            return Ok(());
        }
        self.change(|state| state.features = features)
    }

    /// The table of guest memory. When this returns, nobody uses the old one.
    ///
    /// # Errors
    /// As for [`set_size`](Self::set_size).
    pub fn set_memory(&self, memory: Arc<GuestMemory>) -> Result<(), VringFault> {
        self.change(|state| state.memory = memory)
    }

    /// Starts the ring: this is how its driver kicks. Returns the descriptor
    /// that it had before, so that it can be watched no longer, and whether the
    /// ring could be set up.
    pub fn set_kick(&self, kick: Kick) -> (Kick, Result<(), VringFault>) {
        let mut old = Kick::Unset;
        let result = self.change(|state| old = std::mem::replace(&mut state.kick, kick));
        (old, result)
    }

    /// How to interrupt the driver; `None`: it polls. What was used before may
    /// have been said where nobody listens any more, so it is said once again.
    ///
    /// # Errors
    /// As for [`set_size`](Self::set_size).
    pub fn set_call(&self, fd: Option<OwnedFd>) -> Result<(), VringFault> {
        self.change(|state| state.call = fd)?;
        let mut state = self.lock();
        if let (Some(fd), true) = (&state.call, state.active.is_some() && state.has_used) {
            if let Err(fault) = signal(fd).map_err(VringFault::from) {
                self.fail(&mut state, fault);
                return Err(fault);
            }
        }
        Ok(())
    }

    /// How to say that the ring is wrong.
    ///
    /// # Errors
    /// As for [`set_size`](Self::set_size).
    pub fn set_err(&self, fd: Option<OwnedFd>) -> Result<(), VringFault> {
        self.change(|state| state.err = fd)
    }

    /// Lets a started ring be worked on, or only drained.
    pub fn enable(&self, enable: bool) {
        // Under the gate, so that a disabled receive ring gets no more frames.
        let mut state = self.lock();
        state.closing = true;
        while state.leases > 0 {
            state = self
                .drained
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.enabled.store(enable, Ordering::Relaxed);
        state.closing = false;
    }

    /// Stops the ring, after the last access. Returns where to go on
    /// and the kick descriptor that is to be watched no longer.
    pub fn stop(&self) -> (u32, Kick) {
        let stopped = self.change(|state| {
            state.has_used = false;
            (state.base(), std::mem::take(&mut state.kick))
        });
        // A stopped ring is not set up, so nothing can have failed.
        stopped.unwrap_or_default()
    }

    /// Forgets everything that the front end said but the memory, and whom to
    /// tell of errors: a front end says these once, and resets the device
    /// whenever its guest does.
    pub fn reset(&self) -> Kick {
        let kick = self.change(|state| {
            let old = std::mem::take(state);
            state.memory = old.memory;
            state.claims = old.claims;
            state.next_claim = old.next_claim;
            state.err = old.err;
            old.kick
        });
        self.enabled.store(false, Ordering::Relaxed);
        kick.unwrap_or_default()
    }

    /// How the driver kicks now.
    pub fn kick(&self) -> Kick {
        self.lock().kick.clone()
    }

    /// The front end has started the ring and not stopped it.
    pub fn is_started(&self) -> bool {
        !matches!(self.lock().kick, Kick::Unset)
    }

    /// The ring is enabled, started or not.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// The ring is complete and nothing is wrong with it.
    pub fn is_active(&self) -> bool {
        self.lock().active.is_some()
    }

    /// Somebody works on it.
    #[cfg(test)]
    pub(super) fn is_locked(&self) -> bool {
        self.state.try_lock().is_err()
    }

    /// The ring stopped because something is wrong with it.
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Works on the ring with its lock held: for its owner alone. `None`: the
    /// ring is stopped.
    pub fn turn(&self) -> Option<Turn<'_>> {
        let state = self.lock();
        (state.active.is_some() && !state.closing).then_some(Turn { vring: self, state })
    }

    /// Empties the kick descriptor, but that of a ring that failed: it may be
    /// why.
    pub(super) fn drain_kick(&self) {
        let Kick::Fd(fd) = self.kick() else {
            return;
        };
        if self.is_failed() {
            return;
        }
        if let Err(fault) = drain(&fd) {
            self.fail(&mut self.lock(), fault.into());
        }
    }

    fn fail(&self, state: &mut State, fault: VringFault) {
        if let Some(active) = state.active.take() {
            state.base = Some(active.queue.base());
        }
        self.report(state, fault);
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Tells the front end, and whoever reads the log, that the ring is wrong.
    fn report(&self, state: &mut State, fault: VringFault) {
        tracing::warn!("{}: ring stopped: {fault}", self.label);
        if state.err.as_ref().is_some_and(|fd| signal(fd).is_err()) {
            state.err = None;
        }
    }
}

impl State {
    /// Where the ring is to go on.
    fn base(&self) -> u32 {
        let start = if self.features.packed {
            PackedQueue::START
        } else {
            0
        };
        self.base.unwrap_or(start)
    }

    /// Sets the ring up when everything for it is there.
    fn activate(&mut self) -> Result<(), VringFault> {
        let (Some(at), false) = (self.addresses, matches!(self.kick, Kick::Unset)) else {
            return Ok(());
        };
        if self.size == 0 || self.memory.is_empty() {
            return Ok(());
        }
        let memory = Arc::clone(&self.memory);
        let mut queue = Queue::new(
            Arc::clone(&memory),
            self.size,
            at,
            self.base(),
            self.features,
        )?;
        queue.disable_kicks();
        self.active = Some(Active { queue, memory });
        Ok(())
    }

    /// The ring was started, and lacks nothing but memory. Once a start; and not
    /// when it had memory, which QEMU takes away for a moment to change it.
    fn starts_without_memory(&mut self) -> bool {
        if matches!(self.kick, Kick::Unset) {
            self.settled = false;
            return false;
        }
        let complete = self.addresses.is_some() && self.size > 0;
        if self.settled || !complete {
            return false;
        }
        self.settled = true;
        self.memory.is_empty()
    }

    fn interrupt(&mut self) -> Result<(), VringFault> {
        self.has_used = true;
        let wanted = self
            .active
            .as_mut()
            .is_some_and(|active| active.queue.wants_interrupt());
        match &self.call {
            Some(fd) if wanted => Ok(signal(fd)?),
            _ => Ok(()),
        }
    }
}

/// The owner's turn on a ring.
pub struct Turn<'v> {
    vring: &'v Vring,
    state: MutexGuard<'v, State>,
}

impl Turn<'_> {
    /// The ring and the memory of its buffers, while nothing is wrong.
    pub fn active(&mut self) -> Option<(&mut Queue, &GuestMemory)> {
        let Active { queue, memory } = self.state.active.as_mut()?;
        Some((queue, memory))
    }

    /// Publishes `count` used entries and interrupts the driver if it wants.
    pub fn publish(&mut self, count: u16) {
        if let (Some(active), true) = (&mut self.state.active, count > 0) {
            active.queue.publish(count);
            if let Err(fault) = self.state.interrupt() {
                self.fail(fault);
            }
        }
    }

    /// Stops the ring: something is wrong with it.
    pub fn fail(&mut self, fault: impl Into<VringFault>) {
        self.vring.fail(&mut self.state, fault.into());
    }
}
