//! The header in front of every frame on a virtio-net queue (section 5.1.6).
//!
//! ```text
//!  0        1         2        4         6           8            10            12
//!  | flags  | gso_type| hdr_len| gso_size| csum_start| csum_offset| num_buffers |
//! ```
//!
//! 12 bytes with `VIRTIO_F_VERSION_1` or `VIRTIO_NET_F_MRG_RXBUF`, else the
//! first 10. All fields are little endian (a legacy driver's are native, which
//! is the same on every machine we run on).

/// `flags`: the checksum is to be filled in from `csum_start` on.
pub const F_NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum was verified.
pub const F_DATA_VALID: u8 = 2;
/// `gso_type`: an ordinary frame.
pub const GSO_NONE: u8 = 0;
/// `gso_type`: TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// `gso_type`: UDP fragmentation.
pub const GSO_UDP: u8 = 3;
/// `gso_type`: TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// `gso_type`: UDP segmentation, over IPv4 or IPv6.
pub const GSO_UDP_L4: u8 = 5;
/// `gso_type`, added to the TCP types: ECN is in use.
pub const GSO_ECN: u8 = 0x80;

/// Length in bytes of the header with `num_buffers`.
pub const LEN: usize = 12;
/// Length in bytes of the legacy header without `num_buffers`.
pub const LEN_LEGACY: usize = 10;

/// A header, read once from where it came. Believe nothing in it before
/// `net::offload` has checked it against the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetHeader {
    /// `F_NEEDS_CSUM`, `F_DATA_VALID`.
    pub flags: u8,
    /// One of the `GSO_` values.
    pub gso_type: u8,
    /// Length in bytes of all headers (a hint).
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where the checksummed part begins.
    pub csum_start: u16,
    /// Where the checksum goes, from `csum_start` on.
    pub csum_offset: u16,
    /// How many receive chains the frame is spread over.
    pub num_buffers: u16,
}

impl NetHeader {
    /// The header in its wire form; a 10-byte header is the first 10 bytes.
    #[inline]
    pub fn from_bytes(raw: &[u8; LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, end @ ..] = *raw;
        Self::from_halves([a, b, c, d, e, f, g, h], end)
    }

    /// The wire form.
    #[inline]
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut raw = [0; LEN];
        let (start, end) = self.to_halves();
        raw[..start.len()].copy_from_slice(&start);
        raw[start.len()..].copy_from_slice(&end);
        raw
    }

    /// The header from the first 8 and the last 4 bytes of its wire form. Each
    /// is one load and stays in a register: bytes that were put together in
    /// memory make the next load of them wait until they, and every store
    /// before them, have reached the cache.
    #[inline]
    pub fn from_halves(start: [u8; 8], end: [u8; 4]) -> Self {
        let (start, end) = (u64::from_le_bytes(start), u32::from_le_bytes(end));
        #[expect(clippy::cast_possible_truncation, reason = "fields of the words")]
        Self {
            flags: start as u8,
            gso_type: (start >> 8) as u8,
            hdr_len: (start >> 16) as u16,
            gso_size: (start >> 32) as u16,
            csum_start: (start >> 48) as u16,
            csum_offset: end as u16,
            num_buffers: (end >> 16) as u16,
        }
    }

    /// The wire form as its first 8 and its last 4 bytes, one store each.
    #[inline]
    pub fn to_halves(self) -> ([u8; 8], [u8; 4]) {
        let start = u64::from(self.flags)
            | u64::from(self.gso_type) << 8
            | u64::from(self.hdr_len) << 16
            | u64::from(self.gso_size) << 32
            | u64::from(self.csum_start) << 48;
        let end = u32::from(self.csum_offset) | u32::from(self.num_buffers) << 16;
        (start.to_le_bytes(), end.to_le_bytes())
    }

    /// Nothing is asked of who takes this frame.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.flags & F_NEEDS_CSUM == 0 && self.gso_type == GSO_NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_form_is_little_endian_in_specification_order() {
        let raw = [1, 4, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        let header = NetHeader::from_bytes(&raw);
        assert_eq!(
            header,
            NetHeader {
                flags: 1,
                gso_type: 4,
                hdr_len: 0x0302,
                gso_size: 0x0504,
                csum_start: 0x0706,
                csum_offset: 0x0908,
                num_buffers: 0x0b0a,
            }
        );
        assert_eq!(header.to_bytes(), raw);
    }
}
