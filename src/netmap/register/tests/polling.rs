//! What poll(2) does.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::netmap::abi::Slot;

const OUT: PollFlags = PollFlags::POLLOUT;
const IN: PollFlags = PollFlags::POLLIN;
const NONE: PollFlags = PollFlags::empty();

/// A pipe: its slots wait until the other end takes them.
fn pipe(flags: u64) -> [Registration; 2] {
    let core = core();
    ["vale0:a{1", "vale0:a}1"].map(|name| {
        let request = request(name, |r| {
            (r.tx_slots, r.rx_slots) = (4, 4);
            r.flags = flags;
        });
        core.register(&request).unwrap()
    })
}

/// Hands `count` slots over without a sync.
fn fill(client: &Registration, direction: Direction, count: u32) {
    let ring = client.ring(direction, 0).unwrap();
    let at = (0..count).fold(ring.head(), |at, _| {
        let slot = ring.slot(at).unwrap();
        ring.set_slot(at, Slot { len: 60, ..slot });
        ring.next(at)
    });
    ring.set_cur(at);
    ring.set_head(at);
}

/// The client's descriptor is readable.
fn woken(client: &Registration) -> bool {
    let mut fds = [PollFd::new(client.fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

#[test]
fn room_and_frames() {
    let [a, b] = pipe(0);
    assert_eq!(a.poll(OUT | IN, false), OUT);
    assert_eq!(b.poll(IN, false), NONE);
    fill(&a, Direction::Tx, 3);
    // Nobody asks for room; what is pending is sent all the same.
    assert_eq!(a.poll(IN, false), NONE);
    assert_eq!(a.poll(OUT, false), NONE, "full");
    assert_eq!(
        b.poll(IN | PollFlags::POLLRDNORM, false),
        IN | PollFlags::POLLRDNORM
    );
    fill(&b, Direction::Rx, 3);
    // The frames are released when the next are asked for.
    assert_eq!(a.poll(OUT, false), NONE);
    assert_eq!(b.poll(IN, false), NONE);
    assert_eq!(
        a.poll(OUT | PollFlags::POLLWRNORM, false),
        OUT | PollFlags::POLLWRNORM
    );
}

#[test]
fn who_sleeps_is_woken_once() {
    let [a, b] = pipe(0);
    assert_eq!(b.poll(IN, true), NONE);
    assert!(!woken(&b));
    fill(&a, Direction::Tx, 3);
    assert_eq!(a.poll(OUT, true), NONE);
    assert!(woken(&b), "by what poll sent");
    assert!(!woken(&a));
    assert_eq!(b.poll(IN, true), IN);
    assert!(!woken(&b), "it has been told");
    fill(&b, Direction::Rx, 1);
    b.rxsync().unwrap();
    assert!(woken(&a), "there is room");
    assert_eq!(a.poll(OUT, true), OUT);
    // Who does not sleep is not woken.
    fill(&b, Direction::Rx, 1);
    b.rxsync().unwrap();
    assert!(!woken(&a));
}

#[test]
fn what_is_waited_for_wakes_and_nothing_else() {
    let [a, b] = pipe(0);
    assert_eq!(a.poll(IN, true), NONE);
    fill(&a, Direction::Tx, 1);
    a.txsync().unwrap();
    b.rxsync().unwrap();
    fill(&b, Direction::Rx, 1);
    b.rxsync().unwrap();
    assert!(!woken(&a), "it waits for frames, not for room");
    fill(&b, Direction::Tx, 1);
    b.txsync().unwrap();
    assert!(woken(&a));
}

#[test]
fn the_two_flags_of_registrations() {
    let [a, b] = pipe(nmreq::NR_NO_TX_POLL | nmreq::NR_DO_RX_POLL);
    fill(&a, Direction::Tx, 1);
    a.poll(IN, false);
    assert_eq!(b.poll(IN, false), NONE, "not sent without POLLOUT");
    assert_eq!(a.poll(OUT, false), OUT, "there is room, and no sync");
    assert_eq!(b.poll(IN, false), NONE);
    fill(&a, Direction::Tx, 2);
    assert_eq!(a.poll(OUT, false), NONE, "all is sent, and no room");
    assert_eq!(b.poll(IN, false), IN);
    fill(&b, Direction::Rx, 3);
    assert_eq!(a.poll(OUT, false), NONE);
    // Released without POLLIN, and nothing is told that was not asked.
    assert_eq!(b.poll(OUT, false), OUT);
    assert_eq!(a.poll(OUT, false), OUT);
}

/// A poll that is answered early would send, or not release, what they say.
#[test]
fn with_the_two_flags_no_poll_is_answered_early() {
    let core = core();
    for (flags, begins) in [
        (0, true),
        (nmreq::NR_NO_TX_POLL, false),
        (nmreq::NR_DO_RX_POLL, false),
    ] {
        let request = request("vale0:a", |r| r.flags = flags);
        let registration = core.register(&request).unwrap();
        fill(&registration, Direction::Tx, 1);
        assert_eq!(registration.begin_poll(OUT).is_some(), begins, "{flags:#x}");
    }
}

#[test]
fn broken_rings_and_lost_ports_are_errors() {
    let [a, b] = pipe(0);
    let ring = a.ring(Direction::Tx, 0).unwrap();
    ring.set_head(1000);
    ring.set_cur(1000);
    assert!(a.poll(IN, false).contains(PollFlags::POLLERR));
    assert_eq!(a.poll(OUT, false), OUT, "it has begun anew");
    let ring = b.ring(Direction::Rx, 0).unwrap();
    ring.set_head(3);
    ring.set_cur(3);
    assert!(b.poll(IN, true).contains(PollFlags::POLLERR));
    let core = core();
    let port = core.register(&Request::new("vale0:a")).unwrap();
    let monitor = core
        .register(&request("vale0:a", |r| r.flags = nmreq::NR_MONITOR_RX))
        .unwrap();
    // Its transmit ring is none.
    assert_eq!(monitor.poll(IN, false), NONE);
    drop(port);
    assert!(monitor.poll(IN, false).contains(PollFlags::POLLERR));
}
