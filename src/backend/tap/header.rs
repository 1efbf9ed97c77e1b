//! What a guest is told of a frame that the kernel hands us.
//!
//! The kernel has checked its headers, and switched to what the guest takes.
//! But frames that were waiting when the guest changed its mind are as they
//! were, and other processes can have the interface, too: so each header is
//! judged again, and built anew from the fields that count.

use crate::net::frame::ETHER_HEADER;
use crate::net::offload;
use crate::virtio::net_header::{F_DATA_VALID, F_NEEDS_CSUM, GSO_NONE, NetHeader};
use crate::virtio::spec::net;

/// The header for a guest that takes `offloads` (feature bits), made from the
/// kernel's for a frame of `len` bytes. `None`: the guest must not get it.
pub(super) fn for_guest(host: &NetHeader, len: usize, offloads: u64) -> Option<NetHeader> {
    if host.is_plain() {
        let valid = if offloads & net::F_GUEST_CSUM != 0 {
            F_DATA_VALID
        } else {
            0
        };
        return Some(NetHeader {
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
        || !offload::accepts(host, offloads)
    {
        return None;
    }
    // Only a hint, but one that covers the checksum and is inside the frame.
    let hdr_len = usize::from(host.hdr_len).max(end).min(len);
    Some(NetHeader {
        flags: F_NEEDS_CSUM,
        gso_type: host.gso_type,
        hdr_len: u16::try_from(hdr_len).unwrap_or(u16::MAX),
        gso_size: if segmented { host.gso_size } else { 0 },
        csum_start: host.csum_start,
        csum_offset: host.csum_offset,
        num_buffers: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::net_header::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP};

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
        let told = for_guest(&host, 60, net::F_GUEST_CSUM).unwrap();
        let only = NetHeader {
            flags: F_DATA_VALID,
            ..NetHeader::default()
        };
        assert_eq!(told, only);
        let told = for_guest(&host, 60, net::F_GUEST_TSO4).unwrap();
        assert_eq!(told, NetHeader::default());
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
            (
                ecn,
                net::F_GUEST_CSUM | net::F_GUEST_TSO4 | net::F_GUEST_ECN,
            ),
        ];
        for (host, needs) in cases {
            assert_eq!(for_guest(&host, 3000, needs), Some(host));
            for bit in (0..64).map(|bit| 1 << bit).filter(|bit| needs & bit != 0) {
                assert_eq!(for_guest(&host, 3000, needs & !bit), None, "{host:?}");
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
            NetHeader { gso_type: 5, ..TSO },
            NetHeader {
                gso_type: GSO_ECN,
                ..TSO
            },
        ];
        for host in bad {
            assert_eq!(for_guest(&host, 3000, u64::MAX), None, "{host:?}");
        }
    }

    #[test]
    fn the_header_length_stays_within_the_frame_and_covers_the_checksum() {
        let hint = |hdr_len, len| {
            let host = NetHeader { hdr_len, ..TSO };
            for_guest(&host, len, u64::MAX).unwrap().hdr_len
        };
        assert_eq!(hint(54, 3000), 54);
        assert_eq!(hint(0, 3000), 52);
        assert_eq!(hint(u16::MAX, 3000), 3000);
        assert_eq!(hint(u16::MAX, 70000), u16::MAX);
    }
}
