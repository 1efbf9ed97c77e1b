//! Tests of the switch against receivers that keep what they get.

use proptest::prelude::*;

use super::*;
use crate::net::checksum;
use crate::net::frame::ETHER_HEADER;
use crate::net::offload::tests::packet::{Packet, parse};
use crate::netmap::attachment::Delivered;
use crate::virtio::memory::Readable;
use crate::virtio::net_header::{F_NEEDS_CSUM, GSO_TCPV4, NetHeader};
use crate::virtio::spec::net;

/// Takes every frame.
#[derive(Default)]
struct Sink {
    offloads: u64,
    /// It drops what comes after so many.
    most: Option<usize>,
    got: Mutex<Vec<(NetHeader, Vec<u8>)>>,
}

impl Sink {
    fn frames(&self) -> Vec<Vec<u8>> {
        let got = std::mem::take(&mut *self.got.lock().unwrap());
        got.into_iter().map(|(_, frame)| frame).collect()
    }
}

impl Attachment for Sink {
    fn offloads(&self) -> u64 {
        self.offloads
    }

    fn deliver(&self, _ring: usize, batch: &Batch<'_>, picks: &[u16]) -> Delivered {
        let mut got = self.got.lock().unwrap();
        let mut delivered = Delivered::default();
        for &pick in picks {
            if self.most.is_some_and(|most| got.len() >= most) {
                break;
            }
            let frame = &batch.frames()[usize::from(pick)];
            let mut bytes = Vec::new();
            for part in batch.parts(frame) {
                let at = bytes.len();
                bytes.resize(at + part.len(), 0);
                part.read(&mut bytes[at..]);
            }
            assert_eq!(bytes.len(), frame.len as usize);
            got.push((frame.header, bytes));
            delivered.frames += 1;
            delivered.bytes += u64::from(frame.len);
        }
        delivered
    }
}

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn frame(to: [u8; 6], from: [u8; 6], tag: u8) -> Vec<u8> {
    let mut frame = [to, from].concat();
    frame.extend([0x88, 0xb5, tag]);
    frame.resize(60, tag);
    frame
}

fn send(switch: &Switch, from: PortId, frames: &[(NetHeader, Vec<u8>)]) {
    let mut batch = Batch::new();
    for (header, bytes) in frames {
        let mark = batch.mark();
        // Two parts, so that seams are crossed.
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        batch.push_part(mark, Readable::from_slice(head)).unwrap();
        batch.push_part(mark, Readable::from_slice(tail)).unwrap();
        let ether = *bytes.first_chunk::<ETHER_HEADER>().unwrap();
        let len = u32::try_from(bytes.len()).unwrap();
        assert!(batch.push_frame(mark, len, ether, *header));
    }
    switch.forward(from, 0, &batch);
}

fn send_plain(switch: &Switch, from: PortId, frames: &[Vec<u8>]) {
    let plain: Vec<_> = frames
        .iter()
        .map(|frame| (NetHeader::default(), frame.clone()))
        .collect();
    send(switch, from, &plain);
}

fn switch_of(offloads: &[u64]) -> (Switch, Vec<(PortId, Arc<Sink>)>) {
    let switch = Switch::new("vale0");
    let ports = offloads
        .iter()
        .enumerate()
        .map(|(at, &offloads)| {
            let sink = Arc::new(Sink {
                offloads,
                ..Sink::default()
            });
            let id = switch.attach(&format!("p{at}"), None, Arc::clone(&sink) as _);
            (id.unwrap(), sink)
        })
        .collect();
    (switch, ports)
}

#[test]
fn an_address_that_was_just_heard_is_looked_up_again() {
    let (switch, ports) = switch_of(&[0; 2]);
    let (from, _) = &ports[0];
    // Unknown; then it is the sender's own.
    let frames = [frame(mac(5), mac(1), 0), frame(mac(5), mac(5), 1)];
    send_plain(&switch, *from, &frames);
    assert_eq!(ports[1].1.frames(), frames[..1]);
}

#[test]
fn a_frame_goes_where_its_address_was_heard_and_else_to_everyone_but_its_sender() {
    let (switch, ports) = switch_of(&[0; 3]);
    let got = || -> Vec<usize> { ports.iter().map(|(_, sink)| sink.frames().len()).collect() };
    send_plain(&switch, ports[0].0, &[frame(mac(2), mac(1), 0)]);
    assert_eq!(got(), [0, 1, 1]);
    send_plain(&switch, ports[1].0, &[frame(mac(1), mac(2), 0)]);
    assert_eq!(got(), [1, 0, 0]);
    send_plain(&switch, ports[0].0, &[frame(mac(2), mac(1), 0)]);
    assert_eq!(got(), [0, 1, 0]);
    // Its own address is behind the sender's port: for nobody.
    send_plain(&switch, ports[0].0, &[frame(mac(1), mac(9), 0)]);
    assert_eq!(got(), [0, 0, 0]);
    // The address has moved.
    send_plain(&switch, ports[2].0, &[frame(mac(1), mac(2), 0)]);
    assert_eq!(got(), [1, 0, 0]);
    send_plain(&switch, ports[0].0, &[frame(mac(2), mac(1), 0)]);
    assert_eq!(got(), [0, 0, 1]);
}

#[test]
fn groups_go_to_everyone_and_are_never_learned() {
    let (switch, ports) = switch_of(&[0; 3]);
    let group = [1, 0, 0x5e, 0, 0, 1];
    send_plain(
        &switch,
        ports[0].0,
        &[frame([0xff; 6], group, 0), frame(group, mac(1), 0)],
    );
    assert_eq!(ports[0].1.frames().len(), 0);
    assert_eq!(ports[1].1.frames().len(), 2);
    assert_eq!(ports[2].1.frames().len(), 2);
    assert_eq!(switch.addresses(), [(Mac(mac(1)), "p0".to_owned(), 0)]);
}

#[test]
fn a_port_that_is_detached_gets_nothing_and_is_forgotten() {
    let (switch, ports) = switch_of(&[0; 2]);
    send_plain(&switch, ports[1].0, &[frame(mac(1), mac(2), 0)]);
    switch.detach(ports[1].0);
    send_plain(&switch, ports[0].0, &[frame(mac(2), mac(1), 0)]);
    assert!(ports[1].1.frames().is_empty());
    assert_eq!(switch.port_count(), 1);
    assert_eq!(switch.addresses().len(), 1);
    // Its number and name are free again.
    let again = switch.attach("p1", None, Arc::clone(&ports[1].1) as _);
    assert_eq!(again, Ok(ports[1].0));
}

#[test]
fn a_switch_has_254_ports() {
    let switch = Switch::new("vale9");
    for at in 0..MAX_PORTS {
        let sink = Arc::new(Sink::default());
        switch.attach(&at.to_string(), None, sink).unwrap();
    }
    let more = switch.attach("more", None, Arc::new(Sink::default()));
    assert_eq!(more, Err(PortError::Full("vale9".into())));
    // The last port's number is neither of the two that mean something else.
    send_plain(&switch, PortId(253), &[frame(mac(1), mac(2), 0)]);
    assert_eq!(switch.table.lookup(0x0200_0000_0002), Some(253));
}

#[test]
fn names_and_addresses_are_unique_on_a_switch() {
    let switch = Switch::new("vale0");
    let attach =
        |name, address| switch.attach(name, Some(Mac(mac(address))), Arc::new(Sink::default()));
    attach("a", 1).unwrap();
    assert_eq!(attach("a", 2), Err(PortError::InUse("vale0:a".into())));
    let twice = PortError::DuplicateMac(Mac(mac(1)), "vale0:a".into());
    assert_eq!(attach("b", 1), Err(twice));
    attach("b", 2).unwrap();
}

#[test]
fn ports_count_what_comes_and_goes() {
    let switch = Switch::new("vale0");
    let small = Sink {
        most: Some(2),
        ..Sink::default()
    };
    let [a, b, c] = [Sink::default(), small, Sink::default()].map(Arc::new);
    let [port, _, _] = [("a", &a), ("b", &b), ("c", &c)]
        .map(|(name, sink)| switch.attach(name, None, Arc::clone(sink) as _).unwrap());
    let plain = NetHeader::default();
    let frames = |to: [[u8; 6]; 4]| to.map(|to| (plain, frame(to, mac(1), 0)));
    // A broadcast, an address nobody has, and its own.
    send(&switch, port, &frames([[0xff; 6], mac(9), mac(9), mac(1)]));
    let [a, b, c] = <[PortStatistics; 3]>::try_from(switch.statistics()).unwrap();
    assert_eq!((a.in_frames, a.in_bytes), (4, 240));
    assert_eq!((a.flooded, a.unknown), (3, 2));
    assert_eq!((a.out_frames, a.dropped), (0, 0));
    assert_eq!((b.out_frames, b.out_bytes, b.dropped), (2, 120, 1));
    assert_eq!((c.out_frames, c.out_bytes, c.dropped), (3, 180, 0));
    assert_eq!((c.in_frames, c.flooded, c.name.as_str()), (0, 0, "c"));
}

#[test]
fn taps_have_a_ports_frames_too() {
    let switch = Switch::new("vale0");
    let [a, b, sent, both] = [(); 4].map(|()| Arc::new(Sink::default()));
    let [from, _] = [("a", &a), ("b", &b)]
        .map(|(name, sink)| switch.attach(name, None, Arc::clone(sink) as _).unwrap());
    let tap = |sink: &Arc<Sink>, received| Tap {
        receiver: Arc::clone(sink) as _,
        sent: true,
        received,
    };
    assert!(switch.tap("c", &tap(&sent, false)).is_none());
    let life = switch.tap("a", &tap(&sent, false)).unwrap();
    switch.tap("b", &tap(&sent, false)).unwrap();
    switch.tap("b", &tap(&both, true)).unwrap();
    // Each tap takes frames as an application without offloads does.
    let (header, long) = tcp_frame();
    let plain = frame(mac(2), mac(1), 0);
    send(
        &switch,
        from,
        &[(NetHeader::default(), plain.clone()), (header, long)],
    );
    let (sent_frames, both_frames) = (sent.frames(), both.frames());
    assert_eq!(sent_frames.first(), Some(&plain));
    assert!(sent_frames.len() > 2);
    assert_eq!(both_frames, sent_frames);
    switch.untap(&(Arc::clone(&sent) as _));
    send(&switch, from, &[(NetHeader::default(), plain)]);
    assert_eq!((sent.frames().len(), both.frames().len()), (0, 1));
    assert_eq!(life.strong_count(), 1);
    switch.detach(from);
    assert_eq!(life.strong_count(), 0);
}

/// An IPv4 frame with 3000 bytes of TCP payload, its checksum left to others.
fn tcp_frame() -> (NetHeader, Vec<u8>) {
    let mut bytes = frame(mac(2), mac(1), 0);
    bytes.truncate(12);
    bytes.extend([0x08, 0x00]);
    let total = 20 + 20 + 3000_u16;
    let mut ip = vec![0x45, 0];
    ip.extend(total.to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(ip);
    bytes.extend([
        0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0,
    ]);
    bytes.extend((0..3000).map(|n: u32| u8::try_from(n % 251).unwrap()));
    let header = NetHeader {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    (header, bytes)
}

#[test]
fn each_receiver_gets_what_it_can_take() {
    let (switch, ports) = switch_of(&[0, 0, net::F_GUEST_CSUM | net::F_GUEST_TSO4]);
    let sent = tcp_frame();
    let plain = (NetHeader::default(), frame(mac(2), mac(1), 7));
    send(
        &switch,
        ports[0].0,
        &[plain.clone(), sent.clone(), plain.clone()],
    );

    let whole = ports[2].1.got.lock().unwrap();
    assert_eq!(*whole, [plain.clone(), sent.clone(), plain.clone()]);

    let cut = ports[1].1.got.lock().unwrap();
    assert_eq!(cut.len(), 2 + 3, "two frames and three segments");
    assert_eq!((&cut[0], &cut[4]), (&plain, &plain), "the order is kept");
    let mut payload = Vec::<u8>::new();
    for (header, segment) in &cut[1..4] {
        assert_eq!(*header, NetHeader::default());
        assert!(segment.len() <= 54 + 1448);
        assert!(checksum::verify(checksum::Sum::default(), &segment[14..34]));
        payload.extend(&segment[54..]);
    }
    assert_eq!(payload, sent.1[54..]);
}

/// Datagrams in one frame stay together for whoever takes that of their IP
/// version.
#[test]
fn datagrams_are_made_one_by_one_for_who_does_not_take_them_together() {
    let csum = net::F_GUEST_CSUM;
    let offloads = [
        0,
        csum | net::F_GUEST_UFO,
        csum | net::F_GUEST_USO4,
        csum | net::F_GUEST_USO6,
        csum | net::GUEST_USO,
    ];
    for v6 in [false, true] {
        let (switch, ports) = switch_of(&[&[0][..], &offloads].concat());
        let packet = Packet::datagrams(v6, 3001);
        let sent = (packet.header(1000), packet.frame());
        send(&switch, ports[0].0, std::slice::from_ref(&sent));
        for ((_, sink), offloads) in ports[1..].iter().zip(offloads) {
            let got = std::mem::take(&mut *sink.got.lock().unwrap());
            let own = if v6 {
                net::F_GUEST_USO6
            } else {
                net::F_GUEST_USO4
            };
            if offloads & own != 0 {
                assert_eq!(got, std::slice::from_ref(&sent), "{offloads:#x}");
                continue;
            }
            assert_eq!(got.len(), 4, "{offloads:#x}");
            let mut payload = Vec::<u8>::new();
            for (header, datagram) in &got {
                assert_eq!(*header, NetHeader::default());
                parse(datagram);
                payload.extend(&datagram[packet.headers()..]);
            }
            assert_eq!(payload, packet.payload_bytes());
        }
    }
}

proptest! {
    /// However frames to several ports are mixed, each port gets exactly its
    /// own and the flooded ones, in the order in which they were sent.
    #[test]
    fn order_is_kept_for_each_destination(to in proptest::collection::vec(1_u8..6, 1..BATCH)) {
        let (switch, ports) = switch_of(&[0; 4]);
        for (n, (id, _)) in (0..).zip(&ports) {
            send_plain(&switch, *id, &[frame(mac(n), mac(n), 0)]);
        }
        ports.iter().for_each(|(_, sink)| drop(sink.frames()));
        // 1, 2, 3: known ports; 4: unknown; 5: broadcast.
        let frames: Vec<_> = (0..)
            .zip(&to)
            .map(|(tag, &to)| {
                let to = if to == 5 { [0xff; 6] } else { mac(to) };
                frame(to, mac(0), tag)
            })
            .collect();
        send_plain(&switch, ports[0].0, &frames);
        for (n, (_, sink)) in (0..).zip(&ports) {
            let want: Vec<_> = frames
                .iter()
                .zip(&to)
                .filter(|&(_, &to)| n != 0 && (to == n || to >= 4))
                .map(|(frame, _)| frame.clone())
                .collect();
            prop_assert_eq!(sink.frames(), want);
        }
    }
}
