//! vtnetd on a FreeBSD kernel: one module for each back end, as a black box,
//! with frames from software drivers. Elsewhere there is nothing to do.
//!
//! `tests/freebsd/run` builds this and the other tests on Linux and has them
//! run on a FreeBSD machine. What the machine lacks is said on one line, and the
//! test is counted as ignored: a body ends with [`bed::Error::missing`].

#![allow(clippy::unwrap_used, reason = "a test says by panicking what is wrong")]

use std::process::ExitCode;

#[cfg(target_os = "freebsd")]
mod drive;
/// As in the tests of the tap back end on Linux.
#[cfg(target_os = "freebsd")]
#[path = "../tap/frames.rs"]
#[allow(
    dead_code,
    clippy::cast_possible_truncation,
    reason = "part of it is for the other tests"
)]
mod frames;
#[cfg(target_os = "freebsd")]
mod launcher;
#[cfg(target_os = "freebsd")]
mod machine;
#[cfg(target_os = "freebsd")]
mod netgraph;
#[cfg(target_os = "freebsd")]
mod netmap;
#[cfg(target_os = "freebsd")]
mod service;
#[cfg(target_os = "freebsd")]
mod switch;
#[cfg(target_os = "freebsd")]
mod tap;
#[cfg(target_os = "freebsd")]
mod vale;
#[cfg(target_os = "freebsd")]
mod without_netmap;

#[cfg(target_os = "freebsd")]
fn main() -> ExitCode {
    let tests = [
        launcher::tests(),
        machine::tests(),
        netgraph::tests(),
        netmap::tests(),
        service::tests(),
        switch::tests(),
        tap::tests(),
        vale::tests(),
        without_netmap::tests(),
    ];
    bed::run_tests(Ok(()), tests.into_iter().flatten().collect())
}

#[cfg(not(target_os = "freebsd"))]
fn main() -> ExitCode {
    bed::run_tests(Ok(()), Vec::new())
}
