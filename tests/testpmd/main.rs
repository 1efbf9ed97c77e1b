//! A front end that is not ours, at full speed: DPDK's testpmd with two
//! `net_virtio_user` ports on two ports of a switch.
//!
//! testpmd sends some frames from both ports, and then forwards whatever
//! arrives at one port to the other for `VTNETD_TESTPMD_SECONDS` (1), as fast
//! as it goes. Afterwards both sides must have counted the same.

mod closed_loop;

use std::process::ExitCode;

use bed::{Links, Test, equipment, run_tests};

fn main() -> ExitCode {
    let equipment = equipment::testpmd().map_err(|missing| missing.while_doing("testpmd"));
    let mut tests = Vec::new();
    for (queues, mergeable, packed, in_order) in [
        (1, false, false, false),
        (1, true, false, false),
        (2, false, false, false),
        (2, true, false, false),
        (1, false, true, false),
        (1, true, true, false),
        (2, true, true, false),
        (1, false, false, true),
        (2, true, false, true),
        (1, false, true, true),
        (2, true, true, true),
    ] {
        let format = if packed { "packed" } else { "split" };
        let not = if mergeable { "" } else { "not_" };
        let order = if in_order { "_in_order" } else { "" };
        let links = Links {
            in_order,
            ..Links::new(queues, mergeable, packed)
        };
        tests.push(Test::new(
            format!("{queues}_pairs_{format}_{not}mergeable{order}"),
            move || closed_loop::run(links),
        ));
    }
    run_tests(equipment, tests)
}
