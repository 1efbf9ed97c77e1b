use super::*;
use crate::net::checksum::sum;

/// RFC 791, figure 4, with one option and three bytes of payload.
const V4: [u8; 28] = [
    0x46, 0x00, 0x00, 0x1b, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0, 0, 192, 0, 2, 1, 198, 51, 100,
    7, 0x94, 4, 0, 0, 1, 2, 3, 0xee,
];

#[test]
fn fields_of_an_ipv4_packet() {
    let mut bytes = V4;
    let ip = Ipv4::new_checked(&bytes).unwrap();
    assert_eq!((ip.header_len(), ip.total_len()), (24, 27));
    assert_eq!(ip.identification(), 0x1234);
    assert_eq!(ip.fragmentation(), V4_DONT_FRAGMENT);
    assert_eq!((ip.time_to_live(), ip.protocol()), (64, UDP));
    assert_eq!(ip.source(), Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(ip.destination(), Ipv4Addr::new(198, 51, 100, 7));
    assert_eq!(ip.options(), [0x94, 4, 0, 0]);
    // Ethernet's padding is not payload.
    assert_eq!(ip.payload(), [1, 2, 3]);
    assert!(!ip.is_fragment() && !ip.verify_checksum());
    bytes[6] = 0x20;
    assert!(Ipv4::new_checked(&bytes).unwrap().is_fragment());
    bytes[6..8].copy_from_slice(&[0, 1]);
    assert!(Ipv4::new_checked(&bytes).unwrap().is_fragment());
    let checksum = sum(&bytes[..24]).checksum();
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    let ip = Ipv4::new_checked(&bytes).unwrap();
    assert!(ip.verify_checksum());
    assert_eq!(ip.checksum(), checksum);
}

#[test]
fn what_is_not_an_ipv4_header() {
    for len in 0..24 {
        let error = Ipv4::new_checked(&V4[..len]).unwrap_err();
        assert_eq!(error, ParseError::Truncated("IPv4"), "{len}");
    }
    // The payload may be cut short.
    assert_eq!(Ipv4::new_checked(&V4[..25]).unwrap().payload(), [1]);
    for (at, byte, error) in [
        (0, 0x66, ParseError::Version),
        (0, 0x44, ParseError::Length("IPv4")),
        (3, 23, ParseError::Length("IPv4")),
        (3, 0, ParseError::Length("IPv4")),
    ] {
        let mut bytes = V4;
        bytes[at] = byte;
        assert_eq!(Ipv4::new_checked(&bytes).unwrap_err(), error);
    }
}

/// An IPv6 packet whose first extension header is `first`.
fn v6(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend([first, 63]);
    bytes.extend((1..=32).collect::<Vec<u8>>());
    bytes.extend(payload);
    bytes
}

#[test]
fn fields_of_an_ipv6_packet() {
    let mut bytes = v6(UDP, &[1, 2, 3]);
    bytes.push(0xee);
    let ip = Ipv6::new_checked(&bytes).unwrap();
    assert_eq!(ip.payload_len(), 3);
    assert_eq!((ip.next_header(), ip.hop_limit()), (UDP, 63));
    assert_eq!(ip.source().octets()[..3], [1, 2, 3]);
    assert_eq!(ip.destination().octets()[..3], [17, 18, 19]);
    assert_eq!(ip.payload(), [1, 2, 3]);
    let upper = ip.upper_layer().unwrap();
    assert_eq!((upper.protocol, upper.protocol_at), (UDP, 6));
    assert_eq!((upper.header_len, upper.payload), (40, &[1, 2, 3][..]));
    assert_eq!(upper.final_destination, ip.destination());
    assert_eq!(upper.fragment, None);

    for len in 0..40 {
        let error = Ipv6::new_checked(&bytes[..len]).unwrap_err();
        assert_eq!(error, ParseError::Truncated("IPv6"));
    }
    bytes[0] = 0x45;
    assert_eq!(Ipv6::new_checked(&bytes).unwrap_err(), ParseError::Version);
}

#[test]
fn extension_headers_are_walked_in_any_order() {
    let payload = [
        &[DESTINATION_OPTIONS, 1][..],
        &[0; 14],
        &[FRAGMENT, 0, 1, 4, 0, 0, 0, 0],
        &[ROUTING, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef],
        &[TCP, 0, 4, 0, 0, 0, 0, 0],
        &[9, 9],
    ]
    .concat();
    let bytes = v6(HOP_BY_HOP, &payload);
    let upper = Ipv6::new_checked(&bytes).unwrap().upper_layer().unwrap();
    assert_eq!(upper.protocol, TCP);
    assert_eq!((upper.header_len, upper.protocol_at), (80, 72));
    assert_eq!(upper.payload, [9, 9]);
    let fragment = Fragment {
        offset: 0,
        more: true,
        identification: 0xdead_beef,
    };
    assert_eq!(upper.fragment, Some(fragment));
    for len in 40..80 {
        let ip = Ipv6::new_checked(&bytes[..len]).unwrap();
        let error = ip.upper_layer().unwrap_err();
        assert_eq!(error, ParseError::Truncated("IPv6 extension"), "{len}");
    }
}

#[test]
fn the_walk_ends_at_a_later_fragment() {
    let payload = [DESTINATION_OPTIONS, 0, 0x05, 0xb0, 0, 0, 0, 7, 6, 0];
    let bytes = v6(FRAGMENT, &payload);
    let upper = Ipv6::new_checked(&bytes).unwrap().upper_layer().unwrap();
    assert_eq!(upper.protocol, DESTINATION_OPTIONS);
    assert_eq!(upper.payload, [6, 0]);
    let fragment = upper.fragment.unwrap();
    assert_eq!((fragment.offset, fragment.more), (0x05b0, false));
}

#[test]
fn the_walk_is_bounded() {
    let mut payload = [DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0].repeat(MAX_EXTENSIONS);
    payload.extend([UDP, 0, 1, 4, 0, 0, 0, 0]);
    let walk = |payload: &[u8]| {
        let bytes = v6(DESTINATION_OPTIONS, payload);
        let upper = Ipv6::new_checked(&bytes).unwrap().upper_layer();
        upper.map(|upper| upper.protocol)
    };
    assert_eq!(walk(&payload), Err(ParseError::TooManyExtensions));
    assert_eq!(walk(&payload[8..]), Ok(UDP));
}

#[test]
fn routing_headers_say_where_a_packet_ends() {
    let first: Vec<u8> = (100..116).collect();
    let second: Vec<u8> = (200..216).collect();
    for (kind, left, last) in [
        (0, 2, Some(&second)),
        (2, 1, Some(&first)),
        (4, 1, Some(&first)),
        (0, 0, None),
        (2, 0, None),
        (4, 0, None),
        (3, 1, None),
        (253, 1, None),
    ] {
        let payload = [&[UDP, 4, kind, left, 0, 0, 0, 0], &first[..], &second[..]].concat();
        let bytes = v6(ROUTING, &payload);
        let ip = Ipv6::new_checked(&bytes).unwrap();
        let upper = ip.upper_layer().unwrap();
        let expected = last.map_or(ip.destination().octets().to_vec(), Vec::clone);
        assert_eq!(
            upper.final_destination.octets()[..],
            expected,
            "{kind} {left}"
        );
    }
    // A list that is not there.
    let bytes = v6(ROUTING, &[UDP, 0, 4, 1, 0, 0, 0, 0]);
    let ip = Ipv6::new_checked(&bytes).unwrap();
    let upper = ip.upper_layer().unwrap();
    assert_eq!(upper.final_destination, ip.destination());
}
