//! One run: connect, drive the device, report.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

use super::options::{Config, Peer};
use super::work::{Turn, Work};
use crate::driver::front_end::{FrontEnd, FrontEndError};
use crate::driver::net::{DriverError, NetConfig, NetDriver, Pair};
use crate::driver::report::{self, Counters, Kind, Times};
use crate::event::{Signal, Signals};
use crate::frontend::vhost_user::message::protocol_feature;
use crate::net::ethernet::Mac;
use crate::process::{Exit, inherited};
use crate::virtio::feature_names;
use crate::virtio::spec::{net, net_status};

/// How long the loop goes on looking before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// How often a busy loop looks for signals and the end of the connection.
const LOOK: Duration = Duration::from_millis(1);
/// How often it reports with `-v`.
const TICK: Duration = Duration::from_secs(1);

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The back end or its device.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// Nobody can connect to us.
    #[error("{path}: cannot listen: {source}; remove what is there, or choose another path")]
    Listen {
        /// Where.
        path: PathBuf,
        /// What bind(2) said.
        source: io::Error,
    },
    /// An inherited descriptor is not what it should be.
    #[error("--fd={0}: {1}; start vtgen with a connected socket there")]
    Inherited(i32, String),
    /// The processor cannot be chosen.
    #[error("--cpu={0}: this process may not run there ({1}); give a processor where it may")]
    Cpu(usize, Errno),
    /// No probe came back.
    #[error("no probe came back; is there a vtgen reflect at the other end?")]
    NoAnswer,
    /// A signal before the back end had connected.
    #[error("ended by a signal before the back end connected")]
    Interrupted,
    /// Something that every process may have.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

impl RunError {
    /// The status of sysexits(3) for it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Driver(DriverError::Gone) | Self::Interrupted => Exit::Unavailable,
            Self::Driver(DriverError::FrontEnd(error)) => match error {
                FrontEndError::Connect { source, .. }
                    if source.kind() == io::ErrorKind::PermissionDenied =>
                {
                    Exit::Permission
                }
                FrontEndError::Connect { .. }
                | FrontEndError::TurnedAway
                | FrontEndError::Features { .. }
                | FrontEndError::NotNegotiated(_) => Exit::Unavailable,
                FrontEndError::System(_) => Exit::Os,
                _ => Exit::Protocol,
            },
            Self::Driver(DriverError::Pairs { .. }) => Exit::Unavailable,
            Self::Driver(DriverError::System(_) | DriverError::Memory(_)) => Exit::Os,
            Self::Driver(_) => Exit::Protocol,
            Self::Listen { .. } => Exit::CannotCreate,
            Self::Inherited(..) | Self::Cpu(..) => Exit::Usage,
            Self::NoAnswer => Exit::TemporaryFailure,
            Self::System(..) => Exit::Os,
        }
    }
}

impl From<FrontEndError> for RunError {
    fn from(error: FrontEndError) -> Self {
        DriverError::from(error).into()
    }
}

/// Does what `config` says. What is asked for goes to `print`, one text at a
/// time; reports while at work go to `progress`.
///
/// # Errors
/// When the back end cannot be had or breaks the rules. What was counted until
/// then is printed all the same.
pub fn run(
    config: &Config,
    print: &mut dyn FnMut(&str),
    progress: &mut dyn FnMut(&str),
) -> Result<(), RunError> {
    if let Some(cpu) = config.cpu {
        pin(cpu).map_err(|errno| RunError::Cpu(cpu, errno))?;
    }
    let signals = Signals::new().map_err(|error| RunError::System("signals", error))?;
    let front_end = connect(&config.peer, &signals)?;
    let mut driver = NetDriver::start(front_end, &config.net)?;
    if let Some(mac) = config.set_mac {
        driver.front_end().set_config(0, &mac.0)?;
    }
    if config.watch_config {
        driver.front_end().open_request_channel()?;
    }
    if config.config || config.watch_config {
        let now = driver.config()?;
        print(&describe(&mut driver, now, config.json));
    }
    // Behind the others, so that a change by it is noticed.
    if let Some(mtu) = config.set_mtu {
        driver.front_end().set_mtu(mtu)?;
    }
    let Some(kind) = config.mode else {
        if config.watch_config {
            watch(&mut driver, &signals, config, print)?;
        }
        return Ok(());
    };
    let mac = address(&mut driver, config);
    let mut station = Station {
        config,
        kind,
        signals: &signals,
        driver: &mut driver,
        print,
        progress,
    };
    station.work(mac)
}

/// Runs this process on one processor only.
fn pin(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

fn connect(peer: &Peer, signals: &Signals) -> Result<FrontEnd, RunError> {
    match peer {
        Peer::Connect(path) => Ok(FrontEnd::connect(path)?),
        Peer::Listen(path) => accept(path, signals).map(FrontEnd::new),
        Peer::Inherited(number) => {
            let refused = |problem: String| RunError::Inherited(*number, problem);
            let missing = |_| refused("no such descriptor was inherited".to_owned());
            let fd = inherited(*number).map_err(missing)?;
            let socket = UnixStream::from(fd);
            // Only a connected socket has a peer.
            let peer = socket.peer_addr();
            peer.map_err(|error| refused(error.to_string()))?;
            Ok(FrontEnd::new(socket))
        }
    }
}

/// Waits for a back end to connect. The socket is gone afterwards.
fn accept(path: &Path, signals: &Signals) -> Result<UnixStream, RunError> {
    let failed = |source| RunError::Listen {
        path: path.to_owned(),
        source,
    };
    let listener = UnixListener::bind(path).map_err(failed)?;
    let ready = wait(&[listener.as_fd(), signals.as_fd()], &[], None);
    let accepted = match ready.map(|ready| ready[0]) {
        Ok(true) => listener.accept().map(|(socket, _)| socket).map_err(failed),
        Ok(false) => Err(RunError::Interrupted),
        Err(errno) => Err(RunError::System("poll", errno.into())),
    };
    let _ = std::fs::remove_file(path);
    accepted
}

/// Waits until a descriptor of `fds` can be read or one of `others` has been
/// closed at its other end, but not beyond `until`. Says for each whether that
/// is so, those of `fds` first.
fn wait(
    fds: &[BorrowedFd<'_>],
    others: &[BorrowedFd<'_>],
    until: Option<Instant>,
) -> nix::Result<Vec<bool>> {
    let readable = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
    let hangup = others.iter().map(|fd| PollFd::new(*fd, PollFlags::empty()));
    let mut all: Vec<_> = readable.chain(hangup).collect();
    let timeout = until
        .map(|until| until.saturating_duration_since(Instant::now()))
        .map(TimeSpec::from_duration);
    match ppoll(&mut all, timeout, None) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno),
    }
    Ok(all.iter().map(|fd| fd.any() == Some(true)).collect())
}

/// The address to send from: as told, else the device's, else one made up.
fn address(driver: &mut NetDriver, config: &Config) -> Mac {
    if let Some(mac) = config.source {
        return mac;
    }
    let front_end = driver.front_end();
    let known = front_end.offered() & net::F_MAC != 0
        && front_end.protocol() & protocol_feature::CONFIG != 0;
    let own = if known { driver.config().ok() } else { None };
    own.and_then(|own| own.mac).map_or_else(
        || {
            let [a, b, c, d] = std::process::id().to_be_bytes();
            // The bit for addresses that nobody administers.
            Mac([0x02, 0x76, a, b, c, d])
        },
        Mac,
    )
}

/// The device's features and configuration in words, or as JSON.
fn describe(driver: &mut NetDriver, config: NetConfig, json: bool) -> String {
    let offered = feature_names::describe(driver.front_end().offered());
    let used = feature_names::describe(driver.features());
    let protocol = driver.front_end().protocol();
    let mut fields = vec![
        ("offered", offered, true),
        ("used", used, true),
        ("protocol", format!("{protocol:#x}"), true),
    ];
    if let Some(mac) = config.mac {
        fields.push(("mac", Mac(mac).to_string(), true));
    }
    if let Some(status) = config.status {
        let up = status & net_status::LINK_UP != 0;
        fields.push(("link", if up { "up" } else { "down" }.to_owned(), true));
        let announce = status & net_status::ANNOUNCE != 0;
        fields.push(("announce", announce.to_string(), false));
    }
    if let Some(pairs) = config.max_pairs {
        fields.push(("pairs", pairs.to_string(), false));
    }
    if let Some(mtu) = config.mtu {
        fields.push(("mtu", mtu.to_string(), false));
    }
    let (between, open, close) = if json {
        (", ", "{", "}\n")
    } else {
        ("\n", "", "\n")
    };
    let told: Vec<_> = fields
        .into_iter()
        .map(|(name, value, is_text)| match (json, is_text) {
            (true, true) => format!("\"{name}\": \"{value}\""),
            (true, false) => format!("\"{name}\": {value}"),
            (false, _) => format!("{name}: {value}"),
        })
        .collect();
    format!("{open}{}{close}", told.join(between))
}

/// Prints the configuration whenever it changes, until a signal.
fn watch(
    driver: &mut NetDriver,
    signals: &Signals,
    config: &Config,
    print: &mut dyn FnMut(&str),
) -> Result<(), RunError> {
    let until = config
        .duration
        .and_then(|time| Instant::now().checked_add(time));
    loop {
        let front_end = driver.front_end();
        let requests = front_end.request_fd();
        let fds: Vec<_> = [signals.as_fd()].into_iter().chain(requests).collect();
        let ready = wait(&fds, &[front_end.as_fd()], until).map_err(DriverError::from)?;
        if is_told_to_end(signals) || until.is_some_and(|until| Instant::now() >= until) {
            return Ok(());
        }
        changes(driver, config, print)?;
        if ready.last() == Some(&true) {
            return Err(DriverError::Gone.into());
        }
    }
}

/// Prints the configuration for each notification of a change.
fn changes(
    driver: &mut NetDriver,
    config: &Config,
    print: &mut dyn FnMut(&str),
) -> Result<(), RunError> {
    loop {
        match driver.front_end().next_request() {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            // It ends with the back end, whatever was asked on it last.
            Err(error) if error.is_gone() => return Err(DriverError::Gone.into()),
            Err(error) => return Err(error.into()),
        }
        let now = driver.config()?;
        print(&describe(driver, now, config.json));
    }
}

fn is_told_to_end(signals: &Signals) -> bool {
    let ends = |signal| matches!(signal, Signal::SIGINT | Signal::SIGTERM);
    std::iter::from_fn(|| signals.next()).any(ends)
}

/// What a run in some mode works with.
struct Station<'a> {
    config: &'a Config,
    kind: Kind,
    signals: &'a Signals,
    driver: &'a mut NetDriver,
    print: &'a mut dyn FnMut(&str),
    progress: &'a mut dyn FnMut(&str),
}

impl Station<'_> {
    /// Works until the end, then reports.
    fn work(&mut self, mac: Mac) -> Result<(), RunError> {
        let start = Instant::now();
        let features = self.driver.features();
        let pairs = self.driver.pairs();
        let mut work = Work::new(self.config, self.kind, mac, features, pairs, start);
        let outcome = self.turns(&mut work, start);
        let settled = Work::settle(self.driver.pairs());
        let times = Times {
            total: start.elapsed(),
            receiving: work.receiving(),
        };
        let counters = work.counters(self.driver.pairs());
        let text = if self.config.json {
            report::json(self.kind, counters, times) + "\n"
        } else {
            report::summary(self.kind, counters, times)
        };
        (self.print)(&text);
        outcome?;
        settled?;
        if self.kind == Kind::Ping && counters.tally.good == 0 {
            return Err(RunError::NoAnswer);
        }
        Ok(())
    }

    fn turns(&mut self, work: &mut Work, start: Instant) -> Result<(), RunError> {
        let mut last_busy = start;
        let mut last_look = start;
        let mut last_tick = start;
        let mut told = Counters::default();
        loop {
            let now = Instant::now();
            let turn = work.turn(self.driver.pairs(), now)?;
            let next = match turn {
                Turn::Done => return Ok(()),
                Turn::Busy => {
                    last_busy = now;
                    None
                }
                Turn::Idle(next) => next,
            };
            let tick = last_tick + TICK;
            if self.config.verbose > 0 && now >= tick {
                let counters = work.counters(self.driver.pairs());
                let time = now - last_tick;
                (self.progress)(&report::interval(self.kind, counters, &told, time));
                told = counters.clone();
                last_tick = now;
            }
            let sleeps = !self.config.poll && now - last_busy >= SPIN;
            let until = if sleeps {
                let tick = (self.config.verbose > 0).then_some(last_tick + TICK);
                next.into_iter().chain(tick).min()
            } else if now - last_look >= LOOK {
                Some(now)
            } else {
                std::hint::spin_loop();
                continue;
            };
            last_look = now;
            if self.look(work, sleeps, until)? {
                return Ok(());
            }
        }
    }

    /// Waits for an interrupt or `until`, and looks for signals and the back
    /// end. `true`: it is time to end.
    fn look(
        &mut self,
        work: &Work,
        sleeps: bool,
        until: Option<Instant>,
    ) -> Result<bool, RunError> {
        let mut until = until;
        if sleeps && arm(work, self.driver.pairs()) {
            until = Some(Instant::now());
        }
        let signals = [self.signals.as_fd()].into_iter();
        let fds: Vec<_> = signals.chain(self.driver.wake_fds()).collect();
        let connection = self.driver.connection_fd();
        let ready = wait(&fds, &[connection], until).map_err(DriverError::from)?;
        let gone = ready.last() == Some(&true);
        self.driver.take_interrupts()?;
        if sleeps {
            for pair in self.driver.pairs() {
                pair.rx.disable_interrupts();
                pair.tx.disable_interrupts();
            }
        }
        if self.config.watch_config {
            changes(self.driver, self.config, self.print)?;
        }
        if gone {
            return Err(DriverError::Gone.into());
        }
        Ok(is_told_to_end(self.signals))
    }
}

/// Asks for the interrupts that the work waits for. `true`: there is something
/// to do already.
fn arm(work: &Work, pairs: &mut [Pair]) -> bool {
    let mut ready = false;
    for pair in pairs {
        let (arrivals, room) = work.waits_for(pair);
        if arrivals {
            ready |= pair.rx.enable_interrupts();
        }
        if room {
            // Not for each, but before the device runs out of frames.
            let most = pair.tx.outstanding();
            ready |= pair.tx.enable_interrupts_after(most - most / 4);
        }
    }
    ready
}
