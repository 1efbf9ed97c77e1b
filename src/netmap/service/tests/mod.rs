//! Programs that use the service over real sockets.

mod bed;
mod hostile;
mod loops;
#[path = "../../../../tests/service/program.rs"]
mod program;

use std::io::Write;
use std::mem::offset_of;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};

use super::wire::Request;
use super::wire::page::Operation;
use crate::netmap::abi::Ring;
use crate::netmap::abi::nmreq::*;
use crate::netmap::port::Direction;
use bed::Bed;
use program::{Channel, LONG, Program, frame};

/// A descriptor whose close(2) takes as long as what comes with it is there: a
/// socket with data that nobody takes and time to linger. A file of FUSE may be
/// as slow.
pub fn slow_to_close() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Accepted sockets have it, too. What fills the near end does not fit into
    // the far one, however late that takes it.
    setsockopt(&listener, sockopt::RcvBuf, &(1 << 12)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    setsockopt(&near, sockopt::SndBuf, &(1 << 17)).unwrap();
    let (far, _) = listener.accept().unwrap();
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 100,
    };
    setsockopt(&near, sockopt::Linger, &linger).unwrap();
    near.set_nonblocking(true).unwrap();
    while (&near).write(&[0; 1 << 16]).is_ok() {}
    // FreeBSD's does not linger while it is non-blocking.
    near.set_nonblocking(false).unwrap();
    (near.into(), far)
}

/// Waits until `done`, which others bring about.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < LONG, "{what}: never");
        thread::yield_now();
    }
}

#[test]
fn two_programs_meet_on_a_switch() {
    let bed = Bed::new();
    let (mut a, mut b) = (bed.open(), bed.open());
    assert_eq!(a.request(&Request::Map).unwrap().0.errno, 6, "ENXIO");
    a.bind("vale0:a").unwrap();
    b.bind("vale0:b").unwrap();
    assert_eq!(bed.ports("vale0"), ["a", "b"]);
    assert_eq!(a.bind("vale0:c").unwrap_err(), Errno::EBUSY);
    let frames: Vec<_> = (0..600).map(frame).collect();
    for _ in 0..3 {
        assert_eq!(a.send(&frames), 600);
        assert_eq!(b.receive(), frames);
    }
    assert_eq!(b.receive(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_poll_for_room_does_not_wait_for_the_frames_before_it() {
    let bed = Bed::new();
    let (mut a, mut b) = (bed.open(), bed.open());
    a.bind("vale0:a").unwrap();
    b.bind("vale0:b").unwrap();
    let tail = |a: &Program| a.ring(Direction::Tx).get(offset_of!(Ring, tail));
    let first = tail(&a);
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    for nth in 0..100 {
        let frames: Vec<_> = (0..300).map(|at| frame(300 * nth + at)).collect();
        assert_eq!(a.ring(Direction::Tx).fill(&frames), 300);
        sent.extend(frames);
        let before = tail(&a);
        let found = a.channel.poll(PollFlags::POLLOUT);
        assert_eq!(found, PollFlags::POLLOUT);
        // Of the room that this makes the next tells, and nobody else.
        assert_eq!(tail(&a) == before, nth == 0);
        until("all are there", || {
            got.extend(b.receive());
            got.len() == sent.len()
        });
    }
    assert!(got == sent);
    // Who waits for what he has sent sees that it is.
    a.sync(Direction::Tx);
    let slots = a.ring(Direction::Tx).get(offset_of!(Ring, num_slots));
    assert_eq!(tail(&a), (first + 100 * 300) % slots);
}

#[test]
fn who_waits_is_woken() {
    let bed = Bed::new();
    let (mut a, mut b) = (bed.open(), bed.open());
    a.bind("vale0:a").unwrap();
    b.bind("vale0:b").unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for nth in 0..200 {
                // The next is sent when the last was there.
                assert_eq!(b.channel.poll(PollFlags::POLLIN), PollFlags::POLLIN);
                assert_eq!(b.receive(), [frame(nth)]);
                b.send(&[frame(nth)]);
            }
        });
        for nth in 0..200 {
            a.send(&[frame(nth)]);
            assert_eq!(a.channel.poll(PollFlags::POLLIN), PollFlags::POLLIN);
            assert_eq!(a.receive(), [frame(nth)]);
        }
    });
}

#[test]
fn a_port_goes_with_the_last_descriptor() {
    let bed = Bed::new();
    let mut a = bed.open();
    a.bind("vale0:a").unwrap();
    let copy = a.connection.try_clone().unwrap();
    // Another process would have a channel of its own.
    let mut other = Channel::attach(copy.as_fd()).unwrap();
    drop(a);
    let outcome = other.ask(Operation::Sync(Direction::Tx));
    assert_eq!(
        (outcome.result, bed.ports("vale0")),
        (0, vec!["a".to_owned()])
    );
    drop(copy);
    bed.until("the port is gone", || bed.ports("vale0").is_empty());
}

#[test]
fn ports_that_are_persistent_outlive_their_maker() {
    let bed = Bed::new();
    let mut a = bed.open();
    a.control(NETMAP_REQ_VALE_NEWIF, "per0", &NewInterfaceBody::default())
        .unwrap();
    a.control(
        NETMAP_REQ_VALE_ATTACH,
        "vale0:per0",
        &AttachBody {
            reg: RegisterBody {
                nr_mode: NR_REG_ALL_NIC,
                ..RegisterBody::default()
            },
            ..AttachBody::default()
        },
    )
    .unwrap();
    drop(a);
    let mut b = bed.open();
    assert_eq!(bed.ports("vale0"), ["per0"]);
    b.bind("vale0:per0").unwrap();
}
