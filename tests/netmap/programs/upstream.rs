//! netmap's own programs, unmodified.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::{env, fs};

use bed::{Error, Process, Result};

use crate::scene::{SOON, Scene};

/// The environment variable that names the directories that they are in.
const PROGRAMS: &str = "NETMAP_PROGRAMS";

/// Whether there are any.
///
/// # Errors
/// There are none here.
pub fn equipment() -> Result<()> {
    match env::var_os(PROGRAMS) {
        Some(_) => Ok(()),
        None => Err(Error::missing(format!(
            "netmap's own programs: {PROGRAMS} is not set; build them, and name their \
             directories in it"
        ))),
    }
}

/// Where `name` is.
pub fn path(name: &str) -> Result<PathBuf> {
    let directories = env::var_os(PROGRAMS).unwrap_or_default();
    let found = env::split_paths(&directories).find_map(|directory| {
        let path = directory.join(name);
        path.exists().then_some(path)
    });
    let found = found.ok_or_else(|| Error::missing(format!("{name} is not in {PROGRAMS}")))?;
    Ok(fs::canonicalize(found)?)
}

/// One to be started, whose words can be read as it says them.
pub fn command(name: &str) -> Result<Command> {
    let mut command = Command::new("stdbuf");
    command.args(["-o", "L"]).arg(path(name)?);
    Ok(command)
}

/// Starts one.
pub fn start(scene: &Scene, name: &str, arguments: &[&str]) -> Result<Process> {
    scene.start_as(name, command(name)?.args(arguments))
}

/// Runs one to its end.
pub fn run(scene: &Scene, name: &str, arguments: &[&str]) -> Result<(ExitStatus, Vec<String>)> {
    let mut process = start(scene, name, arguments)?;
    let status = process.wait(SOON)?;
    let mut said = process.output.since(0);
    process.errors.wait_for_end(SOON)?;
    said.extend(process.errors.since(0));
    Ok((status, said))
}
