//! Ways for frames from a sender to a receiver that is pkt-gen.

use std::process::Command;
use std::time::{Duration, Instant};

use bed::{Error, Process, Result, Vtnetd};
use nix::sys::signal::Signal;
use vtnetd::backend::{self, Spec, SwitchType};
use vtnetd::driver::memory::DriverMemory;
use vtnetd::net::frame::{BATCH, Batch, ETHER_HEADER};
use vtnetd::netmap::vale::Switches;
use vtnetd::virtio::net_header::NetHeader;

use crate::scene::{SOON, Scene};
use crate::upstream;

/// Whose netmap it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Service,
    Kernel,
}

/// Who sends.
#[derive(Clone, Copy)]
pub enum Sender {
    /// pkt-gen, over a switch or a pipe.
    PktGen {
        whose: Whose,
        from: &'static str,
        to: &'static str,
    },
    /// vtgen, through vtnetd, into the kernel's switch.
    Vtgen,
    /// vtnetd's back end alone, so many frames a batch, into the kernel's
    /// switch.
    BackEnd { batch: usize },
}

/// What is measured.
#[derive(Clone, Copy)]
pub struct Contender {
    pub name: &'static str,
    pub sender: Sender,
    pub length: usize,
}

/// Frames a second of the time that is sent in: a receiver counts how long its
/// sender takes to end, too.
#[derive(Clone, Copy)]
pub struct Rates {
    pub sent: f64,
    pub received: f64,
}

/// How long a program may take to end: the kernel gives the memory of its port
/// back page by page, half a minute's work on an emulated machine.
const ENDS: Duration = Duration::from_secs(300);

/// The kernel's switch, and a device's port and a receiver's on it.
const DEVICE: &str = "vale8:device";
const RECEIVER: &str = "vale8:receiver";

impl Contender {
    pub fn measure(&self, time: Duration) -> Result<Rates> {
        match self.sender {
            Sender::PktGen { whose, from, to } => self.pkt_gen(whose, from, to, time),
            Sender::Vtgen => self.vtgen(time),
            Sender::BackEnd { batch } => self.back_end(batch, time),
        }
    }

    fn pkt_gen(&self, whose: Whose, from: &str, to: &str, time: Duration) -> Result<Rates> {
        let scene = match whose {
            Whose::Service => Some(Scene::new()?),
            Whose::Kernel => None,
        };
        let start = |arguments: &[&str]| {
            let process = match &scene {
                Some(scene) => upstream::start(scene, "pkt-gen", arguments)?,
                None => in_kernel(arguments)?,
            };
            ready(&process).map(|()| process)
        };
        let length = self.length.to_string();
        let mut rx = start(&["-f", "rx", "-i", to, "-w", "0"])?;
        let mut tx = start(&["-f", "tx", "-i", from, "-w", "0", "-l", &length])?;
        std::thread::sleep(time);
        let (sent, seconds) = total(&mut tx, "Sent")?;
        let received = total(&mut rx, "Received")?.0;
        if let Some(scene) = scene {
            scene.end()?;
        }
        Ok(Rates {
            sent: sent / seconds,
            received: received / seconds,
        })
    }

    fn vtgen(&self, time: Duration) -> Result<Rates> {
        let scratch = bed::Scratch::new()?;
        let socket = scratch.path("socket");
        let device = format!(
            "virtio-net,{DEVICE},type=kernel,socket={}",
            socket.display()
        );
        let program = bed::program(env!("CARGO_BIN_EXE_vtnetd"));
        let mut vtnetd = Vtnetd::start(&program, &[device], None)?;
        let mut rx = receiver()?;
        let mut command = Command::new(bed::program(env!("CARGO_BIN_EXE_vtgen")));
        command.arg("--socket-path").arg(&socket);
        command.args(["--length", &self.length.to_string(), "--duration"]);
        command.args([&time.as_secs_f64().to_string(), "tx"]);
        let mut tx = Process::start("vtgen", &mut command)?;
        let status = tx.wait(SOON + time)?;
        if !status.success() {
            return Err(tx.explain(Error::new(status.to_string()), "tx"));
        }
        let received = total(&mut rx, "Received")?.0;
        let sent = vtnetd.counters()?.sum(&format!("{DEVICE} tx"), "frames");
        vtnetd.stop()?;
        Ok(Rates {
            sent: count(sent) / time.as_secs_f64(),
            received: received / time.as_secs_f64(),
        })
    }

    fn back_end(&self, frames: usize, time: Duration) -> Result<Rates> {
        let said = |error: &dyn std::fmt::Display| Error::new(error.to_string());
        let spec = Spec {
            switch: SwitchType::Kernel,
            ..Spec::new(DEVICE, 1)
        };
        let back_end = backend::open(&spec, &Switches::default()).map_err(|error| said(&error))?;
        let mut rx = receiver()?;
        let mut memory = DriverMemory::of_len(1 << 20, 1).map_err(|error| said(&error))?;
        let all = memory.allocate(BATCH * self.length, 64);
        let all = all.map_err(|error| said(&error))?;
        let mut ether = [0xff; ETHER_HEADER];
        ether[6..].copy_from_slice(&[2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
        let len = u32::try_from(self.length).map_err(|error| said(&error))?;
        let mut batch = Batch::new();
        for number in 0..frames {
            let at = number * self.length;
            all.writable(at, ether.len()).write(&ether);
            let mark = batch.mark();
            let part = all.readable(at, self.length);
            let pushed = batch.push_part(mark, part).is_some()
                && batch.push_frame(mark, len, ether, NetHeader::default());
            assert!(pushed, "{frames} frames are one batch");
        }
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < time {
            let taken = back_end.send(0, &batch);
            if !back_end.flush(0) {
                return Err(Error::new(format!("{DEVICE} is gone")));
            }
            sent += u64::from(taken.frames);
        }
        let seconds = start.elapsed().as_secs_f64();
        let received = total(&mut rx, "Received")?.0;
        Ok(Rates {
            sent: count(sent) / seconds,
            received: received / seconds,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
fn count(frames: u64) -> f64 {
    frames as f64
}

/// A pkt-gen on the kernel's switch, with headers as a device's port has them.
fn receiver() -> Result<Process> {
    let rx = in_kernel(&["-f", "rx", "-i", RECEIVER, "-w", "0", "-H", "12"])?;
    ready(&rx).map(|()| rx)
}

/// A pkt-gen that has nothing in front of it.
fn in_kernel(arguments: &[&str]) -> Result<Process> {
    let mut command = upstream::command("pkt-gen")?;
    Process::start("pkt-gen", command.args(arguments))
}

/// Waits until a pkt-gen says that it has opened its port.
fn ready(process: &Process) -> Result<()> {
    let said = |line: &str| line.contains("mapped") || line.contains("Wait ");
    let either = process.errors.wait_for(0, SOON, said);
    either
        .map(drop)
        .map_err(|error| process.explain(error, "waiting for its port"))
}

/// Ends a pkt-gen as its user does; its frames, and the seconds that it took:
/// `Sent 1000 packets … in 5.00 seconds.`
fn total(process: &mut Process, word: &str) -> Result<(f64, f64)> {
    process.signal(Signal::SIGINT)?;
    process.wait(ENDS)?;
    let said = process.output.since(0);
    let line = said.iter().find(|line| line.starts_with(word));
    let numbers = line.and_then(|line| {
        let seconds = line.strip_suffix(" seconds.")?.rsplit(' ').next()?;
        Some((line.split(' ').nth(1)?.parse().ok()?, seconds.parse().ok()?))
    });
    numbers.ok_or_else(|| process.explain(Error::new("no count"), word))
}
