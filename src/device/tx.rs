//! From the guest: chains become a batch of frames, which the back end takes.

use std::ops::Range;

use arrayvec::ArrayVec;

use super::pair::QueuePair;
use super::vring::{Turn, VringFault};
use crate::backend::Sent;
use crate::net::frame::{BATCH, Batch, ETHER_HEADER, EtherHeader, MAX_FRAME};
use crate::net::offload;
use crate::virtio::memory::{GuestMemory, Readable, Writable, gather};
use crate::virtio::net_header::{LEN, NetHeader};
use crate::virtio::queue::{Chain, Parts, Pop, Queue, RingError, VirtQueue};

/// The readable buffers of a chain become a frame's parts; writable ones are
/// not for a transmit queue and are left alone.
struct Collect<'b, 'm> {
    batch: &'b mut Batch<'m>,
    mark: usize,
    len: u64,
}

impl<'m> Parts<'m> for Collect<'_, 'm> {
    #[inline]
    fn readable(&mut self, part: Readable<'m>) -> Option<()> {
        self.len += part.len() as u64;
        part.prefetch();
        self.batch.push_part(self.mark, part)
    }

    #[inline]
    fn writable(&mut self, _part: Writable<'m>) -> Option<()> {
        Some(())
    }
}

/// Why a frame is not sent.
enum Refused {
    Length,
    Header,
}

/// Sends what waits on a pair's transmit queue, one batch, or as many as the back
/// end would have at once. Returns how many chains were taken.
pub(super) fn turn(pair: &QueuePair) -> usize {
    let Some(mut turn) = pair.tx.turn() else {
        return 0;
    };
    if !pair.tx.is_enabled() || !pair.shared.is_link_up() {
        return discard(pair, &mut turn);
    }
    let backend = &pair.shared.backend;
    let (mut taken, mut sent) = (0, Sent::default());
    for _ in 0..backend.batches() {
        let more = send(pair, &mut turn, &mut sent);
        taken += more;
        if more < BATCH {
            break;
        }
    }
    // With the ring still locked: once it is stopped, nothing is sent.
    if sent.frames > 0 && !backend.flush(pair.index) {
        let lost = u64::from(sent.frames);
        pair.tx_stats.frames.take_back(lost);
        pair.tx_stats.bytes.take_back(sent.bytes);
        pair.tx_stats.dropped.add(lost);
    }
    taken
}

/// Sends one batch, and adds to `sent` what became of it. Returns how many
/// chains were taken.
#[inline]
fn send(pair: &QueuePair, turn: &mut Turn<'_>, sent: &mut Sent) -> usize {
    let Some((queue, memory)) = turn.active() else {
        return 0;
    };
    let mut batch = Batch::new();
    let mut chains = ArrayVec::<Chain, BATCH>::new();
    let collected = collect(pair, queue, memory, &mut batch, &mut chains);
    if !batch.frames().is_empty() && !memory.is_broken() {
        if pair.shared.active_pairs() > 1 {
            pair.shared.steering.learn(&mut batch, pair.index);
        }
        let now = pair.shared.backend.send(pair.index, &batch);
        // Before the driver is shown that its frames have been taken.
        pair.tx_stats.frames.add(u64::from(now.frames));
        pair.tx_stats.bytes.add(now.bytes);
        pair.tx_stats.dropped.add(u64::from(now.dropped));
        *sent += now;
    }
    let broken = memory.is_broken();
    queue.put_batch_used(&chains);
    drop(batch);
    finish(pair, turn, chains.len(), collected, broken)
}

/// Takes chains from the queue into `chains` and makes frames of them in
/// `batch`: first all descriptors are followed, while the frames' first bytes
/// are fetched, then all frames are looked at.
#[inline]
fn collect<'m>(
    pair: &QueuePair,
    queue: &mut Queue,
    memory: &'m GuestMemory,
    batch: &mut Batch<'m>,
    chains: &mut ArrayVec<Chain, BATCH>,
) -> Result<(), RingError> {
    let mut found = ArrayVec::<Found, BATCH>::new();
    let result = follow(pair, queue, memory, batch, chains, &mut found);
    let features = pair.shared.features();
    let header_len = pair.shared.header_len();
    for found in &found {
        match frame(batch, found, header_len, features) {
            Ok(()) => {}
            Err(Refused::Length) => pair.tx_stats.bad_length.add(1),
            Err(Refused::Header) => pair.tx_stats.bad_header.add(1),
        }
    }
    result
}

/// A chain's parts in the batch, and their bytes.
struct Found {
    parts: Range<u16>,
    len: u32,
}

impl Found {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "PARTS fits u16")]
    fn new(parts: Range<usize>, len: u64) -> Self {
        Self {
            parts: parts.start as u16..parts.end as u16,
            len: u32::try_from(len).unwrap_or(u32::MAX),
        }
    }
}

#[inline]
fn follow<'m>(
    pair: &QueuePair,
    queue: &mut Queue,
    memory: &'m GuestMemory,
    batch: &mut Batch<'m>,
    chains: &mut ArrayVec<Chain, BATCH>,
    found: &mut ArrayVec<Found, BATCH>,
) -> Result<(), RingError> {
    while !batch.is_full() && !chains.is_full() {
        queue.pop_lone(
            memory,
            chains.remaining_capacity(),
            |chain, part: Readable<'m>| {
                part.prefetch();
                let mark = batch.mark();
                chains.push(chain);
                if batch.push_part(mark, part).is_some() {
                    found.push(Found::new(mark..mark + 1, part.len() as u64));
                }
            },
        )?;
        if batch.is_full() || chains.is_full() {
            break;
        }
        let mark = batch.mark();
        let mut parts = Collect {
            batch,
            mark,
            len: 0,
        };
        let popped = queue.pop(memory, &mut parts)?;
        let len = parts.len;
        match popped {
            Pop::Empty => break,
            Pop::Bad(chain, fault) => {
                batch.discard(mark);
                chains.push(chain);
                pair.tx_stats.bad_chains.add(1);
                tracing::debug!("{}: transmit chain returned: {fault}", pair.shared.name);
            }
            Pop::Chain(chain) => {
                chains.push(chain);
                found.push(Found::new(mark..batch.mark(), len));
            }
        }
    }
    Ok(())
}

/// Takes the virtio-net header off `parts` and makes the rest a frame, if it is
/// one.
#[inline]
fn frame(
    batch: &mut Batch<'_>,
    found: &Found,
    header_len: usize,
    features: u64,
) -> Result<(), Refused> {
    let range = usize::from(found.parts.start)..usize::from(found.parts.end);
    #[expect(clippy::cast_possible_truncation, reason = "at most LEN")]
    let len = found.len.saturating_sub(header_len as u32);
    if !(ETHER_HEADER..=MAX_FRAME).contains(&(len as usize)) {
        return Err(Refused::Length);
    }
    let together = batch
        .pending_part(range.start)
        .filter(|part| header_len == LEN && part.len() >= LEN + ETHER_HEADER);
    let (start, header, ether) = match together {
        // Most drivers put header and frame into one buffer.
        Some(part) => {
            let (header, ether) = read_headers(part).ok_or(Refused::Length)?;
            *part = part.skip(LEN);
            if header.is_plain() {
                batch.push_frame_of(range, len, ether, NetHeader::default());
                return Ok(());
            }
            (0, header, ether)
        }
        // Wherever the driver has put them.
        None => {
            let (mut raw, mut ether) = ([0; LEN], [0; ETHER_HEADER]);
            let parts = batch.pending(range.clone());
            let start = take(parts, &mut raw[..header_len]);
            gather(parts.get(start..).unwrap_or_default(), &mut ether);
            (start, NetHeader::from_bytes(&raw), ether.into())
        }
    };
    let parts = batch.pending(range.clone());
    let body = parts.get(start..).unwrap_or_default();
    let header = offload::check_parts(&header, features, body, len).map_err(|_| Refused::Header)?;
    batch.push_frame_of(range.start + start..range.end, len, ether, header);
    Ok(())
}

/// The virtio-net header and the Ethernet header, where both are in `part`.
#[inline]
fn read_headers(part: &Readable<'_>) -> Option<(NetHeader, EtherHeader)> {
    let header = NetHeader::from_halves(part.read_array_at(0)?, part.read_array_at(8)?);
    Some((header, EtherHeader::read(part, LEN)?))
}

/// Copies the first bytes of `parts` into `into` and steps over them. Returns
/// the index of the first part that is left.
#[inline]
fn take(parts: &mut [Readable<'_>], into: &mut [u8]) -> usize {
    let mut done = 0;
    for (at, part) in parts.iter_mut().enumerate() {
        let got = part.read(&mut into[done..]);
        done += got;
        if got < part.len() {
            *part = part.skip(got);
            return at;
        }
        if done == into.len() {
            return at + 1;
        }
    }
    parts.len()
}

/// Takes what waits and sends none of it.
fn discard(pair: &QueuePair, turn: &mut Turn<'_>) -> usize {
    struct Ignore;
    impl<'m> Parts<'m> for Ignore {
        fn readable(&mut self, _part: Readable<'m>) -> Option<()> {
            Some(())
        }
        fn writable(&mut self, _part: Writable<'m>) -> Option<()> {
            Some(())
        }
    }
    let mut count = 0;
    let result = loop {
        let Some((queue, memory)) = turn.active() else {
            return 0;
        };
        match queue.pop(memory, &mut Ignore) {
            Ok(Pop::Chain(chain) | Pop::Bad(chain, _)) => queue.put_used(chain, 0),
            Ok(Pop::Empty) => break Ok(()),
            Err(error) => break Err(error),
        }
        count += 1;
        if usize::from(count) == BATCH {
            break Ok(());
        }
    };
    pair.tx_stats.discarded.add(u64::from(count));
    turn.publish(count);
    if let Err(error) = result {
        turn.fail(error);
    }
    usize::from(count)
}

/// Publishes what was taken, and stops the ring if it is wrong.
fn finish(
    pair: &QueuePair,
    turn: &mut Turn<'_>,
    taken: usize,
    collected: Result<(), RingError>,
    broken: bool,
) -> usize {
    if taken > 0 {
        pair.tx_stats.batches.add(1);
    }
    // At most BATCH.
    turn.publish(u16::try_from(taken).unwrap_or(u16::MAX));
    if broken {
        turn.fail(VringFault::Memory);
    } else if let Err(error) = collected {
        turn.fail(error);
    }
    taken
}
