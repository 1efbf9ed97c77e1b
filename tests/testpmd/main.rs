//! A front end that is not ours, at full speed: DPDK's testpmd with two
//! `net_virtio_user` ports on two ports of a switch.
//!
//! testpmd sends some frames from both ports, and then forwards whatever
//! arrives at one port to the other for `VTNETD_TESTPMD_SECONDS` (2), as fast
//! as it goes. Afterwards both sides must have counted the same.

mod closed_loop;

use std::process::ExitCode;

use bed::{Links, Test, equipment, run_tests};

fn main() -> ExitCode {
    let equipment = equipment::testpmd().map_err(|missing| missing.while_doing("testpmd"));
    let mut tests = Vec::new();
    for queues in [1, 2] {
        for mergeable in [false, true] {
            let name = format!(
                "{queues}_pairs_{}mergeable",
                if mergeable { "" } else { "not_" }
            );
            tests.push(Test::new(name, move || {
                closed_loop::run(Links::new(queues, mergeable))
            }));
        }
    }
    run_tests(equipment, tests)
}
