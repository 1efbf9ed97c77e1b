//! Null ports, pipes, monitors, offsets.

use nix::errno::Errno;

use super::*;
use crate::netmap::abi::option::Offsets;
use crate::netmap::abi::{NS_TXMON, Slot};
use crate::netmap::mem::{PoolSize, page_size};

fn errno(result: Result<Registration, RegisterError>) -> Errno {
    result.map(|_| ()).unwrap_err().errno()
}

/// Sends one frame of `len` bytes from the first ring.
pub(super) fn send(client: &Registration, len: u16) {
    let ring = client.ring(Direction::Tx, 0).unwrap();
    let at = ring.head();
    let slot = ring.slot(at).unwrap();
    let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    ring.slot_buffer(slot).unwrap().write(&bytes);
    ring.set_slot(at, Slot { len, ..slot });
    ring.set_cur(ring.next(at));
    ring.set_head(ring.next(at));
    client.txsync().unwrap();
}

/// The lengths and flags of what has come on the first ring.
pub(super) fn receive(client: &Registration) -> Vec<(u16, u16)> {
    client.rxsync().unwrap();
    let ring = client.ring(Direction::Rx, 0).unwrap();
    let mut at = ring.head();
    let mut frames = Vec::new();
    while at != ring.tail() {
        let slot = ring.slot(at).unwrap();
        frames.push((slot.len, slot.flags));
        at = ring.next(at);
    }
    ring.set_cur(at);
    ring.set_head(at);
    client.rxsync().unwrap();
    frames
}

#[test]
fn null_ports() {
    let core = core();
    let null = |mem_id, rings, slots| {
        core.register(&request("x", |r| {
            (r.mode, r.mem_id) = (RingMode::Null, mem_id);
            (r.tx_rings, r.rx_rings) = (rings, rings / 2);
            (r.tx_slots, r.rx_slots) = (slots, slots);
        }))
    };
    assert_eq!(errno(null(0, 1, 1)), Errno::EINVAL);
    assert_eq!(errno(null(7, 1, 1)), Errno::EINVAL);
    let port = null(GLOBAL_ID, 10, 256).unwrap();
    let answer = port.answer(&RegisterBody::default());
    assert_eq!((answer.nr_tx_rings, answer.nr_rx_rings), (10, 5));
    assert_eq!((answer.nr_tx_slots, answer.nr_rx_slots), (256, 256));
    // What is sent stays.
    for _ in 0..3 {
        send(&port, 60);
    }
    assert_eq!(receive(&port), []);
    assert_eq!(port.ring(Direction::Tx, 0).unwrap().available(), 252);
    let none = null(GLOBAL_ID, 0, 0).unwrap();
    assert_eq!(none.answer(&RegisterBody::default()).nr_tx_rings, 0);
    none.txsync().unwrap();
    none.rxsync().unwrap();
    // More than the region could ever have.
    assert_eq!(errno(null(GLOBAL_ID, u16::MAX, u32::MAX)), Errno::ENOMEM);
    assert_eq!(errno(null(GLOBAL_ID, 1, u32::MAX)), Errno::ENOMEM);
    // More than any port has, wherever there is room.
    let huge = core.regions().private(&RegionConfig {
        rings: PoolSize {
            size: 32 * page_size(),
            num: 600,
        },
        buffers: PoolSize {
            size: 64,
            num: 20_000,
        },
        interfaces: PoolSize { size: 4096, num: 2 },
    });
    let huge = huge.unwrap();
    assert_eq!(errno(null(huge.id(), 257, 1)), Errno::ENOMEM);
    assert_eq!(errno(null(huge.id(), 2, 4097)), Errno::ENOMEM);
    null(huge.id(), 2, 4096).unwrap();
    drop((port, none, huge));
    assert!(is_empty(&core));
}

#[test]
fn the_ends_of_a_pipe() {
    let core = core();
    let open = |name: &str| core.register(&Request::new(name));
    let master = open("vale0:a{1").unwrap();
    assert_eq!(core.switches.get("vale0").port_count(), 1, "the parent");
    let slave = open("vale0:a}1").unwrap();
    assert!(Arc::ptr_eq(master.region(), slave.region()));
    send(&master, 60);
    send(&master, 61);
    assert_eq!(receive(&slave), [(60, 0), (61, 0)]);
    send(&slave, 62);
    assert_eq!(receive(&master), [(62, 0)]);
    // One end goes and comes back, and finds what was sent meanwhile.
    drop(slave);
    send(&master, 63);
    let slave = open("vale0:a}1").unwrap();
    assert_eq!(receive(&slave), [(63, 0)]);
    // A client of the parent itself is in the same region.
    let parent = open("vale0:a").unwrap();
    assert!(Arc::ptr_eq(master.region(), parent.region()));
    drop((master, parent));
    assert_eq!(core.switches.get("vale0").port_count(), 1);
    drop(slave);
    assert_eq!(core.switches.get("vale0").port_count(), 0);
    assert!(is_empty(&core));
}

#[test]
fn pipes_below_nothing_make_their_parent() {
    let core = core();
    let master = core.register(&Request::new("p{x")).unwrap();
    let slave = core.register(&Request::new("p}x")).unwrap();
    send(&master, 60);
    assert_eq!(receive(&slave), [(60, 0)]);
    assert_eq!(
        core.delete_interface("p").unwrap_err().errno(),
        Errno::EINVAL
    );
    drop((master, slave));
    assert!(is_empty(&core));
    assert_eq!(core.header_len("p{x").unwrap_err().errno(), Errno::ENODEV);
    assert!(is_empty(&core), "looking leaves nothing behind");
}

#[test]
fn pipes_that_cannot_be() {
    let core = core();
    for mode in [
        RingMode::Host,
        RingMode::AllAndHost,
        RingMode::OneHost(0),
        RingMode::Other(0),
    ] {
        let pipe = core.register(&request("vale0:a{1", |r| r.mode = mode));
        assert_eq!(errno(pipe), Errno::EINVAL, "{mode:?}");
    }
    for name in ["{1", "vale0:a{", "vale0:a{x y", "vale0:a{b}c"] {
        assert_eq!(errno(core.register(&Request::new(name))), Errno::EINVAL);
    }
    assert_eq!(errno(core.register(&Request::new("vale{1"))), Errno::ENOMEM);
    let small = |name: &str| {
        core.register(&request(name, |r| {
            r.mem_id = GLOBAL_ID;
            (r.tx_slots, r.rx_slots) = (4, 4);
        }))
    };
    // 64 pipes, of which the region has rings for some at a time: each is
    // held by a client that has bound none of its rings.
    let parent = small("vale0:a").unwrap();
    let mut state = core.state();
    let search = Search {
        make: true,
        region: None,
    };
    let mut held = Vec::new();
    for number in 0..64 {
        let pipe = Request::new(&format!("vale0:a{{{number}"));
        held.push(core.find(&mut state, &pipe, search).unwrap());
    }
    let one_more = core.find(&mut state, &Request::new("vale0:a}64"), search);
    assert_eq!(one_more.unwrap_err().errno(), Errno::EINVAL);
    for adapter in held {
        core.put(&mut state, &adapter);
    }
    drop(state);
    drop(parent);
    assert!(is_empty(&core));
}

#[test]
fn a_pipes_rings_are_what_its_first_user_asks_for() {
    let core = core();
    let master = core
        .register(&request("vale0:a{1", |r| {
            (r.tx_rings, r.rx_rings) = (3, 2);
            (r.tx_slots, r.rx_slots) = (16, 32);
        }))
        .unwrap();
    let slave = core.register(&Request::new("vale0:a}1")).unwrap();
    let answer = |r: &Registration| {
        let a = r.answer(&RegisterBody::default());
        (a.nr_tx_rings, a.nr_rx_rings, a.nr_tx_slots, a.nr_rx_slots)
    };
    assert_eq!(answer(&master), (3, 2, 16, 32));
    assert_eq!(answer(&slave), (2, 3, 32, 16));
    // Without a word the slots are the parent's, which has the bounds of a
    // switch's port.
    let other = core.register(&Request::new("vale0:a{2")).unwrap();
    assert_eq!(answer(&other), (1, 1, 16, 32));
}

#[test]
fn a_refused_registration_leaves_no_rings_in_its_pipe() {
    let core = core();
    let rings = |rx_rings, mode, flags| {
        core.register(&request("vale0:a{1", |r| {
            (r.tx_rings, r.rx_rings, r.mode, r.flags) = (2, rx_rings, mode, flags);
            (r.tx_slots, r.rx_slots) = (8, 8);
        }))
    };
    let only = RingMode::One(1);
    let user = rings(2, only, nmreq::NR_TX_RINGS_ONLY | nmreq::NR_EXCLUSIVE).unwrap();
    let free = user.region().free();
    // The first ring could be had.
    assert_eq!(errno(rings(2, RingMode::All, 0)), Errno::EBUSY);
    assert_eq!(user.region().free(), free);
    drop(user);
    assert!(is_empty(&core));
}

fn monitor(core: &Arc<Netmap>, name: &str, flags: u64) -> Result<Registration, RegisterError> {
    core.register(&request(name, |r| r.flags = flags))
}

#[test]
fn copy_monitors_see_what_is_sent_and_received() {
    let core = core();
    let tx_rx = nmreq::NR_MONITOR_TX | nmreq::NR_MONITOR_RX;
    assert_eq!(errno(monitor(&core, "vale0:a", tx_rx)), Errno::EINVAL);
    let [a, b] = ["vale0:a", "vale0:b"].map(|name| core.register(&Request::new(name)).unwrap());
    let both = monitor(&core, "vale0:a", tx_rx).unwrap();
    let sent = monitor(&core, "vale0:a", nmreq::NR_MONITOR_TX).unwrap();
    assert!(!Arc::ptr_eq(both.region(), a.region()));
    assert_eq!(both.adapter().name(), "vale0:a/rt#0");
    assert_eq!(sent.adapter().name(), "vale0:a/t#1");
    send(&a, 60);
    send(&b, 61);
    assert_eq!(receive(&both), [(60, NS_TXMON), (61, 1 << 8)]);
    assert_eq!(receive(&sent), [(60, NS_TXMON)]);
    assert_eq!(receive(&a), [(61, 1 << 8)]);
    assert_eq!(receive(&b), [(60, 1 << 8)]);
    // Monitors send nothing, and see no more of a port that nobody has.
    assert!(both.txsync().is_err());
    drop(sent);
    drop(a);
    assert!(both.rxsync().is_err());
    let a = core.register(&Request::new("vale0:a")).unwrap();
    send(&a, 62);
    assert!(both.rxsync().is_err(), "for ever");
    drop((a, b, both));
    assert!(is_empty(&core));
}

#[test]
fn zero_copy_monitors_get_the_buffers_afterwards() {
    let core = core();
    let [a, b] = ["vale0:a", "vale0:b"].map(|name| core.register(&Request::new(name)).unwrap());
    let z = monitor(&core, "vale0:a", nmreq::NR_ZCOPY_MON).unwrap();
    let tx_rx = nmreq::NR_MONITOR_TX | nmreq::NR_MONITOR_RX;
    assert_eq!(z.flags(), nmreq::NR_ZCOPY_MON | tx_rx, "told to the client");
    assert!(Arc::ptr_eq(z.region(), a.region()));
    let before = a.ring(Direction::Tx, 0).unwrap().slot(0).unwrap().buf_idx;
    send(&a, 60);
    assert_eq!(receive(&z), [(60, NS_TXMON)]);
    assert_eq!(
        z.ring(Direction::Rx, 0).unwrap().slot(0).unwrap().buf_idx,
        before
    );
    send(&b, 61);
    assert_eq!(receive(&z), []);
    assert_eq!(receive(&a), [(61, 1 << 8)]);
    assert_eq!(receive(&z), [(61, 1 << 8)]);
    let free = a.region().free();
    drop(z);
    assert_eq!(a.region().free()[2], free[2] + 1024 * 2);
    send(&a, 62);
    assert_eq!(receive(&b).len(), 2);
}

#[test]
fn monitors_of_pipes_and_of_rings_that_are_not_there() {
    let core = core();
    let master = core.register(&Request::new("vale0:a{1")).unwrap();
    let slave = core.register(&Request::new("vale0:a}1")).unwrap();
    let seen = monitor(&core, "vale0:a}1", nmreq::NR_MONITOR_RX).unwrap();
    send(&master, 60);
    assert_eq!(receive(&seen), [(60, 0)]);
    assert_eq!(receive(&slave), [(60, 0)]);
    let beyond = core.register(&request("vale0:a}1", |r| {
        (r.mode, r.flags) = (RingMode::One(1), nmreq::NR_MONITOR_RX);
    }));
    assert_eq!(errno(beyond), Errno::EINVAL);
    // A port that only exists has nothing to see.
    assert_eq!(
        errno(monitor(&core, "vale0:a", nmreq::NR_MONITOR_RX)),
        Errno::EINVAL
    );
    drop((master, slave, seen));
    assert!(is_empty(&core));
}

#[test]
fn offsets_as_asked_for() {
    let core = core();
    let open = |name: &str, flags, bits, max, initial| {
        core.register(&request(name, |r| {
            r.flags = flags;
            r.offsets = Some(Offsets {
                nro_offset_bits: bits,
                nro_max_offset: max,
                nro_initial_offset: initial,
                ..Offsets::default()
            });
        }))
    };
    for (bits, max, initial) in [
        (65, 0, 0),
        (0, 2049, 0),
        (4, 16, 0),
        (0, 64, 65),
        (0, u64::MAX, 0),
    ] {
        let refused = open("vale0:a", 0, bits, max, initial);
        assert_eq!(errno(refused), Errno::EINVAL, "{bits} {max} {initial}");
    }
    let a = open("vale0:a", 0, 16, 128, 64).unwrap();
    assert_eq!(a.max_offset(), Some(128));
    let b = core.register(&Request::new("vale0:b")).unwrap();
    let slot = a.ring(Direction::Tx, 0).unwrap().slot(5).unwrap();
    assert_eq!(slot.ptr, 64);
    send(&a, 100);
    assert_eq!(receive(&b), [(100, 1 << 8)]);
    let ring = b.ring(Direction::Rx, 0).unwrap();
    let mut bytes = [0; 4];
    ring.buffer(ring.slot(0).unwrap().buf_idx)
        .unwrap()
        .as_readable()
        .read(&mut bytes);
    assert_eq!(bytes, [0, 1, 2, 3]);
    // And the other way: written where the slot says.
    send(&b, 80);
    a.rxsync().unwrap();
    let ring = a.ring(Direction::Rx, 0).unwrap();
    let buffer = ring.buffer(ring.slot(0).unwrap().buf_idx).unwrap();
    buffer.skip(64).as_readable().read(&mut bytes);
    assert_eq!(bytes, [0, 1, 2, 3]);
    // A second user may have as much or less.
    assert_eq!(
        open("vale0:a", 0, 16, 100, 0).unwrap().max_offset(),
        Some(128)
    );
    for (bits, max) in [(17, 100), (16, 129)] {
        assert_eq!(errno(open("vale0:a", 0, bits, max, 0)), Errno::EBUSY);
    }
    let zero_copy = open("vale0:a", nmreq::NR_ZCOPY_MON, 16, 0, 0);
    assert_eq!(errno(zero_copy), Errno::EOPNOTSUPP);
    // Both ends of a pipe have the same.
    let master = open("vale0:p{1", 0, 8, 32, 16).unwrap();
    let slave = core.register(&Request::new("vale0:p}1")).unwrap();
    send(&master, 70);
    slave.rxsync().unwrap();
    let ring = slave.ring(Direction::Rx, 0).unwrap();
    assert_eq!(ring.offset(ring.slot(0).unwrap()), 16);
}
