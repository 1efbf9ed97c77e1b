//! How soon vtnetd is ready, sandbox and all, with few devices and with many;
//! and the memory that one more idle guest takes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bed::{Process, Result, Scratch, Vtnetd};
use serde::Serialize;

use crate::contenders::vtnetd;
use crate::generator;
use crate::latency::WORK;
use crate::options::Plan;
use crate::report::{Report, Subject};
use crate::spread::Spread;
use crate::table;

/// How often it is started with few devices.
const STARTS: usize = 20;
const FEW: u32 = 2;
const MANY: u32 = 256;
/// Guests between which memory is compared.
const GUESTS: [u32; 2] = [2, 32];
/// Ports of one switch; it has 254 at most.
const PORTS: usize = 128;

#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    devices: u32,
    /// Guests that are connected, and idle.
    guests: u32,
    /// From starting it until all its sockets listen.
    ready_ms: f64,
    /// Memory that it has resident and shares with nobody.
    resident_kib: f64,
}

/// Measures.
///
/// # Errors
/// It does not start, or serve; or a file cannot be written.
pub fn run(plan: &Plan) -> Result<()> {
    let starts = Start::often(STARTS, FEW, 0)?;
    let many = Start::often(plan.rounds, MANY, 0)?;
    let [few_guests, more_guests] = GUESTS;
    let fewer = Start::often(plan.rounds, few_guests, few_guests)?;
    let more = Start::often(plan.rounds, more_guests, more_guests)?;

    let ready = |start: &Start| Spread::of(start.samples.iter().map(|sample| sample.ready_ms));
    let extra = f64::from(more_guests - few_guests);
    let pairs = fewer.samples.iter().zip(&more.samples);
    let each = Spread::of(pairs.map(|(few, more)| (more.resident_kib - few.resident_kib) / extra));
    let text = table::head(&["what", "median (least to most)"])
        + &table::line(&[
            format!("start to ready, {FEW} devices, ms"),
            table::column(ready(&starts), 1),
        ])
        + &table::line(&[
            format!("start to ready, {MANY} devices that all answer, ms"),
            table::column(ready(&many), 1),
        ])
        + &table::line(&[
            format!("memory of one more idle guest, {few_guests} to {more_guests}, KiB"),
            table::column(each, 1),
        ]);
    let mut report = Report::new(plan, "start");
    for start in [starts, many, fewer, more] {
        let subject = Subject {
            name: vtnetd::NAME.to_owned(),
            version: vtnetd::version()?,
            command_line: start.command_line,
            front_end: WORK.front_end.name(),
        };
        report.add(&subject, None, Duration::ZERO, start.samples);
    }
    report.finish(plan, &text)
}

/// What was started, and how it went each time.
#[derive(Default)]
struct Start {
    command_line: String,
    samples: Vec<Sample>,
}

impl Start {
    /// As [`measure`], again and again.
    fn often(times: usize, devices: u32, guests: u32) -> Result<Self> {
        let mut start = Self::default();
        for _ in 0..times {
            let (sample, command_line) = measure(devices, guests)?;
            start.samples.push(sample);
            start.command_line = command_line;
        }
        Ok(start)
    }
}

/// Starts it with `devices` devices, anywhere; connects `guests` guests, or
/// without any asks each device once if it is there. Says how it was started,
/// too.
fn measure(devices: u32, guests: u32) -> Result<(Sample, String)> {
    let scratch = Scratch::new()?;
    let sockets = (1..=devices).map(|device| scratch.path(&format!("vm{device}.sock")));
    let sockets: Vec<PathBuf> = sockets.collect();
    let vale = |guest: usize| format!("vale{}:vm{guest}", guest / PORTS);
    let strings = vtnetd::devices(&sockets, &WORK, vale);
    let start = Instant::now();
    let mut process = Vtnetd::start(&vtnetd::program(), &strings, None)?;
    let ready_ms = start.elapsed().as_secs_f64() * 1e3;
    let connected = usize::try_from(guests).unwrap_or(0);
    let receivers = sockets.iter().take(connected);
    let receivers = receivers.map(|socket| generator::receiver(socket));
    let receivers: Vec<Process> = receivers.collect::<Result<_>>()?;
    for _ in &receivers {
        process.wait_for_log("connected")?;
    }
    if receivers.is_empty() {
        sockets
            .iter()
            .try_for_each(|socket| generator::ask(socket))?;
    } else {
        // The rings of the last one are set up after it has connected.
        std::thread::sleep(Duration::from_millis(500));
    }
    let resident = process.private_resident()? / 1024;
    receivers.into_iter().try_for_each(generator::end)?;
    let command_line = process.command_line().to_owned();
    process.stop()?;
    let sample = Sample {
        devices,
        guests,
        ready_ms,
        resident_kib: u32::try_from(resident).map_or(f64::INFINITY, f64::from),
    };
    Ok((sample, command_line))
}
