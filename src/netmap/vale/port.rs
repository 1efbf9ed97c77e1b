//! A port of a switch: what is attached there, what it counts, and who listens
//! in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use super::PortId;
use crate::net::counter::Counter;
use crate::net::ethernet::Mac;
use crate::net::frame::Batch;
use crate::netmap::attachment::{Attachment, Dropped};
use crate::netmap::offload::{self, Outcome};

/// A port of a switch.
pub(super) struct Port {
    pub name: String,
    pub mac: Option<Mac>,
    pub receiver: Arc<dyn Attachment>,
    counters: Counters,
    /// There are taps; looked at for every batch.
    tapped: AtomicBool,
    taps: ArcSwap<Vec<Tap>>,
    life: Arc<()>,
}

/// Somebody who gets the frames of a port as well.
#[derive(Clone)]
pub struct Tap {
    /// Who.
    pub receiver: Arc<dyn Attachment>,
    /// What the port sends.
    pub sent: bool,
    /// What the port is given.
    pub received: bool,
}

#[derive(Default)]
struct Counters {
    in_frames: Counter,
    in_bytes: Counter,
    out_frames: Counter,
    out_bytes: Counter,
    dropped: Counter,
    flooded: Counter,
    unknown: Counter,
}

/// What a port has counted since it was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStatistics {
    /// Its number.
    pub id: PortId,
    /// Its name, without that of the switch.
    pub name: String,
    /// The address of the guest behind it, where that is known.
    pub mac: Option<Mac>,
    /// Frames that came from the port.
    pub in_frames: u64,
    /// Their bytes, Ethernet headers included.
    pub in_bytes: u64,
    /// Frames that the port was given and took, after segmentation.
    pub out_frames: u64,
    /// Their bytes.
    pub out_bytes: u64,
    /// Frames for the port that it did not take.
    pub dropped: u64,
    /// Frames from the port that went to all others.
    pub flooded: u64,
    /// Those of them whose destination is one port, which is not known.
    pub unknown: u64,
    /// Why frames were dropped at the port, in both directions, where what is
    /// attached there says it.
    pub causes: Dropped,
}

/// What a batch of frames from a port was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub frames: u64,
    pub bytes: u64,
    pub flooded: u64,
    pub unknown: u64,
}

impl Port {
    pub(super) fn new(name: &str, mac: Option<Mac>, receiver: Arc<dyn Attachment>) -> Self {
        Self {
            name: name.to_owned(),
            mac,
            receiver,
            counters: Counters::default(),
            tapped: AtomicBool::new(false),
            taps: ArcSwap::default(),
            life: Arc::new(()),
        }
    }

    /// What lasts as long as the port.
    pub(super) fn life(&self) -> Weak<()> {
        Arc::downgrade(&self.life)
    }

    /// A batch comes from this port.
    #[inline]
    pub(super) fn sends(&self, sent: &Sent, ring: usize, batch: &Batch<'_>) {
        // Several rings of one port are synced by several threads.
        let counters = &self.counters;
        counters.in_frames.add_shared(sent.frames);
        counters.in_bytes.add_shared(sent.bytes);
        if sent.flooded > 0 {
            counters.flooded.add_shared(sent.flooded);
            counters.unknown.add_shared(sent.unknown);
        }
        if self.tapped.load(Ordering::Acquire) {
            let all: Vec<u16> = (0..u16::MAX).take(batch.frames().len()).collect();
            self.tell(|tap| tap.sent, ring, batch, &all);
        }
    }

    /// Gives the frames at `picks` to this port.
    #[inline]
    pub(super) fn receives(&self, ring: usize, batch: &Batch<'_>, picks: &[u16]) {
        if self.tapped.load(Ordering::Acquire) {
            self.tell(|tap| tap.received, ring, batch, picks);
        }
        let Outcome {
            frames,
            bytes,
            dropped,
        } = offload::deliver(&*self.receiver, ring, batch, picks);
        let counters = &self.counters;
        counters.out_frames.add_shared(frames);
        counters.out_bytes.add_shared(bytes);
        if dropped > 0 {
            counters.dropped.add_shared(dropped);
        }
    }

    #[cold]
    fn tell(&self, wants: impl Fn(&Tap) -> bool, ring: usize, batch: &Batch<'_>, picks: &[u16]) {
        for tap in self.taps.load().iter().filter(|tap| wants(tap)) {
            offload::deliver(&*tap.receiver, ring, batch, picks);
        }
    }

    pub(super) fn add_tap(&self, tap: &Tap) {
        self.taps.rcu(|old| {
            let mut all = Vec::clone(old);
            all.push(tap.clone());
            all
        });
        self.tapped.store(true, Ordering::Release);
    }

    pub(super) fn remove_tap(&self, receiver: &Arc<dyn Attachment>) {
        self.taps.rcu(|old| {
            let mut all = Vec::clone(old);
            all.retain(|tap| !Arc::ptr_eq(&tap.receiver, receiver));
            all
        });
        self.tapped
            .store(!self.taps.load().is_empty(), Ordering::Release);
    }

    pub(super) fn statistics(&self, id: PortId) -> PortStatistics {
        let counters = &self.counters;
        PortStatistics {
            id,
            name: self.name.clone(),
            mac: self.mac,
            in_frames: counters.in_frames.get(),
            in_bytes: counters.in_bytes.get(),
            out_frames: counters.out_frames.get(),
            out_bytes: counters.out_bytes.get(),
            dropped: counters.dropped.get(),
            flooded: counters.flooded.get(),
            unknown: counters.unknown.get(),
            causes: self.receiver.dropped(),
        }
    }
}
