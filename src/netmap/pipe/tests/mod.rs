//! Tests of pipes: slots go over and come back, whole frames alone are seen,
//! hostile slots stay where they are, and every buffer goes back once.

mod ends;
mod loans;

use proptest::prelude::*;

use super::*;
use crate::netmap::abi::{NS_BUF_CHANGED, NS_MOREFRAG, Slot};
use crate::netmap::mem::{GLOBAL_ID, PoolSize, RegionConfig, Regions, SlotOffsets};

const SLOTS: u32 = 8;

fn region() -> Arc<Region> {
    let config = RegionConfig {
        buffers: PoolSize {
            size: 2048,
            num: 200,
        },
        ..RegionConfig::global()
    };
    Regions::new(config).find(GLOBAL_ID).unwrap()
}

fn pipe(region: &Arc<Region>) -> Pipe {
    let shape = Shape {
        tx_rings: 2,
        rx_rings: 1,
        tx_slots: SLOTS,
        rx_slots: SLOTS,
    };
    Pipe::new("vale0:a", "1", Arc::clone(region), shape)
}

/// A link from master to slave.
fn link(region: &Arc<Region>) -> Arc<Link> {
    pipe(region).link(End::Master, Direction::Tx, 0).unwrap()
}

/// Fills slots as a sender does, each with its own length and flags.
fn put(link: &Link, slots: &[(u16, u16)]) {
    let view = link.kring(Direction::Tx).view();
    let mut at = view.head();
    for &(len, flags) in slots {
        let slot = view.slot(at).unwrap();
        view.set_slot(at, Slot { len, flags, ..slot });
        at = view.next(at);
    }
    view.set_cur(at);
    view.set_head(at);
    link.txsync();
}

/// The lengths of what has come; released when `release`.
fn take(link: &Link, release: bool) -> Vec<u16> {
    link.rxsync();
    let view = link.kring(Direction::Rx).view();
    let mut at = view.head();
    let mut lens = Vec::new();
    while at != view.tail() {
        lens.push(view.slot(at).unwrap().len);
        at = view.next(at);
    }
    if release {
        view.set_cur(at);
        view.set_head(at);
        link.rxsync();
    }
    lens
}

fn buffer(kring: &Kring, at: u32) -> u32 {
    kring.view().slot(at).unwrap().buf_idx
}

#[test]
fn names_and_shapes_of_the_two_ends() {
    let pipe = pipe(&region());
    assert_eq!(pipe.name(End::Master), "vale0:a{1");
    assert_eq!(pipe.name(End::Slave), "vale0:a}1");
    let (master, slave) = (
        pipe.rings(End::Master).shape(),
        pipe.rings(End::Slave).shape(),
    );
    assert_eq!((master.tx_rings, master.rx_rings), (2, 1));
    assert_eq!((slave.tx_rings, slave.rx_rings), (1, 2));
    // What one end sends with, the other receives with.
    let ours = pipe.link(End::Master, Direction::Tx, 1).unwrap();
    let theirs = pipe.link(End::Slave, Direction::Rx, 1).unwrap();
    assert!(Arc::ptr_eq(&ours, &theirs));
    let back = pipe.link(End::Slave, Direction::Tx, 0).unwrap();
    assert!(!Arc::ptr_eq(&ours, &back));
    assert_eq!(ours.kring(Direction::Tx).name(), "vale0:a{1 TX1");
    assert_eq!(ours.kring(Direction::Rx).name(), "vale0:a}1 RX1");
}

#[test]
fn the_buffer_itself_goes_over_and_comes_back() {
    let region = region();
    let free = region.free();
    let link = link(&region);
    assert_eq!(
        region.free()[2],
        free[2] - SLOTS,
        "one buffer for two slots"
    );
    let sent = buffer(link.kring(Direction::Tx), 0);
    let view = link.kring(Direction::Tx).view();
    let slot = view.slot(0).unwrap();
    view.slot_buffer(slot).unwrap().write(b"frame");
    put(&link, &[(5, 0)]);
    assert_eq!(take(&link, false), [5]);
    assert_eq!(buffer(link.kring(Direction::Rx), 0), sent);
    let view = link.kring(Direction::Rx).view();
    let mut bytes = [0; 5];
    let data = view.slot_buffer(view.slot(0).unwrap()).unwrap();
    data.as_readable().read(&mut bytes);
    assert_eq!(&bytes, b"frame");
    // The receiver keeps the buffer and gives another one back.
    let own = region.ring(&pipe(&region).rings(End::Master).spec(Direction::Rx, 0));
    let own = own.unwrap();
    let other = own.view().slot(0).unwrap();
    own.view().set_slot(
        0,
        Slot {
            buf_idx: sent,
            ..other
        },
    );
    let given = Slot {
        buf_idx: other.buf_idx,
        flags: NS_BUF_CHANGED,
        ..Slot::default()
    };
    view.set_slot(0, given);
    take(&link, true);
    assert_eq!(buffer(link.kring(Direction::Tx), 0), other.buf_idx);
    assert_eq!(link.kring(Direction::Rx).view().slot(0).unwrap().flags, 0);
    drop(own);
    drop(link);
    assert_eq!(region.free(), free);
}

#[test]
fn a_full_ring_waits_and_a_release_makes_room() {
    let link = link(&region());
    put(&link, &[(60, 0); 7]);
    assert_eq!(link.kring(Direction::Tx).view().available(), 0);
    assert!(!link.txsync().ready);
    assert_eq!(take(&link, true).len(), 7);
    assert!(link.txsync().ready);
    assert_eq!(link.kring(Direction::Tx).view().available(), 7);
}

#[test]
fn a_frame_is_seen_when_its_last_slot_is_there() {
    let link = link(&region());
    put(&link, &[(1, 0), (2, NS_MOREFRAG), (3, NS_MOREFRAG)]);
    assert_eq!(take(&link, false), [1]);
    put(&link, &[(4, 0), (5, NS_MOREFRAG)]);
    assert_eq!(take(&link, true), [1, 2, 3, 4]);
    put(&link, &[(6, 0)]);
    assert_eq!(take(&link, true), [5, 6]);
}

#[test]
fn what_names_no_buffer_is_empty_and_loses_none() {
    let region = region();
    let free = region.free();
    let link = link(&region);
    let own = buffer(link.kring(Direction::Tx), 0);
    for (buf_idx, len) in [(0, 60), (1, 60), (u32::MAX, 60), (own, u16::MAX)] {
        let at = link.kring(Direction::Tx).view().head();
        let own = buffer(link.kring(Direction::Rx), at);
        let bad = Slot {
            buf_idx: if buf_idx < 2 || buf_idx == u32::MAX {
                buf_idx
            } else {
                own
            },
            len,
            ..Slot::default()
        };
        link.kring(Direction::Tx).view().set_slot(at, bad);
        link.kring(Direction::Tx).view().set_cur(at + 1);
        link.kring(Direction::Tx).view().set_head(at + 1);
        link.txsync();
        assert_eq!(take(&link, true), [0]);
        assert_eq!(buffer(link.kring(Direction::Rx), at), own);
        assert_eq!(buffer(link.kring(Direction::Tx), at), own, "it came back");
    }
    assert_eq!(link.kring(Direction::Tx).counters().read().bad_slots, 4);
    // The same from the receiver's side.
    put(&link, &[(60, 0)]);
    link.rxsync();
    let at = link.kring(Direction::Rx).view().head();
    let own = buffer(link.kring(Direction::Tx), at);
    let bad = Slot {
        buf_idx: 7_000_000,
        ..Slot::default()
    };
    link.kring(Direction::Rx).view().set_slot(at, bad);
    take(&link, true);
    assert_eq!(buffer(link.kring(Direction::Tx), at), own);
    drop(link);
    assert_eq!(region.free(), free);
}

#[test]
fn offsets_go_over_and_never_shrink() {
    let link = link(&region());
    for kring in [link.kring(Direction::Tx), link.kring(Direction::Rx)] {
        let offsets = SlotOffsets {
            mask: 0xff,
            max: 100,
        };
        kring.memory().set_offsets(offsets);
    }
    let rx = link.kring(Direction::Rx).view();
    rx.set_slot(0, rx.with_offset(rx.slot(0).unwrap(), 40));
    let tx = link.kring(Direction::Tx).view();
    for (at, offset) in [(0, 10), (1, 90)] {
        tx.set_slot(at, tx.with_offset(tx.slot(at).unwrap(), offset));
    }
    put(&link, &[(60, 0), (60, 0)]);
    link.rxsync();
    let offset = |at| rx.offset(rx.slot(at).unwrap());
    assert_eq!((offset(0), offset(1)), (40, 90));
}

#[test]
fn monitors_see_frames_before_the_receiver_syncs() {
    let region = region();
    let pipe = pipe(&region);
    let link = pipe.link(End::Master, Direction::Tx, 0).unwrap();
    let spec = pipe.rings(End::Master).spec(Direction::Rx, 0);
    let monitor = || {
        let memory = region.ring(&spec).unwrap();
        Arc::new(Kring::new(
            "m".to_owned(),
            Direction::Rx,
            memory,
            Arc::default(),
        ))
    };
    let (sent, received) = (monitor(), monitor());
    let watch = pipe.rings(End::Master).watch(Direction::Tx, 0).unwrap();
    watch.add_copy(&sent);
    let watch = pipe.rings(End::Slave).watch(Direction::Rx, 0).unwrap();
    watch.add_copy(&received);
    put(&link, &[(60, 0), (61, NS_MOREFRAG)]);
    for (ring, count) in [(&sent, 2), (&received, 1)] {
        ring.rxsync();
        assert_eq!(ring.view().available(), count);
    }
}

#[test]
fn a_ring_that_goes_later_takes_nobodys_buffers_with_it() {
    let region = region();
    let link = link(&region);
    put(&link, &[(60, 0); 3]);
    let late = Arc::clone(link.kring(Direction::Rx));
    drop(link);
    // Who comes in between gets the buffers that the transmit ring had.
    let spec = pipe(&region).rings(End::Master).spec(Direction::Rx, 0);
    let others = [(); 2].map(|()| region.ring(&spec).unwrap());
    let free = region.free()[2];
    drop(late);
    assert_eq!(
        region.free()[2],
        free + 3,
        "those that were sent, no others"
    );
    drop(others);
}

proptest! {
    /// Whatever the two sides write and in whatever order they sync, both find
    /// every buffer in one place, and all of them go back.
    #[test]
    fn no_buffer_is_lost_or_doubled(
        steps in proptest::collection::vec((0..6u8, 0..SLOTS, any::<u32>(), any::<u16>()), 0..60)
    ) {
        let region = region();
        let free = region.free();
        let link = link(&region);
        for (step, at, value, flags) in steps {
            let kring = if step % 2 == 0 { link.kring(Direction::Tx) } else { link.kring(Direction::Rx) };
            let view = kring.view();
            match step / 2 {
                0 => {
                    view.set_cur(at);
                    view.set_head(at);
                    if step == 0 { link.txsync(); } else { link.rxsync(); }
                }
                1 => {
                    let slot = Slot { buf_idx: value, flags, ..view.slot(at).unwrap() };
                    view.set_slot(at, slot);
                }
                _ => {
                    view.set_cur(value);
                    view.set_head(value);
                    if step == 4 { link.txsync(); } else { link.rxsync(); }
                }
            }
        }
        drop(link);
        // A region that nobody has is whole again, whatever was in the slots.
        prop_assert_eq!(region.free(), free);
    }
}
