//! A program of ours that opens `/dev/netmap`, with `libvtnetmap.so` in front of
//! it and `vtnetd -N` behind: this executable itself.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what is wrong")]

#[cfg(target_os = "linux")]
#[path = "../programs/drivers.rs"]
mod drivers;
#[cfg(target_os = "linux")]
mod interface;
#[cfg(target_os = "linux")]
mod killed;
mod loops;
mod own;
mod pipes;
mod port;
#[path = "../programs/scene.rs"]
mod scene;
mod service;
mod waits;

use std::env;
use std::process::{Command, ExitCode};
use std::time::Duration;

use bed::{Error, Process, Result, Test, run_tests};

use scene::{SOON, Scene};

/// The environment variable that says what this executable is to do as a
/// program that uses netmap.
const CLIENT: &str = "NETMAP_CLIENT";
/// Who is not done by then hangs. Hundreds of ports that come and go, and
/// thousands of wake-ups, take an emulated machine a minute or two.
const HANGS: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let all = own::ALL
        .into_iter()
        .chain(waits::ALL)
        .chain(waits::SYSTEM)
        .chain(pipes::ALL)
        .chain(loops::ALL);
    if let Ok(name) = env::var(CLIENT) {
        #[cfg(target_os = "linux")]
        let all = all.chain(killed::NAMED);
        let mut all = all.chain(own::NAMED).chain(pipes::NAMED);
        let found = all.find(|(known, _)| *known == name);
        found.unwrap().1();
        return ExitCode::SUCCESS;
    }
    let mut tests: Vec<Test> = all
        .map(|(name, _)| Test::new(name, move || client(name)))
        .collect();
    tests.extend(service::tests());
    tests.extend(pipes::tests());
    #[cfg(target_os = "linux")]
    {
        tests.extend(interface::tests());
        tests.extend(killed::tests());
    }
    run_tests(Ok(()), tests)
}

/// This executable as a program that uses netmap.
fn start(scene: &Scene, name: &str) -> Result<Process> {
    let mut command = Command::new(env::current_exe()?);
    scene.start_as(name, command.env(CLIENT, name))
}

/// Runs a program of ours, which fails by panicking.
fn client(name: &str) -> Result<()> {
    let scene = Scene::new()?;
    let mut process = start(&scene, name)?;
    let status = process.wait(HANGS)?;
    if status.success() {
        return scene.end();
    }
    process.errors.wait_for_end(SOON)?;
    Err(process.explain(Error::new(status.to_string()), "it failed"))
}
