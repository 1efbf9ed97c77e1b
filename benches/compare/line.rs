//! What the machine is like at this moment: how long the two processors take to
//! hand a cache line back and forth, and to wake each other. Where processors
//! are virtual both change by factors within seconds, and all contenders with
//! them.

use std::hint::spin_loop;
use std::io;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bed::{Error, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::time::{ClockId, clock_gettime};

use crate::processor::{BACK_END, FRONT_END, on};
use crate::spread::Spread;

/// How often the line goes there and back in one go, and how many times that is
/// measured: what interrupts one of them is not to count.
const TURNS: u32 = 100;
const GOES: u32 = 40;
/// How often a thread is woken, and how long after the last time.
const WAKES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(1);
/// How long an answer may take, in milliseconds.
const SOON: u16 = 20_000;

/// A number with a cache line, and the one that is fetched with it, to itself.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU32);

impl Line {
    fn wait_for(&self, value: u32) {
        while self.0.load(Ordering::Acquire) != value {
            spin_loop();
        }
    }

    fn set(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }
}

/// Runs one of both on each processor.
fn both<A: Send, B>(
    back_end: impl FnOnce() -> A + Send,
    front_end: impl FnOnce() -> B + Send,
) -> Result<(A, B)>
where
    B: Send,
{
    thread::scope(|scope| {
        let other = scope.spawn(|| on(BACK_END, back_end));
        let here = on(FRONT_END, front_end);
        let other = other.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok((other?, here?))
    })
}

/// Nanoseconds that a cache line takes to the other processor and back; the
/// median.
///
/// # Errors
/// A processor is missing.
pub fn round_trip() -> Result<f64> {
    let line = Line::default();
    let back_end = || {
        for turn in 0..GOES * TURNS {
            line.wait_for(2 * turn + 1);
            line.set(2 * turn + 2);
        }
    };
    let front_end = || {
        let go = |go| {
            let start = Instant::now();
            for turn in go * TURNS..(go + 1) * TURNS {
                line.set(2 * turn + 1);
                line.wait_for(2 * turn + 2);
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(TURNS)
        };
        Spread::of((0..GOES).map(go))
    };
    let ((), times) = both(back_end, front_end)?;
    Ok(times.map_or(f64::NAN, |times| times.median))
}

/// What it takes to wake a thread, in microseconds.
pub struct WakeUp {
    /// From writing to an eventfd until who sleeps there runs, on the other
    /// processor; the median.
    pub time: f64,
    /// The processor time of who is woken so and wakes somebody else in turn, for
    /// each time; the mean.
    pub processor: f64,
}

/// Waits until `event` can be read; not for ever, for who writes to it may have
/// failed.
fn await_answer(event: &EventFd) -> io::Result<()> {
    let mut fds = [PollFd::new(event.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(SOON))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Wakes a thread on the back end's processor a thousand times a second, which
/// wakes one on the front end's each time.
///
/// # Errors
/// A processor is missing, or descriptors are.
pub fn wake_up() -> Result<WakeUp> {
    let [there, back] = [(); 2].map(|()| EventFd::new().map_err(io::Error::from));
    let (there, back) = (there?, back?);
    let written = AtomicU64::new(0);
    let origin = Instant::now();
    let now = || u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let back_end = || -> io::Result<(Vec<u64>, Duration)> {
        let used = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
        let mut times = Vec::new();
        let before = used()?;
        for _ in 0..WAKES {
            there.read()?;
            times.push(now().saturating_sub(written.load(Ordering::Acquire)));
            back.write(1)?;
        }
        Ok((times, used()?.saturating_sub(before)))
    };
    let front_end = || -> io::Result<()> {
        for _ in 0..WAKES {
            thread::sleep(PAUSE);
            written.store(now(), Ordering::Release);
            there.write(1)?;
            await_answer(&back)?;
            back.read()?;
        }
        Ok(())
    };
    let (measured, woken) = both(back_end, front_end)?;
    woken?;
    let (mut times, used) = measured?;
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied();
    let middle = middle.ok_or_else(|| Error::new("nobody was woken"))?;
    let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
    Ok(WakeUp {
        time: microseconds(Duration::from_nanos(middle)),
        processor: microseconds(used) / f64::from(WAKES),
    })
}
