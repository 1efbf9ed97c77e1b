//! Instructions for a frame, as callgrind counts them: of every way that a
//! frame can go in this process, with our own driver, everything in memory.
//!
//! Instructions are the same wherever and however often they are counted, so
//! that a change of a few in a hundred is a change of the program. What is
//! counted is the program's own code. What it calls in libc is not: libc has
//! its routines in variants for processors, and valgrind has processors of its
//! own. Instead these calls are counted, and so a copy more is seen as well.
//!
//! `baseline.json` has the counts that are to be kept, for each compiler. More
//! than [`MORE`] beyond them is a failure; as much below them is worth telling,
//! so that what was won is not lost again: `--accept` writes them anew.
//!
//!     cargo bench --bench instructions -- [--accept] [WAY...]

mod baseline;
mod callgrind;
mod clients;
mod guest;
mod ways;

use std::process::ExitCode;

use baseline::{Baseline, Count};
use bed::{Error, Result, equipment};
use ways::Way;

/// How much more than in the baseline is too much: 5 %.
const MORE: f64 = 1.05;
/// How much less makes the baseline useless.
const LESS: f64 = 0.95;
/// What a batch costs is a small part of a frame's; so much is no difference.
const NOTHING: f64 = 0.05;

fn main() -> ExitCode {
    let mut options = getopts::Options::new();
    options
        .optflag("", "accept", "take these counts as the baseline")
        .optopt("", callgrind::RUN, "what valgrind is to run", "WAY")
        .optflag("", "bench", "what cargo adds");
    let matches = match options.parse(std::env::args().skip(1)) {
        Ok(matches) => matches,
        Err(wrong) => {
            let brief = "cargo bench --bench instructions -- [--accept] [WAY...]";
            eprint!("{wrong}\n{}", options.usage(brief));
            return ExitCode::from(64);
        }
    };
    let outcome = match matches.opt_str(callgrind::RUN) {
        Some(name) => run(&name).map(|()| ExitCode::SUCCESS),
        None => count(&matches.free, matches.opt_present("accept")),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

/// Has frames go a way, inside valgrind, and says how many.
fn run(name: &str) -> Result<()> {
    let way = Way::all().find(|way| way.name() == name);
    let way = way.ok_or_else(|| Error::new(format!("{name}: no such way")))?;
    println!("{}", way.run()?);
    Ok(())
}

/// Counts the ways whose names have one of `words` in them, all without any.
fn count(words: &[String], accept: bool) -> Result<ExitCode> {
    if let Err(missing) = equipment::program(callgrind::VALGRIND) {
        bed::skipped(missing.while_doing("instructions"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut baseline = Baseline::read()?;
    if !baseline.is_there() && !accept {
        let compiler = baseline.compiler();
        bed::skipped(format_args!(
            "instructions: no baseline of rustc {compiler}: --accept makes one"
        ));
    }
    println!("a frame's way              instructions    calls of libc");
    let mut outcomes = Vec::new();
    for way in Way::all() {
        let name = way.name();
        if !words.is_empty() && !words.iter().any(|word| name.contains(word)) {
            continue;
        }
        let count = callgrind::count(&name)?;
        let was = baseline.of(&name);
        outcomes.push(tell(&name, count, was));
        if accept {
            baseline.set(&name, count);
        }
    }
    if outcomes.is_empty() {
        return Err(Error::new(format!("{}: no such way", words.join(" "))));
    }
    if accept {
        baseline.write()?;
        return Ok(ExitCode::SUCCESS);
    }
    if outcomes.contains(&Outcome::Less) {
        println!("Less than the baseline by 5 % or more: --accept, to keep it so.");
    }
    if outcomes.contains(&Outcome::More) {
        eprintln!("More than 5 % beyond the baseline. If it has to be: --accept.");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// How a count is beside the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Same,
    More,
    Less,
}

/// Prints a count beside what it was.
fn tell(name: &str, count: Count, was: Option<Count>) -> Outcome {
    let Count {
        instructions,
        calls,
    } = count;
    let line = format!("{name:24} {instructions:14.1} {calls:16.2}");
    let Some(was) = was else {
        println!("{line}");
        return Outcome::Same;
    };
    let outcome = compare(count, was);
    let verdict = match outcome {
        Outcome::Same => "",
        Outcome::More => "  MORE",
        Outcome::Less => "  less",
    };
    let change = (instructions / was.instructions - 1.0) * 100.0;
    println!("{line}  {change:+.1} %{verdict}");
    outcome
}

fn compare(count: Count, was: Count) -> Outcome {
    let both = [
        (count.instructions, was.instructions),
        (count.calls, was.calls),
    ];
    if both.iter().any(|(now, was)| *now > was * MORE + NOTHING) {
        Outcome::More
    } else if both.iter().any(|(now, was)| *now < was * LESS - NOTHING) {
        Outcome::Less
    } else {
        Outcome::Same
    }
}
