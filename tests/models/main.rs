//! Who sleeps is woken: every protocol by which a side says that it is to be
//! woken, with the code that runs, in every order in which loom lets threads see
//! each other's stores. `tests/models/run` builds it; without `--cfg loom` it is
//! empty.
//!
//! A lost wake-up is loom's report of a deadlock.

#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "it is how a test says what must be")]

mod kloop;
mod page;
mod pipe;
mod queue;
mod worker;
