//! TCP between two Linux guests under qemu. Emulated, where there is no KVM,
//! they are the limit by far: whoever is between them is fast by costing them
//! little, with few large frames, few kicks and few interrupts.
//!
//! Once the back end has a processor for itself, as in all modes, and both
//! guests have the other; and once all of them have both processors, so that
//! what the back end does not use is the guests'.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bed::equipment::{self, GuestImage};
use bed::{Error, Guest, GuestOptions, Result, Scratch};
use serde::Serialize;

use crate::contenders::BackEnd;
use crate::contenders::testpmd::{self, NetVhost};
use crate::contenders::vtnetd::{self, OnVale};
use crate::entrant::{self, Entrant, Servers};
use crate::options::Plan;
use crate::processor::FRONT_END;
use crate::report::Report;
use crate::spread::Spread;
use crate::table;
use crate::work::{Format, FrontEnd, Load, Work};

/// What back ends are started for; guests have their own frames.
const WORK: Work = Work {
    length: 1514,
    format: Format::Split,
    pairs: 1,
    guests: 2,
    load: Load::None,
    front_end: FrontEnd::Testpmd,
    in_order: false,
};

/// What is fetched at a time.
const MEBIBYTES: u32 = 64;

/// Who has which processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placement {
    /// The back end has one, the guests have the other.
    Apart,
    /// All have both.
    Anywhere,
}

impl Placement {
    const ALL: [Self; 2] = [Self::Apart, Self::Anywhere];

    const fn name(self) -> &'static str {
        match self {
            Self::Apart => "apart",
            Self::Anywhere => "anywhere",
        }
    }

    const fn guests(self) -> &'static str {
        match self {
            Self::Apart => "two Linux guests under qemu on one processor",
            Self::Anywhere => "two Linux guests under qemu anywhere",
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    mebibytes_per_second: f64,
    /// Processor time of the back end for a MiB.
    cpu_ms: f64,
}

/// A back end in its place.
struct Contender {
    placement: Placement,
    entrant: Entrant,
    samples: Vec<Sample>,
}

/// Who is compared. Segments go through testpmd whole if it is told so.
fn servers(placement: Placement) -> Servers {
    let anywhere = placement == Placement::Anywhere;
    let on_vale = |options| Box::new(OnVale { options, anywhere });
    let (ours, always) = (vtnetd::NAME, vtnetd::ALWAYS_POLL);
    let offloads = true;
    vec![
        (ours.to_owned(), on_vale(&[])),
        (format!("{ours} {}", always.join(" ")), on_vale(always)),
        (
            format!("{} tso=1", testpmd::NAME),
            Box::new(NetVhost { offloads, anywhere }),
        ),
    ]
}

/// Measures.
///
/// # Errors
/// A sample failed, or a file cannot be written.
pub fn run(plan: &Plan) -> Result<()> {
    let image = match equipment::guests() {
        Ok(image) => image,
        Err(missing) => {
            bed::skipped(missing.while_doing("tcp"));
            return Ok(());
        }
    };
    let mut contenders = Vec::new();
    for placement in Placement::ALL {
        let entrants = entrant::enter(plan, servers(placement), placement.guests());
        contenders.extend(entrants.into_iter().map(|entrant| Contender {
            placement,
            entrant,
            samples: Vec::new(),
        }));
    }
    for _ in 0..plan.rounds {
        for contender in &mut contenders {
            let sample = contender.measure(&image, plan.time)?;
            contender.samples.push(sample);
        }
    }
    let mut report = Report::new(plan, "tcp");
    for contender in &contenders {
        let samples = contender.samples.clone();
        report.add(&contender.entrant.subject, None, plan.time, samples);
    }
    report.finish(plan, &tell(&contenders))
}

impl Contender {
    fn measure(&mut self, image: &GuestImage, time: Duration) -> Result<Sample> {
        let Entrant { server, subject } = &mut self.entrant;
        let mut back_end = server.start(&WORK)?;
        subject.command_line = back_end.command_line();
        let sample = fetch(&mut *back_end, image, self.placement, time);
        let sample = sample.map_err(|error| error.while_doing(&subject.name))?;
        back_end.stop()?;
        let (name, rate) = (&subject.name, sample.mebibytes_per_second);
        eprintln!("{name}, {}: {rate:.1} MiB/s", self.placement.name());
        Ok(sample)
    }

    /// The rate of `ours` as a multiple of its own, round by round.
    fn multiple(&self, ours: &Self) -> Option<Spread> {
        let rounds = ours.samples.iter().zip(&self.samples);
        Spread::of(
            rounds.map(|(ours, theirs)| ours.mebibytes_per_second / theirs.mebibytes_per_second),
        )
    }
}

/// Has the second guest fetch from the first, again and again for `time`.
fn fetch(
    back_end: &mut dyn BackEnd,
    image: &GuestImage,
    placement: Placement,
    time: Duration,
) -> Result<Sample> {
    let scratch = Scratch::new()?;
    let [first, second] = back_end.sockets() else {
        return Err(Error::new("it takes two guests"));
    };
    let guest = |(number, socket): (u8, &PathBuf)| GuestOptions {
        cpus: (placement == Placement::Apart).then(|| FRONT_END.to_string()),
        ..GuestOptions::numbered(number, socket.clone())
    };
    let options = [(1, first), (2, second)].map(guest);
    let [mut from, mut to] = Guest::boot(image, options, &scratch)?;
    from.run(&format!(
        "dd if=/dev/zero of=/tmp/served/data bs=1M count={MEBIBYTES} 2> /dev/null"
    ))?;
    let fetch = format!("wget -q -O /dev/null http://{}/data", from.address());
    // Both learn where the other is, and memory is touched for the first time.
    to.run(&fetch)?;
    let (start, before) = (Instant::now(), back_end.processor_time()?);
    let mut mebibytes = 0.0;
    while start.elapsed() < time {
        to.run(&fetch)?;
        mebibytes += f64::from(MEBIBYTES);
    }
    let used = back_end.processor_time()? - before;
    Ok(Sample {
        mebibytes_per_second: mebibytes / start.elapsed().as_secs_f64(),
        cpu_ms: used.as_secs_f64() * 1e3 / mebibytes,
    })
}

fn tell(contenders: &[Contender]) -> String {
    let mut text = table::head(&[
        "processors",
        "contender",
        "MiB/s",
        "vtnetd as a multiple",
        "CPU ms a MiB",
    ]);
    for contender in contenders {
        let placement = contender.placement;
        let of = |value: fn(&Sample) -> f64| Spread::of(contender.samples.iter().map(value));
        let mut same = contenders.iter().filter(|one| one.placement == placement);
        let ours = same.find(|one| one.entrant.subject.name == vtnetd::NAME);
        let ours = ours.filter(|ours| !std::ptr::eq(*ours, contender));
        text += &table::line(&[
            placement.name().to_owned(),
            contender.entrant.subject.name.clone(),
            table::column(of(|sample| sample.mebibytes_per_second), 1),
            table::column(ours.and_then(|ours| contender.multiple(ours)), 2),
            table::column(of(|sample| sample.cpu_ms), 2),
        ]);
    }
    text + "\nApart: the back end has a processor for itself, both guests have the other. The guests are\n\
        emulated where there is no KVM, and so the limit.\n"
}
