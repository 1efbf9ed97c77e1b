//! Making frames.

use std::net::Ipv4Addr;

use super::{ETHER_LEN, ETHER_TYPE, IPV4_LEN, PROBE_LEN, Probe, UDP_HEADERS, UDP_LEN, UDP_PORT};
use crate::net::checksum;
use crate::net::ethernet::Mac;
use crate::virtio::memory::Writable;

/// Where a datagram says it comes from, and goes to: the range for benchmarks
/// (RFC 2544).
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 19, 0, 1)];

/// What frames look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Length of the Ethernet frame in bytes, without the frame check sequence.
    pub len: usize,
    /// Source address.
    pub source: Mac,
    /// Destination address.
    pub destination: Mac,
    /// The payload is in a UDP datagram in an IPv4 packet.
    pub udp: bool,
}

impl Form {
    /// Shortest frame: a header alone, with UDP those three.
    pub fn min_len(udp: bool) -> usize {
        if udp { UDP_HEADERS } else { ETHER_LEN }
    }

    /// Shortest frame with a probe in it.
    pub fn probe_len(udp: bool) -> usize {
        Self::min_len(udp) + PROBE_LEN
    }
}

/// Makes frames of one form, numbered.
#[derive(Debug)]
pub struct Source {
    /// A whole frame; the probe's place is filled in anew for each.
    template: Vec<u8>,
    /// Where the probe begins; `None` when there is no room for it.
    probe_at: Option<usize>,
    /// Sum of the filler behind the probe.
    rest: u32,
    next: Probe,
}

impl Source {
    /// Frames of `form` for the sender `stream`. A frame shorter than
    /// [`Form::min_len`] is made that long, and a datagram that passes 65535
    /// bytes of packet is cut to that.
    pub fn new(form: &Form, stream: u16) -> Self {
        let headers = Form::min_len(form.udp);
        let most = if form.udp {
            ETHER_LEN + usize::from(u16::MAX)
        } else {
            usize::MAX
        };
        let len = form.len.clamp(headers, most);
        let probe_at = (len >= headers + PROBE_LEN).then_some(headers);
        let mut template = Vec::with_capacity(len);
        template.extend(form.destination.0);
        template.extend(form.source.0);
        if form.udp {
            template.extend(udp_headers(len, probe_at.is_some()));
        } else {
            template.extend(ETHER_TYPE.to_be_bytes());
        }
        // Something that is not all alike.
        template.extend((b' '..=b'~').cycle().take(len - headers));
        let filler = probe_at.map_or(&[][..], |at| &template[at + PROBE_LEN..]);
        let rest = u32::from(checksum::sum(filler).folded());
        Self {
            template,
            probe_at,
            rest,
            next: Probe {
                stream,
                sequence: 0,
                time: 0,
            },
        }
    }

    /// Length of each frame in bytes.
    pub fn frame_len(&self) -> usize {
        self.template.len()
    }

    /// Frames carry probes.
    pub fn has_probes(&self) -> bool {
        self.probe_at.is_some()
    }

    /// Writes everything that is the same in each frame.
    #[inline]
    pub fn write_template(&self, room: Writable<'_>) {
        room.write(&self.template);
    }

    /// Writes what is different in the next frame, sent at `time`.
    #[inline]
    pub fn write_probe(&mut self, room: Writable<'_>, time: u64) {
        if let Some(at) = self.probe_at {
            self.next.time = time;
            let (first, second, third) = self.next.to_words(self.rest);
            room.skip(at).write_array(&first.to_be_bytes());
            room.skip(at + 8).write_array(&second.to_be_bytes());
            room.skip(at + 16).write_array(&third.to_be_bytes());
            self.next.sequence = self.next.sequence.wrapping_add(1);
        }
    }

    /// The next frame, sent at `time`, on its own.
    pub fn frame(&mut self, time: u64) -> Vec<u8> {
        let mut frame = self.template.clone();
        if let Some(at) = self.probe_at {
            self.next.time = time;
            let (first, second, third) = self.next.to_words(self.rest);
            frame[at..at + 8].copy_from_slice(&first.to_be_bytes());
            frame[at + 8..at + 16].copy_from_slice(&second.to_be_bytes());
            frame[at + 16..at + 18].copy_from_slice(&third.to_be_bytes());
            self.next.sequence = self.next.sequence.wrapping_add(1);
        }
        frame
    }
}

/// EtherType, IPv4 header and UDP header of a frame of `len` bytes. A payload
/// with a probe adds up to nothing in the datagram's checksum.
fn udp_headers(len: usize, probed: bool) -> Vec<u8> {
    let be = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    let [source, destination] = ADDRESSES;
    let mut raw = crate::net::ethernet::TYPE_IPV4.to_be_bytes().to_vec();
    let mut ip = vec![0x45, 0];
    ip.extend(be(len - ETHER_LEN));
    // No identification, not to be fragmented, 64 hops, UDP.
    ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    ip.extend(source.octets());
    ip.extend(destination.octets());
    let check = checksum::sum(&ip).checksum();
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    debug_assert_eq!(ip.len(), IPV4_LEN);
    raw.extend(ip);
    let datagram = u16::try_from(len - ETHER_LEN - IPV4_LEN).unwrap_or(u16::MAX);
    let mut udp = UDP_PORT.to_be_bytes().to_vec();
    udp.extend(UDP_PORT.to_be_bytes());
    udp.extend(datagram.to_be_bytes());
    udp.extend([0, 0]);
    debug_assert_eq!(udp.len(), UDP_LEN);
    if probed {
        let mut sum = checksum::pseudo_v4(source, destination, 17, datagram);
        sum.add(&udp);
        udp[6..].copy_from_slice(&sum.nonzero_checksum().to_be_bytes());
    }
    raw.extend(udp);
    raw
}
