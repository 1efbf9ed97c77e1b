//! Which pair uses which ring.

use std::time::Duration;

use super::bed::{Client, Sink, core, frame, open, send};
use super::*;
use crate::event::{Events, Interest, Poller};
use crate::virtio::net_header::NetHeader;

/// Whether a pair is woken at once.
fn woken(netmap: &Netmap, pair: usize) -> bool {
    let poller = Poller::new().unwrap();
    let fd = netmap.rx_fd(pair).unwrap();
    poller.add(fd, 0, Interest::READ).unwrap();
    let mut events = Events::new();
    poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
    !events.is_empty()
}

/// What a pair receives, until nothing is left.
fn drain(netmap: &Netmap, pair: usize) -> Vec<Vec<u8>> {
    let mut sink = Sink::new(&[2048]);
    assert_eq!(netmap.receive(pair, &mut sink), Received::Drained);
    sink.plain()
}

/// A frame to one station, so that the switch keeps it on its ring.
fn unicast(len: usize) -> Vec<u8> {
    let mut frame = frame(len);
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame
}

/// The switch knows where station 9 is.
fn announce(netmap: &Netmap) {
    let mut hello = frame(60);
    hello[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    assert_eq!(send(netmap, 0, &[(NetHeader::default(), hello)]).frames, 1);
}

#[test]
fn every_ring_is_received_by_one_of_the_active_pairs() {
    for (rings, pairs, active, want) in [
        (4, 4, 4, [0, 1, 2, 3]),
        (4, 4, 1, [0, 0, 0, 0]),
        (4, 2, 2, [0, 1, 0, 1]),
        (4, 8, 3, [0, 1, 2, 0]),
        (4, 8, 8, [0, 1, 2, 3]),
    ] {
        let core = core();
        let netmap = open(&core, "vale0:a", rings, pairs, Fragments::Several);
        assert_eq!(netmap.max_pairs(), pairs);
        netmap.set_active_pairs(active);
        let client = Client::with_rings(&core, "vale0:b", rings);
        announce(&netmap);
        for pair in 0..usize::from(pairs) {
            drain(&netmap, pair);
            assert!(!woken(&netmap, pair));
        }
        for (ring, pair) in want.into_iter().enumerate() {
            client.send_on(ring, &unicast(60 + ring));
            for other in 0..usize::from(pairs) {
                assert_eq!(woken(&netmap, other), other == pair, "ring {ring}");
                let got = drain(&netmap, other);
                assert_eq!(got, vec![unicast(60 + ring); usize::from(other == pair)]);
            }
        }
    }
}

#[test]
fn frames_are_sent_on_the_pairs_own_ring_or_on_one_it_shares() {
    for (rings, want) in [(4, [0, 1, 2, 3]), (2, [0, 1, 0, 1]), (1, [0, 0, 0, 0])] {
        let core = core();
        let netmap = open(&core, "vale0:a", rings, 4, Fragments::Several);
        let client = Client::with_rings(&core, "vale0:b", 4);
        let mut hello = frame(60);
        hello[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        client.send(&hello);
        for (pair, ring) in want.into_iter().enumerate() {
            let sent = send(&netmap, pair, &[(NetHeader::default(), unicast(60))]);
            assert_eq!(sent.frames, 1);
            // The switch keeps the ring's number.
            for other in 0..4 {
                assert_eq!(client.receive_on(other).len(), usize::from(other == ring));
            }
        }
    }
}

/// Frames that came before rings changed hands wait for nobody to knock again.
#[test]
fn who_gets_a_ring_looks_at_once() {
    let core = core();
    let netmap = open(&core, "vale0:a", 2, 2, Fragments::Several);
    let client = Client::with_rings(&core, "vale0:b", 2);
    announce(&netmap);
    drain(&netmap, 0);
    drain(&netmap, 1);
    client.send_on(1, &unicast(60));
    client.send_on(1, &unicast(61));
    assert!(woken(&netmap, 0));
    // One is taken, and the port has said all that it will say.
    let mut sink = Sink::new(&[2048]);
    sink.budget = 1;
    assert_eq!(netmap.receive(0, &mut sink), Received::Budget);
    netmap.set_active_pairs(2);
    assert!(woken(&netmap, 1));
    assert_eq!(drain(&netmap, 1), [unicast(61)]);
    assert!(drain(&netmap, 0).is_empty());
}

#[test]
fn pairs_that_share_a_ring_do_not_mix_their_frames() {
    let core = core();
    let netmap = open(&core, "vale0:a", 1, 4, Fragments::Several);
    let client = Client::new(&core, "vale0:b");
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|pair| {
                let netmap = &netmap;
                scope.spawn(move || {
                    let batch = vec![(NetHeader::default(), frame(3000 + pair)); 8];
                    (0..20)
                        .map(|_| send(netmap, pair, &batch).frames)
                        .sum::<u32>()
                })
            })
            .collect();
        let sent: u32 = senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .sum();
        got.extend(client.receive());
        // What the client's ring had no room for was dropped by the switch.
        assert_eq!(sent, 4 * 20 * 8);
    });
    assert!(!got.is_empty());
    for received in got {
        assert!(
            received == frame(received.len()),
            "{} bytes",
            received.len()
        );
    }
}
