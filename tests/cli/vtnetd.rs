//! Runs the binary.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The status of sysexits(3) for a wrong command line.
pub const EX_USAGE: i32 = 64;

/// vtnetd with `args`, not yet run.
pub fn vtnetd(args: &[&str]) -> Command {
    let mut command = Command::new(bed::program(env!("CARGO_BIN_EXE_vtnetd")));
    command.args(args);
    command
}

/// Runs vtnetd until it ends by itself.
pub fn run(args: &[&str]) -> Output {
    vtnetd(args).output().expect("vtnetd can be started")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("vtnetd prints UTF-8")
}

#[test]
fn what_is_asked_for_goes_to_standard_output() {
    let version = format!("vtnetd {}\n", env!("CARGO_PKG_VERSION"));
    for (args, beginning) in [
        (&["-h"][..], "usage: vtnetd "),
        (&["--help", "-v"], "usage: vtnetd "),
        (&["--version"], &version),
        (&["--print-capabilities"], "{\"type\": \"net\"}\n"),
        // QEMU's convention: nothing else counts then.
        (&["-x", "--print-capabilities"], "{\"type\": \"net\"}\n"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let printed = text(&output.stdout);
        assert!(printed.starts_with(beginning), "{args:?}: {printed}");
        assert_eq!(text(&output.stderr), "", "{args:?}");
    }
}

/// A directory for one test, removed with what is in it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(test: &str) -> Self {
        let name = format!("vtnetd-cli-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory for the test");
        Self(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// What is in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the test's directory");
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
