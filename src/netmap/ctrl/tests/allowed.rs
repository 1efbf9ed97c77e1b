//! What clients may do, and how much they may have.

use super::*;
use crate::net::frame::Batch;
use crate::netmap::attachment::{Attachment, Delivered};
use crate::netmap::authority::{Account, Authority, Grant, Limits, Resource, Rights};

/// A client of user `uid` with these rights, each on a switch or everywhere.
fn client(core: &Arc<Netmap>, uid: u32, grants: &[(Rights, Option<&str>)]) -> Client {
    on(
        core,
        &Arc::new(Account::new(uid, Limits::default())),
        grants,
    )
}

fn on(core: &Arc<Netmap>, account: &Arc<Account>, grants: &[(Rights, Option<&str>)]) -> Client {
    let grants = grants.iter().map(|(rights, switch)| Grant {
        rights: *rights,
        switch: switch.map(str::to_owned),
    });
    let authority = Authority::client(Arc::clone(account), false, grants.collect());
    Client {
        control: Control::of(Arc::clone(core), authority),
        ..Client::new(core)
    }
}

const ON_0: [(Rights, Option<&str>); 1] = [(Rights::ATTACH, Some("vale0"))];

fn monitor(client: &mut Client, name: &str, flags: u64) -> Result<RegisterBody, Errno> {
    let body = RegisterBody {
        nr_flags: flags,
        ..all()
    };
    client.ask(NETMAP_REQ_REGISTER, name, &body)
}

#[test]
fn a_port_takes_a_right_on_its_switch() {
    let core = core();
    let mut one = client(&core, 7, &ON_0);
    for name in ["vale1:a", "vale1:a{1", "vale1:a}1"] {
        assert_eq!(one.register(name), Err(Errno::EACCES), "{name}");
        let info = one.ask(NETMAP_REQ_PORT_INFO_GET, name, &PortInfoBody::default());
        assert_eq!(info, Err(Errno::EACCES), "{name}");
        let info = one.ask(NETMAP_REQ_POOLS_INFO_GET, name, &PoolsBody::default());
        assert_eq!(info, Err(Errno::EACCES), "{name}");
    }
    let get = one.ask(NETMAP_REQ_PORT_HDR_GET, "vale1:a", &HeaderBody::default());
    assert_eq!(get, Err(Errno::EACCES));
    one.register("vale0:a").unwrap();
    assert_eq!(core.enumerate(0, 0).unwrap().name, "vale0:a");
    assert_eq!(core.enumerate(1, 0), None);
    // Without a switch nobody is disturbed.
    let mut other = client(&core, 8, &[]);
    other.register("pipe{1").unwrap();
}

#[test]
fn memory_is_one_users() {
    let core = core();
    let mut one = client(&core, 7, &ON_0);
    let body = one.register("vale0:a").unwrap();
    let by_id = RegisterBody {
        nr_mem_id: body.nr_mem_id,
        ..all()
    };
    let null = RegisterBody {
        nr_mode: NR_REG_NULL,
        nr_tx_rings: 1,
        nr_rx_rings: 1,
        ..by_id
    };
    let global = RegisterBody {
        nr_mem_id: 1,
        ..all()
    };
    let attempts = [
        ("vale0:a", all()),
        ("vale0:a{1", all()),
        ("vale0:a}1", all()),
        ("vale0:b", by_id),
        ("x", null),
    ];
    for (name, body) in attempts {
        let refused = client(&core, 8, &ON_0).ask(NETMAP_REQ_REGISTER, name, &body);
        assert_eq!(refused.err(), Some(Errno::EACCES), "{name}");
        let shares = (Rights::SHARE.with(Rights::ATTACH), None);
        let may = client(&core, 8, &[shares]).ask(NETMAP_REQ_REGISTER, name, &body);
        assert_ne!(may.err(), Some(Errno::EACCES), "{name}");
        let own = client(&core, 7, &ON_0).ask(NETMAP_REQ_REGISTER, name, &body);
        assert_ne!(own.err(), Some(Errno::EACCES), "{name}");
    }
    let refused = client(&core, 7, &ON_0).ask(NETMAP_REQ_REGISTER, "vale0:g", &global);
    assert_eq!(refused.err(), Some(Errno::EACCES), "nobody's own");
    let mut names = Vec::new();
    while let Some(found) = core.enumerate(0, u32::try_from(names.len()).unwrap()) {
        names.push(found.name);
    }
    assert_eq!(names, ["vale0:a"], "nothing is left behind");
}

struct Guest;

impl Attachment for Guest {
    fn offloads(&self) -> u64 {
        0
    }

    fn deliver(&self, _: usize, _: &Batch<'_>, _: &[u16]) -> Delivered {
        Delivered::default()
    }
}

#[test]
fn who_sees_the_frames_of_others() {
    let switches = Arc::new(Switches::default());
    let core = Netmap::new(Arc::clone(&switches), RegionConfig::global());
    let core = Arc::new(core);
    let both = NR_MONITOR_TX | NR_MONITOR_RX;
    let mut one = client(&core, 7, &ON_0);
    one.register("vale0:a").unwrap();
    let mut other = client(&core, 8, &ON_0);
    assert_eq!(monitor(&mut other, "vale0:a", both), Err(Errno::EACCES));
    let mut own = client(&core, 7, &ON_0);
    monitor(&mut own, "vale0:a", both).unwrap();
    let rights = [(Rights::MONITOR, Some("vale0"))];
    let mut sees = client(&core, 8, &rights);
    let zero = monitor(&mut sees, "vale0:a", both | NR_ZCOPY_MON);
    assert_eq!(zero, Err(Errno::EACCES), "that is the port's memory");
    monitor(&mut sees, "vale0:a", both).unwrap();
    // A guest's port.
    let switch = switches.get("vale0");
    switch.attach("guest", None, Arc::new(Guest)).unwrap();
    let mut other = client(&core, 8, &ON_0);
    assert_eq!(monitor(&mut other, "vale0:guest", both), Err(Errno::EACCES));
    let mut sees = client(&core, 8, &rights);
    monitor(&mut sees, "vale0:guest", both).unwrap();
}

#[test]
fn persistent_ports_are_their_makers() {
    let core = core();
    let create = [(Rights::CREATE, Some("vale0"))];
    let new = NewInterfaceBody::default();
    let attach = AttachBody {
        reg: all(),
        ..AttachBody::default()
    };
    let mut none = client(&core, 8, &ON_0);
    let refused = none.ask(NETMAP_REQ_VALE_NEWIF, "per0", &new);
    assert_eq!(refused.err(), Some(Errno::EACCES));
    let mut maker = client(&core, 7, &create);
    maker.ask(NETMAP_REQ_VALE_NEWIF, "per0", &new).unwrap();
    let mut owner = client(&core, 9, &ON_0);
    let own = owner.register("vale0:own").unwrap();
    let on_others = NewInterfaceBody {
        nr_mem_id: own.nr_mem_id,
        ..new
    };
    let refused = maker.ask(NETMAP_REQ_VALE_NEWIF, "per1", &on_others);
    assert_eq!(refused.err(), Some(Errno::EACCES));
    let elsewhere = maker.ask(NETMAP_REQ_VALE_ATTACH, "vale1:per0", &attach);
    assert_eq!(elsewhere.err(), Some(Errno::EACCES));
    maker
        .ask(NETMAP_REQ_VALE_ATTACH, "vale0:per0", &attach)
        .unwrap();
    let mut other = client(&core, 8, &[create[0], ON_0[0]]);
    let header = HeaderBody {
        nr_hdr_len: 12,
        ..HeaderBody::default()
    };
    let set = other.ask(NETMAP_REQ_PORT_HDR_SET, "vale0:per0", &header);
    assert_eq!(set.err(), Some(Errno::EACCES));
    let detach = other.ask(NETMAP_REQ_VALE_DETACH, "vale0:per0", &DetachBody::default());
    assert_eq!(detach.err(), Some(Errno::EACCES));
    maker
        .ask(NETMAP_REQ_VALE_DETACH, "vale0:per0", &DetachBody::default())
        .unwrap();
    let attached = other.ask(NETMAP_REQ_VALE_ATTACH, "vale0:per0", &attach);
    assert_eq!(attached.err(), Some(Errno::EACCES));
    let deleted = other.ask(NETMAP_REQ_VALE_DELIF, "per0", &[0u8; 0]);
    assert_eq!(deleted, Err(Errno::EACCES));
    maker.ask(NETMAP_REQ_VALE_DELIF, "per0", &[0u8; 0]).unwrap();
}

#[test]
fn a_user_has_no_more_than_it_may_have() {
    let core = core();
    let limits = Limits {
        ports: 2,
        memory: 100 << 20,
        ..Limits::default()
    };
    let account = Arc::new(Account::new(7, limits));
    let new = || on(&core, &account, &ON_0);
    let (mut one, mut two, mut three) = (new(), new(), new());
    one.register("vale0:1").unwrap();
    assert!(account.has(Resource::Memory) > 1 << 20);
    two.register("vale0:2").unwrap();
    assert_eq!(three.register("vale0:3"), Err(Errno::ENOMEM), "ports");
    drop(two);
    assert_eq!(account.has(Resource::Ports), 1);
    let large = RegisterBody {
        nr_extra_bufs: 40_000,
        ..all()
    };
    let refused = three.ask(NETMAP_REQ_REGISTER, "vale0:3", &large);
    assert_eq!(refused.err(), Some(Errno::ENOMEM), "memory");
    three.register("vale0:3").unwrap();
    drop((one, three));
    assert_eq!(account.has(Resource::Memory), 0);
    assert_eq!(account.has(Resource::Ports), 0);
}
