//! netmap's own programs, unmodified, with `libvtnetmap.so` in front of them and
//! `vtnetd -N` behind. `NETMAP_PROGRAMS` names the directories that they are in,
//! as `PATH` does: pkt-gen, bridge, lb, vale-ctl, ctrl-api-test, functional,
//! functional-legacy, fd_server, and the scripts `test_lib` and `tests`.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what is wrong")]

mod control;
mod drivers;
mod guests;
mod scene;
mod traffic;
mod upstream;

use std::process::ExitCode;

use bed::run_tests;

fn main() -> ExitCode {
    let mut tests = control::tests();
    tests.extend(traffic::tests());
    tests.extend(guests::tests());
    run_tests(upstream::equipment(), tests)
}
