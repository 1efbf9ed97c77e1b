//! Rings of the wire and of the host.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use vtnetd::netmap::abi::nmreq::{NR_EXCLUSIVE, NR_RX_RINGS_ONLY, NR_TX_RINGS_ONLY, RegisterBody};
use vtnetd::netmap::abi::{NR_FORWARD, NS_FORWARD, NS_MOREFRAG, Slot};
use vtnetd::netmap::port::{Direction, Port};
use vtnetd::netmap::register::{Registration, Request, RingMode};

use crate::bed::{Bed, HERE, NEVER, SOON, THERE, on_bed};
use crate::client::{Client, frame};

pub fn request(mode: RingMode) -> Request {
    Request {
        mode,
        ..Request::new("here0")
    }
}

/// Releases everything that has come, marked to be forwarded if `mark`.
fn release(port: &Registration, mark: bool) {
    port.rxsync().unwrap();
    for ring in (0..port.ring_count(Direction::Rx)).filter_map(|at| port.ring(Direction::Rx, at)) {
        let mut at = ring.head();
        while at != ring.tail() {
            let slot = ring.slot(at).unwrap();
            let flags = if mark {
                slot.flags | NS_FORWARD
            } else {
                slot.flags
            };
            ring.set_slot(at, Slot { flags, ..slot }).unwrap();
            at = ring.next(at);
        }
        ring.set_cur(at);
        ring.set_head(at);
    }
    port.rxsync().unwrap();
}

/// What bridge(8) of netmap does between `netmap:here0` and `netmap:here0^`.
fn bridge(port: &Registration) {
    port.rxsync().unwrap();
    for (from, to) in [(0, 1), (1, 0)] {
        let from = port.ring(Direction::Rx, from).unwrap();
        let to = port.ring(Direction::Tx, to).unwrap();
        let (mut at, mut free) = (from.head(), to.head());
        while at != from.tail() && free != to.tail() {
            let (mut source, mut room) = (from.slot(at).unwrap(), to.slot(free).unwrap());
            (room.len, room.flags) = (source.len, source.flags & NS_MOREFRAG);
            std::mem::swap(&mut source.buf_idx, &mut room.buf_idx);
            from.set_slot(at, source).unwrap();
            to.set_slot(free, room).unwrap();
            (at, free) = (from.next(at), to.next(free));
        }
        from.set_cur(at);
        from.set_head(at);
        to.set_cur(free);
        to.set_head(free);
    }
    port.txsync().unwrap();
}

#[test]
fn frames_of_the_wire_go_to_the_ring_and_no_longer_to_the_host() {
    on_bed(|bed| {
        assert!(bed.reaches(SOON, || {}));
        let wire = bed.wire();
        let client = Client::with(&bed.core, request(RingMode::All));
        assert!(!bed.is_untouched());
        assert!(!bed.reaches(NEVER, || {}), "the host still has it");
        client.receive();
        for len in [60, 61, 1514] {
            wire.send(&frame(1, 2, len)).unwrap();
            client.wait();
            assert_eq!(client.receive(), [frame(1, 2, len)]);
        }
        let many: Vec<Vec<u8>> = (0..500).map(|n| frame(1, 2, 60 + n)).collect();
        for frame in &many {
            wire.send(frame).unwrap();
        }
        let mut got = Vec::new();
        while got.len() < many.len() {
            client.wait();
            got.extend(client.receive());
        }
        assert_eq!(got, many);
        // The other way, past the length of the ring.
        let many: Vec<Vec<u8>> = (0..3000).map(|n| frame(2, 1, 60 + n % 1400)).collect();
        while wire.recv(NEVER).unwrap().is_some() {}
        client.send(&many);
        for want in &many {
            assert_eq!(wire.recv(SOON).unwrap().as_ref(), Some(want));
        }
        drop(client);
        assert!(bed.is_clean());
    });
}

#[test]
fn frames_keep_their_vlan_tags() {
    on_bed(|bed| {
        let wire = bed.wire();
        let client = Client::with(&bed.core, request(RingMode::All));
        let mut tagged = frame(1, 2, 100);
        tagged.splice(12..12, [0x81, 0x00, 0x20, 0x07]);
        wire.send(&tagged).unwrap();
        client.wait();
        assert_eq!(client.receive(), [tagged.clone()]);
        client.send(&[&tagged]);
        // The kernel has taken the tag out, for whoever asks for frames alone.
        tagged.drain(12..16);
        assert_eq!(wire.recv(SOON).unwrap(), Some(tagged));
    });
}

#[test]
fn rings_that_are_not_bound_are_the_hosts() {
    on_bed(|bed| {
        // Host rings alone take nothing away.
        let host = Client::with(&bed.core, request(RingMode::Host));
        assert!(bed.reaches(SOON, || {}));
        // One direction takes that, and leaves the other.
        let wire = bed.wire();
        let only = |flags| Request {
            flags,
            ..request(RingMode::One(0))
        };
        let tx = Client::with(&bed.core, only(NR_TX_RINGS_ONLY));
        assert_eq!(tx.port.ring_count(Direction::Rx), 0);
        assert!(!bed.reaches(NEVER, || {}), "answers still go out");
        // They are in the host ring: what it asked its neighbour, and answers.
        host.port.rxsync().unwrap();
        let ring = host.port.ring(Direction::Rx, 0).unwrap();
        assert_ne!(ring.available(), 0);
        drop(tx);
        assert!(bed.reaches(SOON, || {}));
        let rx = Client::with(&bed.core, only(NR_RX_RINGS_ONLY));
        assert_eq!(rx.port.ring_count(Direction::Tx), 0);
        assert!(!bed.reaches(NEVER, || {}), "questions still come in");
        while wire.recv(NEVER).unwrap().is_some() {}
        UdpSocket::bind((HERE, 5000))
            .and_then(|socket| socket.send_to(b"out", (THERE, 5000)))
            .unwrap();
        assert!(wire.recv(SOON).unwrap().is_some(), "the host can send");
        drop((rx, host));
        assert!(bed.is_clean());
    });
}

#[test]
fn marked_frames_are_forwarded_between_wire_and_host() {
    on_bed(|bed| {
        let client = Client::with(&bed.core, request(RingMode::AllAndHost));
        let port = &client.port;
        let counts = [Direction::Tx, Direction::Rx].map(|way| port.ring_count(way));
        assert_eq!(counts, [2, 2], "one ring of the wire, one of the host");
        assert!(!bed.reaches(NEVER, || release(port, true)), "no NR_FORWARD");
        for at in 0..2 {
            let ring = port.ring(Direction::Rx, at).unwrap();
            ring.set_flags(NR_FORWARD);
        }
        assert!(!bed.reaches(NEVER, || release(port, false)), "no marks");
        assert!(bed.reaches(SOON, || release(port, true)));
        // Segments longer than the MTU and unfinished checksums on both ways.
        transfer(bed, || release(port, true));
    });
}

#[test]
fn an_application_can_carry_frames_between_wire_and_host() {
    on_bed(|bed| {
        let client = Client::with(&bed.core, request(RingMode::AllAndHost));
        assert!(bed.reaches(SOON, || bridge(&client.port)));
        transfer(bed, || bridge(&client.port));
        datagrams(bed, || bridge(&client.port));
        drop(client);
        assert!(bed.is_clean());
    });
}

/// The second host sends a megabyte to the first, which sends it back.
pub fn transfer(bed: &Bed, mut carry: impl FnMut()) {
    let data: Vec<u8> = (0..1 << 20).map(|n: usize| (n % 251) as u8).collect();
    let listener = TcpListener::bind((HERE, 4001)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (data, done) = (&data, &done);
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = vec![0; data.len()];
            stream.read_exact(&mut got).unwrap();
            stream.write_all(&got).unwrap();
        });
        scope.spawn(move || {
            let echo = || {
                let mut stream = TcpStream::connect((HERE, 4001))?;
                stream.write_all(data)?;
                let mut got = vec![0; data.len()];
                stream.read_exact(&mut got)?;
                Ok(got)
            };
            assert!(bed.there.within(echo).unwrap() == *data);
            done.store(true, Ordering::Release);
        });
        let start = std::time::Instant::now();
        while !done.load(Ordering::Acquire) {
            assert!(start.elapsed() < 3 * SOON, "the transfer hangs");
            carry();
        }
    });
}

/// Each host sends the other many datagrams in one go.
pub fn datagrams(bed: &Bed, mut carry: impl FnMut()) {
    const SIZE: usize = 1000;
    let socket = |address| {
        let socket = UdpSocket::bind((address, 4002))?;
        socket.set_nonblocking(true)?;
        setsockopt(
            &socket,
            sockopt::UdpGsoSegment,
            &i32::try_from(SIZE).unwrap(),
        )
        .map_err(std::io::Error::from)?;
        Ok(socket)
    };
    let (here, there) = (
        socket(HERE).unwrap(),
        bed.there.within(|| socket(THERE)).unwrap(),
    );
    let sent: Vec<u8> = (0..50 * SIZE - 1).map(|n: usize| (n % 251) as u8).collect();
    for (from, to, at) in [(&here, &there, THERE), (&there, &here, HERE)] {
        from.send_to(&sent, (at, 4002)).unwrap();
        let start = std::time::Instant::now();
        let mut got = vec![0; 65536];
        for want in sent.chunks(SIZE) {
            let len = loop {
                assert!(start.elapsed() < SOON, "datagrams are missing");
                carry();
                match to.recv(&mut got) {
                    Ok(len) => break len,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            };
            assert!(got[..len] == *want, "{len} bytes");
        }
    }
}

#[test]
fn host_rings_are_as_many_as_asked_for() {
    on_bed(|bed| {
        let first = Client::with(
            &bed.core,
            Request {
                host_tx_rings: 2,
                host_rx_rings: 3,
                ..request(RingMode::AllAndHost)
            },
        );
        let counts = [Direction::Tx, Direction::Rx].map(|way| first.port.ring_count(way));
        assert_eq!(counts, [3, 4]);
        let answer = first.port.answer(&RegisterBody::default());
        assert_eq!((answer.nr_tx_rings, answer.nr_rx_rings), (1, 1));
        assert_eq!((answer.nr_host_tx_rings, answer.nr_host_rx_rings), (2, 3));
        assert_eq!((answer.nr_tx_slots, answer.nr_rx_slots), (1024, 1024));
        // It is bound: the numbers stay.
        let second = Client::with(
            &bed.core,
            Request {
                host_rx_rings: 1,
                ..request(RingMode::OneHost(2))
            },
        );
        let counts = [Direction::Tx, Direction::Rx].map(|way| second.port.ring_count(way));
        assert_eq!(counts, [1, 1]);
        assert_eq!(second.port.region().id(), first.port.region().id());
        let refused = bed.core.register(&request(RingMode::OneHost(3)));
        assert_eq!(refused.err().unwrap().errno(), Errno::EINVAL);
    });
}

#[test]
fn what_is_refused() {
    on_bed(|bed| {
        let refused = |request: Request| bed.core.register(&request).err().map(|e| e.errno());
        // here1 may be used and is not there, there is a lo and it may not.
        for name in ["here1", "lo", "nobody"] {
            assert_eq!(refused(Request::new(name)), Some(Errno::ENXIO), "{name}");
        }
        assert_eq!(refused(request(RingMode::One(1))), Some(Errno::EINVAL));
        assert_eq!(refused(request(RingMode::OneHost(1))), Some(Errno::EINVAL));
        assert_eq!(refused(request(RingMode::Other(9))), Some(Errno::EINVAL));
        let on_switch = Request::new("vale0:here0");
        assert_eq!(refused(on_switch), Some(Errno::EINVAL));
        let made = bed.core.new_interface(&Request::new("here0"));
        assert_eq!(made.unwrap_err().errno(), Errno::EEXIST);
        let exclusive = Request {
            flags: NR_EXCLUSIVE,
            ..request(RingMode::All)
        };
        let client = Client::with(&bed.core, exclusive.clone());
        assert_eq!(refused(request(RingMode::All)), Some(Errno::EBUSY));
        assert_eq!(refused(request(RingMode::AllAndHost)), Some(Errno::EBUSY));
        assert_eq!(refused(request(RingMode::Host)), None);
        drop(client);
        let shared = Client::with(&bed.core, request(RingMode::All));
        assert_eq!(refused(exclusive), Some(Errno::EBUSY));
        assert_eq!(refused(request(RingMode::All)), None);
        drop(shared);
        assert!(bed.is_clean());
    });
}

#[test]
fn a_monitor_sees_both_directions_of_the_wire() {
    use vtnetd::netmap::abi::nmreq::{NR_MONITOR_RX, NR_MONITOR_TX};
    on_bed(|bed| {
        let wire = bed.wire();
        let client = Client::with(&bed.core, request(RingMode::All));
        let monitor = Client::with(
            &bed.core,
            Request {
                flags: NR_MONITOR_RX | NR_MONITOR_TX,
                ..request(RingMode::All)
            },
        );
        client.send(&[frame(2, 1, 80)]);
        wire.send(&frame(1, 2, 90)).unwrap();
        client.wait();
        assert_eq!(client.receive(), [frame(1, 2, 90)]);
        assert_eq!(monitor.receive(), [frame(2, 1, 80), frame(1, 2, 90)]);
    });
}

#[test]
fn pipes_below_an_interface_leave_it_to_the_host() {
    on_bed(|bed| {
        let master = Client::new(&bed.core, "here0{7");
        let slave = Client::new(&bed.core, "here0}7");
        master.send(&[frame(1, 2, 70)]);
        assert_eq!(slave.receive(), [frame(1, 2, 70)]);
        assert!(bed.is_clean());
    });
}

#[test]
fn a_client_sleeps_until_the_host_has_sent() {
    on_bed(|bed| {
        let client = Client::with(&bed.core, request(RingMode::AllAndHost));
        let host = client.port.ring(Direction::Rx, 1).unwrap();
        client.port.rxsync().unwrap();
        assert_eq!(host.available(), 0, "the tap speaks for itself");
        UdpSocket::bind((HERE, 5000))
            .and_then(|socket| socket.send_to(b"out", (THERE, 5000)))
            .unwrap();
        client.wait();
        assert_eq!(host.available(), 1);
        let slot = host.slot(host.head()).unwrap();
        let mut kind = [0; 14];
        let data = host.buffer(slot.buf_idx).unwrap();
        data.as_readable().read(&mut kind);
        assert_eq!(kind[12..], [8, 6], "an ARP request");
    });
}

#[test]
fn an_interface_that_goes_away_harms_nobody() {
    on_bed(|bed| {
        let client = Client::with(&bed.core, request(RingMode::AllAndHost));
        bed.here.run("ip link set here0 down").unwrap();
        client.send(&[frame(2, 1, 80)]);
        bed.here.run("ip link set here0 up").unwrap();
        let wire = bed.wire();
        wire.send(&frame(1, 2, 90)).unwrap();
        client.wait();
        assert_eq!(client.receive(), [frame(1, 2, 90)]);
        bed.here.run("ip link del here0").unwrap();
        client.send(&[frame(2, 1, 80)]);
        assert_eq!(client.receive(), Vec::<Vec<u8>>::new());
        drop(client);
        assert_eq!(bed.interfaces(), ["lo"]);
    });
}
