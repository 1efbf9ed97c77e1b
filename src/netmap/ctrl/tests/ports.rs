//! Facts, headers, switches and persistent ports.

use super::*;
use crate::netmap::register::Request;

#[test]
fn facts_of_ports_and_of_memory() {
    let mut client = Client::new(&core());
    let mut ask =
        |name: &str, body: PortInfoBody| client.ask(NETMAP_REQ_PORT_INFO_GET, name, &body);
    let wanted = PortInfoBody {
        nr_tx_rings: 3,
        nr_rx_slots: 64,
        ..PortInfoBody::default()
    };
    let told = ask("vale0:a", wanted).unwrap();
    assert_eq!((told.nr_tx_rings, told.nr_rx_rings), (3, 1));
    assert_eq!((told.nr_tx_slots, told.nr_rx_slots), (1024, 64));
    assert!(told.nr_memsize > 0 && told.nr_mem_id > 1);
    let pipe = ask("vale0:a}x", PortInfoBody::default()).unwrap();
    assert_eq!((pipe.nr_tx_rings, pipe.nr_tx_slots), (1, 1024));
    for (name, mem_id, want) in [
        ("eth0", 0, Errno::ENXIO),
        ("vale0:a", 999, Errno::EINVAL),
        ("", 999, Errno::EINVAL),
    ] {
        let body = PortInfoBody {
            nr_mem_id: mem_id,
            ..PortInfoBody::default()
        };
        assert_eq!(ask(name, body), Err(want), "{name}");
    }
    for mem_id in [0, 1] {
        let body = PortInfoBody {
            nr_mem_id: mem_id,
            nr_tx_rings: 7,
            ..PortInfoBody::default()
        };
        let told = ask("", body).unwrap();
        assert_eq!((told.nr_mem_id, told.nr_tx_rings), (1, 7));
        assert!(told.nr_memsize > 163_840 * 2048);
    }
}

#[test]
fn pools_of_ports() {
    let core = core();
    let mut client = Client::new(&core);
    let nothing = PoolsBody::default();
    let mut ask = |name: &str, body: PoolsBody| client.ask(NETMAP_REQ_POOLS_INFO_GET, name, &body);
    let own = ask("vale0:a", nothing).unwrap();
    assert_eq!(own.nr_if_pool_offset, 0);
    assert_eq!(
        (own.nr_if_pool_objtotal, own.nr_if_pool_objsize),
        (12, 1024)
    );
    assert!(own.nr_ring_pool_offset > 0 && own.nr_buf_pool_offset > own.nr_ring_pool_offset);
    let buffers = u64::from(own.nr_buf_pool_objtotal) * u64::from(own.nr_buf_pool_objsize);
    assert_eq!(own.nr_memsize, own.nr_buf_pool_offset + buffers);
    let global = PoolsBody {
        nr_mem_id: 1,
        ..nothing
    };
    let shared = ask("vale0:a", global).unwrap();
    assert_eq!(
        (shared.nr_mem_id, shared.nr_buf_pool_objtotal),
        (1, 163_840)
    );
    assert!(ask("vale0:a{x", nothing).is_ok());
    assert_eq!(ask("", nothing), Err(Errno::ENXIO));
    let nowhere = PoolsBody {
        nr_mem_id: 999,
        ..nothing
    };
    assert_eq!(ask("vale0:a", nowhere), Err(Errno::EINVAL));
    // Before and after a registration.
    let body = client.register("vale0:a").unwrap();
    let pools: PoolsBody = client
        .ask(NETMAP_REQ_POOLS_INFO_GET, "vale0:a", &nothing)
        .unwrap();
    assert_eq!(
        (pools.nr_mem_id, pools.nr_memsize),
        (body.nr_mem_id, body.nr_memsize)
    );
}

#[test]
fn headers_of_ephemeral_ports() {
    let core = core();
    let mut client = Client::new(&core);
    let body = |nr_hdr_len| HeaderBody {
        nr_hdr_len,
        pad1: 0,
    };
    let set = |client: &mut Client, name: &str, len| {
        client
            .ask(NETMAP_REQ_PORT_HDR_SET, name, &body(len))
            .map(|body| body.nr_hdr_len)
    };
    let get = |client: &mut Client, name: &str| {
        client
            .ask(NETMAP_REQ_PORT_HDR_GET, name, &body(99))
            .map(|body| body.nr_hdr_len)
    };
    assert_eq!(set(&mut client, "vale:eph0", 12), Err(Errno::ENXIO));
    assert_eq!(get(&mut client, "vale:eph0"), Err(Errno::ENXIO));
    client.register("vale:eph0").unwrap();
    for len in [12, 0, 10] {
        assert_eq!(set(&mut client, "vale:eph0", len), Ok(len));
        assert_eq!(get(&mut client, "vale:eph0"), Ok(len));
    }
    for len in [1, 11, 13, u32::MAX] {
        assert_eq!(set(&mut client, "vale:eph0", len), Err(Errno::EINVAL));
    }
    assert_eq!(set(&mut client, "eph0", 12), Err(Errno::ENXIO));
    assert_eq!(get(&mut client, "eph0{x"), Err(Errno::ENODEV));
}

#[test]
fn persistent_ports() {
    let mut client = Client::new(&core());
    let body = NewInterfaceBody {
        nr_rx_rings: 99,
        ..NewInterfaceBody::default()
    };
    let made = client.ask(NETMAP_REQ_VALE_NEWIF, "per4", &body).unwrap();
    assert_eq!((made.nr_tx_rings, made.nr_rx_rings), (1, 16));
    assert_eq!((made.nr_tx_slots, made.nr_rx_slots), (1024, 1024));
    assert!(made.nr_mem_id > 1);
    let again = client.ask(NETMAP_REQ_VALE_NEWIF, "per4", &body);
    assert_eq!(again, Err(Errno::EEXIST));
    let attach = AttachBody {
        reg: all(),
        ..AttachBody::default()
    };
    let first = client.ask(NETMAP_REQ_VALE_ATTACH, "vale1x2:per4", &attach);
    assert_eq!(first.unwrap().port_index, 0);
    let second = client.ask(NETMAP_REQ_VALE_ATTACH, "vale1x2:per4", &attach);
    assert_eq!(second, Err(Errno::EBUSY));
    let delete = |client: &mut Client| {
        client
            .ask(NETMAP_REQ_VALE_DELIF, "per4", &[0u8; 0])
            .map(|_| ())
    };
    assert_eq!(delete(&mut client), Err(Errno::EBUSY));
    let detach = |client: &mut Client, name: &str| {
        client
            .ask(NETMAP_REQ_VALE_DETACH, name, &DetachBody::default())
            .map(|_| ())
    };
    assert_eq!(detach(&mut client, "vale1x2:per4"), Ok(()));
    assert_eq!(detach(&mut client, "vale1x2:per4"), Err(Errno::ENXIO));
    assert_eq!(detach(&mut client, "per4"), Err(Errno::EINVAL));
    assert_eq!(delete(&mut client), Ok(()));
    assert_eq!(delete(&mut client), Err(Errno::ENXIO));
}

#[test]
fn lists_by_name_and_by_number() {
    let core = core();
    let mut client = Client::new(&core);
    let ask = |client: &mut Client, name: &str, switch, port| {
        let body = ListBody {
            nr_bridge_idx: switch,
            pad1: 0,
            nr_port_idx: port,
        };
        let body = client.memory.put(&body);
        let mut header = RequestHeader {
            nr_body: body,
            ..header(NETMAP_REQ_VALE_LIST, name)
        };
        client.control.request(&mut header, &mut client.memory)?;
        let told: ListBody = client.memory.get(body);
        let end = header.nr_name.iter().position(|byte| *byte == 0).unwrap();
        let name = String::from_utf8(header.nr_name[..end].to_vec()).unwrap();
        Ok((name, told.nr_bridge_idx, told.nr_port_idx))
    };
    assert_eq!(ask(&mut client, "", 0, 0), Err(Errno::ENOENT));
    assert_eq!(ask(&mut client, "vale0:a", 0, 0), Err(Errno::ENOENT));
    assert_eq!(ask(&mut client, "eth0", 0, 0), Err(Errno::EINVAL));
    client.register("vale0:a").unwrap();
    let mut other = Client::new(&core);
    other.register("valeX:b").unwrap();
    let a = || ("vale0:a".to_owned(), 0, 0);
    let b = || ("valeX:b".to_owned(), 1, 0);
    assert_eq!(ask(&mut client, "", 0, 0), Ok(a()));
    assert_eq!(ask(&mut client, "", 0, 1), Ok(b()));
    assert_eq!(ask(&mut client, "", 1, 1), Err(Errno::ENOENT));
    assert_eq!(ask(&mut client, "", u16::MAX, u32::MAX), Err(Errno::ENOENT));
    assert_eq!(ask(&mut client, "valeX:b", 0, 0), Ok(b()));
    let missing = ("valeX:c".to_owned(), 1, 255);
    assert_eq!(ask(&mut client, "valeX:c", 0, 0), Ok(missing));
}

#[test]
fn polling_is_for_interfaces_of_the_host() {
    let core = core();
    let mut client = Client::new(&core);
    client.register("vale0:a").unwrap();
    core.new_interface(&Request::new("per0")).unwrap();
    core.attach_interface(&Request::new("vale0:per0")).unwrap();
    for reqtype in [
        NETMAP_REQ_VALE_POLLING_ENABLE,
        NETMAP_REQ_VALE_POLLING_DISABLE,
    ] {
        for (name, want) in [
            ("vale0:a", Errno::EOPNOTSUPP),
            ("vale0:per0", Errno::EOPNOTSUPP),
            ("vale0:b", Errno::ENXIO),
            ("vale-0:b", Errno::ENXIO),
            ("per0", Errno::EINVAL),
        ] {
            let answer = client.ask(reqtype, name, &PollingBody::default());
            assert_eq!(answer.map(|_| ()), Err(want), "{name}");
        }
    }
}

#[test]
fn a_region_that_was_told_of_can_be_registered_in() {
    let core = core();
    let mut client = Client::new(&core);
    let told: PortInfoBody = client
        .ask(
            NETMAP_REQ_PORT_INFO_GET,
            "vale0:a",
            &PortInfoBody::default(),
        )
        .unwrap();
    let body = RegisterBody {
        nr_mem_id: told.nr_mem_id,
        ..all()
    };
    let bound = client.ask(NETMAP_REQ_REGISTER, "vale0:a", &body).unwrap();
    assert_eq!(bound.nr_mem_id, told.nr_mem_id);
    // It is gone with whoever was told.
    drop(client);
    let mut other = Client::new(&core);
    let refused = other.ask(NETMAP_REQ_REGISTER, "vale0:b", &body);
    assert_eq!(refused.err(), Some(Errno::EINVAL));
}
