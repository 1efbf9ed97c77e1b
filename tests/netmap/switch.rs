//! Clients that exchange frames over a switch.

use std::sync::Arc;

use vtnetd::netmap::port::{Direction, HeaderLen, Port};
use vtnetd::netmap::register::{Netmap, Request};

use crate::client::{BROADCAST, Client, core, frame};

/// In the global region, whose buffers a test can choose.
fn global(core: &Arc<Netmap>, name: &str) -> Client {
    Client::with(
        core,
        Request {
            mem_id: 1,
            ..Request::new(name)
        },
    )
}

/// Every length that could matter: all short ones, and those around the ends
/// of one and more buffers.
fn lens(buffers: &[usize]) -> Vec<usize> {
    let longest = 65536 + 64;
    let mut lens: Vec<usize> = (14..300).chain([longest - 1, longest]).collect();
    for size in buffers {
        let ends = [1, 2, 3, 7, longest / size].map(|n| n * size);
        lens.extend(ends.into_iter().flat_map(|end| [end - 1, end, end + 1]));
    }
    lens.retain(|len| (14..=longest).contains(len));
    lens
}

fn exchange(a: &Client, b: &Client, buffers: &[usize]) {
    // Both are known to the switch.
    a.send(&[frame(2, 1, 60)]);
    b.send(&[frame(1, 2, 60)]);
    b.receive();
    a.receive();
    for len in lens(buffers) {
        for (from, to, sent) in [(a, b, frame(2, 1, len)), (b, a, frame(1, 2, len))] {
            from.send(&[&sent]);
            let received = to.receive();
            assert_eq!(received.len(), 1, "{len}");
            assert!(received[0] == sent, "{len}");
        }
    }
}

#[test]
fn frames_of_every_length_arrive_whole() {
    let core = core(2048);
    let (a, b) = (Client::new(&core, "vale0:a"), Client::new(&core, "vale0:b"));
    exchange(&a, &b, &[2048]);
}

#[test]
fn frames_arrive_whole_between_buffers_of_different_sizes() {
    for size in [512, 1536, 4096, 65536] {
        let core = core(size);
        let (a, b) = (global(&core, "vale0:a"), Client::new(&core, "vale0:b"));
        exchange(&a, &b, &[2048, size as usize]);
    }
}

#[test]
fn frames_arrive_whole_within_one_region() {
    let core = core(2048);
    let (a, b) = (global(&core, "vale0:a"), global(&core, "vale0:b"));
    assert!(Arc::ptr_eq(a.port.region(), b.port.region()));
    exchange(&a, &b, &[2048]);
}

#[test]
fn a_known_address_gets_its_frames_alone() {
    let core = core(2048);
    let names = ["vale0:a", "vale0:b", "vale0:c"];
    let [a, b, c] = names.map(|name| Client::new(&core, name));
    a.send(&[frame(2, 1, 60)]);
    assert_eq!((b.receive().len(), c.receive().len()), (1, 1), "unknown");
    b.send(&[frame(1, 2, 60)]);
    assert_eq!((a.receive().len(), c.receive().len()), (1, 0));
    a.send(&[frame(2, 1, 60), frame(BROADCAST, 1, 61), frame(2, 1, 62)]);
    let sent = [frame(2, 1, 60), frame(BROADCAST, 1, 61), frame(2, 1, 62)];
    assert_eq!(b.receive(), sent);
    assert_eq!(c.receive(), sent[1..2]);
    assert_eq!(a.receive().len(), 0, "nothing comes back");
    // Another switch is another world.
    let other = Client::new(&core, "vale1:c");
    a.send(&[frame(BROADCAST, 1, 60)]);
    assert_eq!(other.receive().len(), 0);
}

#[test]
fn one_who_never_syncs_holds_up_nobody() {
    let core = core(2048);
    let names = ["vale0:a", "vale0:b", "vale0:slow"];
    let [a, b, slow] = names.map(|name| Client::new(&core, name));
    for round in 0..100 {
        let sent: Vec<Vec<u8>> = (0..100)
            .map(|n| frame(BROADCAST, 1, 60 + round + n))
            .collect();
        a.send(&sent);
        assert!(b.receive() == sent);
    }
    let count = |client: &Client| {
        let kring = client.port.kring(Direction::Rx, 0).unwrap();
        let counts = kring.counters().read();
        (counts.frames, counts.full)
    };
    assert_eq!(count(&b), (10_000, 0));
    assert_eq!(count(&slow), (1023, 8977));
    // What it has is what came first.
    let received = slow.receive();
    assert_eq!(received.len(), 1023);
    assert!(
        received[..100]
            == (0..100)
                .map(|n| frame(BROADCAST, 1, 60 + n))
                .collect::<Vec<_>>()
    );
    a.send(&[frame(BROADCAST, 1, 99)]);
    assert_eq!(slow.receive(), [frame(BROADCAST, 1, 99)]);
}

#[test]
fn rings_are_matched_by_their_numbers() {
    let core = core(2048);
    let four = |name: &str| Request {
        tx_rings: 4,
        rx_rings: 4,
        ..Request::new(name)
    };
    let a = core.register(&four("vale0:a")).unwrap();
    let b = core.register(&four("vale0:b")).unwrap();
    for (nth, len) in (0..4).zip([60, 61, 62, 63]) {
        let ring = a.ring(Direction::Tx, nth).unwrap();
        let mut slot = ring.slot(0).unwrap();
        ring.buffer(slot.buf_idx).unwrap().write(&frame(2, 1, 64));
        slot.len = len;
        ring.set_slot(0, slot);
        ring.set_cur(1);
        ring.set_head(1);
    }
    a.txsync().unwrap();
    b.rxsync().unwrap();
    for (nth, len) in (0..4).zip([60, 61, 62, 63]) {
        let ring = b.ring(Direction::Rx, nth).unwrap();
        assert_eq!((ring.available(), ring.slot(0).unwrap().len), (1, len));
    }
}

#[test]
fn a_port_that_goes_takes_its_addresses_with_it() {
    let core = core(2048);
    let a = Client::new(&core, "vale0:a");
    let b = Client::new(&core, "vale0:b");
    let c = Client::new(&core, "vale0:c");
    b.send(&[frame(BROADCAST, 2, 60)]);
    drop(b);
    a.receive();
    c.receive();
    a.send(&[frame(2, 1, 60)]);
    assert_eq!(c.receive().len(), 1, "flooded again");
    // The name and the number are free again.
    let b = Client::new(&core, "vale0:b");
    a.send(&[frame(2, 1, 61)]);
    assert_eq!((b.receive().len(), c.receive().len()), (1, 1));
}

#[test]
fn what_a_client_did_not_send_yet_is_not_sent_when_it_goes() {
    let core = core(2048);
    let (a, b) = (Client::new(&core, "vale0:a"), Client::new(&core, "vale0:b"));
    assert!(a.put(&frame(2, 1, 60)));
    drop(a);
    assert_eq!(b.receive().len(), 0);
}

#[test]
fn the_header_length_changes_between_frames() {
    let core = core(2048);
    let accept = |name: &str| Request {
        flags: vtnetd::netmap::abi::nmreq::NR_ACCEPT_VNET_HDR,
        ..Request::new(name)
    };
    let a = Client::with(&core, accept("vale0:a"));
    let b = Client::with(&core, accept("vale0:b"));
    let lens = [HeaderLen::None, HeaderLen::Legacy, HeaderLen::Full];
    for (ours, theirs) in lens.iter().flat_map(|a| lens.map(|b| (*a, b))) {
        a.port.set_header_len(ours).unwrap();
        b.port.set_header_len(theirs).unwrap();
        let sent = frame(2, 1, 3000);
        a.send(&[[vec![0; ours.bytes()], sent.clone()].concat()]);
        let received = b.receive();
        assert_eq!(received.len(), 1, "{ours:?} to {theirs:?}");
        let mut header = vec![0; theirs.bytes()];
        if let Some(num_buffers) = header.get_mut(10) {
            *num_buffers = 1;
        }
        assert!(received[0] == [header, sent].concat());
    }
}
