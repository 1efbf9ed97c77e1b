//! vtgen(8): a vhost-user front end with a virtio-net driver in software, which
//! sends, receives, reflects and measures.

use std::io::{self, Write};
use std::process::ExitCode;

use vtnetd::driver::vtgen::{self, Command};
use vtnetd::process::{Exit, log};

fn main() -> ExitCode {
    let config = match vtgen::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(config)) => config,
        Ok(Command::Help) => {
            say(&vtgen::usage());
            return ExitCode::SUCCESS;
        }
        Ok(Command::Version) => {
            say(&format!("vtgen {}\n", env!("CARGO_PKG_VERSION")));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("vtgen: {error}");
            return Exit::Usage.into();
        }
    };
    // The second step is for the messages, which are the log's last.
    log::start(if config.verbose > 1 { 2 } else { 0 }, false);
    match vtgen::run(&config, &mut say, &mut |line| eprintln!("{line}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vtgen: {error}");
            error.exit().into()
        }
    }
}

/// Prints to standard output. Whoever read it may have gone; that is no reason
/// to fail.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
