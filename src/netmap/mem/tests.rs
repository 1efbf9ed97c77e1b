//! Tests of regions: layout, giving everything back, hostile contents.

use std::ops::Range;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::unistd::ftruncate;

use super::*;
use crate::netmap::abi::Slot;

fn regions() -> Regions {
    Regions::new(RegionConfig::global())
}

fn needs(rings: u16, slots: u32) -> PortNeeds {
    PortNeeds {
        tx_rings: rings,
        tx_slots: slots,
        rx_rings: rings,
        rx_slots: slots,
        extra_bufs: 0,
        pipes: 2,
    }
}

fn region(rings: u16, slots: u32) -> Arc<Region> {
    regions()
        .private(&RegionConfig::private(&needs(rings, slots)))
        .unwrap()
}

/// A ring as a port's own region gives it.
pub(in crate::netmap) fn lone_ring(rx: bool, slots: u32, tail: u32) -> RingMemory {
    region(1, slots)
        .ring(&RingSpec {
            id: 0,
            rx,
            slots,
            tail,
        })
        .unwrap()
}

/// Receive rings of one region.
pub(in crate::netmap) fn shared_rings(count: usize, slots: u32) -> Vec<RingMemory> {
    let region = region(16, slots);
    (0..16)
        .take(count)
        .map(|id| {
            let spec = RingSpec {
                id,
                rx: true,
                slots,
                tail: 0,
            };
            region.ring(&spec).unwrap()
        })
        .collect()
}

fn ring(region: &Arc<Region>, id: u16, slots: u32) -> RingMemory {
    region
        .ring(&RingSpec {
            id,
            rx: true,
            slots,
            tail: 7,
        })
        .unwrap()
}

#[test]
fn defaults_are_the_kernels() {
    let page = page_size();
    let global = RegionConfig::global();
    assert_eq!((global.interfaces.size, global.interfaces.num), (1024, 100));
    assert_eq!((global.rings.size, global.rings.num), (9 * page, 200));
    assert_eq!((global.buffers.size, global.buffers.num), (2048, 163_840));

    // netmap_mem_private_new with one pair of 1024 slots and two pipes.
    let private = RegionConfig::private(&needs(1, 1024));
    assert_eq!(
        (private.interfaces.size, private.interfaces.num),
        (1024, 10)
    );
    assert_eq!((private.rings.size, private.rings.num), (5 * page, 20));
    assert_eq!((private.buffers.size, private.buffers.num), (2048, 20_482));

    // The least: two interfaces, four rings of five pages, 4098 buffers.
    let least = RegionConfig::private(&PortNeeds {
        pipes: 0,
        ..needs(1, 1)
    });
    assert_eq!((least.interfaces.size, least.interfaces.num), (1024, 2));
    assert_eq!((least.rings.size, least.rings.num), (5 * page, 4));
    assert_eq!((least.buffers.size, least.buffers.num), (2048, 4098));
}

#[test]
fn pools_lie_one_behind_the_other() {
    let region = Region::new(
        2,
        &RegionConfig {
            interfaces: PoolSize { size: 1024, num: 2 },
            rings: PoolSize {
                size: 20480,
                num: 4,
            },
            buffers: PoolSize {
                size: 2048,
                num: 4098,
            },
        },
        4096,
    )
    .unwrap();
    let [interfaces, rings, buffers] = region.layout();
    assert_eq!((interfaces.offset, interfaces.num), (0, 4));
    assert_eq!((rings.offset, rings.num), (4096, 4));
    assert_eq!((buffers.offset, buffers.num), (4096 + 81920, 4098));
    assert_eq!(region.bytes(), 4096 + 81920 + 4098 * 2048);
    assert_eq!(region.free(), [4, 4, 4096]);
}

/// Follows the offsets as a client does that has mapped the descriptor.
#[test]
fn a_client_finds_its_way_by_the_offsets() {
    use std::os::unix::fs::FileExt;
    let region = region(2, 64);
    let rings: Vec<RingMemory> = (0..4).map(|id| ring(&region, id, 64)).collect();
    let bound = [
        Some(&rings[0]),
        Some(&rings[1]),
        None,
        Some(&rings[2]),
        Some(&rings[3]),
        None,
    ];
    let interface = region
        .interface(&InterfaceSpec {
            name: "vale0:a-rather-long-name",
            tx_rings: 2,
            rx_rings: 2,
            host_tx_rings: 1,
            host_rx_rings: 1,
            rings: &bound,
            extra_bufs: 0,
        })
        .unwrap();
    rings[3].view().buffer(5).unwrap().write(b"five");

    let file = std::fs::File::from(region.fd().try_clone_to_owned().unwrap());
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    };
    let u32_at = |at| u32::from_ne_bytes(read(at, 4).try_into().unwrap());
    let i64_at = |at| i64::from_ne_bytes(read(at, 8).try_into().unwrap());
    let nifp = interface.offset();
    assert_eq!(read(nifp, 16), b"vale0:a-rather-\0");
    assert_eq!((u32_at(nifp + 24), u32_at(nifp + 28)), (2, 2));
    assert_eq!((u32_at(nifp + 36), u32_at(nifp + 40)), (1, 1));
    for (nth, bound) in (0..).zip(bound) {
        let offset = i64_at(nifp + 56 + 8 * nth);
        let Some(ring) = bound else {
            assert_eq!(offset, 0);
            continue;
        };
        let at = nifp.checked_add_signed(offset).unwrap();
        assert_eq!(at, ring.offset());
        assert_eq!((u32_at(at + 8), u32_at(at + 12)), (64, 2048));
        assert_eq!(u32_at(at + 28), 7, "tail");
        let buffers = at.checked_add_signed(i64_at(at)).unwrap();
        assert_eq!(buffers, region.layout()[2].offset);
        assert_eq!(read(buffers + 5 * 2048, 4), b"five");
        let slots: Vec<u32> = (0..64).map(|slot| u32_at(at + 256 + 16 * slot)).collect();
        assert!(slots.iter().all(|index| *index >= FIRST_BUFFER));
    }
}

#[test]
fn everything_comes_back_ten_thousand_times() {
    let region = region(1, 128);
    let before = region.free();
    for _ in 0..10_000 {
        let rings = [ring(&region, 0, 128), ring(&region, 1, 100)];
        let interface = region
            .interface(&InterfaceSpec {
                name: "vale0:a",
                tx_rings: 1,
                rx_rings: 1,
                host_tx_rings: 1,
                host_rx_rings: 1,
                rings: &[Some(&rings[0]), None, Some(&rings[1]), None],
                extra_bufs: 10,
            })
            .unwrap();
        assert_eq!(interface.extra_bufs(), 10);
        assert_eq!(
            region.free(),
            [before[0] - 1, before[1] - 2, before[2] - 238]
        );
        drop(rings);
        drop(interface);
        assert_eq!(region.free(), before);
    }
}

#[test]
fn what_a_hostile_client_wrote_gives_back_nothing_that_is_not_its_own() {
    let region = region(1, 64);
    let before = region.free();
    let other = ring(&region, 0, 64);
    let hostile = ring(&region, 1, 64);
    let held = region.free();
    let view = hostile.view();
    for (at, buf_idx) in (0..64).zip([0, 1, u32::MAX, 100_000].into_iter().cycle()) {
        let slot = view.slot(at).unwrap();
        view.set_slot(at, Slot { buf_idx, ..slot });
    }
    drop(hostile);
    assert_eq!(region.free(), [held[0], held[1] + 1, held[2]]);
    // The buffers whose index it destroyed come back with the last user.
    drop(other);
    assert_eq!(region.free(), before);
}

#[test]
fn a_list_of_extra_buffers_that_goes_round_ends() {
    let region = region(1, 64);
    let keep = ring(&region, 0, 64);
    let before = region.free();
    let interface = region
        .interface(&InterfaceSpec {
            name: "a",
            tx_rings: 1,
            rx_rings: 1,
            host_tx_rings: 1,
            host_rx_rings: 1,
            rings: &[],
            extra_bufs: 4,
        })
        .unwrap();
    let head = interface.extra_head();
    let buffer = keep.view().buffer(head).unwrap();
    let next = u32::from_ne_bytes(buffer.as_readable().read_array().unwrap());
    assert_ne!(next, 0);
    // head -> next -> head
    keep.view().buffer(next).unwrap().write(&head.to_ne_bytes());
    drop(interface);
    assert_eq!(region.free(), [before[0], before[1], before[2] - 2]);
}

#[test]
fn extra_buffers_are_as_many_as_there_are() {
    let region = region(1, 64);
    let [_, _, free] = region.free();
    let interface = region
        .interface(&InterfaceSpec {
            name: "a",
            tx_rings: 1,
            rx_rings: 1,
            host_tx_rings: 1,
            host_rx_rings: 1,
            rings: &[],
            extra_bufs: u32::MAX,
        })
        .unwrap();
    assert_eq!(interface.extra_bufs(), free);
    drop(interface);
    assert_eq!(region.free()[2], free);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_stays_taken() {
    let region = region(1, 64);
    let before = region.free();
    let spec = |slots| RingSpec {
        id: 0,
        rx: false,
        slots,
        tail: 0,
    };
    assert!(matches!(
        region.ring(&spec(u32::MAX)),
        Err(MemError::TooSmall { what: "ring", .. })
    ));
    let rings: Vec<_> = std::iter::from_fn(|| region.ring(&spec(1)).ok()).collect();
    assert_eq!(rings.len(), before[1] as usize);
    assert!(matches!(
        region.ring(&spec(1)),
        Err(MemError::Exhausted { what: "ring", .. })
    ));
    drop(rings);
    assert_eq!(region.free(), before);
    let rings: Vec<_> = std::iter::from_fn(|| region.ring(&spec(1024)).ok()).collect();
    assert!(matches!(
        region.ring(&spec(1024)),
        Err(MemError::Exhausted { what: "buffer", .. })
    ));
    drop(rings);
    assert!(matches!(
        region.interface(&InterfaceSpec {
            name: "a",
            tx_rings: 1,
            rx_rings: 1,
            host_tx_rings: 1,
            host_rx_rings: 1,
            rings: &[None; 4096],
            extra_bufs: 0,
        }),
        Err(MemError::TooSmall { .. })
    ));
    assert_eq!(region.free(), before);
}

#[test]
fn nobody_who_has_the_descriptor_can_change_the_size_or_the_seals() {
    let region = region(1, 64);
    let fd = region.fd().try_clone_to_owned().unwrap();
    let len = libc::off_t::try_from(region.bytes()).unwrap();
    for size in [0, len - 1, len + 4096] {
        assert_eq!(ftruncate(&fd, size), Err(nix::Error::EPERM));
    }
    let write = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE);
    assert_eq!(fcntl(fd.as_fd(), write), Err(nix::Error::EPERM));
}

/// Bytes of the shared object that are in memory.
#[cfg(target_os = "linux")]
fn resident(region: &Region) -> u64 {
    let file = std::fs::File::from(region.fd().try_clone_to_owned().unwrap());
    std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512
}

#[test]
#[cfg(target_os = "linux")]
fn idle_memory_is_not_touched_and_used_memory_goes_back() {
    let regions = regions();
    let global = regions.find(GLOBAL_ID).unwrap();
    assert!(global.bytes() > 300 << 20);
    assert_eq!(resident(&global), 0);
    let one = ring(&global, 0, 1024);
    let header = (256 + 1024 * 16u64).next_multiple_of(4096);
    assert!(resident(&global) <= header, "buffers were touched");
    one.view().buffer(100).unwrap().write(b"used");
    assert!(resident(&global) > header);
    drop(one);
    assert_eq!(resident(&global), 0);
}

#[test]
fn memory_that_was_given_back_is_zero() {
    let regions = regions();
    let global = regions.find(GLOBAL_ID).unwrap();
    let one = ring(&global, 0, 1024);
    one.view().buffer(100).unwrap().write(b"used");
    drop(one);
    let other = ring(&global, 0, 1024);
    let mut found = [1; 4];
    let buffer = other.view().buffer(100).unwrap();
    buffer.as_readable().read(&mut found);
    assert_eq!(found, [0; 4]);
}

#[test]
fn a_view_reaches_no_slot_and_no_buffer_outside() {
    let region = region(1, 64);
    let ring = ring(&region, 0, 64);
    let view = ring.view();
    let [_, _, buffers] = region.layout();
    for index in [0, 1, buffers.num, buffers.num + 1, u32::MAX] {
        assert!(view.buffer(index).is_none(), "{index}");
    }
    let last = view.buffer(buffers.num - 1).unwrap();
    assert_eq!(last.len(), 2048);
    last.write(&[0xff; 2048]);
    assert!(view.slot(63).is_some());
    for index in [64, 65, u32::MAX] {
        assert!(view.slot(index).is_none());
        assert!(view.set_slot(index, Slot::default()).is_none());
        assert!(view.set_len_and_flags(index, 1, 1).is_none());
        assert_eq!(view.next(index), 0);
    }
    assert_eq!((view.next(62), view.next(63)), (63, 0));
    assert_eq!((view.distance(60, 3), view.distance(3, 60)), (7, 57));
    assert_eq!((view.distance(64, 3), view.distance(3, u32::MAX)), (0, 0));
    let runs = |start, end| view.runs(Range { start, end });
    assert_eq!(runs(3, 60), [3..60, 0..0]);
    assert_eq!(runs(60, 3), [60..64, 0..3]);
    assert_eq!(runs(60, 0), [60..64, 0..0]);
    assert_eq!(runs(7, 7), [7..7, 0..0]);
    assert_eq!((runs(64, 3), runs(3, 64)), ([0..0, 0..0], [0..0, 0..0]));
}

#[test]
fn regions_are_found_by_id_while_somebody_holds_them() {
    let regions = regions();
    let config = RegionConfig::private(&needs(1, 64));
    let a = regions.private(&config).unwrap();
    let b = regions.private(&config).unwrap();
    assert!(a.id() > GLOBAL_ID && b.id() > GLOBAL_ID && a.id() != b.id());
    let id = a.id();
    assert!(Arc::ptr_eq(&regions.find(id).unwrap(), &a));
    drop(a);
    assert_eq!(regions.find(id).unwrap_err(), MemError::NoSuchRegion(id));
    assert_eq!(regions.find(0).unwrap_err(), MemError::NoSuchRegion(0));
    let global = regions.find(GLOBAL_ID).unwrap();
    assert!(Arc::ptr_eq(&regions.find(GLOBAL_ID).unwrap(), &global));
}

#[test]
fn ids_are_used_again_only_when_free() {
    let regions = regions();
    let config = RegionConfig {
        interfaces: PoolSize { size: 64, num: 1 },
        rings: PoolSize { size: 4096, num: 2 },
        buffers: PoolSize { size: 2048, num: 4 },
    };
    regions.known().last = u16::MAX - 1;
    let a = regions.private(&config).unwrap();
    let b = regions.private(&config).unwrap();
    assert_eq!((a.id(), b.id()), (u16::MAX, 2));
    regions.known().last = u16::MAX - 1;
    assert_eq!(regions.private(&config).unwrap().id(), 3);
}

#[test]
fn a_slots_data_begins_at_its_offset() {
    let ring = lone_ring(true, 4, 0);
    let slot = |ptr| Slot {
        ptr,
        ..ring.view().slot(0).unwrap()
    };
    let room = |ptr| ring.view().slot_buffer(slot(ptr)).unwrap().len();
    assert_eq!(room(100), 2048, "offsets do not count yet");
    assert_eq!(ring.offsets(), None);
    let offsets = SlotOffsets {
        mask: 0xff,
        max: 128,
    };
    assert_eq!(ring.set_offsets(offsets), offsets);
    for (ptr, offset) in [
        (0, 0),
        (100, 100),
        (0xab_0010, 16),
        (200, 128),
        (u64::MAX, 128),
    ] {
        assert_eq!(ring.view().offset(slot(ptr)), offset, "{ptr:#x}");
        assert_eq!(room(ptr), 2048 - offset as usize, "{ptr:#x}");
    }
    assert_eq!(ring.view().room(), 2048 - 128);
    assert_eq!(ring.view().with_offset(slot(0xab_cdef), 7).ptr, 0xab_cd07);
    // What was said first holds.
    let more = SlotOffsets {
        mask: u64::MAX,
        max: 2048,
    };
    assert_eq!(ring.set_offsets(more), offsets);
}

#[test]
fn a_ring_without_buffers_takes_none_and_gives_none_back() {
    let region = region(1, 64);
    let before = region.free();
    let spec = RingSpec {
        id: 0,
        rx: true,
        slots: 64,
        tail: 0,
    };
    let empty = region.empty_ring(&spec).unwrap();
    assert_eq!(region.free()[2], before[2]);
    assert_eq!(empty.view().slot(63).unwrap(), Slot::default());
    drop(empty);
    assert_eq!(region.free(), before);
}
