//! Interfaces on a switch, with and without their host side, waited for and
//! polled.

use nix::errno::Errno;
use vtnetd::net::checksum::{pseudo_v4, sum};
use vtnetd::netmap::abi::nmreq::{
    NETMAP_POLLING_MODE_MULTI_CPU, NETMAP_POLLING_MODE_SINGLE_CPU, NR_ACCEPT_VNET_HDR,
};
use vtnetd::netmap::device::PollingRequest;
use vtnetd::netmap::port::{HeaderLen, Port};
use vtnetd::netmap::register::{Request, RingMode};
use vtnetd::virtio::net_header::{F_NEEDS_CSUM, GSO_UDP_L4, NetHeader};

use crate::bed::{Bed, NEVER, SOON, THERE, on_bed};
use crate::client::{BROADCAST, Client, frame};
use crate::rings::{datagrams, request, transfer};

const PORT: &str = "vale7:here0";

fn attach(bed: &Bed, mode: RingMode) -> Result<u8, Errno> {
    let request = Request {
        name: PORT.to_owned(),
        ..request(mode)
    };
    bed.core
        .attach_interface(&request)
        .map_err(|error| error.errno())
}

fn detach(bed: &Bed, name: &str) -> Result<u8, Errno> {
    bed.core
        .detach_interface(name)
        .map_err(|error| error.errno())
}

fn poll(bed: &Bed, request: Option<PollingRequest>) -> Result<(), Errno> {
    bed.core
        .set_polling(PORT, request)
        .map_err(|error| error.errno())
}

fn ports(bed: &Bed) -> Vec<String> {
    let mut names = Vec::new();
    let (mut switch, mut port) = (0, 0);
    while let Some(found) = bed.core.enumerate(switch, port) {
        switch = found.switch;
        port = u32::from(found.port.unwrap()) + 1;
        names.push(found.name);
    }
    names
}

/// Frames pass both ways between a client on the switch and the wire.
fn passes(bed: &Bed, client: &Client) {
    let wire = bed.wire();
    let many: Vec<Vec<u8>> = (0..200).map(|n| frame(9, 8, 60 + 7 * n)).collect();
    client.send(&many);
    // The stacks have their say as well.
    let ours = |frame: &Vec<u8>| frame[12..14] == [0x88, 0xb5];
    for want in &many {
        let mut got = wire.recv(SOON).unwrap().unwrap();
        while !ours(&got) {
            got = wire.recv(SOON).unwrap().unwrap();
        }
        assert_eq!(&got, want);
    }
    let many: Vec<Vec<u8>> = (0..200).map(|n| frame(BROADCAST, 9, 60 + 7 * n)).collect();
    for frame in &many {
        wire.send(frame).unwrap();
    }
    let mut got = Vec::new();
    while got.len() < many.len() {
        client.wait();
        got.extend(client.receive().into_iter().filter(ours));
    }
    assert!(got == many, "other frames came, or in another order");
}

#[test]
fn an_interface_on_a_switch_is_no_longer_the_hosts() {
    on_bed(|bed| {
        let client = Client::new(&bed.core, "vale7:c");
        assert_eq!(attach(bed, RingMode::All), Ok(1));
        assert_eq!(ports(bed), ["vale7:c", PORT]);
        let found = bed.core.look_up(PORT).unwrap().unwrap();
        assert_eq!(found.port, Some(1));
        passes(bed, &client);
        assert!(!bed.reaches(NEVER, || {}), "the host still has it");
        assert_eq!(detach(bed, PORT), Ok(1));
        assert_eq!(detach(bed, PORT), Err(Errno::ENXIO));
        assert_eq!(ports(bed), ["vale7:c"]);
        assert!(bed.is_clean());
        drop(client);
        assert!(bed.switches.all().is_empty());
    });
}

#[test]
fn its_host_side_is_a_port_of_its_own() {
    on_bed(|bed| {
        assert_eq!(attach(bed, RingMode::AllAndHost), Ok(0));
        assert_eq!(ports(bed), [PORT, "vale7:here0^"]);
        assert!(bed.reaches(SOON, || {}), "the switch carries");
        // Segments longer than the MTU go through as they are.
        transfer(bed, std::thread::yield_now);
        datagrams(bed, std::thread::yield_now);
        // A client on the switch hears what is for all.
        let client = Client::new(&bed.core, "vale7:c");
        bed.wire().send(&frame(BROADCAST, 9, 99)).unwrap();
        client.wait();
        assert!(client.receive().contains(&frame(BROADCAST, 9, 99)));
        drop(client);
        assert_eq!(detach(bed, PORT), Ok(0));
        assert!(bed.is_clean());
        assert!(bed.switches.all().is_empty());
    });
}

/// UDP over IPv4 whose payload, `count` times `size` bytes, is to become
/// datagrams, behind a virtio-net header that says so.
fn together(size: u16, count: u16) -> Vec<u8> {
    let (source, target) = ([10, 9, 0, 7], THERE.octets());
    let len = 8 + size * count;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + len).to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    ip.extend([source, target].concat());
    let checksum = sum(&ip).checksum();
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let header = NetHeader {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_UDP_L4,
        hdr_len: 42,
        gso_size: size,
        csum_start: 34,
        csum_offset: 6,
        num_buffers: 0,
    };
    let mut frame = header.to_bytes().to_vec();
    frame.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 8, 0]);
    frame.extend(ip);
    frame.extend([0x0f, 0xa2, 0x0f, 0xa2]);
    frame.extend(len.to_be_bytes());
    let open = pseudo_v4(source.into(), target.into(), 17, len).folded();
    frame.extend(open.to_be_bytes());
    frame.extend((0..size * count).map(|n| (n / size) as u8));
    frame
}

#[test]
fn more_datagrams_than_the_kernel_takes_together_go_one_by_one() {
    on_bed(|bed| {
        attach(bed, RingMode::All).unwrap();
        let client = Request {
            flags: NR_ACCEPT_VNET_HDR,
            ..Request::new("vale7:c")
        };
        let client = Client::with(&bed.core, client);
        client.port.set_header_len(HeaderLen::Full).unwrap();
        let wire = bed.wire();
        for count in [3, 200] {
            client.send(&[together(100, count)]);
            let mut got = 0..count;
            while !got.is_empty() {
                let frame = wire.recv(SOON).unwrap().unwrap();
                // The stacks have their say as well.
                if frame[6..12] != [2, 0, 0, 0, 0, 7] {
                    continue;
                }
                // A cable of veth(4) carries them together if the kernel may.
                for payload in frame[42..].chunks(100) {
                    let nth = got.next().unwrap();
                    assert_eq!(payload, [nth as u8; 100]);
                }
            }
        }
        drop(client);
        assert_eq!(detach(bed, PORT), Ok(0));
    });
}

#[test]
fn polling_in_place_of_interrupts() {
    on_bed(|bed| {
        let processors = std::thread::available_parallelism().unwrap().get() as u32;
        if processors < 2 {
            bed::skipped("polling leaves one processor, and there is one");
            return;
        }
        let single = |first, count| PollingRequest {
            mode: NETMAP_POLLING_MODE_SINGLE_CPU,
            first,
            count,
        };
        let multi = |first, count| PollingRequest {
            mode: NETMAP_POLLING_MODE_MULTI_CPU,
            ..single(first, count)
        };
        let client = Client::new(&bed.core, "vale7:c");
        assert_eq!(poll(bed, Some(single(0, 1))), Err(Errno::ENXIO));
        let other = bed.core.set_polling("vale7:c", Some(single(0, 1)));
        assert_eq!(other.unwrap_err().errno(), Errno::EOPNOTSUPP);
        let other = bed.core.set_polling("here0", Some(single(0, 1)));
        assert_eq!(other.unwrap_err().errno(), Errno::EINVAL);
        attach(bed, RingMode::AllAndHost).unwrap();
        let host = bed.core.set_polling("vale7:here0^", Some(single(0, 1)));
        assert_eq!(host.unwrap_err().errno(), Errno::EOPNOTSUPP);
        assert_eq!(poll(bed, None), Err(Errno::EFAULT));
        for request in [
            single(0, 0),
            single(0, processors),
            single(processors, 1),
            multi(1, 1),
            PollingRequest {
                mode: 0,
                ..single(0, 1)
            },
        ] {
            assert_eq!(poll(bed, Some(request)), Err(Errno::EINVAL), "{request:?}");
        }
        for request in [single(1, 1), multi(0, 1)] {
            assert_eq!(poll(bed, Some(request)), Ok(()));
            assert_eq!(poll(bed, Some(request)), Err(Errno::EFAULT));
            passes(bed, &client);
            assert!(bed.reaches(SOON, || {}));
            assert_eq!(detach(bed, PORT), Err(Errno::EBUSY));
            assert_eq!(poll(bed, None), Ok(()));
            passes(bed, &client);
        }
        assert!(detach(bed, PORT).is_ok());
        assert!(bed.is_clean());
    });
}

#[test]
fn what_is_refused() {
    on_bed(|bed| {
        for mode in [
            RingMode::Host,
            RingMode::One(0),
            RingMode::OneHost(0),
            RingMode::Null,
        ] {
            assert_eq!(attach(bed, mode), Err(Errno::EINVAL), "{mode:?}");
        }
        let with_ring = Request {
            name: PORT.to_owned(),
            ring: 1,
            ..request(RingMode::All)
        };
        let refused = bed.core.attach_interface(&with_ring);
        assert_eq!(refused.unwrap_err().errno(), Errno::EINVAL);
        for name in ["vale7:lo", "vale7:here1", "here0"] {
            let refused = bed.core.attach_interface(&Request::new(name));
            assert_eq!(refused.unwrap_err().errno(), Errno::EINVAL, "{name}");
        }
        let client = Client::with(&bed.core, request(RingMode::Host));
        assert_eq!(attach(bed, RingMode::All), Err(Errno::EBUSY));
        drop(client);
        attach(bed, RingMode::AllAndHost).unwrap();
        assert_eq!(attach(bed, RingMode::All), Err(Errno::EBUSY));
        for name in ["here0", PORT, "vale7:here0^"] {
            let refused = bed.core.register(&Request::new(name));
            assert_eq!(refused.err().unwrap().errno(), Errno::EBUSY, "{name}");
        }
        assert_eq!(detach(bed, "vale7:here0^"), Err(Errno::EBUSY));
        assert_eq!(detach(bed, "here0"), Err(Errno::EINVAL));
        let elsewhere = bed.core.attach_interface(&Request::new("vale8:here0"));
        assert_eq!(elsewhere.unwrap_err().errno(), Errno::EBUSY);
        assert!(detach(bed, PORT).is_ok());
        assert!(bed.is_clean());
        assert!(bed.switches.all().is_empty());
    });
}
