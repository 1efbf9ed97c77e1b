//! The command line of the real vtnetd(8): what it prints, what it refuses,
//! how it starts and ends, and that the manual page agrees with `-h`.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what is wrong")]

mod lifecycle;
mod log;
mod manual;
mod privileges;
mod refused;
mod unread;
mod vtnetd;
