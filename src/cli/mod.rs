//! The command line of vtnetd(8): options, device strings, and their errors.
//!
//! Pure text in, plain data out. Nothing is opened and nobody is asked here;
//! everything that can be known to be wrong from the text alone is an error,
//! which names the option and the cure ([`UsageError`], exit status 64).

mod backend;
mod conflicts;
mod device;
mod error;
mod keys;
mod netgraph;
mod netmap;
mod service;
mod tap;
#[cfg(test)]
mod tests;
mod threads;

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::path::PathBuf;

use getopts::{Fail, HasArg, Occur, Options};

pub use backend::BackendSpec;
pub use device::{DeviceSpec, SocketSpec};
pub use error::UsageError;
pub use service::ServiceSpec;

use crate::worker::Polling;
use error::Blame;

/// What `--print-capabilities` prints: the union VHostUserBackendCapabilities
/// of QEMU's `docs/interop/vhost-user.json`, in which a network back end has a
/// type and no members of its own.
pub const CAPABILITIES: &str = "{\"type\": \"net\"}\n";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve devices.
    Run(Config),
    /// Print [`usage`] (`-h`).
    Help,
    /// Print the version (`--version`).
    Version,
    /// Print [`CAPABILITIES`] (`--print-capabilities`).
    PrintCapabilities,
}

/// How to serve, and which devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `-d`: log lines say which module and thread they come from.
    pub debug: bool,
    /// How many steps more than usual to log: `-v`, `-d`.
    pub verbose: usize,
    /// `-p`: where to write the process ID.
    pub pid_file: Option<PathBuf>,
    /// `-u`: the user that serves.
    pub user: Option<String>,
    /// Not `--no-sandbox`.
    pub sandbox: bool,
    /// `--workers`: how many threads serve.
    pub workers: Option<usize>,
    /// `--poll-us`: how long they look for work before they sleep.
    pub polling: Polling,
    /// `-N`: other programs may use netmap ports.
    pub service: Option<Box<ServiceSpec>>,
    /// `-s`: at least one, unless there is a service.
    pub devices: Vec<DeviceSpec>,
}

fn options() -> Options {
    let mut options = Options::new();
    options
        .optflag("d", "", "debug: log as -v does, with module and thread")
        .optflag("h", "help", "print this and exit")
        .optopt(
            "N",
            "",
            "let other programs use netmap ports by this socket",
            "SERVICE",
        )
        .optopt("p", "", "write the process ID here once ready", "PIDFILE")
        .opt(
            "s",
            "",
            "serve this device; may be repeated",
            "DEVICE",
            HasArg::Yes,
            Occur::Multi,
        )
        .optopt(
            "u",
            "",
            "serve as this user; what needs root is done by the opener",
            "USER",
        )
        .optflagmulti("v", "", "log what front ends set up; twice: each message")
        .optopt(
            "",
            "socket-path",
            "listen here, in place of socket= in the only -s",
            "PATH",
        )
        .optopt(
            "",
            "fd",
            "use this inherited socket, in place of fd= in the only -s",
            "N",
        )
        .optflag(
            "",
            "print-capabilities",
            "print what this back end can do, as JSON, and exit",
        )
        .optflag(
            "",
            "no-sandbox",
            "serve without the sandbox, which is not safe",
        )
        .optopt(
            "",
            "poll-us",
            "look for more work for some N microseconds before sleeping (50); always: never sleep",
            "N|always",
        )
        .optopt(
            "",
            "workers",
            "serve with N threads (one on each processor, and no more than queue pairs)",
            "N",
        )
        .optflag("", "version", "print the version and exit");
    options
}

/// The text of `-h`: a synopsis, the options, and what a device consists of.
pub fn usage() -> String {
    let synopsis = "usage: vtnetd [-dhv] [-p pidfile] [-u user] [--no-sandbox] [--poll-us=N] [--workers=N]\n              \
                    [-N service] -s device ...\n       \
                    vtnetd [-dv] [-p pidfile] [-u user] [--no-sandbox] [--poll-us=N] [--workers=N]\n              \
                    --socket-path=PATH | --fd=N -s device";
    let mut text = options().usage(synopsis);
    text.push_str(&service::usage());
    text.push_str(&device::usage());
    text
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
    // QEMU's convention has it that nothing else counts then, be it right or
    // wrong.
    if args.iter().any(|arg| arg == "--print-capabilities") {
        return Ok(Command::PrintCapabilities);
    }
    let args = args.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let matches = options().parse(args).map_err(misuse)?;
    if matches.opt_present("h") {
        return Ok(Command::Help);
    }
    if matches.opt_present("version") {
        return Ok(Command::Version);
    }
    if let Some(extra) = matches.free.first() {
        return Err(
            format!("'{extra}'").blame("argument without an option", "put -s before a device")
        );
    }

    let pid_file = matches.opt_str("p");
    if pid_file.as_deref() == Some("") {
        return Err("-p".blame("the path is empty", "write -p /var/run/vtnetd.pid"));
    }
    let user = matches.opt_str("u");
    if user.as_deref() == Some("") {
        return Err("-u".blame("the name is empty", "write -u vtnetd, or leave it out"));
    }
    let workers = matches.opt_str("workers");
    let workers = workers.as_deref().map(threads::workers).transpose()?;
    let polling = matches.opt_str("poll-us");
    let polling = polling.as_deref().map(threads::polling).transpose()?;
    let service = matches.opt_str("N");
    let service = service.as_deref().map(ServiceSpec::parse).transpose()?;
    let service = service.map(Box::new);
    let strings = matches.opt_strs("s");
    let socket = outer_socket(matches.opt_str("socket-path"), matches.opt_str("fd"))?;
    let devices = match (strings.as_slice(), socket) {
        ([], None) if service.is_some() => Vec::new(),
        ([], _) => {
            return Err("-s".blame(
                "no device is given",
                "write -s virtio-net,vale0:vm1,socket=/var/run/vm1.sock",
            ));
        }
        ([only], socket) => vec![DeviceSpec::parse(only, socket)?],
        ([_, _, ..], Some((option, _))) => {
            return Err(option.as_str().blame(
                format!("serves one device, but there are {} -s", strings.len()),
                "write socket= or fd= into each -s instead",
            ));
        }
        (several, None) => several
            .iter()
            .map(|string| DeviceSpec::parse(string, None))
            .collect::<Result<_, _>>()?,
    };
    conflicts::check(&devices, service.as_deref())?;
    let debug = matches.opt_present("d");
    Ok(Command::Run(Config {
        debug,
        verbose: matches.opt_count("v").max(usize::from(debug)),
        pid_file: pid_file.map(PathBuf::from),
        user,
        sandbox: !matches.opt_present("no-sandbox"),
        workers,
        polling: polling.unwrap_or_default(),
        service,
        devices,
    }))
}

/// `--socket-path` or `--fd`, with the option as it was written.
fn outer_socket(
    path: Option<String>,
    fd: Option<String>,
) -> Result<Option<(String, SocketSpec)>, UsageError> {
    match (path, fd) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err("--fd".blame(
            "excludes --socket-path",
            "leave one of them out: a device has one socket",
        )),
        (Some(path), None) => {
            let option = format!("--socket-path={path}");
            let path = device::socket_path(&option, &path)?;
            Ok(Some((option, SocketSpec::Listen(path))))
        }
        (None, Some(fd)) => {
            let option = format!("--fd={fd}");
            let fd: RawFd = device::descriptor(&option, &fd)?;
            Ok(Some((option, SocketSpec::Fd(fd))))
        }
    }
}

fn text(arg: &OsString) -> Result<&str, UsageError> {
    let lossy = OsStr::to_string_lossy(arg);
    arg.to_str()
        .ok_or_else(|| lossy.blame("not UTF-8", "use names and paths that are UTF-8"))
}

/// What getopts has found, in our words.
fn misuse(fail: Fail) -> UsageError {
    let dashed = |name: &str| {
        let dashes = if name.chars().count() == 1 { "-" } else { "--" };
        format!("{dashes}{name}")
    };
    match fail {
        Fail::UnrecognizedOption(name) => {
            dashed(&name).blame("unknown option", "vtnetd -h lists those that there are")
        }
        Fail::ArgumentMissing(name) => dashed(&name).blame(
            "its argument is missing",
            "write one behind it; vtnetd -h shows what",
        ),
        Fail::UnexpectedArgument(name) => {
            dashed(&name).blame("takes no argument", "leave out '=' and what follows it")
        }
        Fail::OptionDuplicated(name) | Fail::OptionMissing(name) => {
            dashed(&name).blame("given more than once", "leave all but one out")
        }
    }
}
