//! The service that is not there, or goes, or lets nobody in.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use bed::{Error, Process, Result, Test};

use crate::scene::{SOON, Scene};
use crate::{CLIENT, own, start};

/// A user who may nothing.
const NOBODY: u32 = 65534;

pub fn tests() -> Vec<Test> {
    let root = match nix::unistd::geteuid().is_root() {
        true => Ok(()),
        false => Err(Error::missing("only root can be another user")),
    };
    vec![
        Test::new("a_missing_service_is_named_with_the_cure", missing),
        Test::new("who_is_not_let_in_is_told_why", refused).needing(root),
        Test::new("a_service_that_dies_is_an_error_and_no_hang", || {
            dies_under(own::BEREFT)
        }),
    ]
}

fn missing() -> Result<()> {
    let mut scene = Scene::new()?;
    assert!(scene.vtnetd.stop(SOON)?.success());
    let mut process = start(&scene, own::MISSING)?;
    assert!(
        process.wait(SOON)?.success(),
        "{:?}",
        process.errors.since(0)
    );
    says(
        &process,
        &scene,
        ["start vtnetd with -N", "VTNETMAP_SOCKET"],
    )
}

/// One line that names the service, and these parts.
fn says(process: &Process, scene: &Scene, parts: [&str; 2]) -> Result<()> {
    process.errors.wait_for_end(SOON)?;
    let said = process.errors.since(0);
    let socket = scene.socket().display().to_string();
    assert_eq!(said.len(), 1, "{said:?}");
    for part in [&socket, parts[0], parts[1]] {
        assert!(said[0].contains(part), "{said:?}");
    }
    Ok(())
}

/// By the socket's mode, and by the rules.
fn refused() -> Result<()> {
    for keys in ["", ",mode=0666", ",mode=0666,allow=root:all"] {
        let scene = Scene::with_keys(keys)?;
        fs::set_permissions(&scene.scratch, fs::Permissions::from_mode(0o755))?;
        let mut command = Command::new(env::current_exe()?);
        command.env(CLIENT, own::REFUSED).uid(NOBODY).gid(NOBODY);
        let mut process = scene.start_as(own::REFUSED, &mut command)?;
        let status = process.wait(SOON)?;
        assert!(status.success(), "{:?}", process.errors.since(0));
        says(&process, &scene, ["EACCES", "allow=65534:attach"])?;
        scene.end()?;
    }
    Ok(())
}

/// The service is killed while the program `name` says that it is waiting.
pub fn dies_under(name: &str) -> Result<()> {
    let mut scene = Scene::new()?;
    let mut process = start(&scene, name)?;
    process.output.wait_for(0, SOON, |line| line == "waiting")?;
    scene.vtnetd.kill()?;
    let status = process.wait(SOON)?;
    process.errors.wait_for_end(SOON)?;
    assert!(status.success(), "{:?}", process.errors.since(0));
    Ok(())
}
