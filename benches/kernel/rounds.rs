//! Who is measured, in what order, and what is compared with what.

use std::process::ExitCode;
use std::time::Duration;

use bed::Result;
use vtnetd::net::frame::BATCH;

use crate::contender::{Contender, Rates, Sender, Whose};
use crate::upstream;

const fn pkt_gen(
    name: &'static str,
    whose: Whose,
    (from, to): (&'static str, &'static str),
    length: usize,
) -> Contender {
    Contender {
        name,
        sender: Sender::PktGen { whose, from, to },
        length,
    }
}

const fn switches(length: usize) -> [Contender; 2] {
    const PORTS: (&str, &str) = ("vale0:a", "vale0:b");
    [
        pkt_gen("service's switch", Whose::Service, PORTS, length),
        pkt_gen("kernel's switch", Whose::Kernel, PORTS, length),
    ]
}

const fn pipes(length: usize) -> [Contender; 2] {
    const ENDS: (&str, &str) = ("netmap:p{1", "netmap:p}1");
    [
        pkt_gen("service's pipe", Whose::Service, ENDS, length),
        pkt_gen("kernel's pipe", Whose::Kernel, ENDS, length),
    ]
}

const fn device(length: usize) -> [Contender; 2] {
    let [_, alone] = switches(length);
    let through = Contender {
        name: "vtgen, vtnetd, kernel's switch",
        sender: Sender::Vtgen,
        length,
    };
    [through, alone]
}

const fn back_end(name: &'static str, batch: usize) -> Contender {
    Contender {
        name,
        sender: Sender::BackEnd { batch },
        length: 60,
    }
}

/// Each is compared with the one beside it.
const ALL: [[Contender; 2]; 7] = [
    switches(60),
    switches(1514),
    pipes(60),
    pipes(1514),
    device(60),
    device(1514),
    [
        back_end("back end, a sync for a batch", BATCH),
        back_end("back end, a sync for a frame", 1),
    ],
];

pub fn main() -> ExitCode {
    let mut options = getopts::Options::new();
    options
        .optopt("", "rounds", "rounds of each (3)", "N")
        .optopt("", "seconds", "seconds of a round (5)", "N")
        .optflag("", "bench", "what cargo adds");
    let plan = options.parse(std::env::args().skip(1)).ok();
    let plan = plan.filter(|matches| matches.free.is_empty());
    let plan = plan.and_then(|matches| {
        let rounds = matches.opt_get_default("rounds", 3u32).ok()?;
        Some((rounds, matches.opt_get_default("seconds", 5u32).ok()?))
    });
    let Some((rounds, seconds)) = plan else {
        eprint!("{}", options.usage("kernel.bench [options]"));
        return ExitCode::from(64);
    };
    if let Err(missing) = upstream::equipment() {
        bed::skipped(missing);
        return ExitCode::SUCCESS;
    }
    match run(rounds, Duration::from_secs(seconds.into())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(rounds: u32, time: Duration) -> Result<()> {
    let mut measured = ALL.map(|_| [const { Vec::new() }; 2]);
    for _ in 0..rounds {
        for (pair, rates) in ALL.iter().zip(&mut measured) {
            for (contender, rates) in pair.iter().zip(rates) {
                rates.push(contender.measure(time)?);
            }
        }
    }
    for (pair, rates) in ALL.iter().zip(&measured) {
        for (contender, rates) in pair.iter().zip(rates) {
            println!(
                "{:30} {:4} bytes: sent {:.3} M/s, received {:.3} M/s",
                contender.name,
                contender.length,
                median(rates, |rates| rates.sent) / 1e6,
                median(rates, |rates| rates.received) / 1e6,
            );
        }
        let [first, second] = rates;
        let ratio = |which: fn(&Rates) -> f64| median(first, which) / median(second, which);
        println!(
            "{:30}             {:.2} of it sent, {:.2} received",
            "",
            ratio(|rates| rates.sent),
            ratio(|rates| rates.received)
        );
    }
    Ok(())
}

fn median(rates: &[Rates], which: fn(&Rates) -> f64) -> f64 {
    let mut values: Vec<f64> = rates.iter().map(which).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
