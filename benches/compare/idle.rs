//! The processor time of a back end whose guests do nothing.

use std::thread;
use std::time::{Duration, Instant};

use bed::{Process, Result};
use serde::Serialize;

use crate::contenders::BackEnd;
use crate::entrant;
use crate::generator;
use crate::latency::WORK;
use crate::options::Plan;
use crate::report::Report;
use crate::spread::Spread;
use crate::table;

/// How long guests may take to connect and come to rest.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    /// The share of a processor that the back end used.
    processor: f64,
}

/// Measures.
///
/// # Errors
/// A sample failed, or a file cannot be written.
pub fn run(plan: &Plan) -> Result<()> {
    let servers = entrant::usual(None);
    let mut entrants = entrant::enter(plan, servers, WORK.front_end.name());
    let mut samples: Vec<Vec<Sample>> = entrants.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds {
        for (entrant, samples) in entrants.iter_mut().zip(&mut samples) {
            let mut back_end = entrant.server.start(&WORK)?;
            entrant.subject.command_line = back_end.command_line();
            let sockets = back_end.sockets().iter();
            let guests = sockets.map(|socket| generator::receiver(socket));
            let guests: Vec<Process> = guests.collect::<Result<_>>()?;
            thread::sleep(SETTLE);
            let processor = share(&mut *back_end, plan.time)?;
            guests.into_iter().try_for_each(generator::end)?;
            back_end.stop()?;
            samples.push(Sample { processor });
        }
    }
    let mut report = Report::new(plan, "idle");
    let mut text = table::head(&["contender", "processor at rest, %"]);
    for (entrant, samples) in entrants.iter().zip(samples) {
        let shares = samples.iter().map(|sample| sample.processor * 100.0);
        let name = entrant.subject.name.clone();
        text += &table::line(&[name, table::column(Spread::of(shares), 4)]);
        report.add(&entrant.subject, Some(&WORK), plan.time, samples);
    }
    report.finish(plan, &text)
}

fn share(back_end: &mut dyn BackEnd, time: Duration) -> Result<f64> {
    let (start, before) = (Instant::now(), back_end.processor_time()?);
    thread::sleep(time);
    let used = back_end.processor_time()? - before;
    Ok(used.as_secs_f64() / start.elapsed().as_secs_f64())
}
