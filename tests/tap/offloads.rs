//! Checksums and segmentation: who does them, and that whoever cannot gets
//! finished frames that fit the MTU.

use vtnetd::driver::net::{NetDriver, NetOptions, OFFLOADS};
use vtnetd::virtio::net_header::{GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, NetHeader};
use vtnetd::virtio::spec::{feature, net};

use crate::bed::{Bed, USUAL};
use crate::frames::{GUEST, Ip, TCP, UDP, noise, open, reassemble, turned};
use crate::host::{LONG, PacketSocket, cuts_datagrams, in_namespace, run};

const MTU: usize = 1500;

/// A sender that leaves everything to others.
struct Case {
    ip: Ip,
    protocol: u8,
    gso_type: u8,
    payload: usize,
}

const fn case(ip: Ip, protocol: u8, gso_type: u8, payload: usize) -> Case {
    Case {
        ip,
        protocol,
        gso_type,
        payload,
    }
}

const CASES: [Case; 13] = [
    case(Ip::V4, TCP, 0, 1000),
    case(Ip::V6, TCP, 0, 1001),
    case(Ip::V4, UDP, 0, 999),
    case(Ip::V6, UDP, 0, 1),
    case(Ip::V4, TCP, GSO_TCPV4, 1461),
    case(Ip::V4, TCP, GSO_TCPV4, 65000),
    case(Ip::V6, TCP, GSO_TCPV6, 1441),
    case(Ip::V6, TCP, GSO_TCPV6, 64001),
    case(Ip::V4, UDP, GSO_UDP, 60000),
    case(Ip::V4, UDP, GSO_UDP_L4, 1473),
    case(Ip::V4, UDP, GSO_UDP_L4, 64000),
    case(Ip::V6, UDP, GSO_UDP_L4, 1453),
    case(Ip::V6, UDP, GSO_UDP_L4, 64001),
];

impl Case {
    fn payload(&self) -> Vec<u8> {
        noise(self.payload as u32).take(self.payload).collect()
    }

    fn make(&self) -> (NetHeader, Vec<u8>) {
        let (header, frame) = open(self.ip, self.protocol, 1, &self.payload());
        let transport = match (self.protocol, self.gso_type) {
            (TCP, _) => 20,
            (_, GSO_UDP_L4) => 8,
            _ => 0,
        };
        let gso_size = if self.gso_type == 0 {
            0
        } else {
            // A fragment's payload is a multiple of 8.
            (MTU - self.ip.header() - transport) & !7
        };
        let header = NetHeader {
            gso_type: self.gso_type,
            gso_size: gso_size as u16,
            ..header
        };
        (header, frame)
    }
}

fn big() -> NetOptions {
    NetOptions {
        max_frame: 65600,
        ..NetOptions::default()
    }
}

#[test]
fn what_a_guest_leaves_undone_is_done_beyond_a_veth_without_offloads() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 1);
        run("ip link add br0 type bridge");
        run("ip link add veth0 type veth peer name veth1");
        run("ethtool -K veth0 tx off tso off gso off");
        for link in ["br0", "veth0", "veth1"] {
            run(&format!("ip link set {link} up"));
        }
        run("ip link set veth0 master br0");
        run("ip link set tap0 master br0");
        let peer = PacketSocket::new("veth1");
        let mut guest = bed.guest(OFFLOADS, big());
        for case in &CASES {
            let (header, frame) = case.make();
            guest.pair(0).tx.send_with(header, &frame).unwrap();
            let got = reassemble(case.payload, MTU, || peer.recv_from(GUEST));
            assert!(got == case.payload(), "{} bytes", case.payload);
        }
        assert_eq!(bed.tx(0).dropped.get(), 0);
    });
}

/// The kernel sends each case to the guest, as from a socket of its own.
fn send_all(host: &PacketSocket, mut look: impl FnMut(&Case, NetHeader, Vec<u8>)) {
    // The kernel fragments UDP for everyone, before it comes to the tap.
    let sent = |case: &&Case| match case.gso_type {
        GSO_UDP => false,
        GSO_UDP_L4 => cuts_datagrams(),
        _ => true,
    };
    for case in CASES.iter().filter(sent) {
        let (header, frame) = case.make();
        let frame = turned(frame);
        host.send_with(header, &frame);
        look(case, header, frame);
    }
}

fn expect_finished(guest: &mut NetDriver, host: &PacketSocket) {
    send_all(host, |case, _, _| {
        let got = reassemble(case.payload, MTU, || {
            let got = guest.pair(0).rx.recv(LONG).unwrap().expect("no frame");
            let plain = NetHeader {
                num_buffers: got.header.num_buffers,
                ..NetHeader::default()
            };
            assert_eq!(got.header, plain);
            got.frame
        });
        assert!(got == case.payload(), "{} bytes", case.payload);
    });
}

fn expect_unfinished(guest: &mut NetDriver, host: &PacketSocket) {
    send_all(host, |case, header, frame| {
        let got = guest.pair(0).rx.recv(LONG).unwrap().expect("no frame");
        assert!(got.frame == frame, "{} bytes", case.payload);
        let wanted = NetHeader {
            // A hint, which need not be exact.
            hdr_len: got.header.hdr_len,
            num_buffers: got.header.num_buffers,
            ..header
        };
        assert_eq!(got.header, wanted);
        let least = wanted.csum_start + wanted.csum_offset + 2;
        assert!(got.header.hdr_len >= header.hdr_len.min(least));
    });
}

#[test]
fn a_guest_gets_what_it_negotiated_and_nothing_else() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 1);
        let host = PacketSocket::with_headers("tap0");
        expect_finished(&mut bed.guest(0, big()), &host);
        expect_unfinished(&mut bed.guest(OFFLOADS, big()), &host);
        // After a guest with offloads one that negotiates nothing at all: the
        // end of the first one has taken them back.
        let nothing = feature::VHOST_USER_PROTOCOL_FEATURES;
        expect_finished(&mut bed.guest_with(nothing, big()), &host);
        expect_unfinished(&mut bed.guest(OFFLOADS, big()), &host);
        expect_finished(&mut bed.guest(net::F_CSUM, big()), &host);
        expect_finished(&mut bed.guest_with(USUAL & !net::F_MRG_RXBUF, big()), &host);
    });
}

#[test]
fn checksums_alone_can_be_negotiated() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 1);
        let host = PacketSocket::with_headers("tap0");
        let mut guest = bed.guest(net::F_GUEST_CSUM, big());
        for case in CASES.iter().filter(|case| case.gso_type == GSO_TCPV4) {
            let (header, frame) = case.make();
            host.send_with(header, &turned(frame));
            let mut left = case.payload;
            while left > 0 {
                let got = guest.pair(0).rx.recv(LONG).unwrap().expect("no frame");
                assert!(got.frame.len() <= MTU + 14);
                assert_eq!(got.header.gso_type, 0);
                left -= got.frame.len() - 54;
            }
        }
    });
}

#[test]
fn the_guest_changes_its_mind_while_it_runs() {
    in_namespace(|| {
        let bed = Bed::new("tap0", 1);
        let host = PacketSocket::with_headers("tap0");
        let control = net::F_CTRL_VQ | net::F_CTRL_GUEST_OFFLOADS;
        let mut guest = bed.guest(OFFLOADS | control, big());
        for _ in 0..3 {
            expect_unfinished(&mut guest, &host);
            let control = guest.control().expect("a control queue");
            control.set_offloads(0).unwrap();
            expect_finished(&mut guest, &host);
            let control = guest.control().expect("a control queue");
            control.set_offloads(net::GUEST_OFFLOADS).unwrap();
        }
        assert_eq!(bed.rx(0).bad_header.get(), 0);
    });
}
