//! How long frames are under way between two vtgens that sleep when they have
//! nothing to do, a thousand a second, and what that costs the back end.

use std::time::{Duration, Instant};

use bed::{Error, Result};
use serde::Serialize;

use crate::contenders::{BackEnd, testpmd, vtnetd};
use crate::entrant::{self, Entrant};
use crate::generator::{self, Times};
use crate::line;
use crate::options::Plan;
use crate::report::Report;
use crate::spread::Spread;
use crate::table;
use crate::work::{Format, FrontEnd, Load, Work};

/// The frames of vtgen's ping, between two guests.
pub const WORK: Work = Work {
    length: 60,
    format: Format::Split,
    pairs: 1,
    guests: 2,
    load: Load::None,
    front_end: FrontEnd::Vtgen,
    in_order: false,
};

#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    #[serde(flatten)]
    times: Times,
    /// The share of a processor that the back end used.
    processor: f64,
    /// What it took just before to wake who sleeps at an eventfd.
    wake_up_us: f64,
    /// The processor time that this took of who wakes somebody else in turn.
    wake_up_processor_us: f64,
}

impl Sample {
    /// The share of a processor that a frame there and back each millisecond takes
    /// of who sleeps meanwhile and does nothing with it.
    fn least(&self) -> f64 {
        2.0 * self.wake_up_processor_us * 1e-6 * f64::from(generator::RATE)
    }
}

/// Measures.
///
/// # Errors
/// A sample failed, or a file cannot be written.
pub fn run(plan: &Plan) -> Result<()> {
    let always = vtnetd::takes(vtnetd::ALWAYS_POLL)?.then_some(vtnetd::ALWAYS_POLL);
    if always.is_none() {
        let options = vtnetd::ALWAYS_POLL.join(" ");
        bed::skipped(Error::new(format!("this vtnetd has no {options}")));
    }
    let servers = entrant::usual(always);
    let mut entrants = entrant::enter(plan, servers, WORK.front_end.name());
    let mut samples: Vec<Vec<Sample>> = entrants.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds {
        for (entrant, samples) in entrants.iter_mut().zip(&mut samples) {
            let wake_up = line::wake_up()?;
            let mut back_end = entrant.server.start(&WORK)?;
            entrant.subject.command_line = back_end.command_line();
            let name = &entrant.subject.name;
            let (times, processor) =
                measure(&mut *back_end, plan.time).map_err(|error| error.while_doing(name))?;
            back_end.stop()?;
            eprintln!(
                "{name}: p50 {} us, a wake-up {:.1} us",
                times.p50_us, wake_up.time
            );
            samples.push(Sample {
                times,
                processor,
                wake_up_us: wake_up.time,
                wake_up_processor_us: wake_up.processor,
            });
        }
    }
    let mut report = Report::new(plan, "latency");
    for (entrant, samples) in entrants.iter().zip(&samples) {
        report.add(&entrant.subject, Some(&WORK), plan.time, samples.clone());
    }
    report.finish(plan, &tell(&entrants, &samples))
}

fn measure(back_end: &mut dyn BackEnd, time: Duration) -> Result<(Times, f64)> {
    let [first, second] = back_end.sockets() else {
        return Err(Error::new("a ping takes two guests"));
    };
    let (first, second) = (first.clone(), second.clone());
    let reflector = generator::reflector(&second)?;
    generator::get_through(&first)?;
    let (start, before) = (Instant::now(), back_end.processor_time()?);
    let times = generator::ping(&first, time)?;
    let used = back_end.processor_time()? - before;
    let share = used.as_secs_f64() / start.elapsed().as_secs_f64();
    generator::end(reflector)?;
    Ok((times, share))
}

fn tell(entrants: &[Entrant], samples: &[Vec<Sample>]) -> String {
    let mut text = table::head(&[
        "contender",
        "p50, us",
        "p99, us",
        "lost",
        "p50 / testpmd's",
        "p99 / testpmd's",
        "p50 above testpmd's, wake-ups",
        "processor, %",
        "of two wake-ups alone",
    ]);
    let named = entrants.iter().zip(samples);
    let testpmd = named
        .clone()
        .find(|(entrant, _)| entrant.server.name() == testpmd::NAME);
    for (entrant, samples) in named {
        let of = |value: fn(&Sample) -> f64| Spread::of(samples.iter().map(value));
        let beside = |value: fn(&Sample, &Sample) -> f64| {
            let (_, theirs) = testpmd.filter(|(other, _)| !std::ptr::eq(*other, entrant))?;
            Spread::of(
                samples
                    .iter()
                    .zip(theirs)
                    .map(|(one, other)| value(one, other)),
            )
        };
        text += &table::line(&[
            entrant.subject.name.clone(),
            table::column(of(|sample| sample.times.p50_us), 1),
            table::column(of(|sample| sample.times.p99_us), 1),
            table::column(of(|sample| sample.times.lost), 0),
            table::column(
                beside(|one, other| one.times.p50_us / other.times.p50_us),
                2,
            ),
            table::column(
                beside(|one, other| one.times.p99_us / other.times.p99_us),
                2,
            ),
            table::column(
                beside(|one, other| (one.times.p50_us - other.times.p50_us) / one.wake_up_us),
                2,
            ),
            table::column(of(|sample| sample.processor * 100.0), 2),
            table::column(of(|sample| sample.processor / sample.least()), 2),
        ]);
    }
    let all = |value: fn(&Sample) -> f64| Spread::of(samples.iter().flatten().map(value));
    let wake_up = all(|sample| sample.wake_up_us);
    let least = all(|sample| sample.least() * 100.0);
    if let (Some(wake_up), Some(least)) = (wake_up, least) {
        text += &format!(
            "\nA frame each millisecond, there and back, between guests that sleep meanwhile. It took\n\
             {wake_up:.1} us to wake who sleeps at an eventfd on the other processor. Who is only woken\n\
             for each of these frames, and wakes somebody else, takes {least:.2} % of a processor.\n"
        );
    }
    text
}
