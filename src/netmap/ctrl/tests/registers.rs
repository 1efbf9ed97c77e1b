//! Binding, and what a bound descriptor does.

use super::*;
use crate::netmap::port::Port;

#[test]
fn a_descriptor_binds_once() {
    let core = core();
    let mut client = Client::new(&core);
    assert_eq!(client.control.sync(Direction::Tx), Err(Errno::ENXIO));
    assert_eq!(client.control.sync(Direction::Rx), Err(Errno::ENXIO));
    assert_eq!(
        client.control.poll(PollFlags::POLLIN, true),
        PollFlags::POLLERR
    );
    let body = client.register("vale0:a").unwrap();
    assert_eq!((body.nr_tx_rings, body.nr_rx_rings), (1, 1));
    assert_eq!((body.nr_tx_slots, body.nr_rx_slots), (1024, 1024));
    assert_eq!((body.nr_host_tx_rings, body.nr_host_rx_rings), (0, 0));
    assert!(body.nr_mem_id > 1 && body.nr_memsize > 0);
    assert_eq!(body.nr_mode, NR_REG_ALL_NIC);
    assert_eq!(client.register("vale0:b"), Err(Errno::EBUSY));
    assert_eq!(client.control.ioctl(NIOCTXSYNC, 0, &mut NoMemory), Ok(()));
    assert_eq!(client.control.ioctl(NIOCRXSYNC, 0, &mut NoMemory), Ok(()));
    let ready = client
        .control
        .poll(PollFlags::POLLOUT | PollFlags::POLLIN, true);
    assert_eq!(ready, PollFlags::POLLOUT);
    drop(client);
    assert!(
        core.facts(&crate::netmap::register::Request::new("vale0:a"))
            .is_ok()
    );
}

#[test]
fn modes_and_their_errors() {
    let core = core();
    let try_mode = |name: &str, nr_mode, nr_ringid, nr_flags, nr_mem_id| {
        let body = RegisterBody {
            nr_mode,
            nr_ringid,
            nr_flags,
            nr_mem_id,
            ..RegisterBody::default()
        };
        let mut client = Client::new(&core);
        client.ask(NETMAP_REQ_REGISTER, name, &body).err()
    };
    let a = "vale0:a";
    for (name, mode, ring, flags, mem_id, want) in [
        (a, NR_REG_ALL_NIC, 0, 0, 0, None),
        (a, NR_REG_ONE_NIC, 0, 0, 0, None),
        (a, NR_REG_ONE_NIC, 1, 0, 0, Some(Errno::EINVAL)),
        (a, NR_REG_DEFAULT, 0, 0, 0, Some(Errno::EINVAL)),
        (a, NR_REG_SW, 0, 0, 0, Some(Errno::EINVAL)),
        (a, NR_REG_NIC_SW, 0, 0, 0, Some(Errno::EINVAL)),
        (a, NR_REG_ONE_SW, 0, 0, 0, Some(Errno::EINVAL)),
        (a, NR_REG_PIPE_MASTER, 0, 0, 0, Some(Errno::EINVAL)),
        (a, NR_REG_PIPE_SLAVE, 0, 0, 0, Some(Errno::EINVAL)),
        (a, 9, 0, 0, 0, Some(Errno::EINVAL)),
        (a, NR_REG_ALL_NIC, 0, 0, 1, None),
        (a, NR_REG_ALL_NIC, 0, 0, 999, Some(Errno::EINVAL)),
        (a, NR_REG_ALL_NIC, 0, NR_TX_RINGS_ONLY, 0, None),
        (
            a,
            NR_REG_ALL_NIC,
            0,
            NR_RX_RINGS_ONLY | NR_EXCLUSIVE,
            0,
            None,
        ),
        (a, NR_REG_ALL_NIC, 0, NR_MONITOR_TX, 0, Some(Errno::EINVAL)),
        (a, NR_REG_NULL, 0, 0, 0, Some(Errno::EINVAL)),
        (a, NR_REG_NULL, 0, 0, 1, None),
        ("vale0:a{x", NR_REG_NIC_SW, 0, 0, 0, Some(Errno::EINVAL)),
        ("vale0:a{x", NR_REG_ALL_NIC, 0, 0, 0, None),
        ("per0{x", NR_REG_ALL_NIC, 0, 0, 0, None),
        ("eth0", NR_REG_ALL_NIC, 0, 0, 0, Some(Errno::ENXIO)),
        ("", NR_REG_ALL_NIC, 0, 0, 0, Some(Errno::ENXIO)),
        ("vale0", NR_REG_ALL_NIC, 0, 0, 0, Some(Errno::ENOMEM)),
        ("vale-1:a", NR_REG_ALL_NIC, 0, 0, 0, Some(Errno::ENOMEM)),
    ] {
        assert_eq!(
            try_mode(name, mode, ring, flags, mem_id),
            want,
            "{name} {mode}"
        );
    }
    assert_eq!(core.enumerate(0, 0), None, "nothing stays");
}

#[test]
fn exclusive_rings_and_headers() {
    let core = core();
    let (mut first, mut second) = (Client::new(&core), Client::new(&core));
    let exclusive = RegisterBody {
        nr_flags: NR_EXCLUSIVE,
        ..all()
    };
    first
        .ask(NETMAP_REQ_REGISTER, "vale0:a", &exclusive)
        .unwrap();
    assert_eq!(second.register("vale0:a"), Err(Errno::EBUSY));
    second.register("vale0:b").unwrap();
    let registration = second.control.registration().unwrap();
    registration.set_header_len(HEADER).unwrap();
    let mut third = Client::new(&core);
    assert_eq!(third.register("vale0:b"), Err(Errno::EIO));
    let accepts = RegisterBody {
        nr_flags: NR_ACCEPT_VNET_HDR,
        ..all()
    };
    third.ask(NETMAP_REQ_REGISTER, "vale0:b", &accepts).unwrap();
}

const HEADER: crate::netmap::port::HeaderLen = crate::netmap::port::HeaderLen::Full;

#[test]
fn versions_reserved_fields_and_bodies() {
    let core = core();
    let mut client = Client::new(&core);
    let body = client.memory.put(&PortInfoBody::default());
    let mut ask = |change: &dyn Fn(&mut RequestHeader)| {
        // The last answer is no question.
        let nothing = PortInfoBody::default();
        client.memory.copy_out(body, nothing.as_bytes()).unwrap();
        let mut header = RequestHeader {
            nr_body: body,
            ..header(NETMAP_REQ_PORT_INFO_GET, "vale0:a")
        };
        change(&mut header);
        client
            .control
            .request(&mut header, &mut client.memory)
            .err()
    };
    for (version, want) in [
        (0, Some(Errno::EINVAL)),
        (13, Some(Errno::EINVAL)),
        (14, None),
        (15, None),
        (16, Some(Errno::EINVAL)),
    ] {
        assert_eq!(ask(&|h| h.nr_version = version), want, "{version}");
    }
    assert_eq!(ask(&|h| h.nr_reserved = 1), Some(Errno::EINVAL));
    assert_eq!(ask(&|h| h.nr_body = 0), Some(Errno::EINVAL));
    assert_eq!(ask(&|h| h.nr_body = 8), Some(Errno::EFAULT));
    assert_eq!(ask(&|h| h.nr_body = u64::MAX), Some(Errno::EFAULT));
    assert_eq!(ask(&|h| h.nr_options = 8), Some(Errno::EFAULT));
    assert_eq!(ask(&|h| h.nr_name = [0xff; 64]), Some(Errno::EINVAL));
    for reqtype in [0, 16, u16::MAX] {
        for at in [0, body] {
            let refused = ask(&|h| (h.nr_reqtype, h.nr_body) = (reqtype, at));
            assert_eq!(refused, Some(Errno::EINVAL), "{reqtype}");
        }
    }
    // A body where there should be none.
    let extra = ask(&|h| h.nr_reqtype = NETMAP_REQ_VALE_DELIF);
    assert_eq!(extra, Some(Errno::EINVAL));
    // A name without an end ends before its last byte.
    let mut long = header(
        NETMAP_REQ_PORT_INFO_GET,
        &format!("vale0:{}", "x".repeat(58)),
    );
    long.nr_body = client.memory.put(&PortInfoBody::default());
    assert_eq!(
        client.control.request(&mut long, &mut client.memory),
        Ok(())
    );
    assert_eq!(long.nr_name[63], 0);
}

#[test]
fn commands_that_are_none() {
    let mut client = Client::new(&core());
    for (command, want) in [
        (0, Errno::EOPNOTSUPP),
        (u64::MAX, Errno::EOPNOTSUPP),
        (NIOCCONFIG, Errno::EINVAL),
    ] {
        let answer = client.control.ioctl(command, BASE, &mut client.memory);
        assert_eq!(answer, Err(want), "{command:#x}");
    }
    for command in [NIOCCTRL, NIOCREGIF, NIOCGINFO, NIOCCONFIG] {
        let answer = client.control.ioctl(command, 0, &mut client.memory);
        assert_eq!(answer, Err(Errno::EFAULT), "{command:#x}");
    }
}
