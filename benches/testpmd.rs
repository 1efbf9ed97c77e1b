//! Frames a second through `vale0`, and through testpmd's own pair of
//! `net_vhost` ports in the same run, for the same front end: testpmd with two
//! `net_virtio_user` ports that forwards what arrives at one to the other.
//!
//! The back end has processor 0 for itself, the front end processor 1. Rounds
//! of both take turns, so that whatever else the machine does falls on both,
//! and the medians are compared.
//!
//!     cargo bench --bench testpmd -- [--rounds 5] [--seconds 5] [LENGTH...]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bed::{Links, Result, Scratch, Testpmd, Vtnetd, equipment};

const BACK_END: u32 = 0;
const FRONT_END: u32 = 1;
/// Bytes of the frames, if none are named.
const LENGTHS: [u64; 3] = [64, 512, 1514];
/// How long traffic runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// What is measured.
struct Plan {
    rounds: u32,
    time: Duration,
    lengths: Vec<u64>,
}

impl Plan {
    /// From the command line; `None`: it is wrong.
    fn read(options: &getopts::Options) -> Option<Self> {
        let matches = options.parse(std::env::args().skip(1)).ok()?;
        let number = |name| matches.opt_get_default(name, 5u32).ok();
        let lengths = matches.free.iter().map(|length| length.parse().ok());
        let mut lengths: Vec<u64> = lengths.collect::<Option<_>>()?;
        if lengths.is_empty() {
            lengths.extend(LENGTHS);
        }
        Some(Self {
            rounds: number("rounds")?,
            time: Duration::from_secs(number("seconds")?.into()),
            lengths,
        })
    }
}

fn main() -> ExitCode {
    let mut options = getopts::Options::new();
    options
        .optopt("", "rounds", "rounds of each back end (5)", "N")
        .optopt("", "seconds", "seconds a round is measured (5)", "N")
        .optflag("", "bench", "what cargo adds");
    let Some(plan) = Plan::read(&options) else {
        let brief = "cargo bench --bench testpmd -- [options] [LENGTH...]";
        eprint!("{}", options.usage(brief));
        return ExitCode::from(64);
    };
    if let Err(missing) = equipment::testpmd() {
        bed::skipped(missing);
        return ExitCode::SUCCESS;
    }
    for (queues, mergeable, packed) in [
        (1, false, false),
        (1, true, false),
        (2, true, false),
        (1, true, true),
    ] {
        for &length in &plan.lengths {
            if let Err(error) = compare(&plan, Links::new(queues, mergeable, packed), length) {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Measures both back ends in turn, and prints a line.
fn compare(plan: &Plan, links: Links, length: u64) -> Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        ours.push(vtnetd(links, length, plan.time)?);
        theirs.push(net_vhost(links, length, plan.time)?);
    }
    let [ours, theirs] = [ours, theirs].map(median);
    println!(
        "{length:4} bytes, {} pairs, mergeable {}, packed {}, huge pages {}: \
         vtnetd {:.3} M/s, net_vhost {:.3} M/s, ratio {:.2}",
        links.queues,
        links.mergeable,
        links.packed,
        links.huge_pages,
        ours / 1e6,
        theirs / 1e6,
        ours / theirs
    );
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn vtnetd(links: Links, length: u64, time: Duration) -> Result<f64> {
    let scratch = Scratch::new()?;
    let sockets = [1, 2].map(|number| scratch.path(&format!("vm{number}.sock")));
    let devices = [1, 2].map(|number| {
        let socket = sockets[number - 1].display();
        format!(
            "virtio-net,vale0:vm{number},socket={socket},queues={}",
            links.queues
        )
    });
    let program = Path::new(env!("CARGO_BIN_EXE_vtnetd"));
    let vtnetd = Vtnetd::start(program, &devices, Some(&BACK_END.to_string()))?;
    let rate = rate([&sockets[0], &sockets[1]], links, length, time)?;
    vtnetd.stop()?;
    Ok(rate)
}

fn net_vhost(links: Links, length: u64, time: Duration) -> Result<f64> {
    let scratch = Scratch::new()?;
    let sockets = [1, 2].map(|number| scratch.path(&format!("vm{number}.sock")));
    let sockets = [sockets[0].as_path(), sockets[1].as_path()];
    let mut back_end = Testpmd::back_end(sockets, links, Some(BACK_END))?;
    back_end.run("start")?;
    let rate = rate(sockets, links, length, time)?;
    back_end.quit()?;
    Ok(rate)
}

/// What goes round in a second between the ports on `sockets`.
fn rate(sockets: [&Path; 2], links: Links, length: u64, time: Duration) -> Result<f64> {
    let mut front_end = Testpmd::front_end(sockets, links, Some(FRONT_END))?;
    front_end.start_traffic(length)?;
    front_end.rate(WARM_UP)?;
    let rate = front_end.rate(time)?;
    front_end.quit()?;
    Ok(rate)
}
