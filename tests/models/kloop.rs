//! The sync loop over a block of ring pointers: the loop as it runs, on a ring
//! of a port that does everything at once, and a client as netmap's header
//! files have it. Rings of two slots, so that each side waits for the other all
//! the time.

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use vtnetd::netmap::abi::option::{
    AppToKernel, EventDescriptors, KernelToApp, NM_OPT_SYNC_KLOOP_DIRECT_RX,
    NM_OPT_SYNC_KLOOP_DIRECT_TX,
};
use vtnetd::netmap::kloop::{Handle, Job, Plan, Rings, Running, run};
use vtnetd::netmap::mem::Entries;
use vtnetd::netmap::port::Direction;
use vtnetd::netmap::sync::{Hardware, Pointers};
use vtnetd::word::model::{END, Model, bell, explore, share, spawn};
use vtnetd::word::{AtomicU32, fence};

/// Slots of the longest ring.
const SLOTS: usize = 3;
const KICK: i32 = 1000;
const INTERRUPT: i32 = 1001;

/// What client and loop share.
#[derive(Default)]
#[repr(C, align(64))]
struct Block {
    atok: AppToKernel,
    ktoa: KernelToApp,
    /// The frames of the slots.
    slots: [u32; SLOTS],
}

/// Where it is; whoever has this ends before the block does.
#[derive(Clone, Copy)]
struct At(NonNull<Block>);

// SAFETY: all access is by loom.
unsafe impl Send for At {}

impl At {
    /// # Safety
    /// `offset` must be that of a number.
    unsafe fn number(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: by contract.
        unsafe { AtomicU32::from_ptr(self.0.cast::<u8>().add(offset).cast().as_ptr()) }
    }
}

macro_rules! number {
    ($at:expr, $($field:tt)+) => {
        // SAFETY: the number's own offset.
        unsafe { $at.number(std::mem::offset_of!(Block, $($field)+)) }
    };
}

impl At {
    fn slot(&self, index: u32) -> &AtomicU32 {
        let offset = std::mem::offset_of!(Block, slots) + 4 * index as usize;
        // SAFETY: one of the slots.
        unsafe { self.number(offset) }
    }
}

/// One ring, and what goes through it.
#[derive(Clone, Copy)]
struct Ring {
    way: Direction,
    direct: bool,
    slots: u32,
    frames: u32,
}

impl Ring {
    fn next(self, index: u32) -> u32 {
        (index + 1) % self.slots
    }
}

/// A port that sends what it gets, and has frames to be received.
struct Port {
    ring: Ring,
    at: At,
    running: Arc<Running>,
    head: u32,
    tail: u32,
    done: u32,
}

impl Rings for Port {
    fn sync(&mut self, way: Direction, _: u16, pointers: Pointers) -> Result<Hardware, Errno> {
        let ring = self.ring;
        while self.head != pointers.head {
            if way == Direction::Tx {
                self.done += 1;
                assert_eq!(self.at.slot(self.head).load(Ordering::Relaxed), self.done);
            }
            self.head = ring.next(self.head);
        }
        match way {
            Direction::Tx => self.tail = (self.head + ring.slots - 1) % ring.slots,
            Direction::Rx => {
                while self.done < ring.frames && ring.next(self.tail) != self.head {
                    self.done += 1;
                    self.at.slot(self.tail).store(self.done, Ordering::Relaxed);
                    self.tail = ring.next(self.tail);
                }
            }
        }
        Ok(Hardware {
            hwcur: self.head,
            hwtail: self.tail,
        })
    }

    fn listen(&mut self) -> Result<bool, Errno> {
        Ok(false)
    }

    fn sleep(&mut self) -> Result<bool, Errno> {
        Ok(true)
    }

    fn wake(&mut self) -> Result<bool, Errno> {
        Ok(false)
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        Ok(self.running.as_fd())
    }
}

struct App {
    ring: Ring,
    at: At,
    head: u32,
}

impl App {
    /// `nm_sync_kloop_appl_read`
    fn available(&self) -> u32 {
        let tail = number!(self.at, ktoa.hwtail).load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        number!(self.at, ktoa.hwcur).load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        (tail + self.ring.slots - self.head) % self.ring.slots
    }

    /// `nm_sync_kloop_appl_write`, and a kick if it is wanted.
    fn publish(&mut self) {
        self.head = self.ring.next(self.head);
        fence(Ordering::Release);
        number!(self.at, atok.cur).store(self.head, Ordering::Relaxed);
        fence(Ordering::Release);
        number!(self.at, atok.head).store(self.head, Ordering::Relaxed);
        self.kick();
    }

    fn kick(&self) {
        fence(Ordering::SeqCst);
        if number!(self.at, ktoa.kern_need_kick).load(Ordering::Relaxed) != 0 {
            bell(KICK).ring();
        }
    }

    /// Waits for slots.
    fn wait(&self) {
        let need_kick = number!(self.at, atok.appl_need_kick);
        while self.available() == 0 {
            need_kick.store(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.available() == 0 {
                if self.ring.direct {
                    self.kick();
                }
                bell(INTERRUPT).wait();
            }
            need_kick.store(0, Ordering::Relaxed);
        }
    }
}

/// The model of a ring.
fn frames(ring: Ring) -> Model {
    let Ring { way, direct, .. } = ring;
    let mode = match (way, direct) {
        (_, false) => 0,
        (Direction::Tx, true) => NM_OPT_SYNC_KLOOP_DIRECT_TX,
        (Direction::Rx, true) => NM_OPT_SYNC_KLOOP_DIRECT_RX,
    };
    let job = Job {
        plan: Plan {
            tx_rings: u32::from(way == Direction::Tx),
            rx_rings: u32::from(way == Direction::Rx),
            tx_slots: ring.slots,
            rx_slots: ring.slots,
            mode,
            ..Plan::default()
        },
        events: vec![EventDescriptors {
            ioeventfd: KICK,
            irqfd: INTERRUPT,
        }],
    };
    let (handle, socket) = Handle::new(&job).unwrap();
    let running = Arc::new(Running::new(socket).unwrap());
    Arc::new(move || {
        let mut block = Box::<Block>::default();
        let at = At(NonNull::from(&mut *block));
        share(at.0.as_ptr().cast(), size_of::<Block>(), 4);
        let _bells = [KICK, INTERRUPT, END].map(bell);
        let tail = if way == Direction::Tx {
            ring.slots - 1
        } else {
            0
        };
        number!(at, ktoa.hwtail).store(tail, Ordering::Relaxed);
        number!(at, ktoa.kern_need_kick).store(1, Ordering::Relaxed);
        let mut port = Port {
            ring,
            at,
            running: Arc::clone(&running),
            head: 0,
            tail,
            done: 0,
        };
        let worker = spawn(move || {
            let Port { at, running, .. } = &port;
            let running = Arc::clone(running);
            let block = at.0.as_ptr();
            // SAFETY: the thread ends before the block does, and loom has all
            // access.
            let entries = unsafe {
                let atok = NonNull::from(&mut (*block).atok);
                Entries::new(atok, NonNull::from(&mut (*block).ktoa), 1)
            };
            run(&running, &entries, &mut port).unwrap();
        });
        let mut app = App { ring, at, head: 0 };
        for number in 1..=ring.frames {
            app.wait();
            let slot = at.slot(app.head);
            match way {
                Direction::Tx => slot.store(number, Ordering::Relaxed),
                Direction::Rx => assert_eq!(slot.load(Ordering::Relaxed), number),
            }
            app.publish();
        }
        if way == Direction::Tx {
            app.wait();
        }
        bell(END).ring();
        bell(KICK).ring();
        worker.join().unwrap();
        assert!(handle.is_running());
    })
}

fn ring(way: Direction, slots: u32, frames: u32) -> Ring {
    Ring {
        way,
        direct: false,
        slots,
        frames,
    }
}

/// One ring with room left, for the loop does not ask for kicks there: what it
/// has told is ordered by nothing else than its telling. And rings that are
/// full or empty, in direct mode too.
#[test]
fn one_frame_after_the_other() {
    let transmit = ring(Direction::Tx, 2, 1);
    let receive = ring(Direction::Rx, 2, 2);
    let direct = |ring| Ring {
        direct: true,
        ..ring
    };
    let rings = [
        ring(Direction::Rx, 3, 1),
        receive,
        transmit,
        direct(receive),
        direct(transmit),
    ];
    explore(2, &rings.map(frames));
}

/// The client waits for its frames to be sent, over and over.
#[test]
fn transmit_twice() {
    let rings = [ring(Direction::Rx, 3, 1), ring(Direction::Tx, 2, 2)];
    explore(1, &rings.map(frames));
}
