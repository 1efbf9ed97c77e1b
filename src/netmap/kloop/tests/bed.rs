//! A client on real rings, and its loop in a thread of its own.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zerocopy::{Immutable, IntoBytes};

use super::super::*;
use crate::netmap::abi::NETMAP_API;
use crate::netmap::abi::nmreq::*;
use crate::netmap::abi::option::*;
use crate::netmap::ctrl::{ClientMemory, Control, Fault};
use crate::netmap::mem::{RegionConfig, RingView};
use crate::netmap::port::Port;
use crate::netmap::register::Netmap;
use crate::netmap::vale::Switches;

/// Nothing that is waited for takes longer, nor as long as the loop's own
/// second look, which is to find nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// The test's own memory.
#[derive(Default)]
struct Memory(Option<OwnedFd>);

impl ClientMemory for Memory {
    fn copy_in(&mut self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        let from = at as *const u8;
        // SAFETY: requests below name memory of their own that is alive.
        unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    fn copy_out(&mut self, at: u64, from: &[u8]) -> Result<(), Fault> {
        let to = at as *mut u8;
        // SAFETY: as above.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Ok(())
    }

    fn hand_over(&mut self, descriptor: OwnedFd) -> Result<(), Errno> {
        self.0 = Some(descriptor);
        Ok(())
    }
}

/// Entries for two rings, as they lie in a client.
#[derive(Default)]
#[repr(C, align(64))]
struct Block {
    atok: [AppToKernel; 2],
    ktoa: [KernelToApp; 2],
}

/// The client's side of a port whose rings a loop syncs.
pub(super) struct App {
    control: Control,
    block: Box<Block>,
    ioeventfds: [OwnedFd; 2],
    pub(super) irqfds: [OwnedFd; 2],
}

fn eventfd() -> OwnedFd {
    // SAFETY: a new descriptor, which nobody else has.
    unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC);
        std::os::fd::FromRawFd::from_raw_fd(fd)
    }
}

/// An option with its header.
#[repr(C)]
struct Opt<T>(OptionHeader, T);

fn opt<T>(kind: u32, value: T, next: u64) -> Opt<T> {
    let header = OptionHeader {
        nro_reqtype: kind,
        nro_next: next,
        nro_size: size_of::<Opt<T>>() as u64,
        ..OptionHeader::default()
    };
    Opt(header, value)
}

fn ask<T: IntoBytes + Immutable>(
    control: &Control,
    reqtype: u16,
    name: &str,
    body: &mut T,
    options: u64,
) -> Result<Option<OwnedFd>, Errno> {
    let mut header = RequestHeader {
        nr_version: NETMAP_API,
        nr_reqtype: reqtype,
        nr_reserved: 0,
        nr_name: [0; 64],
        nr_options: options,
        nr_body: if size_of::<T>() == 0 {
            0
        } else {
            std::ptr::from_mut(body) as u64
        },
    };
    header.nr_name[..name.len()].copy_from_slice(name.as_bytes());
    let mut memory = Memory::default();
    let at = std::ptr::from_mut(&mut header) as u64;
    control.ioctl(NIOCCTRL, at, &mut memory).map(|()| memory.0)
}

pub(super) fn core() -> Arc<Netmap> {
    Arc::new(Netmap::new(
        Arc::new(Switches::default()),
        RegionConfig::global(),
    ))
}

impl App {
    pub(super) fn new(core: &Arc<Netmap>, name: &str, slots: u32) -> Self {
        let app = Self {
            control: Control::new(Arc::clone(core)),
            block: Box::default(),
            ioeventfds: [eventfd(), eventfd()],
            irqfds: [eventfd(), eventfd()],
        };
        let block = SharedBlock {
            csb_atok: app.block.atok.as_ptr() as u64,
            csb_ktoa: app.block.ktoa.as_ptr() as u64,
        };
        let option = opt(NETMAP_REQ_OPT_CSB, block, 0);
        let mut body = RegisterBody {
            nr_mode: NR_REG_ALL_NIC,
            nr_flags: NR_EXCLUSIVE,
            nr_tx_slots: slots,
            nr_rx_slots: slots,
            ..RegisterBody::default()
        };
        let at = &raw const option as u64;
        ask(&app.control, NETMAP_REQ_REGISTER, name, &mut body, at).unwrap();
        app
    }

    /// Starts a loop: without `mode` one that looks by itself.
    pub(super) fn start(&self, mode: Option<u32>, sleep_us: u32) -> Result<Option<OwnedFd>, Errno> {
        let entry = |nth: usize| EventDescriptors {
            ioeventfd: self.ioeventfds[nth].as_raw_fd(),
            irqfd: self.irqfds[nth].as_raw_fd(),
        };
        let events = opt(NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, [entry(0), entry(1)], 0);
        let loop_mode = LoopMode {
            mode: mode.unwrap_or(0),
            pad: 0,
        };
        let next = &raw const events as u64;
        let loop_mode = opt(NETMAP_REQ_OPT_SYNC_KLOOP_MODE, loop_mode, next);
        let options = mode.map_or(0, |_| &raw const loop_mode as u64);
        let mut body = LoopBody { sleep_us, pad1: 0 };
        ask(
            &self.control,
            NETMAP_REQ_SYNC_KLOOP_START,
            "",
            &mut body,
            options,
        )
    }

    pub(super) fn run(&self, socket: OwnedFd) -> Result<(), Errno> {
        let running = Running::new(socket).unwrap();
        let plan = running.job().plan;
        let (atok, ktoa) = (plan.atok as *mut _, plan.ktoa as *mut _);
        let (atok, ktoa) = (NonNull::new(atok).unwrap(), NonNull::new(ktoa).unwrap());
        // SAFETY: two entries each, alive as long as the app.
        let entries = unsafe { Entries::new(atok, ktoa, 2) };
        run(&running, &entries, &mut InProcess(&self.control))
    }

    pub(super) fn stop(&self) {
        let stopped = ask(
            &self.control,
            NETMAP_REQ_SYNC_KLOOP_STOP,
            "",
            &mut [0u8; 0],
            0,
        );
        if let Some(end) = stopped.unwrap() {
            wait(end.as_fd()).unwrap();
        }
    }

    /// Runs a loop while `work` runs.
    pub(super) fn while_looping(&self, mode: Option<u32>, sleep_us: u32, work: impl FnOnce()) {
        let socket = self.start(mode, sleep_us).unwrap().unwrap();
        thread::scope(|scope| {
            let looping = scope.spawn(|| self.run(socket));
            let stop = Stop(self);
            work();
            drop(stop);
            assert_eq!(looping.join().unwrap(), Ok(()));
        });
    }

    pub(super) fn half(&self, direction: Direction) -> Half<'_> {
        let nth = usize::from(direction == Direction::Rx);
        let registration = self.control.registration().unwrap();
        Half {
            view: registration.ring(direction, 0).unwrap(),
            head: 0,
            atok: &raw const self.block.atok[nth],
            ktoa: &raw const self.block.ktoa[nth],
            ioeventfd: self.ioeventfds[nth].as_fd(),
            irqfd: self.irqfds[nth].as_fd(),
        }
    }
}

/// Ends the loop though the test failed.
struct Stop<'a>(&'a App);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The rings of a descriptor in this process.
struct InProcess<'a>(&'a Control);

impl Rings for InProcess<'_> {
    fn sync(
        &mut self,
        direction: Direction,
        ring: u16,
        pointers: Pointers,
    ) -> Result<Hardware, Errno> {
        self.0.sync_ring(direction, ring.into(), pointers)
    }

    fn listen(&mut self) -> Result<bool, Errno> {
        let news = self.wake()?;
        self.0.listen().map(|()| news)
    }

    fn sleep(&mut self) -> Result<bool, Errno> {
        Ok(true)
    }

    fn wake(&mut self) -> Result<bool, Errno> {
        let mut fds = [PollFd::new(self.fd()?, PollFlags::POLLIN)];
        Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        Ok(self.0.registration().unwrap().fd())
    }
}

/// What a client does with one ring, as `net/netmap.h` has it.
pub(super) struct Half<'a> {
    view: RingView<'a>,
    pub(super) head: u32,
    atok: *const AppToKernel,
    ktoa: *const KernelToApp,
    ioeventfd: BorrowedFd<'a>,
    irqfd: BorrowedFd<'a>,
}

// SAFETY: numbers are accessed as atomics, the rest is `Sync`.
unsafe impl Send for Half<'_> {}

impl Half<'_> {
    fn number(&self, of: *const u32) -> &AtomicU32 {
        // SAFETY: a number in the app's block, which is alive.
        unsafe { AtomicU32::from_ptr(of.cast_mut()) }
    }

    pub(super) fn atok(&self) -> [&AtomicU32; 3] {
        let at = self.atok;
        // SAFETY: fields of an entry.
        let (head, cur, kick) = unsafe {
            (
                &raw const (*at).head,
                &raw const (*at).cur,
                &raw const (*at).appl_need_kick,
            )
        };
        [head, cur, kick].map(|number| self.number(number))
    }

    pub(super) fn ktoa(&self) -> [&AtomicU32; 3] {
        let at = self.ktoa;
        // SAFETY: fields of an entry.
        let (hwcur, hwtail, kick) = unsafe {
            (
                &raw const (*at).hwcur,
                &raw const (*at).hwtail,
                &raw const (*at).kern_need_kick,
            )
        };
        [hwcur, hwtail, kick].map(|number| self.number(number))
    }

    /// `nm_sync_kloop_appl_read`
    fn tail(&self) -> u32 {
        let [hwcur, hwtail, _] = self.ktoa();
        let tail = hwtail.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let cur = hwcur.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        assert!(cur < self.view.num_slots());
        tail
    }

    fn available(&self) -> u32 {
        self.view.distance(self.head, self.tail())
    }

    /// `nm_sync_kloop_appl_write`, and a kick if it is wanted.
    fn publish(&self, kicks: bool) {
        let [head, cur, _] = self.atok();
        fence(Ordering::Release);
        cur.store(self.head, Ordering::Relaxed);
        fence(Ordering::Release);
        head.store(self.head, Ordering::Relaxed);
        if kicks {
            self.kick();
        }
    }

    fn kick(&self) {
        fence(Ordering::SeqCst);
        let [.., wanted] = self.ktoa();
        if wanted.load(Ordering::Relaxed) != 0 {
            let one = 1u64.to_ne_bytes();
            assert_eq!(nix::unistd::write(self.ioeventfd, &one), Ok(8));
        }
    }

    /// Waits for slots: for the interrupt, or looking all the time.
    fn wait(&self, sleeps: bool) {
        let [.., need_kick] = self.atok();
        let since = Instant::now();
        need_kick.store(0, Ordering::Relaxed);
        while self.available() == 0 {
            assert!(since.elapsed() < 10 * PATIENCE, "no slots come");
            if !sleeps {
                thread::yield_now();
                continue;
            }
            need_kick.store(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.available() == 0 {
                // A ring in direct mode is synced now, or never.
                self.kick();
                let mut fds = [PollFd::new(self.irqfd, PollFlags::POLLIN)];
                let patience = u16::try_from(PATIENCE.as_millis()).unwrap();
                assert_eq!(
                    poll(&mut fds, PollTimeout::from(patience)),
                    Ok(1),
                    "nobody wakes"
                );
                assert_eq!(nix::unistd::read(self.irqfd, &mut [0; 8]), Ok(8));
            }
            need_kick.store(0, Ordering::Relaxed);
        }
    }

    /// Sends numbered frames.
    pub(super) fn send(&mut self, numbers: std::ops::Range<u32>, events: bool) {
        let mut next = numbers.start;
        while next != numbers.end {
            self.wait(events);
            for _ in 0..self.available().min(numbers.end - next).min(next % 7 + 1) {
                let slot = self.view.slot(self.head).unwrap();
                let mut frame = [0xff; 60];
                frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
                frame[14..18].copy_from_slice(&next.to_ne_bytes());
                self.view.slot_buffer(slot).unwrap().write(&frame);
                self.view
                    .set_slot(self.head, crate::netmap::abi::Slot { len: 60, ..slot });
                self.head = self.view.next(self.head);
                next += 1;
            }
            self.publish(events);
        }
    }

    /// Receives them, in order; returns how many are missing.
    pub(super) fn receive(&mut self, numbers: std::ops::Range<u32>, events: bool) -> u32 {
        let (mut next, mut missing) = (numbers.start, 0);
        while next != numbers.end {
            self.wait(events);
            for _ in 0..self.available() {
                let slot = self.view.slot(self.head).unwrap();
                assert_eq!(slot.len, 60);
                let buffer = self.view.slot_buffer(slot).unwrap().as_readable();
                let number: [u8; 4] = buffer.skip(14).read_array().unwrap();
                let number = u32::from_ne_bytes(number);
                assert!(
                    (next..numbers.end).contains(&number),
                    "{number}, not {next}"
                );
                missing += number - next;
                next = number + 1;
                self.head = self.view.next(self.head);
            }
            self.publish(events);
        }
        missing
    }
}
