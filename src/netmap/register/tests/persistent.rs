//! Persistent ports, and what is on which switch.

use nix::errno::Errno;

use super::*;

fn errno<T>(result: Result<T, RegisterError>) -> Option<Errno> {
    result.err().map(|error| error.errno())
}

fn new(core: &Netmap, name: &str) -> Option<Errno> {
    let made = core.new_interface(&Request::new(name));
    errno(made)
}

#[test]
fn persistent_ports_come_and_go() {
    let core = core();
    let facts = core
        .new_interface(&request("per0", |r| (r.tx_rings, r.tx_slots) = (2, 64)))
        .unwrap();
    assert_eq!((facts.shape.tx_rings, facts.shape.tx_slots), (2, 64));
    assert_eq!((facts.shape.rx_rings, facts.shape.rx_slots), (1, 1024));
    assert_eq!(new(&core, "per0"), Some(Errno::EEXIST));
    for bad in ["vale0:a", "valet", "", "i234567890123456", "a{1"] {
        assert_eq!(new(&core, bad), Some(Errno::EINVAL), "{bad}");
    }
    let nowhere = core.new_interface(&request("per1", |r| r.mem_id = 77));
    assert_eq!(errno(nowhere), Some(Errno::EINVAL));
    // It can be bound without a switch: what it sends goes nowhere.
    let client = core.register(&Request::new("per0")).unwrap();
    client.txsync().unwrap();
    assert_eq!(errno(core.delete_interface("per0")), Some(Errno::EBUSY));
    drop(client);
    assert_eq!(errno(core.delete_interface("per0")), None);
    assert_eq!(errno(core.delete_interface("per0")), Some(Errno::ENXIO));
    assert_eq!(errno(core.delete_interface("vale0:a")), Some(Errno::ENXIO));
    assert!(is_empty(&core));
}

#[test]
fn persistent_ports_are_attached_and_detached() {
    let core = core();
    assert_eq!(new(&core, "per0"), None);
    let attach = |name: &str| core.attach_interface(&Request::new(name));
    assert_eq!(attach("vale0:per0").unwrap(), 0);
    let other = core.register(&Request::new("vale0:x")).unwrap();
    let switch = core.switches.get("vale0");
    assert_eq!(switch.port_count(), 2);
    // One port by two names.
    let by_name = core.register(&Request::new("per0")).unwrap();
    let by_place = core.register(&Request::new("vale0:per0")).unwrap();
    assert!(Arc::ptr_eq(by_name.adapter(), by_place.adapter()));
    for (name, why) in [
        ("vale0:per0", Errno::EBUSY),
        ("vale1:per0", Errno::EBUSY),
        ("vale0:x", Errno::EBUSY),
        ("vale0:y", Errno::EINVAL),
        ("per0", Errno::EINVAL),
        ("vale-0:per0", Errno::ENOMEM),
    ] {
        assert_eq!(errno(attach(name)), Some(why), "{name}");
    }
    let nowhere = core.attach_interface(&request("vale1:per0", |r| r.mem_id = 77));
    assert_eq!(errno(nowhere), Some(Errno::EINVAL));
    assert_eq!(errno(core.delete_interface("per0")), Some(Errno::EBUSY));
    for (name, why) in [
        ("vale0:x", Errno::EBUSY),
        ("vale0:y", Errno::ENXIO),
        ("vale1:per0", Errno::ENXIO),
        ("per0", Errno::EINVAL),
    ] {
        assert_eq!(errno(core.detach_interface(name)), Some(why), "{name}");
    }
    assert_eq!(core.detach_interface("vale0:per0").unwrap(), 0);
    assert_eq!(switch.port_count(), 1);
    assert_eq!(
        errno(core.register(&Request::new("vale0:per0"))),
        Some(Errno::EINVAL)
    );
    drop((by_name, by_place));
    assert_eq!(attach("vale1:per0").unwrap(), 0);
    drop(core.register(&Request::new("vale1:per0")).unwrap());
    assert_eq!(core.detach_interface("vale1:per0").unwrap(), 0);
    assert_eq!(errno(core.delete_interface("per0")), None);
    drop(other);
    assert!(is_empty(&core));
}

#[test]
fn ports_are_found_and_counted_through() {
    let core = core();
    assert_eq!(core.enumerate(0, 0), None);
    let clients =
        ["vale0:a", "vale0:b", "vale1:c"].map(|name| core.register(&Request::new(name)).unwrap());
    let [_, b, _] = &clients;
    let mut all = Vec::new();
    let (mut switch, mut port) = (0, 0);
    while let Some(found) = core.enumerate(switch, port) {
        (switch, port) = (found.switch, u32::from(found.port.unwrap()) + 1);
        all.push((found.switch, found.port.unwrap(), found.name));
    }
    let name = |name: &str| name.to_owned();
    let want = [
        (0, 0, name("vale0:a")),
        (0, 1, name("vale0:b")),
        (1, 0, name("vale1:c")),
    ];
    assert_eq!(all, want);
    assert_eq!(core.enumerate(usize::MAX, u32::MAX), None);
    let look = |name| {
        core.look_up(name)
            .map(|found| found.map(|f| (f.switch, f.port)))
    };
    assert_eq!(look("vale1:c"), Ok(Some((1, Some(0)))));
    assert_eq!(look("vale1:a"), Ok(Some((1, None))));
    assert_eq!(look("vale2:a"), Ok(None));
    assert_eq!(look("vale0"), Ok(None));
    assert!(look("eth0").is_err());
    assert_eq!(b.adapter().name(), "vale0:b");
    drop(clients);
    // Switches without ports are gone.
    assert_eq!(core.switches.all().len(), 0);
}

#[test]
fn headers_of_ports() {
    let core = core();
    let accept = request("vale0:a", |r| r.flags = nmreq::NR_ACCEPT_VNET_HDR);
    let client = core.register(&accept).unwrap();
    for len in [HeaderLen::Full, HeaderLen::Legacy, HeaderLen::None] {
        core.set_header_len("vale0:a", len).unwrap();
        assert_eq!(core.header_len("vale0:a"), Ok(len));
        assert_eq!(client.header_len().unwrap(), len);
    }
    for name in ["vale0:b", "per0", "vale-0:a", "eth0", ""] {
        assert_eq!(errno(core.header_len(name)), Some(Errno::ENXIO), "{name}");
        let set = core.set_header_len(name, HeaderLen::Full);
        assert_eq!(errno(set), Some(Errno::ENXIO), "{name}");
    }
    core.set_header_len("vale0:a", HeaderLen::Full).unwrap();
    assert_eq!(
        errno(core.register(&Request::new("vale0:a"))),
        Some(Errno::EIO)
    );
}

#[test]
fn facts_leave_nothing_behind() {
    let core = core();
    let facts = core.facts(&request("vale0:a", |r| r.tx_rings = 3)).unwrap();
    assert_eq!(facts.shape.tx_rings, 3);
    assert_eq!(
        core.facts(&Request::new("vale0:a}x"))
            .unwrap()
            .shape
            .rx_rings,
        1
    );
    for (name, why) in [
        ("eth9", Errno::ENXIO),
        ("", Errno::ENXIO),
        ("vale0", Errno::ENOMEM),
        ("eth9{", Errno::EINVAL),
    ] {
        assert_eq!(errno(core.facts(&Request::new(name))), Some(why), "{name}");
    }
    assert!(is_empty(&core));
    assert_eq!(core.switches.all().len(), 0);
}

#[test]
fn a_port_keeps_what_its_clients_have_counted() {
    let core = core();
    assert_eq!(new(&core, "per0"), None);
    core.attach_interface(&Request::new("vale0:per0")).unwrap();
    let short = || {
        let switch = core.switches.get("vale0");
        switch.statistics()[0].causes.short
    };
    for round in 1..3 {
        let client = core.register(&Request::new("per0")).unwrap();
        let view = client.ring(Direction::Tx, 0).unwrap();
        let slot = abi::Slot {
            len: 1,
            ..view.slot(0).unwrap()
        };
        view.set_slot(0, slot);
        view.set_cur(1);
        view.set_head(1);
        client.txsync().unwrap();
        assert_eq!(short(), round);
        drop(client);
        assert_eq!(short(), round);
    }
}
