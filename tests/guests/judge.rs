//! Whether a frame is one that a receiver without offloads may get.

use bed::{Error, Result};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// The longest frame of an MTU of 1500 bytes.
pub const LONGEST: usize = 1514;

/// Fails unless `frame` fits the MTU and has right lengths and checksums;
/// returns how many bytes it carries over TCP.
pub fn judge(frame: &[u8]) -> Result<usize> {
    if frame.len() > LONGEST {
        return Err(Error::new(format!("{} bytes", frame.len())));
    }
    let wrong = |error: &dyn std::fmt::Display| Error::new(error.to_string());
    let packet = SlicedPacket::from_ethernet(frame).map_err(|error| wrong(&error))?;
    let Some(NetSlice::Ipv4(ip)) = &packet.net else {
        return Ok(0);
    };
    let header = ip.header().to_header();
    if header.header_checksum != header.calc_header_checksum() {
        return Err(Error::new("IPv4 checksum"));
    }
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else {
        return Ok(0);
    };
    let checksum = tcp
        .calc_checksum_ipv4(header.source, header.destination)
        .map_err(|error| wrong(&error))?;
    if tcp.checksum() != checksum {
        return Err(Error::new("TCP checksum"));
    }
    Ok(tcp.payload().len())
}
