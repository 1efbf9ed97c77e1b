//! What a guest leaves to others, over the kernel's switch: as it is for who
//! takes it, finished for who does not.

use bed::{Error, Result, Test};
use vtnetd::driver::net::{NetDriver, NetOptions, OFFLOADS};
use vtnetd::netmap::port::HeaderLen;
use vtnetd::virtio::net_header::{GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP, NetHeader};
use vtnetd::virtio::spec::{feature, net};

use super::client::Client;
use crate::drive::{SOON, Served};
use crate::frames::{Ip, TCP, UDP, complete, noise, open, reassemble, turned};

const MTU: usize = 1500;

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (name, from, to) in [
        ("12_bytes_to_12", 12, 12),
        ("12_bytes_to_10", 12, 10),
        ("10_bytes_to_12", 10, 12),
        ("10_bytes_to_10", 10, 10),
    ] {
        let what = [
            ("cross_as_they_are", as_they_are as fn(usize, usize) -> _),
            ("are_finished", finished),
        ];
        for (how, body) in what {
            let name = format!("vale::unfinished_frames_{how}_{name}");
            tests.push(Test::new(name, move || body(from, to)));
        }
    }
    tests.push(Test::new(
        "vale::a_client_without_headers_gets_finished_frames",
        without_headers,
    ));
    tests.push(Test::new("vale::offloads_where_there_are_headers", offered));
    tests
}

/// IP version, protocol, kind of segments, bytes of payload.
type Case = (Ip, u8, u8, usize);

const CHECKSUMS: [Case; 4] = [
    (Ip::V4, TCP, GSO_NONE, 1000),
    (Ip::V6, TCP, GSO_NONE, 1001),
    (Ip::V4, UDP, GSO_NONE, 999),
    (Ip::V6, UDP, GSO_NONE, 1),
];
const SEGMENTS: [Case; 4] = [
    (Ip::V4, TCP, GSO_TCPV4, 1461),
    (Ip::V4, TCP, GSO_TCPV4, 65000),
    (Ip::V6, TCP, GSO_TCPV6, 1441),
    (Ip::V6, TCP, GSO_TCPV6, 64001),
];
const FRAGMENTS: Case = (Ip::V4, UDP, GSO_UDP, 60000);

fn all() -> impl Iterator<Item = Case> {
    CHECKSUMS.into_iter().chain(SEGMENTS).chain([FRAGMENTS])
}

fn make(case: Case) -> (NetHeader, Vec<u8>, Vec<u8>) {
    let (ip, protocol, gso_type, len) = case;
    let payload: Vec<u8> = noise(u32::try_from(len).unwrap()).take(len).collect();
    let (mut header, frame) = open(ip, protocol, 1, &payload);
    if gso_type != GSO_NONE {
        let transport = if protocol == TCP { 20 } else { 0 };
        header.gso_type = gso_type;
        // A fragment's payload is a multiple of 8.
        header.gso_size = u16::try_from((MTU - ip.header() - transport) & !7).unwrap();
    }
    (header, frame, payload)
}

/// A driver with headers of `header` bytes, and these offloads. The header
/// has 10 for a legacy driver that merges no buffers.
fn options(header: usize, offloads: u64) -> NetOptions {
    let mut options = NetOptions {
        max_frame: 65600,
        ..NetOptions::default()
    };
    let features = &mut options.negotiation.features;
    *features |= offloads;
    *features &= !net::F_MTU;
    if header == 10 {
        *features &= !(feature::VERSION_1 | net::F_MRG_RXBUF);
        options.rx_buffer = 65600 + 12;
        options.ring_size = 64;
    }
    options
}

fn served() -> Result<Served> {
    Served::start(&["vale9:a,type=kernel", "vale9:b,type=kernel"])
}

fn next(driver: &mut NetDriver) -> Result<(NetHeader, Vec<u8>)> {
    let received = driver.pair(0).rx.recv(SOON);
    let received = received.map_err(|error| Error::new(error.to_string()))?;
    let received = received.ok_or_else(|| Error::new("nothing came"))?;
    Ok((received.header, received.frame))
}

/// Both ways, header and all.
fn as_they_are(from: usize, to: usize) -> Result<()> {
    let mut served = served()?;
    {
        let mut a = served.drive(0, &options(from, OFFLOADS))?;
        let mut b = served.drive(1, &options(to, OFFLOADS))?;
        for case in all() {
            let (header, frame, _) = make(case);
            for turn in [false, true] {
                let (sender, receiver) = if turn {
                    (&mut b, &mut a)
                } else {
                    (&mut a, &mut b)
                };
                sender.pair(0).tx.send_with(header, &frame).unwrap();
                let (told, got) = next(receiver)?;
                assert!(got == frame, "{case:?}: {} bytes came", got.len());
                assert_eq!(
                    (told.flags, told.gso_type, told.gso_size),
                    (header.flags, header.gso_type, header.gso_size),
                    "{case:?}"
                );
                assert_eq!(
                    (told.csum_start, told.csum_offset),
                    (header.csum_start, header.csum_offset),
                    "{case:?}"
                );
            }
        }
    }
    dropped_none(&mut served)
}

/// The receiver takes nothing unfinished.
fn finished(from: usize, to: usize) -> Result<()> {
    let mut served = served()?;
    {
        let sends = OFFLOADS & !net::GUEST_OFFLOADS;
        let mut a = served.drive(0, &options(from, sends))?;
        let mut b = served.drive(1, &options(to, sends))?;
        for case in all() {
            let (header, frame, payload) = make(case);
            for turn in [false, true] {
                let (sender, receiver) = if turn {
                    (&mut b, &mut a)
                } else {
                    (&mut a, &mut b)
                };
                sender.pair(0).tx.send_with(header, &frame).unwrap();
                let got = reassemble(payload.len(), MTU, || {
                    let (told, got) = next(receiver).unwrap();
                    assert_eq!((told.flags, told.gso_type), (0, GSO_NONE), "{case:?}");
                    got
                });
                assert!(got == payload, "{case:?}");
            }
        }
    }
    dropped_none(&mut served)
}

fn dropped_none(served: &mut Served) -> Result<()> {
    let counters = served.vtnetd.counters()?;
    for queues in ["vale9:a tx", "vale9:b tx", "vale9:a rx", "vale9:b rx"] {
        assert_eq!(counters.sum(queues, "dropped"), 0, "{queues}");
    }
    Ok(())
}

/// The kernel finishes what goes to a port without headers: checksums, and TCP
/// segments of the 1514 bytes that it takes every such port for
/// (`NM_BDG_MFS_DEFAULT`). What comes from there is whole.
fn without_headers() -> Result<()> {
    let served = Served::start(&["vale9:a,type=kernel"])?;
    let client = Client::new("vale9:client", HeaderLen::None)?;
    for header in [12, 10] {
        let mut a = served.drive(0, &options(header, OFFLOADS))?;
        for case in CHECKSUMS.into_iter().chain(SEGMENTS) {
            let (header, frame, payload) = make(case);
            a.pair(0).tx.send_with(header, &frame).unwrap();
            let got = reassemble(payload.len(), MTU, || {
                client.recv().unwrap().expect("a frame comes")
            });
            assert!(got == payload, "{case:?}");
        }
        for case in CHECKSUMS {
            let (header, mut frame, _) = make(case);
            complete(&header, &mut frame);
            let frame = turned(frame);
            client.send(&frame)?;
            let (told, got) = next(&mut a)?;
            assert!(got == frame, "{case:?}: {} bytes came", got.len());
            assert!(told.is_plain(), "{case:?}: {told:?}");
        }
    }
    Ok(())
}

/// Ports that cannot have headers have no offloads.
fn offered() -> Result<()> {
    let (first, _second) = crate::netmap::quiet_epair()?;
    let interface = format!("netmap:{}", first.name());
    let pipe = format!("{interface}{{3");
    let served = Served::start(&["vale9:a,type=kernel", &interface, &pipe])?;
    for (device, wanted) in [(0, OFFLOADS), (1, 0), (2, 0)] {
        let driver = served.drive(device, &options(12, OFFLOADS))?;
        let offered = driver.features() & OFFLOADS;
        // The back end's own list is all that the reference has for it.
        let listed = vtnetd::backend::netmap::FEATURES;
        assert_eq!(offered, wanted & listed, "device {device}");
    }
    Ok(())
}
