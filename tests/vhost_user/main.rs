//! The vhost-user back end, seen from a front end that is right, wrong, slow or
//! gone: a real device, a real event loop, a real socket.
//!
//! `bed` is the back end's side, `front` a front end that can say anything.

#![allow(clippy::unwrap_used, reason = "it is how a test says what must be")]

mod bed;
mod connections;
mod descriptors;
mod exhaustion;
#[path = "../freebsd/launcher/file.rs"]
mod file;
mod front;
mod kinds;
mod moves;
mod mutations;
mod orders;
mod refusals;
mod requests;
mod traps;
mod values;
