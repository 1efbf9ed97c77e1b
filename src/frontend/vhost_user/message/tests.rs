//! Wire forms, byte for byte, and lengths that are refused.

use super::*;

/// Words as they lie on the wire.
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

/// `read` accepts `raw` but no prefix of it and nothing longer.
fn exact<T: PartialEq + std::fmt::Debug>(raw: &[u8], value: &T, read: impl Fn(&[u8]) -> Option<T>) {
    assert_eq!(read(raw).as_ref(), Some(value));
    for len in 0..raw.len() {
        assert_eq!(read(&raw[..len]), None, "{len} bytes of {}", raw.len());
    }
    assert_eq!(read(&[raw, &[0]].concat()), None);
}

#[test]
fn header_is_request_flags_size() {
    let raw: [u8; 12] = words(&[5, 0b1001, 40]).try_into().unwrap();
    let header = Header::from_bytes(&raw);
    assert_eq!((header.request, header.size), (5, 40));
    assert_eq!(header.version(), VERSION);
    assert!(header.needs_reply() && !header.is_reply());
    assert_eq!(header.to_bytes(), raw);
    assert_eq!(header.reply(8).to_bytes()[..], words(&[5, 0b101, 8]));
    assert_eq!(
        Header::request(Request::GetFeatures, 0).to_bytes()[..],
        words(&[1, 1, 0])
    );
}

#[test]
fn requests_have_the_numbers_of_the_specification() {
    for request in Request::ALL {
        assert_eq!(Request::from_number(*request as u32), Some(*request));
    }
    let names: Vec<(u32, Request)> = vec![
        (5, Request::SetMemTable),
        (11, Request::GetVringBase),
        (18, Request::SetVringEnable),
        (21, Request::SetBackendReqFd),
        (25, Request::SetConfig),
        (34, Request::ResetDevice),
        (38, Request::RemMemReg),
        (40, Request::GetStatus),
    ];
    for (number, request) in names {
        assert_eq!(Request::from_number(number), Some(request));
    }
    for unknown in [0, 26, 33, 41, 44, 1000, u32::MAX] {
        assert_eq!(Request::from_number(unknown), None);
    }
    assert_eq!(
        BackendRequest::from_number(2),
        Some(BackendRequest::ConfigChange)
    );
}

#[test]
fn vring_payloads() {
    let state = VringState { index: 3, num: 256 };
    exact(&words(&[3, 256]), &state, VringState::from_bytes);
    assert_eq!(state.to_bytes()[..], words(&[3, 256]));

    let address = VringAddress {
        index: 1,
        flags: 1,
        desc: 0x1000,
        used: 0x3000,
        avail: 0x2000,
        log: 7,
    };
    let raw = [words(&[1, 1]), longs(&[0x1000, 0x3000, 0x2000, 7])].concat();
    exact(&raw, &address, VringAddress::from_bytes);
    assert_eq!(address.to_bytes()[..], raw);

    for (bits, index, no_fd) in [(0x002, 2, false), (0x1ff, 255, true), (0x200, 0, false)] {
        let raw = u64::to_ne_bytes(bits);
        exact(&raw, &VringFd { index, no_fd }, VringFd::from_bytes);
    }
    let fd = VringFd {
        index: 9,
        no_fd: true,
    };
    assert_eq!(fd.to_bytes(), u64::to_ne_bytes(0x109));
    exact(&longs(&[77]), &77, u64_from_bytes);
}

#[test]
fn memory_payloads() {
    let region = RegionSpec {
        guest_addr: 1,
        len: 2,
        user_addr: 3,
        offset: 4,
    };
    let raw = longs(&[0, 1, 2, 3, 4]);
    exact(&raw, &region, region_from_bytes);
    assert_eq!(region_to_bytes(&region)[..], raw);

    for count in 0..=8_u32 {
        let raw = [
            words(&[count, 0]),
            longs(&[1, 2, 3, 4]).repeat(count as usize),
        ]
        .concat();
        let table: MemoryTable = (0..count).map(|_| region).collect();
        exact(&raw, &table, MemoryTable::from_bytes);
        assert_eq!(table.to_bytes(), raw);
        // As the specification draws it: room for eight, of which some are used.
        let mut room = raw;
        room.resize(8 + 8 * 32, 0xa5);
        assert_eq!(MemoryTable::from_bytes(&room), Some(table));
    }
    let nine = [words(&[9, 0]), longs(&[1, 2, 3, 4]).repeat(9)].concat();
    assert_eq!(MemoryTable::from_bytes(&nine), None);
    assert_eq!(MemoryTable::from_bytes(&words(&[u32::MAX, 0])), None);
}

#[test]
fn config_payload_says_its_own_length() {
    let access = ConfigAccess {
        offset: 6,
        size: 2,
        flags: ConfigAccess::MIGRATION,
    };
    let raw = [words(&[6, 2, 1]), vec![0xaa, 0xbb]].concat();
    assert_eq!(
        ConfigAccess::from_bytes(&raw),
        Some((access, &[0xaa, 0xbb][..]))
    );
    assert_eq!(access.to_bytes()[..], raw[..12]);
    for len in 0..raw.len() {
        assert_eq!(ConfigAccess::from_bytes(&raw[..len]), None);
    }
    let longest = [words(&[0, 256, 0]), vec![0; 256]].concat();
    assert!(ConfigAccess::from_bytes(&longest).is_some());
    let longer = [words(&[0, 257, 0]), vec![0; 257]].concat();
    assert_eq!(ConfigAccess::from_bytes(&longer), None);
}
