//! What vtgen shows of a device that vtnetd serves.

use bed::{Process, Scratch, Vtnetd};

use crate::program::{run, text, vtgen};

const MAC: &str = "02:00:00:00:00:0a";

/// A device at a socket of its own, with `options` beside its MAC.
fn device(options: &str) -> (Vtnetd, Scratch, String) {
    let scratch = Scratch::new().unwrap();
    let socket = scratch.path("a.sock").to_str().unwrap().to_owned();
    let device = format!("virtio-net,vale0:a,type=core,socket={socket},mac={MAC}{options}");
    let program = bed::program(env!("CARGO_BIN_EXE_vtnetd"));
    let vtnetd = Vtnetd::start(&program, &[device], None).unwrap();
    (vtnetd, scratch, socket)
}

#[test]
fn the_configuration_is_printed_for_people_and_programs() {
    let (_vtnetd, _scratch, socket) = device(",mtu=9000");
    let people = run(&["--socket-path", &socket, "--config"]);
    assert!(people.status.success());
    let said = text(&people.stdout);
    for line in [&format!("mac: {MAC}"), "link: up", "mtu: 9000"] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    let programs = run(&["--socket-path", &socket, "--config", "--json", "--legacy"]);
    let said = text(&programs.stdout);
    assert_eq!(said.lines().count(), 1);
    assert!(
        said.contains(&format!("\"mac\": \"{MAC}\", \"link\": \"up\"")),
        "{said}"
    );
    let (_, used) = said.split_once("\"used\"").unwrap();
    assert!(!used.contains("version-1"), "{said}");
}

#[test]
fn an_mtu_that_disagrees_is_refused_and_ends_with_76() {
    let (_vtnetd, _scratch, socket) = device(",mtu=9000");
    let same = run(&["--socket-path", &socket, "--set-mtu=9000"]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stderr));
    let other = run(&["--socket-path", &socket, "--set-mtu=1400"]);
    assert_eq!(other.status.code(), Some(76));
    let said = text(&other.stderr);
    assert!(said.contains("refused NetSetMtu"), "{said}");
    assert!(said.contains("its log says why"), "{said}");
}

#[test]
fn twice_verbose_each_message_is_logged() {
    let (_vtnetd, _scratch, socket) = device("");
    let output = run(&["--socket-path", &socket, "--config", "-v", "-v"]);
    let said = text(&output.stderr);
    for part in [
        "GetFeatures: 0 bytes, 0 descriptors",
        "GetFeatures: answered with 8 bytes",
        "SetMemTable: ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let quiet = run(&["--socket-path", &socket, "--config", "-v"]);
    assert_eq!(text(&quiet.stderr), "");
}

/// Not that a message failed which was sent long before.
#[test]
fn a_back_end_that_ends_has_gone() {
    let (vtnetd, _scratch, socket) = device("");
    let mut command = vtgen(&["--socket-path", &socket, "--watch-config"]);
    let watcher = Process::start("vtgen", &mut command).unwrap();
    let soon = std::time::Duration::from_secs(10);
    let up = watcher.output.wait_for(0, soon, |line| line == "link: up");
    up.unwrap();
    vtnetd.stop().unwrap();
    let said = watcher
        .errors
        .wait_for(0, soon, |line| line.contains("vtgen: "));
    let said = watcher.errors.since(said.unwrap());
    assert!(!said[0].contains("SetBackendReqFd"), "{said:?}");
}

#[test]
fn a_change_of_the_configuration_is_noticed() {
    let (_vtnetd, _scratch, socket) = device("");
    let mut command = vtgen(&["--socket-path", &socket, "--watch-config", "--set-mtu=4000"]);
    let mut watcher = Process::start("vtgen", command.arg("--json")).unwrap();
    let soon = std::time::Duration::from_secs(10);
    let before = watcher
        .output
        .wait_for(0, soon, |line| line.contains("\"mtu\": 1500"));
    let after = watcher
        .output
        .wait_for(0, soon, |line| line.contains("\"mtu\": 4000"));
    assert!(before.unwrap() < after.unwrap());
    watcher.signal(nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(watcher.wait(soon).unwrap().success());
}

#[test]
fn the_address_is_written_as_a_driver_does() {
    let (_vtnetd, _scratch, socket) = device("");
    let written = run(&[
        "--socket-path",
        &socket,
        "--set-mac=02:00:00:00:00:0b",
        "--config",
    ]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    let said = text(&written.stdout);
    assert!(said.contains("mac: 02:00:00:00:00:0b"), "{said}");
}
