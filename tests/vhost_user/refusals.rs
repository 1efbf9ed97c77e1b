//! Every request when it is wrong: refused, without effect, and without a
//! descriptor or a mapping left behind.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::eventfd::EventFd;
use vtnetd::frontend::vhost_user::PROTOCOL_FEATURES;
use vtnetd::frontend::vhost_user::message::{ConfigAccess, Header, Request, region_to_bytes};
use vtnetd::virtio::spec::feature;

use crate::bed::{Bed, descriptors, mappings};
use crate::front::{Front, Memory, eventfd};

/// A request as it should be.
struct Right {
    request: Request,
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Right {
    fn new(request: Request, payload: &[u8]) -> Self {
        Self {
            request,
            payload: payload.to_vec(),
            fds: Vec::new(),
        }
    }

    fn with(self, fd: impl Into<OwnedFd>) -> Self {
        let fds = vec![fd.into()];
        Self { fds, ..self }
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.fds.iter().map(AsFd::as_fd).collect()
    }
}

fn fd(event: EventFd) -> OwnedFd {
    event.as_fd().try_clone_to_owned().unwrap()
}

/// Every request that is offered, as it should be, in an order in which each is
/// right.
fn all() -> Vec<Right> {
    let memory = Memory::new();
    let other = Memory::at(0x1000, 0x1000);
    let state = |index, num| Front::state(index, num);
    let file = |memory: &Memory| OwnedFd::from(memory.file.try_clone().unwrap());
    let mut config = ConfigAccess {
        offset: 0,
        size: 6,
        flags: ConfigAccess::MIGRATION,
    }
    .to_bytes()
    .to_vec();
    config.resize(18, 2);
    let number = u64::to_ne_bytes;
    let features = feature::VERSION_1 | feature::VHOST_USER_PROTOCOL_FEATURES;
    let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
    vec![
        Right::new(Request::GetFeatures, &[]),
        Right::new(Request::GetProtocolFeatures, &[]),
        Right::new(Request::SetProtocolFeatures, &number(PROTOCOL_FEATURES)),
        Right::new(Request::SetOwner, &[]),
        Right::new(Request::GetQueueNum, &[]),
        Right::new(Request::GetMaxMemSlots, &[]),
        Right::new(Request::SetBackendReqFd, &[]).with(socket),
        Right::new(Request::SetFeatures, &number(features)),
        Right::new(Request::SetStatus, &number(11)),
        Right::new(Request::GetStatus, &[]),
        Right::new(Request::NetSetMtu, &number(1500)),
        Right::new(Request::SendRarp, &number(2)),
        Right::new(Request::GetConfig, &config),
        Right::new(Request::SetConfig, &config),
        Right::new(Request::SetMemTable, &memory.table()).with(file(&memory)),
        Right::new(Request::AddMemReg, &region_to_bytes(&other.region)).with(file(&other)),
        Right::new(Request::RemMemReg, &region_to_bytes(&other.region)),
        Right::new(Request::SetVringNum, &state(0, 64)),
        Right::new(Request::SetVringBase, &state(0, 0)),
        Right::new(Request::SetVringAddr, &memory.addresses(0).to_bytes()),
        Right::new(Request::SetVringErr, &number(0)).with(fd(eventfd())),
        Right::new(Request::SetVringCall, &number(0)).with(fd(eventfd())),
        Right::new(Request::SetVringKick, &number(0)).with(fd(eventfd())),
        Right::new(Request::SetVringEnable, &state(0, 1)),
        Right::new(Request::GetVringBase, &state(0, 0)),
        Right::new(Request::ResetOwner, &[]),
        Right::new(Request::ResetDevice, &[]),
    ]
}

/// Brings a fresh connection to where request number `at` of `all` is right.
fn up_to(bed: &Bed, at: usize) -> Front {
    let mut front = bed.connect();
    front.done(
        Request::SetProtocolFeatures,
        &PROTOCOL_FEATURES.to_ne_bytes(),
        &[],
    );
    for right in &all()[..at] {
        say(&mut front, right);
    }
    front
}

fn say(front: &mut Front, right: &Right) {
    if right.request.has_reply() {
        front.send(right.request, &right.payload, &right.fds());
        assert!(!front.channel.receive().unwrap().payload.is_empty());
    } else {
        front.done(right.request, &right.payload, &right.fds());
    }
}

/// Says what is wrong in both ways: asking, and not asking.
fn wrong(bed: &Bed, at: usize, payload: &[u8], fds: &[BorrowedFd<'_>]) {
    let request = all()[at].request;
    let mut front = up_to(bed, at);
    if !request.has_reply() {
        front.refused(request, payload, fds);
        assert!(front.is_alive());
    }
    front.send(request, payload, fds);
    front.expect_close();
}

#[test]
fn the_table_is_complete_and_right() {
    let bed = Bed::new();
    let table = all();
    let mut front = up_to(&bed, table.len());
    assert!(front.is_alive());
    for request in Request::ALL {
        let listed = table.iter().any(|right| right.request == *request);
        if !listed {
            front.refused(*request, &[0; 16], &[]);
            front.refused(*request, &[], &[]);
        }
    }
    assert!(front.is_alive());
}

#[test]
fn wrong_sizes_are_refused() {
    let bed = Bed::new();
    let before = {
        let _front = up_to(&bed, 0);
        descriptors()
    };
    for (at, right) in all().iter().enumerate() {
        let len = right.payload.len();
        for wrong_len in [0, len / 2, len.saturating_sub(1), len + 1, len + 8, 4096] {
            if wrong_len == len {
                continue;
            }
            let mut payload = right.payload.clone();
            payload.resize(wrong_len, 0);
            wrong(&bed, at, &payload, &right.fds());
        }
    }
    let _front = up_to(&bed, 0);
    assert_eq!(descriptors(), before);
}

#[test]
fn wrong_numbers_of_descriptors_are_refused() {
    let bed = Bed::new();
    let spare = eventfd();
    let before = {
        let _front = up_to(&bed, 0);
        descriptors()
    };
    for (at, right) in all().iter().enumerate() {
        let mut fds = right.fds();
        for surplus in 1..=8 - fds.len() {
            let tolerated = right.request == Request::RemMemReg && surplus == 1;
            fds.push(spare.as_fd());
            if !tolerated && (surplus < 3 || fds.len() == 8) {
                wrong(&bed, at, &right.payload, &fds);
            }
        }
        if !right.fds.is_empty() {
            wrong(&bed, at, &right.payload, &[]);
        }
    }
    let _front = up_to(&bed, 0);
    assert_eq!((descriptors(), mappings()), (before, 0));
}

#[test]
fn more_descriptors_than_any_request_has_end_the_connection() {
    let bed = Bed::new();
    let spare = eventfd();
    let before = {
        let _front = up_to(&bed, 0);
        descriptors()
    };
    for count in [9, 32, 253] {
        for right in all() {
            let front = up_to(&bed, 0);
            front.send(right.request, &right.payload, &vec![spare.as_fd(); count]);
            front.expect_close();
        }
    }
    let _front = up_to(&bed, 0);
    assert_eq!(descriptors(), before);
}

#[test]
fn what_was_not_negotiated_is_refused() {
    let bed = Bed::new();
    for right in all() {
        let gated = matches!(
            right.request,
            Request::GetConfig
                | Request::SetConfig
                | Request::GetStatus
                | Request::SetStatus
                | Request::GetMaxMemSlots
                | Request::AddMemReg
                | Request::RemMemReg
                | Request::SetVringEnable
        );
        if gated {
            let front = bed.connect();
            front.send(right.request, &right.payload, &right.fds());
            front.expect_close();
        }
    }
    assert_eq!(mappings(), 0);
}

#[test]
fn unknown_requests_are_refused() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let event = eventfd();
    for request in [0, 26, 27, 33, 41, 44, 100, u32::MAX] {
        for payload in [&[][..], &[1; 8], &[2; 4096]] {
            let size = u32::try_from(payload.len()).unwrap();
            let flags = vtnetd::frontend::vhost_user::message::VERSION;
            let header = Header {
                request,
                flags,
                size,
            };
            assert_eq!(front.ack_raw(header, payload, &[event.as_fd()]), 1);
        }
    }
    assert!(front.is_alive());
    let header = Header {
        request: 99,
        flags: 1,
        size: 0,
    };
    front.channel.send(header, &[], &[]).unwrap();
    front.expect_close();
}

#[test]
fn headers_that_nobody_means_end_the_connection() {
    let bed = Bed::new();
    let right = Front::header(Request::GetFeatures, &[]);
    for flags in [0, 2, 3, 5] {
        let front = bed.connect();
        let header = Header { flags, ..right };
        front.channel.send(header, &[], &[]).unwrap();
        front.expect_close();
    }
    for size in [4097, 0x7fff_ffff, u32::MAX] {
        let front = bed.connect();
        let header = Header { size, ..right };
        front.channel.send(header, &[], &[]).unwrap();
        front.expect_close();
    }
}

#[test]
fn a_front_end_that_never_takes_no_for_an_answer_is_left() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let mut refused = 0;
    loop {
        let mut header = Front::header(Request::SetLogFd, &[]);
        header.flags |= 8;
        if front.channel.send(header, &[], &[]).is_err() || front.channel.receive().is_err() {
            break;
        }
        refused += 1;
        assert!(refused < 1000);
    }
    assert!(bed.connect().is_alive());
}

#[test]
fn a_front_end_that_reads_no_answers_is_left_and_others_are_served() {
    let bed = Bed::new();
    let front = bed.connect();
    // Each has an answer; nobody reads them.
    let request = Front::header(Request::GetFeatures, &[]);
    while front.channel.send(request, &[], &[]).is_ok() {}
    assert!(bed.connect().is_alive());
}
