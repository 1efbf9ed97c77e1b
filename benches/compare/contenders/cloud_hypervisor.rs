//! Cloud Hypervisor's `vhost_user_net`, a process a guest, on the same taps as
//! vtnetd. No distribution has it: `VHOST_USER_NET` names the program, or it is
//! in `PATH`.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use bed::{Error, Process, Result, Scratch, equipment};

use super::tap::{self, Bridge, tap};
use super::{BackEnd, Server, said, sockets};
use crate::processor::BACK_END;
use crate::work::{Format, Work};

const PROGRAM: &str = "vhost_user_net";
/// How long it may take to listen, and to end.
const SOON: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

fn program() -> OsString {
    env::var_os("VHOST_USER_NET").unwrap_or_else(|| PROGRAM.into())
}

pub struct VhostUserNet;

impl Server for VhostUserNet {
    fn name(&self) -> &'static str {
        "cloud-hypervisor"
    }

    fn ours(&self) -> Option<&'static str> {
        Some(tap::NAME)
    }

    fn version(&self) -> Result<String> {
        // Not every release has the option.
        let path = program().to_string_lossy().into_owned();
        Ok(said(&path, &["--version"], "backend").unwrap_or(path))
    }

    fn equipment(&self) -> Result<()> {
        equipment::tap()?;
        match env::var_os("VHOST_USER_NET").map(PathBuf::from) {
            Some(path) if path.is_file() => Ok(()),
            Some(path) => Err(Error::new(format!(
                "VHOST_USER_NET: {}: no such file",
                path.display()
            ))),
            None => equipment::program(PROGRAM),
        }
    }

    fn declines(&self, work: &Work) -> Option<&'static str> {
        (work.format == Format::Packed).then_some("has no packed rings")
    }

    fn start(&self, work: &Work) -> Result<Box<dyn BackEnd>> {
        let scratch = Scratch::new()?;
        let sockets = sockets(&scratch, work);
        let bridge = Bridge::new(work)?;
        let mut processes = Vec::new();
        for (at, socket) in sockets.iter().enumerate() {
            let mut command = equipment::pinned(program(), Some(&BACK_END.to_string()));
            // It counts queues, not pairs, and gives each tap an address.
            command.arg("--net-backend").arg(format!(
                "socket={},tap={},num_queues={},queue_size=256,ip=198.18.{at}.1,mask=255.255.255.0",
                socket.display(),
                tap(at + 1),
                2 * work.pairs
            ));
            let process = bridge.within(|| Process::start(PROGRAM, &mut command))?;
            let deadline = Instant::now() + SOON;
            while !socket.exists() {
                if Instant::now() > deadline {
                    let error = Error::new("does not listen");
                    return Err(process.explain(error, "waiting for its socket"));
                }
                thread::sleep(LOOK_AGAIN);
            }
            processes.push(process);
        }
        bridge.join(work)?;
        Ok(Box::new(Running {
            processes,
            sockets,
            _bridge: bridge,
            _scratch: scratch,
        }))
    }
}

struct Running {
    processes: Vec<Process>,
    sockets: Vec<PathBuf>,
    _bridge: Bridge,
    _scratch: Scratch,
}

impl BackEnd for Running {
    fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    fn command_line(&self) -> String {
        let lines = self.processes.iter().map(Process::command_line);
        lines.collect::<Vec<_>>().join("; ")
    }

    fn processor_time(&self) -> Result<Duration> {
        let ids = self.processes.iter().map(Process::id);
        ids.map(bed::processor_time).sum()
    }

    fn stop(mut self: Box<Self>) -> Result<()> {
        // It ends by itself when its front end is gone, and else when told.
        self.processes.iter_mut().try_for_each(Process::kill)
    }
}
