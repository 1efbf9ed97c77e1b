//! Counting: this program inside valgrind, one way at a time.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use bed::{Error, Result, Scratch};

use crate::baseline::Count;

pub const VALGRIND: &str = "valgrind";
/// The option that says which way the program in valgrind is to run.
pub const RUN: &str = "run";
/// [`counted`], as callgrind knows it.
const COUNTED: &str = "instructions::callgrind::counted";

/// Calls `body`, and all that runs meanwhile is counted.
#[inline(never)]
pub fn counted(body: &mut dyn FnMut()) {
    body();
    // Else it were left before `body` is entered.
    std::hint::black_box(());
}

/// What a frame costs on the way called `name`.
///
/// # Errors
/// valgrind fails, or frames do not go this way.
pub fn count(name: &str) -> Result<Count> {
    let scratch = Scratch::new()?;
    let out = scratch.path("callgrind.out");
    let program = env::current_exe()?;
    let mut command = Command::new(VALGRIND);
    command
        .args(["--quiet", "--tool=callgrind", "--compress-strings=no"])
        .arg("--compress-pos=no")
        .arg(format!("--toggle-collect={COUNTED}*"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(&program)
        .args([&format!("--{RUN}"), name]);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let frames = said.trim().parse::<u32>().ok();
    let (Some(frames), true) = (frames, output.status.success()) else {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!("{name}: {said}{errors}")));
    };
    let profile = fs::read_to_string(&out)?;
    let (instructions, calls) = sum(&profile, &program);
    if instructions == 0 {
        return Err(Error::new(format!("{name}: nothing was counted")));
    }
    let each =
        |count: u64| u32::try_from(count).map_or(f64::INFINITY, f64::from) / f64::from(frames);
    Ok(Count {
        instructions: each(instructions),
        calls: each(calls),
    })
}

/// Instructions in `program` of a profile in callgrind's format, and calls from
/// there of what is elsewhere.
fn sum(profile: &str, program: &Path) -> (u64, u64) {
    let is_ours = |object: &str| Path::new(object) == program;
    let (mut here, mut there) = (false, false);
    let (mut instructions, mut calls) = (0, 0);
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some(object) = line.strip_prefix("ob=") {
            here = is_ours(object);
        } else if line.starts_with("fn=") {
            there = here;
        } else if let Some(object) = line.strip_prefix("cob=") {
            there = is_ours(object);
        } else if let Some(call) = line.strip_prefix("calls=") {
            if here && !there {
                calls += first_number(call);
            }
            there = here;
            // What it cost all in all is not the caller's own.
            lines.next();
        } else if here && line.starts_with(|first: char| first.is_ascii_digit()) {
            instructions += line
                .split_once(' ')
                .map_or(0, |(_, cost)| first_number(cost));
        }
    }
    (instructions, calls)
}

fn first_number(text: &str) -> u64 {
    let word = text.split_whitespace().next();
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}
