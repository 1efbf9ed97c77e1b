//! What Linux does with frames that are handed to it behind a virtio-net header
//! (include/linux/virtio_net.h).

use crate::virtio::net_header::{GSO_UDP_L4, NetHeader};

/// Of how many datagrams each kernel that knows `GSO_UDP_L4`, those since 6.2,
/// takes a frame (`UDP_MAX_SEGMENTS`; it was doubled in 6.9).
const MAX_DATAGRAMS: usize = 64;

/// Whether every kernel that knows the type in `header`, which was checked,
/// takes a frame of `len` bytes with it.
pub fn takes(header: &NetHeader, len: u32) -> bool {
    let payload = (len as usize).saturating_sub(header.hdr_len.into());
    header.gso_type != GSO_UDP_L4 || payload <= usize::from(header.gso_size) * MAX_DATAGRAMS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::net_header::GSO_TCPV4;

    #[test]
    fn datagrams_are_counted() {
        let header = NetHeader {
            gso_type: GSO_UDP_L4,
            hdr_len: 42,
            gso_size: 100,
            ..NetHeader::default()
        };
        assert!(takes(&header, 42 + 6400));
        assert!(!takes(&header, 42 + 6401));
        let segments = NetHeader {
            gso_type: GSO_TCPV4,
            ..header
        };
        assert!(takes(&segments, 60_000));
    }
}
