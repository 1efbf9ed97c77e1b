//! Frames a second between guests: for each cell all contenders by turns.

use bed::{Error, Result};

use crate::closed_loop::Sample;
use crate::contenders::{self, Contender};
use crate::options::{Mode, Plan};
use crate::report::{self, Report, Subject};
use crate::work::Work;
use crate::{plot, table};

/// What a contender did in a cell.
pub struct Outcome {
    pub subject: Subject,
    /// The name of the vtnetd in the same place, if it is not that itself.
    pub ours: Option<&'static str>,
    /// Of each round; `None`: it failed then.
    pub samples: Vec<Option<Sample>>,
    /// Why there is none at all.
    pub declined: Option<String>,
}

/// A cell and what all contenders did in it.
pub struct Cell {
    pub work: Work,
    pub outcomes: Vec<Outcome>,
}

impl Cell {
    /// What the contender called `name` did.
    pub fn of(&self, name: &str) -> Option<&Outcome> {
        let mut all = self.outcomes.iter();
        all.find(|outcome| outcome.subject.name == name)
    }
}

/// A contender that is there.
struct Entrant {
    contender: Box<dyn Contender>,
    version: String,
}

/// Who is asked for and is there. Of the others one line says what is missing.
fn entrants(plan: &Plan) -> Vec<Entrant> {
    let mut entrants = Vec::new();
    for contender in contenders::all() {
        let name = contender.name();
        if !plan.wants(name) {
            continue;
        }
        let version = contender.equipment().and_then(|()| contender.version());
        match version {
            Ok(version) => entrants.push(Entrant { contender, version }),
            Err(missing) => bed::skipped(missing.while_doing(name)),
        }
    }
    entrants
}

/// Measures all cells.
///
/// # Errors
/// A sample failed, or a file cannot be written. What else was measured is
/// told all the same.
pub fn run(plan: &Plan, mode: Mode) -> Result<()> {
    let entrants = entrants(plan);
    let mut failures = 0;
    let mut cells = Vec::new();
    for work in plan.works(mode) {
        cells.push(measure(plan, &entrants, work, &mut failures));
    }
    let mut report = Report::new(plan, mode.name());
    for cell in &cells {
        for outcome in cell
            .outcomes
            .iter()
            .filter(|outcome| outcome.declined.is_none())
        {
            let samples = outcome.samples.clone();
            report.add(&outcome.subject, Some(&cell.work), plan.time, samples);
        }
    }
    let mut table = table::header(plan, &cells) + &table::cells(&cells);
    if mode == Mode::Scale {
        table += &table::scaling(&cells);
    }
    report.finish(plan, &table)?;
    report::write(plan, &format!("{}.svg", mode.name()), &plot::draw(&cells))?;
    match failures {
        0 => Ok(()),
        _ => Err(Error::new(format!("{failures} samples failed"))),
    }
}

fn measure(plan: &Plan, entrants: &[Entrant], work: Work, failures: &mut u32) -> Cell {
    eprintln!("{work}");
    let outcome = |entrant: &Entrant| Outcome {
        subject: Subject {
            name: entrant.contender.name().to_owned(),
            version: entrant.version.clone(),
            command_line: String::new(),
            front_end: entrant.contender.front_end(&work),
        },
        ours: entrant.contender.ours(),
        samples: Vec::new(),
        declined: entrant.contender.declines(&work).map(str::to_owned),
    };
    let mut outcomes: Vec<Outcome> = entrants.iter().map(outcome).collect();
    for _ in 0..plan.rounds {
        for (entrant, outcome) in entrants.iter().zip(&mut outcomes) {
            if outcome.declined.is_some() {
                continue;
            }
            let name = &outcome.subject.name;
            match entrant.contender.measure(&work, plan.time) {
                Ok(measured) => {
                    let rate = measured.sample.frames_per_second / 1e6;
                    eprintln!("  {name}: {rate:.3} M frames/s");
                    outcome.subject.command_line = measured.command_line;
                    outcome.samples.push(Some(measured.sample));
                }
                Err(missing) if missing.is_missing() => {
                    eprintln!("  {name}: {missing}");
                    outcome.declined = Some(missing.to_string());
                }
                Err(error) => {
                    eprintln!("  {name}: {error}");
                    *failures += 1;
                    outcome.samples.push(None);
                }
            }
        }
    }
    Cell { work, outcomes }
}
