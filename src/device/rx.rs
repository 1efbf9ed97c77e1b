//! To the guest, from a back end that is asked: frames are read straight into
//! the guest's buffers.
//!
//! When the guest has no buffers left, kicks are enabled and the ring is looked
//! at once more; only then is reception given up until the next kick. The
//! second look is what makes a stall impossible.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::Guard;
use arrayvec::ArrayVec;

use super::filter::Filter;
use super::pair::{QueuePair, fits_mtu};
use super::queue_port::{no_room, write_header};
use super::vring::VringFault;
use crate::backend::{Dropped, Received, Room};
use crate::net::frame::{BATCH, ETHER_HEADER, EtherHeader, FRAME_PARTS, MAX_FRAME};
use crate::virtio::memory::{GuestMemory, Readable, Writable, gather};
use crate::virtio::net_header::NetHeader;
use crate::virtio::queue::{Chain, Parts, Pop, Queue, RingError, VirtQueue};

/// Most chains that are taken in one look, whatever they hold.
const CHAINS: usize = 512;
/// Most parts that wait to be filled.
const PARTS: usize = 2 * FRAME_PARTS;

/// A chain that waits to be filled.
struct Waiting {
    chain: Chain,
    capacity: u32,
    parts: usize,
}

impl Waiting {
    fn new(chain: Chain, capacity: u32, parts: usize) -> Self {
        Self {
            chain,
            capacity,
            parts,
        }
    }
}

/// One turn's reception.
struct Pull<'t> {
    pair: &'t QueuePair,
    queue: &'t mut Queue,
    memory: &'t GuestMemory,
    header_len: usize,
    mergeable: bool,
    /// The most bytes of a chain that no frame can use.
    no_room: u32,
    /// Which frames the guest wants: looked up once for all of them, for each
    /// look waits for what was stored before, such as the frame itself.
    filter: Guard<Arc<Filter>>,
    /// Chains that are taken but not filled, and their parts, in order.
    waiting: ArrayVec<Waiting, FRAME_PARTS>,
    parts: ArrayVec<Writable<'t>, PARTS>,
    /// The parts without the room for the header.
    body: ArrayVec<Writable<'t>, PARTS>,
    frames: u64,
    bytes: u64,
    taken: usize,
    published: u16,
    /// The guest had no further chain when it was last asked.
    drained: bool,
    error: Option<RingError>,
}

struct Collect<'p, 't> {
    parts: &'p mut ArrayVec<Writable<'t>, PARTS>,
    len: u64,
}

impl<'t> Parts<'t> for Collect<'_, 't> {
    fn readable(&mut self, _part: Readable<'t>) -> Option<()> {
        Some(())
    }

    fn writable(&mut self, part: Writable<'t>) -> Option<()> {
        self.len += part.len() as u64;
        self.parts.try_push(part).ok()
    }
}

impl Pull<'_> {
    fn capacity(&self) -> usize {
        self.waiting.iter().map(|w| w.capacity as usize).sum()
    }

    /// Takes one chain more. `false`: there is none, or no place to note it.
    fn take(&mut self) -> bool {
        while !self.waiting.is_full()
            && self.parts.remaining_capacity() >= FRAME_PARTS
            && self.taken < CHAINS
        {
            self.taken += 1;
            let mark = self.parts.len();
            let (parts, waiting) = (&mut self.parts, &mut self.waiting);
            let lone = self
                .queue
                .pop_lone(self.memory, 1, |chain, part: Writable<'_>| {
                    parts.push(part);
                    // A buffer's length is a u32.
                    let capacity = u32::try_from(part.len()).unwrap_or(u32::MAX);
                    waiting.push(Waiting::new(chain, capacity, 1));
                });
            if lone == Ok(1) {
                self.drained = false;
                return true;
            }
            let mut collect = Collect {
                parts: &mut self.parts,
                len: 0,
            };
            let popped = self.queue.pop(self.memory, &mut collect);
            let capacity = u32::try_from(collect.len).unwrap_or(u32::MAX);
            match popped {
                Ok(Pop::Empty) => {
                    self.drained = true;
                    return false;
                }
                Err(error) => {
                    self.error = Some(error);
                    return false;
                }
                Ok(Pop::Chain(chain)) if capacity > 0 => {
                    self.drained = false;
                    let parts = self.parts.len() - mark;
                    self.waiting.push(Waiting::new(chain, capacity, parts));
                    return true;
                }
                Ok(Pop::Chain(chain) | Pop::Bad(chain, _)) => {
                    // In order: it can only go back when nothing waits before.
                    self.pair.rx_stats.bad_chains.add(1);
                    self.parts.truncate(mark);
                    self.waiting.push(Waiting::new(chain, 0, 0));
                }
            }
        }
        false
    }

    /// Hands chains without room back empty while they are first in line.
    fn return_empty(&mut self) {
        while let Some(first) = self.waiting.first().filter(|w| w.capacity <= self.no_room) {
            // Those that have none at all were counted.
            if first.capacity > 0 {
                self.pair.rx_stats.bad_chains.add(1);
            }
            self.give(0);
        }
    }

    /// Hands the first waiting chain back with `len` bytes in it.
    fn give(&mut self, len: u32) {
        let first = self.waiting.remove(0);
        self.parts.drain(..first.parts);
        self.queue.put_used(first.chain, len);
        self.published += 1;
    }

    /// Gives back what was taken and not filled.
    fn end(mut self) -> (u16, u16, Option<RingError>) {
        // At most FRAME_PARTS.
        let left = u16::try_from(self.waiting.len()).unwrap_or(u16::MAX);
        while let Some(waiting) = self.waiting.pop() {
            self.queue.unpop(waiting.chain);
        }
        self.pair.rx_stats.frames.add(self.frames);
        self.pair.rx_stats.bytes.add(self.bytes);
        (self.published, left, self.error)
    }
}

impl Room for Pull<'_> {
    fn room(&mut self, len: usize) -> Result<&[Writable<'_>], Received> {
        if self.frames >= BATCH as u64 {
            return Err(Received::Budget);
        }
        let need = len.saturating_add(self.header_len);
        loop {
            self.return_empty();
            let enough = if self.mergeable {
                self.capacity() >= need
            } else {
                !self.waiting.is_empty()
            };
            if enough || !self.take() {
                break;
            }
        }
        self.return_empty();
        if self.error.is_none() && self.waiting.is_empty() && self.taken == CHAINS {
            return Err(Received::Budget);
        }
        if self.error.is_some() || self.waiting.is_empty() {
            return Err(Received::NoRoom);
        }
        let mut skip = self.header_len;
        self.body.clear();
        let visible = if self.mergeable {
            self.parts.len()
        } else {
            self.waiting.first().map_or(0, |first| first.parts)
        };
        for part in &self.parts[..visible] {
            let rest = part.skip(skip);
            skip = skip.saturating_sub(part.len());
            if !rest.is_empty() {
                self.body.push(rest);
            }
        }
        Ok(&self.body)
    }

    fn finish(&mut self, header: &NetHeader, len: usize) {
        let usable = if self.mergeable {
            self.capacity()
        } else {
            self.waiting.first().map_or(0, |w| w.capacity as usize)
        };
        let mut left = len.saturating_add(self.header_len);
        let ether_type = || ether_type(self.body.iter().map(|part| part.as_readable()));
        if left > usable || !fits_mtu(self.pair.shared.max_frame(), header, len, ether_type) {
            self.drop(Dropped::TooLong);
            return;
        }
        let start = self.body.iter().map(|part| part.as_readable());
        if !self.filter.passes(start) {
            self.pair.rx_stats.filtered.add(1);
            return;
        }
        let mut buffers = 0u16;
        let mut covered = 0;
        for waiting in &self.waiting {
            covered += waiting.capacity as usize;
            buffers += 1;
            if covered >= left {
                break;
            }
        }
        let header = NetHeader {
            num_buffers: buffers,
            ..*header
        };
        write_header(&header, self.header_len, &self.parts);
        for _ in 0..buffers {
            let room = self.waiting.first().map_or(0, |w| w.capacity);
            let here = u32::try_from(left).unwrap_or(u32::MAX).min(room);
            left -= here as usize;
            self.give(here);
        }
        self.frames += 1;
        self.bytes += len as u64;
    }

    fn may_grow(&self, len: usize) -> bool {
        let full = self.waiting.is_full() || self.parts.remaining_capacity() < FRAME_PARTS;
        if !self.mergeable || full || len > MAX_FRAME {
            return false;
        }
        // A driver may leave up to half of its ring empty before it posts
        // again (Linux does). With more than half of what it ever posted here,
        // nobody might ever kick: the frame would wait for good.
        let most = usize::from(self.queue.most_offered());
        !self.drained || 2 * self.waiting.len() <= most
    }

    fn drop(&mut self, why: Dropped) {
        let counter = match why {
            Dropped::TooLong => &self.pair.rx_stats.too_long,
            Dropped::Offload => &self.pair.rx_stats.bad_header,
            Dropped::TooShort => &self.pair.rx_stats.too_short,
            Dropped::Malformed => &self.pair.rx_stats.malformed,
        };
        counter.add(1);
    }
}

/// The EtherType of the frame that begins with these parts.
fn ether_type<'m>(parts: impl Iterator<Item = Readable<'m>>) -> u16 {
    let mut start = [0; ETHER_HEADER];
    gather(parts, &mut start);
    EtherHeader::from(start).ether_type()
}

/// Receives what waits at a pulling back end, one batch. Returns how many
/// chains were used.
pub(super) fn turn(pair: &QueuePair) -> usize {
    if !pair.backend_ready.load(Ordering::Acquire)
        || pair.rx_starved.load(Ordering::Relaxed)
        || !pair.shared.is_link_up()
    {
        return 0;
    }
    let Some(mut turn) = pair.rx.turn().filter(|_| pair.rx.is_enabled()) else {
        return 0;
    };
    let mut got = 0;
    // The first look and the second; what comes later has its own turn.
    for _ in 0..2 {
        // Cleared before the back end is asked, so that no readiness that
        // comes meanwhile is lost.
        pair.backend_ready.store(false, Ordering::Release);
        let Some((queue, memory)) = turn.active() else {
            return got;
        };
        queue.disable_kicks();
        let mut pull = Pull {
            pair,
            header_len: pair.shared.header_len(),
            mergeable: pair.shared.is_mergeable(),
            no_room: no_room(pair.shared.header_len(), pair.shared.is_mergeable()),
            filter: pair.shared.filter(),
            queue,
            memory,
            waiting: ArrayVec::new(),
            parts: ArrayVec::new(),
            body: ArrayVec::new(),
            frames: 0,
            bytes: 0,
            taken: 0,
            published: 0,
            drained: false,
            error: None,
        };
        let received = pair.shared.backend.receive(pair.index, &mut pull);
        let (published, left, error) = pull.end();
        let broken = memory.is_broken();
        got += usize::from(published);
        if published > 0 {
            pair.rx_stats.batches.add(1);
            turn.publish(published);
        }
        if broken {
            turn.fail(VringFault::Memory);
            return got;
        }
        if let Some(error) = error {
            turn.fail(error);
            return got;
        }
        match received {
            Received::Drained => return got,
            Received::Budget => {
                pair.backend_ready.store(true, Ordering::Release);
                return got;
            }
            Received::NoRoom => {
                pair.backend_ready.store(true, Ordering::Release);
                let Some((queue, _)) = turn.active() else {
                    return got;
                };
                match queue.enable_kicks(left) {
                    Ok(true) => {}
                    Ok(false) => {
                        pair.rx_starved.store(true, Ordering::Relaxed);
                        return got;
                    }
                    Err(error) => {
                        turn.fail(error);
                        return got;
                    }
                }
            }
        }
    }
    got
}
