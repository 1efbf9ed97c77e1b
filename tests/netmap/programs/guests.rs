//! netmap's programs on the switches of guests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bed::{Error, Result, Scratch, Test};
use nix::sys::signal::Signal;
use vtnetd::driver::net::NetDriver;

use crate::drivers::{self, HEADER};
use crate::scene::{SOON, Scene};
use crate::traffic::{counted, dumps, ready};
use crate::upstream::start;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("pkt_gen_beside_guests", beside),
        Test::new("bridge_joins_the_switches_of_guests", bridged),
        Test::new("a_copy_monitor_sees_a_guests_frames", monitored),
    ]
}

/// A vtnetd with devices on these ports, each with a driver.
fn stage(ports: [&str; 2]) -> Result<(Scratch, Scene, [NetDriver; 2])> {
    let scratch = Scratch::new()?;
    let sockets = ["vm1", "vm2"].map(|name| scratch.path(&format!("{name}.sock")));
    let device = |at: usize| {
        format!(
            "virtio-net,{},type=core,socket={}",
            ports[at],
            sockets[at].display()
        )
    };
    let scene = Scene::with(&["-s", &device(0), "-s", &device(1)])?;
    let driver = |socket: &PathBuf| drivers::start(socket);
    let drivers = [driver(&sockets[0])?, driver(&sockets[1])?];
    Ok((scratch, scene, drivers))
}

/// Does something while the drivers talk, which they go on with a little after
/// it is done.
fn while_they_talk(
    [one, other]: &mut [NetDriver; 2],
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let count = thread::scope(|scope| {
        let talk = scope.spawn(|| drivers::talk(one, other, &stop));
        let worked = work();
        stop.store(true, Ordering::Relaxed);
        let talked = talk.join().unwrap_or_else(|_| Err(Error::new("panicked")));
        worked.and(talked)
    })?;
    println!("{count} frames there and back");
    assert!(count > 0);
    Ok(())
}

/// What is sent to an address that nobody has comes to the guests as well, so
/// it is not sent faster than they take it.
fn beside() -> Result<()> {
    let (_scratch, scene, mut drivers) = stage(["vale0:vm1", "vale0:vm2"])?;
    while_they_talk(&mut drivers, || {
        let arguments = ["-f", "rx", "-i", "vale0:b", "-n", "4000", "-w", "0"];
        let mut rx = start(&scene, "pkt-gen", &arguments)?;
        ready(&rx)?;
        let arguments = [
            "-f", "tx", "-i", "vale0:a", "-n", "4000", "-R", "4000", "-b", "16", "-w", "0",
        ];
        let mut tx = start(&scene, "pkt-gen", &arguments)?;
        assert_eq!(counted(&mut tx, "Sent")?, 4000);
        // What the guests send is flooded until each has heard of the other.
        assert!(counted(&mut rx, "Received")? >= 4000);
        let mut pong = start(
            &scene,
            "pkt-gen",
            &["-f", "pong", "-i", "vale0:b", "-w", "0"],
        )?;
        ready(&pong)?;
        // An emulated machine whose processors are the guests' has 100 a second.
        let arguments = ["-f", "ping", "-i", "vale0:a", "-n", "500", "-w", "0"];
        let mut ping = start(&scene, "pkt-gen", &arguments)?;
        assert!(ping.wait(SOON)?.success());
        ping.errors
            .wait_for(0, SOON, |line| line.contains("RTT over 500 packets"))
            .map_err(|error| ping.explain(error, "waiting for all answers"))?;
        pong.signal(Signal::SIGINT)?;
        pong.wait(SOON)?;
        Ok(())
    })?;
    drop(drivers);
    scene.end()
}

fn bridged() -> Result<()> {
    let (_scratch, scene, mut drivers) = stage(["vale0:vm1", "vale1:vm2"])?;
    let arguments = ["-i", "vale0:bridge", "-i", "vale1:bridge", "-w", "0"];
    let mut bridge = start(&scene, "bridge", &arguments)?;
    bridge
        .errors
        .wait_for(0, SOON, |line| line.contains("Ready to go"))
        .map_err(|error| bridge.explain(error, "waiting for it"))?;
    let [one, other] = &mut drivers;
    for number in 0..2000 {
        let sent = drivers::frame(number, 64 + number as usize % 1400);
        drivers::send(one, &sent)?;
        assert_eq!(drivers::receive(other, SOON)?.as_ref(), Some(&sent));
    }
    bridge.signal(Signal::SIGINT)?;
    bridge.wait(SOON)?;
    drop(drivers);
    scene.end()
}

/// What one guest sends, and what the other is given: as many frames as were
/// sent, in order, and each as it was.
fn monitored() -> Result<()> {
    const FRAMES: u32 = 500;
    let (_scratch, scene, [mut one, mut other]) = stage(["vale0:vm1", "vale0:vm2"])?;
    // The switch knows where the second is; nothing of this is monitored.
    let mut hello = drivers::frame(0, 64);
    hello[..6].copy_from_slice(&[0xff; 6]);
    hello[6..12].copy_from_slice(&HEADER[..6]);
    drivers::send(&mut other, &hello)?;
    assert_eq!(drivers::receive(&mut one, SOON)?, Some(hello));
    let count = FRAMES.to_string();
    let monitors = ["vale0:vm1/t", "vale0:vm2/r"].map(|name| {
        let arguments = ["-f", "rx", "-X", "-n", &count, "-i", name, "-w", "0"];
        let monitor = start(&scene, "pkt-gen", &arguments)?;
        ready(&monitor).map(|()| monitor)
    });
    let lens = (0..FRAMES).map(|number| 60 + number as usize % 200);
    let sent: Vec<Vec<u8>> = (0..FRAMES)
        .zip(lens)
        .map(|(number, len)| drivers::frame(number, len))
        .collect();
    for frame in &sent {
        drivers::send(&mut one, frame)?;
        assert_eq!(drivers::receive(&mut other, SOON)?.as_ref(), Some(frame));
    }
    for monitor in monitors {
        let mut monitor = monitor?;
        assert_eq!(counted(&mut monitor, "Received")?, FRAMES.into());
        assert!(dumps(&monitor) == sent, "other frames than were sent");
    }
    drop((one, other));
    scene.end()
}
