//! Tests of registration: names, modes, and that everything comes back.

use super::*;
use crate::net::frame::Batch;
use crate::netmap::abi;
use crate::netmap::attachment::{Attachment, Delivered};
use crate::netmap::mem::{GLOBAL_ID, MemError};
use crate::netmap::rings::BindError;

fn core() -> Arc<Netmap> {
    Arc::new(Netmap::new(
        Arc::new(Switches::default()),
        RegionConfig::global(),
    ))
}

/// No port is left.
fn is_empty(core: &Netmap) -> bool {
    let state = core.state();
    state.ports.is_empty() && state.attached.is_empty()
}

fn request(name: &str, change: impl FnOnce(&mut Request)) -> Request {
    let mut request = Request::new(name);
    change(&mut request);
    request
}

#[test]
fn port_strings_of_netmap_programs() {
    for (text, want) in [
        ("vale0:a", request("vale0:a", |_| {})),
        ("netmap:eth0", request("eth0", |_| {})),
        (
            "netmap:eth0-3",
            request("eth0", |r| r.mode = RingMode::One(3)),
        ),
        ("netmap:eth0^", request("eth0", |r| r.mode = RingMode::Host)),
        (
            "netmap:eth0^2",
            request("eth0", |r| r.mode = RingMode::OneHost(2)),
        ),
        (
            "netmap:eth0*",
            request("eth0", |r| r.mode = RingMode::AllAndHost),
        ),
        (
            "vale0:a-0/xR@5",
            request("vale0:a", |r| {
                r.mode = RingMode::One(0);
                r.flags = nmreq::NR_EXCLUSIVE | nmreq::NR_RX_RINGS_ONLY;
                r.mem_id = 5;
            }),
        ),
        (
            "netmap:eth0/ztrT",
            request("eth0", |r| {
                r.flags = nmreq::NR_ZCOPY_MON
                    | nmreq::NR_MONITOR_TX
                    | nmreq::NR_MONITOR_RX
                    | nmreq::NR_TX_RINGS_ONLY;
            }),
        ),
        ("netmap:eth0{4", request("eth0{4", |_| {})),
        (
            "vale0:a}x@65535",
            request("vale0:a}x", |r| r.mem_id = u16::MAX),
        ),
    ] {
        assert_eq!(parse_port_string(text), Ok(want), "{text}");
    }
    for text in [
        "",
        "eth0",
        "tap:eth0",
        "netmap:",
        "netmapx:eth0",
        "netmap:eth0-",
        "netmap:eth0-4095",
        "netmap:eth0-65536",
        "netmap:eth0-x",
        "netmap:eth0^4095",
        "netmap:eth0*3",
        "netmap:eth0/",
        "netmap:eth0/@1",
        "netmap:eth0/q",
        "netmap:eth0@",
        "netmap:eth0@0",
        "netmap:eth0@+1",
        "netmap:eth0@65536",
        "netmap:eth0@1/R",
        "netmap:eth0-1-2",
        "netmap:eth0{",
        "vale0:-1",
    ] {
        let error = parse_port_string(text).unwrap_err();
        assert!(matches!(error, RegisterError::Name(_)), "{text}: {error}");
    }
}

#[test]
fn sizes_within_the_kernels_bounds() {
    let core = core();
    let answer = |name: &str, rings, slots, extra| {
        let request = request(name, |r| {
            (r.tx_rings, r.rx_rings) = (rings, rings);
            (r.tx_slots, r.rx_slots) = (slots, slots);
            r.extra_bufs = extra;
        });
        let registration = core.register(&request).unwrap();
        let body = registration.answer(&RegisterBody::default());
        assert_eq!(
            (body.nr_tx_rings, body.nr_tx_slots),
            (body.nr_rx_rings, body.nr_rx_slots)
        );
        assert_eq!(body.nr_memsize, registration.region().bytes());
        (body.nr_tx_rings, body.nr_tx_slots, body.nr_extra_bufs)
    };
    assert_eq!(answer("vale0:a", 0, 0, 0), (1, 1024, 0));
    assert_eq!(answer("vale0:a", 3, 100, 50), (3, 100, 50));
    assert_eq!(answer("vale0:a", 16, 4096, 0), (16, 4096, 0));
    assert_eq!(answer("vale0:a", 17, 4097, 0), (16, 4096, 0));
    assert_eq!(answer("vale0:a", 1, 1, 0), (1, 1, 0));
}

#[test]
fn every_mode_binds_its_rings_or_says_why_not() {
    let core = core();
    let rings = |mode, flags| {
        let request = request("vale0:a", |r| {
            (r.tx_rings, r.rx_rings) = (4, 2);
            (r.mode, r.flags) = (mode, flags);
        });
        core.register(&request).map(|registration| {
            [Direction::Tx, Direction::Rx].map(|direction| {
                (0..registration.ring_count(direction))
                    .map(|at| registration.kring(direction, at).unwrap().name().to_owned())
                    .collect::<Vec<_>>()
                    .join(" ")
                    .replace("vale0:a ", "")
            })
        })
    };
    let ok = |tx: &str, rx: &str| Ok([tx.to_owned(), rx.to_owned()]);
    assert_eq!(rings(RingMode::All, 0), ok("TX0 TX1 TX2 TX3", "RX0 RX1"));
    assert_eq!(rings(RingMode::One(1), 0), ok("TX1", "RX1"));
    assert_eq!(rings(RingMode::One(3), 0), ok("TX3", "RX0"));
    assert_eq!(
        rings(RingMode::One(3), nmreq::NR_TX_RINGS_ONLY),
        ok("TX3", "")
    );
    assert_eq!(
        rings(RingMode::All, nmreq::NR_RX_RINGS_ONLY),
        ok("", "RX0 RX1")
    );
    for mode in [RingMode::One(4), RingMode::One(u16::MAX)] {
        assert!(matches!(
            rings(mode, 0),
            Err(RegisterError::NoSuchRing { .. })
        ));
    }
    for mode in [RingMode::Host, RingMode::AllAndHost, RingMode::OneHost(0)] {
        assert!(matches!(rings(mode, 0), Err(RegisterError::NoHostRings(_))));
    }
    for mode in [0, 9, u32::MAX] {
        let refused = rings(RingMode::Other(mode), 0);
        assert!(matches!(refused, Err(RegisterError::Mode { .. })));
    }
    // Whatever was refused has left nothing behind.
    assert!(is_empty(&core));
    assert_eq!(core.switches.get("vale0").port_count(), 0);
}

#[test]
fn modes_of_the_control_interface() {
    let from = |nr_mode| {
        let body = RegisterBody {
            nr_mode,
            nr_ringid: 3,
            nr_tx_slots: 1,
            nr_rx_slots: 2,
            nr_tx_rings: 3,
            nr_rx_rings: 4,
            nr_mem_id: 5,
            nr_extra_bufs: 6,
            nr_flags: 7,
            ..RegisterBody::default()
        };
        Request::from_body("vale0:a", &body)
    };
    for (nr_mode, mode) in [
        (0, RingMode::Other(0)),
        (1, RingMode::All),
        (2, RingMode::Host),
        (3, RingMode::AllAndHost),
        (4, RingMode::One(3)),
        (5, RingMode::Other(5)),
        (7, RingMode::Null),
        (8, RingMode::OneHost(3)),
        (u32::MAX, RingMode::Other(u32::MAX)),
    ] {
        let want = Request {
            mode,
            ring: 3,
            flags: 7,
            tx_rings: 3,
            rx_rings: 4,
            tx_slots: 1,
            rx_slots: 2,
            host_tx_rings: 0,
            host_rx_rings: 0,
            mem_id: 5,
            extra_bufs: 6,
            ..Request::new("vale0:a")
        };
        assert_eq!(from(nr_mode), want);
    }
}

#[test]
fn a_port_is_shared_and_goes_with_its_last_user() {
    let core = core();
    let switch = core.switches.get("vale0");
    let first = core.register(&Request::new("vale0:a")).unwrap();
    let second = core.register(&Request::new("vale0:a")).unwrap();
    assert!(Arc::ptr_eq(first.adapter(), second.adapter()));
    assert_eq!(switch.port_count(), 1);
    let id = first.region().id();
    drop(first);
    assert_eq!(switch.port_count(), 1);
    assert!(core.regions().find(id).is_ok());
    let alone = request("vale0:a", |r| r.flags = nmreq::NR_EXCLUSIVE);
    assert!(matches!(
        core.register(&alone).map(|_| ()),
        Err(RegisterError::Bind {
            error: BindError::Busy { .. },
            ..
        })
    ));
    drop(second);
    assert_eq!(switch.port_count(), 0);
    assert_eq!(
        core.regions().find(id).unwrap_err(),
        MemError::NoSuchRegion(id)
    );
    let alone = core.register(&alone).unwrap();
    assert!(core.register(&Request::new("vale0:a")).is_err());
    drop(alone);
    assert!(core.register(&Request::new("vale0:a")).is_ok());
}

#[test]
fn the_region_is_chosen_by_id() {
    let core = core();
    let with = |name: &str, mem_id| {
        core.register(&request(name, |r| {
            r.mem_id = mem_id;
            (r.tx_slots, r.rx_slots) = (64, 64);
        }))
    };
    let a = with("vale0:a", GLOBAL_ID).unwrap();
    let b = with("vale0:b", GLOBAL_ID).unwrap();
    assert!(Arc::ptr_eq(a.region(), b.region()));
    let own = with("vale0:c", 0).unwrap();
    let id = own.region().id();
    assert!(id > GLOBAL_ID);
    let shared = with("vale0:d", id).unwrap();
    assert!(Arc::ptr_eq(own.region(), shared.region()));
    // A port that is there stays where it is.
    for other in [id, GLOBAL_ID] {
        assert_eq!(with("vale0:c", other).unwrap().region().id(), id);
    }
    assert!(matches!(
        with("vale0:e", 999).map(|_| ()),
        Err(RegisterError::Memory {
            error: MemError::NoSuchRegion(999),
            ..
        })
    ));
}

#[test]
fn a_client_that_knows_no_header_gets_no_port_that_has_one() {
    let core = core();
    let accept = request("vale0:a", |r| r.flags = nmreq::NR_ACCEPT_VNET_HDR);
    let first = core.register(&accept).unwrap();
    first.set_header_len(HeaderLen::Full).unwrap();
    assert_eq!(first.header_len().unwrap(), HeaderLen::Full);
    assert!(matches!(
        core.register(&Request::new("vale0:a")).map(|_| ()),
        Err(RegisterError::VnetHeader(_))
    ));
    assert!(core.register(&accept).is_ok());
}

#[test]
fn registrations_give_everything_back_ten_thousand_times() {
    let core = core();
    let region = core.regions().find(GLOBAL_ID).unwrap();
    let before = region.free();
    let switch = core.switches.get("vale0");
    let descriptors = || std::fs::read_dir("/dev/fd").unwrap().count();
    let open = descriptors();
    for round in 0..10_000u32 {
        let request = request("vale0:a", |r| {
            r.mem_id = GLOBAL_ID;
            (r.tx_rings, r.rx_rings) = (2, 1);
            (r.tx_slots, r.rx_slots) = (16, 32);
            r.extra_bufs = 3;
        });
        let registration = core.register(&request).unwrap();
        let [interfaces, rings, buffers] = region.free();
        assert_eq!(interfaces, before[0] - 1);
        assert_eq!((rings, buffers), (before[1] - 3, before[2] - 67));
        // Now and then the client leaves nonsense behind.
        if round % 100 == 0 {
            let view = registration.ring(Direction::Tx, 0).unwrap();
            for at in 0..16 {
                let slot = abi::Slot {
                    buf_idx: round.wrapping_mul(at),
                    ..abi::Slot::default()
                };
                view.set_slot(at, slot);
            }
        }
        drop(registration);
        assert_eq!(region.free(), before);
        assert_eq!(switch.port_count(), 0);
    }
    // Other tests of this process open some hundreds of their own meanwhile.
    assert!(descriptors() < open + 5_000);
    assert!(is_empty(&core));
}

/// What takes a port's name without being a ring port.
struct Elsewhere;

impl Attachment for Elsewhere {
    fn offloads(&self) -> u64 {
        0
    }

    fn deliver(&self, _: usize, _: &Batch<'_>, _: &[u16]) -> Delivered {
        Delivered::default()
    }
}

#[test]
fn a_guests_port_is_not_a_clients() {
    let core = core();
    let switch = core.switches.get("vale0");
    switch.attach("vm1", None, Arc::new(Elsewhere)).unwrap();
    assert!(matches!(
        core.register(&Request::new("vale0:vm1")).map(|_| ()),
        Err(RegisterError::Switch(_))
    ));
    assert!(is_empty(&core));
    assert!(core.register(&Request::new("vale0:vm2")).is_ok());
}

mod joins;
mod kinds;
mod persistent;
mod polling;
