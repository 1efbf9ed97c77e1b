//! Frames a second between two processes over the netmap service: netmap's own
//! pkt-gen, unmodified, over a switch and over a pipe; and as the limit a plain
//! copy loop over as many buffers as the rings have.
//!
//! `NETMAP_PROGRAMS` names the directory that pkt-gen is in. Rounds of all take
//! turns, so that whatever else the machine does falls on all, and the medians
//! are compared.
//!
//!     cargo bench --workspace --bench netmap -- [--rounds 3] [--seconds 5]

#[path = "../tests/netmap/programs/scene.rs"]
mod scene;
#[expect(dead_code, reason = "the tests run programs to their end, too")]
#[path = "../tests/netmap/programs/upstream.rs"]
mod upstream;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bed::{Error, Process, Result};
use nix::sys::signal::Signal;
use scene::{SOON, Scene};

/// A way for frames.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    from: &'static str,
    to: &'static str,
    length: usize,
}

const WAYS: [Way; 4] = [
    Way::new("switch", "vale0:a", "vale0:b", 60),
    Way::new("switch", "vale0:a", "vale0:b", 1514),
    Way::new("pipe", "netmap:p{1", "netmap:p}1", 60),
    Way::new("pipe", "netmap:p{1", "netmap:p}1", 1514),
];
/// Slots of a ring, and bytes from one of its buffers to the next.
const SLOTS: usize = 1024;
const STRIDE: usize = 2048;

impl Way {
    const fn new(name: &'static str, from: &'static str, to: &'static str, length: usize) -> Self {
        Self {
            name,
            from,
            to,
            length,
        }
    }
}

/// Frames a second.
#[derive(Clone, Copy)]
struct Rates {
    sent: f64,
    received: f64,
    copied: f64,
}

fn main() -> ExitCode {
    let mut options = getopts::Options::new();
    options
        .optopt("", "rounds", "rounds of each way (3)", "N")
        .optopt("", "seconds", "seconds of a round (5)", "N")
        .optflag("", "bench", "what cargo adds");
    let number = |matches: &getopts::Matches, name, default| matches.opt_get_default(name, default);
    let plan = options.parse(std::env::args().skip(1)).ok();
    let plan = plan.filter(|matches| matches.free.is_empty());
    let plan = plan.and_then(|matches| {
        let rounds = number(&matches, "rounds", 3u32).ok()?;
        Some((rounds, number(&matches, "seconds", 5u32).ok()?))
    });
    let Some((rounds, seconds)) = plan else {
        let brief = "cargo bench --workspace --bench netmap -- [options]";
        eprint!("{}", options.usage(brief));
        return ExitCode::from(64);
    };
    if let Err(missing) = upstream::equipment() {
        bed::skipped(missing);
        return ExitCode::SUCCESS;
    }
    let time = Duration::from_secs(seconds.into());
    let mut all = WAYS.map(|way| (way, Vec::new()));
    for _ in 0..rounds {
        for (way, rates) in &mut all {
            match measure(way, time) {
                Ok(rate) => rates.push(rate),
                Err(error) => {
                    eprintln!("{error}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    for (way, rates) in &all {
        print(way, rates);
    }
    ExitCode::SUCCESS
}

fn print(way: &Way, rates: &[Rates]) {
    let median = |which: fn(&Rates) -> f64| {
        let mut values: Vec<f64> = rates.iter().map(which).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let (sent, received) = (median(|rate| rate.sent), median(|rate| rate.received));
    let copied = median(|rate| rate.copied);
    println!(
        "{:6} {:4} bytes: sent {:.3} M/s, received {:.3} M/s; a copy loop {:.3} M/s; \
         sent {:.2}, received {:.2} of it",
        way.name,
        way.length,
        sent / 1e6,
        received / 1e6,
        copied / 1e6,
        sent / copied,
        received / copied
    );
}

fn measure(way: &Way, time: Duration) -> Result<Rates> {
    let scene = Scene::new()?;
    let length = way.length.to_string();
    let arguments = ["-f", "rx", "-i", way.to, "-w", "0"];
    let mut rx = upstream::start(&scene, "pkt-gen", &arguments)?;
    ready(&rx)?;
    let arguments = ["-f", "tx", "-i", way.from, "-w", "0", "-l", &length];
    let mut tx = upstream::start(&scene, "pkt-gen", &arguments)?;
    ready(&tx)?;
    std::thread::sleep(time);
    let (sent, seconds) = total(&mut tx, "Sent")?;
    let (received, _) = total(&mut rx, "Received")?;
    scene.end()?;
    Ok(Rates {
        sent: sent / seconds,
        received: received / seconds,
        copied: copied(way.length),
    })
}

/// Waits until a pkt-gen says that it has opened its port.
fn ready(process: &Process) -> Result<()> {
    let said = |line: &str| line.contains("mapped") || line.contains("Wait ");
    let either = process.errors.wait_for(0, SOON, said);
    either
        .map(drop)
        .map_err(|error| process.explain(error, "waiting for its port"))
}

/// Ends a pkt-gen as its user does; its frames, and the seconds that it took:
/// `Sent 1000 packets … in 5.00 seconds.`
fn total(process: &mut Process, word: &str) -> Result<(f64, f64)> {
    process.signal(Signal::SIGINT)?;
    process.wait(SOON)?;
    process.output.wait_for_end(SOON)?;
    let said = process.output.since(0);
    let line = said.iter().find(|line| line.starts_with(word));
    let numbers = line.and_then(|line| {
        let seconds = line.strip_suffix(" seconds.")?.rsplit(' ').next()?;
        Some((line.split(' ').nth(1)?.parse().ok()?, seconds.parse().ok()?))
    });
    numbers.ok_or_else(|| process.explain(Error::new("no count"), word))
}

/// How many frames a second one thread copies between buffers that lie as those
/// of two rings do.
fn copied(length: usize) -> f64 {
    let from = vec![1u8; SLOTS * STRIDE];
    let mut to = vec![0u8; SLOTS * STRIDE];
    let mut frames = 0.0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        for (from, to) in from.chunks(STRIDE).zip(to.chunks_mut(STRIDE)) {
            to[..length].copy_from_slice(&from[..length]);
            frames += 1.0;
        }
        black_box(&mut to);
    }
    frames / start.elapsed().as_secs_f64()
}
