//! The front end that all back ends have: testpmd with a `net_virtio_user` port
//! for each guest, in one process on one processor. It sends some frames from
//! each port, and from then on whatever arrives at one port of a pair from the
//! other, so that frames go round as fast as both processors go.

use std::thread;
use std::time::{Duration, Instant};

use bed::{Error, Result, Testpmd};
use serde::Serialize;

use crate::contenders::BackEnd;
use crate::line;
use crate::processor::FRONT_END;
use crate::work::Work;

/// How long frames go round before anything is counted.
pub const WARM_UP: Duration = Duration::from_secs(1);
/// How long a switch may take to make use of what it has learned.
const LEARNED: Duration = Duration::from_millis(500);

/// One sample.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Sample {
    pub frames_per_second: f64,
    /// Processor time of the back end for a frame. One that polls uses all of
    /// its processor, whether there are frames or not.
    pub cpu_ns: Option<f64>,
    /// The part of that in turns that had frames, where the back end counts it.
    pub busy_ns: Option<f64>,
    /// The share of its time that the front end spends in turns that had
    /// frames: near 1 it is the limit, and not the back end.
    pub front_end_busy: Option<f64>,
    /// The share of the frames that were still in the loop at the end: where
    /// some were lost, what is left was less than the others had to do.
    pub kept: Option<f64>,
    /// Nanoseconds that a cache line took to the other processor and back just
    /// before.
    pub line_ns: f64,
}

/// A sample, and how it was come by.
pub struct Measured {
    pub sample: Sample,
    /// How the contender was started.
    pub command_line: String,
}

/// Cycles of the turns that had frames, and those frames.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub cycles: f64,
    pub frames: f64,
}

impl Effort {
    /// Cycles of a frame since `earlier`.
    fn since(self, earlier: Self) -> Option<f64> {
        let frames = self.frames - earlier.frames;
        (frames > 0.0).then(|| (self.cycles - earlier.cycles) / frames)
    }
}

impl From<bed::Effort> for Effort {
    fn from(effort: bed::Effort) -> Self {
        let bed::Effort { cycles, frames, .. } = effort;
        Self { cycles, frames }
    }
}

/// All counters at one moment.
struct Reading {
    at: Instant,
    received: u64,
    front_end: Effort,
    back_end: Option<Effort>,
    /// Cycles a second, by which both sides count.
    clock: f64,
    processor_time: Duration,
}

impl Reading {
    fn take(front_end: &mut Testpmd, back_end: &mut dyn BackEnd) -> Result<Self> {
        let counts = front_end.counts()?;
        let (at, processor_time) = (Instant::now(), back_end.processor_time()?);
        let effort = front_end.effort()?;
        Ok(Self {
            at,
            received: counts.iter().map(|port| port.received).sum(),
            front_end: effort.into(),
            back_end: back_end.effort(effort.clock)?,
            clock: effort.clock,
            processor_time,
        })
    }
}

/// Has frames go round through a back end that was just started, for `time`.
///
/// # Errors
/// Either side fails, or no frames go round.
pub fn measure(back_end: &mut dyn BackEnd, work: &Work, time: Duration) -> Result<Measured> {
    let line_ns = line::round_trip()?;
    let mut front_end = Testpmd::front_end(back_end.sockets(), work.links(), Some(FRONT_END))?;
    back_end.settle(work)?;
    // What a switch does not know goes to all guests, and to two it is no matter.
    if work.guests > 2 {
        front_end.introduce()?;
        thread::sleep(LEARNED);
    }
    front_end.start_traffic(work.length, work.in_flight())?;
    thread::sleep(WARM_UP);
    let before = Reading::take(&mut front_end, back_end)?;
    thread::sleep(time);
    let after = Reading::take(&mut front_end, back_end)?;
    let kept = share(front_end.drain()?, work.loop_size());
    front_end.quit()?;
    let elapsed = after.at - before.at;
    let frames = count(after.received - before.received);
    if frames == 0.0 {
        return Err(Error::new("no frames go round"));
    }
    let rate = frames / elapsed.as_secs_f64();
    let cpu_time = after.processor_time - before.processor_time;
    let front_end = after.front_end.since(before.front_end);
    let back_end_effort = before.back_end.zip(after.back_end);
    let busy = back_end_effort.and_then(|(before, after)| after.since(before));
    Ok(Measured {
        sample: Sample {
            frames_per_second: rate,
            cpu_ns: Some(cpu_time.as_secs_f64() * 1e9 / frames),
            busy_ns: busy.map(|cycles| cycles / after.clock * 1e9),
            front_end_busy: front_end.map(|cycles| cycles * rate / after.clock),
            kept: Some(kept),
            line_ns,
        },
        command_line: back_end.command_line(),
    })
}

fn share(part: u64, of: u32) -> f64 {
    count(part) / f64::from(of)
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "rates have few digits")]
pub fn count(frames: u64) -> f64 {
    frames as f64
}
