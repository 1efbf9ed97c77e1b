//! DPDK's testpmd with `net_vhost` ports in `io` mode: what arrives at one port
//! of a pair leaves at the other, whatever its addresses.

use std::path::PathBuf;
use std::time::Duration;

use bed::{Links, Result, Scratch, Testpmd, equipment};

use super::{BackEnd, Server, said, sockets, vtnetd};
use crate::closed_loop::Effort;
use crate::processor;
use crate::work::Work;

/// The name of [`NetVhost`].
pub const NAME: &str = "testpmd";

#[derive(Default)]
pub struct NetVhost {
    /// Frames may be left to be finished by who receives them.
    pub offloads: bool,
    /// It has not only the back end's processor.
    pub anywhere: bool,
}

impl Server for NetVhost {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ours(&self) -> Option<&'static str> {
        Some(vtnetd::NAME)
    }

    fn version(&self) -> Result<String> {
        said(equipment::TESTPMD, &["-v", "-h"], "RTE Version")
    }

    fn equipment(&self) -> Result<()> {
        equipment::testpmd()
    }

    fn start(&self, work: &Work) -> Result<Box<dyn BackEnd>> {
        let scratch = Scratch::new()?;
        let sockets = sockets(&scratch, work);
        let links = Links {
            offloads: self.offloads,
            ..work.links()
        };
        let cpu = (!self.anywhere).then_some(processor::BACK_END);
        let mut process = Testpmd::back_end(&sockets, links, cpu)?;
        process.run("start")?;
        Ok(Box::new(Running {
            process,
            sockets,
            _scratch: scratch,
        }))
    }
}

struct Running {
    process: Testpmd,
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
        bed::processor_time(self.process.id())
    }

    fn effort(&mut self, _: f64) -> Result<Option<Effort>> {
        let effort = self.process.effort()?;
        Ok(Some(effort.into()))
    }

    fn stop(self: Box<Self>) -> Result<()> {
        self.process.quit()
    }
}
