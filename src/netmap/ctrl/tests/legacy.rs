//! The older interface.

use super::*;
use crate::netmap::abi::legacy::*;

fn old(name: &str) -> LegacyRequest {
    let mut request = LegacyRequest {
        nr_version: 11,
        ..LegacyRequest::default()
    };
    request.nr_name[..name.len()].copy_from_slice(name.as_bytes());
    request
}

fn ask(client: &mut Client, command: u64, request: LegacyRequest) -> Result<LegacyRequest, Errno> {
    let at = client.memory.put(&request);
    client.control.ioctl(command, at, &mut client.memory)?;
    Ok(client.memory.get(at))
}

#[test]
fn registrations() {
    let core = core();
    for (version, flags, ringid) in [
        (11, 0, 0),
        (11, 0, NETMAP_HW_RING),
        (14, NR_REG_ALL_NIC, 0),
        (16, NR_REG_ONE_NIC, NETMAP_NO_TX_POLL | NETMAP_DO_RX_POLL),
    ] {
        let mut client = Client::new(&core);
        let request = LegacyRequest {
            nr_version: version,
            nr_flags: flags,
            nr_ringid: ringid,
            nr_arg3: 20,
            ..old("vale0:a")
        };
        let told = ask(&mut client, NIOCREGIF, request).unwrap();
        assert_eq!((told.nr_ringid, told.nr_flags), (ringid, flags));
        assert_eq!((told.nr_tx_rings, told.nr_rx_slots), (1, 1024));
        assert!(told.nr_memsize > 0 && told.nr_arg2 > 1);
        assert_eq!(told.nr_arg3, 20, "extra buffers");
        let poll = client.control.registration().unwrap().flags();
        let asked = ringid & NETMAP_NO_TX_POLL != 0;
        assert_eq!(poll & NR_NO_TX_POLL != 0, asked);
        assert_eq!(poll & NR_DO_RX_POLL != 0, asked);
        assert_eq!(
            ask(&mut client, NIOCREGIF, old("vale0:b")),
            Err(Errno::EBUSY)
        );
    }
    let mut client = Client::new(&core);
    for (request, want) in [
        (
            LegacyRequest {
                nr_version: 10,
                ..old("vale0:a")
            },
            Errno::EINVAL,
        ),
        (
            LegacyRequest {
                nr_flags: NR_REG_SW,
                ..old("vale0:a")
            },
            Errno::EINVAL,
        ),
        (
            LegacyRequest {
                nr_ringid: NETMAP_SW_RING,
                ..old("vale0:a")
            },
            Errno::EINVAL,
        ),
        (
            LegacyRequest {
                nr_flags: NR_REG_ONE_NIC,
                nr_ringid: 3,
                ..old("vale0:a")
            },
            Errno::EINVAL,
        ),
        (
            LegacyRequest {
                nr_cmd: 3,
                ..old("vale0:a")
            },
            Errno::EINVAL,
        ),
        (
            LegacyRequest {
                nr_cmd: 99,
                ..old("vale0:a")
            },
            Errno::EINVAL,
        ),
        (
            LegacyRequest {
                nr_cmd: NETMAP_PT_HOST_CREATE,
                ..old("vale0:a")
            },
            Errno::ENOMEM,
        ),
        (
            LegacyRequest {
                nr_name: [0xff; 16],
                ..old("")
            },
            Errno::EINVAL,
        ),
        (old("eth0"), Errno::ENXIO),
    ] {
        assert_eq!(
            ask(&mut client, NIOCREGIF, request),
            Err(want),
            "{request:?}"
        );
    }
}

#[test]
fn pipes_have_their_number_in_the_name() {
    let core = core();
    for (flags, name) in [
        (NR_REG_PIPE_MASTER, "valeX1:Y4{7"),
        (NR_REG_PIPE_SLAVE, "valeX1:Y4}7"),
    ] {
        let mut client = Client::new(&core);
        let request = LegacyRequest {
            nr_flags: flags,
            nr_ringid: 7,
            nr_arg3: 58,
            ..old("valeX1:Y4")
        };
        assert_eq!(ask(&mut client, NIOCREGIF, request).unwrap().nr_arg3, 58);
        assert_eq!(
            client.control.registration().unwrap().adapter().name(),
            name
        );
    }
}

#[test]
fn information_and_lists() {
    let core = core();
    let mut client = Client::new(&core);
    let told = ask(&mut client, NIOCGINFO, old("vale0:a")).unwrap();
    assert_eq!((told.nr_tx_rings, told.nr_tx_slots), (1, 1024));
    assert!(told.nr_memsize > 0 && told.nr_arg2 > 1);
    assert_eq!(ask(&mut client, NIOCGINFO, old("eth0")), Err(Errno::ENXIO));
    let list = |name: &str, nr_arg1| LegacyRequest {
        nr_cmd: NETMAP_BDG_LIST,
        nr_arg1,
        ..old(name)
    };
    assert_eq!(ask(&mut client, NIOCGINFO, list("", 0)), Err(Errno::ENOENT));
    client.register("vale0:port").unwrap();
    let told = ask(&mut client, NIOCGINFO, list("", 0)).unwrap();
    assert_eq!(&told.nr_name[..11], b"vale0:port\0");
    assert_eq!((told.nr_arg1, told.nr_arg2), (0, 0));
    let told = ask(&mut client, NIOCGINFO, list("vale0:none", 5)).unwrap();
    assert_eq!((told.nr_arg1, told.nr_arg2), (0, 255));
}

#[test]
fn commands() {
    let core = core();
    let mut client = Client::new(&core);
    let mut command = |nr_cmd, name: &str, nr_arg1| {
        let request = LegacyRequest {
            nr_cmd,
            nr_arg1,
            ..old(name)
        };
        ask(&mut client, NIOCREGIF, request)
    };
    let made = command(NETMAP_BDG_NEWIF, "per0", 0).unwrap();
    assert_eq!((made.nr_tx_rings, made.nr_rx_slots), (1, 1024));
    assert!(made.nr_arg2 > 1);
    assert!(command(NETMAP_BDG_ATTACH, "vale0:per0", NETMAP_BDG_HOST).is_ok());
    command(NETMAP_BDG_VNET_HDR, "vale0:per0", 12).unwrap();
    assert_eq!(
        command(NETMAP_VNET_HDR_GET, "vale0:per0", 0)
            .unwrap()
            .nr_arg1,
        12
    );
    let off = command(NETMAP_BDG_POLLING_OFF, "vale0:per0", 1);
    assert_eq!(off, Err(Errno::EOPNOTSUPP));
    let on = command(NETMAP_BDG_POLLING_ON, "vale0:x", 1);
    assert_eq!(on, Err(Errno::ENXIO));
    assert!(command(NETMAP_BDG_DETACH, "vale0:per0", 0).is_ok());
    assert!(command(NETMAP_BDG_DELIF, "per0", 0).is_ok());
    assert_eq!(command(NETMAP_BDG_DELIF, "per0", 0), Err(Errno::ENXIO));
}
