//! The back end by itself: memory that is cut off under it, frames that were
//! waiting when the guest changed its mind, and what room is asked for.

use std::os::fd::AsRawFd;

use vtnetd::backend::{self, Backend, Dropped, Received, Room, Sent, Spec};
use vtnetd::driver::memory::{Area, DriverMemory};
use vtnetd::net::frame::{Batch, MAX_FRAME};
use vtnetd::netmap::vale::Switches;
use vtnetd::virtio::memory::{Writable, install_fault_handler};
use vtnetd::virtio::net_header::{GSO_TCPV4, NetHeader};
use vtnetd::virtio::spec::net;

use crate::frames::{GUEST, Ip, PEER, TCP, open, pattern, turned};
use crate::host::{LONG, PacketSocket, in_namespace};

/// A guest with one buffer, which takes every frame.
struct Buffer<'m> {
    parts: Vec<Writable<'m>>,
    asked: Vec<usize>,
    finished: Vec<(NetHeader, usize)>,
    dropped: Vec<Dropped>,
}

impl<'m> Buffer<'m> {
    fn new(area: &'m Area) -> Self {
        Self {
            parts: vec![area.writable(0, area.len())],
            asked: Vec::new(),
            finished: Vec::new(),
            dropped: Vec::new(),
        }
    }
}

impl Room for Buffer<'_> {
    fn room(&mut self, len: usize) -> Result<&[Writable<'_>], Received> {
        self.asked.push(len);
        Ok(&self.parts)
    }

    fn finish(&mut self, header: &NetHeader, len: usize) {
        self.finished.push((*header, len));
    }

    fn may_grow(&self, _len: usize) -> bool {
        false
    }

    fn drop(&mut self, why: Dropped) {
        self.dropped.push(why);
    }
}

/// Receives when there is something.
fn receive(tap: &dyn Backend, rx: &mut dyn Room) -> Received {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let fd = tap.rx_fd(0).unwrap();
    assert!(fd.as_raw_fd() >= 0);
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::try_from(LONG).unwrap()), Ok(1));
    tap.receive(0, rx)
}

fn send(tap: &dyn Backend, area: &Area) -> Sent {
    let mut ether = [0; 14];
    ether.copy_from_slice(&pattern(PEER, GUEST, 0, 14));
    let mut batch = Batch::new();
    batch.push_part(0, area.readable(0, area.len())).unwrap();
    let len = u32::try_from(area.len()).unwrap();
    assert!(batch.push_frame(0, len, ether, NetHeader::default()));
    tap.send(0, &batch)
}

/// Two frames for a guest that segments TCP itself.
fn send_two_unfinished(tap: &dyn Backend, host: &PacketSocket) {
    let (header, frame) = open(Ip::V4, TCP, 1, &[7; 5000]);
    let header = NetHeader {
        gso_type: GSO_TCPV4,
        gso_size: 1448,
        ..header
    };
    let offloads = net::F_GUEST_CSUM | net::F_GUEST_TSO4;
    tap.set_features(offloads, 12).unwrap();
    for _ in 0..2 {
        host.send_with(header, &turned(frame.clone()));
    }
}

#[test]
fn memory_that_was_cut_off_costs_its_frames_only() {
    // A frame is copied if it is short, as the first is taken to be.
    install_fault_handler().unwrap();
    in_namespace(|| {
        let tap = backend::open(&Spec::new("tap0", 1), &Switches::default()).unwrap();
        let host = PacketSocket::new("tap0");
        let frame = pattern(PEER, GUEST, 1, 1000);
        let mut lost = DriverMemory::of_len(1 << 16, 1).unwrap();
        let cut = lost.allocate(1000, 1).unwrap();
        lost.truncate_region(0, 0).unwrap();
        let mut kept = DriverMemory::of_len(1 << 16, 1).unwrap();
        let area = kept.allocate(1000, 1).unwrap();
        area.writable(0, 1000).write(&frame);

        assert_eq!(send(tap.as_ref(), &cut).dropped, 1);
        assert_eq!(send(tap.as_ref(), &area).frames, 1);
        assert!(host.recv_from(GUEST) == frame);

        host.send(&pattern(GUEST, PEER, 2, 500));
        receive(tap.as_ref(), &mut Buffer::new(&cut));
        let frame = pattern(GUEST, PEER, 3, 600);
        host.send(&frame);
        let mut buffer = Buffer::new(&area);
        receive(tap.as_ref(), &mut buffer);
        assert_eq!(buffer.finished, [(NetHeader::default(), 600)]);
        let mut got = vec![0; 600];
        area.readable(0, 600).read(&mut got);
        assert!(got == frame);
    });
}

#[test]
fn what_waited_for_another_guest_is_finished_for_this_one() {
    in_namespace(|| {
        let tap = backend::open(&Spec::new("tap0", 1), &Switches::default()).unwrap();
        let host = PacketSocket::with_headers("tap0");
        let mut memory = DriverMemory::of_len(1 << 17, 1).unwrap();
        let area = memory.allocate(1 << 16, 1).unwrap();
        send_two_unfinished(tap.as_ref(), &host);
        let mut buffer = Buffer::new(&area);
        buffer.parts.truncate(1);
        // Both are in the tap's queue now, as they were meant for this guest.
        tap.set_features(0, 12).unwrap();
        assert_eq!(receive(tap.as_ref(), &mut buffer), Received::Drained);
        assert_eq!(buffer.dropped, []);
        let segments = [1502, 1502, 1502, 710].map(|len| (NetHeader::default(), len));
        assert_eq!(buffer.finished, [segments, segments].concat());
    });
}

#[test]
fn room_for_long_frames_is_asked_when_they_come() {
    in_namespace(|| {
        let tap = backend::open(&Spec::new("tap0", 1), &Switches::default()).unwrap();
        let host = PacketSocket::with_headers("tap0");
        let mut memory = DriverMemory::of_len(1 << 17, 1).unwrap();
        let area = memory.allocate(1 << 16, 1).unwrap();
        send_two_unfinished(tap.as_ref(), &host);
        let mut buffer = Buffer::new(&area);
        assert_eq!(receive(tap.as_ref(), &mut buffer), Received::Drained);
        assert_eq!(buffer.finished.len(), 2);
        assert_eq!(buffer.asked, [1518, MAX_FRAME, MAX_FRAME]);
    });
}

#[test]
fn a_flood_of_frames_that_are_dropped_ends_the_turn_too() {
    in_namespace(|| {
        let tap = backend::open(&Spec::new("tap0", 1), &Switches::default()).unwrap();
        let host = PacketSocket::new("tap0");
        let mut memory = DriverMemory::of_len(1 << 16, 1).unwrap();
        let area = memory.allocate(100, 1).unwrap();
        for seed in 0..400 {
            host.send(&pattern(GUEST, PEER, seed, 200));
        }
        let mut buffer = Buffer::new(&area);
        assert_eq!(receive(tap.as_ref(), &mut buffer), Received::Budget);
        let first = buffer.dropped.len();
        assert!(first > 0 && first < 400);
        while receive_now(tap.as_ref(), &mut buffer) == Received::Budget {}
        assert_eq!(buffer.dropped, [Dropped::TooLong; 400]);
    });
}

fn receive_now(tap: &dyn Backend, rx: &mut dyn Room) -> Received {
    tap.receive(0, rx)
}
