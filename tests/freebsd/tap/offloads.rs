//! Who finishes what a guest, or the kernel, has left unfinished.

use std::net::UdpSocket;

use bed::freebsd::{Bpf, Interface, module, run};
use bed::{Result, Test};
use nix::sys::socket::{setsockopt, sockopt};
use vtnetd::driver::net::{NetOptions, OFFLOADS};
use vtnetd::virtio::net_header::{
    F_NEEDS_CSUM, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, NetHeader,
};
use vtnetd::virtio::spec::net;

use super::peer::{Connection, address, configure};
use super::served;
use crate::drive::SOON;
use crate::frames::{GUEST, Ip, TCP, UDP, noise, open, reassemble};

const MTU: usize = 1500;

pub fn tests() -> Vec<Test> {
    let mut tests = vec![Test::new(
        "tap::what_a_guest_leaves_undone_is_done_beyond_a_bridge",
        beyond_a_bridge,
    )];
    for (name, body) in [
        (
            "the_host_takes_finished_frames",
            to_host as fn(&str, bool) -> Result<()>,
        ),
        ("the_host_sends_what_the_guest_takes", to_guest),
    ] {
        for (backend, local) in [
            ("tap70", false),
            ("tap70,offload=local", true),
            ("vmnet70", false),
            ("vmnet70,offload=local", true),
        ] {
            let how = if local { "_local" } else { "" };
            let kind = backend.split(char::is_numeric).next().unwrap_or_default();
            tests.push(Test::new(format!("{kind}::{name}{how}"), move || {
                body(backend, local)
            }));
        }
    }
    tests.push(Test::new(
        "tap::unfinished_frames_are_finished_for_a_guest_that_takes_none",
        forced,
    ));
    tests
}

/// A sender that leaves everything to others: IP version, protocol, kind of
/// segments, bytes of payload.
const CASES: [(Ip, u8, u8, usize); 11] = [
    (Ip::V4, TCP, 0, 1000),
    (Ip::V6, TCP, 0, 1001),
    (Ip::V4, UDP, 0, 999),
    (Ip::V6, UDP, 0, 1),
    (Ip::V4, TCP, GSO_TCPV4, 1461),
    (Ip::V4, TCP, GSO_TCPV4, 65000),
    (Ip::V6, TCP, GSO_TCPV6, 1441),
    (Ip::V6, TCP, GSO_TCPV6, 64001),
    (Ip::V4, UDP, GSO_UDP, 60000),
    (Ip::V4, UDP, GSO_UDP_L4, 60000),
    (Ip::V6, UDP, GSO_UDP_L4, 60001),
];

fn make(case: (Ip, u8, u8, usize)) -> (NetHeader, Vec<u8>, Vec<u8>) {
    let (ip, protocol, gso_type, len) = case;
    let payload: Vec<u8> = noise(u32::try_from(len).unwrap()).take(len).collect();
    let (mut header, frame) = open(ip, protocol, 1, &payload);
    if gso_type != 0 {
        let transport = match gso_type {
            GSO_UDP => 0,
            GSO_UDP_L4 => 8,
            _ => 20,
        };
        header.gso_type = gso_type;
        // A fragment's payload is a multiple of 8.
        header.gso_size = u16::try_from((MTU - ip.header() - transport) & !7).unwrap();
    }
    (header, frame, payload)
}

fn options(more: u64) -> NetOptions {
    let mut options = NetOptions {
        max_frame: 65600,
        ..NetOptions::default()
    };
    options.negotiation.features |= more;
    options
}

/// The next frame of the guest's that is seen.
fn seen(bpf: &mut Bpf) -> Vec<u8> {
    loop {
        let frame = bpf.recv(SOON).unwrap().expect("a frame of the guest's");
        if frame[6..12] == GUEST {
            return frame;
        }
    }
}

fn beyond_a_bridge() -> Result<()> {
    module("if_epair")?;
    let mut served = served(&["tap70"], MTU)?;
    let (near, far) = Interface::epair()?;
    let _bridge = Interface::bridge(&["tap70", near.name()])?;
    let mut beyond = Bpf::new(&far)?;
    let mut guest = served.drive(0, &options(OFFLOADS))?;
    for case in CASES {
        let (header, frame, payload) = make(case);
        guest.pair(0).tx.send_with(header, &frame).unwrap();
        let got = reassemble(payload.len(), MTU, || seen(&mut beyond));
        assert!(got == payload, "{case:?}");
    }
    let counters = served.vtnetd.counters()?;
    assert_eq!(counters.sum("tap70 tx", "frames"), CASES.len() as u64);
    assert_eq!(counters.sum("tap70 tx", "dropped"), 0);
    Ok(())
}

/// TCP and UDP reach sockets of the host. What is written to the interface is
/// finished, or not at all when that is enough.
fn to_host(backend: &str, local: bool) -> Result<()> {
    let served = served(&[backend], MTU)?;
    let name = super::interface(backend);
    configure(name)?;
    let mut wire = Bpf::new(name)?;
    let mut guest = served.drive(0, &options(OFFLOADS))?;
    for ip in [Ip::V4, Ip::V6] {
        let mut connection = Connection::open(&mut guest, ip);
        connection.send_to_host(60000);
        let mut longest = 0;
        while let Some(frame) = wire.recv(std::time::Duration::ZERO)? {
            longest = longest.max(frame.len());
        }
        assert_eq!(longest > 60000, local, "{longest} bytes");
        assert!(local || longest <= MTU + 14, "{longest} bytes");
    }
    for (ip, gso_type, len) in [
        (Ip::V4, 0, 1400),
        (Ip::V6, 0, 1400),
        // As many fragments as the host takes (net.inet.ip.maxfragsperpacket).
        (Ip::V4, GSO_UDP, 16 * 1480 - 8),
    ] {
        let socket = UdpSocket::bind(address(ip))?;
        setsockopt(&socket, sockopt::RcvBuf, &(128 << 10)).unwrap();
        socket.set_read_timeout(Some(SOON))?;
        let (header, frame, payload) = make((ip, UDP, gso_type, len));
        guest.pair(0).tx.send_with(header, &frame).unwrap();
        let mut got = vec![0; 65536];
        let count = socket.recv(&mut got)?;
        assert!(got[..count] == payload, "{ip:?} {len}");
    }
    // What is several datagrams the host must not take for one.
    for ip in [Ip::V4, Ip::V6] {
        let socket = UdpSocket::bind(address(ip))?;
        setsockopt(&socket, sockopt::RcvBuf, &(128 << 10)).unwrap();
        socket.set_read_timeout(Some(SOON))?;
        let (header, frame, payload) = make((ip, UDP, GSO_UDP_L4, 20000));
        guest.pair(0).tx.send_with(header, &frame).unwrap();
        for want in payload.chunks(header.gso_size.into()) {
            let mut got = vec![0; 65536];
            let count = socket.recv(&mut got)?;
            assert!(got[..count] == *want, "{ip:?}: {count} bytes");
        }
    }
    Ok(())
}

/// The kernel leaves open what the guest takes, and nothing else.
fn to_guest(backend: &str, _local: bool) -> Result<()> {
    let served = served(&[backend], MTU)?;
    configure(super::interface(backend))?;
    let sent = net::F_CSUM | net::F_HOST_TSO4 | net::F_HOST_TSO6;
    let all = sent | net::F_GUEST_CSUM | net::F_GUEST_TSO4 | net::F_GUEST_TSO6;
    for taken in [sent, sent | net::F_GUEST_CSUM, all, sent, all] {
        let mut guest = served.drive(0, &options(taken))?;
        for (ip, gso_type) in [(Ip::V4, GSO_TCPV4), (Ip::V6, GSO_TCPV6)] {
            let mut connection = Connection::open(&mut guest, ip);
            let headers = connection.receive_from_host(20000);
            let open = |(header, _): &(NetHeader, usize)| header.flags & F_NEEDS_CSUM != 0;
            let wants_open = taken & net::F_GUEST_CSUM != 0;
            assert!(
                headers.iter().all(|got| open(got) == wants_open),
                "{headers:?}"
            );
            let long = headers
                .iter()
                .any(|(header, _)| header.gso_type == gso_type);
            assert_eq!(long, taken == all, "{headers:?}");
            let fit = headers.iter().all(|(_, len)| *len <= MTU + 14);
            assert!(long || fit, "{headers:?}");
        }
    }
    Ok(())
}

/// Somebody has switched the capabilities on behind our back.
fn forced() -> Result<()> {
    let served = served(&["tap70"], MTU)?;
    configure("tap70")?;
    let sent = net::F_CSUM | net::F_HOST_TSO4 | net::F_HOST_TSO6;
    let mut guest = served.drive(0, &options(sent))?;
    run("ifconfig tap70 txcsum txcsum6 tso4 tso6")?;
    for ip in [Ip::V4, Ip::V6] {
        let mut connection = Connection::open(&mut guest, ip);
        for (header, len) in connection.receive_from_host(20000) {
            assert_eq!((header.flags, header.gso_type), (0, 0));
            assert!(len <= MTU + 14, "{len} bytes");
        }
    }
    Ok(())
}
