//! Interfaces of the host as netmap ports, on a real kernel: two hosts, each a
//! network namespace of the test's own, with a veth(4) cable between them.
//!
//! `bed` is the hosts and the core, `client` a netmap client. Each test needs
//! root and /dev/net/tun; without them it says that it is skipped.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test states what must be, and fails where it is not"
)]

mod bed;
#[allow(dead_code, reason = "shared with the tests of switches")]
#[path = "../netmap/client.rs"]
mod client;
mod rings;
mod switch;
