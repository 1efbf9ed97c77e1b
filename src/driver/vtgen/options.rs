//! The command line of vtgen(8).

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use getopts::{Fail, Matches, Options};

use super::values::{mac, number, scaled, seconds, wrong};
use crate::cli::UsageError;
use crate::driver::net::{Layout, MAX_SEGMENTS, NetOptions};
use crate::driver::notifier::Signalling;
use crate::driver::report::Kind;
use crate::driver::traffic::{ETHER_LEN, Form};
use crate::net::ethernet::Mac;
use crate::virtio::feature_names;
use crate::virtio::net_header::LEN;
use crate::virtio::spec::{MAX_QUEUE_SIZE, feature, net};

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Drive a device.
    Run(Box<Config>),
    /// Print [`usage`].
    Help,
    /// Print the version.
    Version,
}

/// Where the back end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It listens at this path.
    Connect(PathBuf),
    /// It connects to this path, where we listen.
    Listen(PathBuf),
    /// It is at the other end of this inherited socket.
    Inherited(RawFd),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// The back end.
    pub peer: Peer,
    /// What to do with frames; `None`: nothing, only look at the device.
    pub mode: Option<Kind>,
    /// How to drive the device.
    pub net: NetOptions,
    /// What frames look like, except for addresses that are not given.
    pub len: usize,
    /// `--udp`.
    pub udp: bool,
    /// `--src-mac`; without it the device's own, or one made up.
    pub source: Option<Mac>,
    /// `--dst-mac`.
    pub destination: Mac,
    /// Frames a second; 0: as fast as they are taken.
    pub rate: u64,
    /// End after so many frames; 0: never.
    pub count: u64,
    /// End after so long.
    pub duration: Option<Duration>,
    /// How long ping waits for what is still on its way.
    pub wait: Duration,
    /// Frames in one go.
    pub batch: usize,
    /// Verify the checksum of what arrives.
    pub verify: bool,
    /// Never sleep.
    pub poll: bool,
    /// The processor to run on.
    pub cpu: Option<usize>,
    /// Print the configuration space.
    pub config: bool,
    /// Print it whenever it changes.
    pub watch_config: bool,
    /// Tell the back end this MTU.
    pub set_mtu: Option<u16>,
    /// Write this address to the configuration space.
    pub set_mac: Option<Mac>,
    /// Report every second; more: log each message, too.
    pub verbose: usize,
    /// Print the summary as JSON.
    pub json: bool,
}

/// Longest frame that is made, in bytes.
const MAX_LENGTH: usize = 65535;
/// Longest frame that may arrive: 64 KiB of packet behind an Ethernet header
/// (section 5.1.6.3.1).
const MAX_FRAME: usize = 65536 + ETHER_LEN;
/// What ping sends a second, and how many, unless it is said otherwise.
const PING_RATE: u64 = 1000;
const PING_COUNT: u64 = 100;

fn options() -> Options {
    let mut o = Options::new();
    o.optopt("", "socket-path", "the back end's socket", "PATH");
    o.optflag(
        "",
        "server",
        "listen at the socket path; the back end connects",
    );
    o.optopt("", "fd", "use this inherited, connected socket", "N");
    o.optopt("", "length", "length of frames, 14 to 65535 (60)", "BYTES");
    o.optflag("", "udp", "frames are UDP datagrams in IPv4 packets");
    o.optopt("", "src-mac", "source address (the device's)", "MAC");
    o.optopt("", "dst-mac", "destination address (broadcast)", "MAC");
    o.optopt("", "rate", "frames a second, with k, M or G", "N");
    o.optopt("", "count", "end after so many frames", "N");
    o.optopt("", "duration", "end after so many seconds", "SECONDS");
    o.optopt("", "wait", "ping: wait so long for the last (1)", "SECONDS");
    o.optopt("", "pairs", "queue pairs (1)", "N");
    o.optopt("", "ring-size", "entries of each queue (256)", "N");
    o.optopt("", "batch", "frames in one go (64)", "N");
    o.optopt("", "rx-buffer", "bytes of a receive buffer (2048)", "BYTES");
    o.optopt("", "piece", "longest piece of a chain", "BYTES");
    o.optflag("", "header-apart", "the header has a buffer of its own");
    o.optopt("", "regions", "memory regions (1)", "N");
    o.optflag("", "pipes", "notify by pipes, not eventfds");
    o.optopt("", "features", "+name to require, -name to decline", "LIST");
    o.optflag("", "no-mergeable", "decline mergeable");
    o.optflag("", "no-event-idx", "decline event-idx");
    o.optflag("", "no-indirect", "decline indirect");
    o.optflag("", "legacy", "decline version-1");
    o.optflag("", "no-verify", "do not verify checksums");
    o.optflag("", "poll", "never sleep");
    o.optopt("", "cpu", "run on this processor", "N");
    o.optflag("", "config", "print the device's configuration space");
    o.optflag("", "watch-config", "print it whenever it changes");
    o.optopt("", "set-mtu", "tell the back end this MTU", "BYTES");
    o.optopt("", "set-mac", "write this address to the device", "MAC");
    o.optflag("", "json", "print the summary as JSON");
    o.optflagmulti("v", "", "report every second; twice: log each message");
    o.optflag("h", "help", "print this and exit");
    o.optflag("", "version", "print the version and exit");
    o
}

/// The text of `-h`.
pub fn usage() -> String {
    options().usage(
        "usage: vtgen --socket-path PATH | --fd N [options] tx|rx|reflect|ping\n       \
         vtgen --socket-path PATH | --fd N [options]\n             \
         --config | --watch-config | --set-mtu N | --set-mac MAC",
    )
}

/// What getopts found wrong.
fn misuse(fail: Fail) -> UsageError {
    let dashed = |name: &str| {
        let dashes = if name.chars().count() == 1 { "-" } else { "--" };
        format!("{dashes}{name}")
    };
    let (name, problem, cure) = match fail {
        Fail::ArgumentMissing(name) => (name, "needs an argument", "see vtgen -h for which"),
        Fail::UnrecognizedOption(name) => (name, "no such option", "see vtgen -h for all"),
        Fail::OptionMissing(name) => (name, "missing", "give it"),
        Fail::OptionDuplicated(name) => (name, "given more than once", "give it once"),
        Fail::UnexpectedArgument(name) => (name, "takes no argument", "leave it out"),
    };
    wrong(&dashed(&name), problem, cure)
}

/// Reads the arguments of a command line, the program's name not among them.
///
/// # Errors
/// The first thing that is wrong, in a message for the user.
pub fn parse<I>(args: I) -> Result<Command, UsageError>
where
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    for arg in &args {
        if arg.to_str().is_none() {
            let shown = arg.to_string_lossy();
            return Err(wrong(&shown, "not UTF-8", "use names in UTF-8"));
        }
    }
    let matches = options().parse(&args).map_err(misuse)?;
    if matches.opt_present("h") {
        return Ok(Command::Help);
    }
    if matches.opt_present("version") {
        return Ok(Command::Version);
    }
    config(&matches).map(|config| Command::Run(Box::new(config)))
}

fn config(matches: &Matches) -> Result<Config, UsageError> {
    let has = |name| matches.opt_present(name);
    let peer = peer(matches)?;
    let mode = mode(matches)?;
    let looks = ["config", "watch-config", "set-mtu", "set-mac"];
    if mode.is_none() && !looks.into_iter().any(has) {
        return Err(wrong(
            "mode",
            "missing",
            "say tx, rx, reflect or ping behind the options, or --config",
        ));
    }
    let len = number(matches, "length", ETHER_LEN..=MAX_LENGTH)?.unwrap_or(60);
    let udp = has("udp");
    let needs = |least: usize, for_what: &str| {
        if len >= least {
            return Ok(());
        }
        Err(wrong(
            &format!("--length={len}"),
            format!("too short for {for_what}"),
            format!("give at least {least}"),
        ))
    };
    needs(Form::min_len(udp), "a UDP datagram")?;
    let ping = mode == Some(Kind::Ping);
    if ping {
        needs(Form::probe_len(udp), "ping")?;
    }
    let source = mac(matches, "src-mac")?;
    if let Some(group) = source.filter(|mac| mac.is_multicast()) {
        return Err(wrong(
            &format!("--src-mac={group}"),
            "a multicast address, which nobody sends from",
            "give one whose first octet is even",
        ));
    }
    let count = scaled(matches, "count")?;
    let rate = scaled(matches, "rate")?;
    let batch = number(matches, "batch", 1..=1024)?.unwrap_or(64);
    let duration = seconds(matches, "duration")?;
    // Without an end given, ping has one.
    let endless = if ping && duration.is_none() {
        PING_COUNT
    } else {
        0
    };
    Ok(Config {
        peer,
        mode,
        net: net_options(matches, mode, len)?,
        len,
        udp,
        source,
        destination: mac(matches, "dst-mac")?.unwrap_or(Mac::BROADCAST),
        rate: rate.unwrap_or(if ping { PING_RATE } else { 0 }),
        count: count.unwrap_or(endless),
        duration,
        wait: seconds(matches, "wait")?.unwrap_or(Duration::from_secs(1)),
        batch,
        verify: !has("no-verify"),
        poll: has("poll"),
        cpu: number(matches, "cpu", 0..=1023)?,
        config: has("config"),
        watch_config: has("watch-config"),
        set_mtu: number(matches, "set-mtu", 68..=65535)?,
        set_mac: mac(matches, "set-mac")?,
        verbose: matches.opt_count("v"),
        json: has("json"),
    })
}

fn peer(matches: &Matches) -> Result<Peer, UsageError> {
    let path = matches.opt_str("socket-path");
    let fd: Option<RawFd> = number(matches, "fd", 3..=RawFd::MAX)?;
    let server = matches.opt_present("server");
    match (path, fd) {
        (Some(path), None) if path.is_empty() => Err(wrong(
            "--socket-path",
            "the path is empty",
            "name the back end's socket",
        )),
        (Some(path), None) if server => Ok(Peer::Listen(path.into())),
        (Some(path), None) => Ok(Peer::Connect(path.into())),
        (None, Some(_)) if server => Err(wrong(
            "--server",
            "an inherited socket is connected already",
            "leave it out, or give --socket-path",
        )),
        (None, Some(fd)) => Ok(Peer::Inherited(fd)),
        (Some(_), Some(_)) => Err(wrong(
            "--fd",
            "given together with --socket-path",
            "give one of them",
        )),
        (None, None) => Err(wrong(
            "--socket-path",
            "missing",
            "name the back end's socket, or give --fd",
        )),
    }
}

fn mode(matches: &Matches) -> Result<Option<Kind>, UsageError> {
    let all = [Kind::Source, Kind::Sink, Kind::Reflector, Kind::Ping];
    match matches.free.as_slice() {
        [] => Ok(None),
        [name] => all
            .into_iter()
            .find(|kind| kind.name() == name)
            .map(Some)
            .ok_or_else(|| {
                let said = format!("'{name}'");
                wrong(&said, "no such mode", "say tx, rx, reflect or ping")
            }),
        [_, extra, ..] => {
            let said = format!("'{extra}'");
            Err(wrong(&said, "a second mode", "start one vtgen for each"))
        }
    }
}

/// `(taken, required)` as `--features` and its abbreviations say.
fn wanted(matches: &Matches) -> Result<(u64, u64), UsageError> {
    let mut taken = crate::driver::net::FEATURES;
    let mut required = 0;
    if let Some(list) = matches.opt_str("features") {
        for item in list.split(',') {
            let option = format!("--features={list}");
            let (required_one, name) = match item.split_at_checked(1) {
                Some(("+", name)) => (true, name),
                Some(("-", name)) => (false, name),
                _ => {
                    return Err(wrong(
                        &option,
                        format!("'{item}' has neither + nor - before it"),
                        "write +NAME to require a feature, -NAME to decline it",
                    ));
                }
            };
            let bit = feature_names::bit(name).ok_or_else(|| {
                let known = format!("take from {}", feature_names::names());
                wrong(&option, format!("'{name}' is no feature"), known)
            })?;
            if required_one {
                taken |= bit;
                required |= bit;
            } else {
                taken &= !bit;
                required &= !bit;
            }
        }
    }
    for (option, bit) in [
        ("no-mergeable", net::F_MRG_RXBUF),
        ("no-event-idx", feature::EVENT_IDX),
        ("no-indirect", feature::INDIRECT_DESC),
        ("legacy", feature::VERSION_1),
        // Others may only read the address (5.1.4.2).
        ("set-mac", feature::VERSION_1),
    ] {
        if matches.opt_present(option) {
            if required & bit != 0 {
                return Err(wrong(
                    &format!("--{option}"),
                    "declines what --features requires",
                    "leave one of them out",
                ));
            }
            taken &= !bit;
        }
    }
    Ok((taken, required))
}

fn net_options(
    matches: &Matches,
    mode: Option<Kind>,
    len: usize,
) -> Result<NetOptions, UsageError> {
    let (taken, required) = wanted(matches)?;
    let ring_size = number(matches, "ring-size", 1..=MAX_QUEUE_SIZE)?.unwrap_or(256);
    if !ring_size.is_power_of_two() {
        return Err(wrong(
            &format!("--ring-size={ring_size}"),
            "not a power of two",
            format!("give {}", ring_size.next_power_of_two()),
        ));
    }
    let rx_buffer = if taken & net::F_MRG_RXBUF != 0 {
        2048
    } else if taken & net::GUEST_SEGMENTED != 0 {
        MAX_FRAME + LEN
    } else {
        (len + LEN).max(2048)
    };
    let mut options = NetOptions {
        pairs: number(matches, "pairs", 1..=127)?.unwrap_or(1),
        ring_size,
        // A reflector sends whatever it receives.
        max_frame: if mode == Some(Kind::Reflector) {
            MAX_FRAME
        } else {
            len
        },
        rx_buffer: number(matches, "rx-buffer", 64..=1 << 17)?.unwrap_or(rx_buffer),
        layout: Layout {
            header_apart: matches.opt_present("header-apart"),
            piece: number(matches, "piece", 1..=1 << 17)?.unwrap_or(0),
        },
        regions: number(matches, "regions", 1..=64)?.unwrap_or(1),
        signalling: if matches.opt_present("pipes") {
            Signalling::Pipe
        } else {
            Signalling::Eventfd
        },
        ..NetOptions::default()
    };
    let piece = usize::try_from(options.layout.piece).unwrap_or(0);
    let most = MAX_SEGMENTS.min(usize::from(ring_size));
    if piece > 0 && (options.rx_buffer.max(len) + LEN) / piece + 2 > most {
        return Err(wrong(
            &format!("--piece={piece}"),
            format!("makes more than {most} pieces of a buffer"),
            "give more, or shorten --length and --rx-buffer",
        ));
    }
    options.negotiation.features = taken;
    options.negotiation.required = required;
    Ok(options)
}
