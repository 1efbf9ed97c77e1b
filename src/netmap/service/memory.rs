//! A client's memory, as far as it came along with a request.

use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::wire::{SEGMENTS_MAX, Segment};
use crate::netmap::ctrl::{ClientMemory, Fault};

/// The descriptor is that of a memory object, the only ones with seals: nobody
/// is behind it.
pub(super) fn is_object(fd: BorrowedFd<'_>) -> bool {
    fcntl(fd, FcntlArg::F_GET_SEALS).is_ok()
}

/// The segments of one request, and what was written to them.
pub(super) struct SegmentMemory {
    pieces: Vec<Piece>,
    /// What came along beside them.
    object: Option<OwnedFd>,
    /// What goes along with the answer.
    handed: Option<OwnedFd>,
}

struct Piece {
    segment: Segment,
    /// What was written, in order of address and apart from each other.
    written: Vec<Range<usize>>,
}

impl SegmentMemory {
    pub(super) fn new(segments: Vec<Segment>) -> Self {
        let pieces = segments.into_iter().map(|segment| Piece {
            segment,
            written: Vec::new(),
        });
        Self {
            pieces: pieces.collect(),
            object: None,
            handed: None,
        }
    }

    /// The same, with the descriptor that came along.
    pub(super) fn with_object(self, object: Option<OwnedFd>) -> Self {
        Self { object, ..self }
    }

    /// The descriptor that is to go along with the answer.
    pub(super) fn take_handed(&mut self) -> Option<OwnedFd> {
        self.handed.take()
    }

    /// What the client is to write to its memory. What no message has room for
    /// is left out, which only a client can bring about that asked for it.
    pub(super) fn into_writes(self) -> Vec<Segment> {
        let writes = self.pieces.into_iter().flat_map(|piece| {
            let Piece { segment, written } = piece;
            written.into_iter().filter_map(move |range| {
                let data = segment.data.get(range.clone())?.to_vec();
                Some(Segment {
                    address: segment.address.wrapping_add(range.start as u64),
                    len: u32::try_from(data.len()).ok()?,
                    data,
                })
            })
        });
        writes.take(SEGMENTS_MAX).collect()
    }

    /// Goes through the pieces that `len` bytes at `at` are in: which, where in
    /// it, and how many bytes.
    fn walk(
        &mut self,
        mut at: u64,
        len: usize,
        mut visit: impl FnMut(&mut Piece, usize, Range<usize>),
    ) -> Result<(), Fault> {
        let mut done = 0;
        while done < len {
            let found = self.pieces.iter_mut().find_map(|piece| {
                let offset = at.checked_sub(piece.segment.address)?;
                let room = u64::from(piece.segment.len).checked_sub(offset)?;
                // Segments are short.
                let (offset, room) = (usize::try_from(offset).ok()?, usize::try_from(room).ok()?);
                (room > 0).then_some((piece, offset, room))
            });
            let (piece, offset, room) = found.ok_or(Fault)?;
            let part = room.min(len - done);
            visit(piece, offset, done..done + part);
            done += part;
            at = at.wrapping_add(part as u64);
        }
        Ok(())
    }
}

impl ClientMemory for SegmentMemory {
    fn copy_in(&mut self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.walk(at, into.len(), |piece, offset, part| {
            let data = piece.segment.data.get(offset..).unwrap_or_default();
            let into = into.get_mut(part).unwrap_or_default();
            into.fill(0);
            for (to, from) in into.iter_mut().zip(data) {
                *to = *from;
            }
        })
    }

    fn copy_out(&mut self, at: u64, from: &[u8]) -> Result<(), Fault> {
        // All of it or nothing.
        self.walk(at, from.len(), |_, _, _| {})?;
        self.walk(at, from.len(), |piece, offset, part| {
            let from = from.get(part).unwrap_or_default();
            let range = offset..offset + from.len();
            let data = &mut piece.segment.data;
            if data.len() < range.end {
                data.resize(range.end, 0);
            }
            if let Some(to) = data.get_mut(range.clone()) {
                to.copy_from_slice(from);
            }
            add(&mut piece.written, range);
        })
    }

    fn object(&mut self) -> Result<OwnedFd, Errno> {
        self.object.take().ok_or(Errno::EOPNOTSUPP)
    }

    fn hand_over(&mut self, descriptor: OwnedFd) -> Result<(), Errno> {
        self.handed = Some(descriptor);
        Ok(())
    }
}

/// Adds a range to those that are there, and joins it with what it touches.
fn add(ranges: &mut Vec<Range<usize>>, mut new: Range<usize>) {
    let first = ranges.partition_point(|range| range.end < new.start);
    let last = ranges.partition_point(|range| range.start <= new.end);
    for range in ranges.drain(first..last.max(first)) {
        new = new.start.min(range.start)..new.end.max(range.end);
    }
    ranges.insert(first, new);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(address: u64, len: u32, data: &[u8]) -> Segment {
        Segment {
            address,
            len,
            data: data.to_vec(),
        }
    }

    #[test]
    fn only_what_came_along_is_there() {
        let mut memory = SegmentMemory::new(vec![
            segment(100, 4, b"abcd"),
            segment(104, 4, b"ef"),
            segment(u64::MAX - 1, 4, b"wxyz"),
        ]);
        let mut read = |at, len| {
            let mut into = vec![9; len];
            memory.copy_in(at, &mut into).map(|()| into)
        };
        assert_eq!(read(102, 6), Ok(b"cdef\0\0".to_vec()));
        assert_eq!(read(100, 0), Ok(vec![]));
        for (at, len) in [(99, 1), (100, 9), (108, 1), (0, 1), (u64::MAX, 4)] {
            assert_eq!(read(at, len), Err(Fault), "{at} {len}");
        }
        assert_eq!(read(u64::MAX - 1, 2), Ok(b"wx".to_vec()));
    }

    #[test]
    fn what_was_written_is_read_and_comes_back_once() {
        let mut memory = SegmentMemory::new(vec![segment(100, 4, b"abcd"), segment(104, 96, b"")]);
        memory.copy_out(102, b"1234").unwrap();
        memory.copy_out(150, b"xy").unwrap();
        memory.copy_out(148, b"uv").unwrap();
        memory.copy_out(160, b"z").unwrap();
        assert_eq!(memory.copy_out(199, b"ab"), Err(Fault));
        let mut into = [0; 5];
        memory.copy_in(101, &mut into).unwrap();
        assert_eq!(&into, b"b1234");
        assert_eq!(
            memory.into_writes(),
            [
                segment(102, 2, b"12"),
                segment(104, 2, b"34"),
                segment(148, 4, b"uvxy"),
                segment(160, 1, b"z"),
            ]
        );
    }
}
