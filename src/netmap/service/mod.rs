//! The service: programs on this machine open ports of this core, as they open
//! `/dev/netmap` of a kernel that has it.
//!
//! Each open descriptor is a connection, and each connection one
//! [`Control`](super::ctrl::Control). Control requests are worked on by the
//! control thread, syncs by a worker, in the same turns as queue pairs, so that
//! clients and guests have the same share. A client that dies has its connection
//! closed by the system, and what it had bound goes with that.
//!
//! | module | job |
//! | --- | --- |
//! | [`wire`] | what goes between a client and the service |
//! | [`gather`] | what of a client's memory goes along with a request |
//! | `listener` | connections that come and go, and their requests |
//! | `connection` | one connection and its channels |
//! | `client` | syncs, in a worker |
//! | `memory` | a client's memory, as far as it came along |
//! | `strays` | descriptors that nobody has asked for |
//! | `peer` | who is at the other end |
//! | [`rules`] | what they may do |

mod client;
mod connection;
pub mod gather;
mod listener;
mod memory;
mod peer;
pub mod rules;
mod strays;
pub mod wire;

pub use client::Client;
pub use listener::Service;
pub use strays::Strays;

/// An errno as it is sent.
fn number(errno: nix::errno::Errno) -> u32 {
    // They are positive.
    (errno as i32).unsigned_abs()
}

#[cfg(test)]
mod tests;
