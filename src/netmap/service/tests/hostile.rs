//! Programs that do not keep to anything.

use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::unistd::{ftruncate, pipe};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::bed::Bed;
use super::program::{Channel, Program, dial, frame, receive};
use super::slow_to_close;
use crate::netmap::abi::nmreq::*;
use crate::netmap::abi::{Ring, Slot};
use crate::netmap::port::Direction;
use crate::netmap::service::wire::page::Operation;
use crate::netmap::service::wire::socket::{bell_pair, channel_pair, ring, send_message};
use crate::netmap::service::wire::{CHANNELS, Request, Segment, VERSION};
use crate::netmap::sync::Pointers;

/// Two programs that go on whatever others do.
struct Peaceful(Program, Program);

impl Peaceful {
    fn new(bed: &Bed) -> Self {
        let (mut a, mut b) = (bed.open(), bed.open());
        a.bind("vale0:a").unwrap();
        b.bind("vale0:b").unwrap();
        Self(a, b)
    }

    fn check(&mut self) {
        // What others have sent is there, too.
        self.1.receive();
        let frames: Vec<_> = (1000..1100).map(frame).collect();
        assert_eq!(self.0.send(&frames), 100);
        let mut seen = self.1.receive();
        seen.retain(|seen| frames.contains(seen));
        assert_eq!(seen, frames);
    }
}

/// The service has closed the connection.
fn is_closed(socket: BorrowedFd<'_>) -> bool {
    matches!(receive(socket), Err(Errno::EPIPE | Errno::ECONNRESET))
}

#[test]
fn what_is_no_message_ends_its_sender() {
    let bed = Bed::new();
    let mut peaceful = Peaceful::new(&bed);
    let request = Request::Map.encode().unwrap();
    // On the connection.
    for message in [&b"x"[..], &request, &[0; 40]] {
        let connection = dial(&bed.path).unwrap();
        send_message(connection.as_fd(), message, &[]).unwrap();
        assert!(is_closed(connection.as_fd()));
    }
    // On a channel: the connection stays.
    let connection = dial(&bed.path).unwrap();
    for message in [&b"x"[..], &[0xff; 80_000]] {
        let channel = Channel::attach(connection.as_fd()).unwrap();
        send_message(channel.socket.as_fd(), message, &[]).unwrap();
        assert!(is_closed(channel.socket.as_fd()));
    }
    let attach = Request::Attach { version: VERSION }.encode().unwrap();
    let channel = Channel::attach(connection.as_fd()).unwrap();
    send_message(channel.socket.as_fd(), &attach, &[]).unwrap();
    assert!(is_closed(channel.socket.as_fd()));
    Channel::attach(connection.as_fd()).unwrap();
    peaceful.check();
}

#[test]
fn descriptors_that_are_no_channel_are_refused() {
    let bed = Bed::new();
    let mut peaceful = Peaceful::new(&bed);
    let attach = Request::Attach { version: VERSION }.encode().unwrap();
    let (_, pipe) = pipe().unwrap();
    let (channel, bell) = (channel_pair().unwrap(), bell_pair().unwrap());
    let attempts: [&[BorrowedFd<'_>]; 5] = [
        &[],
        &[channel.0.as_fd()],
        &[bell.0.as_fd(), channel.0.as_fd()],
        &[channel.0.as_fd(), pipe.as_fd()],
        &[pipe.as_fd(), bell.0.as_fd()],
    ];
    for fds in attempts {
        let connection = dial(&bed.path).unwrap();
        send_message(connection.as_fd(), &attach, fds).unwrap();
        assert!(is_closed(connection.as_fd()));
    }
    let connection = dial(&bed.path).unwrap();
    let old = Request::Attach { version: 0 }.encode().unwrap();
    let fds = [channel.0.as_fd(), bell.0.as_fd()];
    send_message(connection.as_fd(), &old, &fds).unwrap();
    let (answer, _) = receive(channel.1.as_fd()).unwrap();
    assert_eq!(answer.errno, Errno::EPROTONOSUPPORT as u32);
    peaceful.check();
}

/// Something that takes long to close in every place where something can come
/// that nobody has asked for.
#[test]
fn what_is_slow_to_close_holds_up_nobody() {
    let bed = Bed::new();
    let mut peaceful = Peaceful::new(&bed);
    let attach = Request::Attach { version: VERSION }.encode().unwrap();
    let map = Request::Map.encode().unwrap();
    let mut held = Vec::new();
    let mut slow = || {
        let (fd, far) = slow_to_close();
        held.push(far);
        fd
    };
    // What is sent while the service does nothing is closed by it.
    let mut send = |socket: BorrowedFd<'_>, messages: &[(&[u8], usize)]| {
        let _paused = bed.pause();
        for (message, count) in messages {
            let fds: Vec<_> = (0..*count).map(|_| slow()).collect();
            let sent: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            send_message(socket, message, &sent).unwrap();
        }
    };
    // On the connection: too few, in place of sockets, too many, out of place.
    for (message, count) in [(&attach, 1), (&attach, 2), (&attach, 3), (&map, 2)] {
        let connection = dial(&bed.path).unwrap();
        send(connection.as_fd(), &[(message, count)]);
        peaceful.check();
    }
    // On a channel, and where nobody looks any more.
    let connection = dial(&bed.path).unwrap();
    let channel = Channel::attach(connection.as_fd()).unwrap();
    send(channel.socket.as_fd(), &[(&map, 1)]);
    peaceful.check();
    send(connection.as_fd(), &[(b"x", 1), (b"x", 1)]);
    drop((channel, connection));
    peaceful.check();
    // All of it is given back once it can be.
    drop(held);
    bed.until("a program is let in again", || {
        Program::open(&bed.path).is_ok()
    });
}

#[test]
fn channels_are_limited() {
    let bed = Bed::new();
    let connection = dial(&bed.path).unwrap();
    let channels: Vec<_> = (0..CHANNELS)
        .map(|_| Channel::attach(connection.as_fd()).unwrap())
        .collect();
    let refused = Channel::attach(connection.as_fd());
    assert_eq!(refused.err(), Some(Errno::EMFILE));
    drop(channels);
    // The service hears of it in its own time.
    bed.until("a channel again", || {
        Channel::attach(connection.as_fd()).is_ok()
    });
}

#[test]
fn descriptors_of_one_user_are_limited() {
    let bed = Bed::new();
    let mut open = Vec::new();
    while let Ok(program) = Program::open(&bed.path) {
        open.push(program);
        assert!(open.len() <= 64);
    }
    assert_eq!(open.len(), 64);
    open.clear();
    bed.until("a descriptor again", || Program::open(&bed.path).is_ok());
}

/// A program that asks and never reads its answers.
#[test]
fn who_does_not_read_is_not_waited_for() {
    let bed = Bed::new();
    let mut peaceful = Peaceful::new(&bed);
    let silent = bed.open();
    let long = Request::Ioctl {
        command: NIOCCTRL,
        argument: 1,
        segments: vec![],
    };
    let long = long.encode().unwrap();
    while send_message(silent.channel.socket.as_fd(), &long, &[]).is_ok() {
        ring(silent.channel.bell.as_fd());
    }
    peaceful.check();
    let connection = silent.connection;
    Channel::attach(connection.as_fd()).unwrap();
}

#[test]
fn a_region_and_a_page_keep_their_size() {
    let bed = Bed::new();
    let mut program = bed.open();
    program.bind("vale0:a").unwrap();
    let (_, fds) = program.request(&Request::Map).unwrap();
    let region: &OwnedFd = &fds[0];
    assert!(ftruncate(region, 0).is_err());
    assert!(ftruncate(region, 1 << 40).is_err());
    program.send(&[frame(1)]);
}

#[test]
fn requests_in_the_wrong_place() {
    let bed = Bed::new();
    let mut program = bed.open();
    for command in [NIOCTXSYNC, NIOCRXSYNC, 0, u64::MAX] {
        assert_eq!(program.ioctl(command, 0), Err(Errno::EOPNOTSUPP));
    }
    for operation in [
        Operation::Sync(Direction::Tx),
        Operation::Sync(Direction::Rx),
        Operation::Ring {
            direction: Direction::Tx,
            ring: 0,
            pointers: Pointers { head: 0, cur: 0 },
        },
    ] {
        let outcome = program.channel.ask(operation);
        assert_eq!(outcome.result, Errno::ENXIO as u32, "nothing is bound");
    }
    program.bind("vale0:a").unwrap();
    let outcome = program.channel.ask(Operation::Ring {
        direction: Direction::Tx,
        ring: 0,
        pointers: Pointers { head: 0, cur: 0 },
    });
    assert_eq!(outcome.result, Errno::EINVAL as u32, "no block is shared");
    // A block that claims all memory.
    let claims = Request::Ioctl {
        command: NIOCCTRL,
        argument: 0,
        segments: vec![
            Segment {
                address: 0,
                len: u32::MAX,
                data: vec![],
            };
            8
        ],
    };
    let message = claims.encode().unwrap();
    send_message(program.channel.socket.as_fd(), &message, &[]).unwrap();
    assert!(is_closed(program.channel.socket.as_fd()));
}

/// Rings, slots and pages full of anything: the others go on, and so does the
/// program, on its ring that begins anew.
#[test]
fn scribbling_harms_nobody() {
    let bed = Bed::new();
    let mut peaceful = Peaceful::new(&bed);
    let mut runner = TestRunner::new(Config::with_cases(200));
    let word = prop_oneof![any::<u32>(), 0u32..2048, Just(u32::MAX)];
    let fields = prop::collection::vec((0usize..64, word.clone()), 1..8);
    let slots = prop::collection::vec((0u32..1024, word, any::<(u16, u16, u64)>()), 0..8);
    let program = std::cell::RefCell::new(bed.open());
    program.borrow_mut().bind("vale0:c").unwrap();
    let run = runner.run(&(fields, slots, any::<bool>()), |(fields, slots, tx)| {
        let mut program = program.borrow_mut();
        let direction = if tx { Direction::Tx } else { Direction::Rx };
        let ring = program.ring(direction);
        for (at, value) in fields {
            ring.set(4 * at, value);
        }
        for (at, buf_idx, (len, flags, ptr)) in slots {
            let slot = Slot {
                buf_idx,
                len,
                flags,
                ptr,
            };
            ring.set_slot(at, slot);
        }
        for operation in [
            Operation::Sync(direction),
            Operation::Poll {
                events: 5,
                arm: true,
            },
        ] {
            program.channel.ask(operation);
        }
        Ok(())
    });
    run.unwrap();
    peaceful.check();
}

#[test]
fn a_page_full_of_anything() {
    let bed = Bed::new();
    let mut peaceful = Peaceful::new(&bed);
    let mut program = bed.open();
    program.bind("vale0:c").unwrap();
    for nth in 0..20_000u64 {
        program
            .channel
            .scribble(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        ring(program.channel.bell.as_fd());
    }
    peaceful.check();
    let head = program.ring(Direction::Tx).get(offset_of!(Ring, head));
    assert!(head < 1024);
}

/// A client's end of the connection that is no netmap client at all.
#[test]
fn who_only_connects_is_let_be() {
    let bed = Bed::new();
    let mut peaceful = Peaceful::new(&bed);
    let idle: Vec<_> = (0..10).map(|_| dial(&bed.path).unwrap()).collect();
    peaceful.check();
    drop(idle);
    // Of another type: the system refuses.
    assert!(UnixStream::connect(&bed.path).is_err());
    peaceful.check();
}
