//! A log that nobody reads: what is served goes on.

use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use vtnetd::frontend::vhost_user::Channel;
use vtnetd::frontend::vhost_user::message::{Header, Request};

use crate::lifecycle::Running;
use crate::vtnetd::Scratch;

/// Has vtnetd write more than a pipe holds, and more than waits for it to have
/// room, while nobody reads, and front ends are answered.
fn fill(running: &Running, socket: &str) {
    // Of 128 lines each, none shorter than 100 bytes.
    for _ in 0..150 {
        running.signal(Signal::SIGUSR1);
        let mut channel = Channel::new(UnixStream::connect(socket).unwrap());
        let header = Header::request(Request::GetFeatures, 0);
        channel.send(header, &[], &[]).unwrap();
        assert_eq!(channel.receive().unwrap().payload.len(), 8);
    }
}

fn start(scratch: &Scratch) -> (Running, String) {
    let socket = |number: usize| scratch.path(&number.to_string());
    let device = |number| format!("virtio-net,none,queues=8,socket={}", socket(number));
    let devices: Vec<_> = (0..8).map(device).collect();
    let mut args = vec!["--workers=1"];
    args.extend(devices.iter().flat_map(|device| ["-s", device]));
    (Running::ready(&args), socket(0))
}

#[test]
fn a_log_that_is_read_late_says_what_it_has_left_out() {
    let scratch = Scratch::new("late");
    let (mut running, socket) = start(&scratch);
    fill(&running, &socket);
    let said = running.until(" lines were left out: they were not read in time");
    assert!(said.starts_with("... log: "), "{said}");
    // And it goes on from there.
    running.signal(Signal::SIGUSR1);
    running.until("worker0: ");
    running.signal(Signal::SIGTERM);
    let (status, log) = running.end();
    assert_eq!(status, Some(0), "{log}");
    assert!(log.ends_with("SIGTERM: ending\n"), "{log}");
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_end() {
    let scratch = Scratch::new("unread");
    let (running, socket) = start(&scratch);
    fill(&running, &socket);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end_unread(), Some(0));
    assert_eq!(scratch.names(), [""; 0]);
}
