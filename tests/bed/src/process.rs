//! A process whose output is read as it comes, and which does not outlive its
//! owner.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Result, Transcript};

/// A running program. Dropping it kills it.
pub struct Process {
    name: String,
    command_line: String,
    child: Child,
    stdin: Option<ChildStdin>,
    /// Standard output.
    pub output: Arc<Transcript>,
    /// Standard error.
    pub errors: Arc<Transcript>,
}

/// How many lines of what a process last said go into an error.
const TAIL: usize = 20;

impl Process {
    /// Starts `command`; `name` is what errors call it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                let program = command.get_program().to_string_lossy();
                Error::from(error).while_doing(format_args!("{name}: {program}"))
            })?;
        let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Error::new(format!("{name}: has no output")));
        };
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
        Ok(Self {
            name: name.to_owned(),
            command_line: words.join(" "),
            stdin: child.stdin.take(),
            child,
            output: Transcript::of(output),
            errors: Transcript::of(errors),
        })
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it was started.
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Gives it a line to read.
    ///
    /// # Errors
    /// It no longer reads.
    pub fn write_line(&mut self, line: &str) -> Result<()> {
        let written = match &mut self.stdin {
            Some(stdin) => stdin.write_all(format!("{line}\n").as_bytes()),
            None => Err(ErrorKind::BrokenPipe.into()),
        };
        written.map_err(|error| self.explain(error.into(), line))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended, and was waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.id()).map_err(|_| Error::new("not a process ID"))?;
        kill(Pid::from_raw(pid), signal).map_err(|error| Error::from(std::io::Error::from(error)))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It goes on for longer than `within`.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        self.output
            .wait_for_end(within)
            .map_err(|error| self.explain(error, "waiting for its end"))?;
        Ok(self.child.wait()?)
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// It does not within `within`.
    pub fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(within)
    }

    /// Ends it at once (SIGKILL).
    ///
    /// # Errors
    /// None that a started process gives.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Adds to `error` what the process was doing and what it last said.
    pub fn explain(&self, error: Error, doing: &str) -> Error {
        let mut text = format!("{}: {doing}: {error}", self.name);
        for (stream, name) in [(&self.output, "output"), (&self.errors, "error")] {
            let lines = stream.since(stream.len().saturating_sub(TAIL));
            for line in lines {
                text.push_str(&format!("\n    {name}: {line}"));
            }
        }
        Error::new(text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.kill();
    }
}
