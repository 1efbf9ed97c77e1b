//! vtnetd, with the sandbox on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bed::{Result, Scratch, Vtnetd};

use super::{BackEnd, Server, said, sockets};
use crate::closed_loop::{Effort, count};
use crate::processor;
use crate::work::Work;

/// The name of [`OnVale`].
pub const NAME: &str = "vtnetd";
/// Options that make it never sleep.
pub const ALWAYS_POLL: &[&str] = &["--poll-us", "always"];

/// The program that is measured: the one of this build, or that in the
/// directory that `VTNETD_BIN` names.
pub fn program() -> PathBuf {
    bed::program(env!("CARGO_BIN_EXE_vtnetd"))
}

/// Its version, and the commit if this is a work tree.
///
/// # Errors
/// It does not say.
pub fn version() -> Result<String> {
    let version = said(&program().to_string_lossy(), &["--version"], "vtnetd")?;
    let here = env!("CARGO_MANIFEST_DIR");
    let commit = said(
        "git",
        &["-C", here, "log", "-1", "--format=commit %h"],
        "commit",
    );
    Ok(match commit {
        Ok(commit) => format!("{version}, {commit}"),
        Err(_) => version,
    })
}

/// Whether this vtnetd has options as new as these.
///
/// # Errors
/// It does not say what it has.
pub fn takes(options: &[&str]) -> Result<bool> {
    let name = options.first().copied().unwrap_or_default();
    let name = name.trim_start_matches('-');
    let help = Command::new(program()).arg("--help").output()?;
    Ok(String::from_utf8_lossy(&help.stdout).contains(name))
}

/// A port of one switch of its own for each guest.
#[derive(Default)]
pub struct OnVale {
    /// Options besides the devices.
    pub options: &'static [&'static str],
    /// It has not only the back end's processor.
    pub anywhere: bool,
}

impl Server for OnVale {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ours(&self) -> Option<&'static str> {
        None
    }

    fn version(&self) -> Result<String> {
        version()
    }

    fn equipment(&self) -> Result<()> {
        Ok(())
    }

    fn start(&self, work: &Work) -> Result<Box<dyn BackEnd>> {
        let scratch = Scratch::new()?;
        let sockets = sockets(&scratch, work);
        let vale = |guest: usize| format!("vale0:vm{guest}");
        let devices = devices(&sockets, work, vale);
        let cpu = (!self.anywhere).then(|| processor::BACK_END.to_string());
        let process = Vtnetd::start_with(&program(), self.options, &devices, cpu.as_deref())?;
        Ok(Box::new(Running {
            process,
            sockets,
            _scratch: scratch,
        }))
    }
}

/// `-s` strings of a device for each of `sockets`; `back_end` is what the
/// guest of a number, from 1 on, is connected to.
pub fn devices(
    sockets: &[PathBuf],
    work: &Work,
    back_end: impl Fn(usize) -> String,
) -> Vec<String> {
    let device = |(at, socket): (usize, &PathBuf)| {
        let (back_end, socket) = (back_end(at + 1), Path::display(socket));
        format!(
            "virtio-net,{back_end},socket={socket},queues={}",
            work.pairs
        )
    };
    sockets.iter().enumerate().map(device).collect()
}

/// A vtnetd that serves.
struct Running {
    process: Vtnetd,
    sockets: Vec<PathBuf>,
    _scratch: Scratch,
}

impl BackEnd for Running {
    fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    fn command_line(&self) -> String {
        self.process.command_line().to_owned()
    }

    fn processor_time(&self) -> Result<Duration> {
        self.process.processor_time()
    }

    fn effort(&mut self, clock: f64) -> Result<Option<Effort>> {
        let counters = self.process.counters()?;
        let worked = self.process.worked()?;
        Ok(Some(Effort {
            cycles: worked.as_secs_f64() * clock,
            frames: count(counters.sent()),
        }))
    }

    fn stop(self: Box<Self>) -> Result<()> {
        self.process.stop()?;
        Ok(())
    }
}
