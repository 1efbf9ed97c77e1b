//! The modes: what one turn of the loop does with the queues.

use std::time::{Duration, Instant};

use super::options::Config;
use crate::driver::net::{DriverError, Pair, RxFrame, TxQueue};
use crate::driver::report::{Counters, Kind};
use crate::driver::traffic::{Form, Judge, Source, Verdict};
use crate::net::ethernet::Mac;
use crate::virtio::net_header::{
    F_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, NetHeader,
};
use crate::virtio::spec::net;

/// How long a device may take to give back what it was sent before the end.
const DRAIN: Duration = Duration::from_secs(1);

/// One queue pair's share of the work.
#[derive(Debug)]
struct Lane {
    source: Source,
    /// The transmit slots that hold the template already.
    prepared: Box<[bool]>,
}

/// What a run does and has done.
#[derive(Debug)]
pub(super) struct Work {
    kind: Kind,
    lanes: Vec<Lane>,
    judge: Judge,
    /// What the sender of pair 0 calls itself; pair 1 is the next, and so on.
    stream: u16,
    mac: Mac,
    features: u64,
    batch: usize,
    rate: u64,
    count: u64,
    duration: Duration,
    wait: Duration,
    /// Most frames that may be overdue before they count as missed.
    backlog: u64,
    start: Instant,
    /// Frames given to the device.
    pushed: u64,
    last_push: Instant,
    /// When the first and the last frame arrived.
    arrivals: Option<(Instant, Instant)>,
    /// The lane whose turn it is to send.
    turn: usize,
    counters: Counters,
}

/// What a turn found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There was something to do, and may be more.
    Busy,
    /// Nothing to do until an interrupt, or until this time.
    Idle(Option<Instant>),
    /// All is done.
    Done,
}

impl Work {
    pub(super) fn new(
        config: &Config,
        kind: Kind,
        mac: Mac,
        features: u64,
        pairs: &[Pair],
        now: Instant,
    ) -> Self {
        let form = Form {
            len: config.len,
            source: mac,
            destination: config.destination,
            udp: config.udp,
        };
        // Different for any two vtgens at work.
        let [low, high, ..] = std::process::id().wrapping_mul(131).to_le_bytes();
        let stream = u16::from_le_bytes([low, high]);
        let ring = u64::from(config.net.ring_size);
        Self {
            kind,
            lanes: (0..)
                .zip(pairs)
                .map(|(pair, queues)| Lane {
                    source: Source::new(&form, stream.wrapping_add(pair)),
                    prepared: vec![false; queues.tx.room()].into_boxed_slice(),
                })
                .collect(),
            judge: Judge::new(config.verify),
            stream,
            mac,
            features,
            batch: config.batch,
            rate: config.rate,
            count: config.count,
            duration: config.duration.unwrap_or(Duration::MAX),
            wait: config.wait,
            backlog: ring.max(config.rate / 100),
            start: now,
            pushed: 0,
            last_push: now,
            arrivals: None,
            turn: 0,
            counters: Counters::default(),
        }
    }

    /// Takes back what the device has given back by now.
    pub(super) fn settle(pairs: &mut [Pair]) -> Result<(), DriverError> {
        for pair in pairs {
            pair.tx.reclaim()?;
        }
        Ok(())
    }

    /// What has happened so far.
    pub(super) fn counters(&mut self, pairs: &[Pair]) -> &Counters {
        self.counters.tx = pairs.iter().map(|pair| pair.tx.taken()).sum();
        &self.counters
    }

    /// How long frames have been arriving.
    pub(super) fn receiving(&self) -> Duration {
        self.arrivals
            .map_or(Duration::ZERO, |(first, last)| last - first)
    }

    /// Does one batch of what there is to do.
    pub(super) fn turn(&mut self, pairs: &mut [Pair], now: Instant) -> Result<Turn, DriverError> {
        let before = self.counters.rx.frames;
        let turn = self.batch(pairs, now)?;
        if self.counters.rx.frames > before {
            self.arrivals.get_or_insert((now, now)).1 = now;
        }
        Ok(turn)
    }

    fn batch(&mut self, pairs: &mut [Pair], now: Instant) -> Result<Turn, DriverError> {
        let over = now.duration_since(self.start) >= self.duration;
        match self.kind {
            Kind::Source => {
                let sent = self.send(pairs, now, over)?;
                // What others send is taken, so that it is not in their way.
                let taken = self.receive(pairs, false)?;
                Ok(self.after_sending(pairs, now, over, sent + taken, || true))
            }
            Kind::Ping => {
                let sent = self.send(pairs, now, over)?;
                let back = self.ping(pairs)?;
                let tally = &self.counters.tally;
                let all = tally.good.saturating_sub(tally.duplicate()) >= self.pushed;
                let late = now.duration_since(self.last_push) >= self.wait;
                Ok(self.after_sending(pairs, now, over, sent + back, || all || late))
            }
            Kind::Sink => {
                let taken = self.receive(pairs, true)?;
                Ok(self.after_receiving(over, taken))
            }
            Kind::Reflector => {
                let taken = self.reflect(pairs)?;
                Ok(self.after_receiving(over, taken))
            }
        }
    }

    /// Whether the work is done, when it ends with what was sent.
    fn after_sending(
        &self,
        pairs: &[Pair],
        now: Instant,
        over: bool,
        busy: usize,
        answered: impl FnOnce() -> bool,
    ) -> Turn {
        let all_sent = over || (self.count > 0 && self.pushed >= self.count);
        if all_sent {
            let given_back = pairs.iter().all(|pair| pair.tx.outstanding() == 0)
                || now.duration_since(self.last_push) >= DRAIN;
            if given_back && answered() {
                return Turn::Done;
            }
        }
        if busy > 0 {
            return Turn::Busy;
        }
        Turn::Idle(if all_sent {
            // What is waited for then ends by time.
            Some(
                self.last_push
                    + if self.kind == Kind::Ping {
                        self.wait
                    } else {
                        DRAIN
                    },
            )
        } else {
            self.next_due()
        })
    }

    fn after_receiving(&self, over: bool, busy: usize) -> Turn {
        if over || (self.count > 0 && self.counters.rx.frames >= self.count) {
            Turn::Done
        } else if busy > 0 {
            Turn::Busy
        } else {
            Turn::Idle(self.start.checked_add(self.duration))
        }
    }

    /// How many frames the rate asks for now, and at most the count.
    fn due(&mut self, now: Instant) -> u64 {
        let left = match self.count {
            0 => u64::MAX,
            count => count - self.pushed.min(count),
        };
        if self.rate == 0 || left == 0 {
            return left;
        }
        let nanos = now.duration_since(self.start).as_nanos();
        // The first is due at once.
        let by_now = nanos * u128::from(self.rate) / 1_000_000_000 + 1;
        let by_now = u64::try_from(by_now).unwrap_or(u64::MAX);
        let due = by_now.saturating_sub(self.pushed + self.counters.missed);
        let too_late = due.saturating_sub(self.backlog);
        self.counters.missed += too_late;
        (due - too_late).min(left)
    }

    /// When the rate asks for the next frame, or the time is over.
    fn next_due(&self) -> Option<Instant> {
        let end = self.start.checked_add(self.duration);
        if self.rate == 0 {
            return end;
        }
        let frames = u128::from(self.pushed + self.counters.missed);
        let nanos = (frames * 1_000_000_000).div_ceil(u128::from(self.rate));
        let next = self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(end.map_or(next, |end| end.min(next)))
    }

    /// Sends a batch on the next lane; returns how many frames.
    fn send(&mut self, pairs: &mut [Pair], now: Instant, over: bool) -> Result<usize, DriverError> {
        let lanes = self.lanes.len();
        self.turn = (self.turn + 1) % lanes;
        let due = if over { 0 } else { self.due(now) };
        let want = usize::try_from(due).map_or(self.batch, |due| due.min(self.batch));
        for pair in pairs.iter_mut() {
            // Many at once while there is room, or when there is time.
            if pair.tx.room() < self.batch || want == 0 {
                pair.tx.reclaim()?;
            }
        }
        let mut sent = 0;
        for step in 0..lanes {
            // Another lane when this one is full.
            let at = (self.turn + step) % lanes;
            sent = self.send_on(at, &mut pairs[at].tx, want, now)?;
            if sent > 0 || want == 0 {
                break;
            }
        }
        if sent > 0 {
            self.pushed += sent as u64;
            self.last_push = now;
        }
        Ok(sent)
    }

    fn send_on(
        &mut self,
        at: usize,
        tx: &mut TxQueue,
        want: usize,
        now: Instant,
    ) -> Result<usize, DriverError> {
        let Lane { source, prepared } = &mut self.lanes[at];
        let len = source.frame_len();
        // One time for all: a batch is in the device's hands at once.
        let time = nanoseconds(now.duration_since(self.start));
        let mut sent = 0;
        while sent < want {
            let pushed = tx.push(NetHeader::default(), len, |slot, room| {
                let prepared = &mut prepared[usize::from(slot)];
                if !*prepared {
                    source.write_template(room);
                    *prepared = true;
                }
                source.write_probe(room, time);
            })?;
            if !pushed {
                break;
            }
            sent += 1;
        }
        tx.flush();
        Ok(sent)
    }

    /// Receives a batch from each pair, and judges it if `judged`.
    fn receive(&mut self, pairs: &mut [Pair], judged: bool) -> Result<usize, DriverError> {
        let mut total = 0;
        for pair in pairs {
            let most = self.may_receive();
            let Self {
                judge, counters, ..
            } = self;
            total += pair.rx.receive(most, |frame| {
                counters.rx.add(frame.len);
                if judged {
                    counters.tally.count(judge.look(&frame));
                }
            })?;
        }
        Ok(total)
    }

    /// A batch, or what the count leaves of it.
    fn may_receive(&self) -> usize {
        let counts = matches!(self.kind, Kind::Sink | Kind::Reflector) && self.count > 0;
        let left = self.count.saturating_sub(self.counters.rx.frames);
        match usize::try_from(left) {
            Ok(left) if counts => left.min(self.batch),
            _ => self.batch,
        }
    }

    /// Takes probes that have come back.
    fn ping(&mut self, pairs: &mut [Pair]) -> Result<usize, DriverError> {
        let mut total = 0;
        for pair in pairs {
            let Self {
                judge,
                counters,
                start,
                stream,
                lanes,
                ..
            } = self;
            total += pair.rx.receive(self.batch, |frame| {
                let now = nanoseconds(start.elapsed());
                counters.rx.add(frame.len);
                match judge.look(&frame) {
                    Verdict::Good(probe)
                        if usize::from(probe.stream.wrapping_sub(*stream)) < lanes.len() =>
                    {
                        counters.latency.record(now.saturating_sub(probe.time));
                        counters.tally.count(Verdict::Good(probe));
                    }
                    Verdict::Good(_) => counters.tally.count(Verdict::Foreign),
                    verdict => counters.tally.count(verdict),
                }
            })?;
        }
        Ok(total)
    }

    /// Sends back what has arrived.
    fn reflect(&mut self, pairs: &mut [Pair]) -> Result<usize, DriverError> {
        let mut total = 0;
        for Pair { rx, tx } in pairs {
            tx.reclaim()?;
            let most = self.may_receive().min(tx.room());
            let (mac, features) = (self.mac, self.features);
            let counters = &mut self.counters;
            let mut outcome = Ok(());
            total += rx.receive(most, |frame| {
                counters.rx.add(frame.len);
                match send_back(&frame, tx, mac, features) {
                    Ok(true) => {}
                    Ok(false) => counters.missed += 1,
                    Err(error) => outcome = Err(error),
                }
            })?;
            outcome?;
            tx.flush();
        }
        Ok(total)
    }

    /// Whether the work is waiting for frames to arrive, and whether it is
    /// waiting for room to send.
    pub(super) fn waits_for(&self, pair: &Pair) -> (bool, bool) {
        let room = match self.kind {
            Kind::Sink => false,
            Kind::Source | Kind::Ping => {
                let all_sent = self.count > 0 && self.pushed >= self.count;
                pair.tx.room() == 0 || all_sent
            }
            Kind::Reflector => pair.tx.room() == 0,
        };
        (true, room && pair.tx.outstanding() > 0)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Sends a frame back to where it came from; `false` when that cannot be.
fn send_back(
    frame: &RxFrame<'_>,
    tx: &mut TxQueue,
    mac: Mac,
    features: u64,
) -> Result<bool, DriverError> {
    if !may_send(frame.header, features) || frame.len > tx.max_frame() {
        return Ok(false);
    }
    let header = NetHeader {
        flags: frame.header.flags & F_NEEDS_CSUM,
        num_buffers: 0,
        ..frame.header
    };
    tx.push(header, frame.len, |_, room| {
        frame.copy_to(room);
        let mut addresses = [0; 12];
        if frame.read(&mut addresses) == addresses.len() {
            room.write(&swapped(addresses, mac));
        }
    })
}

/// Destination and source address for the way back. Nobody sends from a group
/// address, so `mac` stands in for it.
fn swapped(addresses: [u8; 12], mac: Mac) -> [u8; 12] {
    let [a, b, c, d, e, f, source @ ..] = addresses;
    let was = Mac([a, b, c, d, e, f]);
    let from = if was.is_multicast() { mac } else { was };
    let mut swapped = [0; 12];
    swapped[..6].copy_from_slice(&source);
    swapped[6..].copy_from_slice(&from.0);
    swapped
}

/// Whether the device takes a frame with this header.
fn may_send(header: NetHeader, features: u64) -> bool {
    let ecn = if header.gso_type & GSO_ECN != 0 {
        net::F_HOST_ECN
    } else {
        0
    };
    let gso = match header.gso_type & !GSO_ECN {
        GSO_NONE => 0,
        GSO_TCPV4 => net::F_HOST_TSO4,
        GSO_TCPV6 => net::F_HOST_TSO6,
        GSO_UDP => net::F_HOST_UFO,
        GSO_UDP_L4 => net::F_HOST_USO,
        _ => return false,
    };
    let csum = if header.flags & F_NEEDS_CSUM != 0 {
        net::F_CSUM
    } else {
        0
    };
    let needed = ecn | gso | csum;
    features & needed == needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_goes_back_to_its_sender() {
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        let there = [2, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2];
        assert_eq!(swapped(there, mac), [2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1]);
        let all = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 2, 2, 2, 2, 2];
        assert_eq!(swapped(all, mac), [2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 9]);
    }

    #[test]
    fn only_what_was_negotiated_is_sent_back() {
        let mut header = NetHeader::default();
        assert!(may_send(header, 0));
        header.flags = F_NEEDS_CSUM;
        assert!(!may_send(header, 0));
        assert!(may_send(header, net::F_CSUM));
        header.gso_type = GSO_TCPV4 | GSO_ECN;
        let tso = net::F_CSUM | net::F_HOST_TSO4;
        assert!(!may_send(header, tso));
        assert!(may_send(header, tso | net::F_HOST_ECN));
        header.gso_type = GSO_UDP_L4;
        assert!(!may_send(header, tso | net::F_HOST_UFO));
        assert!(may_send(header, net::F_CSUM | net::F_HOST_USO));
        header.gso_type = 77;
        assert!(!may_send(header, u64::MAX));
    }
}
