//! A service, and programs with the object in front of them.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bed::{Error, Process, Result, Scratch};

/// How long something may take that is done at once.
pub const SOON: Duration = Duration::from_secs(20);

/// A vtnetd that serves, and how to reach it.
pub struct Scene {
    pub vtnetd: Process,
    pub scratch: Scratch,
}

impl Scene {
    /// Starts vtnetd with no devices.
    pub fn new() -> Result<Self> {
        Self::with(&[])
    }

    /// Starts vtnetd with no devices and these keys behind the service's path.
    #[allow(dead_code, reason = "not used by all who have a scene")]
    pub fn with_keys(keys: &str) -> Result<Self> {
        Self::start(keys, &[])
    }

    /// Starts vtnetd with these arguments, too.
    pub fn with(arguments: &[&str]) -> Result<Self> {
        Self::start("", arguments)
    }

    fn start(keys: &str, arguments: &[&str]) -> Result<Self> {
        let scratch = Scratch::new()?;
        let mut command = Command::new(bed::program(env!("CARGO_BIN_EXE_vtnetd")));
        let mut service = scratch.path("netmap.sock").into_os_string();
        service.push(keys);
        command.arg("-N").arg(service);
        command.args(arguments);
        let vtnetd = Process::start("vtnetd", &mut command)?;
        let ready = vtnetd
            .errors
            .wait_for(0, SOON, |line| line.contains("ready"));
        ready.map_err(|error| vtnetd.explain(error, "waiting until it is ready"))?;
        Ok(Self { vtnetd, scratch })
    }

    /// The service's socket.
    pub fn socket(&self) -> PathBuf {
        self.scratch.path("netmap.sock")
    }

    /// Has `command` find the service in place of `/dev/netmap`.
    pub fn lead<'a>(&self, command: &'a mut Command) -> Result<&'a mut Command> {
        Ok(command
            .env("LD_PRELOAD", object()?)
            .env("VTNETMAP_SOCKET", self.socket()))
    }

    /// Ends vtnetd in order, which it is still there for.
    pub fn end(mut self) -> Result<()> {
        let status = self.vtnetd.stop(SOON)?;
        if status.success() {
            return Ok(());
        }
        let error = Error::new(status.to_string());
        Err(self.vtnetd.explain(error, "it did not end well"))
    }

    /// Starts `command` as a program that uses netmap.
    pub fn start_as(&self, name: &str, command: &mut Command) -> Result<Process> {
        self.lead(command)?;
        command.current_dir(&self.scratch);
        Process::start(name, command)
    }
}

/// Where the object is: cargo lays it beside the tests.
fn object() -> Result<PathBuf> {
    let here = env::current_exe()?;
    let object = bed::program(&here.with_file_name("libvtnetmap.so").to_string_lossy());
    if object.is_file() {
        return Ok(object);
    }
    Err(Error::new(format!("{} is not built", object.display())))
}
