//! netmap's programs that send and forward.

use bed::{Error, Process, Result, Test};
use nix::sys::signal::Signal;

use crate::scene::{SOON, Scene};
use crate::upstream::start;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("pkt_gen_over_a_switch", over_a_switch),
        Test::new("pkt_gen_over_a_pipe", over_a_pipe),
        Test::new("bridge_joins_two_switches", bridge),
        Test::new("lb_spreads_over_pipes", lb),
        Test::new("a_copy_monitor_sees_what_is_sent", monitor),
    ]
}

/// Waits until a pkt-gen says that it has opened its port.
fn ready(process: &Process) -> Result<()> {
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
fn counted(process: &mut Process, word: &str) -> Result<u64> {
    process.wait(SOON)?;
    process.errors.wait_for_end(SOON)?;
    let mut said = process.output.since(0);
    said.extend(process.errors.since(0));
    let line = said.iter().find(|line| line.starts_with(word));
    let count = line.and_then(|line| line.split(' ').nth(1)?.parse().ok());
    count.ok_or_else(|| process.explain(Error::new("no count"), word))
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
