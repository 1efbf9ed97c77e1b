//! Requests of the right shape whose values are wrong: rings, memory,
//! descriptors.

use std::os::fd::AsFd;

use vtnetd::frontend::vhost_user::message::{MemoryTable, Request, VringAddress, region_to_bytes};
use vtnetd::virtio::memory::RegionSpec;

use crate::bed::{Bed, descriptors, mappings};
use crate::front::{Front, Memory, eventfd, wrong_notifiers};

#[test]
fn rings_that_do_not_exist_are_refused() {
    let bed = Bed::new();
    let memory = Memory::new();
    let rings = u32::try_from(bed.device.vrings()).unwrap();
    for ring in [rings, rings + 1, 63, 64, 255, 256, 0x1_0000, u32::MAX] {
        let mut front = bed.connect();
        front.hello();
        front.share(&memory);
        let mut at = memory.addresses(0);
        at.index = ring;
        front.refused(Request::SetVringAddr, &at.to_bytes(), &[]);
        front.refused(Request::SetVringNum, &Front::state(ring, 64), &[]);
        front.refused(Request::SetVringBase, &Front::state(ring, 0), &[]);
        front.refused(Request::SetVringEnable, &Front::state(ring, 1), &[]);
        if ring < 256 {
            let payload = u64::from(ring).to_ne_bytes();
            let event = eventfd();
            for request in [
                Request::SetVringKick,
                Request::SetVringCall,
                Request::SetVringErr,
            ] {
                front.refused(request, &payload, &[event.as_fd()]);
            }
        }
        front.send(Request::GetVringBase, &Front::state(ring, 0), &[]);
        front.expect_close();
    }
}

#[test]
fn values_that_a_ring_cannot_have_are_refused() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let memory = Memory::new();
    front.share(&memory);
    for size in [0, 3, 65, 32767, 32769, 65536, 1 << 31, u32::MAX] {
        front.refused(Request::SetVringNum, &Front::state(0, size), &[]);
    }
    for size in [1, 2, 256, 32768] {
        front.done(Request::SetVringNum, &Front::state(0, size), &[]);
    }
    for base in [0x1_0000, u32::MAX] {
        front.refused(Request::SetVringBase, &Front::state(0, base), &[]);
    }
    front.done(Request::SetVringBase, &Front::state(0, 0xffff), &[]);
    for enable in [2, u32::MAX] {
        front.refused(Request::SetVringEnable, &Front::state(0, enable), &[]);
    }
    assert!(front.is_alive());
}

#[test]
fn unaligned_or_unmapped_rings_are_refused() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let memory = Memory::new();
    let right = memory.addresses(0);
    let shift = |part: usize, by: u64| {
        let mut at = right;
        let field = [&mut at.desc, &mut at.avail, &mut at.used];
        *field.into_iter().nth(part).unwrap() += by;
        at
    };
    let refuse = |front: &mut Front, at: VringAddress| {
        front.refused(Request::SetVringAddr, &at.to_bytes(), &[]);
    };
    // Alignment is judged with or without memory.
    for shared in [false, true] {
        if shared {
            front.share(&memory);
        }
        for (part, bad) in [(0, &[1u64, 2, 4, 8][..]), (1, &[1]), (2, &[1, 2])] {
            bad.iter()
                .for_each(|by| refuse(&mut front, shift(part, *by)));
        }
        front.done(Request::SetVringAddr, &right.to_bytes(), &[]);
    }
    for part in 0..3 {
        for by in [Memory::LEN, u64::MAX - right.desc - 0xffff, 1 << 60] {
            let at = shift(part, by & !15);
            refuse(&mut front, at);
        }
    }
    assert!(front.is_alive());
}

#[test]
fn a_ring_whose_end_is_unmapped_does_not_start() {
    let bed = Bed::new();
    let memory = Memory::new();
    let event = eventfd();
    for part in 0..3 {
        let mut front = bed.connect();
        front.hello();
        front.share(&memory);
        let mut at = memory.addresses(0);
        let end = memory.region.user_addr + Memory::LEN;
        let field = [&mut at.desc, &mut at.avail, &mut at.used];
        *field.into_iter().nth(part).unwrap() = end - 16;
        front.done(Request::SetVringNum, &Front::state(0, 64), &[]);
        front.done(Request::SetVringAddr, &at.to_bytes(), &[]);
        let kick = 0u64.to_ne_bytes();
        front.refused(Request::SetVringKick, &kick, &[event.as_fd()]);
        assert!(front.is_alive());
        front.send(Request::SetVringKick, &kick, &[event.as_fd()]);
        front.expect_close();
    }
}

#[test]
fn wrong_memory_is_refused_and_the_old_table_stays() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let memory = Memory::new();
    front.share(&memory);
    let before = (descriptors(), mappings());
    let right = RegionSpec {
        guest_addr: 0x1000,
        user_addr: 0x1000,
        ..memory.region
    };
    let file = memory.file.as_fd();
    let wrong = [
        RegionSpec { len: 0, ..right },
        RegionSpec {
            len: Memory::LEN + 1,
            ..right
        },
        RegionSpec {
            offset: 0x1000,
            ..right
        },
        RegionSpec {
            offset: u64::MAX - 0xfff,
            ..right
        },
        RegionSpec {
            guest_addr: u64::MAX - 0xfff,
            ..right
        },
        RegionSpec {
            user_addr: u64::MAX - 0xfff,
            ..right
        },
        RegionSpec {
            len: u64::MAX - 0x1000,
            ..right
        },
        RegionSpec {
            len: 1 << 62,
            ..right
        },
    ];
    for region in wrong {
        let table = MemoryTable::from_iter([region]).to_bytes();
        front.refused(Request::SetMemTable, &table, &[file]);
        front.refused(Request::AddMemReg, &region_to_bytes(&region), &[file]);
        front.refused(Request::RemMemReg, &region_to_bytes(&region), &[]);
    }
    let overlapping = [
        RegionSpec {
            offset: 0x1000,
            len: Memory::LEN - 0x1000,
            ..memory.region
        },
        RegionSpec {
            guest_addr: memory.region.guest_addr + Memory::LEN - 1,
            ..right
        },
        RegionSpec {
            user_addr: memory.region.user_addr - 1,
            ..right
        },
    ];
    for region in overlapping {
        front.refused(Request::AddMemReg, &region_to_bytes(&region), &[file]);
        let table = MemoryTable::from_iter([memory.region, region]).to_bytes();
        front.refused(Request::SetMemTable, &table, &[file, file]);
    }
    // A count that the table does not have.
    for count in [0, 2, 9, u32::MAX] {
        let mut table = memory.table();
        table[..4].copy_from_slice(&count.to_ne_bytes());
        front.refused(Request::SetMemTable, &table, &[file]);
    }
    // What cannot be mapped, or not all of it.
    let event = eventfd().as_fd().try_clone_to_owned().unwrap();
    for fd in [event, nix::unistd::pipe().unwrap().0] {
        front.refused(Request::AddMemReg, &region_to_bytes(&right), &[fd.as_fd()]);
    }
    let zero = std::fs::File::open("/dev/zero").unwrap();
    let endless = RegionSpec {
        len: u64::MAX - 0x1fff,
        ..right
    };
    front.refused(
        Request::AddMemReg,
        &region_to_bytes(&endless),
        &[zero.as_fd()],
    );
    drop(zero);
    assert_eq!((descriptors(), mappings()), before);
    assert_eq!(bed.device.memory().len(), 1);
    assert!(front.is_alive());
}

#[test]
fn descriptors_that_signal_nothing_are_refused() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let event = eventfd();
    let requests = [
        Request::SetVringKick,
        Request::SetVringCall,
        Request::SetVringErr,
    ];
    for request in requests {
        for fd in wrong_notifiers() {
            front.refused(request, &0u64.to_ne_bytes(), &[fd.as_fd()]);
        }
        // The flag and the descriptors disagree.
        let no_fd = 0x100u64.to_ne_bytes();
        front.refused(request, &no_fd, &[event.as_fd()]);
        front.refused(request, &0u64.to_ne_bytes(), &[]);
    }
    for fd in wrong_notifiers() {
        front.refused(Request::SetBackendReqFd, &[], &[fd.as_fd()]);
    }
    front.refused(Request::SetBackendReqFd, &[], &[event.as_fd()]);
    assert!(front.is_alive());
}
