//! Descriptors that the front end makes block after it has passed them: their
//! flags are its as much as ours.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe, write};
use vtnetd::frontend::vhost_user::message::Request;
use vtnetd::virtio::spec::feature;

use crate::bed::Bed;
use crate::front::{Front, Memory, eventfd, is_ready};

fn make_blocking(fd: impl AsFd) {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
}

/// A front end whose transmit ring is complete but for its kick, with an error
/// descriptor.
fn ready(bed: &Bed, call: impl AsFd, err: impl AsFd) -> (Front, Memory) {
    let mut front = bed.connect();
    front.hello();
    front.accept(feature::VERSION_1);
    let memory = Memory::new();
    front.share(&memory);
    front.prepare(1, &memory, Some(call.as_fd()));
    front.signal(Request::SetVringErr, 1, Some(err.as_fd()));
    front.enable(1, true);
    (front, memory)
}

/// The ring has failed and was served until then, and the device is well.
fn failed_alone(mut front: Front, bed: &Bed, served: u16) {
    assert_eq!(front.stop(1), u32::from(served));
    let memory = Memory::new();
    front.share(&memory);
    memory.offer_frame(3, 0);
    let other = front.start(3, &memory);
    front.enable(3, true);
    other.interrupted();
    drop(front);
    assert!(bed.connect().is_alive());
}

#[test]
fn a_call_descriptor_that_blocks_stops_its_ring_alone() {
    let bed = Bed::new();
    let (kick, call, err) = (eventfd(), eventfd(), eventfd());
    let (mut front, memory) = ready(&bed, &call, &err);
    front.signal(Request::SetVringKick, 1, Some(kick.as_fd()));
    // As much as it holds: one more, and write(2) waits for somebody to read.
    call.write(u64::MAX - 1).unwrap();
    make_blocking(&call);
    memory.offer_frame(1, 0);
    kick.write(1).unwrap();
    assert!(is_ready(err.as_fd()), "the ring goes on, or waits for ever");
    failed_alone(front, &bed, 1);
}

#[test]
fn a_kick_descriptor_that_blocks_stops_its_ring_alone() {
    let bed = Bed::new();
    let (call, err) = (eventfd(), eventfd());
    let (mut front, _memory) = ready(&bed, &call, &err);
    let (kick, write_end): (OwnedFd, OwnedFd) = pipe().unwrap();
    front.signal(Request::SetVringKick, 1, Some(kick.as_fd()));
    make_blocking(&kick);
    // Whoever reads these looks for more.
    write(&write_end, &[0; 3]).unwrap();
    assert!(is_ready(err.as_fd()), "the ring goes on, or waits for ever");
    failed_alone(front, &bed, 0);
}
