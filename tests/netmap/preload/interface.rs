//! An interface of the host, by way of the sandboxed service and its opener.

use std::thread::sleep;
use std::time::{Duration, Instant};

use bed::{Namespace, PacketSocket, Result, Test, equipment};

use crate::own::{self, FRAME_TYPE};
use crate::scene::{SOON, Scene};
use crate::start;

pub fn tests() -> Vec<Test> {
    let needs = || equipment::tap().and_then(|()| equipment::tcx());
    vec![
        Test::new("an_interface_of_the_host_is_a_port", port).needing(needs()),
        Test::new("a_killed_service_gives_interfaces_back", killed).needing(needs()),
    ]
}

/// A host with a cable from one interface to another.
fn host() -> Result<Namespace> {
    let host = Namespace::new()?;
    host.run("ip link add here0 type veth peer name there0")?;
    host.run("ip link set here0 up")?;
    host.run("ip link set there0 up")?;
    Ok(host)
}

fn interfaces() -> usize {
    nix::net::if_::if_nameindex().unwrap().iter().count()
}

/// What the program at the other end is sent comes back.
fn comes_back(there: &PacketSocket) -> Result<()> {
    let mut frame = vec![2; 100];
    frame[12..14].copy_from_slice(&FRAME_TYPE);
    there.send(&frame)?;
    frame[14] = !frame[14];
    // The kernel has something to say on new interfaces as well.
    while there.recv(SOON)?.expect("an answer") != frame {}
    Ok(())
}

fn port() -> Result<()> {
    let host = host()?;
    host.within(|| {
        let there = PacketSocket::new("there0")?;
        let before = interfaces();
        let scene = Scene::with_keys(",interface=here0")?;
        let mut process = start(&scene, own::ECHO)?;
        process.output.wait_for(0, SOON, |line| line == "bound")?;
        assert_eq!(interfaces(), before + 1, "its host side");
        for _ in 0..10 {
            comes_back(&there)?;
        }
        process.kill()?;
        wait_until_clean(before);
        scene.end()
    })
}

fn killed() -> Result<()> {
    let host = host()?;
    host.within(|| {
        let there = PacketSocket::new("there0")?;
        let before = interfaces();
        let mut scene = Scene::with_keys(",interface=here0")?;
        let mut process = start(&scene, own::ECHO)?;
        process.output.wait_for(0, SOON, |line| line == "bound")?;
        comes_back(&there)?;
        scene.vtnetd.kill()?;
        wait_until_clean(before);
        process.kill()
    })
}

/// The kernel takes its time.
fn wait_until_clean(interfaces_before: usize) {
    let start = Instant::now();
    while interfaces() != interfaces_before {
        assert!(start.elapsed() < SOON, "a tap stays behind");
        sleep(Duration::from_millis(5));
    }
}
