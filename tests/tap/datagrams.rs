//! UDP segmentation between sockets of the kernel and a guest (Linux 6.2 and
//! later; what older ones do not know is done for them in any case).

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;

use nix::sys::socket::{setsockopt, sockopt};
use vtnetd::driver::net::{NetDriver, NetOptions, OFFLOADS, Received};
use vtnetd::virtio::net_header::{F_NEEDS_CSUM, GSO_UDP_L4, NetHeader};
use vtnetd::virtio::spec::net;

use crate::bed::Bed;
use crate::frames::{GUEST, Ip, Packet, UDP, noise, open};
use crate::host::{LONG, SHORT, cuts_datagrams, in_namespace, run};

const MTU: usize = 1500;
const HOST: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Payload bytes of each datagram.
const SIZE: usize = 1200;

/// A tap with addresses of both IP versions, whose neighbour is the guest.
fn bed() -> Bed {
    let bed = Bed::new("tap0", 1);
    let guest = GUEST.map(|octet| format!("{octet:02x}")).join(":");
    let host = HOST.map(|octet| format!("{octet:02x}")).join(":");
    run(&format!("ip link set tap0 address {host}"));
    // New interfaces may be without.
    std::fs::write("/proc/sys/net/ipv6/conf/tap0/disable_ipv6", "0").unwrap();
    for (own, neighbour) in [("10.0.0.1/24", "10.0.0.2"), ("fd00::1/64", "fd00::2")] {
        let nodad = if own.contains(':') { " nodad" } else { "" };
        run(&format!("ip address add {own} dev tap0{nodad}"));
        run(&format!(
            "ip neighbour replace {neighbour} lladdr {guest} dev tap0 nud permanent"
        ));
    }
    bed
}

fn socket(ip: Ip) -> UdpSocket {
    let address = match ip {
        Ip::V4 => "10.0.0.1:4444",
        Ip::V6 => "[fd00::1]:4444",
    };
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &(4 << 20)).unwrap();
    socket
}

fn options() -> NetOptions {
    NetOptions {
        max_frame: 65600,
        ..NetOptions::default()
    }
}

fn payload(len: usize) -> Vec<u8> {
    noise(len as u32).take(len).collect()
}

/// Sends datagrams of `SIZE` bytes to the guest in one go.
fn send_to_guest(ip: Ip, payload: &[u8]) {
    let to = match ip {
        Ip::V4 => "10.0.0.2:5555",
        Ip::V6 => "[fd00::2]:5555",
    };
    let socket = socket(ip);
    setsockopt(
        &socket.as_fd(),
        sockopt::UdpGsoSegment,
        &i32::try_from(SIZE).unwrap(),
    )
    .unwrap();
    assert_eq!(socket.send_to(payload, to).unwrap(), payload.len());
}

/// The next frame of UDP to the guest's port.
fn next(guest: &mut NetDriver) -> Received {
    loop {
        let got = guest.pair(0).rx.recv(LONG).unwrap().expect("no frame");
        let (protocol, transport) = match got.frame[12..14] {
            [8, 0] => (got.frame[23], 34),
            [0x86, 0xdd] => (got.frame[20], 54),
            _ => continue,
        };
        let port = got.frame.get(transport + 2..transport + 4);
        if protocol == UDP && port == Some(&5555_u16.to_be_bytes()) {
            return got;
        }
    }
}

/// Whether the kernel hands over datagrams together.
fn keeps_together() -> bool {
    let mut command = Command::new("ethtool");
    let output = command.args(["-k", "tap0"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let state = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("tx-udp-segmentation: "));
    state.is_some_and(|state| state.starts_with("on"))
}

/// Whether what a socket sends in one go comes to the guest so, or else one by
/// one and complete.
fn comes(guest: &mut NetDriver, ip: Ip, together: bool) {
    let together = together && cuts_datagrams();
    let sent = payload(20 * SIZE + 7);
    assert_eq!(keeps_together(), together);
    send_to_guest(ip, &sent);
    if together {
        let got = next(guest);
        let packet = Packet::parse(&got.frame, 65535);
        assert_eq!(packet.payload(), sent);
        assert_eq!(
            (got.header.flags, got.header.gso_type),
            (F_NEEDS_CSUM, GSO_UDP_L4)
        );
        assert_eq!(usize::from(got.header.gso_size), SIZE);
        let start = 14 + ip.header() as u16;
        assert_eq!((got.header.csum_start, got.header.csum_offset), (start, 6));
        return;
    }
    for want in sent.chunks(SIZE) {
        let got = next(guest);
        let packet = Packet::parse(&got.frame, MTU);
        assert_eq!(packet.payload(), want);
        assert_eq!(got.header.gso_type, 0);
        if got.header.flags & F_NEEDS_CSUM == 0 {
            packet.check();
        }
    }
}

#[test]
fn what_a_socket_sends_in_one_go_comes_so_to_a_guest_that_takes_it() {
    in_namespace(|| {
        let bed = bed();
        assert!(!keeps_together(), "nobody has asked for it");
        let tso = net::F_GUEST_CSUM | net::F_GUEST_TSO4 | net::F_GUEST_TSO6;
        for (features, together) in [
            (tso | net::GUEST_USO, true),
            (tso, false),
            // The kernel knows only both.
            (tso | net::F_GUEST_USO4, false),
            (tso | net::F_GUEST_USO6, false),
            (0, false),
            (net::F_GUEST_CSUM | net::GUEST_USO, true),
        ] {
            let mut guest = bed.guest(features, options());
            for ip in [Ip::V4, Ip::V6] {
                comes(&mut guest, ip, together);
            }
        }
        assert_eq!(bed.rx(0).bad_header.get(), 0);
    });
}

#[test]
fn a_guest_that_no_longer_takes_datagrams_together_gets_each() {
    in_namespace(|| {
        let bed = bed();
        let control = net::F_CTRL_VQ | net::F_CTRL_GUEST_OFFLOADS;
        let mut guest = bed.guest(OFFLOADS | control, options());
        for (offloads, together) in [
            (net::GUEST_OFFLOADS, true),
            (net::GUEST_OFFLOADS & !net::F_GUEST_USO6, false),
            (net::GUEST_OFFLOADS & !net::GUEST_USO, false),
            (net::GUEST_OFFLOADS, true),
        ] {
            let control = guest.control().expect("a control queue");
            control.set_offloads(offloads).unwrap();
            comes(&mut guest, Ip::V4, together);
            comes(&mut guest, Ip::V6, together);
        }
    });
}

/// A frame of the guest's with `count` datagrams of `size` bytes, the last of
/// them a byte shorter.
fn send_from_guest(guest: &mut NetDriver, ip: Ip, size: usize, count: usize) -> Vec<u8> {
    let payload = payload(size * count - 1);
    let (header, mut frame) = open(ip, UDP, 5555, &payload);
    frame[..6].copy_from_slice(&HOST);
    let header = NetHeader {
        gso_type: GSO_UDP_L4,
        gso_size: size as u16,
        ..header
    };
    guest.pair(0).tx.send_with(header, &frame).unwrap();
    payload
}

#[test]
fn what_a_guest_sends_in_one_go_comes_to_a_socket_as_datagrams() {
    in_namespace(|| {
        let bed = bed();
        let mut guest = bed.guest(OFFLOADS, options());
        for ip in [Ip::V4, Ip::V6] {
            let socket = socket(ip);
            // More datagrams than a kernel takes in one frame, too.
            for (size, count) in [(1200, 2), (1472, 40), (1000, 65), (500, 128), (100, 600)] {
                let sent = send_from_guest(&mut guest, ip, size, count);
                for want in sent.chunks(size) {
                    let mut got = vec![0; 65536];
                    let (len, from) = socket.recv_from(&mut got).unwrap();
                    assert!(got[..len] == *want, "{len} of {size} bytes");
                    assert_eq!(from.port(), 5555);
                }
            }
            socket.set_read_timeout(Some(SHORT)).unwrap();
            assert!(socket.recv_from(&mut [0; 1]).is_err(), "too many came");
        }
        assert_eq!(bed.tx(0).dropped.get(), 0);
        assert_eq!(bed.tx(0).bad_header.get(), 0);
    });
}
