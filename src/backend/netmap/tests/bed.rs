//! Ports of a core, with faults; clients of it; and a guest's buffers.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::super::*;
use crate::backend::Dropped;
use crate::driver::memory::{Area, DriverMemory};
use crate::net::frame::ETHER_HEADER;
use crate::netmap::abi::nmreq::NR_ACCEPT_VNET_HDR;
use crate::netmap::abi::{NS_MOREFRAG, Slot};
use crate::netmap::mem::{RegionConfig, RingView};
use crate::netmap::port::Direction;
use crate::netmap::register::{Netmap as Core, Registration, Request, RingMode};
use crate::netmap::vale::Switches;
use crate::virtio::memory::{Readable, Writable};
use crate::virtio::net_header::{LEN, NetHeader};

pub fn core() -> Arc<Core> {
    let switches = Arc::new(Switches::default());
    Arc::new(Core::new(switches, RegionConfig::global()))
}

/// A broadcast frame of `len` bytes.
pub fn frame(len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    let pattern = (0..).map(|n: usize| u8::try_from((n * 7 + len) % 253).unwrap());
    frame.extend(pattern.take(len - frame.len()));
    frame
}

/// A port of the core that can be made to fail.
pub struct Faulty {
    inner: Registration,
    headers: bool,
    stuck: AtomicBool,
    gone: AtomicBool,
    syncs: AtomicUsize,
}

impl Faulty {
    fn made(core: &Arc<Core>, name: &str, headers: bool, stuck: bool) -> Arc<Self> {
        let request = Request {
            flags: NR_ACCEPT_VNET_HDR,
            ..Request::new(name)
        };
        Arc::new(Self {
            inner: core.register(&request).unwrap(),
            headers,
            stuck: AtomicBool::new(stuck),
            gone: AtomicBool::new(false),
            syncs: AtomicUsize::new(0),
        })
    }

    pub fn new(core: &Arc<Core>, name: &str) -> Arc<Self> {
        Self::made(core, name, true, false)
    }

    /// Like an interface.
    pub fn without_headers(core: &Arc<Core>, name: &str) -> Arc<Self> {
        Self::made(core, name, false, false)
    }

    /// Like a NIC without a carrier: takes frames and sends none.
    pub fn stuck(core: &Arc<Core>, name: &str) -> Arc<Self> {
        Self::made(core, name, true, true)
    }

    pub fn let_go(&self) {
        self.stuck.store(false, Ordering::Relaxed);
    }

    /// Like an interface that was destroyed.
    pub fn destroy(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    pub fn syncs(&self) -> usize {
        self.syncs.load(Ordering::Relaxed)
    }

    /// A back end on this port.
    pub fn open(self: &Arc<Self>, pairs: u16) -> Netmap {
        let port = Arc::clone(self);
        let source = Ports(Box::new(move || {
            Ok(Opening {
                ports: vec![Arc::clone(&port) as _],
                fragments: Fragments::Several,
            })
        }));
        Netmap::open("test", Box::new(source), pairs).unwrap()
    }

    fn check(&self) -> io::Result<()> {
        match self.gone.load(Ordering::Relaxed) {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
    }
}

impl Port for Faulty {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn ring_count(&self, direction: Direction) -> usize {
        self.inner.ring_count(direction)
    }

    fn ring(&self, direction: Direction, index: usize) -> Option<RingView<'_>> {
        self.inner.ring(direction, index)
    }

    fn txsync(&self) -> io::Result<()> {
        self.check()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        match self.stuck.load(Ordering::Relaxed) {
            true => Ok(()),
            false => self.inner.txsync(),
        }
    }

    fn rxsync(&self) -> io::Result<()> {
        self.check()?;
        self.inner.rxsync()
    }

    fn header_len(&self) -> io::Result<HeaderLen> {
        self.inner.header_len()
    }

    fn set_header_len(&self, len: HeaderLen) -> io::Result<()> {
        match self.headers {
            true => self.inner.set_header_len(len),
            false => Err(io::Error::from_raw_os_error(libc::ENXIO)),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }

    fn listen(&self) -> io::Result<bool> {
        self.check()?;
        self.inner.listen()
    }
}

type Open = dyn Fn() -> Result<Opening, OpenError> + Send + Sync;

/// Opens ports by a function.
pub struct Ports(pub Box<Open>);

impl Source for Ports {
    fn open(&self) -> Result<Opening, OpenError> {
        (self.0)()
    }
}

/// A back end on the core's port `name` with `rings` rings, each registered by
/// itself, for `pairs` queue pairs.
pub fn open(core: &Arc<Core>, name: &str, rings: u16, pairs: u16, fragments: Fragments) -> Netmap {
    let (core, port) = (Arc::clone(core), name.to_owned());
    let source = Ports(Box::new(move || {
        let ring = |ring| {
            let request = Request {
                mode: RingMode::One(ring),
                flags: NR_ACCEPT_VNET_HDR,
                tx_rings: rings,
                rx_rings: rings,
                ..Request::new(&port)
            };
            Arc::new(core.register(&request).unwrap()) as _
        };
        Ok(Opening {
            ports: (0..rings).map(ring).collect(),
            fragments,
        })
    }));
    Netmap::open(name, Box::new(source), pairs).unwrap()
}

/// Sends frames on `pair` as a device does.
pub fn send(netmap: &Netmap, pair: usize, frames: &[(NetHeader, Vec<u8>)]) -> Sent {
    let sent = put(netmap, pair, frames);
    match netmap.flush(pair) {
        true => sent,
        false => Sent {
            dropped: sent.frames + sent.dropped,
            ..Sent::default()
        },
    }
}

/// Sends frames on `pair` that others are to follow.
pub fn put(netmap: &Netmap, pair: usize, frames: &[(NetHeader, Vec<u8>)]) -> Sent {
    let mut batch = Batch::new();
    for (header, frame) in frames {
        let mark = batch.mark();
        // In two parts, as a driver may have it.
        let (head, body) = frame.split_at(ETHER_HEADER);
        for part in [head, body] {
            batch.push_part(mark, Readable::from_slice(part)).unwrap();
        }
        let len = u32::try_from(frame.len()).unwrap();
        assert!(batch.push_frame(mark, len, *head.first_chunk().unwrap(), *header));
    }
    netmap.send(pair, &batch)
}

/// Another netmap program on the switch.
pub struct Client(Registration);

impl std::ops::Deref for Client {
    type Target = Registration;

    fn deref(&self) -> &Registration {
        &self.0
    }
}

impl Client {
    pub fn new(core: &Arc<Core>, name: &str) -> Self {
        Self::with_rings(core, name, 1)
    }

    pub fn with_rings(core: &Arc<Core>, name: &str, rings: u16) -> Self {
        let request = Request {
            flags: NR_ACCEPT_VNET_HDR,
            tx_rings: rings,
            rx_rings: rings,
            ..Request::new(name)
        };
        Self(core.register(&request).unwrap())
    }

    /// Sends what is to be a frame, with its header in front if there is one.
    pub fn send(&self, bytes: &[u8]) {
        self.send_on(0, bytes);
    }

    pub fn send_on(&self, ring: usize, bytes: &[u8]) {
        let ring = self.ring(Direction::Tx, ring).unwrap();
        let mut at = ring.head();
        let chunks: Vec<&[u8]> = bytes.chunks(ring.buf_size() as usize).collect();
        for (nth, chunk) in (1..).zip(&chunks) {
            let slot = ring.slot(at).unwrap();
            ring.buffer(slot.buf_idx).unwrap().write(chunk);
            let len = u16::try_from(chunk.len()).unwrap();
            let flags = if nth < chunks.len() { NS_MOREFRAG } else { 0 };
            ring.set_slot(at, Slot { len, flags, ..slot }).unwrap();
            at = ring.next(at);
        }
        ring.set_cur(at);
        ring.set_head(at);
        self.txsync().unwrap();
    }

    /// What has come on any ring, as it lies there.
    pub fn receive(&self) -> Vec<Vec<u8>> {
        let rings = 0..self.ring_count(Direction::Rx);
        rings.flat_map(|ring| self.receive_on(ring)).collect()
    }

    pub fn receive_on(&self, ring: usize) -> Vec<Vec<u8>> {
        self.rxsync().unwrap();
        let ring = self.ring(Direction::Rx, ring).unwrap();
        let mut frames = vec![];
        let mut frame = vec![];
        let mut at = ring.head();
        while at != ring.tail() {
            let slot = ring.slot(at).unwrap();
            let mut bytes = vec![0; slot.len.into()];
            let buffer = ring.buffer(slot.buf_idx).unwrap();
            buffer.as_readable().read(&mut bytes);
            frame.extend(bytes);
            if slot.flags & NS_MOREFRAG == 0 {
                frames.push(std::mem::take(&mut frame));
            }
            at = ring.next(at);
        }
        ring.set_cur(at);
        ring.set_head(at);
        self.rxsync().unwrap();
        frames
    }
}

/// A guest's buffers: each frame gets the same ones, and is taken out of them.
pub struct Sink {
    room: Vec<Writable<'static>>,
    area: &'static Area,
    /// Frames that there is room for.
    pub rooms: usize,
    /// Frames until the turn has had enough.
    pub budget: usize,
    /// A frame that does not fit may wait.
    pub grows: bool,
    pub frames: Vec<(NetHeader, Vec<u8>)>,
    pub dropped: Vec<Dropped>,
}

impl Sink {
    /// Buffers of `lens` bytes.
    pub fn new(lens: &[usize]) -> Self {
        let mut memory = DriverMemory::of_len(1 << 20, 1).unwrap();
        let total = lens.iter().sum();
        let area: &'static Area = Box::leak(Box::new(memory.allocate(total, 64).unwrap()));
        Box::leak(Box::new(memory));
        let mut at = 0;
        let room = lens.iter().map(|&len| {
            at += len;
            area.writable(at - len, len)
        });
        Self {
            room: room.collect(),
            area,
            rooms: usize::MAX,
            budget: usize::MAX,
            grows: false,
            frames: vec![],
            dropped: vec![],
        }
    }

    /// The frames, all of which must have come with a header that asks for
    /// nothing.
    pub fn plain(&self) -> Vec<Vec<u8>> {
        let frames = self.frames.iter().map(|(header, frame)| {
            assert_eq!(*header, NetHeader::default());
            frame.clone()
        });
        frames.collect()
    }
}

impl Room for Sink {
    fn room(&mut self, _len: usize) -> Result<&[Writable<'_>], Received> {
        if self.frames.len() >= self.budget {
            return Err(Received::Budget);
        }
        if self.frames.len() >= self.rooms {
            return Err(Received::NoRoom);
        }
        Ok(&self.room)
    }

    fn finish(&mut self, header: &NetHeader, len: usize) {
        let mut bytes = vec![0; len];
        self.area.readable(0, len).read(&mut bytes);
        self.frames.push((*header, bytes));
    }

    fn may_grow(&self, _len: usize) -> bool {
        self.grows
    }

    fn drop(&mut self, why: Dropped) {
        self.dropped.push(why);
    }
}

/// A header and its frame, as they lie in slots.
pub fn with_header(header: &NetHeader, header_len: usize, frame: &[u8]) -> Vec<u8> {
    assert!(header_len <= LEN);
    [&header.to_bytes()[..header_len], frame].concat()
}
