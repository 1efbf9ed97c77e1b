//! Judging frames.

use super::{ETHER_LEN, ETHER_TYPE, PROBE_LEN, Probe, UDP_HEADERS};
use crate::driver::net::RxFrame;
use crate::net::checksum::{self, Sum};
use crate::net::ethernet::{Ethernet, TYPE_IPV4};
use crate::net::ip::Ipv4;
use crate::virtio::net_header::{F_DATA_VALID, F_NEEDS_CSUM};

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A probe, as it was sent.
    Good(Probe),
    /// A probe whose payload or headers changed on the way.
    Corrupt,
    /// Not one of ours.
    Foreign,
}

/// Judges frames, one after the other.
#[derive(Debug)]
pub struct Judge {
    /// The frame at hand.
    frame: Box<[u8]>,
    /// Checksums are verified.
    verify: bool,
}

/// Longest frame that is judged, in bytes.
const MAX_FRAME: usize = crate::net::frame::MAX_FRAME;

impl Judge {
    /// A judge; without `verify` it only looks for the probe.
    pub fn new(verify: bool) -> Self {
        Self {
            frame: vec![0; MAX_FRAME].into_boxed_slice(),
            verify,
        }
    }

    /// Judges a frame where it lies in shared memory.
    #[inline]
    pub fn look(&mut self, frame: &RxFrame<'_>) -> Verdict {
        let wanted = if self.verify {
            frame.len
        } else {
            frame.len.min(UDP_HEADERS + PROBE_LEN)
        };
        let Some(room) = self.frame.get_mut(..wanted) else {
            return Verdict::Foreign;
        };
        frame.read(room);
        // Then somebody else answers for the datagram's checksum.
        let trusted = frame.header.flags & (F_NEEDS_CSUM | F_DATA_VALID) != 0;
        judge(room, self.verify, trusted)
    }

    /// Judges a frame of which all bytes are at hand.
    pub fn look_at(&self, frame: &[u8]) -> Verdict {
        judge(frame, self.verify, false)
    }
}

#[inline]
fn judge(frame: &[u8], verify: bool, trusted: bool) -> Verdict {
    let ether_type = frame.get(12..ETHER_LEN);
    if ether_type == Some(&ETHER_TYPE.to_be_bytes()) {
        return payload(&frame[ETHER_LEN..], verify);
    }
    let Some(raw) = frame.get(UDP_HEADERS..UDP_HEADERS + PROBE_LEN) else {
        return Verdict::Foreign;
    };
    let is_probe = raw.first_chunk().and_then(Probe::from_bytes).is_some();
    if ether_type != Some(&TYPE_IPV4.to_be_bytes()) || !is_probe {
        return Verdict::Foreign;
    }
    if verify && !datagram_is_right(frame, trusted) {
        return Verdict::Corrupt;
    }
    payload(&frame[UDP_HEADERS..], verify)
}

/// A payload that should begin with a probe.
#[inline]
fn payload(bytes: &[u8], verify: bool) -> Verdict {
    match bytes.first_chunk().and_then(Probe::from_bytes) {
        None => Verdict::Foreign,
        Some(_) if verify && !checksum::verify(Sum::new(), bytes) => Verdict::Corrupt,
        Some(probe) => Verdict::Good(probe),
    }
}

/// The headers of an IPv4 packet with our UDP datagram in it are right.
fn datagram_is_right(frame: &[u8], trusted: bool) -> bool {
    let Ok(ethernet) = Ethernet::new_checked(frame) else {
        return false;
    };
    let Ok(ip) = Ipv4::new_checked(ethernet.payload()) else {
        return false;
    };
    let datagram = ip.payload();
    let Ok(len) = u16::try_from(datagram.len()) else {
        return false;
    };
    let pseudo = checksum::pseudo_v4(ip.source(), ip.destination(), ip.protocol(), len);
    ip.verify_checksum()
        && usize::from(ip.total_len()) == ethernet.payload().len()
        && (trusted || checksum::verify(pseudo, datagram))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::driver::traffic::{Form, Source};
    use crate::net::ethernet::Mac;

    fn form(len: usize, udp: bool) -> Form {
        Form {
            len,
            source: Mac([2, 0, 0, 0, 0, 1]),
            destination: Mac::BROADCAST,
            udp,
        }
    }

    #[test]
    fn every_length_that_holds_a_probe_is_good() {
        let judge = Judge::new(true);
        for udp in [false, true] {
            for len in (14..200).chain([1514, 1515, 9014, 65549]) {
                let mut source = Source::new(&form(len, udp), 7);
                for sequence in 0..3 {
                    let frame = source.frame(12345);
                    assert_eq!(frame.len(), len.max(Form::min_len(udp)));
                    let verdict = judge.look_at(&frame);
                    if len < Form::probe_len(udp) {
                        assert_eq!(verdict, Verdict::Foreign);
                        continue;
                    }
                    let probe = Probe {
                        stream: 7,
                        sequence,
                        time: 12345,
                    };
                    assert_eq!(verdict, Verdict::Good(probe), "{len} {udp}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_changed_bit_is_noticed(
            len in 60..300_usize,
            udp: bool,
            time: u64,
            at in 0..300_usize,
            bit in 0..8,
        ) {
            let mut frame = Source::new(&form(len, udp), 1).frame(time);
            let at = 12 + at % (frame.len() - 12);
            frame[at] ^= 1_u8 << bit;
            let verdict = Judge::new(true).look_at(&frame);
            prop_assert!(!matches!(verdict, Verdict::Good(_)), "byte {} of {:x?}", at, frame);
        }
    }
}
