//! No descriptors left, and nobody there: what is tried again, and when.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use vtnetd::event::{Events, Poller};
use vtnetd::frontend::vhost_user::message::{Request, region_to_bytes};
use vtnetd::frontend::vhost_user::{EndpointSpec, FrontEnd};
use vtnetd::worker::{Polling, Workers};

use crate::bed::{Bed, Directory, Plan, alone, at_rest, device};
use crate::front::{Front, Memory};

/// While it lives, the process gets no more than so many further descriptors.
struct Limit(rlim_t, rlim_t);

impl Limit {
    fn further(count: u64) -> Self {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // The lowest numbers that are free are the ones that will be given.
        let free: Vec<_> = (0..=count)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        let first_denied = free.last().unwrap().as_raw_fd();
        // A number as this system counts limits.
        let denied = first_denied.to_string().parse().unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, denied, hard).unwrap();
        Self(soft, hard)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        setrlimit(Resource::RLIMIT_NOFILE, self.0, self.1).unwrap();
    }
}

/// Handles what the poller tells, once.
fn turn(front_end: &mut FrontEnd, poller: &Poller) {
    let mut events = Events::new();
    poller.wait(&mut events, None).unwrap();
    for event in events.iter() {
        front_end.on_event(poller, event.token);
    }
}

#[test]
fn a_connection_waits_until_there_are_descriptors_for_it() {
    let _alone = alone();
    let directory = Directory::new();
    let workers = Workers::start(1, Polling::default()).unwrap();
    let device = device(&Plan::default(), &Arc::default(), &workers);
    let poller = Poller::new().unwrap();
    let endpoint = EndpointSpec::Fd(UnixListener::bind(directory.socket()).unwrap().into());
    let mut front_end = FrontEnd::new(device, endpoint, 0).unwrap();
    front_end.register(&poller).unwrap();
    let mut front = Front::new(UnixStream::connect(directory.socket()).unwrap());
    front.send(Request::GetFeatures, &[], &[]);

    let limit = Limit::further(0);
    turn(&mut front_end, &poller);
    let deadline = front_end.deadline().expect("it is tried again");
    // Meanwhile the loop is not told of it over and over.
    let mut events = Events::new();
    poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
    assert!(events.is_empty());
    drop(limit);
    front_end.on_timer(&poller, deadline);
    assert_eq!(front_end.deadline(), None);
    turn(&mut front_end, &poller);
    turn(&mut front_end, &poller);
    let answer = front.channel.receive().unwrap();
    assert_eq!(answer.header.request, Request::GetFeatures as u32);
}

/// Not on FreeBSD: where descriptors cannot be delivered and the read ends inside
/// of what was sent with them, its kernel (15.1, uipc_usrreq.c,
/// uipc_soreceive_stream_or_seqpacket) puts the rest of the buffer behind itself
/// and then walks round it for ever, in the system call that is being tested.
#[test]
#[cfg_attr(target_os = "freebsd", ignore = "hangs in FreeBSD's kernel")]
fn descriptors_that_arrive_beside_lost_ones_are_closed() {
    let bed = Bed::new();
    let before = at_rest(&bed, None);
    for room in 0..4 {
        let mut front = bed.connect();
        front.hello();
        let memory = Memory::new();
        let limit = Limit::further(room);
        let region = region_to_bytes(&memory.region);
        front.send(Request::AddMemReg, &region, &[memory.file.as_fd(); 5]);
        front.expect_close();
        drop((limit, memory));
        at_rest(&bed, Some(before));
    }
}

#[test]
fn a_client_tries_again_ever_more_rarely_until_it_was_heard() {
    let _alone = alone();
    let directory = Directory::new();
    let workers = Workers::start(1, Polling::default()).unwrap();
    let device = device(&Plan::default(), &Arc::default(), &workers);
    let poller = Poller::new().unwrap();
    let endpoint = EndpointSpec::Connect(Box::new(directory.socket()));
    let mut front_end = FrontEnd::new(device, endpoint, 0).unwrap();
    assert_eq!(front_end.deadline(), None);
    front_end.register(&poller).unwrap();

    // Nobody is there: the pauses double, to a limit.
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let now = front_end.deadline().unwrap();
        front_end.on_timer(&poller, now - Duration::from_nanos(1));
        assert_eq!(front_end.deadline(), Some(now), "too early");
        front_end.on_timer(&poller, now);
        pauses.push((front_end.deadline().unwrap() - now).as_millis());
    }
    assert_eq!(pauses, [200, 400, 800, 1600, 3200, 5000, 5000, 5000]);

    // Whoever says nothing does not count as there; whoever speaks does.
    let listener = UnixListener::bind(directory.socket()).unwrap();
    for (speaks, pause) in [(false, 5000), (true, 100)] {
        front_end.on_timer(&poller, front_end.deadline().unwrap());
        assert_eq!(front_end.deadline(), None, "connected");
        let front = Front::new(listener.accept().unwrap().0);
        if speaks {
            front.send(Request::SetOwner, &[], &[]);
        }
        drop(front);
        let before = Instant::now();
        while front_end.deadline().is_none() {
            turn(&mut front_end, &poller);
        }
        let after = Instant::now();
        let deadline = front_end.deadline().unwrap();
        let pause = Duration::from_millis(pause);
        assert!(deadline >= before + pause && deadline <= after + pause);
    }
}
