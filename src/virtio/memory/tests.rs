//! Tests of the memory table: lookups, refusals, vanishing memory.

use std::os::fd::OwnedFd;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use super::*;

fn memfd(len: i64) -> OwnedFd {
    let fd = memfd_create(c"memory-test", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&fd, len).unwrap();
    fd
}

fn spec(guest_addr: u64, user_addr: u64, len: u64) -> RegionSpec {
    RegionSpec {
        guest_addr,
        user_addr,
        len,
        offset: 0,
    }
}

#[test]
fn a_refusal_says_which_region_it_is_about() {
    let error = GuestMemory::new([(spec(0x1000, 0x2000, 0x3000), memfd(0x1000))]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "memory region at 0x1000 (0x3000 bytes, the front end's 0x2000, from 0x0 of its file) \
         ends beyond its descriptor's 0x1000 bytes"
    );
}

#[test]
fn addresses_of_both_kinds_are_looked_up() {
    let memory = GuestMemory::new([
        (spec(0x10000, 0x7000_0000, 0x2000), memfd(0x2000)),
        (spec(0, 0x8000_0000, 0x4000), memfd(0x4000)),
    ])
    .unwrap();
    memory.writable(0x11ff8, 8).unwrap().write(b"abcdefgh");
    assert_eq!(
        memory.readable(0x11ffc, 4).unwrap().read_array(),
        Some(*b"efgh")
    );
    assert!(memory.readable(0x11ffc, 5).is_none());
    assert!(memory.readable(0x4000, 1).is_none());
    assert!(memory.readable(u64::MAX, 1).is_none());
    assert!(memory.user_range(0x7000_1ff8, 8).is_some());
    assert!(memory.user_range(0x7000_1ff8, 9).is_none());
    assert!(memory.user_range(0x7000_1ff8, u64::MAX).is_none());
}

#[test]
fn a_buffer_may_cross_into_the_next_region_but_not_into_a_hole() {
    let memory = GuestMemory::new([
        (spec(0x1000, 0x1000, 0x1000), memfd(0x1000)),
        (spec(0x2000, 0x9000, 0x1000), memfd(0x1000)),
    ])
    .unwrap();
    let mut lens = Vec::new();
    let mut hint = 0;
    let mut collect = |addr, len| {
        lens.clear();
        memory
            .pieces(addr, len, &mut hint, |_, len| {
                lens.push(len);
                Some(())
            })
            .map(|()| lens.clone())
    };
    assert_eq!(collect(0x1ff0, 0x20), Some(vec![0x10, 0x10]));
    assert_eq!(collect(0x2ff0, 0x10), Some(vec![0x10]));
    assert_eq!(collect(0x2ff0, 0x11), None);
    assert_eq!(collect(0xfff, 1), None);
    assert_eq!(collect(u64::MAX, 2), None);
}

#[test]
fn bad_tables_are_refused() {
    let region = spec(0x1000, 0x1000, 0x1000);
    let two = |other| GuestMemory::new([(region, memfd(0x1000)), (other, memfd(0x1000))]);
    assert!(matches!(
        two(spec(0x1fff, 0x8000, 0x1000)),
        Err(MemoryError::Overlap(..))
    ));
    assert!(matches!(
        two(spec(0x8000, 0x1fff, 0x1000)),
        Err(MemoryError::Overlap(..))
    ));
    assert!(matches!(
        two(spec(0x8000, 0x8000, 0)),
        Err(MemoryError::Range(_))
    ));
    assert!(matches!(
        two(spec(u64::MAX, 0x8000, 2)),
        Err(MemoryError::Range(_))
    ));
    assert!(matches!(
        two(spec(0x8000, 0x8000, 0x1001)),
        Err(MemoryError::Short(_, 0x1000))
    ));
    let pipe = nix::unistd::pipe().unwrap().0;
    assert!(matches!(
        GuestMemory::new([(region, pipe)]),
        Err(MemoryError::Map(..))
    ));
}

#[test]
fn a_region_is_removed_by_its_addresses() {
    let memory = GuestMemory::new([(spec(0x1000, 0x5000, 0x1000), memfd(0x1000))]).unwrap();
    assert!(memory.without_region(spec(0x1000, 0x5000, 0x2000)).is_err());
    assert!(
        memory
            .without_region(spec(0x1000, 0x5000, 0x1000))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn truncated_memory_reads_as_zero_and_marks_its_snapshot_broken() {
    install_fault_handler().unwrap();
    let fd = memfd(0x4000);
    let keep = fd.try_clone().unwrap();
    let memory = GuestMemory::new([(spec(0, 0, 0x4000), fd)]).unwrap();
    let whole = GuestMemory::new([(spec(0, 0, 0x1000), memfd(0x1000))]).unwrap();
    memory.writable(0x3000, 4).unwrap().write(b"here");
    assert!(!memory.is_broken());
    ftruncate(&keep, 0).unwrap();
    assert_eq!(
        memory.readable(0x3000, 4).unwrap().read_array(),
        Some([0; 4])
    );
    assert!(memory.is_broken());
    assert!(!whole.is_broken());
}

#[test]
fn lists_of_views_are_copied_across_their_seams() {
    let memory = GuestMemory::new([(spec(0, 0, 0x1000), memfd(0x1000))]).unwrap();
    let from = [
        Readable::from_slice(b"ab"),
        Readable::from_slice(b""),
        Readable::from_slice(b"cdef"),
    ];
    let to = [
        memory.writable(0, 3).unwrap(),
        memory.writable(100, 9).unwrap(),
    ];
    assert_eq!(copy(&from, &to), 6);
    assert_eq!(memory.readable(0, 4).unwrap().read_array(), Some(*b"abc\0"));
    assert_eq!(
        memory.readable(100, 4).unwrap().read_array(),
        Some(*b"def\0")
    );
    assert_eq!(copy(&from, &to[..1]), 3);
}

#[test]
fn a_table_does_not_take_all_of_the_address_space() {
    let fd = memfd(1 << 60);
    let half = MAX_BYTES / 2;
    let memory = GuestMemory::default()
        .with_region(spec(0, 0, half), &fd)
        .unwrap();
    assert!(matches!(
        memory.with_region(spec(half, half, half + 1), &fd),
        Err(MemoryError::TooLong(_))
    ));
    memory.with_region(spec(half, half, half), &fd).unwrap();
}

/// Short and middling runs are copied here, each length in its own way.
#[test]
fn runs_of_every_length_are_copied_whole_and_no_further() {
    let memory = GuestMemory::new([(spec(0, 0, 0x2000), memfd(0x2000))]).unwrap();
    for len in (0..300).chain(2000..2100) {
        let bytes: Vec<u8> = (1..=len).map(|nth| (nth % 251) as u8).collect();
        let whole = memory.writable(7, len + 1).unwrap();
        whole.write(&vec![0xff; bytes.len() + 1]);
        let room = memory.writable(7, len).unwrap();
        assert_eq!(room.write_from(&Readable::from_slice(&bytes)), bytes.len());
        let mut found = vec![0; bytes.len() + 1];
        whole.as_readable().read(&mut found);
        assert_eq!(found.pop(), Some(0xff), "{len} bytes");
        assert_eq!(found, bytes);
    }
}
