use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::*;
use crate::driver::memory::{Area, DriverMemory};
use crate::virtio::memory::COPIED;

const FRONT: [u8; HEADER] = *b"before frame";

/// A descriptor that frames come back from.
struct Bed {
    ends: (OwnedFd, OwnedFd),
    area: Area,
    writer: Writer,
    reader: Reader,
}

fn pattern(len: usize) -> Vec<u8> {
    let byte = |at| u8::try_from((at * 7 + len) % 251).unwrap();
    (0..len).map(byte).collect()
}

impl Bed {
    fn new() -> Self {
        let flags = SockFlag::SOCK_NONBLOCK;
        let ends = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let mut memory = DriverMemory::of_len(1 << 20, 1).unwrap();
        Self {
            ends,
            area: memory.allocate(2 * MAX_FRAME, 64).unwrap(),
            writer: Writer::new(),
            reader: Reader::new(),
        }
    }

    /// Has a frame cross, from three parts into room of `room` bytes in two.
    fn cross(&mut self, frame: &[u8], room: usize) -> Got {
        let (start, rest) = frame.split_at(frame.len() / 3);
        let (middle, end) = rest.split_at(rest.len() / 2);
        let parts = [start, middle, end].map(Readable::from_slice);
        let put = self.writer.write(self.ends.0.as_fd(), &FRONT, &parts);
        assert_eq!(put, Ok(FRONT.len() + frame.len()));
        let room = [
            self.area.writable(0, room / 2),
            self.area.writable(room / 2, room - room / 2),
        ];
        let mut header = [0; HEADER];
        let got = self.reader.read(self.ends.1.as_fd(), &mut header, &room);
        assert_eq!(header, FRONT);
        if let Ok(Got::Whole(len)) = got {
            assert!(copy_in(&room, len) == frame, "{} bytes", frame.len());
        }
        got.unwrap()
    }

    /// Bytes that are copied here while a frame of `len` bytes crosses.
    fn copied(&mut self, len: usize) -> usize {
        let frame = pattern(len);
        let parts = [Readable::from_slice(&frame)];
        let before = COPIED.get();
        let put = self.writer.write(self.ends.0.as_fd(), &FRONT, &parts);
        assert_eq!(put, Ok(FRONT.len() + len));
        let room = [self.area.writable(0, MAX_FRAME)];
        let mut header = [0; HEADER];
        let got = self.reader.read(self.ends.1.as_fd(), &mut header, &room);
        assert_eq!(got, Ok(Got::Whole(len)));
        COPIED.get() - before
    }
}

#[test]
fn long_and_short_frames_cross_in_any_order() {
    let mut bed = Bed::new();
    let edge = [SHORT - 1, SHORT, SHORT + 1];
    let again = [60; RECENT as usize + 2];
    let orders = [
        &[60, 9000, 60, 1514][..],
        &edge,
        &[MAX_FRAME],
        &again,
        &edge,
    ];
    for &len in orders.concat().iter() {
        assert_eq!(bed.cross(&pattern(len), MAX_FRAME), Got::Whole(len));
    }
    let empty = [Readable::from_slice(&[])];
    bed.writer.write(bed.ends.0.as_fd(), &[], &empty).unwrap();
    let got = bed.reader.read(bed.ends.1.as_fd(), &mut [0], &[]);
    assert_eq!(got, Err(Errno::EIO), "less than a header");
    let got = bed.reader.read(bed.ends.1.as_fd(), &mut [0], &[]);
    assert_eq!(got, Err(Errno::EAGAIN));
}

#[test]
fn short_frames_are_copied_and_long_ones_are_not() {
    let mut bed = Bed::new();
    // From guest memory and into it.
    assert_eq!(bed.copied(60), 120);
    assert_eq!(bed.copied(SHORT), 2 * SHORT);
    // The first that is long was not expected.
    assert_eq!(bed.copied(1514), 1514);
    assert_eq!(bed.copied(1514), 0);
    for _ in 1..RECENT {
        assert_eq!(bed.copied(60), 60, "a long one may follow");
    }
    assert_eq!(bed.copied(60), 60);
    assert_eq!(bed.copied(60), 120);
}

#[test]
fn what_has_no_room_is_handed_over_whole() {
    let mut bed = Bed::new();
    for len in [300, 3000, 3000, 300] {
        let frame = pattern(len);
        assert_eq!(bed.cross(&frame, 100), Got::Spilled(frame.clone()));
        assert_eq!(bed.cross(&frame, len), Got::Whole(len));
    }
}

#[test]
fn what_is_longer_than_any_frame_is_lost() {
    let mut bed = Bed::new();
    let long = pattern(MAX_FRAME + 1);
    for _ in 0..2 {
        assert_eq!(bed.cross(&long, 2 * MAX_FRAME), Got::TooLong);
        assert_eq!(bed.cross(&long, 100), Got::TooLong);
    }
    assert_eq!(bed.cross(&pattern(60), 100), Got::Whole(60));
}
