//! A network of a test's own.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Result};

/// A network namespace (network_namespaces(7)) without a name, gone with the
/// last process that is in it.
pub struct Namespace(File);

impl Namespace {
    /// Makes one that nobody speaks in unasked.
    ///
    /// # Errors
    /// This user may not (see [`equipment::tap`](crate::equipment::tap)).
    pub fn new() -> Result<Self> {
        // A namespace belongs to a thread and what it starts.
        let made = thread::scope(|scope| {
            let thread = scope.spawn(|| -> io::Result<File> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                // Neither router solicitations nor duplicate address detection.
                for which in ["default", "all"] {
                    let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
                    // A kernel without IPv6 is as good.
                    let _ = fs::write(path, "1");
                }
                File::open("/proc/thread-self/ns/net")
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        });
        made.map(Self)
            .map_err(|error| Error::from(error).while_doing("network namespace"))
    }

    /// Calls `body` on a thread that is in it, as are the threads, processes
    /// and sockets that `body` makes.
    ///
    /// # Errors
    /// Those of `body`.
    ///
    /// # Panics
    /// When `body` does.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
                body()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Runs a command in it, given as one line of words.
    ///
    /// # Errors
    /// The command failed.
    pub fn run(&self, line: &str) -> Result<()> {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        let output = self.within(|| Ok(command.output()?))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Error::new(format!("{line}: {said}")))
    }

    /// What ip(8) can call it by while this process has it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}
