//! Tests of ring ports: what is sent from which slots, what is written into
//! which, and what comes back.

mod rx;
mod tx;

use super::*;
use crate::net::frame::{EtherHeader, FRAME_PARTS};
use crate::netmap::abi::{NS_BUF_CHANGED, NS_INDIRECT, NS_MOREFRAG, Slot};
use crate::netmap::kring::Counts;
use crate::netmap::mem::{MemError, PortNeeds, RegionConfig, Regions, RingSpec};
use crate::virtio::memory::Readable;
use crate::virtio::net_header::{F_DATA_VALID, F_NEEDS_CSUM, GSO_TCPV4, NetHeader};

const SLOTS: u32 = 64;
const MORE: u16 = NS_MOREFRAG;

fn port(rings: u16) -> RingPort {
    port_of(rings, SLOTS)
}

fn port_of(rings: u16, slots: u32) -> RingPort {
    let needs = PortNeeds {
        tx_rings: rings,
        tx_slots: slots,
        rx_rings: rings,
        rx_slots: slots,
        extra_bufs: 0,
        pipes: 0,
    };
    let region = Regions::new(RegionConfig::global())
        .private(&RegionConfig::private(&needs))
        .unwrap();
    let shape = Shape {
        tx_rings: rings,
        rx_rings: rings,
        tx_slots: slots,
        rx_slots: slots,
    };
    RingPort::new("vale0:test", region, shape)
}

/// An Ethernet frame whose bytes count up.
fn frame(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from((at * 7 + at / 256) % 256).unwrap())
        .collect()
}

/// Puts slots into the transmit ring: contents and flags.
fn put(kring: &Kring, slots: &[(&[u8], u16)]) {
    let view = kring.view();
    let mut at = view.head();
    for (bytes, flags) in slots {
        let slot = view.slot(at).unwrap();
        view.buffer(slot.buf_idx).unwrap().write(bytes);
        let len = u16::try_from(bytes.len()).unwrap();
        let flags = *flags;
        view.set_slot(at, Slot { len, flags, ..slot });
        at = view.next(at);
    }
    view.set_cur(at);
    view.set_head(at);
}

/// Syncs and returns what was sent: header and contents.
fn sync(port: &RingPort) -> Vec<(NetHeader, Vec<u8>)> {
    let mut sent = Vec::new();
    let kring = port.kring(Direction::Tx, 0).unwrap();
    port.txsync(&kring, &mut |batch| {
        for frame in batch.frames() {
            let mut bytes = Vec::new();
            for part in batch.parts(frame) {
                let mut copy = vec![0; part.len()];
                part.read(&mut copy);
                bytes.extend(copy);
            }
            assert_eq!(bytes.len(), frame.len as usize);
            assert_eq!(
                EtherHeader::from(*bytes.first_chunk().unwrap()),
                frame.ether
            );
            sent.push((frame.header, bytes));
        }
    });
    sent
}

fn counts(kring: &Kring) -> Counts {
    kring.counters().read()
}

fn with_header(header: NetHeader, len: HeaderLen, bytes: &[u8]) -> Vec<u8> {
    let mut whole = header.to_bytes()[..len.bytes()].to_vec();
    whole.extend(bytes);
    whole
}

/// Delivers frames, each given in parts of at most `part` bytes.
fn deliver(port: &RingPort, header: &NetHeader, frames: &[Vec<u8>], part: usize) -> Delivered {
    let mut batch = Batch::new();
    for frame in frames {
        let mark = batch.mark();
        for chunk in frame.chunks(part) {
            batch.push_part(mark, Readable::from_slice(chunk)).unwrap();
        }
        let ether = *frame.first_chunk().unwrap();
        let len = u32::try_from(frame.len()).unwrap();
        assert!(batch.push_frame(mark, len, ether, *header));
    }
    let picks: Vec<u16> = (0..).take(frames.len()).collect();
    port.deliver(0, &batch, &picks)
}

/// Takes what has come: each frame's slot flags and its bytes.
fn receive(kring: &Kring) -> Vec<(Vec<u16>, Vec<u8>)> {
    kring.rxsync();
    let view = kring.view();
    let mut received = vec![(vec![], vec![])];
    let mut at = view.head();
    while at != view.tail() {
        let slot = view.slot(at).unwrap();
        let last = received.last_mut().unwrap();
        last.0.push(slot.flags);
        if let Some(buffer) = view.buffer(slot.buf_idx) {
            let mut bytes = vec![0; slot.len.into()];
            buffer.as_readable().read(&mut bytes);
            last.1.extend(bytes);
        }
        if slot.flags & NS_MOREFRAG == 0 {
            received.push((vec![], vec![]));
        }
        at = view.next(at);
    }
    received.pop();
    view.set_cur(at);
    view.set_head(at);
    kring.rxsync();
    received
}

#[test]
fn nobody_reads_a_ring_that_is_not_bound() {
    let port = port(2);
    let plain = NetHeader::default();
    assert_eq!(deliver(&port, &plain, &[frame(60)], 99).frames, 0);
    assert_eq!(port.unbound_frames(), 1);
    let kring = port.bind(Direction::Rx, 1, false).unwrap();
    let bytes = frame(60);
    let mut batch = Batch::new();
    batch.push_part(0, Readable::from_slice(&bytes)).unwrap();
    batch.push_frame(0, 60, *bytes.first_chunk().unwrap(), plain);
    // Ring numbers are taken modulo the number of rings.
    assert_eq!(port.deliver(3, &batch, &[0]).frames, 1);
    assert_eq!(port.deliver(2, &batch, &[0]).frames, 0);
    assert_eq!(port.deliver(1, &batch, &[7, 0]).frames, 1);
    assert_eq!(receive(&kring).len(), 2);
}

#[test]
fn rings_are_made_by_the_first_user_and_go_with_the_last() {
    let port = port(2);
    let before = port.region().free();
    let taken = |rings: u32| [before[0], before[1] - rings, before[2] - rings * SLOTS];
    let first = port.bind(Direction::Rx, 1, false).unwrap();
    let second = port.bind(Direction::Rx, 1, false).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(port.region().free(), taken(1));
    assert_eq!(
        port.bind(Direction::Rx, 1, true).unwrap_err(),
        BindError::Busy { ring: 1 }
    );
    drop((first, second));
    port.unbind(Direction::Rx, 1);
    assert_eq!(port.region().free(), taken(1));
    port.unbind(Direction::Rx, 1);
    assert_eq!(port.region().free(), before);
    port.unbind(Direction::Rx, 1);
    drop(port.bind(Direction::Tx, 0, true).unwrap());
    assert!(port.bind(Direction::Tx, 0, false).is_err());
    assert!(port.bind(Direction::Tx, 0, true).is_err());
    port.unbind(Direction::Tx, 0);
    assert!(port.bind(Direction::Tx, 0, false).is_ok());
    assert!(port.bind(Direction::Tx, 2, false).is_err());
}

#[test]
fn a_bind_that_fails_for_want_of_memory_takes_nothing() {
    let port = port(1);
    let spec = RingSpec {
        id: 0,
        rx: false,
        slots: 1,
        tail: 0,
    };
    let hogs: Vec<_> = std::iter::from_fn(|| port.region().ring(&spec).ok()).collect();
    let before = port.region().free();
    assert!(matches!(
        port.bind(Direction::Rx, 0, true),
        Err(BindError::Memory(MemError::Exhausted { .. }))
    ));
    assert_eq!(port.region().free(), before);
    drop(hogs);
    assert!(port.bind(Direction::Rx, 0, true).is_ok());
}
