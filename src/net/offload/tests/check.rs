use super::packet::Packet;
use crate::net::offload::{
    Checksums, MAX_HEADER, MAX_SEGMENTS, OffloadError, PREFIX, Segments, check,
};
use crate::net::transport::tcp_flags;
use crate::virtio::net_header::*;
use crate::virtio::spec::net::*;

/// `check` as a device calls it: with the first bytes of the frame.
pub fn check_frame(
    header: &NetHeader,
    features: u64,
    frame: &[u8],
) -> Result<NetHeader, OffloadError> {
    let prefix = &frame[..frame.len().min(PREFIX)];
    check(
        header,
        features,
        prefix,
        u32::try_from(frame.len()).unwrap(),
    )
}

#[test]
fn a_plain_header_is_rebuilt_empty() {
    // Section 5.1.6.2: DATA_VALID is not a driver's to set, unknown flags are
    // ignored, and the other fields mean nothing.
    let header = NetHeader {
        flags: !F_NEEDS_CSUM,
        gso_type: GSO_NONE,
        hdr_len: 1,
        gso_size: 2,
        csum_start: 3,
        csum_offset: 4,
        num_buffers: 5,
    };
    for features in [0, HOST_OFFLOADS] {
        assert_eq!(check(&header, features, &[], 0), Ok(NetHeader::default()));
    }
}

#[test]
fn a_checksum_alone_needs_only_a_place() {
    let mut header = Packet::udp(false, 100).header(0);
    header.gso_type = GSO_NONE;
    header.flags |= F_DATA_VALID | 0x80;
    header.hdr_len = 0xffff;
    header.gso_size = 7;
    header.num_buffers = 9;
    let checked = NetHeader {
        flags: F_NEEDS_CSUM,
        hdr_len: 42,
        csum_start: 34,
        csum_offset: 6,
        ..NetHeader::default()
    };
    let frame = Packet::udp(false, 100).frame();
    assert_eq!(check_frame(&header, F_CSUM, &frame), Ok(checked));
    // What is in the frame does not matter: it may be a tunnel's.
    assert_eq!(check_frame(&header, F_CSUM, &[0; 60]), Ok(checked));
    // The last place that there is, in frames of every length.
    for len in 42..100 {
        let at = |csum_start, csum_offset| NetHeader {
            csum_start,
            csum_offset,
            ..header
        };
        let frame = &frame[..usize::from(len)];
        assert!(check_frame(&at(34, len - 36), F_CSUM, frame).is_ok());
        assert!(check_frame(&at(14, len - 16), F_CSUM, frame).is_ok());
        for outside in [
            at(34, len - 35),
            at(len - 1, 0),
            at(13, 6),
            at(0xffff, 0xffff),
        ] {
            assert_eq!(
                check_frame(&outside, F_CSUM, frame),
                Err(OffloadError::ChecksumOutside)
            );
        }
    }
}

#[test]
fn the_transport_header_length_is_found_for_a_checksum_alone() {
    let mut packet = Packet::tcp(false, 10);
    packet.tcp_options = 5;
    let header = NetHeader {
        gso_type: GSO_NONE,
        ..packet.header(0)
    };
    let checked = check_frame(&header, F_CSUM, &packet.frame()).unwrap();
    assert_eq!(usize::from(checked.hdr_len), packet.headers());
    // A data offset that lies must not get past the frame's end.
    let mut frame = packet.frame();
    frame[packet.transport() + 12] = 0xf0;
    let checked = check_frame(&header, F_CSUM, &frame).unwrap();
    assert_eq!(usize::from(checked.hdr_len), frame.len());
    frame[packet.transport() + 12] = 0;
    let checked = check_frame(&header, F_CSUM, &frame).unwrap();
    assert_eq!(usize::from(checked.hdr_len), packet.transport() + 18);
}

#[test]
fn what_drivers_ask_for_is_rebuilt() {
    for (packet, feature) in [
        (Packet::tcp(false, 5000), F_HOST_TSO4),
        (Packet::tcp(true, 5000), F_HOST_TSO6),
        (Packet::udp(false, 5000), F_HOST_UFO),
        (Packet::udp(true, 5000), F_HOST_UFO),
        (Packet::datagrams(false, 5000), F_HOST_USO),
        (Packet::datagrams(true, 5000), F_HOST_USO),
    ] {
        let good = packet.header(1448);
        let mut header = good;
        header.flags |= F_DATA_VALID | 4;
        header.hdr_len = 3;
        header.num_buffers = 7;
        let frame = packet.frame();
        assert_eq!(check_frame(&header, F_CSUM | feature, &frame), Ok(good));
        for features in [F_CSUM, F_CSUM | (HOST_OFFLOADS & !feature)] {
            assert_eq!(
                check_frame(&header, features, &frame),
                Err(OffloadError::GsoNotNegotiated)
            );
        }
        assert_eq!(
            check_frame(&header, HOST_OFFLOADS & !F_CSUM, &frame),
            Err(OffloadError::ChecksumNotNegotiated)
        );
    }
}

#[test]
fn ecn_follows_the_frame() {
    let mut packet = Packet::tcp(false, 5000);
    let plain = packet.header(1000);
    let asked = NetHeader {
        gso_type: GSO_TCPV4 | GSO_ECN,
        ..plain
    };
    let without = HOST_OFFLOADS & !F_HOST_ECN;
    let frame = packet.frame();
    assert_eq!(check_frame(&asked, HOST_OFFLOADS, &frame), Ok(plain));
    assert_eq!(
        check_frame(&asked, without, &frame),
        Err(OffloadError::EcnNotNegotiated)
    );
    packet.flags |= tcp_flags::CWR;
    let frame = packet.frame();
    assert_eq!(check_frame(&asked, HOST_OFFLOADS, &frame), Ok(asked));
    assert_eq!(check_frame(&plain, without, &frame), Ok(asked));
}

#[test]
fn one_segment_is_not_segmented() {
    for v6 in [false, true] {
        let tcp = Packet::tcp(v6, 1448);
        let checked = check_frame(&tcp.header(1448), HOST_OFFLOADS, &tcp.frame()).unwrap();
        assert_eq!(checked.gso_type, GSO_NONE);
        assert_eq!(checked.gso_size, 0);
        assert_eq!(checked.flags, F_NEEDS_CSUM);
        let checked = check_frame(&tcp.header(1447), HOST_OFFLOADS, &tcp.frame()).unwrap();
        assert_ne!(checked.gso_type, GSO_NONE);

        // UDP's header counts, and a fragment is rounded to 8 bytes.
        let udp = Packet::udp(v6, 1449);
        let checked = check_frame(&udp.header(1457), HOST_OFFLOADS, &udp.frame()).unwrap();
        assert_eq!((checked.gso_type, checked.gso_size), (GSO_NONE, 0));
        let checked = check_frame(&udp.header(1456), HOST_OFFLOADS, &udp.frame()).unwrap();
        assert_eq!((checked.gso_type, checked.gso_size), (GSO_UDP, 1456));
        let checked = check_frame(&udp.header(1455), HOST_OFFLOADS, &udp.frame()).unwrap();
        assert_eq!((checked.gso_type, checked.gso_size), (GSO_UDP, 1448));

        // Of a datagram only the payload counts, and nothing is rounded.
        let one = Packet::datagrams(v6, 1449);
        let checked = check_frame(&one.header(1449), HOST_OFFLOADS, &one.frame()).unwrap();
        assert_eq!((checked.gso_type, checked.gso_size), (GSO_NONE, 0));
        let checked = check_frame(&one.header(1447), HOST_OFFLOADS, &one.frame()).unwrap();
        assert_eq!((checked.gso_type, checked.gso_size), (GSO_UDP_L4, 1447));
    }
}

#[test]
fn segments_are_bounded() {
    for packet in [
        Packet::tcp(false, 40 * MAX_SEGMENTS),
        Packet::udp(false, 40 * MAX_SEGMENTS - 8),
        Packet::datagrams(true, 40 * MAX_SEGMENTS),
    ] {
        let header = packet.header(40);
        let frame = packet.frame();
        let checked = check_frame(&header, HOST_OFFLOADS, &frame).unwrap();
        let mut segments = Segments::new(&frame, &checked, Checksums::Complete).unwrap();
        let mut head = [0; MAX_HEADER];
        let mut count = 0;
        while segments.next(&mut head).is_some() {
            count += 1;
        }
        assert_eq!(count, MAX_SEGMENTS);

        let longer = Packet {
            payload: packet.payload + 1,
            ..packet
        };
        let frame = longer.frame();
        let error = check_frame(&header, HOST_OFFLOADS, &frame);
        assert_eq!(error, Err(OffloadError::TooManySegments));
        let again = Segments::new(&frame, &checked, Checksums::Complete);
        assert_eq!(again.unwrap_err(), OffloadError::TooManySegments);
    }
}

/// Changes one field of a header.
type EditHeader = fn(&mut NetHeader);
/// Changes the frame; the offsets are those of network and transport header.
type EditFrame = fn(&mut Vec<u8>, usize, usize);

#[test]
fn hostile_headers() {
    use OffloadError::*;
    let cases: [(EditHeader, OffloadError); 15] = [
        (|h| h.gso_size = 0, GsoSize),
        (|h| h.gso_size = 1, TooManySegments),
        (|h| h.flags = 0, GsoWithoutChecksum),
        (|h| h.flags = F_DATA_VALID, GsoWithoutChecksum),
        (|h| h.gso_type = 2, UnknownGso),
        (|h| h.gso_type = 6, UnknownGso),
        (|h| h.gso_type = GSO_ECN, UnknownGso),
        (|h| h.gso_type = GSO_UDP | GSO_ECN, UnknownGso),
        (|h| h.gso_type = GSO_UDP_L4 | GSO_ECN, UnknownGso),
        (|h| h.gso_type = 0x7f, UnknownGso),
        (|h| h.csum_start += 1, ChecksumElsewhere),
        (|h| h.csum_offset ^= 2, ChecksumElsewhere),
        (
            |h| {
                h.csum_start += 2;
                h.csum_offset -= 2;
            },
            ChecksumElsewhere,
        ),
        (|h| h.csum_start = 0xffff, ChecksumOutside),
        (|h| h.csum_offset = 0xffff, ChecksumOutside),
    ];
    for packet in [
        Packet::tcp(false, 5000),
        Packet::tcp(true, 5000),
        Packet::udp(false, 65000),
        Packet::datagrams(false, 65000),
        Packet::datagrams(true, 65000),
    ] {
        for (number, (edit, error)) in cases.into_iter().enumerate() {
            let mut header = packet.header(1000);
            edit(&mut header);
            // Fragments of less than 8 bytes are rounded down to nothing.
            let error = match (error, header.gso_type) {
                (TooManySegments, GSO_UDP) => GsoSize,
                _ => error,
            };
            assert_eq!(
                check_frame(&header, HOST_OFFLOADS, &packet.frame()),
                Err(error),
                "case {number}"
            );
        }
    }
}

#[test]
fn gso_types_that_are_not_the_frames() {
    let packets = [
        Packet::tcp(false, 5000),
        Packet::tcp(true, 5000),
        Packet::udp(false, 5000),
        Packet::datagrams(true, 5000),
    ];
    for (at, packet) in packets.iter().enumerate() {
        for (other, wrong) in packets.iter().enumerate() {
            let mut header = packet.header(1000);
            header.gso_type = wrong.header(1000).gso_type;
            let checked = check_frame(&header, HOST_OFFLOADS, &packet.frame());
            // Whether a datagram is to be fragmented or is several it does not say.
            if at == other || (packet.udp && wrong.udp) {
                assert!(checked.is_ok());
            } else {
                assert_eq!(checked, Err(OffloadError::WrongProtocol));
            }
        }
    }
}

#[test]
fn frames_that_do_not_fit_their_header() {
    use OffloadError::*;
    let v4: &[(EditFrame, OffloadError)] = &[
        (|f, _, _| f[12] = 0x09, WrongProtocol),
        (|f, n, _| f[n] = 0x65, Malformed),
        (|f, n, _| f[n] = 0x44, Malformed),
        (|f, n, _| f[n + 9] = 1, WrongProtocol),
        (|f, n, _| f[n + 6] = 0x20, IsFragment),
        (|f, n, _| f[n + 7] = 1, IsFragment),
        (|f, n, _| f[n + 3] ^= 1, Length),
        (|f, n, _| f[n + 2..n + 4].fill(0), Malformed),
        (|f, _, _| f.push(0), Length),
        (|f, _, t| f[t + 12] = 0x40, Malformed),
    ];
    let v6: &[(EditFrame, OffloadError)] = &[
        (|f, _, _| f[13] = 0xde, WrongProtocol),
        (|f, n, _| f[n] = 0x45, Malformed),
        (|f, n, _| f[n + 6] = 59, WrongProtocol),
        (|f, n, _| f[n + 5] ^= 1, Length),
        (|f, n, _| f[n + 4..n + 6].fill(0), Length),
        (|f, _, _| f.push(0), Length),
        (|f, _, t| f[t + 12] = 0, Malformed),
        // What was TCP is a fragment header now, or one that does not end, or
        // many.
        (|f, n, _| f[n + 6] = 44, IsFragment),
        (
            |f, n, t| {
                f[n + 6] = 60;
                f[t + 1] = 0xff;
            },
            HeadersCutShort,
        ),
        (
            |f, n, t| {
                f[n + 6] = 60;
                f[t..t + 136].fill(0);
                f[t..t + 136]
                    .iter_mut()
                    .step_by(8)
                    .for_each(|kind| *kind = 60);
            },
            Malformed,
        ),
    ];
    for (packet, cases) in [(Packet::tcp(false, 900), v4), (Packet::tcp(true, 900), v6)] {
        let header = packet.header(100);
        for (number, (edit, error)) in cases.iter().enumerate() {
            let mut frame = packet.frame();
            edit(&mut frame, packet.network(), packet.transport());
            let checked = check_frame(&header, HOST_OFFLOADS, &frame);
            assert_eq!(checked, Err(*error), "v6 {}, case {number}", packet.v6);
            let segments = Segments::new(&frame, &header, Checksums::Complete);
            assert_eq!(segments.unwrap_err(), *error, "case {number}");
        }
    }
}

#[test]
fn udp_lengths_must_be_the_frames() {
    for packet in [
        Packet::udp(false, 3000),
        Packet::udp(true, 3000),
        Packet::datagrams(false, 3000),
        Packet::datagrams(true, 3000),
    ] {
        for length in [0_u16, 7, 8, 3007, 3009, 0xffff] {
            let mut frame = packet.frame();
            let at = packet.transport() + 4;
            frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
            let checked = check_frame(&packet.header(1000), HOST_OFFLOADS, &frame);
            let error = match length {
                0..8 => OffloadError::Malformed,
                _ => OffloadError::Length,
            };
            assert_eq!(checked, Err(error), "{length}");
        }
    }
}

#[test]
fn headers_must_be_among_the_first_bytes() {
    let mut packet = Packet::tcp(true, 5000);
    packet.tags = 2;
    packet.tcp_options = 10;
    packet.extensions = vec![(0, 1), (60, 1), (43, 2)];
    let header = packet.header(1000);
    let frame = packet.frame();
    let len = u32::try_from(frame.len()).unwrap();
    for end in 0..packet.headers() {
        assert_eq!(
            check(&header, HOST_OFFLOADS, &frame[..end], len),
            Err(OffloadError::HeadersCutShort),
            "{end}"
        );
    }
    assert!(check(&header, HOST_OFFLOADS, &frame[..packet.headers()], len).is_ok());

    // As far as the first bytes reach, and 8 bytes farther.
    packet.tags = 1;
    packet.tcp_options = 3;
    packet.extensions = vec![(60, 18)];
    packet
        .extensions
        .push((60, (PREFIX - packet.headers()) as u8 / 8 - 1));
    let frame = packet.frame();
    assert!((PREFIX - 7..=PREFIX).contains(&packet.headers()));
    assert!(check_frame(&packet.header(1000), HOST_OFFLOADS, &frame).is_ok());
    assert!(
        check(
            &packet.header(1000),
            HOST_OFFLOADS,
            &frame,
            frame.len() as u32
        )
        .is_ok()
    );
    packet.extensions[0].1 += 1;
    let frame = packet.frame();
    let error = Err(OffloadError::HeadersCutShort);
    assert_eq!(
        check_frame(&packet.header(1000), HOST_OFFLOADS, &frame),
        error
    );
    assert_eq!(
        check(
            &packet.header(1000),
            HOST_OFFLOADS,
            &frame,
            frame.len() as u32
        ),
        error
    );
}
