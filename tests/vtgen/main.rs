//! vtgen(8) as a program: what it refuses, and what it shows of a device.

#![allow(
    clippy::unwrap_used,
    reason = "tests state what must be; unwrap is how they say it"
)]

#[cfg(target_os = "linux")]
mod device;
#[cfg(target_os = "linux")]
mod life;
mod program;
mod refused;
