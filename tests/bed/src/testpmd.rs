//! DPDK's testpmd, with two ports that it forwards between as fast as it can.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{Error, Process, Result, Scratch, equipment};

/// How long a command may take, or the start. DPDK clears all its memory then.
const COMMAND: Duration = Duration::from_secs(60);
/// Huge pages of 2 MiB for one process, and as many bytes without them.
const HUGE_PAGES: u32 = 128;

/// How the two ports are connected.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    /// Pairs of queues of a port.
    pub queues: u16,
    /// Whether a front end lets frames be spread over several buffers.
    pub mergeable: bool,
    /// Whether a front end asks for packed rings.
    pub packed: bool,
    /// Whether both processes have huge pages. Without, no privileges are
    /// needed; with, it is as in earnest.
    pub huge_pages: bool,
}

impl Links {
    /// Huge pages where enough of them are free for two processes.
    pub fn new(queues: u16, mergeable: bool, packed: bool) -> Self {
        Self {
            queues,
            mergeable,
            packed,
            huge_pages: equipment::free_huge_pages() >= 2 * HUGE_PAGES,
        }
    }
}

/// What a port has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames received.
    pub received: u64,
    /// Bytes of them.
    pub received_bytes: u64,
    /// Frames sent.
    pub sent: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
}

/// A running testpmd. Dropping it kills it.
pub struct Testpmd {
    process: Process,
    /// Where it keeps what it would otherwise leave behind.
    _runtime: Scratch,
    next: usize,
    commands: u32,
}

impl Testpmd {
    /// Two `net_virtio_user` ports that connect to `sockets`, on processor
    /// `cpu` or anywhere. Each port's frames are addressed to the other.
    ///
    /// # Errors
    /// It does not start.
    pub fn front_end(sockets: [&Path; 2], links: Links, cpu: Option<u32>) -> Result<Self> {
        let ports = [1, 2].map(|number| {
            let socket = sockets[number - 1].display();
            format!(
                "net_virtio_user{number},path={socket},mac=52:54:00:00:00:0{number},\
                 queues={},mrg_rxbuf={},packed_vq={}",
                links.queues,
                u8::from(links.mergeable),
                u8::from(links.packed)
            )
        });
        Self::start("testpmd front end", ports, links, cpu)
    }

    /// Two `net_vhost` ports that listen on `sockets`.
    ///
    /// # Errors
    /// It does not start.
    pub fn back_end(sockets: [&Path; 2], links: Links, cpu: Option<u32>) -> Result<Self> {
        let ports = [1, 2].map(|number| {
            let socket = sockets[number - 1].display();
            format!("net_vhost{number},iface={socket},queues={}", links.queues)
        });
        Self::start("testpmd back end", ports, links, cpu)
    }

    fn start(name: &str, ports: [String; 2], links: Links, cpu: Option<u32>) -> Result<Self> {
        let queues = links.queues.to_string();
        let runtime = Scratch::new()?;
        let mut command = Command::new("stdbuf");
        command.args(["-o", "L", equipment::TESTPMD, "--no-pci", "--no-telemetry"]);
        // One core of DPDK's takes commands and sleeps, the other forwards.
        command.arg(match cpu {
            Some(cpu) => format!("--lcores=(0-1)@{cpu}"),
            None => "--lcores=(0-1)@(0-1)".to_owned(),
        });
        command.args(["-m", &(2 * HUGE_PAGES).to_string()]);
        // Neither shares anything with another testpmd. DPDK refuses --in-memory
        // for memory that is not of huge pages.
        if links.huge_pages {
            // vhost-user takes 8 regions of memory, not one a page.
            command.args(["--in-memory", "--single-file-segments"]);
        } else {
            command.args(["--no-huge", "--no-shconf"]);
            command.env("RUNTIME_DIRECTORY", runtime.as_ref());
        }
        for port in ports {
            command.args(["--vdev", &port]);
        }
        command.args(["--", "-i", "--total-num-mbufs=32768"]);
        // A vhost port has no link before a front end connects; testpmd would
        // wait nine seconds for it.
        command.arg("--disable-link-check");
        command.args(["--rxq", &queues, "--txq", &queues]);
        command.args([
            "--eth-peer=0,52:54:00:00:00:02",
            "--eth-peer=1,52:54:00:00:00:01",
        ]);
        let mut testpmd = Self {
            process: Process::start(name, &mut command)?,
            _runtime: runtime,
            next: 0,
            commands: 0,
        };
        testpmd.run("set fwd io")?;
        Ok(testpmd)
    }

    /// Gives it a command, and returns what it said.
    ///
    /// # Errors
    /// It ended.
    pub fn run(&mut self, command: &str) -> Result<Vec<String>> {
        // It echoes what it reads, comments too, and reads the next command
        // when it is done with the last one.
        self.commands += 1;
        let end = format!("# {} done", self.commands);
        self.process.write_line(command)?;
        self.process.write_line(&end)?;
        let line = self
            .process
            .output
            .wait_for(self.next, COMMAND, |line| line.ends_with(&end))
            .map_err(|error| self.process.explain(error, command))?;
        let mut said = self.process.output.since(self.next);
        said.truncate(line - self.next);
        self.next = line + 1;
        Ok(said)
    }

    /// Sends bursts of frames of `length` bytes from both ports, and forwards
    /// from then on whatever arrives at one to the other.
    ///
    /// # Errors
    /// It ended.
    pub fn start_traffic(&mut self, length: u64) -> Result<()> {
        self.run(&format!("set txpkts {length}"))?;
        self.run("start tx_first 4")?;
        Ok(())
    }

    /// What both ports have counted since they were started.
    ///
    /// # Errors
    /// It ended, or printed something else.
    pub fn counts(&mut self) -> Result<[Counts; 2]> {
        let said = self.run("show port stats all")?;
        let mut ports = [Counts::default(); 2];
        let mut at = None;
        for line in &said {
            if let Some((_, rest)) = line.split_once("statistics for port ") {
                let number: usize = rest
                    .split_whitespace()
                    .next()
                    .and_then(|word| word.parse().ok())
                    .unwrap_or(usize::MAX);
                at = ports.get_mut(number);
            } else if let Some(port) = &mut at {
                let words: Vec<&str> = line.split_whitespace().collect();
                for pair in words.windows(2) {
                    let value = pair[1].parse().unwrap_or(0);
                    match pair[0] {
                        "RX-packets:" => port.received = value,
                        "RX-bytes:" => port.received_bytes = value,
                        "TX-packets:" => port.sent = value,
                        "TX-bytes:" => port.sent_bytes = value,
                        _ => {}
                    }
                }
            }
        }
        Ok(ports)
    }

    /// Frames a second that it receives on both ports together, over `time`.
    ///
    /// # Errors
    /// As [`Testpmd::counts`].
    pub fn rate(&mut self, time: Duration) -> Result<f64> {
        let total = |counts: [Counts; 2]| counts[0].received + counts[1].received;
        let before = total(self.counts()?);
        let start = Instant::now();
        std::thread::sleep(time);
        let after = total(self.counts()?);
        let elapsed = start.elapsed();
        let frames = u32::try_from(after - before)
            .map_err(|_| Error::new("more frames than a number of 32 bits counts"))?;
        Ok(f64::from(frames) / elapsed.as_secs_f64())
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It does not end.
    pub fn quit(mut self) -> Result<()> {
        self.process.write_line("quit")?;
        self.process.wait(COMMAND)?;
        Ok(())
    }
}
