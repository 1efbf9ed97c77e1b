//! What the log tells whoever writes a VMM.

use std::path::Path;

use nix::sys::signal::Signal;
use vtnetd::driver::front_end::FrontEnd;
use vtnetd::driver::net::{NetDriver, NetOptions};

use crate::lifecycle::Running;
use crate::vtnetd::{Scratch, vtnetd};

/// vtnetd with `options` and one device, `web`, and a driver that drives it.
fn driven(test: &str, options: &[&str]) -> (Running, NetDriver, Scratch) {
    let scratch = Scratch::new(test);
    let socket = scratch.path("s");
    let device = format!("virtio-net,vale0:vm1,type=core,name=web,socket={socket}");
    let running = Running::ready(&[options, &["-s", &device]].concat());
    let front_end = FrontEnd::connect(Path::new(&socket)).unwrap();
    let driver = NetDriver::start(front_end, &NetOptions::default()).unwrap();
    (running, driver, scratch)
}

#[test]
fn once_verbose_it_says_how_a_front_end_sets_the_device_up() {
    let (mut running, mut driver, _scratch) = driven("verbose", &["-v"]);
    driver.front_end().set_mtu(4000).unwrap();
    drop(driver);
    for part in [
        "web/vale0:vm1: front end connected",
        "web/vale0:vm1: protocol features: 0x",
        "mergeable,status",
        "web/vale0:vm1: memory at 0x",
        "web/vale0:vm1 rx0: ring started",
        "web/vale0:vm1 tx0: ring enabled",
        "web/vale0:vm1: the front end's MTU: 4000",
        "web/vale0:vm1: front end disconnected",
    ] {
        let line = running.until(part);
        assert!(!line.contains("GetFeatures"), "{line}");
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
}

/// As many as there are: the log's limit is for what nobody has asked for.
#[test]
fn twice_verbose_it_logs_each_message() {
    const TIMES: usize = 100;
    let (mut running, mut driver, _scratch) = driven("messages", &["-v", "-v"]);
    running.until("web/vale0:vm1: SetMemTable: ");
    running.until("1 descriptors");
    for _ in 0..TIMES {
        driver.front_end().config(0, 6).unwrap();
    }
    for _ in 0..TIMES {
        running.until("web/vale0:vm1: GetConfig: 18 bytes, 0 descriptors");
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn the_state_of_a_device_is_logged_on_demand() {
    let (mut running, driver, scratch) = driven("state", &[]);
    running.signal(Signal::SIGUSR1);
    let line = running.until("web/vale0:vm1: front_end=connected");
    for part in [
        " link=up mtu=1500 memory=",
        " running=rx0,tx0 ",
        "mergeable",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!line.contains("memory=0"), "{line}");
    drop(driver);
    running.until("front end disconnected");
    running.signal(Signal::SIGUSR1);
    let line = running.until("web/vale0:vm1: front_end=none");
    let alone = "front_end=none link=up mtu=1500 memory=0 running=none features=none";
    assert!(line.contains(alone), "{line}");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
    drop(scratch);
}

#[test]
fn an_interface_that_is_not_there_is_named_at_the_start() {
    let scratch = Scratch::new("interface");
    let service = format!("{},interface=nosuch0", scratch.path("n"));
    let mut running = Running::spawn(&mut vtnetd(&["-N", &service]));
    running.until("-N: interface=nosuch0: there is no such interface");
    running.until("ready");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
}

/// Where the kernel's netmap has them.
#[cfg(target_os = "freebsd")]
#[test]
fn an_interface_that_clients_cannot_have_is_named_at_the_start() {
    let scratch = Scratch::new("kernels");
    let service = format!("{},interface=lo0", scratch.path("n"));
    let mut running = Running::spawn(&mut vtnetd(&["-N", &service]));
    let line = running.until("-N: interface=lo0: ");
    assert!(line.contains("the kernel's netmap"), "{line}");
    running.until("ready");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
}
