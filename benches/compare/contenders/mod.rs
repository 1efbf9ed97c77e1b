//! Who is compared.

#[cfg(target_os = "linux")]
mod cloud_hypervisor;
mod copy_loop;
pub mod ovs;
#[cfg(target_os = "linux")]
mod tap;
pub mod testpmd;
pub mod vtnetd;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bed::{Error, Result};

use crate::closed_loop::{self, Effort, Measured};
use crate::driver_loop;
use crate::work::{FrontEnd, Work};

/// Who can be measured on a cell's work.
pub trait Contender {
    /// What tables and the command line call it.
    fn name(&self) -> &'static str;

    /// The name of the vtnetd that it is compared with, which is in the same
    /// place; `None`: it is that.
    fn ours(&self) -> Option<&'static str>;

    /// What ran, as it says itself.
    ///
    /// # Errors
    /// It does not say.
    fn version(&self) -> Result<String>;

    /// # Errors
    /// What this machine lacks.
    fn equipment(&self) -> Result<()>;

    /// Why it cannot do this work at all.
    fn declines(&self, work: &Work) -> Option<&'static str>;

    /// Who drives it at this work.
    fn front_end(&self, work: &Work) -> &'static str {
        work.front_end.name()
    }

    /// One sample.
    ///
    /// # Errors
    /// It fails; or it lacks what the work takes, as it turns out.
    fn measure(&self, work: &Work, time: Duration) -> Result<Measured>;
}

/// A contender that is a vhost-user back end.
pub trait Server {
    fn name(&self) -> &'static str;

    /// See [`Contender::ours`].
    fn ours(&self) -> Option<&'static str>;

    /// # Errors
    /// It does not say.
    fn version(&self) -> Result<String>;

    /// # Errors
    /// What this machine lacks.
    fn equipment(&self) -> Result<()>;

    /// See [`Contender::declines`].
    fn declines(&self, _: &Work) -> Option<&'static str> {
        None
    }

    /// Has it listen on a socket for each guest, on its processor.
    ///
    /// # Errors
    /// It does not.
    fn start(&self, work: &Work) -> Result<Box<dyn BackEnd>>;
}

/// A running vhost-user back end. Dropping it kills it.
pub trait BackEnd {
    /// Where it listens, a guest each.
    fn sockets(&self) -> &[PathBuf];

    /// How it was started.
    fn command_line(&self) -> String;

    /// Called when the front ends have connected: waits until it serves them.
    ///
    /// # Errors
    /// It does not, or lacks what the work takes.
    fn settle(&mut self, _: &Work) -> Result<()> {
        Ok(())
    }

    /// The processor time that it has used.
    ///
    /// # Errors
    /// It is gone.
    fn processor_time(&self) -> Result<Duration>;

    /// What frames have cost it in the turns that had some, if it counts that, in
    /// cycles of which there are `clock` a second.
    ///
    /// # Errors
    /// It does not say.
    fn effort(&mut self, _clock: f64) -> Result<Option<Effort>> {
        Ok(None)
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It does not end.
    fn stop(self: Box<Self>) -> Result<()>;
}

impl<S: Server> Contender for S {
    fn name(&self) -> &'static str {
        Server::name(self)
    }

    fn ours(&self) -> Option<&'static str> {
        Server::ours(self)
    }

    fn version(&self) -> Result<String> {
        Server::version(self)
    }

    fn equipment(&self) -> Result<()> {
        Server::equipment(self)
    }

    fn declines(&self, work: &Work) -> Option<&'static str> {
        Server::declines(self, work)
    }

    fn measure(&self, work: &Work, time: Duration) -> Result<Measured> {
        let mut back_end = self.start(work)?;
        let measured = match work.front_end {
            FrontEnd::Testpmd => closed_loop::measure(&mut *back_end, work, time)?,
            FrontEnd::Vtgen => driver_loop::measure(&mut *back_end, work, time)?,
        };
        back_end.stop()?;
        Ok(measured)
    }
}

/// All of them; the rest is compared with the first in the same place.
pub fn all() -> Vec<Box<dyn Contender>> {
    vec![
        Box::new(vtnetd::OnVale::default()),
        Box::new(testpmd::NetVhost::default()),
        Box::new(ovs::LearningBridge),
        Box::new(copy_loop::CopyLoop),
        #[cfg(target_os = "linux")]
        Box::new(tap::VtnetdOnTap),
        #[cfg(target_os = "linux")]
        Box::new(cloud_hypervisor::VhostUserNet),
    ]
}

/// A socket for each guest.
fn sockets(scratch: &bed::Scratch, work: &Work) -> Vec<PathBuf> {
    let guests = 1..=work.guests;
    guests
        .map(|guest| scratch.path(&format!("vm{guest}.sock")))
        .collect()
}

/// The first line with `word` in it of what a program says.
fn said(program: &str, arguments: &[&str], word: &str) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| Error::from(error).while_doing(program))?;
    // DPDK's programs speak to standard error.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.contains(word));
    let line = line.ok_or_else(|| Error::new(format!("{program}: says nothing of {word}")))?;
    Ok(line.trim().to_owned())
}
