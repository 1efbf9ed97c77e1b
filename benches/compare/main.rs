//! How fast vtnetd is beside others, each on the same work with the same front
//! end, in one run; see [`options`] for what can be asked for.
//!
//! What is measured in which mode:
//!
//! - [`throughput`]: frames a second between guests, one cell of lengths, ring
//!   formats, pairs and guests at a time, all contenders by turns.
//! - `scale`: the same for 2, 8 and 32 guests with the same total load.
//! - [`tcp`]: what one Linux guest fetches from another in a second.
//! - [`latency`]: how long a frame is under way, there and back.
//! - [`idle`]: the processor time of a back end that nobody uses.
//! - [`start`]: how soon vtnetd is ready, with how many devices, and what
//!   memory a guest takes.
//!
//! The back end has processor 0 for itself, the front end processor 1. Rounds
//! of all contenders take turns, so that whatever else the machine does falls
//! on all, and ratios are made of the samples of one round. Each mode prints a
//! table and writes all samples as JSON, each row with all that was run;
//! throughput and scale draw a plot as well.
//!
//! `benches/compare/run` installs what is needed and runs this.

mod closed_loop;
mod contenders;
mod driver_loop;
mod entrant;
mod generator;
mod idle;
mod latency;
mod line;
mod options;
mod plot;
mod processor;
mod report;
mod spread;
mod start;
mod table;
mod tcp;
mod throughput;
mod work;

use std::process::ExitCode;

use bed::Result;
use options::{Mode, Plan};

fn main() -> ExitCode {
    let plan = match Plan::read() {
        Ok(Some(plan)) => plan,
        Ok(None) => return ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(64);
        }
    };
    if let Err(missing) = bed::equipment::testpmd() {
        bed::skipped(missing);
        return ExitCode::SUCCESS;
    }
    match plan.modes.iter().try_for_each(|mode| run(&plan, *mode)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan, mode: Mode) -> Result<()> {
    match mode {
        Mode::Throughput | Mode::Scale => throughput::run(plan, mode),
        Mode::Latency => latency::run(plan),
        Mode::Tcp => tcp::run(plan),
        Mode::Idle => idle::run(plan),
        Mode::Start => start::run(plan),
    }
}
