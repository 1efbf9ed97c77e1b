//! DPDK's testpmd, with pairs of ports that it forwards between as fast as it
//! can: what arrives at one port of a pair leaves at the other.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::{Error, Process, Result, Scratch, equipment};

/// How long a command may take, or the start. DPDK clears all its memory then.
const COMMAND: Duration = Duration::from_secs(60);
/// Huge pages of 2 MiB for one process, and as many bytes without them.
const HUGE_PAGES: u32 = 128;

/// The longest frame that fits into the buffers that it has if it is told
/// nothing else.
const USUAL_FRAME: u64 = 1514;
/// Bytes of a buffer of DPDK's that are in front of a frame and its header.
const BEFORE_FRAME: u64 = 256;
/// What DPDK counts as part of the longest frame besides the frame: a VLAN tag,
/// and virtio's header.
const BESIDE_FRAME: u64 = 16;
/// The frames that it takes from a queue and sends in one turn.
const BURST: u32 = 32;
/// Nothing that is under way takes longer.
const STILL: Duration = Duration::from_millis(100);

/// How the ports are connected.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    /// Pairs of queues of a port.
    pub queues: u16,
    /// Whether a front end lets frames be spread over several buffers.
    pub mergeable: bool,
    /// Whether a front end asks for packed rings.
    pub packed: bool,
    /// Whether a front end asks for chains to be used in order, as it does if
    /// it is told nothing else.
    pub in_order: bool,
    /// Bytes of the longest frame, which must fit into one of its buffers.
    pub longest: u64,
    /// Whether a back end offers checksums and segmentation, and passes on what
    /// one guest leaves to be done to the other.
    pub offloads: bool,
    /// Whether both processes have huge pages. Without, no privileges are
    /// needed; with, it is as in earnest.
    pub huge_pages: bool,
}

impl Links {
    /// Frames of the usual length, and huge pages where enough of them are free
    /// for two processes.
    pub fn new(queues: u16, mergeable: bool, packed: bool) -> Self {
        Self {
            queues,
            mergeable,
            packed,
            in_order: true,
            longest: USUAL_FRAME,
            offloads: false,
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

/// What frames cost it: cycles of the turns in which there were some.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Cycles.
    pub cycles: f64,
    /// Frames received in them.
    pub frames: f64,
    /// Cycles a second.
    pub clock: f64,
}

impl Effort {
    /// From `CPU cycles/packet=… (total cycles=N / total io packets=N) at N MHz
    /// Clock`.
    fn read(line: &str) -> Option<Self> {
        let (_, behind) = line.split_once("(total cycles=")?;
        let (cycles, behind) = behind.split_once(" / total ")?;
        let (frames, behind) = behind.split_once('=')?.1.split_once(") at ")?;
        let clock: f64 = behind.split_once(" MHz")?.0.parse().ok()?;
        Some(Self {
            cycles: cycles.parse().ok()?,
            frames: frames.parse().ok()?,
            clock: clock * 1e6,
        })
    }
}

/// The address of port number `port`.
fn mac(port: usize) -> String {
    format!("52:54:00:00:00:{:02x}", port + 1)
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
    /// A `net_virtio_user` port for each of `sockets`, which it connects to, on
    /// processor `cpu` or anywhere. A port's frames are addressed to the other
    /// port of its pair.
    ///
    /// # Errors
    /// It does not start.
    pub fn front_end<P: AsRef<Path>>(
        sockets: &[P],
        links: Links,
        cpu: Option<u32>,
    ) -> Result<Self> {
        let ports = sockets.iter().enumerate().map(|(port, socket)| {
            format!(
                "net_virtio_user{port},path={},mac={},queues={},mrg_rxbuf={},packed_vq={},in_order={}",
                socket.as_ref().display(),
                mac(port),
                links.queues,
                u8::from(links.mergeable),
                u8::from(links.packed),
                u8::from(links.in_order)
            )
        });
        Self::start("testpmd front end", ports.collect(), links, cpu)
    }

    /// A `net_vhost` port for each of `sockets`, which it listens on.
    ///
    /// # Errors
    /// It does not start.
    pub fn back_end<P: AsRef<Path>>(sockets: &[P], links: Links, cpu: Option<u32>) -> Result<Self> {
        // Without the older of its two ways to say what is to be done to a frame,
        // what it received would have to be said anew by who sends it on.
        let offloads = if links.offloads {
            ",tso=1,legacy-ol-flags=1"
        } else {
            ""
        };
        let ports = sockets.iter().enumerate().map(|(port, socket)| {
            let socket = socket.as_ref().display();
            let queues = links.queues;
            format!("net_vhost{port},iface={socket},queues={queues}{offloads}")
        });
        Self::start("testpmd back end", ports.collect(), links, cpu)
    }

    fn start(name: &str, ports: Vec<String>, links: Links, cpu: Option<u32>) -> Result<Self> {
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
        for port in &ports {
            command.args(["--vdev", port]);
        }
        command.args(["--", "-i", "--record-core-cycles"]);
        if links.longest > USUAL_FRAME {
            let buffer = links.longest + BEFORE_FRAME;
            let taken = links.longest + BESIDE_FRAME;
            command.arg(format!("--mbuf-size={buffer}"));
            command.arg(format!("--max-pkt-len={taken}"));
            command.arg("--total-num-mbufs=16384");
        } else {
            command.arg("--total-num-mbufs=32768");
        }
        // A vhost port has no link before a front end connects; testpmd would
        // wait nine seconds for it.
        command.arg("--disable-link-check");
        command.args(["--rxq", &queues, "--txq", &queues]);
        // Several queues are filled by what spreads flows over them.
        if links.queues > 1 {
            command.arg("--txonly-multi-flow");
        }
        for port in 0..ports.len() {
            command.arg(format!("--eth-peer={port},{}", mac(port ^ 1)));
        }
        let mut testpmd = Self {
            process: Process::start(name, &mut command)?,
            _runtime: runtime,
            next: 0,
            commands: 0,
        };
        testpmd.run("set fwd io")?;
        Ok(testpmd)
    }

    /// How it was started.
    pub fn command_line(&self) -> &str {
        self.process.command_line()
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.process.id()
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

    /// Sends `frames` frames of `length` bytes from each queue of each port, in
    /// whole bursts, and forwards from then on whatever arrives at one port of
    /// a pair to the other.
    ///
    /// # Errors
    /// It ended.
    pub fn start_traffic(&mut self, length: u64, frames: u32) -> Result<()> {
        let burst = frames.clamp(1, BURST);
        self.run(&format!("set burst {burst}"))?;
        self.run(&format!("set txpkts {length}"))?;
        self.run(&format!("start tx_first {}", frames.div_ceil(burst)))?;
        Ok(())
    }

    /// Sends a frame from each queue and forwards none, so that a switch learns
    /// which address is at which port. Takes what the switch does with them.
    ///
    /// # Errors
    /// It ended.
    pub fn introduce(&mut self) -> Result<()> {
        self.run("set fwd rxonly")?;
        self.run("set burst 1")?;
        self.run("start tx_first 1")?;
        self.take_all()?;
        Ok(())
    }

    /// Stops, takes every frame that is still under way, and says how many
    /// those were.
    ///
    /// # Errors
    /// It ended.
    pub fn drain(&mut self) -> Result<u64> {
        self.run("stop")?;
        let before = self.received()?;
        self.run("set fwd rxonly")?;
        self.run("start")?;
        Ok(self.take_all()? - before)
    }

    /// Receives until nothing comes any more; what has been received since it
    /// was started. Frames are forwarded again when traffic is started.
    fn take_all(&mut self) -> Result<u64> {
        let mut last = self.received()?;
        loop {
            thread::sleep(STILL);
            let now = self.received()?;
            if now == last {
                break;
            }
            last = now;
        }
        self.run("stop")?;
        self.run("set fwd io")?;
        Ok(last)
    }

    fn received(&mut self) -> Result<u64> {
        Ok(self.counts()?.iter().map(|port| port.received).sum())
    }

    /// What its ports have counted since they were started.
    ///
    /// # Errors
    /// It ended, or printed something else.
    pub fn counts(&mut self) -> Result<Vec<Counts>> {
        let said = self.run("show port stats all")?;
        let mut ports: Vec<Counts> = Vec::new();
        for line in &said {
            if line.contains("statistics for port ") {
                ports.push(Counts::default());
            } else if let Some(port) = ports.last_mut() {
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

    /// What frames have cost it since traffic was started.
    ///
    /// # Errors
    /// It ended, or printed something else.
    pub fn effort(&mut self) -> Result<Effort> {
        let said = self.run("show fwd stats all")?;
        let effort = said.iter().find_map(|line| Effort::read(line));
        effort.ok_or_else(|| Error::new("show fwd stats all: no cycles"))
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
