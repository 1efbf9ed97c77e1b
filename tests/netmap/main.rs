//! The netmap core, seen from its clients: several on one switch, in one
//! process.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what is wrong")]

mod client;
mod concurrency;
mod hostile;
mod joins;
mod model;
mod offloads;
mod switch;
