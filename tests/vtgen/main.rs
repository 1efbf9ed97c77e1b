//! vtgen(8) as a program: what it refuses, and what it shows of a device.

#![allow(
    clippy::unwrap_used,
    reason = "tests state what must be; unwrap is how they say it"
)]

mod device;
mod life;
mod program;
mod refused;
