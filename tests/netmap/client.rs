//! A netmap client, as simple as they come.

use std::sync::Arc;
use std::time::Duration;

use vtnetd::event::{Events, Interest, Poller};
use vtnetd::netmap::abi::{NS_MOREFRAG, Slot};
use vtnetd::netmap::mem::{PoolSize, RegionConfig, RingView};
use vtnetd::netmap::port::{Direction, Port};
use vtnetd::netmap::register::{Netmap, Registration, Request};
use vtnetd::netmap::vale::Switches;

/// A core whose global region has buffers of `buf_size` bytes.
pub fn core(buf_size: u32) -> Arc<Netmap> {
    let global = RegionConfig {
        buffers: PoolSize {
            size: buf_size,
            num: 65536,
        },
        ..RegionConfig::global()
    };
    Arc::new(Netmap::new(Arc::new(Switches::default()), global))
}

pub struct Client {
    pub port: Registration,
}

impl Client {
    /// One with a region of its own.
    pub fn new(core: &Arc<Netmap>, name: &str) -> Self {
        Self::with(core, Request::new(name))
    }

    pub fn with(core: &Arc<Netmap>, request: Request) -> Self {
        Self {
            port: core.register(&request).unwrap(),
        }
    }

    fn ring(&self, direction: Direction) -> RingView<'_> {
        self.port.ring(direction, 0).unwrap()
    }

    /// Puts one frame into the transmit ring; `false` when it has no room.
    pub fn put(&self, frame: &[u8]) -> bool {
        let ring = self.ring(Direction::Tx);
        let chunks: Vec<&[u8]> = frame.chunks(ring.buf_size() as usize).collect();
        if (ring.available() as usize) < chunks.len() {
            return false;
        }
        let mut at = ring.head();
        for (nth, chunk) in (1..).zip(&chunks) {
            let slot = ring.slot(at).unwrap();
            ring.buffer(slot.buf_idx).unwrap().write(chunk);
            let slot = Slot {
                len: u16::try_from(chunk.len()).unwrap(),
                flags: if nth < chunks.len() { NS_MOREFRAG } else { 0 },
                ..slot
            };
            ring.set_slot(at, slot).unwrap();
            at = ring.next(at);
        }
        ring.set_cur(at);
        ring.set_head(at);
        true
    }

    /// Sends frames, syncing when the ring is full and at the end.
    pub fn send<F: AsRef<[u8]>>(&self, frames: &[F]) {
        for frame in frames {
            if !self.put(frame.as_ref()) {
                self.port.txsync().unwrap();
                assert!(self.put(frame.as_ref()), "too long for the ring");
            }
        }
        self.port.txsync().unwrap();
    }

    /// Takes what has come.
    pub fn receive(&self) -> Vec<Vec<u8>> {
        self.port.rxsync().unwrap();
        let ring = self.ring(Direction::Rx);
        let mut frames = Vec::new();
        let mut frame = Vec::new();
        let mut at = ring.head();
        while at != ring.tail() {
            let slot = ring.slot(at).unwrap();
            let buffer = ring.buffer(slot.buf_idx).unwrap();
            let start = frame.len();
            frame.resize(start + usize::from(slot.len), 0);
            buffer.as_readable().read(&mut frame[start..]);
            if slot.flags & NS_MOREFRAG == 0 {
                frames.push(std::mem::take(&mut frame));
            }
            at = ring.next(at);
        }
        ring.set_cur(at);
        ring.set_head(at);
        self.port.rxsync().unwrap();
        // A lease that was not used up leaves empty slots.
        frames.retain(|frame| !frame.is_empty());
        frames
    }

    /// Sleeps until there is something to receive.
    pub fn wait(&self) {
        let poller = Poller::new().unwrap();
        poller.add(self.port.fd(), 0, Interest::READ).unwrap();
        let mut events = Events::new();
        while !self.port.listen().unwrap() {
            poller
                .wait(&mut events, Some(Duration::from_secs(60)))
                .unwrap();
            assert!(!events.is_empty(), "never woken");
        }
    }
}

pub const BROADCAST: u8 = 0xff;

/// An Ethernet frame of `len` bytes from station `from` to station `to`.
pub fn frame(to: u8, from: u8, len: usize) -> Vec<u8> {
    let address = |station| match station {
        BROADCAST => [0xff; 6],
        _ => [2, 0, 0, 0, 0, station],
    };
    let mut frame = [address(to), address(from)].concat();
    frame.extend([0x88, 0xb5]);
    let pattern = (0..).map(|n: usize| u8::try_from((n * 7 + len + n / 256) % 251).unwrap());
    frame.extend(pattern.take(len - frame.len()));
    frame
}
