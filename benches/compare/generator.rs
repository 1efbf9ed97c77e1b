//! vtgen as a guest that can sleep, on the front end's processor.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bed::{Error, Process, Result};
use serde::Serialize;

use crate::processor::FRONT_END;

/// Frames a second of a ping.
pub const RATE: u32 = 1000;

/// How long it may take beyond what it was asked for.
const SOON: Duration = Duration::from_secs(20);
/// How often it is tried to get an answer through a back end that just started.
const TRIES: u32 = 20;

/// How long frames were under way, there and back.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Times {
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// Frames that did not come back.
    pub lost: f64,
}

fn start(socket: &Path, arguments: &[&str]) -> Result<Process> {
    let mut command = Command::new(bed::program(env!("CARGO_BIN_EXE_vtgen")));
    command.arg("--socket-path").arg(socket);
    command.args(["--cpu", &FRONT_END.to_string()]);
    Process::start("vtgen", command.args(arguments))
}

/// A guest that waits for frames.
///
/// # Errors
/// It cannot be started.
pub fn receiver(socket: &Path) -> Result<Process> {
    start(socket, &["rx"])
}

/// A guest that sends all frames back.
///
/// # Errors
/// It cannot be started.
pub fn reflector(socket: &Path) -> Result<Process> {
    start(socket, &["reflect"])
}

/// Connects and says whether a back end offers anything.
///
/// # Errors
/// It does not.
pub fn ask(socket: &Path) -> Result<()> {
    finish(start(socket, &["--config", "--json"])?, Duration::ZERO).map(drop)
}

/// Ends a guest that must still have been there.
///
/// # Errors
/// It had ended, or does not end.
pub fn end(mut guest: Process) -> Result<()> {
    let status = guest.stop(SOON)?;
    if status.success() {
        return Ok(());
    }
    Err(guest.explain(Error::new(status.to_string()), "as a guest"))
}

/// Waits until frames get through.
///
/// # Errors
/// None does.
pub fn get_through(socket: &Path) -> Result<()> {
    let arguments = ["--count", "20", "--wait", "0.3", "ping"];
    for _ in 1..TRIES {
        if finish(start(socket, &arguments)?, Duration::from_secs(1)).is_ok() {
            return Ok(());
        }
    }
    finish(start(socket, &arguments)?, Duration::from_secs(1)).map(drop)
}

/// Sends frames to a reflector for `time`, a thousand a second.
///
/// # Errors
/// None comes back.
pub fn ping(socket: &Path, time: Duration) -> Result<Times> {
    let count = (u64::from(RATE) * time.as_secs()).to_string();
    let guest = start(
        socket,
        &[
            "--rate",
            &RATE.to_string(),
            "--count",
            &count,
            "--json",
            "ping",
        ],
    )?;
    let said = finish(guest, time)?;
    let summary: serde_json::Value = serde_json::from_str(&said)
        .map_err(|error| Error::new(format!("vtgen: {said}: {error}")))?;
    let number = |object: &str, name: &str| {
        let value = summary[object][name].as_f64();
        value.ok_or_else(|| Error::new(format!("vtgen: {said}: no {object} {name}")))
    };
    Ok(Times {
        p50_us: number("latency_us", "p50")?,
        p99_us: number("latency_us", "p99")?,
        max_us: number("latency_us", "max")?,
        lost: number("rx", "lost")?,
    })
}

/// Waits until it has ended; what it said.
fn finish(mut guest: Process, time: Duration) -> Result<String> {
    let status = guest.wait(time + SOON)?;
    if !status.success() {
        return Err(guest.explain(Error::new(status.to_string()), "as a guest"));
    }
    Ok(guest.output.since(0).join("\n"))
}
