//! What is written down: each row of JSON says all that was run, and where.

use std::fs;
use std::time::Duration;

use bed::{Error, Result};
use serde::Serialize;

use crate::options::Plan;
use crate::work::Work;

/// What everything ran on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    processor: String,
    processors: usize,
    kernel: String,
    memory_kib: u64,
    huge_pages: u32,
}

/// The value in a file of proc(5) whose lines are `NAME: VALUE`.
fn proc_value(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let number = |name| {
            let value = proc_value("/proc/meminfo", name)?;
            value.split(' ').next()?.parse::<u64>().ok()
        };
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: proc_value("/proc/cpuinfo", "model name").unwrap_or_default(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: kernel.trim().to_owned(),
            memory_kib: number("MemTotal").unwrap_or(0),
            huge_pages: bed::equipment::free_huge_pages(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            processor,
            processors,
            kernel,
            memory_kib,
            huge_pages,
        } = self;
        let gibibytes = memory_kib >> 20;
        write!(
            f,
            "{processor}, {processors} processors, {gibibytes} GiB, {huge_pages} free huge pages, \
             Linux {kernel}"
        )
    }
}

/// The cell that samples belong to.
#[derive(Clone, Debug, Serialize)]
struct Cell {
    length: u64,
    ring: &'static str,
    pairs: u16,
    guests: u32,
    mergeable: bool,
    in_order: bool,
    frames_in_loop: u32,
    huge_pages: bool,
}

impl From<&Work> for Cell {
    fn from(work: &Work) -> Self {
        let links = work.links();
        Self {
            length: work.length,
            ring: work.format.name(),
            pairs: work.pairs,
            guests: work.guests,
            mergeable: links.mergeable,
            in_order: links.in_order,
            frames_in_loop: work.loop_size(),
            huge_pages: links.huge_pages,
        }
    }
}

/// The samples of one contender at one thing.
#[derive(Clone, Debug, Serialize)]
pub struct Row<S> {
    what: String,
    contender: String,
    version: String,
    command_line: String,
    /// Who drove it.
    front_end: &'static str,
    #[serde(flatten)]
    cell: Option<Cell>,
    rounds: usize,
    seconds: f64,
    samples: Vec<S>,
    machine: Machine,
    bench: String,
}

/// Who was measured.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    pub name: String,
    pub version: String,
    pub command_line: String,
    /// Who drives it.
    pub front_end: &'static str,
}

/// Rows, and what they have in common.
pub struct Report<S> {
    what: String,
    plan_rounds: usize,
    machine: Machine,
    bench: String,
    rows: Vec<Row<S>>,
}

impl<S: Serialize> Report<S> {
    pub fn new(plan: &Plan, what: &str) -> Self {
        Self {
            what: what.to_owned(),
            plan_rounds: plan.rounds,
            machine: Machine::this(),
            bench: std::env::args().collect::<Vec<_>>().join(" "),
            rows: Vec::new(),
        }
    }

    /// Adds a row; `time` is what a sample took.
    pub fn add(&mut self, subject: &Subject, work: Option<&Work>, time: Duration, samples: Vec<S>) {
        self.rows.push(Row {
            what: self.what.clone(),
            contender: subject.name.clone(),
            version: subject.version.clone(),
            command_line: subject.command_line.clone(),
            front_end: subject.front_end,
            cell: work.map(Cell::from),
            rounds: self.plan_rounds,
            seconds: time.as_secs_f64(),
            samples,
            machine: self.machine.clone(),
            bench: self.bench.clone(),
        });
    }

    /// Prints `table` under a line about the machine, and writes both and the
    /// rows to files.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn finish(&self, plan: &Plan, table: &str) -> Result<()> {
        let text = format!("{}\n\n{table}", self.machine);
        println!("\n{text}");
        let json = serde_json::to_string_pretty(&self.rows);
        let json = json.map_err(|error| Error::new(error.to_string()))?;
        write(plan, &format!("{}.md", self.what), &text)?;
        write(plan, &format!("{}.json", self.what), &json)
    }
}

/// Writes a file to where they are wanted, and says so.
///
/// # Errors
/// It cannot be written.
pub fn write(plan: &Plan, name: &str, text: &str) -> Result<()> {
    let path = plan.output.join(name);
    fs::create_dir_all(&plan.output)
        .and_then(|()| fs::write(&path, text))
        .map_err(|error| Error::from(error).while_doing(path.display()))?;
    println!("{}", path.display());
    Ok(())
}
