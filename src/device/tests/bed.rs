//! Devices without a process around them: their queue pairs on a switch or on
//! a back end, the driver's side of their rings, and turns taken by hand.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::backend::{Backend, Vale};
use crate::device::config::Config;
use crate::device::filter::Filter;
use crate::device::pair::{QueuePair, Shared};
use crate::device::queue_port::QueuePort;
use crate::device::vring::{Kick, Vring};
use crate::driver::memory::{Area, DriverMemory};
use crate::driver::queue::{DriverQueue, QueueOptions, Segment, SplitQueue};
use crate::net::ethernet::Mac;
use crate::netmap::vale::Switch;
use crate::virtio::net_header::{LEN, LEN_LEGACY, NetHeader};
use crate::virtio::spec::{feature, net};
use crate::worker::Work;

/// Entries of a receive ring.
pub const SIZE: u16 = 64;
/// Entries of a transmit ring: several batches.
pub const TX_SIZE: u16 = 256;
/// Bytes between buffers.
const STRIDE: usize = 1 << 17;

/// A device and its driver.
pub struct Guest {
    pub pair: Arc<QueuePair>,
    pub memory: DriverMemory,
    pub rx: SplitQueue,
    pub tx: SplitQueue,
    pub rx_buffers: Area,
    pub tx_buffers: Area,
    pub rx_call: OwnedFd,
    pub rx_err: OwnedFd,
    header_len: usize,
}

pub fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap()
}

/// Reads what was written to a pipe; whether there was anything.
pub fn signalled(pipe: &OwnedFd) -> bool {
    nix::unistd::read(pipe, &mut [0; 512]).is_ok_and(|len| len > 0)
}

impl Guest {
    /// A guest with address `n` that has negotiated `features`, with `backend`.
    pub fn new(n: u8, features: u64, backend: Arc<dyn Backend>) -> Self {
        let mac = Mac([2, 0, 0, 0, 0, n]);
        let config = Config {
            mac,
            link: true,
            announce: false,
            pairs: 2,
            mtu: None,
        };
        let shared = Arc::new(Shared::new(format!("guest{n}"), backend, config));
        shared.set_features(features);
        shared.set_filter(Filter::after_reset(mac, features));
        shared.limit_frames();
        let pair = Arc::new(QueuePair::new(0, Arc::clone(&shared), None));
        let port = QueuePort::new(Arc::clone(&shared), vec![Arc::clone(&pair)]);
        shared.backend.attach(mac, Arc::new(port)).unwrap();

        let mut memory = DriverMemory::of_len(64 << 20, 1).unwrap();
        let options = QueueOptions {
            indirect: 0,
            ..QueueOptions::from(features)
        };
        let rx = SplitQueue::new(&mut memory, SIZE, options).unwrap();
        let tx = SplitQueue::new(&mut memory, TX_SIZE, options).unwrap();
        let rx_buffers = memory.allocate(STRIDE * usize::from(SIZE), 64).unwrap();
        let tx_buffers = memory.allocate(STRIDE * usize::from(TX_SIZE), 64).unwrap();
        let (rx_call, call) = pipe();
        let (rx_err, err) = pipe();
        for (vring, queue) in [(&pair.rx, &rx), (&pair.tx, &tx)] {
            vring.set_memory(Arc::clone(memory.table())).unwrap();
            vring.set_features(features.into()).unwrap();
            vring.set_size(queue.size()).unwrap();
            vring.set_addresses(queue.addresses()).unwrap();
            vring.enable(true);
        }
        pair.rx.set_call(Some(call)).unwrap();
        pair.rx.set_err(Some(err)).unwrap();
        pair.rx.set_kick(Kick::Poll).1.unwrap();
        pair.tx.set_kick(Kick::Poll).1.unwrap();
        Self {
            header_len: if features & (net::F_MRG_RXBUF | feature::VERSION_1) == 0 {
                LEN_LEGACY
            } else {
                LEN
            },
            pair,
            memory,
            rx,
            tx,
            rx_buffers,
            tx_buffers,
            rx_call,
            rx_err,
        }
    }

    /// A guest on `switch`.
    pub fn on(switch: &Arc<Switch>, n: u8, features: u64) -> Self {
        let backend = Vale::new(Arc::clone(switch), &format!("vm{n}"));
        Self::new(n, features, Arc::new(backend))
    }

    pub fn vrings(&self) -> [&Vring; 2] {
        [&self.pair.rx, &self.pair.tx]
    }

    /// Offers receive buffers, each a chain of buffers of `lens` bytes.
    pub fn offer(&mut self, count: u32, lens: &[u32]) {
        for token in 0..count {
            let mut at = token as usize * STRIDE;
            let chain: Vec<_> = lens
                .iter()
                .map(|&len| {
                    let segment = Segment::from_device(self.rx_buffers.guest_addr(at), len);
                    at += len as usize;
                    segment
                })
                .collect();
            assert!(self.rx.add(&chain, token).unwrap());
        }
        let _ = self.rx.publish();
    }

    /// Sends frames with their headers, each in buffers cut at `cuts`, and
    /// takes the device's turns until all of it came back.
    pub fn send(&mut self, frames: &[(NetHeader, Vec<u8>)], cuts: &[usize]) {
        for (token, (header, frame)) in (0..).zip(frames) {
            let mut bytes = header.to_bytes()[..self.header_len].to_vec();
            bytes.extend(frame);
            self.send_raw(token, &bytes, cuts);
        }
        self.transmit();
    }

    /// Adds a chain of `bytes`, cut at `cuts`.
    pub fn send_raw(&mut self, token: u32, bytes: &[u8], cuts: &[usize]) {
        let start = token as usize * STRIDE;
        self.tx_buffers.writable(start, bytes.len()).write(bytes);
        let mut chain = Vec::new();
        let mut at = 0;
        for &cut in cuts.iter().chain([&bytes.len()]) {
            let cut = cut.min(bytes.len());
            if cut > at {
                let len = u32::try_from(cut - at).unwrap();
                let addr = self.tx_buffers.guest_addr(start + at);
                chain.push(Segment::to_device(addr, len));
                at = cut;
            }
        }
        assert!(self.tx.add(&chain, token).unwrap());
    }

    /// Publishes what was added and takes turns until it came back.
    pub fn transmit(&mut self) -> usize {
        let _ = self.tx.publish();
        while self.pair.turn() {}
        std::iter::from_fn(|| self.tx.pop().unwrap()).count()
    }

    /// What was received: header and frame, put together from its chains.
    pub fn received(&mut self) -> Vec<(NetHeader, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some((header, mut bytes)) = self.received_chain() {
            for _ in 1..header.num_buffers {
                let completion = self.rx.pop().unwrap().expect("a further buffer");
                bytes.extend(self.read(completion.token, completion.len));
            }
            frames.push((header, bytes.split_off(self.header_len)));
        }
        frames
    }

    fn received_chain(&mut self) -> Option<(NetHeader, Vec<u8>)> {
        let completion = self.rx.pop().unwrap()?;
        let bytes = self.read(completion.token, completion.len);
        let mut raw = [0; LEN];
        raw[..self.header_len].copy_from_slice(&bytes[..self.header_len]);
        Some((NetHeader::from_bytes(&raw), bytes))
    }

    fn read(&self, token: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        let at = token as usize * STRIDE;
        self.rx_buffers.readable(at, bytes.len()).read(&mut bytes);
        bytes
    }
}

/// A frame of `len` bytes from guest `from` to guest `to`.
pub fn frame(to: u8, from: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5];
    let pattern = (0..).map(|n: usize| u8::try_from((n * 7 + len) % 253).unwrap());
    frame.extend(pattern.take(len - frame.len()));
    frame
}
