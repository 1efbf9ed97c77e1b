//! What a worker runs, a queue pair and a netmap client, from work to rest and
//! back, against a driver and a client that sleep.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use vtnetd::backend::{Backend, Received, Room, Sent};
use vtnetd::device::vring::{Kick, Vring};
use vtnetd::device::{Event, QueuePair};
use vtnetd::driver::memory::DriverMemory;
use vtnetd::driver::queue::{DriverQueue, QueueOptions, Segment};
use vtnetd::net::frame::Batch;
use vtnetd::netmap::ctrl::Control;
use vtnetd::netmap::mem::RegionConfig;
use vtnetd::netmap::register::Netmap;
use vtnetd::netmap::service::wire::page::Service as Page;
use vtnetd::netmap::service::{Client, Strays};
use vtnetd::netmap::vale::Switches;
use vtnetd::virtio::net_header::{LEN, NetHeader};
use vtnetd::virtio::queue::RingFeatures;
use vtnetd::virtio::spec::feature;
use vtnetd::word::model::{Bell, END, Model, bell, explore, spawn};
use vtnetd::worker::Work;

use crate::page::{operation, wait};
use crate::queue::{Format, Packed, Split, interrupts};

/// The worker's loop, without the time that it looks in vain.
fn work(occupant: &impl Work, event: u64, called: &Bell, ends: impl Fn() -> bool) {
    loop {
        occupant.begin();
        while occupant.turn() {}
        if ends() {
            return;
        }
        if !occupant.rest() {
            called.wait();
            occupant.note(event);
        }
    }
}

/// A descriptor that says nothing.
static SILENT: LazyLock<(UnixStream, Arc<OwnedFd>)> = LazyLock::new(|| {
    let (open, end) = UnixStream::pair().unwrap();
    end.set_nonblocking(true).unwrap();
    (open, Arc::new(end.into()))
});

/// Bytes of a frame.
const FRAME: u32 = 60;
/// Frames each way.
const FRAMES: u32 = 2;

/// Takes all frames, and has some.
struct Host {
    left: AtomicU32,
}

impl Backend for Host {
    fn features(&self) -> u64 {
        0
    }

    fn set_features(&self, _: u64, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn max_pairs(&self) -> u16 {
        1
    }

    fn send(&self, _: usize, batch: &Batch<'_>) -> Sent {
        Sent {
            frames: u32::try_from(batch.frames().len()).unwrap(),
            ..Sent::default()
        }
    }

    fn rx_fd(&self, _: usize) -> Option<BorrowedFd<'_>> {
        Some(SILENT.1.as_fd())
    }

    fn receive(&self, _: usize, rx: &mut dyn Room) -> Received {
        while self.left.load(Ordering::Relaxed) > 0 {
            if let Err(why) = rx.room(FRAME as usize) {
                return why;
            }
            rx.finish(&NetHeader::default(), FRAME as usize);
            self.left.fetch_sub(1, Ordering::Relaxed);
        }
        Received::Drained
    }
}

/// The driver adds chains one by one, to send or to receive, and kicks when it
/// is to.
fn kicks<F: Format>(event_idx: bool, receive: bool) -> Model {
    Arc::new(move || {
        let mut memory = DriverMemory::of_len(1 << 16, 1).unwrap();
        let options = QueueOptions {
            event_idx,
            in_order: false,
            indirect: 0,
        };
        let mut driver = F::driver(&mut memory, options);
        let buffer = memory.allocate(2048, 64).unwrap();
        let host = Host {
            left: AtomicU32::new(if receive { FRAMES } else { 0 }),
        };
        let pair = QueuePair::alone(Arc::new(host), feature::VERSION_1);
        let vring: &Vring = if receive { &pair.rx } else { &pair.tx };
        let features = RingFeatures {
            event_idx,
            packed: F::PACKED,
            ..RingFeatures::default()
        };
        vring.set_features(features).unwrap();
        vring.set_memory(Arc::clone(memory.table())).unwrap();
        vring.set_size(driver.size()).unwrap();
        vring.set_addresses(driver.addresses()).unwrap();
        vring.set_base(driver.base()).unwrap();
        vring.set_kick(Kick::Fd(Arc::clone(&SILENT.1))).1.unwrap();
        vring.enable(true);
        let kick = Arc::new(Bell::default());
        let kicked = Arc::clone(&kick);
        let worker = spawn(move || {
            let (event, count) = if receive {
                (Event::Receive, &pair.rx_stats.frames)
            } else {
                (Event::Transmit, &pair.tx_stats.frames)
            };
            let ends = || count.get() == u64::from(FRAMES);
            work(&pair, event.into(), &kicked, ends);
        });
        let len = u32::try_from(LEN).unwrap() + FRAME;
        let segment = Segment {
            addr: buffer.guest_addr(0),
            len,
            device_writes: receive,
        };
        for token in 0..FRAMES {
            assert!(driver.add(&[segment], token).unwrap());
            if driver.publish() {
                kick.ring();
            }
        }
        worker.join().unwrap();
    })
}

/// Its driver takes nothing back, so another is needed that waits for
/// interrupts.
fn pairs<F: Format>(receive: bool) {
    for event_idx in [false, true] {
        let other = interrupts::<F>(event_idx, false, &[2], 1);
        explore(2, &[other, kicks::<F>(event_idx, receive)]);
    }
}

#[test]
fn a_split_queue_that_sends() {
    pairs::<Split>(false);
}

#[test]
fn a_split_queue_that_receives() {
    pairs::<Split>(true);
}

#[test]
fn a_packed_queue_that_sends() {
    pairs::<Packed>(false);
}

#[test]
fn a_packed_queue_that_receives() {
    pairs::<Packed>(true);
}

#[test]
fn a_client() {
    let core = Netmap::new(Arc::new(Switches::default()), RegionConfig::global());
    let core = Arc::new(core);
    let strays = Strays::start().unwrap();
    let model = move || {
        let (page, _fd) = Page::new().unwrap();
        let mut client = page.share();
        let (_open, end) = UnixStream::pair().unwrap();
        let number = end.as_raw_fd();
        let (to_client, to_service) = (bell(number), bell(!number));
        let (end_of_all, own) = (bell(END), Arc::clone(&to_service));
        let occupant = Client::alone(Control::new(Arc::clone(&core)), page, &strays, end.into());
        let ended = Arc::clone(&end_of_all);
        let worker = spawn(move || {
            // The bell is the first of a client's events.
            work(&occupant, 0, &own, || ended.take());
        });
        for number in 1..=2 {
            if client.ask(operation(number)) {
                to_service.ring();
            }
            wait(&client, &to_client);
        }
        end_of_all.ring();
        to_service.ring();
        worker.join().unwrap();
    };
    explore(2, &[Arc::new(model)]);
}
