//! FreeBSD's network: interfaces, frames on them, netgraph nodes.
//!
//! All of it takes root. What a small system lacks (a program, a kernel
//! module) makes an error that [is missing](crate::Error::is_missing), so that
//! the test is skipped.

mod bpf;
mod interface;
mod netgraph;

use std::io::ErrorKind;
use std::process::Command;

pub use bpf::{Bpf, Direction};
pub use interface::Interface;
pub use netgraph::{NgInterface, ngctl};

use crate::{Error, Result};

/// Runs a command, given as one line of words; what it printed, without the
/// last newline.
///
/// # Errors
/// It failed; or it is missing.
pub fn run(line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    run_words(&words)
}

/// As [`run`], with words that may have blanks in them.
///
/// # Errors
/// As [`run`].
pub fn run_words(words: &[&str]) -> Result<String> {
    let [program, arguments @ ..] = words else {
        return Err(Error::new("no command"));
    };
    let output = match Command::new(program).args(arguments).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::missing(format!("there is no {program} here")));
        }
        output => output?,
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!(
        "{}: {}",
        words.join(" "),
        said.trim_end()
    )))
}

/// That module `name` is in the kernel, now if not before.
///
/// # Errors
/// There is none, or this user may not load it; it is missing.
pub fn module(name: &str) -> Result<()> {
    let there = run_words(&["kldstat", "-q", "-m", name]).is_ok();
    if there || run_words(&["kldload", "-n", name]).is_ok() {
        return Ok(());
    }
    Err(Error::missing(format!("the kernel has no {name}")))
}

/// A number or text of sysctl(8) that is another for a while; as it was before
/// when dropped.
#[derive(Debug)]
pub struct Setting {
    name: String,
    before: String,
}

impl Setting {
    /// Sets `name` to `value`.
    ///
    /// # Errors
    /// sysctl's: there is no such setting, or no such value for it.
    pub fn set(name: &str, value: &str) -> Result<Self> {
        let before = run(&format!("sysctl -n {name}"))?;
        run(&format!("sysctl {name}={value}"))?;
        Ok(Self {
            name: name.to_owned(),
            before,
        })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // It could be set, so it can be set again.
        let _ = run(&format!("sysctl {}={}", self.name, self.before));
    }
}
