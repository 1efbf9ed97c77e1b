//! Tables, in Markdown.

use std::fmt::Write as _;

use crate::closed_loop::Sample;
use crate::options::Plan;
use crate::spread::Spread;
use crate::throughput::{Cell, Outcome};

/// Puts a line of a table together.
pub fn line<S: AsRef<str>>(columns: &[S]) -> String {
    let columns: Vec<&str> = columns.iter().map(AsRef::as_ref).collect();
    format!("| {} |\n", columns.join(" | "))
}

/// The first two lines of a table.
pub fn head(columns: &[&str]) -> String {
    line(columns) + &line(&vec!["---"; columns.len()])
}

/// A spread as a column; a dash without samples.
pub fn column(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "-".to_owned(), |spread| format!("{spread:.digits$}"))
}

/// What ran, and how often.
pub fn header(plan: &Plan, cells: &[Cell]) -> String {
    let mut text = format!(
        "Medians (least to most) of {} rounds of {} s.",
        plan.rounds,
        plan.time.as_secs()
    );
    let outcomes = || cells.iter().flat_map(|cell| &cell.outcomes);
    let samples = outcomes().flat_map(|outcome| outcome.samples.iter().flatten());
    if let Some(line) = Spread::of(samples.map(|sample| sample.line_ns)) {
        let _ = write!(
            text,
            " A cache line took {line:.0} ns to the other processor and back."
        );
    }
    text += "\n\n";
    for outcome in cells.first().iter().flat_map(|cell| &cell.outcomes) {
        let subject = &outcome.subject;
        let _ = writeln!(text, "- {}: {}", subject.name, subject.version);
    }
    text + "\n"
}

/// A value of the samples of an outcome.
fn spread(outcome: &Outcome, value: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
    Spread::of(outcome.samples.iter().flatten().filter_map(value))
}

/// The rate of one as a multiple of the other's, round by round.
fn ratio(one: &Outcome, other: &Outcome) -> Option<Spread> {
    let rounds = one.samples.iter().zip(&other.samples);
    let both = rounds.filter_map(|(one, other)| one.as_ref().zip(other.as_ref()));
    Spread::of(both.map(|(one, other)| one.frames_per_second / other.frames_per_second))
}

/// All cells, with a line for each contender.
pub fn cells(cells: &[Cell]) -> String {
    let mut text = head(&[
        "frames",
        "contender",
        "M frames/s",
        "Gbit/s",
        "vtnetd as a multiple",
        "CPU ns a frame",
        "of it busy",
        "front end busy, %",
        "frames left, %",
    ]);
    for cell in cells {
        let label = cell.work.label();
        for outcome in &cell.outcomes {
            let name = outcome.subject.name.clone();
            if let Some(why) = &outcome.declined {
                text += &line(&[&label, &name, &format!("n/a: {why}")]);
                continue;
            }
            let rate = spread(outcome, |sample| Some(sample.frames_per_second));
            let ours = outcome.ours.and_then(|ours| cell.of(ours));
            let percent = |value: fn(&Sample) -> Option<f64>| {
                let share = spread(outcome, value);
                column(share.map(|share| share.times(100.0)), 0)
            };
            text += &line(&[
                label.clone(),
                name,
                column(rate.map(|rate| rate.times(1e-6)), 2),
                column(rate.map(|rate| rate.times(cell.work.bits() / 1e9)), 1),
                column(ours.and_then(|ours| ratio(ours, outcome)), 2),
                column(spread(outcome, |sample| sample.cpu_ns), 1),
                column(spread(outcome, |sample| sample.busy_ns), 1),
                percent(|sample| sample.front_end_busy),
                percent(|sample| sample.kept),
            ]);
        }
    }
    text + "\n\
        A back end that polls uses its whole processor; \"busy\" is the part of that in turns that\n\
        had frames, where it is counted. Where the front end is busy all the time it is the limit,\n\
        and the processor time of a frame says which back end takes less. \"Left\" are those of the\n\
        frames in the loop that nobody had dropped by the end.\n"
}

/// What becomes of the rate from the fewest guests to the most.
pub fn scaling(cells: &[Cell]) -> String {
    let mut text = "\n".to_owned() + &head(&["frames", "contender", "guests", "multiple"]);
    for most in cells {
        let same = |cell: &&Cell| {
            crate::work::Work {
                guests: most.work.guests,
                ..cell.work
            } == most.work
        };
        let fewest = cells
            .iter()
            .filter(same)
            .min_by_key(|cell| cell.work.guests);
        let Some(fewest) = fewest.filter(|fewest| fewest.work.guests < most.work.guests) else {
            continue;
        };
        for outcome in &most.outcomes {
            let before = fewest.of(&outcome.subject.name);
            let Some(ratio) = before.and_then(|before| ratio(outcome, before)) else {
                continue;
            };
            text += &line(&[
                most.work.label(),
                outcome.subject.name.clone(),
                format!("{} to {}", fewest.work.guests, most.work.guests),
                format!("{ratio:.2}"),
            ]);
        }
    }
    text
}
