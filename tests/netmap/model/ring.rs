//! The model's rings: what a sync does.

use vtnetd::netmap::abi::{NS_BUF_CHANGED, NS_MOREFRAG, NS_TXMON, Slot};
use vtnetd::netmap::kring::Counts;
use vtnetd::netmap::port::Direction;

use super::state::{Kind, LinkKey, Model, PortKey, RingKey};

/// What waits for frames, and for room.
pub const FRAMES: u8 = 1;
pub const ROOM: u8 = 2;

/// A ring, and how far each side is.
#[derive(Debug)]
pub struct Ring {
    pub region: u32,
    /// Where it is, once a client was told.
    pub offset: Option<u64>,
    pub slots: Vec<Slot>,
    /// Its slots are those of the real one.
    pub adopted: bool,
    // In shared memory.
    pub head: u32,
    pub cur: u32,
    pub tail: u32,
    // What the last sync took over.
    pub rhead: u32,
    pub rcur: u32,
    pub rtail: u32,
    // How far the port is.
    pub hwcur: u32,
    pub hwtail: u32,
    pub counts: Counts,
    /// Its slots or pointers have changed since somebody asked.
    pub touched: bool,
}

impl Ring {
    pub fn new(region: u32, direction: Direction, slots: u32) -> Self {
        let tail = match direction {
            Direction::Tx => slots.saturating_sub(1),
            Direction::Rx => 0,
        };
        Self {
            region,
            offset: None,
            slots: vec![Slot::default(); slots as usize],
            adopted: false,
            head: 0,
            cur: 0,
            tail,
            rhead: 0,
            rcur: 0,
            rtail: tail,
            hwcur: 0,
            hwtail: tail,
            counts: Counts::default(),
            touched: true,
        }
    }

    fn len(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap()
    }

    pub fn next(&self, at: u32) -> u32 {
        match at.checked_add(1) {
            Some(next) if next < self.len() => next,
            _ => 0,
        }
    }

    /// Steps from one slot to another; 0 when one is none.
    pub fn distance(&self, from: u32, to: u32) -> u32 {
        if from >= self.len() || to >= self.len() {
            0
        } else {
            (self.len() + to - from) % self.len()
        }
    }

    /// The slots from one up to but without another.
    pub fn range(&self, from: u32, to: u32) -> Vec<u32> {
        let mut all = Vec::new();
        let mut at = from;
        for _ in 0..self.distance(from, to) {
            all.push(at);
            at = self.next(at);
        }
        all
    }

    pub fn slot(&self, at: u32) -> Slot {
        self.slots[at as usize]
    }

    pub fn slot_mut(&mut self, at: u32) -> &mut Slot {
        self.touched = true;
        &mut self.slots[at as usize]
    }

    /// Room for senders: all but the reader's slots and one.
    pub fn space(&self) -> u32 {
        let busy = self.distance(self.hwcur, self.hwtail);
        self.len().saturating_sub(1 + busy)
    }

    /// `head` and `cur` are where they may be, the first from `first` on.
    fn is_good(&self, first: u32, tail: u32) -> bool {
        let within =
            |first, at| at < self.len() && self.distance(first, at) <= self.distance(first, tail);
        within(first, self.head) && within(self.head, self.cur)
    }

    fn last(&self) -> u32 {
        self.len().saturating_sub(1)
    }
}

impl Model {
    pub fn ring(&self, key: RingKey) -> &Ring {
        &self.rings[&key]
    }

    pub fn ring_mut(&mut self, key: RingKey) -> &mut Ring {
        self.rings.get_mut(&key).unwrap()
    }

    /// Takes `head` and `cur` over, or lets the ring begin anew; returns
    /// whether it had to.
    fn take_over(&mut self, key: RingKey, first: u32, tail: u32) -> bool {
        let ring = self.rings.get_mut(&key).unwrap();
        ring.touched = true;
        if ring.is_good(first, tail) {
            (ring.rhead, ring.rcur) = (ring.head, ring.cur);
            return false;
        }
        let region = &self.regions[&ring.region];
        let size = region.buf_size();
        for slot in &mut ring.slots {
            if !region.is_buffer(slot.buf_idx) {
                (slot.buf_idx, slot.len) = (0, 0);
            } else if usize::from(slot.len) > size {
                slot.len = 0;
            } else {
                continue;
            }
            ring.counts.bad_slots += 1;
        }
        ring.counts.resets += 1;
        (ring.rhead, ring.rcur, ring.rtail) = (ring.hwcur, ring.hwcur, ring.hwtail);
        (ring.head, ring.cur) = (ring.rhead, ring.rcur);
        true
    }

    /// Tells the client how far the port is; whether anything is left for it.
    fn finish(&mut self, key: RingKey) -> bool {
        let ring = self.ring_mut(key);
        ring.rtail = ring.hwtail;
        ring.tail = ring.hwtail;
        ring.rcur != ring.rtail
    }

    /// Syncs one ring of a port: whether it had to begin anew and whether it
    /// is ready; `None` where that is an error.
    pub fn sync(&mut self, port: PortKey, direction: Direction, at: usize) -> Option<(bool, bool)> {
        let key = self.ports[&port].place(direction, at).ring.unwrap();
        match (&self.ports[&port].kind, direction) {
            (Kind::Monitor { .. } | Kind::GuestMonitor { .. }, Direction::Tx) => return None,
            (Kind::Monitor { .. } | Kind::GuestMonitor { .. }, _) if self.is_orphan(port) => {
                return None;
            }
            _ => {}
        }
        let anew = match direction {
            Direction::Tx => self.txsync(port, at, key),
            Direction::Rx => self.rxsync(port, at, key),
        };
        Some((anew, self.finish(key)))
    }

    fn txsync(&mut self, port: PortKey, at: usize, key: RingKey) -> bool {
        let ring = self.ring(key);
        let (first, tail, before) = (ring.rhead, ring.rtail, ring.hwtail);
        let anew = self.take_over(key, first, tail);
        let ring = self.ring(key);
        let head = ring.rhead;
        let slots = ring.range(ring.hwcur, head);
        self.copy_to_monitors(port, Direction::Tx, at, &slots, key, NS_TXMON);
        let last = self.ring(key).last();
        match self.ports[&port].kind {
            Kind::Vale { .. } => {
                self.send(port, at, key, &slots);
                let ring = self.ring_mut(key);
                (ring.hwcur, ring.hwtail) = (head, head.checked_sub(1).unwrap_or(last));
            }
            Kind::Pipe { .. } => {
                let link = self.link_of(port, Direction::Tx, at);
                let tail = self.links[&link].tx_tail;
                self.send_through(link, &slots);
                let ring = self.ring_mut(key);
                (ring.hwcur, ring.hwtail) = (head, tail);
            }
            _ => {}
        }
        let ring = self.ring(key);
        let released = ring.range(ring.next(before), ring.next(ring.hwtail));
        self.swap_with_monitor(port, Direction::Tx, at, key, &released, NS_TXMON);
        anew
    }

    fn rxsync(&mut self, port: PortKey, at: usize, key: RingKey) -> bool {
        let ring = self.ring(key);
        let (first, tail) = (ring.hwcur, ring.hwtail);
        let anew = self.take_over(key, first, tail);
        let ring = self.ring(key);
        let head = ring.rhead;
        let slots = ring.range(first, head);
        self.swap_with_monitor(port, Direction::Rx, at, key, &slots, 0);
        match self.ports[&port].kind {
            Kind::Null => {}
            Kind::Pipe { .. } => {
                let link = self.link_of(port, Direction::Rx, at);
                self.release_through(link, &slots);
                let tail = self.links[&link].rx_tail;
                let ring = self.ring_mut(key);
                (ring.hwcur, ring.hwtail) = (head, tail);
            }
            _ => self.ring_mut(key).hwcur = head,
        }
        anew
    }

    /// A slot as the other ring of a pipe gets it, and whether it was good.
    fn passed(&self, ours: Slot, theirs: Slot, region: u32) -> (Slot, bool) {
        let region = &self.regions[&region];
        let named = region.is_buffer(ours.buf_idx);
        if named && usize::from(ours.len) <= region.buf_size() {
            return (ours, true);
        }
        let buf_idx = if named { ours.buf_idx } else { theirs.buf_idx };
        let len = 0;
        (
            Slot {
                buf_idx,
                len,
                ..ours
            },
            false,
        )
    }

    fn send_through(&mut self, link: LinkKey, slots: &[u32]) {
        let (tx, rx) = (self.links[&link].tx, self.links[&link].rx);
        let mut counts = Counts::default();
        let mut end = None;
        for &at in slots {
            let ours = self.ring(tx).slot(at);
            let theirs = self.ring(rx).slot(at);
            let (slot, good) = self.passed(ours, theirs, self.ring(tx).region);
            *self.ring_mut(rx).slot_mut(at) = slot;
            self.ring_mut(tx).slot_mut(at).flags &= !NS_BUF_CHANGED;
            counts.bad_slots += u64::from(!good);
            counts.bytes += u64::from(slot.len);
            if ours.flags & NS_MOREFRAG == 0 {
                counts.frames += 1;
                end = Some(self.ring(tx).next(at));
            }
        }
        self.ring_mut(tx).counts.add(&counts);
        if let Some(end) = end {
            let published = self.ring(rx).range(self.links[&link].rx_tail, end);
            let (to, at) = (link.receiver, link.index);
            self.copy_to_monitors(to, Direction::Rx, at, &published, rx, 0);
            self.links.get_mut(&link).unwrap().rx_tail = end;
            self.wake(to, Direction::Rx, at);
        }
    }

    fn release_through(&mut self, link: LinkKey, slots: &[u32]) {
        let (tx, rx) = (self.links[&link].tx, self.links[&link].rx);
        for &at in slots {
            let ours = self.ring(rx).slot(at);
            let theirs = self.ring(tx).slot(at);
            let (slot, good) = self.passed(ours, theirs, self.ring(rx).region);
            *self.ring_mut(tx).slot_mut(at) = slot;
            self.ring_mut(rx).slot_mut(at).flags &= !NS_BUF_CHANGED;
            self.ring_mut(rx).counts.bad_slots += u64::from(!good);
        }
        if let Some(&last) = slots.last() {
            // One slot stays empty.
            self.links.get_mut(&link).unwrap().tx_tail = last;
            self.wake(link.sender, Direction::Tx, link.index);
        }
    }

    /// Each copy monitor has the last of the slots, as many as it has room for.
    pub fn copy_to_monitors(
        &mut self,
        port: PortKey,
        direction: Direction,
        at: usize,
        slots: &[u32],
        from: RingKey,
        sent: u16,
    ) {
        for (monitor, to) in self.ports[&port].place(direction, at).copies.clone() {
            self.give(monitor, to, slots, |model, nth, room| {
                let slot = model.ring(from).slot(nth);
                let source = &model.regions[&model.ring(from).region];
                let mut bytes = Vec::new();
                if source.is_buffer(slot.buf_idx) {
                    let len = usize::from(slot.len).min(source.buf_size());
                    bytes = source.buffer(slot.buf_idx)[..len].to_vec();
                }
                let target = model.ring(to).slot(room);
                let region = model.ring(to).region;
                let region = model.regions.get_mut(&region).unwrap();
                let mut len = 0;
                if region.is_buffer(target.buf_idx) {
                    bytes.truncate(region.buf_size());
                    len = region.write(target.buf_idx, 0, &bytes);
                }
                let target = model.ring_mut(to).slot_mut(room);
                target.len = u16::try_from(len).unwrap();
                target.flags = slot.flags & !NS_TXMON | sent;
            });
        }
    }

    /// The first zero-copy monitor exchanges its buffers for those of the
    /// slots; the next one does so with the first one's slots.
    fn swap_with_monitor(
        &mut self,
        port: PortKey,
        direction: Direction,
        at: usize,
        from: RingKey,
        slots: &[u32],
        sent: u16,
    ) {
        let next = match self.ports[&port].kind {
            Kind::Monitor { .. } => self.next_in_chain(from),
            _ => self.ports[&port]
                .place(direction, at)
                .chain
                .first()
                .copied(),
        };
        let Some((monitor, to)) = next else {
            return;
        };
        self.give(monitor, to, slots, |model, nth, room| {
            let (ours, theirs) = (model.ring(from).slot(nth), model.ring(to).slot(room));
            let region = &model.regions[&model.ring(from).region];
            if !region.is_buffer(ours.buf_idx) || !region.is_buffer(theirs.buf_idx) {
                let slot = model.ring_mut(to).slot_mut(room);
                (slot.len, slot.flags) = (0, 0);
                return;
            }
            let flags = ours.flags & !NS_TXMON | sent;
            let ptr = theirs.ptr;
            *model.ring_mut(to).slot_mut(room) = Slot { flags, ptr, ..ours };
            let flags = ours.flags | NS_BUF_CHANGED;
            let ptr = ours.ptr;
            *model.ring_mut(from).slot_mut(nth) = Slot {
                flags,
                ptr,
                ..theirs
            };
        });
    }

    fn next_in_chain(&self, ring: RingKey) -> Option<(PortKey, RingKey)> {
        let mut places = self.ports.values().flat_map(|port| port.all_places());
        places.find_map(|place| {
            let at = place.chain.iter().position(|(_, one)| *one == ring)?;
            place.chain.get(at + 1).copied()
        })
    }

    /// Gives a monitor the last of `slots` that it has room for, one by one.
    fn give(
        &mut self,
        monitor: PortKey,
        to: RingKey,
        slots: &[u32],
        one: impl Fn(&mut Self, u32, u32),
    ) {
        if slots.is_empty() {
            return;
        }
        let room = (self.ring(to).space() as usize).min(slots.len());
        let missed = slots.len() - room;
        for &nth in &slots[missed..] {
            let at = self.ring(to).hwtail;
            one(self, nth, at);
            let ring = self.ring_mut(to);
            ring.hwtail = ring.next(at);
        }
        let ring = self.ring_mut(to);
        ring.counts.full += missed as u64;
        ring.counts.frames += room as u64;
        if room > 0 {
            let at = self.ports[&monitor].index_of(Direction::Rx, to);
            self.wake(monitor, Direction::Rx, at);
        }
    }

    /// Whoever has the ring bound and waits for it is woken, once.
    pub fn wake(&mut self, port: PortKey, direction: Direction, at: usize) {
        let bit = match direction {
            Direction::Rx => FRAMES,
            Direction::Tx => ROOM,
        };
        for client in self.clients.iter_mut().flatten() {
            let bound = client.bound(direction).contains(&at);
            if client.port == port && bound && client.armed & bit != 0 {
                client.armed = 0;
                client.woken = true;
            }
        }
    }
}
