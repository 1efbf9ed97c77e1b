//! The limit: one thread in place of a back end that does nothing but copy
//! frames, between as many buffers as the rings of all guests hold and as far
//! from one another as those of the front end are.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bed::Result;

use super::{Contender, vtnetd};
use crate::closed_loop::{Measured, Sample};
use crate::line;
use crate::processor::{BACK_END, on};
use crate::work::Work;

/// Buffers of a ring.
const RING: usize = 256;
/// What DPDK has in front of a frame in a buffer, and what its buffers' lengths
/// are a multiple of.
const IN_FRONT: usize = 448;
const LINE: usize = 64;
/// The buffers of testpmd where frames are not longer than usual.
const USUAL: usize = 2368;

pub struct CopyLoop;

impl Contender for CopyLoop {
    fn name(&self) -> &'static str {
        "copy-loop"
    }

    fn ours(&self) -> Option<&'static str> {
        Some(vtnetd::NAME)
    }

    fn version(&self) -> Result<String> {
        Ok("memcpy".to_owned())
    }

    fn equipment(&self) -> Result<()> {
        Ok(())
    }

    fn declines(&self, _: &Work) -> Option<&'static str> {
        None
    }

    fn front_end(&self, _: &Work) -> &'static str {
        "none"
    }

    fn measure(&self, work: &Work, time: Duration) -> Result<Measured> {
        let line_ns = line::round_trip()?;
        let length = usize::try_from(work.length).unwrap_or(usize::MAX);
        let stride = (length + IN_FRONT).next_multiple_of(LINE).max(USUAL);
        let rings = work.guests * u32::from(work.pairs);
        let buffers = RING * usize::try_from(rings).unwrap_or(usize::MAX);
        let frames_per_second = on(BACK_END, || copied(length, stride, buffers, time))?;
        Ok(Measured {
            sample: Sample {
                frames_per_second,
                cpu_ns: Some(1e9 / frames_per_second),
                line_ns,
                ..Sample::default()
            },
            command_line: format!("{buffers} buffers to {buffers} others, {stride} bytes apart"),
        })
    }
}

/// Frames a second.
fn copied(length: usize, stride: usize, buffers: usize, time: Duration) -> f64 {
    let from = vec![1u8; buffers * stride];
    let mut to = vec![0u8; buffers * stride];
    let mut frames = 0.0;
    let start = Instant::now();
    while start.elapsed() < time {
        for (from, to) in from.chunks(stride).zip(to.chunks_mut(stride)) {
            to[..length].copy_from_slice(black_box(&from[..length]));
            frames += 1.0;
        }
        black_box(&mut to);
    }
    frames / start.elapsed().as_secs_f64()
}
