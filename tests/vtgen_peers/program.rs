//! Two vtgens with the peer between them.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Peer;

/// One number of a summary in JSON: `field` of the object `object`.
fn number(json: &str, object: &str, field: &str) -> f64 {
    let (_, inside) = json.split_once(&format!("\"{object}\": {{")).unwrap();
    let (_, value) = inside.split_once(&format!("\"{field}\": ")).unwrap();
    let end = value.find([',', '}']).unwrap();
    value[..end].parse().unwrap()
}

/// A running vtgen at one port of the peer; killed when dropped.
struct Running(Child);

impl Running {
    fn start(peer: &Peer, port: usize, args: &[&str]) -> Self {
        let socket = peer.socket(port);
        let child = Command::new(env!("CARGO_BIN_EXE_vtgen"))
            .args(args)
            .arg("--socket-path")
            .arg(&socket)
            .arg("--json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Waits until it ends by itself, and returns its summary.
    fn summary(&mut self) -> String {
        let mut summary = String::new();
        let out = self.0.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut summary).unwrap();
        let mut errors = String::new();
        let mut err = self.0.stderr.take().unwrap();
        err.read_to_string(&mut errors).unwrap();
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}: {errors}");
        summary
    }

    /// Ends it as a user does, and returns its summary.
    fn end(&mut self, signal: Signal) -> String {
        let pid = i32::try_from(self.0.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        self.summary()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Frames cross from `tx` to `rx`; none is lost, none changes.
fn one_way(peer: &Peer, args: &[&str], len: u32) {
    let count = 3000.0;
    let length = format!("--length={len}");
    // Slow and with room, so that a busy machine loses nothing.
    let common = [args, &[&length, "--ring-size=2048"]].concat();
    let mut rx = Running::start(peer, 1, &[&common[..], &["--count=3000", "rx"]].concat());
    let mut tx = Running::start(peer, 0, &[&common[..], &["--rate=5k", "tx"]].concat());
    let received = rx.summary();
    let sent = tx.end(Signal::SIGTERM);
    let rx = |field| number(&received, "rx", field);
    assert_eq!(rx("frames"), count, "{received}");
    assert_eq!(rx("bytes"), count * f64::from(len), "{received}");
    assert_eq!(rx("probes"), count, "{received}");
    for none in ["lost", "late", "duplicate", "corrupt", "other"] {
        assert_eq!(rx(none), 0.0, "{none}: {received}");
    }
    assert!(number(&sent, "tx", "frames") >= count, "{sent}");
}

pub fn tx_and_rx_agree() {
    let peer = Peer::start(1);
    one_way(&peer, &[], 60);
    one_way(&peer, &["--udp", "--poll"], 1514);
    one_way(&peer, &["--no-mergeable", "--no-event-idx"], 1514);
    one_way(&peer, &["--legacy", "--no-indirect"], 64);
    // Several receive buffers for one frame, and several pieces for one chain.
    one_way(&peer, &["--piece=600", "--regions=3", "--pipes"], 9014);
}

pub fn both_pairs_of_two_carry_frames() {
    let peer = Peer::start(2);
    one_way(&peer, &["--pairs=2"], 60);
}

pub fn probes_come_back_from_a_reflector() {
    let peer = Peer::start(1);
    let mut reflector = Running::start(&peer, 1, &["reflect"]);
    // Ports start some time after a front end has connected, each time anew: on
    // a busy machine that takes longer than the first waits.
    let open = (0..8).any(|n| {
        let wait = format!("--wait={}", 0.2 * f64::from(1 << n));
        let mut probe = Running::start(&peer, 0, &["--count=20", "--rate=10", &wait, "ping"]);
        probe.0.wait().unwrap().success()
    });
    assert!(open, "no probe comes back");
    for args in [&["--length=60"][..], &["--udp", "--length=1514"]] {
        let args = [args, &["--count=200", "--wait=10", "ping"]].concat();
        let pinged = Running::start(&peer, 0, &args).summary();
        assert_eq!(number(&pinged, "rx", "probes"), 200.0, "{pinged}");
        assert_eq!(number(&pinged, "rx", "lost"), 0.0, "{pinged}");
        let times = ["min", "p50", "p90", "p99", "max"];
        let times = times.map(|name| number(&pinged, "latency_us", name));
        assert!(times[0] > 0.0 && times.is_sorted(), "{pinged}");
    }
    let reflected = reflector.end(Signal::SIGINT);
    let way = |name| number(&reflected, name, "frames");
    assert!(way("rx") > 400.0, "{reflected}");
    assert_eq!(way("rx"), way("tx"), "{reflected}");
}
