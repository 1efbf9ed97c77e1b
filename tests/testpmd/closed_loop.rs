//! Frames that go round, and what both sides say of them.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, thread};

use bed::{Counters, Counts, Error, Links, Result, Scratch, Testpmd, Vtnetd};

/// Bytes of the frames: the shortest, one in the middle, and the longest
/// without an offload.
const LENGTHS: [u64; 3] = [64, 512, 1514];
/// Frames that go round from each queue, half of what a ring holds.
const IN_FLIGHT: u32 = 128;
/// How long frames may take to come to rest.
const REST: Duration = Duration::from_secs(10);
const PORTS: [&str; 2] = ["vale0:vm1", "vale0:vm2"];

pub fn run(links: Links) -> Result<()> {
    let seconds = env::var("VTNETD_TESTPMD_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(1);
    let scratch = Scratch::new()?;
    let sockets = [scratch.path("vm1.sock"), scratch.path("vm2.sock")];
    let devices = [0, 1].map(|at| {
        let (port, socket) = (PORTS[at], sockets[at].display());
        format!("virtio-net,{port},socket={socket},queues={}", links.queues)
    });
    let vtnetd = Path::new(env!("CARGO_BIN_EXE_vtnetd"));
    let mut vtnetd = Vtnetd::start(vtnetd, &devices, None)?;
    let mut testpmd = Testpmd::front_end(&sockets, links, None)?;
    for length in LENGTHS {
        go_round(&mut vtnetd, &mut testpmd, length, seconds)
            .map_err(|error| error.while_doing(format_args!("{length} bytes")))?;
    }
    testpmd.quit()?;
    vtnetd.wait_for_log("disconnected")?;
    Ok(())
}

/// What both sides have counted, at rest.
struct Ledger {
    switch: Counters,
    ports: Vec<Counts>,
}

impl Ledger {
    /// Lets testpmd take everything that is still in its rings, and reads.
    fn at_rest(vtnetd: &mut Vtnetd, testpmd: &mut Testpmd) -> Result<Self> {
        testpmd.run("set fwd rxonly")?;
        testpmd.run("start")?;
        let start = Instant::now();
        let ledger = loop {
            let ledger = Self {
                ports: testpmd.counts()?,
                switch: vtnetd.counters()?,
            };
            if ledger.unsettled().is_none() || start.elapsed() > REST {
                break ledger;
            }
        };
        testpmd.run("stop")?;
        testpmd.run("set fwd io")?;
        match ledger.unsettled() {
            None => Ok(ledger),
            Some(difference) => Err(Error::new(difference)),
        }
    }

    /// Where the two sides disagree, or a frame is neither received nor
    /// counted as lost.
    fn unsettled(&self) -> Option<String> {
        for (at, port) in PORTS.iter().enumerate() {
            let other = PORTS[1 - at];
            let counts = self.ports[at];
            let sum = |queues: &str, name| self.switch.sum(&format!("{port} {queues}"), name);
            let sent = [sum("tx", "frames") + sum("tx", "dropped"), counts.sent];
            let received = [sum("rx", "frames"), counts.received];
            let bytes = [sum("rx", "bytes"), counts.received_bytes];
            let arrived =
                ["frames", "no_buffers"].map(|name| self.switch.sum(&format!("{other} rx"), name));
            let passed = [sum("tx", "frames"), arrived.iter().sum()];
            let pairs = [
                ("frames sent", sent),
                ("frames received", received),
                ("bytes received", bytes),
                ("frames passed on", passed),
            ];
            for (what, [vtnetd, testpmd]) in pairs {
                if vtnetd != testpmd {
                    return Some(format!(
                        "{port}: {what}: {vtnetd} for vtnetd, {testpmd} for testpmd: {:?}",
                        self.switch
                    ));
                }
            }
        }
        None
    }
}

/// One length, from rest to rest.
fn go_round(vtnetd: &mut Vtnetd, testpmd: &mut Testpmd, length: u64, seconds: u64) -> Result<()> {
    let before = Ledger::at_rest(vtnetd, testpmd)?;
    testpmd.start_traffic(length, IN_FLIGHT)?;
    // Time is what the test asks for: as many rounds as fit into it.
    thread::sleep(Duration::from_secs(seconds));
    let late = testpmd.counts()?;
    let later = loop_goes_on(testpmd, &late)?;
    testpmd.run("stop")?;
    let after = Ledger::at_rest(vtnetd, testpmd)?;
    let mut lost = 0;
    for (at, port) in PORTS.iter().enumerate() {
        let grown = |queues: &str, name| {
            let queues = format!("{port} {queues}");
            after.switch.sum(&queues, name) - before.switch.sum(&queues, name)
        };
        for (queues, name) in [
            ("tx", "bad_chains"),
            ("tx", "bad_length"),
            ("tx", "bad_header"),
            ("tx", "discarded"),
            ("rx", "too_long"),
            ("rx", "bad_header"),
            ("rx", "not_ready"),
            ("rx", "filtered"),
            ("rx", "bad_chains"),
        ] {
            let count = grown(queues, name);
            if count > 0 {
                return Err(Error::new(format!("{port} {queues} {name}: {count}")));
            }
        }
        let (frames, bytes) = (grown("rx", "frames"), grown("rx", "bytes"));
        if bytes != frames * length {
            return Err(Error::new(format!(
                "{port}: {bytes} bytes in {frames} frames"
            )));
        }
        lost += grown("rx", "no_buffers");
        if later[at].received == late[at].received {
            return Err(Error::new(format!(
                "{port}: nothing arrives any more: {late:?}"
            )));
        }
    }
    println!(
        "{length} bytes: {} frames, {lost} lost to full rings",
        after.ports.iter().map(|port| port.received).sum::<u64>()
            - before.ports.iter().map(|port| port.received).sum::<u64>()
    );
    Ok(())
}

/// Waits until both ports have received more than `counts` says; what they
/// have by then, or after a while in any case.
fn loop_goes_on(testpmd: &mut Testpmd, counts: &[Counts]) -> Result<Vec<Counts>> {
    let start = Instant::now();
    loop {
        let now = testpmd.counts()?;
        let alive = (0..2).all(|at| now[at].received > counts[at].received);
        if alive || start.elapsed() > REST {
            return Ok(now);
        }
    }
}
