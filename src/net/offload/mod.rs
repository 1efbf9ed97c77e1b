//! What a virtio-net header asks for: checked, rebuilt, and done in software
//! for a receiver that cannot be given it.
//!
//! A sender's header goes through [`check`] once. From then on every frame is
//! one of three kinds for each receiver:
//!
//! | the receiver | what to do |
//! | --- | --- |
//! | [`accepts`] it | the frame and its header as they are |
//! | [`needs_segmenting`] | each of the [`Segments`] of the linear frame |
//! | neither | [`complete_checksum`] on its copy, and a plain header |
//!
//! The sender can change a frame in its memory after it was checked.
//! [`Segments`] therefore parses again the copy that it is given, and
//! [`complete_checksum`] believes no offset. Of a frame that a receiver gets with
//! its header, what was checked holds of the header (types, sizes, offsets
//! within the frame); what the frame itself says is between the two guests.

mod identification;
mod layout;
#[cfg(target_os = "linux")]
pub mod linux;
mod segments;
pub mod software;

#[cfg(test)]
pub(crate) mod tests;

use layout::{Gso, Layout};

pub use segments::{Checksums, Segment, Segments};

use super::checksum::sum;
use super::ethernet::{Ethernet, MAX_TAGS, TAG_LEN, TYPE_IPV4, TYPE_IPV6};
use super::frame::ETHER_HEADER;
use super::transport::{TCP_CHECKSUM, UDP_CHECKSUM, UDP_HEADER};
use crate::virtio::memory::{Readable, gather};
use crate::virtio::net_header::{F_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_UDP_L4, NetHeader};
use crate::virtio::spec::net;

/// How many of a frame's first bytes are looked at; all headers of a frame that
/// is to be segmented must be among them. Two VLAN tags and the longest IP and
/// TCP options are 142, so 100 or more are left for IPv6 extension headers.
pub const PREFIX: usize = 256;
/// Longest header of a segment: an IPv6 fragment header may be added.
pub const MAX_HEADER: usize = PREFIX + super::ip::FRAGMENT_HEADER;
/// Most segments that one frame may become, so that a small `gso_size` cannot
/// make one frame into work without end. 64 KiB are within it from 64 bytes a
/// segment on.
pub const MAX_SEGMENTS: usize = 1024;

/// What is wrong with a virtio-net header, or with the frame behind it. The
/// frame is dropped, and the variant counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OffloadError {
    /// `NEEDS_CSUM` without `VIRTIO_NET_F_CSUM`.
    #[error("the checksum is left to a device that did not offer to complete it")]
    ChecksumNotNegotiated,
    /// `csum_start` and `csum_offset` do not lie behind the Ethernet header and
    /// within the frame.
    #[error("the checksum's place is outside the frame")]
    ChecksumOutside,
    /// A `gso_type` that is not in the specification, or ECN without TCP.
    #[error("gso_type is unknown")]
    UnknownGso,
    /// A `gso_type` without its feature bit.
    #[error("gso_type was not negotiated")]
    GsoNotNegotiated,
    /// ECN in `gso_type` without `VIRTIO_NET_F_HOST_ECN`.
    #[error("ECN in gso_type was not negotiated")]
    EcnNotNegotiated,
    /// A `gso_type` without `NEEDS_CSUM`.
    #[error("gso_type is set without NEEDS_CSUM")]
    GsoWithoutChecksum,
    /// `gso_size` is 0, or less than the 8 bytes of the shortest fragment.
    #[error("gso_size is too small")]
    GsoSize,
    /// More than [`MAX_SEGMENTS`].
    #[error("gso_size would make too many segments of the frame")]
    TooManySegments,
    /// The headers end after the frame, or after its first [`PREFIX`] bytes.
    #[error("the headers are not within the first bytes of the frame")]
    HeadersCutShort,
    /// A header field makes no sense.
    #[error("a header is malformed")]
    Malformed,
    /// The frame is not of the protocol that `gso_type` says.
    #[error("the frame's protocol is not that of gso_type")]
    WrongProtocol,
    /// The packet is an IP fragment already.
    #[error("the packet to be segmented is a fragment")]
    IsFragment,
    /// The IP or UDP length is not that of the frame.
    #[error("an IP or UDP length is not that of the frame")]
    Length,
    /// `csum_start` and `csum_offset` are not those of the transport header.
    #[error("the checksum's place is not in the transport header")]
    ChecksumElsewhere,
}

/// Checks `header`, as a guest wrote it, against the `host_features` that it
/// negotiated and against its frame of `len` bytes, of which `prefix` is a copy
/// of the first [`PREFIX`] (all, if there are fewer). Returns a header in which
/// everything can be believed (virtio 1.3, section 5.1.6.2):
///
/// - no flag but `NEEDS_CSUM`, which was negotiated, with a place for the
///   checksum behind the Ethernet header and within the frame; the other flags
///   are not a driver's to set and are ignored;
/// - `gso_type` and its ECN bit as negotiated, never without `NEEDS_CSUM`, only
///   for a frame that is longer than one segment and becomes at most
///   [`MAX_SEGMENTS`]; it is a whole packet of that protocol, whose IP and UDP
///   lengths are the frame's and whose transport header is at `csum_start`;
/// - ECN exactly when the TCP header has CWR set, which is what makes
///   segmenting with ECN special (RFC 3168, section 6.1.2);
/// - `hdr_len` the true length of the headers and at most [`PREFIX`] with
///   `gso_type`; with `NEEDS_CSUM` alone, up to the transport header's end;
/// - `gso_size` not 0, and a multiple of 8 for `GSO_UDP`;
/// - 0 in what has no meaning then, and in `num_buffers`.
///
/// # Errors
/// The frame must not be sent.
#[inline]
pub fn check(
    header: &NetHeader,
    host_features: u64,
    prefix: &[u8],
    len: u32,
) -> Result<NetHeader, OffloadError> {
    if header.is_plain() {
        return Ok(NetHeader::default());
    }
    check_offloads(header, host_features, prefix, len)
}

/// [`check`] of a frame where it lies, in `parts`.
///
/// # Errors
/// The frame must not be sent.
#[inline]
pub fn check_parts(
    header: &NetHeader,
    host_features: u64,
    parts: &[Readable<'_>],
    len: u32,
) -> Result<NetHeader, OffloadError> {
    if header.is_plain() {
        return Ok(NetHeader::default());
    }
    let mut prefix = [0; PREFIX];
    let got = gather(parts, &mut prefix);
    let prefix = prefix.get(..got).unwrap_or_default();
    check_offloads(header, host_features, prefix, len)
}

fn check_offloads(
    header: &NetHeader,
    host_features: u64,
    prefix: &[u8],
    len: u32,
) -> Result<NetHeader, OffloadError> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let prefix = prefix.get(..len.min(PREFIX)).unwrap_or(prefix);
    if header.flags & F_NEEDS_CSUM == 0 {
        return Err(OffloadError::GsoWithoutChecksum);
    }
    if host_features & net::F_CSUM == 0 {
        return Err(OffloadError::ChecksumNotNegotiated);
    }
    let start = usize::from(header.csum_start);
    let end = start + usize::from(header.csum_offset) + 2;
    if start < ETHER_HEADER || end > len {
        return Err(OffloadError::ChecksumOutside);
    }
    let checksum_only = NetHeader {
        flags: F_NEEDS_CSUM,
        hdr_len: transport_end(header, prefix, len),
        csum_start: header.csum_start,
        csum_offset: header.csum_offset,
        ..NetHeader::default()
    };
    if header.gso_type == GSO_NONE {
        return Ok(checksum_only);
    }

    let gso = Gso::from_type(header.gso_type).ok_or(OffloadError::UnknownGso)?;
    if host_features & gso.host_feature() == 0 {
        return Err(OffloadError::GsoNotNegotiated);
    }
    if header.gso_type & GSO_ECN != 0 && host_features & net::F_HOST_ECN == 0 {
        return Err(OffloadError::EcnNotNegotiated);
    }
    let layout = Layout::of(gso, prefix, len)?;
    if start != layout.transport || end != layout.checksum_at() + 2 {
        return Err(OffloadError::ChecksumElsewhere);
    }
    let size = layout.segment_size(header.gso_size)?;
    Ok(if layout.fits(size) {
        checksum_only
    } else {
        NetHeader {
            gso_type: layout.gso_type(),
            gso_size: size,
            hdr_len: u16::try_from(layout.payload).unwrap_or(0),
            ..checksum_only
        }
    })
}

/// Where the transport header ends whose checksum is asked for, as far as that
/// can be told from where the checksum is.
fn transport_end(header: &NetHeader, prefix: &[u8], len: usize) -> u16 {
    let start = usize::from(header.csum_start);
    let checksum = usize::from(header.csum_offset);
    let end = match checksum {
        TCP_CHECKSUM => match prefix.get(start + 12) {
            Some(offset) => start + usize::from(offset >> 4) * 4,
            None => 0,
        },
        UDP_CHECKSUM => start + UDP_HEADER,
        _ => 0,
    };
    let end = end.max(start + checksum + 2).min(len);
    u16::try_from(end).unwrap_or(u16::MAX)
}

/// Whether a receiver that negotiated `guest_features` may be given this
/// (checked) header and its frame as they are. Where the frame is, `parts` is
/// asked only if the header alone does not say.
#[inline]
pub fn accepts<'p>(
    header: &NetHeader,
    guest_features: u64,
    parts: impl FnOnce() -> &'p [Readable<'p>],
) -> bool {
    header.is_plain()
        || accepts_offloads(header, guest_features)
        || (header.gso_type == GSO_UDP_L4 && accepts_datagrams(guest_features, parts()))
}

fn accepts_offloads(header: &NetHeader, guest_features: u64) -> bool {
    let mut needed = net::F_GUEST_CSUM;
    if header.gso_type & GSO_ECN != 0 {
        needed |= net::F_GUEST_ECN;
    }
    if header.gso_type != GSO_NONE {
        let Some(gso) = Gso::from_type(header.gso_type) else {
            return false;
        };
        needed |= gso.guest_features();
    }
    guest_features & needed == needed
}

/// `GSO_UDP_L4` means either IP version, and some take but one of them.
#[cold]
fn accepts_datagrams(guest_features: u64, parts: &[Readable<'_>]) -> bool {
    const V4_ONLY: u64 = net::F_GUEST_CSUM | net::F_GUEST_USO4;
    const V6_ONLY: u64 = net::F_GUEST_CSUM | net::F_GUEST_USO6;
    let taken = match guest_features & (net::F_GUEST_CSUM | net::GUEST_USO) {
        V4_ONLY => TYPE_IPV4,
        V6_ONLY => TYPE_IPV6,
        _ => return false,
    };
    let mut head = [0; ETHER_HEADER + MAX_TAGS * TAG_LEN];
    let got = gather(parts, &mut head);
    let head = head.get(..got).unwrap_or_default();
    Ethernet::new_checked(head).is_ok_and(|frame| frame.ether_type() == taken)
}

/// Whether the frame of this (checked) header must be made into [`Segments`]
/// for a receiver that negotiated `guest_features`.
#[inline]
pub fn needs_segmenting<'p>(
    header: &NetHeader,
    guest_features: u64,
    parts: impl FnOnce() -> &'p [Readable<'p>],
) -> bool {
    header.gso_type != GSO_NONE && !accepts(header, guest_features, parts)
}

/// Completes the checksum that `header` asks for, in place; the frame's header
/// is a plain one then. Does nothing without `NEEDS_CSUM`, or when the place is
/// outside the frame (of which [`check`] is the proof that it is not).
///
/// What stands in the checksum field is the sum of the pseudo header. A result
/// of 0 is written as 0xffff, which UDP requires and which is as right for all
/// others.
pub fn complete_checksum(frame: &mut [u8], header: &NetHeader) {
    if header.flags & F_NEEDS_CSUM == 0 {
        return;
    }
    let at = usize::from(header.csum_offset);
    let Some(summed) = frame.get_mut(usize::from(header.csum_start)..) else {
        return;
    };
    let checksum = sum(summed).nonzero_checksum();
    if let Some(field) = summed.get_mut(at..at + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}
