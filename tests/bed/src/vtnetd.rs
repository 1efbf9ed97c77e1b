//! vtnetd as a process.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{Census, Error, Process, Result, census, equipment};

/// How long it may take for what it does at once: a machine that is emulated and
/// has others beside it needs seconds to give a port's memory back.
const SOON: Duration = Duration::from_secs(60);

/// What vtnetd counted: for each queue, such as `vale0:vm1 rx0`, the values of
/// its counters by name.
#[derive(Clone, Debug, Default)]
pub struct Counters(BTreeMap<String, BTreeMap<String, u64>>);

impl Counters {
    /// Takes a line of the log, if it is one of a queue's counters:
    /// `... DEVICE QUEUE: NAME=VALUE ...`.
    fn read(&mut self, line: &str) {
        let Some((before, after)) = line.split_once(": frames=") else {
            return;
        };
        let mut names = before.split_whitespace().rev();
        let (Some(queue), Some(device)) = (names.next(), names.next()) else {
            return;
        };
        let counters = format!("frames={after}")
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect();
        self.0.insert(format!("{device} {queue}"), counters);
    }

    /// Counter `name`, summed over the queues whose names begin with `queues`:
    /// `vale0:vm1 rx` is what that device received.
    pub fn sum(&self, queues: &str, name: &str) -> u64 {
        let of = self.0.iter().filter(|(queue, _)| queue.starts_with(queues));
        of.filter_map(|(_, counters)| counters.get(name)).sum()
    }

    /// Frames that all guests have sent.
    pub fn sent(&self) -> u64 {
        let of = self.0.iter().filter(|(queue, _)| queue.contains(" tx"));
        of.filter_map(|(_, counters)| counters.get("frames")).sum()
    }
}

/// A running vtnetd. Dropping it kills it.
pub struct Vtnetd {
    process: Process,
    /// How many queues its devices have.
    queues: usize,
    /// The first line of its log that nobody has waited for.
    next: usize,
}

impl Vtnetd {
    /// Starts `program` with a `-s` for each of `devices`, on the processors
    /// `cpus` (see [`equipment::pinned`]), and waits until all its sockets
    /// listen.
    ///
    /// # Errors
    /// It ends instead.
    pub fn start(program: &Path, devices: &[String], cpus: Option<&str>) -> Result<Self> {
        Self::start_with(program, &[], devices, cpus)
    }

    /// As [`start`](Self::start), with other options in front.
    ///
    /// # Errors
    /// It ends instead.
    pub fn start_with(
        program: &Path,
        options: &[&str],
        devices: &[String],
        cpus: Option<&str>,
    ) -> Result<Self> {
        let mut command = equipment::pinned(program, cpus);
        command.args(options);
        for device in devices {
            command.args(["-s", device]);
        }
        let pairs = devices.iter().map(|device| {
            let (_, behind) = device.split_once(",queues=").unwrap_or_default();
            behind
                .split(',')
                .next()
                .unwrap_or_default()
                .parse()
                .unwrap_or(1)
        });
        let mut vtnetd = Self {
            process: Process::start("vtnetd", &mut command)?,
            queues: 2 * pairs.sum::<usize>(),
            next: 0,
        };
        vtnetd.wait_for_log("ready")?;
        Ok(vtnetd)
    }

    /// How it was started.
    pub fn command_line(&self) -> &str {
        self.process.command_line()
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for a line of its log, behind the last one that was waited for,
    /// that has `text` in it.
    ///
    /// # Errors
    /// None comes.
    pub fn wait_for_log(&mut self, text: &str) -> Result<String> {
        let line = self
            .process
            .errors
            .wait_for(self.next, SOON, |line| line.contains(text))
            .map_err(|error| {
                self.process
                    .explain(error, &format!("waiting for '{text}'"))
            })?;
        self.next = line + 1;
        Ok(self.process.errors.since(line).swap_remove(0))
    }

    /// Asks it what it has counted (SIGUSR1).
    ///
    /// # Errors
    /// It does not say.
    pub fn counters(&mut self) -> Result<Counters> {
        self.next = self.process.errors.len();
        self.process.signal(Signal::SIGUSR1)?;
        let mut counters = Counters::default();
        while counters.0.len() < self.queues {
            let line = self.wait_for_log(": frames=")?;
            counters.read(&line);
        }
        Ok(counters)
    }

    /// How long the first of its workers has worked, of which the last
    /// [`counters`](Self::counters) tell as well.
    ///
    /// # Errors
    /// It does not say.
    pub fn worked(&mut self) -> Result<Duration> {
        let line = self.wait_for_log("worker0: ")?;
        let mut words = line.split_whitespace();
        let worked = words.find_map(|word| word.strip_prefix("worked="));
        let seconds = worked.and_then(|seconds| seconds.parse().ok());
        let seconds = seconds.ok_or_else(|| Error::new(format!("no time in: {line}")))?;
        Ok(Duration::from_secs_f64(seconds))
    }

    /// What it holds.
    ///
    /// # Errors
    /// It is gone.
    pub fn census(&self) -> Result<Census> {
        Census::of(self.id())
    }

    /// Its two processes: the one that serves, and its opener.
    fn processes(&self) -> Result<Vec<u32>> {
        let mut ids = census::children(self.id())?;
        ids.push(self.id());
        Ok(ids)
    }

    /// The processor time that both of its processes have used.
    ///
    /// # Errors
    /// It is gone, or this system does not count it.
    pub fn processor_time(&self) -> Result<Duration> {
        let ids = self.processes()?;
        ids.into_iter().map(census::processor_time).sum()
    }

    /// Bytes of resident memory that are its own, of both of its processes.
    ///
    /// # Errors
    /// It is gone.
    pub fn private_resident(&self) -> Result<u64> {
        let ids = self.processes()?;
        ids.into_iter().map(census::private_resident).sum()
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It does not.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.process.stop(SOON)
    }
}
