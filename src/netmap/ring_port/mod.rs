//! Ring ports: an attachment of a switch that stands on krings, for netmap
//! clients.
//!
//! What a client sends is forwarded by its own thread, straight out of its
//! buffers; what it receives is copied into its buffers by the senders.

mod rx;
mod tx;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::attachment::{Attachment, Delivered, Dropped};
use super::bwrap::{Onward, Way};
use super::kring::{Counts, Kring, Synced};
use super::mem::Region;
use super::port::{Direction, HeaderLen};
use super::rings::{BindError, Rings, Shape};
use super::sync::Hardware;
use crate::net::frame::Batch;
use crate::virtio::spec::net;

/// The rings of one port.
#[derive(Debug)]
pub struct RingPort {
    name: String,
    region: Arc<Region>,
    rings: Rings,
    /// [`HeaderLen::bytes`]; senders read it once a batch.
    header_len: AtomicUsize,
    /// Frames for receive rings that nobody has bound.
    unbound: AtomicU64,
    /// Or where they go.
    onward: Onward,
    /// They go somewhere; senders read it once a batch.
    leads_on: AtomicBool,
    /// What rings that are gone have counted.
    gone: Mutex<Counts>,
}

impl RingPort {
    /// A port without rings; they are made when they are bound.
    pub fn new(name: &str, region: Arc<Region>, shape: Shape) -> Self {
        Self {
            name: name.to_owned(),
            region,
            rings: Rings::new(shape),
            header_len: AtomicUsize::new(0),
            unbound: AtomicU64::new(0),
            onward: Onward::default(),
            leads_on: AtomicBool::new(false),
            gone: Mutex::default(),
        }
    }

    /// Its name, for instance `vale0:a`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its rings and buffers are.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// How many rings, how long.
    pub fn shape(&self) -> Shape {
        self.rings.shape()
    }

    /// Its rings.
    pub fn rings(&self) -> &Rings {
        &self.rings
    }

    /// What is in front of every frame, sent and received.
    pub fn header_len(&self) -> HeaderLen {
        match self.header_bytes() {
            10 => HeaderLen::Legacy,
            12 => HeaderLen::Full,
            _ => HeaderLen::None,
        }
    }

    #[inline]
    fn header_bytes(&self) -> usize {
        self.header_len.load(Ordering::Relaxed)
    }

    /// Puts something else in front of every frame from the next batch on.
    pub fn set_header_len(&self, len: HeaderLen) {
        self.header_len.store(len.bytes(), Ordering::Relaxed);
    }

    /// Has frames for rings that nobody has bound go on, or no longer; then
    /// none is on its way any more.
    pub fn lead_on(&self, way: Option<Way>) {
        self.leads_on.store(way.is_some(), Ordering::Relaxed);
        self.onward.set(way);
    }

    /// Frames that were dropped because nobody had bound their ring.
    pub fn unbound_frames(&self) -> u64 {
        self.unbound.load(Ordering::Relaxed)
    }

    /// The kring at `index`, while somebody has it bound.
    pub fn kring(&self, direction: Direction, index: usize) -> Option<Arc<Kring>> {
        self.rings.kring(direction, index)
    }

    /// Binds one ring, which is made if nobody has it yet.
    ///
    /// # Errors
    /// When it is not to be shared, or memory is short; nothing is bound then.
    /// A ring that is not there is like one that is busy.
    pub fn bind(
        &self,
        direction: Direction,
        index: usize,
        exclusive: bool,
    ) -> Result<Arc<Kring>, BindError> {
        self.rings.bind(direction, index, exclusive, |watch| {
            self.rings
                .make(&self.name, &self.region, direction, index, watch)
        })
    }

    /// Takes one binding back. With the last, the ring closes: senders that
    /// are in it are waited for, then it goes with whoever still holds it.
    pub fn unbind(&self, direction: Direction, index: usize) {
        if let Some(kring) = self.rings.unbind(direction, index) {
            kring.stop();
            self.gone().add(&kring.counters().read());
        }
    }

    fn gone(&self) -> MutexGuard<'_, Counts> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all its rings have counted, also those that are gone.
    pub fn counts(&self) -> Counts {
        let mut counts = *self.gone();
        for kring in self.rings.krings() {
            counts.add(&kring.counters().read());
        }
        counts
    }

    /// Sends what the application has put into the transmit ring `kring`, in
    /// batches that `forward` is given.
    pub fn txsync(&self, kring: &Kring, forward: &mut dyn FnMut(&Batch<'_>)) -> Synced {
        kring.txsync(|from, to| tx::send(kring, from..to, self.header_bytes(), forward))
    }

    /// Likewise, in a sync that was begun before.
    pub fn go_on_with_txsync(&self, kring: &Kring, forward: &mut dyn FnMut(&Batch<'_>)) {
        kring.go_on_with_txsync(|from, to| tx::send(kring, from..to, self.header_bytes(), forward));
    }
}

/// Syncs a transmit ring of frames without headers, in batches of which
/// `forward` takes as many as it can, and says how many; the ring keeps the
/// rest.
pub(super) fn send_some(kring: &Kring, forward: &mut dyn FnMut(&Batch<'_>) -> usize) -> Synced {
    kring.txsync_with(|head, hardware| {
        let at = tx::send_some(kring, hardware.hwcur..head, forward);
        let last = kring.view().num_slots().saturating_sub(1);
        Hardware {
            hwcur: at,
            hwtail: at.checked_sub(1).unwrap_or(last),
        }
    })
}

/// Forwards the frames without headers in `slots` that are marked
/// `NS_FORWARD`, and takes the mark off.
pub(super) fn send_marked(kring: &Kring, slots: Range<u32>, forward: &mut dyn FnMut(&Batch<'_>)) {
    tx::send_marked(kring, slots, forward);
}

/// Gives the frames of `batch` at `picks` to whoever reads a ring, each slot
/// with `flags`.
pub(super) fn deliver(kring: &Kring, flags: u16, batch: &Batch<'_>, picks: &[u16]) -> Delivered {
    rx::deliver(kring, 0, flags, batch, picks)
}

impl Attachment for RingPort {
    fn offloads(&self) -> u64 {
        // Whoever asks for the header takes what it can say, as the kernel
        // assumes; without it nothing can be left unfinished.
        match self.header_len() {
            HeaderLen::None if self.leads_on.load(Ordering::Relaxed) => net::GUEST_OFFLOADS,
            HeaderLen::None => 0,
            // But programs that are older than UDP segmentation cannot pass it on.
            HeaderLen::Legacy | HeaderLen::Full => net::GUEST_OFFLOADS & !net::GUEST_USO,
        }
    }

    fn deliver(&self, ring: usize, batch: &Batch<'_>, picks: &[u16]) -> Delivered {
        let at = ring % usize::from(self.shape().rx_rings).max(1);
        match self.rings.load(Direction::Rx, at).as_deref() {
            Some(Some(kring)) => rx::deliver(kring, self.header_bytes(), 0, batch, picks),
            _ => {
                let gone = self.onward.deliver(ring, batch, picks);
                gone.unwrap_or_else(|| {
                    self.unbound
                        .fetch_add(picks.len() as u64, Ordering::Relaxed);
                    Delivered::default()
                })
            }
        }
    }

    fn dropped(&self) -> Dropped {
        let counts = self.counts();
        Dropped {
            no_room: counts.full,
            unbound: self.unbound_frames(),
            short: counts.short,
            long: counts.long,
            bad_slots: counts.bad_slots,
            bad_headers: counts.bad_headers,
        }
    }
}

#[cfg(test)]
mod tests;
