//! What is asked for on the command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bed::{Error, Result};

use crate::contenders;
use crate::work::{Format, FrontEnd, Load, Work};

const BRIEF: &str = "\
Usage: benches/compare/run [options] [throughput|scale|latency|tcp|idle|start|all]...

Without a mode it is throughput.";

/// Pairs of queues, of all guests together, that the front end has buffers for.
const MOST_QUEUES: u32 = 64;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Throughput,
    Scale,
    Latency,
    Tcp,
    Idle,
    Start,
}

impl Mode {
    const ALL: [Self; 6] = [
        Self::Throughput,
        Self::Scale,
        Self::Latency,
        Self::Tcp,
        Self::Idle,
        Self::Start,
    ];

    /// As on the command line and in names of files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Scale => "scale",
            Self::Latency => "latency",
            Self::Tcp => "tcp",
            Self::Idle => "idle",
            Self::Start => "start",
        }
    }
}

/// What is measured, how often and for how long.
#[derive(Debug)]
pub struct Plan {
    pub modes: Vec<Mode>,
    pub rounds: usize,
    /// How long a sample takes.
    pub time: Duration,
    /// Where tables, plots and JSON go.
    pub output: PathBuf,
    /// Names of contenders; all of them if empty.
    only: Vec<String>,
    lengths: Option<Vec<u64>>,
    formats: Option<Vec<Format>>,
    pairs: Vec<u16>,
    guests: Option<Vec<u32>>,
    front_ends: Vec<FrontEnd>,
    in_order: bool,
}

impl Plan {
    /// From the command line; `None`: what may be said there was asked for, and
    /// is printed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read() -> Result<Option<Self>> {
        let mut options = getopts::Options::new();
        options
            .optopt("", "rounds", "rounds of all contenders (5)", "N")
            .optopt("", "seconds", "seconds that a sample takes (5)", "N")
            .optopt(
                "",
                "lengths",
                "bytes of frames (64,512,1514; scale: 64)",
                "N,...",
            )
            .optopt(
                "",
                "rings",
                "ring formats (split,packed; scale: split)",
                "NAME,...",
            )
            .optopt("", "pairs", "pairs of queues of a guest (1)", "N,...")
            .optopt(
                "",
                "guests",
                "numbers of guests (2; scale: 2,8,32)",
                "N,...",
            )
            .optopt(
                "",
                "front-ends",
                "who sends and receives: testpmd,vtgen (testpmd)",
                "NAME,...",
            )
            .optflag("", "any-order", "front ends do not ask for chains in order")
            .optopt("", "only", "these contenders and no others", "NAME,...")
            .optopt("", "output", "where files go (target/compare)", "DIRECTORY")
            .optflag("h", "help", "print this")
            .optflag("", "bench", "what cargo adds");
        let matches = options
            .parse(std::env::args().skip(1))
            .map_err(|error| Error::new(format!("{error}: --help lists what there is")))?;
        if matches.opt_present("help") {
            let names: Vec<_> = contenders::all().iter().map(|one| one.name()).collect();
            println!("{}\nContenders: {}", options.usage(BRIEF), names.join(", "));
            return Ok(None);
        }
        let number = |name, default| match matches.opt_get_default(name, default) {
            Ok(0) | Err(_) => Err(Error::new(format!("--{name}: a number from 1 on"))),
            Ok(number) => Ok(number),
        };
        let mut modes = Vec::new();
        for word in &matches.free {
            match Mode::ALL.into_iter().find(|mode| mode.name() == word) {
                Some(mode) => modes.push(mode),
                None if word == "all" => modes.extend(Mode::ALL),
                None => return Err(Error::new(format!("{word}: no mode: --help lists them"))),
            }
        }
        if modes.is_empty() {
            modes.push(Mode::Throughput);
        }
        let output = matches.opt_str("output");
        let only: Vec<String> = list(&matches, "only")?.unwrap_or_default();
        for name in &only {
            if !contenders::all()
                .iter()
                .any(|contender| contender.name() == name)
            {
                return Err(Error::new(format!(
                    "--only {name}: no contender: --help lists them"
                )));
            }
        }
        let guests: Option<Vec<u32>> = list(&matches, "guests")?;
        for guests in guests.iter().flatten() {
            // They are ports of one testpmd, which forwards between two.
            if !(2..=32).contains(guests) || guests % 2 == 1 {
                return Err(Error::new(format!(
                    "--guests {guests}: an even number from 2 to 32"
                )));
            }
        }
        let pairs: Vec<u16> = list(&matches, "pairs")?.unwrap_or_else(|| vec![1]);
        let most = (
            pairs.iter().copied().max().unwrap_or(1),
            guests.iter().flatten().copied().max().unwrap_or(2),
        );
        if u32::from(most.0) * most.1 > MOST_QUEUES {
            return Err(Error::new(format!(
                "--pairs {} with {} guests: at most {MOST_QUEUES} pairs in all: one at a time",
                most.0, most.1
            )));
        }
        let front_ends = list(&matches, "front-ends")?;
        let front_ends = front_ends.unwrap_or_else(|| vec![FrontEnd::Testpmd]);
        let many = modes.contains(&Mode::Scale) || guests.iter().flatten().any(|&n| n != 2);
        if many && front_ends != [FrontEnd::Testpmd] {
            return Err(Error::new("--front-ends: vtgen is for two guests"));
        }
        Ok(Some(Self {
            modes,
            rounds: usize::try_from(number("rounds", 5u32)?).unwrap_or(usize::MAX),
            time: Duration::from_secs(number("seconds", 5u32)?.into()),
            output: output.map_or_else(default_output, PathBuf::from),
            only,
            lengths: list(&matches, "lengths")?,
            formats: list(&matches, "rings")?,
            pairs,
            guests,
            front_ends,
            in_order: !matches.opt_present("any-order"),
        }))
    }

    /// Whether a contender is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// The cells that are measured in `mode`.
    pub fn works(&self, mode: Mode) -> Vec<Work> {
        let scale = mode == Mode::Scale;
        let or = |short: &[u64], long: &[u64]| if scale { short.to_vec() } else { long.to_vec() };
        let lengths = self.lengths.clone();
        let lengths = lengths.unwrap_or_else(|| or(&[64], &[64, 512, 1514]));
        let formats = self.formats.clone().unwrap_or_else(|| match scale {
            true => vec![Format::Split],
            false => vec![Format::Split, Format::Packed],
        });
        let guests = self.guests.clone().unwrap_or_else(|| match scale {
            true => vec![2, 8, 32],
            false => vec![2],
        });
        let loads: &[Load] = match scale {
            true => &[Load::Total, Load::EachGuest],
            false => &[Load::EachGuest],
        };
        let mut works = Vec::new();
        for &load in loads {
            for &format in &formats {
                for &pairs in &self.pairs {
                    for &length in &lengths {
                        for &front_end in &self.front_ends {
                            works.extend(guests.iter().map(|&guests| Work {
                                length,
                                format,
                                pairs,
                                guests,
                                load,
                                front_end,
                                in_order: self.in_order,
                            }));
                        }
                    }
                }
            }
        }
        works
    }
}

fn default_output() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let here = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target");
    target.unwrap_or_else(here).join("compare")
}

/// The values of an option that is a list.
fn list<T: FromStr>(matches: &getopts::Matches, name: &str) -> Result<Option<Vec<T>>> {
    let Some(text) = matches.opt_str(name) else {
        return Ok(None);
    };
    let values: Option<Vec<T>> = text.split(',').map(|word| word.parse().ok()).collect();
    match values {
        Some(values) => Ok(Some(values)),
        None => Err(Error::new(format!(
            "--{name} {text}: --help says what it takes"
        ))),
    }
}
