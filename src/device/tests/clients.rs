//! Guests and netmap clients on one switch.

use std::sync::Arc;

use super::bed::{Guest, frame};
use super::{MODERN, PLAIN, received_frames};
use crate::netmap::abi::nmreq::{NR_MONITOR_RX, NR_MONITOR_TX, NR_ZCOPY_MON};
use crate::netmap::abi::{NS_MOREFRAG, NS_TXMON, Slot};
use crate::netmap::mem::RegionConfig;
use crate::netmap::port::{Direction, Port};
use crate::netmap::register::{Netmap, Registration, Request};
use crate::netmap::vale::Switches;
use crate::virtio::memory::COPIED;

/// A guest with address 1, and clients.
fn guest_and_clients<const N: usize>(names: [&str; N]) -> (Guest, [Registration; N]) {
    let switches = Arc::new(Switches::default());
    let guest = Guest::on(&switches.get("vale0"), 1, MODERN);
    let core = Arc::new(Netmap::new(switches, RegionConfig::global()));
    let clients = names.map(|name| core.register(&Request::new(name)).unwrap());
    (guest, clients)
}

/// Puts a frame into the transmit ring.
fn put(client: &Registration, frame: &[u8]) {
    let ring = client.ring(Direction::Tx, 0).unwrap();
    let mut at = ring.head();
    let chunks: Vec<&[u8]> = frame.chunks(2048).collect();
    for (nth, chunk) in (1..).zip(&chunks) {
        let slot = ring.slot(at).unwrap();
        ring.buffer(slot.buf_idx).unwrap().write(chunk);
        let len = u16::try_from(chunk.len()).unwrap();
        let flags = if nth < chunks.len() { NS_MOREFRAG } else { 0 };
        ring.set_slot(at, Slot { len, flags, ..slot });
        at = ring.next(at);
    }
    ring.set_cur(at);
    ring.set_head(at);
}

/// Takes what has come.
fn receive(client: &Registration) -> Vec<Vec<u8>> {
    client.rxsync().unwrap();
    let ring = client.ring(Direction::Rx, 0).unwrap();
    let mut frames = vec![vec![]];
    let mut at = ring.head();
    while at != ring.tail() {
        let slot = ring.slot(at).unwrap();
        let mut bytes = vec![0; slot.len.into()];
        ring.buffer(slot.buf_idx)
            .unwrap()
            .as_readable()
            .read(&mut bytes);
        frames.last_mut().unwrap().extend(bytes);
        if slot.flags & NS_MOREFRAG == 0 {
            frames.push(vec![]);
        }
        at = ring.next(at);
    }
    frames.pop();
    ring.set_cur(at);
    ring.set_head(at);
    client.rxsync().unwrap();
    frames
}

#[test]
fn frames_of_every_length_go_both_ways() {
    for len in [14, 15, 60, 1514, 2035, 2036, 2037, 2048, 2049, 9014, 65600] {
        let (mut guest, [client]) = guest_and_clients(["vale0:a"]);
        guest.offer(64, &[2048]);
        let sent = frame(2, 1, len);
        guest.send(&[(PLAIN, sent.clone())], &[12, 700]);
        assert!(receive(&client) == [sent], "{len} bytes to the client");
        let sent = frame(1, 2, len);
        put(&client, &sent);
        client.txsync().unwrap();
        let received = received_frames(&mut guest);
        assert!(received == [sent], "{len} bytes to the guest");
    }
}

#[test]
fn a_frame_between_guest_and_client_is_copied_once() {
    let (mut guest, [client]) = guest_and_clients(["vale0:a"]);
    guest.offer(64, &[2048]);
    let len = 1514;
    let once = |copied: usize| {
        // Besides the frame, its headers are looked at, and one is written.
        let each = len + 12 + 14 + 12;
        assert!((32 * len..=32 * each).contains(&copied), "{copied}");
    };
    for token in 0..32 {
        guest.send_raw(token, &[vec![0; 12], frame(2, 1, len)].concat(), &[12]);
    }
    COPIED.set(0);
    guest.transmit();
    once(COPIED.get());
    assert_eq!(receive(&client).len(), 32);

    for _ in 0..32 {
        put(&client, &frame(1, 2, len));
    }
    COPIED.set(0);
    client.txsync().unwrap();
    once(COPIED.get());
    assert_eq!(received_frames(&mut guest).len(), 32);
}

#[test]
fn a_client_that_never_syncs_and_a_guest_without_buffers_hold_up_nobody() {
    let names = ["vale0:a", "vale0:b", "vale0:slow"];
    let (mut guest, [a, b, slow]) = guest_and_clients(names);
    for round in 0..100 {
        let len = 60 + round;
        for _ in 0..50 {
            put(&a, &frame(0xfe, 2, len));
        }
        a.txsync().unwrap();
        assert!(receive(&b) == vec![frame(0xfe, 2, len); 50]);
    }
    assert_eq!(receive(&slow).len(), 1023);
    assert_eq!(guest.pair.rx_stats.frames.get(), 0);
    guest.offer(64, &[2048]);
    put(&a, &frame(1, 2, 99));
    a.txsync().unwrap();
    assert!(received_frames(&mut guest) == [frame(1, 2, 99)]);
}

/// What a guest and a client had of each other in each of some rounds, beside
/// another client that never syncs, or is not there: received frames, and room
/// that the client has for the next.
fn rounds(slow: bool) -> Vec<[usize; 3]> {
    const ROUNDS: usize = 200;
    let switches = Arc::new(Switches::default());
    let mut guest = Guest::on(&switches.get("vale0"), 1, MODERN);
    let core = Arc::new(Netmap::new(switches, RegionConfig::global()));
    let open = |name| core.register(&Request::new(name)).unwrap();
    let client = open("vale0:a");
    let other = slow.then(|| open("vale0:slow"));
    let rounds = (0..ROUNDS).map(|round| {
        guest.offer(24, &[2048]);
        // Some are for an address that nobody has, and go to everybody.
        for nth in 0..24 {
            let to = if nth % 4 == 0 { 0xfe } else { 1 };
            put(&client, &frame(to, 2, 60 + round));
        }
        client.txsync().unwrap();
        let to_guest = received_frames(&mut guest).len();
        let frames: Vec<_> = (0..24)
            .map(|nth| (PLAIN, frame(if nth % 4 == 0 { 0xfe } else { 2 }, 1, 99)))
            .collect();
        guest.send(&frames, &[12]);
        let room = client.ring(Direction::Tx, 0).unwrap().available();
        [to_guest, receive(&client).len(), room as usize]
    });
    let rounds = rounds.collect();
    if let Some(other) = other {
        let counts = other.kring(Direction::Rx, 0).unwrap().counters().read();
        // What it has room for it could have; the rest is lost to it alone.
        assert_eq!(counts.frames, 1023);
        assert!(counts.full > 0);
    }
    rounds
}

#[test]
fn beside_a_client_that_never_syncs_the_others_keep_their_rate() {
    let beside = rounds(true);
    assert_eq!(beside, rounds(false));
    assert!(beside.iter().all(|round| *round == [24, 24, 1023]));
}

#[test]
fn a_monitor_sees_exactly_the_guests_frames() {
    let switches = Arc::new(Switches::default());
    let mut guest = Guest::on(&switches.get("vale0"), 1, MODERN);
    let core = Arc::new(Netmap::new(Arc::clone(&switches), RegionConfig::global()));
    let [port] = <[_; 1]>::try_from(switches.get("vale0").ports()).unwrap();
    let name = format!("vale0:{}", port.1);
    let open = |name: &str, flags| {
        let request = Request {
            flags,
            ..Request::new(name)
        };
        core.register(&request)
    };
    let client = open("vale0:a", 0).unwrap();
    let both = open(&name, NR_MONITOR_TX | NR_MONITOR_RX).unwrap();
    let sent = open(&name, NR_MONITOR_TX).unwrap();
    assert!(
        open(&name, NR_ZCOPY_MON).is_err(),
        "its memory is the guest's"
    );
    assert!(open(&name, 0).is_err(), "and so is its port");
    guest.offer(64, &[2048]);
    guest.send(
        &[(PLAIN, frame(2, 1, 60)), (PLAIN, frame(2, 1, 3000))],
        &[12],
    );
    put(&client, &frame(1, 2, 61));
    // Of others the monitors see nothing.
    put(&client, &frame(9, 2, 62));
    client.txsync().unwrap();
    let flags = both.kring(Direction::Rx, 0).unwrap().view();
    assert!(receive(&sent) == [frame(2, 1, 60), frame(2, 1, 3000)]);
    let seen = receive(&both);
    assert!(seen[..3] == [frame(2, 1, 60), frame(2, 1, 3000), frame(1, 2, 61)]);
    // An unknown address is for everybody.
    assert!(seen[3..] == [frame(9, 2, 62)]);
    let txmon = |at| flags.slot(at).unwrap().flags & NS_TXMON != 0;
    assert_eq!([0, 1, 2, 3].map(txmon), [true, true, true, false]);
    assert_eq!(received_frames(&mut guest).len(), 2);
    assert!(both.txsync().is_err());
    // When the guest's port goes, there is nothing to see any more.
    switches.get("vale0").detach(port.0);
    assert!(both.rxsync().is_err());
    drop((client, both, sent));
}
