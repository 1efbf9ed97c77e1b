//! vtgen's driver as the front end: both guests on one thread, which never
//! sleeps, on the front end's processor. It sends some frames from each, and
//! from then on one more from a guest for each that arrives at the other.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use bed::{Error, Result};
use vtnetd::driver::front_end::FrontEnd;
use vtnetd::driver::net::{NetDriver, NetOptions, Pair};
use vtnetd::virtio::net_header::{LEN, NetHeader};
use vtnetd::virtio::spec::feature;

use crate::closed_loop::{Measured, Sample, WARM_UP, count};
use crate::contenders::BackEnd;
use crate::line;
use crate::processor::{FRONT_END, pin};
use crate::work::{Format, Work};

/// Frames in one go, as testpmd has it.
const BURST: usize = 32;
/// Nothing that is under way takes longer.
const STILL: Duration = Duration::from_millis(100);

/// Has frames go round through a back end that was just started, for `time`.
///
/// # Errors
/// Either side fails, or no frames go round.
pub fn measure(back_end: &mut dyn BackEnd, work: &Work, time: Duration) -> Result<Measured> {
    let line_ns = line::round_trip()?;
    let [one, other] = back_end.sockets() else {
        return Err(Error::new("it takes two guests"));
    };
    let sockets = [one.clone(), other.clone()];
    let (received, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (settled, wait) = mpsc::channel();
    let (observed, left) = thread::scope(|scope| {
        let front_end = scope.spawn(|| go_round(&sockets, work, wait, &received, &stop));
        let observed = observe(back_end, work, time, settled, &received);
        stop.store(true, Ordering::Relaxed);
        let left = front_end.join();
        (
            observed,
            left.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        )
    });
    let (left, (frames, elapsed, cpu_time)) = (left?, observed?);
    if frames == 0.0 {
        return Err(Error::new("no frames go round"));
    }
    Ok(Measured {
        sample: Sample {
            frames_per_second: frames / elapsed.as_secs_f64(),
            cpu_ns: Some(cpu_time.as_secs_f64() * 1e9 / frames),
            kept: Some(count(left) / f64::from(work.loop_size())),
            line_ns,
            ..Sample::default()
        },
        command_line: back_end.command_line(),
    })
}

/// Frames that arrive in about `time`, how long that was, and the processor
/// time that the back end used meanwhile.
fn observe(
    back_end: &mut dyn BackEnd,
    work: &Work,
    time: Duration,
    settled: Sender<()>,
    received: &AtomicU64,
) -> Result<(f64, Duration, Duration)> {
    back_end.settle(work)?;
    // A front end that is gone says why itself.
    let _ = settled.send(());
    thread::sleep(WARM_UP);
    let (start, before) = (Instant::now(), received.load(Ordering::Relaxed));
    let used = back_end.processor_time()?;
    thread::sleep(time);
    let frames = received.load(Ordering::Relaxed) - before;
    let elapsed = start.elapsed();
    Ok((count(frames), elapsed, back_end.processor_time()? - used))
}

/// The front end's thread, from when the back end has settled until `stop`; how
/// many frames were in the loop then.
fn go_round(
    sockets: &[PathBuf; 2],
    work: &Work,
    settled: Receiver<()>,
    received: &AtomicU64,
    stop: &AtomicBool,
) -> Result<u64> {
    pin(FRONT_END)?;
    let [one, other] = sockets;
    let mut guests = [Guest::start(one, work, 0)?, Guest::start(other, work, 1)?];
    if settled.recv().is_err() {
        return Ok(0);
    }
    while !stop.load(Ordering::Relaxed) {
        for [from, to] in [[0, 1], [1, 0]] {
            for index in 0..usize::from(work.pairs) {
                let arrived = guests[to].receive(index)?;
                received.fetch_add(arrived, Ordering::Relaxed);
                guests[from].due[index] += arrived;
                guests[from].send(index)?;
            }
        }
    }
    let mut left = guests.iter().flat_map(|guest| &guest.due).sum();
    let mut last = Instant::now();
    while last.elapsed() < STILL {
        for guest in &mut guests {
            for index in 0..usize::from(work.pairs) {
                let arrived = guest.receive(index)?;
                if arrived > 0 {
                    left += arrived;
                    last = Instant::now();
                }
            }
        }
    }
    Ok(left)
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::new(format!("vtgen's driver: {error}"))
}

struct Guest {
    driver: NetDriver,
    /// What it sends.
    frame: Vec<u8>,
    /// Frames that each of its pairs is to send.
    due: Vec<u64>,
    /// Buffers that hold the frame already, of each pair.
    filled: Vec<Vec<bool>>,
}

impl Guest {
    fn start(socket: &Path, work: &Work, number: u8) -> Result<Self> {
        let length = usize::try_from(work.length).map_err(broken)?;
        let mut options = NetOptions {
            pairs: work.pairs,
            ..NetOptions::default()
        };
        options.max_frame = options.max_frame.max(length);
        options.rx_buffer = options.rx_buffer.max(length + LEN);
        if work.format == Format::Packed {
            options.negotiation.features |= feature::RING_PACKED;
        }
        if work.in_order {
            options.negotiation.features |= feature::IN_ORDER;
        }
        let front_end = FrontEnd::connect(socket).map_err(broken)?;
        let mut driver = NetDriver::start(front_end, &options).map_err(broken)?;
        let packed = driver.features() & feature::RING_PACKED != 0;
        if packed != (work.format == Format::Packed) {
            return Err(Error::missing("does not take these rings"));
        }
        let filled = driver.pairs().iter_mut().map(|Pair { rx, tx }| {
            rx.disable_interrupts();
            tx.disable_interrupts();
            vec![false; tx.room()]
        });
        let filled = filled.collect();
        let address = |number: u8| [0x52, 0x54, 0, 0, 0, number + 1];
        let mut frame = [address(number ^ 1), address(number)].concat();
        frame.extend([0x88, 0xb5]);
        frame.resize(length, 0);
        Ok(Self {
            driver,
            frame,
            due: vec![work.in_flight().into(); work.pairs.into()],
            filled,
        })
    }

    /// Takes what has arrived at a pair; how many frames.
    fn receive(&mut self, index: usize) -> Result<u64> {
        let arrived = self.driver.pair(index).rx.receive(BURST, |_| {});
        Ok(arrived.map_err(broken)? as u64)
    }

    /// Sends what is due, as far as there is room.
    fn send(&mut self, index: usize) -> Result<()> {
        let tx = &mut self.driver.pair(index).tx;
        let (due, filled) = (&mut self.due[index], &mut self.filled[index]);
        if *due == 0 {
            return Ok(());
        }
        tx.reclaim().map_err(broken)?;
        while *due > 0 {
            let pushed = tx.push(NetHeader::default(), self.frame.len(), |slot, room| {
                let filled = &mut filled[usize::from(slot)];
                if !*filled {
                    room.write(&self.frame);
                    *filled = true;
                }
            });
            let pushed = pushed.map_err(broken)?;
            if !pushed {
                break;
            }
            *due -= 1;
        }
        tx.flush();
        Ok(())
    }
}
