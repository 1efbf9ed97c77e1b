//! A frame that is longer than its receiver takes, cut into segments.

use std::ops::Range;

use super::super::checksum::{Sum, sum};
use super::super::ip::{self, FRAGMENT, FRAGMENT_HEADER, V4_HEADER, V4_MORE_FRAGMENTS, V6_HEADER};
use super::super::transport::{UDP_CHECKSUM, UDP_HEADER, UDP_LENGTH, tcp_flags};
use super::identification;
use super::layout::{Gso, Layout, Network};
use super::{MAX_HEADER, OffloadError};
use crate::virtio::net_header::{F_NEEDS_CSUM, NetHeader};

/// Who computes the checksums of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// We do.
    Complete,
    /// The receiver, which must have negotiated `VIRTIO_NET_F_GUEST_CSUM`: the
    /// field has the sum of the pseudo header, and the segment's header says
    /// `NEEDS_CSUM`. Fragments of a datagram are completed all the same, as their
    /// checksum is over all of them.
    Receiver,
}

/// One segment: a header of its own, followed by a part of the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Length in bytes of the header that was written.
    pub head_len: usize,
    /// Which part of the frame follows the header.
    pub payload: Range<usize>,
    /// The virtio-net header to send it with.
    pub header: NetHeader,
}

impl Segment {
    /// Length in bytes of the segment as a frame.
    pub fn frame_len(&self) -> usize {
        self.head_len + self.payload.len()
    }
}

/// The segments of a frame, in order, at most [`super::MAX_SEGMENTS`].
///
/// TCP: the payload is divided. Sequence numbers and IPv4 identifications go
/// on from segment to segment, FIN and PSH are in the last, CWR (RFC 3168) is
/// in the first.
///
/// UDP, `GSO_UDP_L4`: the payload is divided among datagrams, each with its
/// length and the next IPv4 identification. The last may be shorter.
///
/// UDP, `GSO_UDP`: the datagram is checksummed, then divided into IP fragments.
/// IPv4 keeps its identification; IPv6's fragment header stands right before
/// the UDP header in the first fragment, and gets a new one.
#[derive(Clone, Debug)]
pub struct Segments<'f> {
    frame: &'f [u8],
    layout: Layout,
    /// Most bytes in a segment.
    size: usize,
    /// Where the next segment's part of the frame begins.
    next: Option<usize>,
    checksums: Checksums,
    /// The whole datagram's checksum.
    checksum: u16,
    /// The first segment's IPv4 identification, or all fragments'.
    identification: u32,
}

impl<'f> Segments<'f> {
    /// The segments that `header` asks for, of a frame in one piece. The frame is
    /// parsed again, as it may not be what it was when `header` was checked.
    ///
    /// # Errors
    /// The frame does not fit its header, and must not be sent.
    pub fn new(
        frame: &'f [u8],
        header: &NetHeader,
        checksums: Checksums,
    ) -> Result<Self, OffloadError> {
        let gso = Gso::from_type(header.gso_type).ok_or(OffloadError::UnknownGso)?;
        let prefix = frame.get(..super::PREFIX).unwrap_or(frame);
        let layout = Layout::of(gso, prefix, frame.len())?;
        let size = layout.segment_size(header.gso_size)?;
        let mut segments = Self {
            frame,
            layout,
            size: usize::from(size),
            next: Some(layout.divided()),
            checksums,
            checksum: 0,
            identification: match layout.version {
                Network::V4 { identification } => identification.into(),
                Network::V6 { .. } => 0,
            },
        };
        if gso == Gso::Udp {
            segments.checksum = segments.datagram_checksum();
            // An IPv6 packet has none yet, and the 0 of an IPv4 packet may mean
            // that its sender did not expect it to be fragmented (RFC 6864).
            if segments.identification == 0 && !layout.fits(size) {
                segments.identification = identification::next(layout.addresses);
            }
        }
        Ok(segments)
    }

    /// Writes the next segment's header to the start of `head`.
    #[inline]
    pub fn next(&mut self, head: &mut [u8; MAX_HEADER]) -> Option<Segment> {
        let start = self.next.take()?;
        let end = (start + self.size).min(self.frame.len());
        if end < self.frame.len() {
            self.next = Some(end);
        }
        match self.layout.gso {
            Gso::TcpV4 | Gso::TcpV6 | Gso::UdpL4 => self.segment(start..end, head),
            Gso::Udp => self.udp_fragment(start..end, head),
        }
    }

    /// `part` of the frame behind a TCP or UDP header of its own.
    fn segment(&self, part: Range<usize>, head: &mut [u8; MAX_HEADER]) -> Option<Segment> {
        let Layout {
            transport, payload, ..
        } = self.layout;
        let done = part.start - payload;
        let head_len = payload;
        let head = head.get_mut(..head_len)?;
        head.copy_from_slice(self.frame.get(..head_len)?);

        let number = u32::try_from(done / self.size).ok()?;
        let ip_len = head_len + part.len() - self.layout.network;
        let identification = self.identification.wrapping_add(number);
        self.finish_ip(head, ip_len, identification, None)?;

        let transport_len = u16::try_from(head_len - transport + part.len()).ok()?;
        if self.layout.gso == Gso::UdpL4 {
            put(head, transport + UDP_LENGTH, transport_len.to_be_bytes())?;
        } else {
            let mut flags = self.layout.flags;
            if part.end < self.frame.len() {
                flags &= !(tcp_flags::FIN | tcp_flags::PSH);
            }
            if done > 0 {
                flags &= !tcp_flags::CWR;
            }
            let sequence = self.layout.sequence.wrapping_add(u32::try_from(done).ok()?);
            put(head, transport + 4, sequence.to_be_bytes())?;
            put(head, transport + 13, [flags])?;
        }

        let checksum_at = self.layout.checksum_at();
        let pseudo = self.layout.pseudo.with(transport_len);
        let (checksum, header) = match self.checksums {
            Checksums::Complete => {
                put(head, checksum_at, [0; 2])?;
                let mut whole = pseudo;
                whole.add(head.get(transport..)?);
                whole.add(self.frame.get(part.clone())?);
                (self.written(whole), NetHeader::default())
            }
            Checksums::Receiver => {
                let header = NetHeader {
                    flags: F_NEEDS_CSUM,
                    hdr_len: u16::try_from(head_len).ok()?,
                    csum_start: u16::try_from(transport).ok()?,
                    csum_offset: u16::try_from(checksum_at - transport).ok()?,
                    ..NetHeader::default()
                };
                (pseudo.folded(), header)
            }
        };
        put(head, checksum_at, checksum.to_be_bytes())?;
        Some(Segment {
            head_len,
            payload: part,
            header,
        })
    }

    /// `part` of the frame behind an IP header of its own, with the UDP header
    /// if it is the first.
    fn udp_fragment(&self, part: Range<usize>, head: &mut [u8; MAX_HEADER]) -> Option<Segment> {
        let Layout {
            transport, payload, ..
        } = self.layout;
        let first = part.start == transport;
        let more = part.end < self.frame.len();
        let offset = u16::try_from(part.start - transport).ok()?;
        head.get_mut(..transport)?
            .copy_from_slice(self.frame.get(..transport)?);

        let mut head_len = transport;
        let mut fragmentation = None;
        match self.layout.version {
            Network::V4 { .. } if more || !first => {
                let more = if more { V4_MORE_FRAGMENTS } else { 0 };
                fragmentation = Some(more | (offset / 8));
                if !first {
                    let options = self.layout.network + V4_HEADER..transport;
                    drop_uncopied_options(head.get_mut(options)?);
                }
            }
            Network::V6 { protocol_at } if more || !first => {
                put(head, protocol_at, [FRAGMENT])?;
                put(head, transport, [ip::UDP, 0])?;
                put(
                    head,
                    transport + 2,
                    (offset | u16::from(more)).to_be_bytes(),
                )?;
                put(head, transport + 4, self.identification.to_be_bytes())?;
                head_len += FRAGMENT_HEADER;
            }
            Network::V4 { .. } | Network::V6 { .. } => {}
        }
        let rest = if first {
            let udp = self.frame.get(transport..payload)?;
            head.get_mut(head_len..head_len + UDP_HEADER)?
                .copy_from_slice(udp);
            let checksum = self.checksum.to_be_bytes();
            put(head, head_len + UDP_CHECKSUM, checksum)?;
            head_len += UDP_HEADER;
            payload..part.end
        } else {
            part
        };
        let head = head.get_mut(..head_len)?;
        let ip_len = head_len + rest.len() - self.layout.network;
        self.finish_ip(head, ip_len, self.identification, fragmentation)?;
        Some(Segment {
            head_len,
            payload: rest,
            header: NetHeader::default(),
        })
    }

    /// Writes what depends on the segment into the IP header of `head`: lengths,
    /// and for IPv4 identification, flags and offset (if given) and checksum.
    fn finish_ip(
        &self,
        head: &mut [u8],
        len: usize,
        identification: u32,
        fragmentation: Option<u16>,
    ) -> Option<()> {
        let network = self.layout.network;
        match self.layout.version {
            Network::V4 { .. } => {
                put(head, network + 2, u16::try_from(len).ok()?.to_be_bytes())?;
                let [_, _, identification @ ..] = identification.to_be_bytes();
                put(head, network + 4, identification)?;
                if let Some(fragmentation) = fragmentation {
                    put(head, network + 6, fragmentation.to_be_bytes())?;
                }
                put(head, network + 10, [0; 2])?;
                let checksum = sum(head.get(network..self.layout.transport)?).checksum();
                put(head, network + 10, checksum.to_be_bytes())
            }
            Network::V6 { .. } => {
                let len = u16::try_from(len.checked_sub(V6_HEADER)?).ok()?;
                put(head, network + 4, len.to_be_bytes())
            }
        }
    }

    /// The checksum as it stands in a segment: UDP's 0 means that there is none
    /// (RFC 768).
    fn written(&self, whole: Sum) -> u16 {
        match self.layout.gso {
            Gso::TcpV4 | Gso::TcpV6 => whole.checksum(),
            Gso::Udp | Gso::UdpL4 => whole.nonzero_checksum(),
        }
    }

    /// The checksum of the whole datagram.
    fn datagram_checksum(&self) -> u16 {
        let datagram = self.frame.get(self.layout.transport..).unwrap_or_default();
        let len = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
        let mut whole = self.layout.pseudo.with(len);
        if let Some((ports_and_length, rest)) = datagram.split_at_checked(UDP_CHECKSUM) {
            whole.add(ports_and_length);
            whole.add(rest.get(2..).unwrap_or_default());
        }
        whole.nonzero_checksum()
    }
}

/// Writes `bytes` at `at`, if there is room.
#[inline]
fn put<const N: usize>(head: &mut [u8], at: usize, bytes: [u8; N]) -> Option<()> {
    *head.get_mut(at..)?.first_chunk_mut()? = bytes;
    Some(())
}

/// Makes "no operation" (RFC 791, section 3.1) of the IPv4 options that belong
/// into the first fragment only.
fn drop_uncopied_options(mut options: &mut [u8]) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    while let [kind, rest @ ..] = &*options {
        let len = match *kind {
            END => return,
            NO_OPERATION => 1,
            // An option that makes no sense is passed on as it came.
            _ => match rest.first() {
                Some(&len) if len >= 2 => usize::from(len),
                _ => return,
            },
        };
        if len > options.len() {
            return;
        }
        let copied = kind & COPIED != 0;
        let (option, others) = options.split_at_mut(len);
        if !copied {
            option.fill(NO_OPERATION);
        }
        options = others;
    }
}
