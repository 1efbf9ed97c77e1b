//! Kicks and interrupts of both ring formats, with the event index and without.
//!
//! The loops here are those of the device's and the driver's callers: work
//! until there is nothing, ask to be woken, look once more, sleep. Both queues
//! pass their end within each model.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vtnetd::driver::memory::{Area, DriverMemory};
use vtnetd::driver::queue::{self as driver, DriverQueue, QueueOptions, Segment};
use vtnetd::virtio::memory::{GuestMemory, Readable, Writable};
use vtnetd::virtio::queue::{Chain, PackedQueue, Parts, Pop, RingFeatures, SplitQueue, VirtQueue};
use vtnetd::word::model::{Bell, Model, explore, spawn};

/// Changes of threads that could have gone on, in one run of a model.
const CHANGES: usize = 2;

/// A ring format.
pub trait Format: 'static {
    type Driver: DriverQueue + 'static;
    type Device: VirtQueue + Send + 'static;
    const PACKED: bool;
    /// Chains to put through before the model, so that the end is passed in it,
    /// and the device has asked once whether to interrupt.
    const BEFORE: u32;

    /// A driver whose ring the model's threads share.
    fn driver(memory: &mut DriverMemory, options: QueueOptions) -> Self::Driver;
}

pub struct Split;

impl Format for Split {
    type Driver = driver::SplitQueue;
    type Device = SplitQueue;
    const PACKED: bool = false;
    const BEFORE: u32 = 1;

    fn driver(memory: &mut DriverMemory, options: QueueOptions) -> Self::Driver {
        let mut driver = driver::SplitQueue::new(memory, 4, options).unwrap();
        driver.share(u16::MAX - 1);
        driver
    }
}

pub struct Packed;

impl Format for Packed {
    type Driver = driver::PackedQueue;
    type Device = PackedQueue;
    const PACKED: bool = true;
    const BEFORE: u32 = 2;

    fn driver(memory: &mut DriverMemory, options: QueueOptions) -> Self::Driver {
        let driver = driver::PackedQueue::new(memory, 3, options).unwrap();
        driver.ring().share();
        driver
    }
}

/// Takes no buffers: the model's are known.
struct Nothing;

impl<'m> Parts<'m> for Nothing {
    fn readable(&mut self, _: Readable<'m>) -> Option<()> {
        Some(())
    }

    fn writable(&mut self, _: Writable<'m>) -> Option<()> {
        Some(())
    }
}

/// One word for each chain, by its number.
#[derive(Clone)]
struct Buffers(Area);

impl Buffers {
    fn segment(&self, nth: u32) -> Segment {
        Segment::from_device(self.0.guest_addr(8 * nth as usize), 8)
    }

    fn fill(&self, nth: u32) {
        self.0.store64(8 * nth as usize, 1, Ordering::Relaxed);
    }

    fn check(&self, nth: u32) {
        assert_eq!(
            self.0.load64(8 * nth as usize, Ordering::Relaxed),
            1,
            "chain {nth}"
        );
    }
}

struct Device<Q> {
    queue: Q,
    memory: Arc<GuestMemory>,
}

impl<Q: VirtQueue> Device<Q> {
    fn take(&mut self) -> Option<Chain> {
        match self.queue.pop(&self.memory, &mut Nothing).unwrap() {
            Pop::Empty => None,
            Pop::Chain(chain) => Some(chain),
            Pop::Bad(_, fault) => panic!("{fault}"),
        }
    }

    /// Whether to interrupt.
    fn give(&mut self, chains: &[Chain]) -> bool {
        self.queue.put_batch_used(chains);
        self.queue.publish(u16::try_from(chains.len()).unwrap());
        self.queue.wants_interrupt()
    }
}

/// Both sides of a ring that has been in use, and buffers.
fn ring<F: Format>(event_idx: bool, in_order: bool) -> (F::Driver, Device<F::Device>, Buffers) {
    let mut memory = DriverMemory::of_len(1 << 16, 1).unwrap();
    let options = QueueOptions {
        event_idx,
        in_order,
        indirect: 0,
    };
    let mut driver = F::driver(&mut memory, options);
    let buffers = Buffers(memory.allocate(64, 64).unwrap());
    buffers.0.share(0, 64, 8);
    let features = RingFeatures {
        event_idx,
        in_order,
        ..RingFeatures::default()
    };
    let memory = Arc::clone(memory.table());
    let (at, base) = (driver.addresses(), driver.base());
    let queue = F::Device::new(Arc::clone(&memory), driver.size(), at, base, features).unwrap();
    let mut device = Device { queue, memory };
    for nth in 0..F::BEFORE {
        add(&mut driver, &buffers, nth, 1);
        let _ = driver.publish();
        let chain = device.take().unwrap();
        device.give(&[chain]);
        assert_eq!(driver.pop().unwrap().unwrap().token, nth);
    }
    (driver, device, buffers)
}

fn add(driver: &mut impl DriverQueue, buffers: &Buffers, nth: u32, segments: usize) {
    assert!(
        driver
            .add(&vec![buffers.segment(nth); segments], nth)
            .unwrap()
    );
}

/// The driver publishes chains of so many buffers each, a batch at a time; the
/// device takes them, and sleeps whenever there are none.
fn kicks<F: Format>(event_idx: bool, batches: &'static [&'static [usize]]) -> Model {
    Arc::new(move || {
        let (mut driver, mut device, buffers) = ring::<F>(event_idx, false);
        let kick = Arc::new(Bell::default());
        let (kicked, theirs) = (Arc::clone(&kick), buffers.clone());
        let worker = spawn(move || {
            let mut left = 0..batches.concat().len();
            loop {
                device.queue.disable_kicks();
                while device.take().is_some() {
                    let nth = left.next().expect("no more were added");
                    theirs.check(u32::try_from(nth).unwrap());
                }
                if left.is_empty() {
                    break;
                }
                if !device.queue.enable_kicks(0).unwrap() {
                    kicked.wait();
                }
            }
        });
        let mut number = 0..;
        for batch in batches {
            for (&segments, nth) in batch.iter().zip(&mut number) {
                buffers.fill(nth);
                add(&mut driver, &buffers, nth, segments);
            }
            if driver.publish() {
                kick.ring();
            }
        }
        worker.join().unwrap();
    })
}

/// The driver publishes two chains, one after the other; the device waits until
/// it has both.
fn kicks_beyond<F: Format>(event_idx: bool) -> Model {
    Arc::new(move || {
        let (mut driver, mut device, buffers) = ring::<F>(event_idx, false);
        let kick = Arc::new(Bell::default());
        let kicked = Arc::clone(&kick);
        let worker = spawn(move || {
            loop {
                device.queue.disable_kicks();
                let mut chains: Vec<Chain> = std::iter::from_fn(|| device.take()).collect();
                let beyond = u16::try_from(chains.len()).unwrap();
                if beyond == 2 {
                    break;
                }
                while let Some(chain) = chains.pop() {
                    device.queue.unpop(chain);
                }
                if !device.queue.enable_kicks(beyond).unwrap() {
                    kicked.wait();
                }
            }
        });
        for nth in 0..2 {
            add(&mut driver, &buffers, nth, 1);
            if driver.publish() {
                kick.ring();
            }
        }
        worker.join().unwrap();
    })
}

/// The device gives chains back, a batch at a time; the driver takes them, and
/// sleeps whenever there are not `after` or, with fewer left, not all.
pub fn interrupts<F: Format>(
    event_idx: bool,
    in_order: bool,
    batches: &'static [usize],
    after: u16,
) -> Model {
    Arc::new(move || {
        let (mut driver, mut device, buffers) = ring::<F>(event_idx, in_order);
        let all = u32::try_from(batches.iter().sum::<usize>()).unwrap();
        for nth in 0..all {
            add(&mut driver, &buffers, nth, 1);
        }
        let _ = driver.publish();
        let interrupt = Arc::new(Bell::default());
        let (interrupted, theirs) = (Arc::clone(&interrupt), buffers.clone());
        let worker = spawn(move || {
            let mut number = 0..;
            for &batch in batches {
                let chains: Vec<_> = (0..batch)
                    .map(|_| {
                        theirs.fill(number.next().unwrap());
                        device.take().expect("all were added")
                    })
                    .collect();
                if device.give(&chains) {
                    interrupt.ring();
                }
            }
        });
        let mut next = 0;
        loop {
            driver.disable_interrupts();
            let before = next;
            while let Some(back) = driver.pop().unwrap() {
                assert_eq!(back.token, next);
                buffers.check(next);
                next += 1;
            }
            // Of one batch both are seen, or none.
            assert!(batches != [2] || [0, 2].contains(&(next - before)));
            if next == all {
                break;
            }
            let after = after.min(u16::try_from(all - next).unwrap());
            if !driver.enable_interrupts_after(after) {
                interrupted.wait();
            }
        }
        worker.join().unwrap();
    })
}

/// The driver adds a chain and sleeps until it is back, twice; both are woken.
fn there_and_back<F: Format>(event_idx: bool) -> Model {
    Arc::new(move || {
        let (mut driver, mut device, buffers) = ring::<F>(event_idx, false);
        let (kick, interrupt) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let (kicked, interrupted) = (Arc::clone(&kick), Arc::clone(&interrupt));
        let worker = spawn(move || {
            let mut left = 2;
            loop {
                device.queue.disable_kicks();
                while let Some(chain) = device.take() {
                    left -= 1;
                    if device.give(&[chain]) {
                        interrupt.ring();
                    }
                }
                if left == 0 {
                    break;
                }
                if !device.queue.enable_kicks(0).unwrap() {
                    kicked.wait();
                }
            }
        });
        for nth in 0..2 {
            add(&mut driver, &buffers, nth, 1);
            driver.disable_interrupts();
            if driver.publish() {
                kick.ring();
            }
            while driver.pop().unwrap().is_none() {
                if !driver.enable_interrupts() {
                    interrupted.wait();
                }
            }
        }
        worker.join().unwrap();
    })
}

/// The models of one format.
macro_rules! models {
    ($format:ident, $name:ident, $event_idx:literal) => {
        mod $name {
            use super::*;

            #[test]
            fn kicks() {
                let kicks = super::kicks::<$format>;
                let models = [
                    // A batch; chains that come apart.
                    kicks($event_idx, &[&[1, 1]]),
                    kicks($event_idx, &[&[1], &[1]]),
                    kicks_beyond::<$format>($event_idx),
                ];
                explore(CHANGES, &models);
            }

            /// There are too many orders for all changes.
            #[test]
            fn kicks_of_a_chain_of_two_buffers() {
                explore(1, &[super::kicks::<$format>($event_idx, &[&[2], &[1]])]);
            }

            #[test]
            fn interrupts() {
                let interrupts = super::interrupts::<$format>;
                let models = [
                    interrupts($event_idx, false, &[2], 1),
                    interrupts($event_idx, false, &[1, 1], 1),
                    interrupts($event_idx, false, &[1, 1], 2),
                ];
                explore(CHANGES, &models);
            }

            #[test]
            fn interrupts_of_batches_in_order() {
                let interrupts = super::interrupts::<$format>;
                let models = [
                    interrupts($event_idx, true, &[2], 1),
                    interrupts($event_idx, true, &[2], 2),
                    interrupts($event_idx, true, &[1, 1], 2),
                ];
                explore(CHANGES, &models);
            }

            #[test]
            fn both() {
                explore(CHANGES, &[there_and_back::<$format>($event_idx)]);
            }
        }
    };
}

models!(Split, split, false);
models!(Split, split_event_index, true);
models!(Packed, packed, false);
models!(Packed, packed_event_index, true);
