//! The kernel's own stack answers the guest: ARP, ICMP, UDP.

use std::net::{SocketAddr, UdpSocket};

use vtnetd::driver::net::{NetDriver, NetOptions, OFFLOADS, Received};
use vtnetd::virtio::net_header::{F_NEEDS_CSUM, NetHeader};

use crate::bed::Bed;
use crate::frames::{GUEST, Ip, Packet, UDP, complete, fill_in, noise, open};
use crate::host::{LONG, in_namespace, run};

const MTU: usize = 1500;

/// The next frame to the guest for which `wanted`.
fn next(guest: &mut NetDriver, wanted: impl Fn(&[u8]) -> bool) -> Received {
    loop {
        let got = guest.pair(0).rx.recv(LONG).unwrap().expect("no answer");
        if wanted(&got.frame) {
            return got;
        }
    }
}

/// Asks who has 10.0.0.1 (RFC 826); returns its address.
fn resolve(guest: &mut NetDriver) -> [u8; 6] {
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&GUEST);
    frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&GUEST);
    frame.extend_from_slice(&[10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    guest.pair(0).tx.send(&frame).unwrap();
    let answer = next(guest, |frame| frame[12..14] == [8, 6] && frame[21] == 2);
    assert_eq!(answer.frame[28..32], [10, 0, 0, 1]);
    answer.frame[22..28].try_into().unwrap()
}

/// 64 bytes there and back (RFC 792).
fn ping(guest: &mut NetDriver, host: [u8; 6]) {
    let (_, mut frame) = open(Ip::V4, 1, 0, &[0; 56]);
    frame[..6].copy_from_slice(&host);
    frame.truncate(14 + 20);
    let mut icmp = vec![8, 0, 0, 0, 0, 7, 0, 1];
    icmp.extend(noise(5).take(56));
    let total = (20 + icmp.len()) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    fill_in(&mut frame[14..34], 10);
    fill_in(&mut icmp, 2);
    frame.extend_from_slice(&icmp);
    guest.pair(0).tx.send(&frame).unwrap();
    let answer = next(guest, |frame| frame[12..14] == [8, 0] && frame[23] == 1);
    let answer = Packet::parse(&answer.frame, MTU).transport;
    assert_eq!(answer[0], 0, "an echo reply");
    assert_eq!(answer[4..], icmp[4..]);
}

/// A datagram to the kernel and one back.
fn talk(guest: &mut NetDriver, host: [u8; 6], offloads: bool) {
    let socket = UdpSocket::bind("10.0.0.1:4444").unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let (header, mut frame) = open(Ip::V4, UDP, 5555, b"from the guest");
    frame[..6].copy_from_slice(&host);
    if offloads {
        guest.pair(0).tx.send_with(header, &frame).unwrap();
    } else {
        complete(&header, &mut frame);
        guest.pair(0).tx.send(&frame).unwrap();
    }
    let mut room = [0; 100];
    let (len, from) = socket.recv_from(&mut room).unwrap();
    assert_eq!(&room[..len], b"from the guest");
    assert_eq!(from, SocketAddr::from(([10, 0, 0, 2], 5555)));

    socket.send_to(b"from the host", from).unwrap();
    let got = next(guest, |frame| frame[12..14] == [8, 0] && frame[23] == UDP);
    let packet = Packet::parse(&got.frame, MTU);
    assert_eq!(packet.payload(), b"from the host");
    if offloads {
        assert_eq!(got.header.flags, F_NEEDS_CSUM);
        assert_eq!((got.header.csum_start, got.header.csum_offset), (34, 6));
    } else {
        let plain = NetHeader {
            num_buffers: 1,
            ..NetHeader::default()
        };
        assert_eq!(got.header, plain);
        packet.check();
    }
}

fn greet(more: u64) {
    in_namespace(move || {
        let bed = Bed::new("tap0", 1);
        run("ip address add 10.0.0.1/24 dev tap0");
        let mut guest = bed.guest(more, NetOptions::default());
        let host = resolve(&mut guest);
        ping(&mut guest, host);
        talk(&mut guest, host, more != 0);
    });
}

#[test]
fn the_kernel_answers_a_guest_without_offloads() {
    greet(0);
}

#[test]
fn the_kernel_answers_a_guest_with_offloads() {
    greet(OFFLOADS);
}
