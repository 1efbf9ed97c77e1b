//! Sync loops: whether one may start, and how it ends
//! (`netmap_sync_kloop`, `netmap_sync_kloop_stop`). The loop itself is
//! [`kloop`](crate::netmap::kloop)'s.

use std::mem::size_of;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use nix::errno::Errno;
use zerocopy::FromBytes;

use super::{ClientMemory, Control, Message};
use crate::netmap::abi::nmreq::LoopBody;
use crate::netmap::abi::option::*;
use crate::netmap::kloop::{Handle, Job, Plan};
use crate::netmap::poll::{IN, OUT};
use crate::netmap::port::{Direction, Port};
use crate::netmap::register::Registration;
use crate::netmap::sync::{Hardware, Pointers};

/// Longest time that a sync loop may sleep, in microseconds.
const LONGEST_SLEEP: u32 = 1_000_000;

/// A descriptor's block of ring pointers, and the loop that uses it.
#[derive(Debug, Default)]
pub(super) struct SyncLoop {
    block: SharedBlock,
    running: Option<Handle>,
    /// It was stopped while none ran: the next one ends at once.
    stopped: bool,
}

impl SyncLoop {
    /// The loop that runs, if one does.
    fn running(&mut self) -> Option<&Handle> {
        self.running = self.running.take().filter(Handle::is_running);
        self.running.as_ref()
    }
}

impl Control {
    fn sync_loop(&self) -> MutexGuard<'_, SyncLoop> {
        self.sync_loop
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the ring pointers in `block` from now on.
    pub(in crate::netmap) fn share(&self, block: SharedBlock) {
        self.sync_loop().block = block;
        self.shared_block.store(true, Ordering::Release);
        if let Some(registration) = self.registration() {
            registration.recall();
        }
    }

    /// A loop uses the block: no other one can come in its place.
    pub(super) fn is_looping(&self) -> bool {
        self.sync_loop().running().is_some()
    }

    /// `NETMAP_REQ_SYNC_KLOOP_START`: gives the client what it needs to run a
    /// loop. Without that, it need not run: it was stopped before.
    pub(super) fn start_loop(
        &self,
        message: &mut Message,
        memory: &mut dyn ClientMemory,
    ) -> Result<(), Errno> {
        let body: LoopBody = message.body();
        if body.sleep_us > LONGEST_SLEEP {
            return Err(Errno::EINVAL);
        }
        let registration = self.registration().ok_or(Errno::ENXIO)?;
        if !self.shared_block.load(Ordering::Acquire) {
            return Err(Errno::EINVAL);
        }
        let mut state = self.sync_loop();
        if state.running().is_some() {
            return Err(Errno::EBUSY);
        }
        let stopped = std::mem::take(&mut state.stopped);
        let Some(job) = job(message, registration, state.block, body.sleep_us)? else {
            return Ok(());
        };
        if stopped {
            return Ok(());
        }
        let (handle, end) = Handle::new(&job)?;
        memory.hand_over(end)?;
        state.running = Some(handle);
        Ok(())
    }

    /// `NETMAP_REQ_SYNC_KLOOP_STOP`: ends the loop. The client gets what becomes
    /// readable when it has ended, and waits for that.
    pub(super) fn stop_loop(&self, memory: &mut dyn ClientMemory) -> Result<(), Errno> {
        if self.registration().is_none() {
            return Err(Errno::ENXIO);
        }
        let mut state = self.sync_loop();
        match state.running() {
            Some(handle) => memory.hand_over(handle.stop()?),
            None => {
                state.stopped = true;
                Ok(())
            }
        }
    }

    /// Syncs one bound ring for the client's loop, which is at `pointers`; says
    /// how far the ring is.
    ///
    /// # Errors
    /// `ENXIO` when nothing is bound; `EINVAL` when there is no such ring, the
    /// pointers are not in the client's block, or they are wrong, and the ring
    /// begins anew; `EIO` when the port has nothing to sync.
    #[inline]
    pub fn sync_ring(
        &self,
        direction: Direction,
        ring: usize,
        pointers: Pointers,
    ) -> Result<Hardware, Errno> {
        self.looping()?.sync_ring(direction, ring, pointers)
    }

    /// Has the registration's descriptor become readable when frames or room
    /// come in any ring, for the client's loop.
    ///
    /// # Errors
    /// `ENXIO` when nothing is bound, `EINVAL` when the client has no block of
    /// ring pointers.
    pub fn listen(&self) -> Result<(), Errno> {
        self.looping()?.await_news(IN | OUT);
        Ok(())
    }

    /// What is bound, if a loop may sync it.
    #[inline]
    fn looping(&self) -> Result<&Registration, Errno> {
        let registration = self.registration().ok_or(Errno::ENXIO)?;
        if self.shared_block.load(Ordering::Acquire) {
            Ok(registration)
        } else {
            Err(Errno::EINVAL)
        }
    }
}

/// What a loop on `registration` is to do; `None`: nothing, as the options are
/// not supported.
///
/// # Errors
/// `EINVAL`, which is the option's status too.
fn job(
    message: &mut Message,
    registration: &Registration,
    block: SharedBlock,
    sleep_us: u32,
) -> Result<Option<Job>, Errno> {
    let shape = registration.adapter().shape();
    // Rings have 16-bit numbers.
    let rings = |way| u32::try_from(Port::ring_count(registration, way)).map_err(|_| Errno::EINVAL);
    let mut job = Job {
        plan: Plan {
            atok: block.csb_atok,
            ktoa: block.csb_ktoa,
            tx_rings: rings(Direction::Tx)?,
            rx_rings: rings(Direction::Rx)?,
            tx_slots: shape.tx_slots,
            rx_slots: shape.rx_slots,
            sleep_us,
            mode: 0,
        },
        events: Vec::new(),
    };
    if let Some(LoopMode { mode, .. }) = message.option(NETMAP_REQ_OPT_SYNC_KLOOP_MODE) {
        let known = NM_OPT_SYNC_KLOOP_DIRECT_TX | NM_OPT_SYNC_KLOOP_DIRECT_RX;
        let result = check(mode & !known == 0);
        message.set_status(NETMAP_REQ_OPT_SYNC_KLOOP_MODE, result);
        result?;
        job.plan.mode = mode;
    }
    if let Some(size) = message.option_size(NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS) {
        let rings = u64::from(job.plan.tx_rings) + u64::from(job.plan.rx_rings);
        let entry = size_of::<EventDescriptors>();
        let entries = rings.saturating_mul(entry as u64);
        let mut result = check(size == entries.saturating_add(size_of::<OptionHeader>() as u64));
        if !cfg!(target_os = "linux") && result.is_ok() {
            // As FreeBSD's kernel: no loop, and no error but the status.
            let unsupported = Err(Errno::EOPNOTSUPP);
            message.set_status(NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, unsupported);
            return Ok(None);
        }
        let payload = message.payload(NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS);
        let all = payload.chunks_exact(entry);
        job.events = all
            .filter_map(|entry| EventDescriptors::read_from_bytes(entry).ok())
            .collect();
        let asleep = job.events.iter().all(|events| events.ioeventfd >= 0);
        // What is synced when its client says so alone must be told of.
        result = result.and(check(asleep || job.plan.mode == 0));
        message.set_status(NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, result);
        result?;
    }
    Ok(Some(job))
}

fn check(good: bool) -> Result<(), Errno> {
    if good { Ok(()) } else { Err(Errno::EINVAL) }
}
