//! What a guest is told of a frame that the kernel hands us.
//!
//! The kernel has checked its headers, and was asked for what the guest takes.
//! But frames that were waiting when the guest changed its mind are as they
//! were, other processes can have the interface, too, and FreeBSD hands on
//! unfinished frames from other interfaces of a bridge whatever was asked. So
//! each header is judged again, and built anew from the fields that count.

use crate::net::frame::ETHER_HEADER;
use crate::net::offload::{self, OffloadError};
use crate::virtio::net_header::{F_DATA_VALID, F_NEEDS_CSUM, GSO_NONE, NetHeader};
use crate::virtio::spec::net;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The guest takes it as it is, with this header.
    Give(NetHeader),
    /// It has to be finished in software first.
    Finish,
    /// It makes no sense.
    Refuse,
}

/// Judges the kernel's header of a frame of `len` bytes for a guest that takes
/// `offloads` (feature bits).
pub(super) fn for_guest(host: &NetHeader, len: usize, offloads: u64) -> Verdict {
    if host.is_plain() {
        let valid = if offloads & net::F_GUEST_CSUM != 0 {
            F_DATA_VALID
        } else {
            0
        };
        return Verdict::Give(NetHeader {
            flags: host.flags & valid,
            ..NetHeader::default()
        });
    }
    let end = usize::from(host.csum_start) + usize::from(host.csum_offset) + 2;
    let segmented = host.gso_type != GSO_NONE;
    if host.flags & F_NEEDS_CSUM == 0
        || usize::from(host.csum_start) < ETHER_HEADER
        || end > len
        || (segmented && host.gso_size == 0)
    {
        return Verdict::Refuse;
    }
    // Linux hands over UDP to be segmented only to who takes it of both IP
    // versions, and the others not at all: no need to look at the frame.
    if !offload::accepts(host, offloads, || &[]) {
        return Verdict::Finish;
    }
    // Only a hint, but one that covers the checksum and is inside the frame.
    let hdr_len = usize::from(host.hdr_len).max(end).min(len);
    Verdict::Give(NetHeader {
        flags: F_NEEDS_CSUM,
        gso_type: host.gso_type,
        hdr_len: u16::try_from(hdr_len).unwrap_or(u16::MAX),
        gso_size: if segmented { host.gso_size } else { 0 },
        csum_start: host.csum_start,
        csum_offset: host.csum_offset,
        num_buffers: 0,
    })
}

/// The complete frames that a frame with the kernel's header becomes.
///
/// # Errors
/// The header is not that of this frame.
pub(super) fn finish(host: &NetHeader, mut frame: Vec<u8>) -> Result<Vec<Vec<u8>>, OffloadError> {
    let prefix = frame.get(..offload::PREFIX).unwrap_or(&frame);
    let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let header = offload::check(host, net::HOST_OFFLOADS, prefix, len)?;
    let mut finished = Vec::new();
    offload::software::finish_linear(&mut frame, &header, &mut |frames| {
        finished.extend(frames.iter().map(|(head, body)| [*head, *body].concat()));
    });
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::net_header::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4};

    const CSUM: NetHeader = NetHeader {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_NONE,
        hdr_len: 54,
        gso_size: 0,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    const TSO: NetHeader = NetHeader {
        gso_type: GSO_TCPV4,
        gso_size: 1448,
        ..CSUM
    };

    #[test]
    fn a_valid_checksum_is_told_only_to_who_asked() {
        let host = NetHeader {
            flags: F_DATA_VALID,
            hdr_len: 99,
            csum_start: 7,
            num_buffers: 3,
            ..NetHeader::default()
        };
        let told = for_guest(&host, 60, net::F_GUEST_CSUM);
        let only = NetHeader {
            flags: F_DATA_VALID,
            ..NetHeader::default()
        };
        assert_eq!(told, Verdict::Give(only));
        let told = for_guest(&host, 60, net::F_GUEST_TSO4);
        assert_eq!(told, Verdict::Give(NetHeader::default()));
    }

    #[test]
    fn offloads_pass_only_to_who_negotiated_them() {
        let ecn = NetHeader {
            gso_type: GSO_TCPV4 | GSO_ECN,
            ..TSO
        };
        let of = |gso_type| NetHeader { gso_type, ..TSO };
        let cases = [
            (CSUM, net::F_GUEST_CSUM),
            (TSO, net::F_GUEST_CSUM | net::F_GUEST_TSO4),
            (of(GSO_TCPV6), net::F_GUEST_CSUM | net::F_GUEST_TSO6),
            (of(GSO_UDP), net::F_GUEST_CSUM | net::F_GUEST_UFO),
            (of(GSO_UDP_L4), net::F_GUEST_CSUM | net::GUEST_USO),
            (
                ecn,
                net::F_GUEST_CSUM | net::F_GUEST_TSO4 | net::F_GUEST_ECN,
            ),
        ];
        for (host, needs) in cases {
            assert_eq!(for_guest(&host, 3000, needs), Verdict::Give(host));
            for bit in (0..64).map(|bit| 1 << bit).filter(|bit| needs & bit != 0) {
                let verdict = for_guest(&host, 3000, needs & !bit);
                assert_eq!(verdict, Verdict::Finish, "{host:?}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_does_not_pass() {
        let bad = [
            NetHeader { flags: 0, ..TSO },
            NetHeader { gso_size: 0, ..TSO },
            NetHeader {
                csum_start: 13,
                ..CSUM
            },
            NetHeader {
                csum_start: 2990,
                ..CSUM
            },
            NetHeader {
                csum_offset: u16::MAX,
                csum_start: u16::MAX,
                ..CSUM
            },
            NetHeader { gso_type: 2, ..TSO },
            NetHeader { gso_type: 6, ..TSO },
            NetHeader {
                gso_type: GSO_ECN,
                ..TSO
            },
        ];
        for host in bad {
            match for_guest(&host, 3000, u64::MAX) {
                Verdict::Give(_) => panic!("{host:?}"),
                Verdict::Finish => assert!(finish(&host, vec![0; 3000]).is_err(), "{host:?}"),
                Verdict::Refuse => {}
            }
        }
    }

    #[test]
    fn the_header_length_stays_within_the_frame_and_covers_the_checksum() {
        let hint = |hdr_len, len| {
            let host = NetHeader { hdr_len, ..TSO };
            match for_guest(&host, len, u64::MAX) {
                Verdict::Give(header) => header.hdr_len,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(hint(54, 3000), 54);
        assert_eq!(hint(0, 3000), 52);
        assert_eq!(hint(u16::MAX, 3000), 3000);
        assert_eq!(hint(u16::MAX, 70000), u16::MAX);
    }
}
