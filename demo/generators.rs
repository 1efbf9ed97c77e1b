//! Two vtgens, in the place of guests: no emulated processor slows them down.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bed::{Process, Result};

use crate::Stage;

/// Longest that a run takes.
const RUN: Duration = Duration::from_secs(30);
const RECEIVER: &str = "52:54:00:00:00:02";

pub fn show(stage: &mut Stage) -> Result<()> {
    println!("two vtgens, for what the switch alone can do:");
    run(stage, &["reflect"], &["--count", "1000", "ping"])?;
    let receiver = ["--no-verify", "rx"];
    run(stage, &receiver, &["--duration", "2", "tx"])?;
    run(
        stage,
        &receiver,
        &["--duration", "2", "--length", "1514", "tx"],
    )
}

/// Runs one vtgen that answers, and one that asks, and prints what they report;
/// of one that reflects nothing, for the other one says it all.
fn run(stage: &Stage, answer: &[&str], ask: &[&str]) -> Result<()> {
    let [first, second] = &stage.sockets;
    let vtgen = |socket: &Path| {
        let mut command = Command::new(&stage.vtgen);
        command.arg("--socket-path").arg(socket);
        command
    };
    let mut command = vtgen(second);
    command.args(["-v", "--src-mac", RECEIVER]).args(answer);
    let mut answering = Process::start("vtgen", &mut command)?;
    // It reports every second, so from the first report on it is there.
    answering
        .errors
        .wait_for(0, RUN, |_| true)
        .map_err(|error| answering.explain(error, "waiting for a report"))?;

    let mut command = vtgen(first);
    command.args(["--dst-mac", RECEIVER]).args(ask);
    let mut asking = Process::start("vtgen", &mut command)?;
    let status = asking.wait(RUN)?;
    if !status.success() {
        return Err(asking.explain(bed::Error::new(status.to_string()), "asking"));
    }
    let mut said = asking.output.since(0);
    answering.stop(RUN)?;
    if !answer.contains(&"reflect") {
        said.extend(answering.output.since(0));
    }
    for line in said {
        println!("    {line}");
    }
    Ok(())
}
