//! Open vSwitch with DPDK: a bridge in user space that learns addresses, with
//! `dpdkvhostuser` ports. Both daemons are ours, with a database, sockets and
//! logs of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use bed::{Error, Process, Result, Scratch, equipment};

use super::{BackEnd, Server, said, vtnetd};
use crate::closed_loop::Effort;
use crate::processor::BACK_END;
use crate::work::{Format, Work};

/// The daemon that has DPDK in it; where Debian's alternatives leave it alone.
const DAEMON: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// How long it may take to start, to serve a guest, and to end. What maps a
/// guest's memory has to share the processor with what polls.
const SOON: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Huge pages of 2 MiB that it takes.
const HUGE_PAGES: u32 = 256;
/// The bit of VIRTIO_F_RING_PACKED.
const RING_PACKED: u32 = 34;
/// What a frame has besides the MTU.
const ETHERNET: u64 = 14;

pub struct LearningBridge;

impl Server for LearningBridge {
    fn name(&self) -> &'static str {
        "ovs-dpdk"
    }

    fn ours(&self) -> Option<&'static str> {
        Some(vtnetd::NAME)
    }

    fn version(&self) -> Result<String> {
        said(DAEMON, &["--version"], "Open vSwitch")
    }

    fn equipment(&self) -> Result<()> {
        for program in ["ovsdb-tool", "ovsdb-server", "ovs-vsctl", "ovs-appctl"] {
            equipment::program(program)?;
        }
        if !Path::new(DAEMON).is_file() {
            return Err(Error::new(format!("there is no {DAEMON}")));
        }
        // The front end takes half as many.
        let free = equipment::free_huge_pages();
        if free < HUGE_PAGES * 3 / 2 {
            return Err(Error::new(format!(
                "{free} free huge pages are too few: sysctl vm.nr_hugepages=640"
            )));
        }
        Ok(())
    }

    fn start(&self, work: &Work) -> Result<Box<dyn BackEnd>> {
        Ok(Box::new(Running::start(work)?))
    }
}

/// Both daemons. The bridge is dropped before what it stands on.
struct Running {
    switch: Process,
    database: Process,
    sockets: Vec<PathBuf>,
    scratch: Scratch,
}

impl Running {
    fn start(work: &Work) -> Result<Self> {
        let scratch = Scratch::new()?;
        let conf = scratch.path("conf.db");
        let mut create = Command::new("ovsdb-tool");
        run(create.arg("create").arg(&conf).arg(SCHEMA))?;
        let mut server = Command::new("ovsdb-server");
        server.arg(&conf);
        server.arg(format!("--remote=punix:{}", scratch.path("db").display()));
        let database = daemon("ovsdb-server", server, &scratch)?;
        let mut configure = vsctl(&scratch);
        configure.args(["--no-wait", "--", "init", "--", "set", "Open_vSwitch", "."]);
        configure.args([
            "other_config:dpdk-init=true".to_owned(),
            format!("other_config:dpdk-socket-mem={}", 2 * HUGE_PAGES),
            format!("other_config:dpdk-lcore-mask={:#x}", 1 << BACK_END),
            format!("other_config:pmd-cpu-mask={:#x}", 1 << BACK_END),
            "other_config:dpdk-extra=\"--in-memory --no-pci --no-telemetry\"".to_owned(),
        ]);
        await_success(configure, "ovsdb-server")?;
        let mut switch = equipment::pinned(DAEMON, Some(&BACK_END.to_string()));
        switch.arg(format!("unix:{}", scratch.path("db").display()));
        let switch = daemon("ovs-vswitchd", switch, &scratch)?;
        let mut bridge = vsctl(&scratch);
        bridge.arg(format!("--timeout={}", SOON.as_secs()));
        bridge.args([
            "add-br",
            "br",
            "--",
            "set",
            "bridge",
            "br",
            "datapath_type=netdev",
        ]);
        let mut sockets = Vec::new();
        for guest in 1..=work.guests {
            let port = format!("vm{guest}");
            bridge.args(["--", "add-port", "br", &port]);
            bridge.args(["--", "set", "Interface", &port, "type=dpdkvhostuser"]);
            bridge.arg(format!("mtu_request={}", work.links().longest - ETHERNET));
            sockets.push(scratch.path(&port));
        }
        run(&mut bridge).map_err(|error| switch.explain(error, "adding ports"))?;
        Ok(Self {
            switch,
            database,
            sockets,
            scratch,
        })
    }

    /// What is known about a guest's interface.
    fn status(&self, guest: u32, key: &str) -> Result<String> {
        let mut get = vsctl(&self.scratch);
        get.args(["--if-exists", "get", "Interface", &format!("vm{guest}")]);
        let said = run(get.arg(format!("status:{key}")))?;
        Ok(said.trim().trim_matches('"').to_owned())
    }

    /// Asks the switch itself.
    fn ask(&self, command: &str) -> Result<String> {
        let mut ask = Command::new("ovs-appctl");
        ask.arg("-t").arg(control(&self.scratch, "ovs-vswitchd"));
        run(ask.arg(command))
    }
}

impl BackEnd for Running {
    fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    fn command_line(&self) -> String {
        self.switch.command_line().to_owned()
    }

    fn settle(&mut self, work: &Work) -> Result<()> {
        let deadline = Instant::now() + SOON;
        for guest in 1..=work.guests {
            while self.status(guest, "status")? != "connected" {
                if Instant::now() > deadline {
                    let error = Error::new("does not connect");
                    return Err(self.switch.explain(error, &format!("vm{guest}")));
                }
                thread::sleep(LOOK_AGAIN);
            }
        }
        let features = self.status(1, "features")?;
        let number = features.trim_start_matches("0x");
        let features = u64::from_str_radix(number, 16)
            .map_err(|_| Error::new(format!("{features}: are no features")))?;
        match (work.format, features >> RING_PACKED & 1) {
            (Format::Split, 0) | (Format::Packed, 1) => Ok(()),
            _ => Err(Error::missing("does not take these rings")),
        }
    }

    fn processor_time(&self) -> Result<Duration> {
        bed::processor_time(self.switch.id())
    }

    fn effort(&mut self, _: f64) -> Result<Option<Effort>> {
        let said = self.ask("dpif-netdev/pmd-stats-show")?;
        // The thread that forwards comes first.
        let value = |name: &str| {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(name));
            let value = line.and_then(|rest| rest.split_whitespace().next());
            value.and_then(|value| value.parse().ok())
        };
        let both = value("processing cycles:").zip(value("packets received:"));
        Ok(both.map(|(cycles, frames)| Effort { cycles, frames }))
    }

    fn stop(mut self: Box<Self>) -> Result<()> {
        self.ask("exit")?;
        self.switch.wait(SOON)?;
        self.database.stop(SOON)?;
        Ok(())
    }
}

/// Where a daemon takes commands.
fn control(scratch: &Scratch, name: &str) -> PathBuf {
    scratch.path(&format!("{name}.ctl"))
}

/// Starts a daemon that has everything in `scratch`.
fn daemon(name: &str, mut command: Command, scratch: &Scratch) -> Result<Process> {
    for place in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(place, scratch.as_ref());
    }
    command.arg(format!("--unixctl={}", control(scratch, name).display()));
    Process::start(name, &mut command)
}

fn vsctl(scratch: &Scratch) -> Command {
    let mut command = Command::new("ovs-vsctl");
    command.arg(format!("--db=unix:{}", scratch.path("db").display()));
    command
}

/// Runs a command to its end; what it says.
fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output();
    let output = output.map_err(|error| Error::from(error).while_doing(&program))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!("{program}: {}", said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command until who it talks to listens.
fn await_success(mut command: Command, whom: &str) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        match run(&mut command) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.while_doing(whom)),
            Err(_) => thread::sleep(LOOK_AGAIN),
        }
    }
}
