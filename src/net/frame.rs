//! A batch of frames on their way from one place to another, as views of where
//! they lie: nothing is copied until a receiver has room.

use std::ops::Range;

use arrayvec::ArrayVec;

use super::flow;
use crate::virtio::memory::{Readable, gather};
use crate::virtio::net_header::NetHeader;

/// Most frames in one batch.
pub const BATCH: usize = 64;
/// Most parts in all frames of one batch.
pub const PARTS: usize = 1024;
/// Most parts in one frame; what has more is dropped.
pub const FRAME_PARTS: usize = 256;
/// Bytes of an Ethernet header without a VLAN tag.
pub const ETHER_HEADER: usize = 14;
/// Longest frame that anything here carries: 64 KiB of IP packet behind an
/// Ethernet header with a VLAN tag, rounded as the reference does.
pub const MAX_FRAME: usize = 65536 + 64;

/// The Ethernet header of a frame, before any VLAN tag: in words, so that each
/// is one load from the frame and one comparison in a switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EtherHeader {
    /// The first 8 bytes, of which the last two are the source's.
    start: u64,
    /// The last 8 bytes: source and EtherType.
    end: u64,
}

impl EtherHeader {
    /// The header from its first 8 bytes and its last 8 bytes, of which two are
    /// the same.
    #[inline]
    pub fn from_ends(start: [u8; 8], end: [u8; 8]) -> Self {
        Self {
            start: u64::from_be_bytes(start),
            end: u64::from_be_bytes(end),
        }
    }

    /// The header that lies in `part` from byte `at` on, if it is whole.
    #[inline]
    pub fn read(part: &Readable<'_>, at: usize) -> Option<Self> {
        let (start, end) = (part.read_array_at(at)?, part.read_array_at(at + 6)?);
        Some(Self::from_ends(start, end))
    }

    /// Whom it is for, as a number of 48 bits.
    #[inline]
    pub fn destination(self) -> u64 {
        self.start >> 16
    }

    /// It is for more than one: broadcast or multicast.
    #[inline]
    pub fn is_for_group(self) -> bool {
        self.start >> 56 & 1 == 1
    }

    /// Who has sent it, as a number of 48 bits.
    #[inline]
    pub fn source(self) -> u64 {
        self.end >> 16
    }

    /// It is from the same to the same.
    #[inline]
    pub fn is_of_one_flow_with(self, other: Self) -> bool {
        self.start == other.start && (self.end ^ other.end) >> 16 == 0
    }

    /// The EtherType, or that of a VLAN tag.
    #[inline]
    pub fn ether_type(self) -> u16 {
        #[expect(clippy::cast_possible_truncation, reason = "the last two bytes")]
        {
            self.end as u16
        }
    }
}

impl From<[u8; ETHER_HEADER]> for EtherHeader {
    #[inline]
    fn from(raw: [u8; ETHER_HEADER]) -> Self {
        let [a, b, c, d, e, f, end @ ..] = raw;
        Self::from_ends([a, b, c, d, e, f, end[0], end[1]], end)
    }
}

/// One frame of a batch.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Which of the batch's parts are this frame's.
    parts: Range<u16>,
    /// Length in bytes, Ethernet header included, virtio-net header not.
    pub len: u32,
    /// Destination and source address and EtherType, read once.
    pub ether: EtherHeader,
    /// What the sender asks for; checked against the frame, so that it can be
    /// believed (see `net::offload::check`).
    pub header: NetHeader,
}

/// Frames and the views they consist of.
#[derive(Debug, Default)]
pub struct Batch<'m> {
    frames: ArrayVec<Frame, BATCH>,
    parts: ArrayVec<Readable<'m>, PARTS>,
    /// A frame asks for something.
    asks: bool,
    /// Length of the longest frame in bytes.
    longest: u32,
    /// The number of each frame's flow, where they were wanted.
    flows: ArrayVec<u32, BATCH>,
}

impl<'m> Batch<'m> {
    /// An empty batch. Costs nothing: its arrays are not initialised.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// No further frame of [`FRAME_PARTS`] parts is sure to fit.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.frames.is_full() || self.parts.remaining_capacity() < FRAME_PARTS
    }

    /// The frames, in order.
    #[inline]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// No frame asks for anything: everybody can take them as they are.
    #[inline]
    pub fn is_plain(&self) -> bool {
        !self.asks
    }

    /// Length of the longest frame in bytes.
    #[inline]
    pub fn longest(&self) -> u32 {
        self.longest
    }

    /// Has the flows of all frames found: they are wanted more than once.
    pub fn find_flows(&mut self) {
        self.flows = self
            .frames
            .iter()
            .map(|frame| self.find_flow(frame))
            .collect();
    }

    /// What [`find_flows`](Self::find_flows) has found.
    #[inline]
    pub fn flows(&self) -> &[u32] {
        &self.flows
    }

    /// The number of the flow of frame `at`.
    #[inline]
    pub fn flow(&self, at: usize) -> Option<u32> {
        let known = self.flows.get(at).copied();
        known.or_else(|| self.frames.get(at).map(|frame| self.find_flow(frame)))
    }

    #[inline]
    fn find_flow(&self, frame: &Frame) -> u32 {
        let packet = self
            .only_part(frame)
            .and_then(|part| part.read_array_at(ETHER_HEADER));
        let quick = packet.and_then(|packet| flow::quick_number(frame.ether.ether_type(), &packet));
        quick.unwrap_or_else(|| {
            let mut start = [0; flow::START];
            let len = gather(self.parts(frame), &mut start);
            flow::number(start.get(..len).unwrap_or_default())
        })
    }

    /// What `frame` consists of, in order.
    #[inline]
    pub fn parts(&self, frame: &Frame) -> &[Readable<'m>] {
        self.parts
            .get(usize::from(frame.parts.start)..usize::from(frame.parts.end))
            .unwrap_or_default()
    }

    /// What `frame` consists of, if that is one part, as of the most.
    #[inline]
    pub fn only_part(&self, frame: &Frame) -> Option<&Readable<'m>> {
        let Range { start, end } = frame.parts;
        let only = end == start.wrapping_add(1);
        only.then(|| self.parts.get(usize::from(start))).flatten()
    }

    /// As many of the frames at `picks` as one batch holds, in a batch of their
    /// own.
    pub fn some(&self, picks: &mut impl Iterator<Item = usize>) -> Self {
        let mut some = Self::new();
        while !some.is_full() {
            let Some(pick) = picks.next() else { break };
            let Some(frame) = self.frames.get(pick) else {
                continue;
            };
            let mark = some.mark();
            // There is room: a frame has at most FRAME_PARTS.
            if some.parts.try_extend_from_slice(self.parts(frame)).is_ok() {
                some.push_frame(mark, frame.len, frame.ether, frame.header);
            }
        }
        some
    }

    /// Adds one part of the frame that is being collected, which begins at
    /// `mark`; `None` when the frame or the batch has too many.
    #[inline]
    pub fn push_part(&mut self, mark: usize, part: Readable<'m>) -> Option<()> {
        if self.parts.len() - mark.min(self.parts.len()) >= FRAME_PARTS {
            return None;
        }
        self.parts.try_push(part).ok()
    }

    /// Adds frames that ask for nothing, each in one part, as many as there is
    /// room for; returns how many, and their bytes.
    #[inline]
    pub fn extend_lone(
        &mut self,
        lone: impl Iterator<Item = (Readable<'m>, EtherHeader)>,
    ) -> (u32, u64) {
        let (mut count, mut bytes) = (0, 0);
        let room = self.frames.remaining_capacity();
        let room = room.min(self.parts.remaining_capacity());
        let Self {
            frames,
            parts,
            longest,
            ..
        } = self;
        frames.extend(lone.take(room).map(|(part, ether)| {
            #[expect(clippy::cast_possible_truncation, reason = "PARTS fits u16")]
            let at = parts.len() as u16;
            #[expect(clippy::cast_possible_truncation, reason = "a view's length fits u32")]
            let len = part.len() as u32;
            parts.push(part);
            count += 1;
            bytes += u64::from(len);
            *longest = len.max(*longest);
            Frame {
                parts: at..at + 1,
                len,
                ether,
                header: NetHeader::default(),
            }
        }));
        (count, bytes)
    }

    /// Where the next frame's parts begin.
    #[inline]
    pub fn mark(&self) -> usize {
        self.parts.len()
    }

    /// Part `at`, which is in no frame yet.
    #[inline]
    pub fn pending_part(&mut self, at: usize) -> Option<&mut Readable<'m>> {
        self.parts.get_mut(at)
    }

    /// The parts in the range `parts`, which are not a frame yet.
    #[inline]
    pub fn pending(&mut self, parts: Range<usize>) -> &mut [Readable<'m>] {
        self.parts.get_mut(parts).unwrap_or_default()
    }

    /// Forgets the parts from `mark` on: their frame is not sent.
    #[inline]
    pub fn discard(&mut self, mark: usize) {
        self.parts.truncate(mark);
    }

    /// Makes the parts from `mark` on a frame of `len` bytes. `false`, with the
    /// parts forgotten, when the batch holds [`BATCH`] frames already.
    #[inline]
    pub fn push_frame(
        &mut self,
        mark: usize,
        len: u32,
        ether: impl Into<EtherHeader>,
        header: NetHeader,
    ) -> bool {
        let pushed = self.push_frame_of(mark..self.mark(), len, ether.into(), header);
        if !pushed {
            self.discard(mark);
        }
        pushed
    }

    /// Makes the parts in the range `parts`, which were pushed before, a frame
    /// of `len` bytes. `false` when the batch holds [`BATCH`] frames already.
    #[inline]
    pub fn push_frame_of(
        &mut self,
        parts: Range<usize>,
        len: u32,
        ether: EtherHeader,
        header: NetHeader,
    ) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "PARTS fits u16")]
        let parts = parts.start as u16..parts.end as u16;
        self.asks |= !header.is_plain();
        self.longest = self.longest.max(len);
        let frame = Frame {
            parts,
            len,
            ether,
            header,
        };
        self.frames.try_push(frame).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_come_together_are_like_those_that_come_one_by_one() {
        let bytes = [7; 100];
        let all = Readable::from_slice(&bytes);
        let lengths = [60, 100, 64];
        let views = lengths.map(|len| all.truncate(len));
        let mut one_by_one = Batch::new();
        for part in views {
            let mark = one_by_one.mark();
            one_by_one.push_part(mark, part).unwrap();
            let len = u32::try_from(part.len()).unwrap();
            let ether = EtherHeader::read(&part, 0).unwrap();
            assert!(one_by_one.push_frame(mark, len, ether, NetHeader::default()));
        }
        let mut together = Batch::new();
        let lone = views.map(|part| (part, EtherHeader::read(&part, 0).unwrap()));
        assert_eq!(together.extend_lone(lone.into_iter()), (3, 224));
        assert_eq!(together.longest(), one_by_one.longest());
        assert_eq!(together.is_plain(), one_by_one.is_plain());
        for (one, other) in together.frames().iter().zip(one_by_one.frames()) {
            assert_eq!((&one.parts, one.len), (&other.parts, other.len));
            assert_eq!(one.ether, other.ether);
            let only = together.only_part(one).map(Readable::len);
            assert_eq!(only, Some(one.len as usize));
        }
        // No more than a batch holds.
        let many = std::iter::repeat_n(lone[0], 100);
        assert_eq!(together.extend_lone(many).0, 61);
    }
}
