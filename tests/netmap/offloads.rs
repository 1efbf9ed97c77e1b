//! A client whose frames begin with a virtio-net header beside one whose do
//! not.

use vtnetd::net::checksum::{pseudo_v4, sum};
use vtnetd::netmap::abi::nmreq::NR_ACCEPT_VNET_HDR;
use vtnetd::netmap::port::{HeaderLen, Port};
use vtnetd::netmap::register::Request;
use vtnetd::virtio::net_header::{F_NEEDS_CSUM, GSO_NONE, GSO_TCPV4, GSO_UDP_L4, NetHeader};

use crate::client::{Client, core};
use crate::joins::join;

const IP: usize = 14;
const TCP: usize = IP + 20;
const DATA: usize = TCP + 20;
const SOURCE: [u8; 4] = [10, 0, 0, 1];
const TARGET: [u8; 4] = [10, 0, 0, 2];

/// A TCP segment whose checksum covers the pseudo header only, as a driver
/// leaves it.
fn segment(payload: usize) -> Vec<u8> {
    let mut frame = vec![0; DATA + payload];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    let ip_len = u16::try_from(frame.len() - IP).unwrap();
    frame[IP] = 0x45;
    frame[IP + 2..IP + 4].copy_from_slice(&ip_len.to_be_bytes());
    frame[IP + 8] = 64;
    frame[IP + 9] = 6;
    frame[IP + 12..IP + 16].copy_from_slice(&SOURCE);
    frame[IP + 16..IP + 20].copy_from_slice(&TARGET);
    let header = sum(&frame[IP..TCP]).checksum();
    frame[IP + 10..IP + 12].copy_from_slice(&header.to_be_bytes());
    frame[TCP + 12] = 0x50;
    frame[TCP + 13] = 0x10;
    let pseudo = pseudo_v4(SOURCE.into(), TARGET.into(), 6, ip_len - 20).folded();
    frame[TCP + 16..TCP + 18].copy_from_slice(&pseudo.to_be_bytes());
    for (nth, byte) in frame[DATA..].iter_mut().enumerate() {
        *byte = u8::try_from(nth % 251).unwrap();
    }
    frame
}

fn is_checksummed(frame: &[u8]) -> bool {
    let len = u16::try_from(frame.len() - TCP).unwrap();
    let mut whole = pseudo_v4(SOURCE.into(), TARGET.into(), 6, len);
    whole.append(sum(&frame[TCP..]));
    whole.checksum() == 0 && sum(&frame[IP..TCP]).checksum() == 0
}

fn pair(theirs: HeaderLen) -> (Client, Client) {
    let core = core(2048);
    let accept = |name: &str| Request {
        flags: NR_ACCEPT_VNET_HDR,
        ..Request::new(name)
    };
    let a = Client::with(&core, accept("vale0:a"));
    let b = Client::with(&core, accept("vale0:b"));
    a.port.set_header_len(HeaderLen::Full).unwrap();
    b.port.set_header_len(theirs).unwrap();
    (a, b)
}

fn send(client: &Client, gso_type: u8, gso_size: u16, frame: &[u8]) {
    let header = NetHeader {
        flags: F_NEEDS_CSUM,
        gso_type,
        hdr_len: u16::try_from(DATA).unwrap(),
        gso_size,
        csum_start: u16::try_from(TCP).unwrap(),
        csum_offset: 16,
        num_buffers: 0,
    };
    client.send(&[[&header.to_bytes()[..], frame].concat()]);
}

#[test]
fn a_receiver_without_header_gets_complete_checksums() {
    let (a, b) = pair(HeaderLen::None);
    let sent = segment(1000);
    assert!(!is_checksummed(&sent));
    send(&a, GSO_NONE, 0, &sent);
    let received = b.receive();
    assert_eq!(received.len(), 1);
    assert!(is_checksummed(&received[0]));
    assert!(received[0][DATA..] == sent[DATA..]);
}

#[test]
fn a_receiver_without_header_gets_short_segments() {
    let (a, b) = pair(HeaderLen::None);
    let sent = segment(60_000);
    send(&a, GSO_TCPV4, 1460, &sent);
    let received = b.receive();
    assert_eq!(received.len(), 60_000_usize.div_ceil(1460));
    assert!(received.iter().all(|frame| frame.len() <= 1514));
    assert!(received.iter().all(|frame| is_checksummed(frame)));
    let data: Vec<u8> = received
        .iter()
        .flat_map(|frame| &frame[DATA..])
        .copied()
        .collect();
    assert!(data == sent[DATA..]);
}

#[test]
fn a_receiver_with_a_header_gets_the_frame_as_it_is_and_a_header_made_by_us() {
    for len in [HeaderLen::Legacy, HeaderLen::Full] {
        let (a, b) = pair(len);
        let sent = segment(60_000);
        send(&a, GSO_TCPV4, 1460, &sent);
        let received = b.receive();
        assert_eq!(received.len(), 1);
        let (header, frame) = received[0].split_at(len.bytes());
        assert!(frame == sent);
        let mut raw = [0; 12];
        raw[..header.len()].copy_from_slice(header);
        let header = NetHeader::from_bytes(&raw);
        assert_eq!((header.flags, header.gso_type), (F_NEEDS_CSUM, GSO_TCPV4));
        assert_eq!((header.gso_size, header.hdr_len), (1460, 54));
        assert_eq!((header.csum_start, header.csum_offset), (34, 16));
    }
}

/// What several datagrams make together, as a driver leaves it.
fn datagrams(payload: usize) -> (NetHeader, Vec<u8>) {
    let mut frame = segment(payload + 8);
    frame.drain(TCP..TCP + 20);
    let len = u16::try_from(frame.len() - TCP).unwrap();
    frame[IP + 2..IP + 4].copy_from_slice(&(len + 20).to_be_bytes());
    frame[IP + 9] = 17;
    frame[IP + 10..IP + 12].fill(0);
    let header = sum(&frame[IP..TCP]).checksum();
    frame[IP + 10..IP + 12].copy_from_slice(&header.to_be_bytes());
    frame[TCP + 4..TCP + 6].copy_from_slice(&len.to_be_bytes());
    let pseudo = pseudo_v4(SOURCE.into(), TARGET.into(), 17, len).folded();
    frame[TCP + 6..TCP + 8].copy_from_slice(&pseudo.to_be_bytes());
    let header = NetHeader {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_UDP_L4,
        hdr_len: u16::try_from(TCP + 8).unwrap(),
        gso_size: 1400,
        csum_start: u16::try_from(TCP).unwrap(),
        csum_offset: 6,
        num_buffers: 0,
    };
    (header, frame)
}

/// Programs with headers that are older than UDP segmentation would pass it on
/// to guests that do not know it.
#[test]
fn a_receiver_with_a_header_gets_each_datagram() {
    for len in [HeaderLen::Legacy, HeaderLen::Full] {
        let (a, b) = pair(len);
        let (header, sent) = datagrams(30_001);
        a.send(&[[&header.to_bytes()[..], &sent].concat()]);
        let received = b.receive();
        assert_eq!(received.len(), 30_001_usize.div_ceil(1400));
        let mut payload = Vec::<u8>::new();
        for packet in &received {
            let (told, frame) = packet.split_at(len.bytes());
            assert!(told[..10].iter().all(|&byte| byte == 0));
            payload.extend(&frame[TCP + 8..]);
        }
        assert!(payload == sent[TCP + 8..]);
    }
}

#[test]
fn a_receiver_without_header_gets_each_datagram() {
    let (a, b) = pair(HeaderLen::None);
    let (header, sent) = datagrams(30_001);
    a.send(&[[&header.to_bytes()[..], &sent].concat()]);
    let received = b.receive();
    assert_eq!(received.len(), 30_001_usize.div_ceil(1400));
    let mut payload = Vec::<u8>::new();
    for frame in &received {
        let udp = &frame[TCP..];
        let len = u16::try_from(udp.len()).unwrap();
        assert!(len <= 1408);
        assert_eq!(udp[4..6], len.to_be_bytes());
        let mut whole = pseudo_v4(SOURCE.into(), TARGET.into(), 17, len);
        whole.append(sum(udp));
        assert_eq!(whole.checksum(), 0);
        assert_eq!(sum(&frame[IP..TCP]).checksum(), 0);
        payload.extend(&udp[8..]);
    }
    assert!(payload == sent[TCP + 8..]);
}

#[test]
fn what_passes_to_another_switch_is_finished_there() {
    let core = core(2048);
    join(&core);
    let open = |name: &str, len| {
        let flags = NR_ACCEPT_VNET_HDR;
        let request = Request {
            flags,
            ..Request::new(name)
        };
        let client = Client::with(&core, request);
        client.port.set_header_len(len).unwrap();
        client
    };
    let a = open("valeA:a", HeaderLen::Full);
    let whole = open("valeB:whole", HeaderLen::Full);
    let short = open("valeB:short", HeaderLen::None);
    let sent = segment(60_000);
    send(&a, GSO_TCPV4, 1460, &sent);
    let received = whole.receive();
    assert_eq!(received.len(), 1);
    assert!(received[0][HeaderLen::Full.bytes()..] == sent);
    let received = short.receive();
    assert_eq!(received.len(), 60_000_usize.div_ceil(1460));
    assert!(received.iter().all(|frame| is_checksummed(frame)));
}
