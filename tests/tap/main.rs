//! The tap back end between the kernel and a guest: our software driver over a
//! real vhost-user socket, a real interface in a network namespace of the
//! test's own.
//!
//! `bed` is the device and the guest, `host` the kernel's side, `frames` what
//! is sent. Each test needs root and /dev/net/tun; without them it says that it
//! is skipped.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test states what must be, and fails where it is not"
)]

mod bed;
mod buffers;
mod datagrams;
mod frames;
mod host;
mod interface;
mod offloads;
mod queues;
mod sizes;
mod stack;
mod vanished;
