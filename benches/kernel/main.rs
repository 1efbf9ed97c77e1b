//! FreeBSD's own netmap beside ours, in frames a second of one run: netmap's
//! pkt-gen, unmodified, over the kernel's switch and pipe and over those of the
//! service; vtgen through vtnetd into the kernel's switch; and what it is worth
//! there to send a batch with one sync.
//!
//! `NETMAP_PROGRAMS` names the directory that pkt-gen is in. Rounds of all take
//! turns, so that whatever else the machine does falls on all, and the medians
//! are compared. `tests/freebsd/run --bench` has it run on a FreeBSD machine.
//!
//!     kernel.bench [--rounds 3] [--seconds 5]

#[cfg(target_os = "freebsd")]
mod contender;
#[cfg(target_os = "freebsd")]
mod rounds;
#[cfg(target_os = "freebsd")]
#[path = "../../tests/netmap/programs/scene.rs"]
mod scene;
#[cfg(target_os = "freebsd")]
#[expect(dead_code, reason = "the tests run programs to their end, too")]
#[path = "../../tests/netmap/programs/upstream.rs"]
mod upstream;

use std::process::ExitCode;

#[cfg(target_os = "freebsd")]
fn main() -> ExitCode {
    rounds::main()
}

#[cfg(not(target_os = "freebsd"))]
fn main() -> ExitCode {
    bed::skipped("this system's kernel has no netmap");
    ExitCode::SUCCESS
}
