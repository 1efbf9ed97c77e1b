//! TCP (RFC 9293) and UDP (RFC 768).

use super::{ParseError, be16, be32};

/// Length in bytes of a TCP header without options.
pub const TCP_HEADER: usize = 20;
/// Where a TCP header has its checksum.
pub const TCP_CHECKSUM: usize = 16;
/// Length in bytes of a UDP header.
pub const UDP_HEADER: usize = 8;
/// Where a UDP header has the datagram's length.
pub const UDP_LENGTH: usize = 4;
/// Where a UDP header has its checksum.
pub const UDP_CHECKSUM: usize = 6;

/// The flags of a TCP header.
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Sequence numbers begin.
    pub const SYN: u8 = 0x02;
    /// The connection is reset.
    pub const RST: u8 = 0x04;
    /// Hand the data to the application now.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer is valid.
    pub const URG: u8 = 0x20;
    /// ECN echo (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// View of a TCP segment, or of its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a> {
    header: &'a [u8; TCP_HEADER],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// A view of `bytes`, which begin with the TCP header.
    ///
    /// # Errors
    /// A header that is cut short, or a data offset within it.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let short = ParseError::Truncated("TCP");
        let (header, rest) = bytes.split_first_chunk().ok_or(short)?;
        let options_len = (usize::from(header[12] >> 4) * 4)
            .checked_sub(TCP_HEADER)
            .ok_or(ParseError::Length("TCP"))?;
        let (options, payload) = rest.split_at_checked(options_len).ok_or(short)?;
        Ok(Self {
            header,
            options,
            payload,
        })
    }

    /// Source port.
    #[inline]
    pub fn source_port(&self) -> u16 {
        be16(self.header, 0)
    }

    /// Destination port.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        be16(self.header, 2)
    }

    /// Sequence number of the first payload byte (of SYN, if set).
    #[inline]
    pub fn sequence(&self) -> u32 {
        be32(self.header, 4)
    }

    /// Acknowledgement number.
    #[inline]
    pub fn acknowledgement(&self) -> u32 {
        be32(self.header, 8)
    }

    /// Length in bytes of the header with its options.
    #[inline]
    pub fn header_len(&self) -> usize {
        TCP_HEADER + self.options.len()
    }

    /// The flags, see [`tcp_flags`].
    #[inline]
    pub fn flags(&self) -> u8 {
        self.header[13]
    }

    /// The window, not scaled.
    #[inline]
    pub fn window(&self) -> u16 {
        be16(self.header, 14)
    }

    /// The checksum field.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.header, TCP_CHECKSUM)
    }

    /// The urgent pointer.
    #[inline]
    pub fn urgent(&self) -> u16 {
        be16(self.header, 18)
    }

    /// The options, up to 40 bytes.
    #[inline]
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// What is there behind the header.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// View of a UDP datagram, or of its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a> {
    header: &'a [u8; UDP_HEADER],
    payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// A view of `bytes`, which begin with the UDP header; what is behind the
    /// datagram's length is not part of it.
    ///
    /// # Errors
    /// A header that is cut short, or a length shorter than it.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, rest) = bytes
            .split_first_chunk()
            .ok_or(ParseError::Truncated("UDP"))?;
        let payload_len = usize::from(be16(header, 4))
            .checked_sub(UDP_HEADER)
            .ok_or(ParseError::Length("UDP"))?;
        let payload = rest.get(..payload_len).unwrap_or(rest);
        Ok(Self { header, payload })
    }

    /// Source port.
    #[inline]
    pub fn source_port(&self) -> u16 {
        be16(self.header, 0)
    }

    /// Destination port.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        be16(self.header, 2)
    }

    /// Length in bytes of header and payload, as the header says.
    #[inline]
    pub fn len(&self) -> u16 {
        be16(self.header, UDP_LENGTH)
    }

    /// The datagram has no payload.
    #[inline]
    pub fn is_empty(&self) -> bool {
        usize::from(self.len()) == UDP_HEADER
    }

    /// The checksum field; 0 means that there is none.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.header, UDP_CHECKSUM)
    }

    /// What is there behind the header.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_tcp_segment() {
        let mut bytes = [
            0x30, 0x39, 0x01, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8, 0x60, 0x92, 0x10, 0x20, 0xab, 0xcd, 0,
            9, 1, 1, 1, 0, 0xee,
        ];
        let tcp = Tcp::new_checked(&bytes).unwrap();
        assert_eq!((tcp.source_port(), tcp.destination_port()), (12345, 443));
        assert_eq!(tcp.sequence(), 0x0102_0304);
        assert_eq!(tcp.acknowledgement(), 0x0506_0708);
        assert_eq!(tcp.header_len(), 24);
        assert_eq!(
            tcp.flags(),
            tcp_flags::CWR | tcp_flags::ACK | tcp_flags::SYN
        );
        assert_eq!(
            (tcp.window(), tcp.checksum(), tcp.urgent()),
            (0x1020, 0xabcd, 9)
        );
        assert_eq!(tcp.options(), [1, 1, 1, 0]);
        assert_eq!(tcp.payload(), [0xee]);
        for len in 0..24 {
            let error = Tcp::new_checked(&bytes[..len]).unwrap_err();
            assert_eq!(error, ParseError::Truncated("TCP"), "{len}");
        }
        bytes[12] = 0x40;
        let error = Tcp::new_checked(&bytes).unwrap_err();
        assert_eq!(error, ParseError::Length("TCP"));
    }

    #[test]
    fn fields_of_a_udp_datagram() {
        let mut bytes = [0x30, 0x39, 0x00, 0x35, 0, 10, 0xab, 0xcd, 1, 2, 0xee];
        let udp = Udp::new_checked(&bytes).unwrap();
        assert_eq!((udp.source_port(), udp.destination_port()), (12345, 53));
        assert_eq!((udp.len(), udp.checksum()), (10, 0xabcd));
        assert!(!udp.is_empty());
        // What is behind the datagram is not payload.
        assert_eq!(udp.payload(), [1, 2]);
        assert_eq!(Udp::new_checked(&bytes[..9]).unwrap().payload(), [1]);
        for len in 0..8 {
            let error = Udp::new_checked(&bytes[..len]).unwrap_err();
            assert_eq!(error, ParseError::Truncated("UDP"));
        }
        bytes[5] = 8;
        assert!(Udp::new_checked(&bytes).unwrap().is_empty());
        bytes[5] = 7;
        let error = Udp::new_checked(&bytes).unwrap_err();
        assert_eq!(error, ParseError::Length("UDP"));
    }
}
