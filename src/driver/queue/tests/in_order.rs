//! A device that uses chains in order, and says so of the last of a batch only.

use super::*;

const OPTIONS: QueueOptions = QueueOptions {
    event_idx: true,
    in_order: true,
    indirect: 0,
};

/// A chain that can be told by its length.
fn chain(len: u32) -> [Segment; 2] {
    [
        Segment::to_device(GUEST_BASE, 1),
        Segment::from_device(GUEST_BASE, len),
    ]
}

fn pops(queue: &mut impl DriverQueue) -> Vec<(u32, u32)> {
    std::iter::from_fn(|| queue.pop().unwrap())
        .map(|Completion { token, len }| (token, len))
        .collect()
}

/// 2.7.5: descriptors are used in ring order, each chained to the next.
#[test]
fn a_split_ring_is_gone_round_descriptor_by_descriptor() {
    let mut queue = split_with(8, OPTIONS);
    let mut device = RealDevice::<queue::SplitQueue>::new(
        &queue,
        &Arc::clone(queue.ring().table().memory()),
        OPTIONS,
    );
    let mut at = 0;
    for round in 1..40 {
        let batch = round % 4 + 1;
        for token in 0..batch {
            let head = (at + 2 * u16::try_from(token).unwrap()) % 8;
            assert!(queue.add(&chain(token), token).unwrap());
            assert_eq!(queue.ring().descriptor(head).len, 1);
            assert_eq!(queue.ring().descriptor(head).next, (head + 1) % 8);
        }
        at = (at + 2 * u16::try_from(batch).unwrap()) % 8;
        let _ = queue.publish();
        let taken = device.take_all();
        device.queue.put_batch_used(&taken);
        device.queue.publish(u16::try_from(taken.len()).unwrap());
        // What is not said to be shorter was filled.
        let mut all: Vec<_> = (0..batch).map(|token| (token, token)).collect();
        all.last_mut().unwrap().1 = 0;
        assert_eq!(pops(&mut queue), all);
    }
}

impl<D: VirtQueue> RealDevice<D> {
    fn take_all(&mut self) -> Vec<Chain> {
        let mut next = || match self.queue.pop(&self.memory, &mut Lengths::default()) {
            Ok(Pop::Chain(chain)) => Some(chain),
            _ => None,
        };
        std::iter::from_fn(&mut next).collect()
    }
}

/// Three chains come back as one batch.
fn batch_of_a_packed_ring() -> PackedQueue {
    let mut queue = packed_with(16, OPTIONS);
    for token in 0..4 {
        assert!(queue.add(&chain(10 + token), token).unwrap());
    }
    let _ = queue.publish();
    let mut device = PackedDevice::default();
    let ids: Vec<_> = (0..3).map(|_| device.take(&queue).unwrap().0).collect();
    assert!(!queue.enable_interrupts_after(3));
    device.give(&queue, ids[2], 5);
    queue
}

#[test]
fn the_last_of_a_batch_stands_for_all() {
    let mut queue = batch_of_a_packed_ring();
    assert_eq!(pops(&mut queue), [(0, 10), (1, 11), (2, 5)]);
    assert_eq!(queue.outstanding(), 1);
}

/// The descriptor that was to tell is not written when a batch passes it.
#[test]
fn a_batch_that_came_meanwhile_is_seen() {
    let mut queue = batch_of_a_packed_ring();
    assert!(queue.enable_interrupts_after(3));
    assert!(queue.pop().unwrap().is_some());
    assert!(queue.enable_interrupts_after(1), "two are left");
    assert_eq!(pops(&mut queue).len(), 2);
    assert!(!queue.enable_interrupts_after(1));
}

#[test]
fn a_queue_is_resumed_behind_the_last_batch() {
    let mut queue = batch_of_a_packed_ring();
    let behind = u32::from(Position::START.to_bits()) + 6;
    for _ in 0..4 {
        assert_eq!(queue.resume_base(), behind << 16 | behind);
        let _ = queue.pop().unwrap();
    }
}

#[test]
fn a_device_that_returns_what_it_does_not_have_is_in_error() {
    let mut queue = packed_with(16, OPTIONS);
    let _ = publish(&mut queue, 2);
    PackedDevice::default().give(&queue, 1 << 16 | 7, 0);
    assert!(matches!(queue.pop(), Err(QueueError::UsedId { id: 7 })));

    let mut queue = split_with(16, OPTIONS);
    let _ = publish(&mut queue, 2);
    // The second stands for two, but the index says one.
    SplitDevice::default().give(&queue, 1, 0);
    assert!(matches!(queue.pop(), Err(QueueError::UsedId { id: 1 })));
}
