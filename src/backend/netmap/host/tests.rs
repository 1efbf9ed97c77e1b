//! Tests of what the kernel is asked for.

use super::*;

fn registered(tx: u16, rx: u16, host: u16) -> Registered {
    Registered {
        offset: 0,
        memory: 0,
        tx_rings: tx,
        rx_rings: rx,
        host_tx_rings: host,
        host_rx_rings: host,
    }
}

/// The rings that are asked for one by one, with those left out of one
/// direction.
fn each(name: &str, registered: &Registered) -> Vec<(RingMode, u64)> {
    let request = request(name, 4).unwrap();
    let requests = each_ring(&request, registered);
    let asked = requests.iter().map(|request| (request.mode, request.flags));
    asked.collect()
}

#[test]
fn each_ring_has_a_descriptor_of_its_own() {
    use RingMode::{One, OneHost};
    const RX: u64 = nmreq::NR_RX_RINGS_ONLY;
    const TX: u64 = nmreq::NR_TX_RINGS_ONLY;
    let two = registered(2, 2, 1);
    for (name, registered, want) in [
        ("netmap:em0", two, vec![(One(0), 0), (One(1), 0)]),
        (
            "netmap:em0*",
            two,
            vec![(One(0), 0), (One(1), 0), (OneHost(0), 0)],
        ),
        ("netmap:em0^", two, vec![(OneHost(0), 0)]),
        ("netmap:em0-1", two, vec![]),
        ("netmap:em0^0", two, vec![]),
        ("netmap:em0/R", two, vec![(One(0), RX), (One(1), RX)]),
        ("netmap:em0/T", two, vec![(One(0), TX), (One(1), TX)]),
        ("netmap:em0/x", two, vec![]),
        // More in one direction: never the first one again.
        (
            "netmap:em0",
            registered(1, 2, 1),
            vec![(One(0), 0), (One(1), RX)],
        ),
        (
            "netmap:em0",
            registered(2, 1, 1),
            vec![(One(0), 0), (One(1), TX)],
        ),
        ("netmap:em0/R", registered(2, 1, 1), vec![(One(0), RX)]),
        ("netmap:em0{1", registered(1, 1, 0), vec![(One(0), 0)]),
        ("vale0:a", two, vec![]),
    ] {
        assert_eq!(each(name, &registered), want, "{name}");
    }
}

#[test]
fn rings_of_a_port_of_a_switch_are_its_own() {
    use RingMode::One;
    const OWN: u64 = nmreq::NR_EXCLUSIVE;
    const RX: u64 = nmreq::NR_RX_RINGS_ONLY | OWN;
    const TX: u64 = nmreq::NR_TX_RINGS_ONLY | OWN;
    let request = request("vale0:a", 2).unwrap();
    assert_eq!(request.flags, OWN);
    for (tx, rx, want) in [
        (1, 1, vec![]),
        (2, 2, vec![(One(1), OWN)]),
        (1, 2, vec![(One(1), RX)]),
        (3, 1, vec![(One(1), TX), (One(2), TX)]),
    ] {
        let others = other_rings(&request, &registered(tx, rx, 1));
        let asked = others.iter().map(|other| (other.mode, other.flags));
        assert_eq!(asked.collect::<Vec<_>>(), want, "{tx}, {rx}");
    }
}

#[test]
fn a_port_of_a_switch_gets_a_ring_for_each_pair() {
    let asked = request("vale0:a", 4).unwrap();
    assert_eq!((asked.tx_rings, asked.rx_rings), (4, 4));
    // An interface has what it has.
    let asked = request("netmap:em0", 4).unwrap();
    assert_eq!((asked.tx_rings, asked.rx_rings), (0, 0));
    for bad in ["netmap:", "netmap:em0-x", "vale0", "vale0:0123456789abcdef"] {
        assert!(request(bad, 1).is_err(), "{bad}");
    }
}

#[test]
fn what_is_packed_is_unpacked_and_nothing_else_is() {
    let facts = Facts {
        memory: 1 << 30,
        tx_rings: 3,
        rx_rings: 5,
        mtu: 1500,
        header_len: 12,
    };
    let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let mut opened = facts.pack("netmap:em0");
    opened.fds = vec![file(), file()];
    opened.numbers.extend([4096, 8192]);
    let (unpacked, rings) = Facts::unpack(opened).unwrap();
    assert_eq!(unpacked, facts);
    let places: Vec<_> = rings.iter().map(|(_, place)| *place).collect();
    let place = |offset| Place {
        offset,
        tx_rings: 3,
        rx_rings: 5,
    };
    assert_eq!(places, [4096, 8192].map(place));

    let mut short = facts.pack("netmap:em0");
    short.fds = vec![file(), file()];
    short.numbers.push(4096);
    assert!(Facts::unpack(short).is_none());
    assert!(Facts::unpack(facts.pack("netmap:em0")).is_none());
    assert!(Facts::unpack(Opened::default()).is_none());
}
