use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;

use super::page::{Client, Operation, Outcome, Service};
use super::socket::{bell_pair, channel_pair, quiet, receive_message, ring, send_message};
use super::*;
use crate::netmap::port::Direction;
use crate::netmap::sync::Pointers;

fn segment() -> impl Strategy<Value = Segment> {
    let data = prop::collection::vec(any::<u8>(), 0..40);
    (any::<u64>(), data, 0..9u32).prop_map(|(address, data, more)| Segment {
        address,
        len: u32::try_from(data.len()).unwrap() + more,
        data,
    })
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        command: u64,
        argument: u64,
        errno: u32,
        segments in prop::collection::vec(segment(), 0..9),
    ) {
        for request in [
            Request::Attach { version: errno },
            Request::Ioctl { command, argument, segments: segments.clone() },
            Request::Map,
        ] {
            prop_assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
        }
        let answer = Answer { errno, value: argument, writes: segments };
        prop_assert_eq!(Answer::decode(&answer.encode().unwrap()), Ok(answer));
    }

    /// A message that is cut, or has a byte changed, is refused or another.
    #[test]
    fn bytes_of_others_do_no_harm(
        segments in prop::collection::vec(segment(), 0..4),
        at: prop::sample::Index,
        byte: u8,
        cut: prop::sample::Index,
    ) {
        let request = Request::Ioctl { command: 1, argument: 2, segments };
        let mut bytes = request.encode().unwrap();
        let len = bytes.len();
        let short = &bytes[..cut.index(len)];
        prop_assert!(matches!(
            Request::decode(short),
            Err(WireError::Length(_))
        ));
        bytes[at.index(len)] = byte;
        if let Ok(other) = Request::decode(&bytes) {
            prop_assert!(other.encode().unwrap().len() == len);
        }
        bytes.push(0);
        prop_assert!(Request::decode(&bytes).is_err());
    }
}

#[test]
fn limits_of_messages() {
    let of = |count: usize, len: usize| Answer {
        writes: vec![
            Segment {
                address: 0,
                len: u32::try_from(len).unwrap(),
                data: vec![7; len],
            };
            count
        ],
        ..Answer::default()
    };
    assert!(of(SEGMENTS_MAX, 0).encode().is_ok());
    let more = u32::try_from(SEGMENTS_MAX + 1).unwrap();
    assert_eq!(
        of(SEGMENTS_MAX + 1, 0).encode(),
        Err(WireError::Segments(more))
    );
    assert_eq!(of(1, MESSAGE_MAX).encode(), Err(WireError::TooLong));
    assert_eq!(
        Request::decode(&of(1, 1).encode().unwrap()),
        Err(WireError::Kind(0x8000_0000)),
        "an answer is no request"
    );
}

#[test]
fn the_longest_message_goes_with_its_descriptors() {
    let (ours, theirs) = channel_pair().unwrap();
    let (one, other) = bell_pair().unwrap();
    let long = vec![9; MESSAGE_MAX];
    let mut room = vec![0; MESSAGE_MAX];
    let receive = |room: &mut [u8]| receive_message(theirs.as_fd(), room);
    assert_eq!(receive(&mut room).unwrap_err(), Errno::EAGAIN);
    for _ in 0..3 {
        send_message(ours.as_fd(), &long, &[one.as_fd(), other.as_fd()]).unwrap();
        let (len, descriptors) = receive(&mut room).unwrap();
        assert_eq!((len, descriptors.len()), (MESSAGE_MAX, 2));
    }
    assert_eq!(room, long);
    // One byte or one descriptor more is not a message.
    let _ = send_message(ours.as_fd(), &[long, vec![1]].concat(), &[]);
    assert_ne!(receive(&mut room).map(|(len, _)| len), Ok(MESSAGE_MAX));
    let three: [BorrowedFd<'_>; 3] = [one.as_fd(); 3];
    let (ours, theirs) = channel_pair().unwrap();
    send_message(ours.as_fd(), b"a", &three).unwrap();
    let refused = receive_message(theirs.as_fd(), &mut room);
    assert_eq!(refused.unwrap_err(), Errno::EMSGSIZE);
    drop(ours);
    assert_eq!(receive_message(theirs.as_fd(), &mut room).unwrap().0, 0);
}

#[test]
fn nobody_waits_for_a_bell() {
    let (ours, theirs) = bell_pair().unwrap();
    assert!(quiet(ours.as_fd()));
    for _ in 0..100_000 {
        ring(theirs.as_fd());
    }
    let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(1));
    while poll(&mut fds, PollTimeout::ZERO) == Ok(1) {
        assert!(quiet(ours.as_fd()));
    }
    drop(theirs);
    ring(ours.as_fd());
    assert!(!quiet(ours.as_fd()));
}

const OPERATIONS: [Operation; 7] = [
    Operation::Sync(Direction::Tx),
    Operation::Sync(Direction::Rx),
    Operation::Poll {
        events: 0xffff,
        arm: false,
    },
    Operation::Poll {
        events: 0,
        arm: true,
    },
    Operation::Ring {
        direction: Direction::Tx,
        ring: 511,
        pointers: Pointers {
            head: u32::MAX,
            cur: 7,
        },
    },
    Operation::Ring {
        direction: Direction::Rx,
        ring: 0,
        pointers: Pointers { head: 0, cur: 1 },
    },
    Operation::Listen,
];

#[test]
fn operations_go_over_the_page_and_results_back() {
    let (service, fd) = Service::new().unwrap();
    let mut client = Client::new(fd.as_fd()).unwrap();
    assert_eq!(service.request(0), None);
    let mut last = 0;
    for (nth, operation) in (0..).zip(OPERATIONS) {
        assert!(client.ask(operation), "nobody looks");
        assert_eq!(client.answer(), None);
        let (number, asked) = service.request(last).unwrap();
        assert_eq!(asked, Some(operation));
        let outcome = Outcome {
            result: nth,
            extra: u64::MAX - u64::from(nth),
        };
        assert!(!service.answer(number, outcome), "nobody sleeps");
        assert_eq!(client.answer(), Some(outcome));
        last = number;
        assert_eq!(service.request(last), None);
    }
    service.set_awake(true);
    assert!(!client.ask(OPERATIONS[0]));
    client.sleep();
    let ready = client.ready();
    assert!(service.ready());
    assert!(!service.ready(), "one ring for each sleep");
    assert_eq!(client.ready(), ready.wrapping_add(2));
}

#[test]
fn a_service_has_a_place_while_it_works() {
    let (service, fd) = Service::new().unwrap();
    let client = Client::new(fd.as_fd()).unwrap();
    service.set_awake(true);
    assert_eq!(client.place(), None, "it has not said");
    service.set_place(Some(0));
    assert_eq!(client.place(), Some(0));
    service.set_place(Some(7));
    assert_eq!(client.place(), Some(7));
    service.set_awake(false);
    assert_eq!(client.place(), None, "it rests");
    service.set_awake(true);
    service.set_place(None);
    assert_eq!(client.place(), None);
}

#[test]
fn a_page_keeps_its_size() {
    let (_service, fd) = Service::new().unwrap();
    assert_eq!(nix::unistd::ftruncate(&fd, 0), Err(Errno::EPERM));
}

/// One side asks, sleeps as soon as it may, and the other rests as soon as it
/// may: a wake-up that gets lost is waited for in vain.
#[test]
fn no_wake_up_is_lost() {
    const ROUNDS: u32 = 20_000;
    let (service, fd) = Service::new().unwrap();
    let mut client = Client::new(fd.as_fd()).unwrap();
    let (ours, theirs) = bell_pair().unwrap();
    let wait = |bell: BorrowedFd<'_>| {
        let mut fds = [PollFd::new(bell, PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::from(10_000u16));
        assert_eq!(ready, Ok(1), "a wake-up was lost");
        assert!(quiet(bell));
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = 0;
            for _ in 0..ROUNDS {
                let (number, _) = loop {
                    service.set_awake(false);
                    if let Some(request) = service.request(last) {
                        break request;
                    }
                    wait(ours.as_fd());
                    service.set_awake(true);
                };
                last = number;
                let outcome = Outcome {
                    result: number,
                    extra: 0,
                };
                if service.answer(number, outcome) {
                    ring(ours.as_fd());
                }
            }
        });
        for _ in 0..ROUNDS {
            if client.ask(OPERATIONS[0]) {
                ring(theirs.as_fd());
            }
            let began = Instant::now();
            while client.answer().is_none() {
                client.sleep();
                if client.answer().is_none() {
                    wait(theirs.as_fd());
                }
                client.wake();
                assert!(began.elapsed() < Duration::from_secs(20));
            }
        }
    });
}
