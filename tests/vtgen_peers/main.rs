//! vtgen(8) and the driver below it over a back end that is not ours: the
//! vhost ports of DPDK's testpmd. What enters one leaves the other.

#![allow(
    clippy::unwrap_used,
    reason = "tests state what must be; unwrap is how they say it"
)]

mod driver;
mod program;

use std::path::PathBuf;
use std::process::ExitCode;

use bed::{Links, Scratch, Test, Testpmd, equipment, run_tests};

/// testpmd with two vhost ports, and forwarding between them.
struct Peer {
    _testpmd: Testpmd,
    scratch: Scratch,
}

impl Peer {
    /// Starts it with `queues` pairs of queues a port.
    fn start(queues: u16) -> Self {
        let scratch = Scratch::new().unwrap();
        let [a, b] = [0, 1].map(|port| scratch.path(NAMES[port]));
        let mut testpmd =
            Testpmd::back_end(&[&a, &b], Links::new(queues, true, false), None).unwrap();
        testpmd.run("start").unwrap();
        Self {
            _testpmd: testpmd,
            scratch,
        }
    }

    /// Where port `port`, 0 or 1, listens.
    fn socket(&self, port: usize) -> PathBuf {
        self.scratch.path(NAMES[port])
    }
}

const NAMES: [&str; 2] = ["0.sock", "1.sock"];

fn main() -> ExitCode {
    let equipment = equipment::testpmd().map_err(|missing| missing.while_doing("testpmd"));
    let all: [(&str, fn()); 4] = [
        (
            "frames_cross_whatever_is_negotiated",
            driver::frames_cross_whatever_is_negotiated,
        ),
        ("tx_and_rx_agree", program::tx_and_rx_agree),
        (
            "both_pairs_of_two_carry_frames",
            program::both_pairs_of_two_carry_frames,
        ),
        (
            "probes_come_back_from_a_reflector",
            program::probes_come_back_from_a_reflector,
        ),
    ];
    let tests = all.map(|(name, body)| {
        Test::new(name, move || {
            body();
            Ok(())
        })
    });
    run_tests(equipment, tests.into())
}
