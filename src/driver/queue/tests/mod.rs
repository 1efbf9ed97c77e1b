//! Tests of the driver's half of a queue against a device that does as it is
//! told. Each body takes any [`DriverQueue`] with a [`Device`] of its format.

mod in_order;
mod model;

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::driver::memory::{DriverMemory, GUEST_BASE};
use crate::virtio::memory::{GuestMemory, Readable, Writable};
use crate::virtio::queue::{self, Chain, Parts, Pop, Position, RingFeatures, VirtQueue};
use crate::virtio::spec::{AVAIL_F_NO_INTERRUPT, USED_F_NO_NOTIFY, desc, event};
use model::{Device, PackedDevice, SplitDevice};

/// The device's half that guests meet.
struct RealDevice<D> {
    queue: D,
    memory: Arc<GuestMemory>,
    taken: VecDeque<Chain>,
}

impl<D: VirtQueue> RealDevice<D> {
    fn new(driver: &dyn DriverQueue, memory: &Arc<GuestMemory>, options: QueueOptions) -> Self {
        let features = RingFeatures {
            event_idx: options.event_idx,
            in_order: options.in_order,
            indirect: true,
            ..RingFeatures::default()
        };
        let (memory, at) = (Arc::clone(memory), driver.addresses());
        let base = driver.base();
        let queue = D::new(Arc::clone(&memory), driver.size(), at, base, features).unwrap();
        Self {
            queue,
            memory,
            taken: VecDeque::new(),
        }
    }
}

/// The lengths and directions of a chain's buffers; their addresses are known
/// as mapped ones only.
#[derive(Default)]
struct Lengths(Vec<(usize, bool)>);

impl<'m> Parts<'m> for Lengths {
    fn readable(&mut self, part: Readable<'m>) -> Option<()> {
        self.0.push((part.len(), false));
        Some(())
    }

    fn writable(&mut self, part: Writable<'m>) -> Option<()> {
        self.0.push((part.len(), true));
        Some(())
    }
}

/// The driver's half and the real device's half agree on what a chain is, and
/// neither leaves the other waiting.
#[test]
fn the_real_device_takes_what_the_driver_adds() {
    for bits in 0..8 {
        let options = QueueOptions {
            event_idx: bits & 1 != 0,
            in_order: bits & 2 != 0,
            indirect: bits & 4 << 1,
        };
        let driver = split_with(64, options);
        let memory = Arc::clone(driver.ring().table().memory());
        let device = RealDevice::<queue::SplitQueue>::new(&driver, &memory, options);
        they_agree(driver, device);
        let driver = packed_with(61, options);
        let memory = Arc::clone(driver.ring().table().memory());
        let device = RealDevice::<queue::PackedQueue>::new(&driver, &memory, options);
        they_agree(driver, device);
    }
}

fn they_agree(mut driver: impl DriverQueue, mut device: RealDevice<impl VirtQueue>) {
    let mut token = 0;
    assert!(!device.queue.enable_kicks(0).unwrap());
    for round in 0..3000_u32 {
        let mut wanted: Vec<Vec<_>> = Vec::new();
        for n in 0..=round % 5 {
            let parts = 1 + (round + n) % 4;
            let chain: Vec<_> = (0..parts)
                .map(|at| match at {
                    0 => Segment::to_device(GUEST_BASE, 10 + n),
                    _ => Segment::from_device(GUEST_BASE + 64, 20 + at),
                })
                .collect();
            assert!(driver.add(&chain, token + n).unwrap());
            wanted.push(
                chain
                    .iter()
                    .map(|s| (s.len as usize, s.device_writes))
                    .collect(),
            );
        }
        assert!(!driver.enable_interrupts());
        assert!(driver.publish(), "the device has asked for a kick");
        let mut lengths: Vec<Vec<_>> = Vec::new();
        loop {
            let mut parts = Lengths::default();
            match device.queue.pop(&device.memory, &mut parts).unwrap() {
                Pop::Chain(chain) => device.taken.push_back(chain),
                Pop::Empty => break,
                Pop::Bad(_, fault) => panic!("{fault}"),
            }
            lengths.push(parts.0);
        }
        assert_eq!(lengths, wanted);
        assert!(!device.queue.enable_kicks(0).unwrap());
        let count = u16::try_from(device.taken.len()).unwrap();
        for (len, chain) in (0..).zip(device.taken.drain(..)) {
            device.queue.put_used(chain, len);
        }
        device.queue.publish(count);
        assert!(
            device.queue.wants_interrupt(),
            "the driver has asked for one"
        );
        for n in 0..u32::from(count) {
            let done = driver.pop().unwrap();
            assert_eq!(
                done,
                Some(Completion {
                    token: token + n,
                    len: n
                })
            );
        }
        assert_eq!(driver.pop().unwrap(), None);
        token += u32::from(count);
    }
}

fn options(event_idx: bool, indirect: u16) -> QueueOptions {
    QueueOptions {
        event_idx,
        in_order: false,
        indirect,
    }
}

fn split(size: u16, event_idx: bool, indirect: u16) -> SplitQueue {
    split_with(size, options(event_idx, indirect))
}

fn packed(size: u16, event_idx: bool, indirect: u16) -> PackedQueue {
    packed_with(size, options(event_idx, indirect))
}

fn split_with(size: u16, options: QueueOptions) -> SplitQueue {
    let mut memory = DriverMemory::of_len(1 << 20, 1).unwrap();
    SplitQueue::new(&mut memory, size, options).unwrap()
}

fn packed_with(size: u16, options: QueueOptions) -> PackedQueue {
    let mut memory = DriverMemory::of_len(1 << 20, 1).unwrap();
    PackedQueue::new(&mut memory, size, options).unwrap()
}

/// Every chain arrives as it was added, whatever its shape, and every token
/// comes back once, in whatever order the device returns them.
fn chains_arrive_and_come_back<Q: DriverQueue>(
    mut queue: Q,
    mut device: impl Device<Q>,
    rounds: &[(Vec<Vec<Segment>>, bool)],
) {
    let size = queue.size();
    let mut token = 0;
    for (chains, backwards) in rounds {
        let mut sent = Vec::new();
        for chain in chains {
            if queue.add(chain, token).unwrap() {
                sent.push((token, chain.clone()));
                token += 1;
            } else {
                assert!(chain.len() > usize::from(queue.free()));
            }
        }
        assert!(device.take(&queue).is_none(), "seen before it is published");
        let _ = queue.publish();
        let mut taken: Vec<_> = std::iter::from_fn(|| device.take(&queue)).collect();
        let arrived: Vec<_> = taken.iter().map(|(_, chain)| chain.clone()).collect();
        let wanted: Vec<_> = sent.iter().map(|(_, chain)| chain.clone()).collect();
        assert_eq!(arrived, wanted);
        if *backwards {
            taken.reverse();
            sent.reverse();
        }
        for ((id, _), (token, _)) in taken.iter().zip(&sent) {
            device.give(&queue, *id, token + 7);
        }
        for (token, _) in sent {
            let len = token + 7;
            assert_eq!(queue.pop().unwrap(), Some(Completion { token, len }));
        }
        assert_eq!(queue.pop().unwrap(), None);
        assert_eq!((queue.free(), queue.outstanding()), (size, 0));
    }
}

fn segment() -> impl Strategy<Value = Segment> {
    (0..4096u64, any::<u32>(), any::<bool>()).prop_map(|(at, len, device_writes)| Segment {
        addr: GUEST_BASE + at,
        len,
        device_writes,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chains_of_any_shape_arrive_and_come_back(
        rounds in prop::collection::vec(
            (prop::collection::vec(prop::collection::vec(segment(), 1..8), 0..12), any::<bool>()),
            1..20,
        ),
        indirect in 0..6u16,
    ) {
        chains_arrive_and_come_back(split(16, true, indirect), SplitDevice::default(), &rounds);
        for size in [13, 16] {
            let queue = packed(size, true, indirect);
            chains_arrive_and_come_back(queue, PackedDevice::default(), &rounds);
        }
    }
}

#[test]
fn a_chain_that_never_fits_is_an_error_and_one_that_waits_is_not() {
    let one = [Segment::to_device(GUEST_BASE, 1)];
    let mut queue = split(4, false, 0);
    assert!(matches!(queue.add(&[], 0), Err(QueueError::Chain(0, 4))));
    assert!(matches!(
        queue.add(&one.repeat(5), 0),
        Err(QueueError::Chain(5, 4))
    ));
    assert!(queue.add(&one.repeat(3), 0).unwrap());
    assert!(!queue.add(&one.repeat(2), 0).unwrap());
    assert!(queue.add(&one, 0).unwrap());
    assert!(!queue.add(&one, 0).unwrap());
    let mut memory = DriverMemory::of_len(1 << 20, 1).unwrap();
    for size in [0, 3, 0x8001] {
        let refused = SplitQueue::new(&mut memory, size, QueueOptions::from(0));
        assert!(matches!(refused, Err(QueueError::Size(_))));
    }
}

#[test]
fn indices_wrap() {
    let one = vec![Segment::from_device(GUEST_BASE, 1)];
    let round = (vec![one; 16], false);
    let rounds = vec![round; 70_000 / 16];
    chains_arrive_and_come_back(split(16, true, 0), SplitDevice::default(), &rounds);
    chains_arrive_and_come_back(packed(17, true, 0), PackedDevice::default(), &rounds);
}

/// Adds `count` chains of one, publishes once, and says whether to kick.
fn publish(queue: &mut impl DriverQueue, count: u16) -> bool {
    for _ in 0..count {
        assert!(queue.add(&[Segment::to_device(GUEST_BASE, 1)], 0).unwrap());
    }
    queue.publish()
}

#[test]
fn without_event_index_the_flag_decides_about_kicks() {
    let mut queue = split(64, false, 0);
    assert!(publish(&mut queue, 1));
    queue.ring().set_used_flags(USED_F_NO_NOTIFY);
    // The event index means nothing here.
    queue.ring().set_avail_event(1);
    assert!(!publish(&mut queue, 1));
    queue.ring().set_used_flags(0);
    assert!(!publish(&mut queue, 0), "nothing new, nothing to say");
    assert!(publish(&mut queue, 1));
}

#[test]
fn with_event_index_the_index_stepped_over_decides() {
    let mut queue = split(64, true, 0);
    queue.ring().set_used_flags(USED_F_NO_NOTIFY);
    assert!(publish(&mut queue, 1), "the flag means nothing here");
    queue.ring().set_avail_event(3);
    assert!(!publish(&mut queue, 2), "1..3 does not step over entry 3");
    assert!(publish(&mut queue, 5), "3..8 does");
    assert!(!publish(&mut queue, 5), "it is behind us");
    queue.ring().set_avail_event(13);
    assert!(publish(&mut queue, 1));
}

#[test]
fn interrupts_are_asked_for_by_index_or_by_flag() {
    let mut queue = split(64, true, 0);
    let mut device = SplitDevice::default();
    let _ = publish(&mut queue, 8);
    assert!(!queue.enable_interrupts());
    assert_eq!(queue.ring().used_event(), 0);
    let ids: Vec<_> = std::iter::from_fn(|| device.take(&queue)).collect();
    for (id, _) in &ids[..3] {
        device.give(&queue, *id, 0);
    }
    assert!(queue.enable_interrupts(), "three came back meanwhile");
    assert!(queue.enable_interrupts_after(3));
    assert!(!queue.enable_interrupts_after(4));
    assert_eq!(queue.ring().used_event(), 3);
    queue.pop().unwrap();
    queue.disable_interrupts();
    let (event, used) = (queue.ring().used_event(), queue.ring().used_index());
    assert!(event.wrapping_sub(used) > 64, "out of the device's reach");

    let mut queue = split(64, false, 0);
    queue.disable_interrupts();
    assert_eq!(queue.ring().avail_flags(), AVAIL_F_NO_INTERRUPT);
    assert!(!queue.enable_interrupts_after(9));
    assert_eq!(queue.ring().avail_flags(), 0);
}

#[test]
fn what_a_device_cannot_return_is_an_error() {
    let mut queue = split(8, true, 0);
    let mut device = SplitDevice::default();
    let _ = publish(&mut queue, 2);
    assert!(queue.add(&[Segment::to_device(GUEST_BASE, 1)], 0).unwrap());
    let (id, _) = device.take(&queue).unwrap();
    // The third chain was not published yet.
    queue.ring().set_used_index(3);
    assert!(matches!(
        queue.pop(),
        Err(QueueError::UsedIndex {
            used: 3,
            from: 0,
            given: 2
        })
    ));
    for bad in [7, 8, 0xffff, 0x1_0000 + id] {
        queue.reset();
        publish(&mut queue, 2);
        SplitDevice::default().give(&queue, bad, 0);
        assert!(matches!(queue.pop(), Err(QueueError::UsedId { id }) if id == bad));
    }
    queue.reset();
    let _ = publish(&mut queue, 2);
    let mut device = SplitDevice::default();
    let (id, _) = device.take(&queue).unwrap();
    device.give(&queue, id, 0);
    device.give(&queue, id, 0);
    assert!(queue.pop().unwrap().is_some());
    assert!(matches!(queue.pop(), Err(QueueError::UsedId { .. })));
}

/// 2.8.10, 2.8.21.2 and 2.8.22: kicks and interrupts of packed rings.
#[test]
fn event_structures_say_who_is_told_when() {
    let at = |index, wrap| Position { index, wrap };
    let mut queue = packed(64, true, 0);
    assert!(publish(&mut queue, 1), "asked for by a structure of zeros");
    let ring = queue.ring();
    ring.set_device_event(event::DISABLE, Position::START);
    assert!(!publish(&mut queue, 1));
    queue.ring().set_device_event(event::DESC, at(5, true));
    assert!(!publish(&mut queue, 3), "2..5 does not pass descriptor 5");
    assert!(publish(&mut queue, 1));
    queue.ring().set_device_event(event::DESC, at(7, false));
    assert!(!publish(&mut queue, 10), "that is in the next lap");
    assert!(!publish(&mut queue, 0), "nothing new, nothing to say");
    // The reserved bits mean nothing.
    queue
        .ring()
        .set_device_event(0xfffc | event::DISABLE, at(0, true));
    assert!(!publish(&mut queue, 1));

    assert!(!queue.enable_interrupts_after(4));
    assert_eq!(queue.ring().driver_event(), (event::DESC, at(3, true)));
    let mut device = PackedDevice::default();
    for _ in 0..4 {
        let (id, _) = device.take(&queue).unwrap();
        device.give(&queue, id, 0);
    }
    assert!(queue.enable_interrupts_after(4), "they came back meanwhile");
    assert!(queue.pop().unwrap().is_some());
    queue.disable_interrupts();
    assert_eq!(queue.ring().driver_event().0, event::DISABLE);

    let mut queue = packed(64, false, 0);
    // Without the event index, the place means nothing.
    queue.ring().set_device_event(event::DESC, at(60, true));
    assert!(publish(&mut queue, 1));
    assert!(!queue.enable_interrupts_after(4));
    assert_eq!(queue.ring().driver_event().0, event::ENABLE);
}

#[test]
fn a_packed_device_returns_only_what_it_was_given() {
    for bad in [7, 8, 0xffff] {
        let mut queue = packed(8, true, 0);
        let _ = publish(&mut queue, 2);
        PackedDevice::default().give(&queue, 1 << 16 | bad, 0);
        assert!(matches!(queue.pop(), Err(QueueError::UsedId { id }) if id == bad));
    }
    let mut queue = packed(8, true, 0);
    let _ = publish(&mut queue, 2);
    let mut device = PackedDevice::default();
    let (id, _) = device.take(&queue).unwrap();
    device.give(&queue, id, 0);
    device.give(&queue, id, 0);
    assert!(queue.pop().unwrap().is_some());
    assert!(matches!(queue.pop(), Err(QueueError::UsedId { .. })));
}

/// A device that died: the next one begins with what did not come back.
#[test]
fn a_packed_queue_is_resumed_behind_what_came_back() {
    let one = Segment::to_device(GUEST_BASE, 1);
    let mut queue = packed(8, false, 0);
    for _ in 0..3 {
        assert!(queue.add(&[one, one], 0).unwrap());
    }
    let _ = queue.publish();
    let mut device = PackedDevice::default();
    let start = u32::from(Position::START.to_bits());
    assert_eq!(queue.resume_base(), start << 16 | start);
    for came_back in 1..=3 {
        let (id, _) = device.take(&queue).unwrap();
        device.give(&queue, id, 0);
        let base = start + 2 * came_back;
        assert_eq!(queue.resume_base(), base << 16 | base);
    }
}

#[test]
fn a_reset_queue_is_as_new() {
    let mut queue = split(8, true, 4);
    let _ = publish(&mut queue, 5);
    let _ = queue.enable_interrupts_after(3);
    queue.reset();
    assert_eq!((queue.base(), queue.free(), queue.outstanding()), (0, 8, 0));
    assert_eq!(queue.ring().avail_index(), 0);
    let chain = vec![Segment::to_device(GUEST_BASE, 1); 3];
    let rounds = [(vec![chain; 8], true)];
    chains_arrive_and_come_back(queue, SplitDevice::default(), &rounds);

    let mut queue = packed(8, true, 4);
    let _ = publish(&mut queue, 5);
    let _ = queue.enable_interrupts_after(3);
    queue.reset();
    assert_eq!((queue.free(), queue.outstanding()), (8, 0));
    assert_eq!(queue.base(), 0x8000_8000);
    chains_arrive_and_come_back(queue, PackedDevice::default(), &rounds);
}
