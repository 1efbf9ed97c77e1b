//! Runs the binary.

use std::process::{Command, Output, Stdio};

/// vtgen with `args`, not yet run.
pub fn vtgen(args: &[&str]) -> Command {
    let mut command = Command::new(bed::program(env!("CARGO_BIN_EXE_vtgen")));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs vtgen until it ends by itself.
pub fn run(args: &[&str]) -> Output {
    vtgen(args).output().expect("vtgen can be started")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("vtgen prints UTF-8")
}
