//! The device's queues against the driver's. `Format` names the two sides of a
//! ring format; the bodies are generic over it, so that another format runs
//! the same tests. What is the split ring's own is in `hostile`.

use std::sync::Arc;

use super::*;
use crate::driver::memory::{Area, DriverMemory};
use crate::driver::queue::{Completion, DriverQueue, QueueOptions, Segment};
use crate::virtio::spec::desc;

mod hostile;
mod hostile_packed;

/// Both sides of a ring format.
trait Format {
    type Device: VirtQueue;
    type Driver: DriverQueue;
    fn driver(memory: &mut DriverMemory, size: u16, features: RingFeatures) -> Self::Driver;
}

struct Split;

impl Format for Split {
    type Device = SplitQueue;
    type Driver = crate::driver::queue::SplitQueue;

    fn driver(memory: &mut DriverMemory, size: u16, features: RingFeatures) -> Self::Driver {
        Self::Driver::new(memory, size, options(features)).unwrap()
    }
}

struct Packed;

impl Format for Packed {
    type Device = PackedQueue;
    type Driver = crate::driver::queue::PackedQueue;

    fn driver(memory: &mut DriverMemory, size: u16, features: RingFeatures) -> Self::Driver {
        Self::Driver::new(memory, size, options(features)).unwrap()
    }
}

fn options(features: RingFeatures) -> QueueOptions {
    QueueOptions {
        event_idx: features.event_idx,
        in_order: features.in_order,
        indirect: if features.indirect { 8 } else { 0 },
    }
}

const PLAIN: RingFeatures = RingFeatures {
    event_idx: false,
    indirect: false,
    notify_on_empty: false,
    packed: false,
    in_order: false,
};
const EVENT_IDX: RingFeatures = RingFeatures {
    event_idx: true,
    ..PLAIN
};
const INDIRECT: RingFeatures = RingFeatures {
    indirect: true,
    ..PLAIN
};
const IN_ORDER: RingFeatures = RingFeatures {
    in_order: true,
    ..PLAIN
};
const IN_ORDER_EVENT_IDX: RingFeatures = RingFeatures {
    event_idx: true,
    ..IN_ORDER
};

/// What a chain held, by lengths.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lens {
    readable: Vec<usize>,
    writable: Vec<usize>,
}

impl<'m> Parts<'m> for Lens {
    fn readable(&mut self, part: Readable<'m>) -> Option<()> {
        self.readable.push(part.len());
        Some(())
    }

    fn writable(&mut self, part: Writable<'m>) -> Option<()> {
        self.writable.push(part.len());
        Some(())
    }
}

struct Bed<F: Format> {
    table: Arc<GuestMemory>,
    buffers: Area,
    driver: F::Driver,
    device: F::Device,
}

fn bed<F: Format>(size: u16, features: RingFeatures) -> Bed<F> {
    let mut memory = DriverMemory::of_len(1 << 20, 2).unwrap();
    let buffers = memory.allocate(1 << 16, 64).unwrap();
    let driver = F::driver(&mut memory, size, features);
    let table = Arc::clone(memory.table());
    let device = F::Device::new(
        Arc::clone(&table),
        size,
        driver.addresses(),
        driver.base(),
        features,
    );
    Bed {
        table,
        buffers,
        device: device.unwrap(),
        driver,
    }
}

impl<F: Format> Bed<F> {
    fn offer(&mut self, chains: &[&[Segment]]) -> bool {
        for (token, chain) in (0..).zip(chains) {
            assert!(self.driver.add(chain, token).unwrap());
        }
        self.driver.publish()
    }

    fn pop(&mut self) -> (Option<Chain>, Lens) {
        let mut lens = Lens::default();
        match self.device.pop(&self.table, &mut lens).unwrap() {
            Pop::Empty => (None, lens),
            Pop::Chain(chain) => (Some(chain), lens),
            Pop::Bad(_, fault) => panic!("{fault}"),
        }
    }

    fn out(&self, at: usize, len: u32) -> Segment {
        Segment::to_device(self.buffers.guest_addr(at), len)
    }

    fn room(&self, at: usize, len: u32) -> Segment {
        Segment::from_device(self.buffers.guest_addr(at), len)
    }

    fn completions(&mut self) -> Vec<(u32, u32)> {
        std::iter::from_fn(|| self.driver.pop().unwrap())
            .map(|Completion { token, len }| (token, len))
            .collect()
    }
}

/// Chains of one buffer that is used as `V` is, and their lengths.
fn lone<'m, V: View<'m>>(
    device: &mut impl VirtQueue,
    memory: &'m GuestMemory,
    most: usize,
    len: impl Fn(V) -> usize,
) -> Vec<(Chain, usize)> {
    let mut taken = Vec::new();
    let count = device.pop_lone(memory, most, |chain, view| taken.push((chain, len(view))));
    assert_eq!(count, Ok(taken.len()));
    taken
}

fn rooms<F: Format>(bed: &mut Bed<F>, most: usize) -> Vec<(Chain, usize)> {
    lone(&mut bed.device, &bed.table, most, |view: Writable<'_>| {
        view.len()
    })
}

fn outs<F: Format>(bed: &mut Bed<F>, most: usize) -> Vec<(Chain, usize)> {
    lone(&mut bed.device, &bed.table, most, |view: Readable<'_>| {
        view.len()
    })
}

fn chains_of_any_shape_come_and_go<F: Format>(features: RingFeatures) {
    let mut bed = bed::<F>(16, features);
    let (a, b, c) = (bed.out(0, 1), bed.out(100, 4000), bed.room(8000, 7));
    bed.offer(&[&[a], &[a, b, c], &[c, c]]);
    let mut chains = Vec::new();
    for (readable, writable) in [
        (vec![1], vec![]),
        (vec![1, 4000], vec![7]),
        (vec![], vec![7, 7]),
    ] {
        let (chain, lens) = bed.pop();
        assert_eq!(lens, Lens { readable, writable });
        chains.push(chain.unwrap());
    }
    assert_eq!(bed.pop(), (None, Lens::default()));
    assert!(bed.completions().is_empty(), "nothing is published yet");
    for (chain, len) in chains.into_iter().zip([0, 5, 14]) {
        bed.device.put_used(chain, len);
    }
    bed.device.publish(3);
    assert_eq!(bed.completions(), [(0, 0), (1, 5), (2, 14)]);
}

/// What is no chain of one buffer of the kind that is asked for stops the run
/// and is left for `pop`.
fn lone_chains_are_taken_in_a_row<F: Format>(features: RingFeatures) {
    let mut bed = bed::<F>(8, features);
    let [a, b, c] = [100, 50, 25].map(|len| [bed.room(0, len)]);
    let (mixed, out) = ([bed.out(0, 1), bed.room(8, 9)], [bed.out(0, 7)]);
    bed.offer(&[&a, &b, &mixed, &c, &out]);
    let lens = |taken: &[(Chain, usize)]| taken.iter().map(|&(_, len)| len).collect::<Vec<_>>();

    assert_eq!(outs(&mut bed, 8), []);
    assert_eq!(rooms(&mut bed, 0), []);
    let first = rooms(&mut bed, 1);
    assert_eq!(lens(&first), [100]);
    bed.device.unpop(first[0].0);
    let mut all = rooms(&mut bed, 8);
    assert_eq!(lens(&all), [100, 50]);
    all.push((bed.pop().0.unwrap(), 9));
    all.extend(rooms(&mut bed, 8));
    assert_eq!(lens(&all), [100, 50, 9, 25]);
    assert_eq!(rooms(&mut bed, 8), []);
    all.extend(outs(&mut bed, 8));
    assert_eq!(lens(&all), [100, 50, 9, 25, 7]);
    assert_eq!(outs(&mut bed, 8), []);

    for &(chain, len) in &all {
        bed.device.put_used(chain, u32::try_from(len).unwrap());
    }
    bed.device.publish(5);
    let used = [(0, 100), (1, 50), (2, 9), (3, 25), (4, 7)];
    assert_eq!(bed.completions(), used);
}

fn positions_wrap_many_times<F: Format>(features: RingFeatures) {
    let mut bed = bed::<F>(4, features);
    for round in 0..70_000_u32 {
        let segment = bed.room(0, 64);
        assert!(bed.driver.add(&[segment, segment], round).unwrap());
        let _ = bed.driver.publish();
        let chain = bed.pop().0.unwrap();
        bed.device.put_used(chain, round % 64);
        bed.device.publish(1);
        assert_eq!(bed.completions(), [(round, round % 64)]);
    }
}

fn runs_of_lone_chains_wrap_many_times<F: Format>(features: RingFeatures) {
    let mut bed = bed::<F>(4, features);
    for round in 0..20_000_usize {
        let chains = round % 4 + 1;
        let offered: Vec<_> = (1..=4).map(|len| [bed.room(0, len)]).collect();
        let offered: Vec<&[Segment]> = offered.iter().map(|room| &room[..]).collect();
        bed.offer(&offered[..chains]);
        let taken = rooms(&mut bed, 8);
        for &(chain, len) in &taken {
            bed.device.put_used(chain, u32::try_from(len).unwrap());
        }
        bed.device.publish(u16::try_from(taken.len()).unwrap());
        let used: Vec<_> = (0..4)
            .map(|token| (token, token + 1))
            .take(chains)
            .collect();
        assert_eq!(bed.completions(), used);
    }
}

fn what_is_given_back_unused_comes_again<F: Format>() {
    let mut bed = bed::<F>(8, PLAIN);
    let lens = [10, 20, 30];
    let chains = lens.map(|len| [bed.out(0, len)]);
    bed.offer(&[&chains[0], &chains[1], &chains[2]]);
    let taken: Vec<_> = (0..3).map(|_| bed.pop().0.unwrap()).collect();
    bed.device.unpop(taken[2]);
    bed.device.unpop(taken[1]);
    assert_eq!(bed.pop().1.readable, [20]);
    assert_eq!(bed.pop().1.readable, [30]);
    bed.device.put_used(taken[0], 0);
    bed.device.publish(1);
    assert_eq!(bed.completions(), [(0, 0)]);
}

/// Chains that are filled out of order are seen in order.
fn only_publishing_is_in_order<F: Format>() {
    let mut bed = bed::<F>(8, PLAIN);
    let chains = [[bed.room(0, 9)], [bed.room(0, 9)]];
    bed.offer(&[&chains[0], &chains[1]]);
    let (first, second) = (bed.pop().0.unwrap(), bed.pop().0.unwrap());
    bed.device.put_used(second, 2);
    bed.device.put_used(first, 1);
    bed.device.publish(2);
    assert_eq!(bed.completions(), [(0, 1), (1, 2)]);
}

/// 2.7.9, 2.8.8: one used entry stands for a batch, and the next batch's is
/// where that batch begins, whatever the chains are.
fn one_used_entry_stands_for_a_batch<F: Format>(features: RingFeatures) {
    let mut bed = bed::<F>(8, features);
    let (one, two) = ([bed.out(0, 8)], [bed.out(0, 8), bed.out(8, 8)]);
    let chains: [&[Segment]; 4] = [&one, &two, &one, &one];
    for round in 0..40_usize {
        bed.offer(&chains[..round % 4 + 1]);
        let taken: Vec<_> = std::iter::from_fn(|| bed.pop().0).collect();
        let (batch, last) = taken.split_at((round % 3).min(taken.len()));
        for batch in [batch, last] {
            bed.device.put_batch_used(batch);
            bed.device.publish(u16::try_from(batch.len()).unwrap());
        }
        let all: Vec<_> = (0..4).map(|token| (token, 0)).take(taken.len()).collect();
        assert_eq!(bed.completions(), all, "round {round}");
        assert_eq!(bed.driver.outstanding(), 0);
        assert_eq!(bed.device.base(), bed.driver.base());
    }
}

/// Lengths mean something: each chain that was written into has its own entry.
fn what_was_written_is_said_of_each_chain<F: Format>(features: RingFeatures) {
    let mut bed = bed::<F>(8, features);
    let room = [bed.room(0, 64)];
    for _ in 0..20 {
        bed.offer(&[&room, &room, &room]);
        for (len, (chain, _)) in (1..).zip(rooms(&mut bed, 8)) {
            bed.device.put_used(chain, len);
        }
        bed.device.publish(3);
        assert_eq!(bed.completions(), [(0, 1), (1, 2), (2, 3)]);
    }
}

fn a_ring_goes_on_where_it_stopped<F: Format>() {
    let mut bed = bed::<F>(4, PLAIN);
    for round in 0..3 {
        let segment = bed.out(0, 8);
        assert!(bed.driver.add(&[segment], round).unwrap());
        let _ = bed.driver.publish();
        let chain = bed.pop().0.unwrap();
        bed.device.put_used(chain, 0);
        bed.device.publish(1);
        assert_eq!(bed.completions().len(), 1);
        let (at, base) = (bed.driver.addresses(), bed.device.base());
        assert_eq!(base, bed.driver.base());
        bed.device = F::Device::new(Arc::clone(&bed.table), 4, at, base, PLAIN).unwrap();
    }
}

/// 2.7.7.2: the driver's wish counts at the moment of publishing.
fn interrupts_are_sent_as_the_driver_wishes<F: Format>(features: RingFeatures) {
    let mut bed = bed::<F>(16, features);
    let complete = |bed: &mut Bed<F>, count: u16| {
        for token in 0..u32::from(count) {
            let segment = bed.out(0, 8);
            assert!(bed.driver.add(&[segment], token).unwrap());
        }
        let _ = bed.driver.publish();
        for _ in 0..count {
            let chain = bed.pop().0.unwrap();
            bed.device.put_used(chain, 0);
        }
        bed.device.publish(count);
        bed.device.wants_interrupt()
    };
    let _ = bed.driver.enable_interrupts();
    assert!(complete(&mut bed, 1), "the first is always told");
    bed.completions();
    bed.driver.disable_interrupts();
    assert!(!complete(&mut bed, 3));
    bed.completions();
    assert!(
        !bed.driver.enable_interrupts(),
        "nothing has come meanwhile"
    );
    assert!(complete(&mut bed, 3));
    assert!(!bed.device.wants_interrupt(), "once is enough");
    bed.completions();
    if features.event_idx {
        let _ = bed.driver.enable_interrupts_after(4);
        assert!(!complete(&mut bed, 3), "not before the fourth");
        assert!(complete(&mut bed, 1));
    }
}

/// 2.7.10.1: a kick is wanted when asked for, and not else.
fn kicks_are_asked_for<F: Format>(features: RingFeatures) {
    let mut bed = bed::<F>(16, features);
    let chain = [bed.out(0, 8)];
    assert_eq!(bed.device.enable_kicks(0), Ok(false));
    assert!(bed.offer(&[&chain]), "asked for");
    bed.device.disable_kicks();
    assert!(!bed.offer(&[&chain]), "not asked for");
    for beyond in [0, 1] {
        assert_eq!(bed.device.enable_kicks(beyond), Ok(true), "the second look");
    }
    assert_eq!(bed.device.enable_kicks(2), Ok(false));
    assert!(bed.offer(&[&chain]), "the chains after those are told");
    while bed.pop().0.is_some() {}
    assert_eq!(bed.device.enable_kicks(0), Ok(false));
    assert!(bed.offer(&[&chain]));
}

fn rings_are_checked_before_use<F: Format>() {
    let bed = bed::<F>(8, PLAIN);
    let at = bed.driver.addresses();
    let try_at = |size, at| {
        let result = F::Device::new(Arc::clone(&bed.table), size, at, 0, EVENT_IDX);
        result.err().expect("refused")
    };
    for size in [0, 0x8001] {
        assert_eq!(try_at(size, at), SetupError::Size(size));
    }
    let shifted = |desc, avail, used| RingAddresses {
        desc: at.desc + desc,
        avail: at.avail + avail,
        used: at.used + used,
    };
    for at in [shifted(8, 0, 0), shifted(0, 1, 0), shifted(0, 0, 2)] {
        assert!(matches!(try_at(8, at), SetupError::Alignment(..)));
    }
    let nowhere = RingAddresses { used: 64, ..at };
    assert!(matches!(try_at(8, nowhere), SetupError::Unmapped(_, 64)));
    // A guest address is not a front-end address.
    let guest = RingAddresses {
        desc: bed.buffers.guest_addr(0),
        ..at
    };
    assert!(matches!(try_at(8, guest), SetupError::Unmapped(..)));
}

macro_rules! for_format {
    ($format:ident: $($name:ident($($features:expr),*);)*) => {
        $(
            #[test]
            fn $name() {
                for_format!(@run $name $format $($features),*);
            }
        )*
    };
    (@run $name:ident $format:ident) => { super::$name::<$format>() };
    (@run $name:ident $format:ident $($features:expr),+) => {
        $( super::$name::<$format>($features); )+
    };
}

mod packed {
    use super::*;

    for_format! { Packed:
        lone_chains_are_taken_in_a_row(PLAIN, EVENT_IDX, IN_ORDER);
        runs_of_lone_chains_wrap_many_times(PLAIN, EVENT_IDX, IN_ORDER);
        chains_of_any_shape_come_and_go(PLAIN, INDIRECT, EVENT_IDX, IN_ORDER);
        positions_wrap_many_times(PLAIN, EVENT_IDX, IN_ORDER);
        what_is_given_back_unused_comes_again();
        only_publishing_is_in_order();
        one_used_entry_stands_for_a_batch(PLAIN, IN_ORDER, IN_ORDER_EVENT_IDX);
        what_was_written_is_said_of_each_chain(PLAIN, IN_ORDER);
        a_ring_goes_on_where_it_stopped();
        interrupts_are_sent_as_the_driver_wishes(PLAIN, EVENT_IDX, IN_ORDER_EVENT_IDX);
        kicks_are_asked_for(PLAIN, EVENT_IDX);
        rings_are_checked_before_use();
    }
}

mod split {
    use super::*;

    #[test]
    fn a_size_is_a_power_of_two() {
        let bed = bed::<Split>(8, PLAIN);
        let at = bed.driver.addresses();
        let queue = SplitQueue::new(Arc::clone(&bed.table), 3, at, 0, PLAIN);
        assert_eq!(queue.err(), Some(SetupError::Size(3)));
        let queue = SplitQueue::new(bed.table, 8, at, 0x1_0000, PLAIN);
        assert_eq!(queue.err(), Some(SetupError::Base(0x1_0000)));
    }

    for_format! { Split:
        lone_chains_are_taken_in_a_row(PLAIN, EVENT_IDX, IN_ORDER);
        runs_of_lone_chains_wrap_many_times(PLAIN, EVENT_IDX, IN_ORDER);
        chains_of_any_shape_come_and_go(PLAIN, INDIRECT, EVENT_IDX, IN_ORDER);
        positions_wrap_many_times(PLAIN, EVENT_IDX, IN_ORDER);
        what_is_given_back_unused_comes_again();
        only_publishing_is_in_order();
        one_used_entry_stands_for_a_batch(PLAIN, IN_ORDER, IN_ORDER_EVENT_IDX);
        what_was_written_is_said_of_each_chain(PLAIN, IN_ORDER);
        a_ring_goes_on_where_it_stopped();
        interrupts_are_sent_as_the_driver_wishes(PLAIN, EVENT_IDX, IN_ORDER_EVENT_IDX);
        kicks_are_asked_for(PLAIN, EVENT_IDX);
        rings_are_checked_before_use();
    }
}
