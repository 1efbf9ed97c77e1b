//! Drivers that break the rules of the split ring.

use proptest::prelude::*;

use super::*;
use crate::driver::queue::{Descriptor, SplitRing};
use crate::virtio::memory::RegionSpec;

const SIZE: u16 = 8;

struct Hostile {
    table: Arc<GuestMemory>,
    ring: SplitRing,
    buffers: Area,
    device: SplitQueue,
}

fn hostile(features: RingFeatures) -> Hostile {
    let mut memory = DriverMemory::of_len(1 << 16, 1).unwrap();
    let buffers = memory.allocate(1 << 12, 64).unwrap();
    let ring = SplitRing::new(&mut memory, SIZE).unwrap();
    let table = Arc::clone(memory.table());
    let at = ring.addresses();
    let device = SplitQueue::new(Arc::clone(&table), SIZE, at, 0, features).unwrap();
    Hostile {
        table,
        ring,
        buffers,
        device,
    }
}

impl Hostile {
    fn describe(&self, index: u16, flags: u16, next: u16) {
        let addr = self.buffers.guest_addr(0);
        self.ring.set_descriptor(
            index,
            Descriptor {
                addr,
                len: 16,
                flags,
                next,
            },
        );
    }

    fn offer(&self, position: u16, head: u16) {
        self.ring.set_avail(position, head);
        self.ring.set_avail_index(position.wrapping_add(1));
    }

    fn pop(&mut self) -> Result<Pop, RingError> {
        self.device.pop(&self.table, &mut Lens::default())
    }

    fn fault(&mut self) -> ChainFault {
        match self.pop() {
            Ok(Pop::Bad(_, fault)) => fault,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_index_too_far_ahead_stops_the_ring() {
    let mut bed = hostile(PLAIN);
    bed.ring.set_avail_index(SIZE + 1);
    let error = RingError::AvailIndex {
        avail: SIZE + 1,
        ours: 0,
        size: SIZE,
    };
    assert_eq!(bed.pop(), Err(error));
    assert_eq!(bed.device.enable_kicks(0), Err(error));
}

#[test]
fn a_head_outside_the_table_stops_the_ring() {
    let mut bed = hostile(PLAIN);
    bed.offer(0, SIZE);
    assert_eq!(bed.pop(), Err(RingError::Head { head: 8, size: 8 }));
}

#[test]
fn a_loop_is_found_and_its_head_given_back() {
    let mut bed = hostile(PLAIN);
    bed.describe(0, desc::F_NEXT, 1);
    bed.describe(1, desc::F_NEXT, 0);
    bed.offer(0, 0);
    let Ok(Pop::Bad(chain, fault)) = bed.pop() else {
        panic!("a loop was taken");
    };
    assert_eq!(fault, ChainFault::Loop);
    bed.device.put_used(chain, 0);
    bed.device.publish(1);
    assert_eq!((bed.ring.used_index(), bed.ring.used(0)), (1, (0, 0)));
    // And the ring goes on.
    bed.describe(2, 0, 0);
    bed.offer(1, 2);
    assert!(matches!(bed.pop(), Ok(Pop::Chain(_))));
}

#[test]
fn a_next_outside_the_table_is_a_bad_chain() {
    let mut bed = hostile(PLAIN);
    bed.describe(0, desc::F_NEXT, SIZE);
    bed.offer(0, 0);
    assert_eq!(bed.fault(), ChainFault::Next);
}

#[test]
fn a_readable_buffer_after_a_writable_one_is_a_bad_chain() {
    let mut bed = hostile(PLAIN);
    bed.describe(0, desc::F_NEXT | desc::F_WRITE, 1);
    bed.describe(1, 0, 0);
    bed.offer(0, 0);
    assert_eq!(bed.fault(), ChainFault::Order);
}

#[test]
fn buffers_outside_memory_are_bad_chains() {
    let mut bed = hostile(PLAIN);
    let end = bed.table.total_bytes() + crate::driver::memory::GUEST_BASE;
    let cases = [
        (0, 1),
        (u64::MAX, 1),
        (u64::MAX - 3, 16),
        (end - 8, 9),
        (end, u32::MAX),
    ];
    for (position, (addr, len)) in (0..).zip(cases) {
        let (flags, next) = (0, 0);
        let descriptor = Descriptor {
            addr,
            len,
            flags,
            next,
        };
        bed.ring.set_descriptor(0, descriptor);
        bed.offer(position, 0);
        assert_eq!(bed.fault(), ChainFault::Unmapped, "{addr:#x} {len}");
    }
}

#[test]
fn indirect_tables_are_checked() {
    let set = |bed: &Hostile, len, flags| {
        let addr = bed.buffers.guest_addr(0);
        bed.ring.set_descriptor(
            0,
            Descriptor {
                addr,
                len,
                flags,
                next: 1,
            },
        );
    };
    let inner = |bed: &Hostile, flags, next| {
        Descriptor {
            addr: bed.buffers.guest_addr(1024),
            len: 8,
            flags,
            next,
        }
        .write_to(&bed.buffers, 0);
    };
    // Not negotiated.
    let mut bed = hostile(PLAIN);
    set(&bed, 16, desc::F_INDIRECT);
    bed.offer(0, 0);
    assert_eq!(bed.fault(), ChainFault::Indirect);

    let mut bed = hostile(INDIRECT);
    bed.describe(1, 0, 0);
    inner(&bed, 0, 0);
    let mut position = 0;
    let mut fault = |bed: &mut Hostile, len, flags| {
        set(bed, len, flags);
        bed.offer(position, 0);
        position += 1;
        bed.fault()
    };
    for len in [0, 15, 17, 0x10_0000] {
        assert_eq!(fault(&mut bed, len, desc::F_INDIRECT), ChainFault::Indirect);
    }
    let both = desc::F_INDIRECT | desc::F_NEXT;
    assert_eq!(fault(&mut bed, 16, both), ChainFault::Indirect);
    // A table in a table; a next behind the table's end.
    inner(&bed, desc::F_INDIRECT, 0);
    assert_eq!(fault(&mut bed, 16, desc::F_INDIRECT), ChainFault::Indirect);
    inner(&bed, desc::F_NEXT, 1);
    assert_eq!(fault(&mut bed, 16, desc::F_INDIRECT), ChainFault::Next);
    inner(&bed, desc::F_NEXT, 0);
    assert_eq!(fault(&mut bed, 16, desc::F_INDIRECT), ChainFault::Loop);
}

/// 2.7.5.3.2: the write flag of the descriptor that names a table means
/// nothing, and a chain may end in a table.
#[test]
fn an_indirect_table_may_end_a_chain_and_its_write_flag_is_ignored() {
    let mut bed = hostile(INDIRECT);
    bed.describe(0, desc::F_NEXT, 1);
    let table = Descriptor {
        addr: bed.buffers.guest_addr(8),
        len: 16,
        flags: desc::F_INDIRECT | desc::F_WRITE,
        next: 0,
    };
    bed.ring.set_descriptor(1, table);
    // Not aligned to 16 bytes, which the specification does not ask for.
    let inner = Descriptor {
        addr: bed.buffers.guest_addr(1024),
        len: 99,
        flags: desc::F_WRITE,
        next: 0,
    };
    inner.write_to(&bed.buffers, 8);
    bed.offer(0, 0);
    let mut lens = Lens::default();
    assert!(matches!(
        bed.device.pop(&bed.table, &mut lens),
        Ok(Pop::Chain(_))
    ));
    assert_eq!((lens.readable, lens.writable), (vec![16], vec![99]));
}

/// 2.7.10.1: with the event index, the used ring's flags are 0.
#[test]
fn used_flags_are_zero_with_the_event_index() {
    let bed = hostile(PLAIN);
    let mut plain = bed.device;
    plain.disable_kicks();
    assert_eq!(bed.ring.used_flags(), 1);
    let at = bed.ring.addresses();
    let mut device = SplitQueue::new(Arc::clone(&bed.table), SIZE, at, 0, EVENT_IDX).unwrap();
    device.disable_kicks();
    assert_eq!(bed.ring.used_flags(), 0);
}

/// Legacy: an empty ring interrupts a driver that wants no interrupts.
#[test]
fn an_empty_ring_interrupts_with_notify_on_empty() {
    let features = RingFeatures {
        notify_on_empty: true,
        ..PLAIN
    };
    for (features, told) in [(features, true), (PLAIN, false)] {
        let mut bed = hostile(features);
        bed.ring.set_avail_flags(1);
        bed.describe(0, 0, 0);
        bed.ring.set_avail(1, 0);
        bed.offer(0, 0);
        bed.ring.set_avail_index(2);
        for want in [false, told] {
            let Ok(Pop::Chain(chain)) = bed.pop() else {
                panic!("no chain");
            };
            bed.device.put_used(chain, 0);
            bed.device.publish(1);
            assert_eq!(bed.device.wants_interrupt(), want);
        }
    }
}

proptest! {
    /// Whatever lies in the ring and the buffers: no panic, no access outside
    /// (a sanitizer or a fault would tell), and never more chains than offered.
    #[test]
    fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 512), index in 0..=SIZE) {
        let mut bed = hostile(INDIRECT);
        let base = bed.buffers.guest_addr(0);
        for (at, raw) in (0..SIZE).zip(bytes.chunks_exact(16)) {
            let word = |from: usize| u16::from_le_bytes([raw[from], raw[from + 1]]);
            bed.ring.set_descriptor(at, Descriptor {
                addr: base.wrapping_add(u64::from(word(0))).wrapping_sub(u64::from(word(2) % 64)),
                len: u32::from(word(4)) * u32::from(raw[6] % 4),
                flags: word(8) % 8,
                next: word(10) % (SIZE + 2),
            });
            bed.ring.set_avail(at, word(12) % (SIZE + 1));
        }
        bed.buffers.writable(0, 512).write(&bytes);
        bed.ring.set_avail_index(index);
        let mut taken = 0;
        while let Ok(Pop::Chain(chain) | Pop::Bad(chain, _)) = bed.pop() {
            bed.device.put_used(chain, 0);
            taken += 1;
        }
        prop_assert!(taken <= index);
        bed.device.publish(taken);
    }
}

/// A region that begins at an odd offset of its object would make the ring's
/// parts unaligned here though they are aligned for the front end.
#[test]
fn alignment_is_that_of_the_mapping() {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let fd = memfd_create(c"odd", MFdFlags::MFD_CLOEXEC).unwrap();
    nix::unistd::ftruncate(&fd, 0x3000).unwrap();
    let spec = RegionSpec {
        guest_addr: 0,
        user_addr: 0x1000,
        len: 0x2000,
        offset: 1,
    };
    let memory = Arc::new(GuestMemory::new([(spec, fd)]).unwrap());
    let at = RingAddresses {
        desc: 0x1000,
        avail: 0x1100,
        used: 0x1200,
    };
    let result = SplitQueue::new(memory, SIZE, at, 0, PLAIN);
    assert!(matches!(result.err(), Some(SetupError::Alignment(..))));
}

/// 2.7.7.2: with the event index, the available ring's flags are ignored.
#[test]
fn avail_flags_are_ignored_with_the_event_index() {
    let mut bed = hostile(EVENT_IDX);
    bed.describe(0, 0, 0);
    bed.ring.set_avail_flags(1);
    for position in 0..2 {
        bed.ring.set_used_event(position);
        bed.offer(position, 0);
        let Ok(Pop::Chain(chain)) = bed.pop() else {
            panic!("no chain");
        };
        bed.device.put_used(chain, 0);
        bed.device.publish(1);
        assert!(bed.device.wants_interrupt());
    }
}

/// 2.7.5.1: the device writes no descriptor, neither in the ring nor in an
/// indirect table.
#[test]
fn the_descriptor_table_is_never_written() {
    let mut bed = hostile(INDIRECT);
    let read = |area: &Area| {
        let mut bytes = vec![0; area.len()];
        area.readable(0, bytes.len()).read(&mut bytes);
        bytes
    };
    bed.describe(0, desc::F_WRITE, 0);
    bed.describe(1, desc::F_NEXT, SIZE);
    let table = Descriptor {
        addr: bed.buffers.guest_addr(0),
        len: 16,
        flags: desc::F_INDIRECT,
        next: 0,
    };
    bed.ring.set_descriptor(2, table);
    let before = (read(bed.ring.table()), read(&bed.buffers));
    for (position, head) in [(0, 0), (1, 1), (2, 2)] {
        bed.offer(position, head);
        let Ok(Pop::Chain(chain) | Pop::Bad(chain, _)) = bed.pop() else {
            panic!("no chain");
        };
        bed.device.put_used(chain, 1);
        bed.device.publish(1);
        let _ = bed.device.enable_kicks(0);
    }
    assert_eq!((read(bed.ring.table()), read(&bed.buffers)), before);
}
