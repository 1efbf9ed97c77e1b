//! netmap's programs that send and forward.

use bed::{Error, Process, Result, Test};
use nix::sys::signal::Signal;

use crate::scene::{SOON, Scene};
use crate::upstream::start;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("pkt_gen_over_a_switch", over_a_switch),
        Test::new("pkt_gen_over_a_pipe", over_a_pipe),
        Test::new("pkt_gen_gets_what_pkt_gen_has_sent", content),
        Test::new("pkt_gen_finds_no_gap_in_a_sequence", sequence),
        Test::new("bridge_joins_two_switches", bridge),
        Test::new("lb_spreads_over_pipes", lb),
        Test::new("a_copy_monitor_sees_what_is_sent", monitor),
    ]
}

/// Waits until a pkt-gen says that it has opened its port.
pub fn ready(process: &Process) -> Result<()> {
    let said = |line: &str| line.contains("mapped") || line.contains("Wait ");
    let either = process.errors.wait_for(0, SOON, said);
    either
        .map(drop)
        .map_err(|error| process.explain(error, "waiting for its port"))
}

/// Ends a pkt-gen as its user does; what it has counted.
fn total(process: &mut Process, word: &str) -> Result<u64> {
    process.signal(Signal::SIGINT)?;
    counted(process, word)
}

/// What a pkt-gen has counted when it ends: "Sent 1000 packets ...".
pub fn counted(process: &mut Process, word: &str) -> Result<u64> {
    process.wait(SOON)?;
    process.errors.wait_for_end(SOON)?;
    let mut said = process.output.since(0);
    said.extend(process.errors.since(0));
    let line = said.iter().find(|line| line.starts_with(word));
    let count = line.and_then(|line| line.split(' ').nth(1)?.parse().ok());
    count.ok_or_else(|| process.explain(Error::new("no count"), word))
}

/// The frames that a pkt-gen with `-X` has dumped, from the first.
pub fn dumps(process: &Process) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for line in process.output.since(0) {
        if line.starts_with("ring ") {
            frames.push(Vec::new());
        }
        let is_dump = line.get(5..7) == Some(": ");
        if let (true, Some(frame)) = (is_dump, frames.last_mut()) {
            // Three characters a byte, sixteen bytes a line.
            let bytes = line.get(7..).unwrap_or_default().as_bytes();
            let bytes = bytes.chunks(3).take(16).map_while(|hex| {
                let hex = std::str::from_utf8(hex).ok()?.trim();
                u8::from_str_radix(hex, 16).ok()
            });
            frame.extend(bytes);
        }
    }
    frames
}

/// Every frame that is sent arrives, where nothing overflows: over a switch
/// there are fewer than a ring has slots.
fn over_a_switch() -> Result<()> {
    let scene = Scene::new()?;
    let arguments = ["-f", "rx", "-i", "vale0:b", "-n", "1000", "-w", "0"];
    let mut rx = start(&scene, "pkt-gen", &arguments)?;
    ready(&rx)?;
    let arguments = ["-f", "tx", "-i", "vale0:a", "-n", "1000", "-w", "0"];
    let mut tx = start(&scene, "pkt-gen", &arguments)?;
    assert_eq!(counted(&mut tx, "Sent")?, 1000);
    assert_eq!(counted(&mut rx, "Received")?, 1000);
    scene.end()
}

/// A pipe holds its sender back, who ends when all is taken: the receiver goes
/// on until then.
fn over_a_pipe() -> Result<()> {
    let scene = Scene::new()?;
    let mut rx = start(
        &scene,
        "pkt-gen",
        &["-f", "rx", "-i", "netmap:p}1", "-w", "0"],
    )?;
    ready(&rx)?;
    let arguments = ["-f", "tx", "-i", "netmap:p{1", "-n", "300000", "-w", "0"];
    let mut tx = start(&scene, "pkt-gen", &arguments)?;
    assert_eq!(counted(&mut tx, "Sent")?, 300_000);
    assert_eq!(total(&mut rx, "Received")?, 300_000);
    scene.end()
}

/// pkt-gen dumps what it sends and what it gets; it has no check of its own.
/// Each frame differs from the others in its source.
fn content() -> Result<()> {
    for (from, to) in [("vale0:a", "vale0:b"), ("netmap:p{1", "netmap:p}1")] {
        let scene = Scene::new()?;
        let arguments = ["-f", "rx", "-X", "-i", to, "-w", "0"];
        let mut rx = start(&scene, "pkt-gen", &arguments)?;
        ready(&rx)?;
        let arguments = [
            "-f",
            "tx",
            "-X",
            "-i",
            from,
            "-n",
            "500",
            "-w",
            "0",
            "-l",
            "300",
            "-s",
            "10.0.0.1:1-10.0.3.1:9",
        ];
        let mut tx = start(&scene, "pkt-gen", &arguments)?;
        assert_eq!(counted(&mut tx, "Sent")?, 500);
        assert_eq!(total(&mut rx, "Received")?, 500);
        let (sent, received) = (dumps(&tx), dumps(&rx));
        assert!(sent.len() == 500 && sent.iter().all(|frame| frame.len() == 300));
        assert!(sent[0] != sent[1], "all the same");
        assert!(sent == received, "{from}: other frames than were sent");
        scene.end()?;
    }
    Ok(())
}

/// What pkt-gen numbers comes once and in turn, as long as it takes for three
/// reports.
fn sequence() -> Result<()> {
    let scene = Scene::new()?;
    let arguments = ["-f", "rxseq", "-i", "netmap:p}1", "-w", "0", "-T", "200"];
    let mut rx = start(&scene, "pkt-gen", &arguments)?;
    ready(&rx)?;
    let arguments = ["-f", "txseq", "-i", "netmap:p{1", "-w", "0"];
    let mut tx = start(&scene, "pkt-gen", &arguments)?;
    let mut after = 0;
    for _ in 0..3 {
        let report = |line: &str| line.contains("main_thread") && !line.contains("] 0.000 pps");
        let line = rx.errors.wait_for(after, SOON, report);
        after = line.map_err(|error| rx.explain(error, "waiting for frames"))? + 1;
    }
    let sent = total(&mut tx, "Sent")?;
    assert_eq!(total(&mut rx, "Received")?, sent);
    assert!(sent > 10_000, "{sent}");
    for line in rx.errors.since(0) {
        assert!(!line.contains("Sequence"), "{line}");
    }
    scene.end()
}

fn bridge() -> Result<()> {
    let scene = Scene::new()?;
    let arguments = ["-i", "vale0:bridge", "-i", "vale1:bridge", "-w", "0"];
    let mut bridge = start(&scene, "bridge", &arguments)?;
    let arguments = ["-f", "rx", "-i", "vale1:b", "-n", "500", "-w", "0"];
    let mut rx = start(&scene, "pkt-gen", &arguments)?;
    ready(&rx)?;
    bridge
        .errors
        .wait_for(0, SOON, |line| line.contains("Ready to go"))
        .map_err(|error| bridge.explain(error, "waiting for it"))?;
    let arguments = ["-f", "tx", "-i", "vale0:a", "-n", "500", "-w", "0"];
    let mut tx = start(&scene, "pkt-gen", &arguments)?;
    assert_eq!(counted(&mut tx, "Sent")?, 500);
    assert_eq!(counted(&mut rx, "Received")?, 500);
    bridge.signal(Signal::SIGINT)?;
    bridge.wait(SOON)?;
    scene.end()
}

fn lb() -> Result<()> {
    let scene = Scene::new()?;
    let arguments = ["-i", "vale0:lb", "-p", "lb:2", "-w", "0"];
    let mut lb = start(&scene, "lb", &arguments)?;
    lb.errors
        .wait_for(0, SOON, |line| line.contains("opened pipe #2"))
        .map_err(|error| lb.explain(error, "waiting for it"))?;
    let receivers = ["netmap:lb}0", "netmap:lb}1"].map(|name| {
        let rx = start(&scene, "pkt-gen", &["-f", "rx", "-i", name, "-w", "0"])?;
        ready(&rx).map(|()| rx)
    });
    let mut tx = start(
        &scene,
        "pkt-gen",
        &[
            "-f",
            "tx",
            "-i",
            "vale0:a",
            "-n",
            "500",
            "-w",
            "0",
            "-s",
            "10.0.0.1:1-10.0.0.1:9",
        ],
    )?;
    assert_eq!(counted(&mut tx, "Sent")?, 500);
    let mut sum = 0;
    for rx in receivers {
        sum += total(&mut rx?, "Received")?;
    }
    assert_eq!(sum, 500);
    lb.signal(Signal::SIGINT)?;
    lb.wait(SOON)?;
    scene.end()
}

fn monitor() -> Result<()> {
    let scene = Scene::new()?;
    let arguments = ["-f", "rx", "-i", "vale0:b", "-n", "1000", "-w", "0"];
    let mut rx = start(&scene, "pkt-gen", &arguments)?;
    ready(&rx)?;
    let arguments = ["-f", "rx", "-i", "vale0:b/r", "-n", "1000", "-w", "0"];
    let mut monitor = start(&scene, "pkt-gen", &arguments)?;
    ready(&monitor)?;
    let arguments = ["-f", "tx", "-i", "vale0:a", "-n", "1000", "-w", "0"];
    let mut tx = start(&scene, "pkt-gen", &arguments)?;
    assert_eq!(counted(&mut tx, "Sent")?, 1000);
    assert_eq!(counted(&mut rx, "Received")?, 1000);
    assert_eq!(counted(&mut monitor, "Received")?, 1000);
    scene.end()
}
