//! A guest's end of a TCP connection with the host: enough of it to carry
//! bytes both ways, with checksums and segments left open.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

use bed::Result;
use bed::freebsd::run;
use vtnetd::driver::net::{NetDriver, Received};
use vtnetd::virtio::net_header::{GSO_TCPV4, GSO_TCPV6, NetHeader};

use crate::drive::SOON;
use crate::frames::{GUEST, Ip, PEER, Packet, TCP, complete, noise, open};

const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;
const ACK: u8 = 16;
/// The port that frames are made for.
pub const PORT: u16 = 4444;
/// The sequence number of the first byte that is sent.
const FIRST: u32 = 1000;

/// Gives interface `name` the host's addresses, and tells the host the
/// guest's.
pub fn configure(name: &str) -> Result<()> {
    let [a, b, c, d, e, f] = PEER;
    run(&format!("ifconfig {name} ether {a}:{b}:{c}:{d}:{e}:{f}"))?;
    run(&format!("ifconfig {name} inet 10.0.0.1/24"))?;
    run(&format!("ifconfig {name} inet6 -ifdisabled no_dad"))?;
    run(&format!("ifconfig {name} inet6 fd00::1/64 no_dad"))?;
    let [a, b, c, d, e, f] = GUEST;
    run(&format!("arp -s 10.0.0.2 {a}:{b}:{c}:{d}:{e}:{f}"))?;
    run(&format!("ndp -s fd00::2 {a}:{b}:{c}:{d}:{e}:{f}"))?;
    Ok(())
}

/// The host's address and port.
pub fn address(ip: Ip) -> String {
    match ip {
        Ip::V4 => format!("10.0.0.1:{PORT}"),
        Ip::V6 => format!("[fd00::1]:{PORT}"),
    }
}

/// A connection: the guest's end and the host's.
pub struct Connection<'g> {
    guest: &'g mut NetDriver,
    pub host: TcpStream,
    ip: Ip,
    port: u16,
    /// The next byte that is expected from the host.
    next: u32,
}

impl<'g> Connection<'g> {
    /// The guest connects, each time from another port: the host remembers
    /// connections for a while.
    pub fn open(guest: &'g mut NetDriver, ip: Ip) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id() * 64 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 1024 + u16::try_from(number % 32768).unwrap();
        let listener = TcpListener::bind(address(ip)).unwrap();
        send(guest, ip, port, SYN, FIRST - 1, 0, &[]);
        let (packet, _) = receive(guest, port);
        assert_eq!(packet.transport[13] & (SYN | ACK), SYN | ACK);
        let next = packet.sequence().wrapping_add(1);
        send(guest, ip, port, ACK, FIRST, next, &[]);
        let (host, _) = listener.accept().unwrap();
        host.set_read_timeout(Some(SOON)).unwrap();
        Self {
            guest,
            host,
            ip,
            port,
            next,
        }
    }

    /// The guest sends `len` bytes in one frame, cut by whoever has to.
    pub fn send_to_host(&mut self, len: usize) {
        let payload: Vec<u8> = noise(7).take(len).collect();
        send(
            self.guest,
            self.ip,
            self.port,
            ACK | PSH,
            FIRST,
            self.next,
            &payload,
        );
        let mut got = vec![0; len];
        self.host.read_exact(&mut got).unwrap();
        assert!(got == payload, "{len} bytes to the host");
    }

    /// The host sends `len` bytes. Returns the headers that the guest got, of
    /// frames that were right.
    pub fn receive_from_host(&mut self, len: usize) -> Vec<(NetHeader, usize)> {
        let payload: Vec<u8> = noise(8).take(len).collect();
        self.host.write_all(&payload).unwrap();
        let (mut got, mut headers) = (Vec::new(), Vec::new());
        while got.len() < len {
            let (packet, received) = receive(self.guest, self.port);
            let data = &packet.transport[usize::from(packet.transport[12] >> 4) * 4..];
            if data.is_empty() || packet.sequence() != self.next {
                continue;
            }
            got.extend_from_slice(data);
            headers.push((received.header, received.frame.len()));
            self.next = self.next.wrapping_add(u32::try_from(data.len()).unwrap());
            send(self.guest, self.ip, self.port, ACK, FIRST, self.next, &[]);
        }
        assert!(got == payload, "{len} bytes to the guest");
        send(
            self.guest,
            self.ip,
            self.port,
            ACK | FIN,
            FIRST,
            self.next,
            &[],
        );
        headers
    }
}

/// Sends a segment whose checksum is open.
fn send(
    guest: &mut NetDriver,
    ip: Ip,
    port: u16,
    flags: u8,
    sequence: u32,
    ack: u32,
    payload: &[u8],
) {
    let (mut header, mut frame) = open(ip, TCP, port, payload);
    let tcp = usize::from(header.csum_start);
    frame[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
    frame[tcp + 8..tcp + 12].copy_from_slice(&ack.to_be_bytes());
    frame[tcp + 13] = flags;
    if payload.len() > 1400 {
        header.gso_type = if ip == Ip::V4 { GSO_TCPV4 } else { GSO_TCPV6 };
        header.gso_size = 1400;
    }
    guest.pair(0).tx.send_with(header, &frame).unwrap();
}

/// The next packet of the connection, checked for its checksums.
fn receive(guest: &mut NetDriver, port: u16) -> (Packet, Received) {
    loop {
        let received = guest.pair(0).rx.recv(SOON).unwrap();
        let mut received = received.expect("an answer of the host");
        let protocol = match received.frame[12..14] {
            [8, 0] => received.frame[14 + 9],
            [0x86, 0xdd] => received.frame[14 + 6],
            _ => continue,
        };
        if protocol != TCP {
            continue;
        }
        if received.header.flags & 1 != 0 {
            complete(&received.header, &mut received.frame);
        }
        let packet = Packet::parse(&received.frame, 65535);
        if packet.transport[2..4] == port.to_be_bytes() {
            packet.check();
            return (packet, received);
        }
    }
}
