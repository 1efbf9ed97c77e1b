//! What vtnetd is tried on, as a black box: Linux guests under qemu, DPDK's
//! testpmd, FreeBSD's interfaces and netgraph nodes, and vtnetd itself as a
//! process that can be asked and counted. Most tests in `tests/`, the bench
//! `compare` and the demo stand on it.
//!
//! A bed is not there on every machine. [`equipment`] says what is, and
//! [`run_tests`] counts what cannot run as skipped, with the reason on one
//! line.

mod census;
pub mod equipment;
mod error;
#[cfg(target_os = "freebsd")]
pub mod freebsd;
mod guest;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(target_os = "linux")]
mod packet_socket;
mod process;
mod program;
mod scratch;
mod suite;
mod testpmd;
mod transcript;
mod vtnetd;

pub use census::{Census, children, private_resident, processor_time};
pub use error::{Error, Result};
pub use guest::{Guest, GuestOptions, Transfer, transfer};
#[cfg(target_os = "linux")]
pub use namespace::Namespace;
#[cfg(target_os = "linux")]
pub use packet_socket::PacketSocket;
pub use process::Process;
pub use program::program;
pub use scratch::Scratch;
pub use suite::{Test, run_tests, skipped};
pub use testpmd::{Counts, Effort, Links, Testpmd};
pub use transcript::Transcript;
pub use vtnetd::{Counters, Vtnetd};
