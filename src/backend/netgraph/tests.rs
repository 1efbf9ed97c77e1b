//! The half that carries frames, over a pair of Unix sockets that keep frames
//! apart, cut off what is not read, and hang up, as a data socket does; those of
//! FreeBSD do not cut. FreeBSD has the real thing instead
//! (`tests/freebsd/netgraph`), and only there is the other half.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::unistd::{read, write};

use super::port::Netgraph;
use crate::backend::host::{Host, Opened, Operation};
use crate::backend::{Backend, Dropped, OpenError, Received, Room, Sent};
use crate::driver::memory::{Area, DriverMemory};
use crate::net::frame::{Batch, ETHER_HEADER, MAX_FRAME};
use crate::virtio::memory::{Readable, Writable};
use crate::virtio::net_header::NetHeader;

/// Hands over what it was given, one after the other.
#[derive(Default)]
struct Given(Mutex<VecDeque<Opened>>);

impl Given {
    /// Gives it a new data socket, and returns the other end.
    fn add(&self) -> OwnedFd {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        for end in [&ours, &theirs] {
            setsockopt(end, sockopt::SndBuf, &(256 << 10)).unwrap();
        }
        self.0.lock().unwrap().push_back(Opened {
            fds: vec![ours],
            ..Opened::default()
        });
        theirs
    }
}

impl Host for Given {
    fn open(&self) -> Result<Opened, OpenError> {
        let opened = self.0.lock().unwrap().pop_front();
        opened.ok_or_else(|| OpenError::Absent("nobody there".to_owned()))
    }

    fn operate(&self, operation: Operation) -> Result<(), OpenError> {
        Err(OpenError::Operation(operation))
    }
}

fn connected() -> (Netgraph, OwnedFd, Arc<Given>) {
    let given = Arc::new(Given::default());
    let peer = given.add();
    let netgraph = Netgraph::open("netgraph:br0:link1", Arc::clone(&given) as _).unwrap();
    (netgraph, peer, given)
}

/// A guest with so many bytes of buffers, all for one frame.
struct Guest {
    area: Arc<Area>,
    offered: usize,
    grows: bool,
    got: Vec<Vec<u8>>,
    dropped: Vec<Dropped>,
    asked: Vec<usize>,
}

impl Guest {
    fn new(offered: usize) -> Self {
        let mut memory = DriverMemory::of_len(1 << 20, 1).unwrap();
        Self {
            area: Arc::new(memory.allocate(MAX_FRAME, 64).unwrap()),
            offered,
            grows: false,
            got: Vec::new(),
            dropped: Vec::new(),
            asked: Vec::new(),
        }
    }

    fn receive(&mut self, netgraph: &Netgraph) -> Received {
        let area = Arc::clone(&self.area);
        let room = [area.writable(0, self.offered)];
        netgraph.receive(0, &mut Rx { room, guest: self })
    }
}

struct Rx<'g> {
    room: [Writable<'g>; 1],
    guest: &'g mut Guest,
}

impl Room for Rx<'_> {
    fn room(&mut self, len: usize) -> Result<&[Writable<'_>], Received> {
        self.guest.asked.push(len);
        if self.guest.offered == 0 {
            return Err(Received::NoRoom);
        }
        Ok(&self.room)
    }

    fn finish(&mut self, header: &NetHeader, len: usize) {
        assert!(header.is_plain());
        let mut frame = vec![0; len];
        assert_eq!(self.room[0].as_readable().read(&mut frame), len);
        self.guest.got.push(frame);
    }

    fn may_grow(&self, _len: usize) -> bool {
        self.guest.grows
    }

    fn drop(&mut self, why: Dropped) {
        self.guest.dropped.push(why);
    }
}

fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|at| seed.wrapping_add(u8::try_from(at % 251).unwrap()))
        .collect()
}

fn send(netgraph: &Netgraph, frames: &[Vec<u8>]) -> Sent {
    let mut batch = Batch::new();
    for frame in frames {
        let mark = batch.mark();
        // In two parts, as drivers have header and payload.
        let (start, end) = frame.split_at(frame.len().min(54));
        for part in [start, end] {
            batch.push_part(mark, Readable::from_slice(part)).unwrap();
        }
        let len = u32::try_from(frame.len()).unwrap();
        assert!(batch.push_frame(mark, len, [0; ETHER_HEADER], NetHeader::default()));
    }
    netgraph.send(0, &batch)
}

const SIZES: [usize; 7] = [ETHER_HEADER, 60, 1514, 1518, 9018, 65535, MAX_FRAME];

#[test]
fn frames_of_every_size_go_out_as_they_are() {
    let (netgraph, peer, _) = connected();
    for (seed, len) in (0..).zip(SIZES) {
        let sent = send(&netgraph, &[frame(len, seed)]);
        let bytes = len as u64;
        assert_eq!((sent.frames, sent.bytes, sent.dropped), (1, bytes, 0));
        let mut room = vec![0; MAX_FRAME + 1];
        let got = read(&peer, &mut room).unwrap();
        assert_eq!(room[..got], frame(len, seed), "{len}");
    }
}

#[test]
fn frames_of_every_size_come_in_as_they_are() {
    let (netgraph, peer, _) = connected();
    let mut guest = Guest::new(MAX_FRAME);
    for (seed, len) in (0..).zip(SIZES) {
        write(&peer, &frame(len, seed)).unwrap();
        assert_eq!(guest.receive(&netgraph), Received::Drained);
        assert_eq!(guest.got.pop(), Some(frame(len, seed)), "{len}");
    }
    assert!(guest.dropped.is_empty() && guest.got.is_empty());
}

#[test]
fn what_is_too_long_or_too_short_is_dropped_and_counted() {
    let (netgraph, peer, _) = connected();
    let mut guest = Guest::new(MAX_FRAME);
    write(&peer, &frame(MAX_FRAME + 1, 0)).unwrap();
    write(&peer, &frame(ETHER_HEADER - 1, 0)).unwrap();
    write(&peer, &frame(60, 9)).unwrap();
    assert_eq!(guest.receive(&netgraph), Received::Drained);
    assert_eq!(guest.dropped, [Dropped::TooLong, Dropped::TooShort]);
    assert_eq!(guest.got, [frame(60, 9)]);
}

#[test]
fn a_frame_for_which_there_is_too_little_room_waits_or_is_dropped() {
    let (netgraph, peer, _) = connected();
    let mut guest = Guest::new(1000);
    guest.grows = true;
    write(&peer, &frame(3000, 1)).unwrap();
    write(&peer, &frame(60, 2)).unwrap();
    assert_eq!(guest.receive(&netgraph), Received::NoRoom);
    assert!(guest.got.is_empty());
    guest.offered = 3000;
    assert_eq!(guest.receive(&netgraph), Received::Drained);
    assert_eq!(guest.got, [frame(3000, 1), frame(60, 2)]);
    // The next of that length gets its room at once.
    assert_eq!(guest.asked, [1518, 3000, 3000, 3000, 3000]);

    guest.offered = 1000;
    guest.grows = false;
    write(&peer, &frame(1001, 3)).unwrap();
    assert_eq!(guest.receive(&netgraph), Received::Drained);
    assert_eq!(guest.dropped, [Dropped::TooLong]);
}

#[test]
fn frames_wait_for_a_guest_without_buffers() {
    let (netgraph, peer, _) = connected();
    let mut guest = Guest::new(0);
    write(&peer, &frame(60, 1)).unwrap();
    assert_eq!(guest.receive(&netgraph), Received::NoRoom);
    guest.offered = 60;
    assert_eq!(guest.receive(&netgraph), Received::Drained);
    assert_eq!(guest.got, [frame(60, 1)]);
}

#[test]
fn a_full_receiver_costs_frames_and_nothing_else() {
    let (netgraph, peer, _) = connected();
    let mut sent = Sent::default();
    while sent.dropped == 0 {
        sent = send(&netgraph, &vec![frame(65535, 1); 8]);
    }
    assert_eq!(sent.frames + sent.dropped, 8);
    assert_eq!(sent.bytes, u64::from(sent.frames) * 65535);
    assert!(!netgraph.is_lost());
    read(&peer, &mut vec![0; MAX_FRAME]).unwrap();
    assert_eq!(send(&netgraph, &[frame(65535, 1)]).frames, 1);
}

#[test]
fn a_peer_that_is_gone_is_missed_and_found_again() {
    let (netgraph, peer, given) = connected();
    assert!(netgraph.can_be_lost() && !netgraph.is_lost());
    let number = netgraph.rx_fd(0).unwrap().as_raw_fd();
    drop(peer);
    assert!(netgraph.is_lost());
    let mut guest = Guest::new(MAX_FRAME);
    assert_eq!(guest.receive(&netgraph), Received::Drained);
    assert!(guest.got.is_empty() && guest.dropped.is_empty());
    assert_eq!(send(&netgraph, &[frame(60, 1)]).dropped, 1);

    assert!(matches!(netgraph.recover(), Err(OpenError::Absent(_))));
    assert!(netgraph.is_lost());
    let peer = given.add();
    netgraph.recover().unwrap();
    assert!(!netgraph.is_lost());
    assert_eq!(netgraph.rx_fd(0).unwrap().as_raw_fd(), number);
    assert_eq!(send(&netgraph, &[frame(60, 1)]).frames, 1);
    write(&peer, &frame(61, 2)).unwrap();
    assert_eq!(guest.receive(&netgraph), Received::Drained);
    assert_eq!(guest.got, [frame(61, 2)]);
}

#[test]
fn something_else_than_a_data_socket_is_not_taken() {
    let given = Arc::new(Given::default());
    given.0.lock().unwrap().push_back(Opened::default());
    let opened = Netgraph::open("netgraph:br0:link1", given as _);
    assert!(matches!(opened, Err(OpenError::Mismatch(_))));
}
