//! Drivers that break the rules of the packed ring.

use proptest::prelude::*;

use super::*;
use crate::driver::queue::{PackedDescriptor, PackedRing};
use crate::virtio::spec::event;

const SIZE: u16 = 8;

struct Hostile {
    table: Arc<GuestMemory>,
    ring: PackedRing,
    buffers: Area,
    device: PackedQueue,
}

fn hostile(features: RingFeatures) -> Hostile {
    let mut memory = DriverMemory::of_len(1 << 16, 1).unwrap();
    let buffers = memory.allocate(1 << 12, 64).unwrap();
    let ring = PackedRing::new(&mut memory, SIZE).unwrap();
    let table = Arc::clone(memory.table());
    let (at, base) = (ring.addresses(), PackedQueue::START);
    let device = PackedQueue::new(Arc::clone(&table), SIZE, at, base, features).unwrap();
    Hostile {
        table,
        ring,
        buffers,
        device,
    }
}

impl Hostile {
    /// Writes a descriptor, available in the first lap.
    fn describe(&self, index: u16, flags: u16, id: u16) {
        let addr = self.buffers.guest_addr(0);
        self.write(index, addr, 16, flags, id);
    }

    fn write(&self, index: u16, addr: u64, len: u32, flags: u16, id: u16) {
        let descriptor = PackedDescriptor {
            addr,
            len,
            id,
            flags,
        };
        self.ring.set_descriptor(index, &descriptor);
        self.ring.set_flags(index, flags | desc::F_AVAIL);
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

/// Where it ends is where the next one begins, so nothing can be gone on with.
#[test]
fn a_chain_without_an_end_stops_the_ring() {
    let mut bed = hostile(PLAIN);
    for index in 0..SIZE {
        bed.describe(index, desc::F_NEXT, 0);
    }
    assert_eq!(bed.pop(), Err(RingError::Endless { at: 0 }));

    // One that runs into what the device has not given back.
    let mut bed = hostile(PLAIN);
    bed.describe(0, 0, 0);
    assert!(matches!(bed.pop(), Ok(Pop::Chain(_))));
    for index in 0..SIZE {
        bed.describe(index, desc::F_NEXT, 0);
    }
    assert_eq!(bed.pop(), Err(RingError::Endless { at: 1 }));
}

#[test]
fn a_ring_that_is_all_taken_is_empty() {
    let mut bed = hostile(PLAIN);
    for index in 0..SIZE {
        bed.describe(index, 0, index);
        assert!(matches!(bed.pop(), Ok(Pop::Chain(_))));
    }
    // As if the driver had gone on over what it has not got back.
    bed.ring.set_flags(0, desc::F_USED);
    assert_eq!(bed.pop(), Ok(Pop::Empty));
    assert_eq!(bed.device.enable_kicks(0), Ok(false));
}

#[test]
fn bad_chains_come_back_empty_and_the_next_is_taken() {
    let nowhere = 1 << 40;
    let mut bed = hostile(INDIRECT);
    // Not in guest memory, in the middle of three.
    bed.describe(0, desc::F_NEXT, 9);
    bed.write(1, nowhere, 16, desc::F_NEXT, 9);
    bed.describe(2, 0, 77);
    assert_eq!(bed.fault(), ChainFault::Unmapped);
    // To be read after to be written (2.8.17).
    bed.describe(3, desc::F_NEXT | desc::F_WRITE, 9);
    bed.describe(4, 0, 78);
    assert_eq!(bed.fault(), ChainFault::Order);
    bed.describe(5, 0, 79);
    let Ok(Pop::Chain(chain)) = bed.pop() else {
        panic!("no chain");
    };
    assert_eq!((chain.head, chain.at), (79, 0x8005));
}

/// 2.8.7 and 2.8.19.
#[test]
fn indirect_tables_are_what_the_specification_allows() {
    let table = |bed: &Hostile, at: usize, flags: u16| {
        let descriptor = PackedDescriptor {
            addr: bed.buffers.guest_addr(0),
            len: 16,
            id: 0,
            flags,
        };
        descriptor.write_to(&bed.buffers, at);
        bed.buffers
            .store16(at + 14, flags, std::sync::atomic::Ordering::Relaxed);
    };
    let address = |bed: &Hostile| bed.buffers.guest_addr(1024);

    let mut bed = hostile(PLAIN);
    bed.write(0, address(&bed), 16, desc::F_INDIRECT, 0);
    assert_eq!(bed.fault(), ChainFault::Indirect, "not negotiated");

    let mut bed = hostile(INDIRECT);
    let mut at = 0;
    for len in [0, 15, 17, 16 * 0x1_0000] {
        bed.write(at, address(&bed), len, desc::F_INDIRECT, 0);
        assert_eq!(bed.fault(), ChainFault::Indirect, "{len} bytes");
        at += 1;
    }
    // Every entry counts, and of its flags WRITE alone.
    table(&bed, 1024, desc::F_NEXT);
    table(&bed, 1040, desc::F_INDIRECT | desc::F_AVAIL);
    table(&bed, 1056, desc::F_WRITE);
    bed.write(at, address(&bed), 48, desc::F_INDIRECT, 0);
    let mut lens = Lens::default();
    let popped = bed.device.pop(&bed.table, &mut lens);
    assert!(matches!(popped, Ok(Pop::Chain(_))));
    assert_eq!((lens.readable.len(), lens.writable.len()), (2, 1));
    // A table in a list (2.8.19).
    let flags = desc::F_INDIRECT | desc::F_NEXT;
    bed.write(at + 1, address(&bed), 16, flags, 0);
    bed.describe(at + 2, 0, 0);
    assert_eq!(bed.fault(), ChainFault::Indirect);
}

/// 2.8.3: a used descriptor says whether anything was written.
#[test]
fn used_descriptors_say_who_wrote() {
    let mut bed = hostile(PLAIN);
    for (index, len) in [(0, 0), (1, 5)] {
        bed.describe(index, desc::F_WRITE, 40 + index);
        let Ok(Pop::Chain(chain)) = bed.pop() else {
            panic!("no chain");
        };
        bed.device.put_used(chain, len);
        assert_eq!(
            bed.ring.flags(index),
            desc::F_WRITE | desc::F_AVAIL,
            "not published"
        );
        bed.device.publish(1);
        let written = if len > 0 { desc::F_WRITE } else { 0 };
        let used = desc::F_AVAIL | desc::F_USED;
        assert_eq!(bed.ring.flags(index), used | written);
        assert_eq!(bed.ring.used(index), (40 + index, len));
    }
}

/// Several are seen at once or not at all, each where its chain began.
#[test]
fn what_is_not_published_is_not_seen() {
    let mut bed = hostile(PLAIN);
    let mut chains = Vec::new();
    for index in [0, 2, 4] {
        bed.describe(index, desc::F_NEXT, 9);
        bed.describe(index + 1, 0, index);
        let Ok(Pop::Chain(chain)) = bed.pop() else {
            panic!("no chain");
        };
        chains.push(chain);
    }
    // A driver stops at the first that is not used.
    let seen = |bed: &Hostile| {
        let used = desc::F_AVAIL | desc::F_USED;
        let chains = [0, 2, 4].into_iter();
        let seen = chains.take_while(|&at| bed.ring.flags(at) & used == used);
        seen.collect::<Vec<_>>()
    };
    // Whoever fills the first may be the last to be done.
    for chain in chains.into_iter().rev() {
        bed.device.put_used(chain, 0);
        assert_eq!(seen(&bed), []);
    }
    bed.device.publish(3);
    assert_eq!(seen(&bed), [0, 2, 4]);
    assert_eq!(bed.device.base(), 0x8006_8006);
}

/// 2.8.10: the driver's event structure, at the moment of publishing.
#[test]
fn the_event_structure_is_read_as_it_stands() {
    let at = |index, wrap| Position { index, wrap };
    let cases = [
        (PLAIN, event::ENABLE, at(0, false), true),
        (PLAIN, event::DISABLE, at(1, true), false),
        // The event index was not negotiated, or the value is reserved.
        (PLAIN, event::DESC, at(7, true), true),
        (EVENT_IDX, event::MASK, at(7, true), true),
        (EVENT_IDX, event::DISABLE | 0xfffc, at(1, true), false),
        (EVENT_IDX, event::DESC, at(1, true), true),
        (EVENT_IDX, event::DESC, at(2, true), false),
        (EVENT_IDX, event::DESC, at(1, false), false),
        (EVENT_IDX, event::DESC, at(0x7fff, true), false),
    ];
    for (features, wish, place, interrupts) in cases {
        let mut bed = hostile(features);
        for index in 0..2 {
            bed.describe(index, 0, 0);
            let Ok(Pop::Chain(chain)) = bed.pop() else {
                panic!("no chain");
            };
            bed.device.put_used(chain, 0);
            bed.device.publish(1);
            if index == 0 {
                // The first is always told.
                bed.ring.set_driver_event(event::ENABLE, at(0, true));
                assert!(bed.device.wants_interrupt());
                bed.ring.set_driver_event(wish, place);
            }
        }
        assert_eq!(
            bed.device.wants_interrupt(),
            interrupts,
            "{wish:#x} {place:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever lies in the ring, everything that is taken can be given back,
    /// and nothing more than the ring holds is taken.
    #[test]
    fn any_ring_is_survived(
        bytes in prop::collection::vec(any::<u8>(), 16 * usize::from(SIZE)),
        tables in prop::collection::vec(any::<u8>(), 512),
        event_idx: bool,
    ) {
        let features = RingFeatures { event_idx, indirect: true, ..PLAIN };
        let mut bed = hostile(features);
        bed.buffers.writable(0, 512).write(&tables);
        for index in 0..SIZE {
            let at = usize::from(index) * 16;
            let field = |from: usize| u16::from_le_bytes([bytes[at + from], bytes[at + from + 1]]);
            let addr = bed.buffers.guest_addr(usize::from(field(0)) % 4096);
            // Mostly plausible.
            let mut flags = field(14) & 0x8087;
            if field(2) % 4 != 0 {
                flags = flags & !desc::F_USED | desc::F_AVAIL;
            }
            bed.write(index, addr, u32::from(field(8)) % 600, flags, field(12));
            bed.ring.set_flags(index, flags);
        }
        for _ in 0..3 {
            let mut chains = Vec::new();
            while let Ok(Pop::Chain(chain) | Pop::Bad(chain, _)) = bed.pop() {
                chains.push(chain);
            }
            prop_assert!(chains.len() <= usize::from(SIZE));
            let _ = bed.device.enable_kicks(0);
            if let Some(last) = chains.pop() {
                bed.device.unpop(last);
            }
            let count = u16::try_from(chains.len()).unwrap();
            for chain in chains {
                bed.device.put_used(chain, 1);
            }
            bed.device.publish(count);
            let _ = bed.device.wants_interrupt();
            prop_assert!(bed.device.base() & 0x7fff < SIZE.into());
        }
    }
}
