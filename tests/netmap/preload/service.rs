//! The service that is not there, or goes.

use bed::{Result, Test};

use crate::scene::{SOON, Scene};
use crate::{own, start};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("a_missing_service_is_named_with_the_cure", missing),
        Test::new("a_service_that_dies_is_an_error_and_no_hang", dies),
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
    process.errors.wait_for_end(SOON)?;
    let said = process.errors.since(0);
    let socket = scene.socket().display().to_string();
    assert_eq!(said.len(), 1, "{said:?}");
    for part in [&socket, "start vtnetd with -N", "VTNETMAP_SOCKET"] {
        assert!(said[0].contains(part), "{said:?}");
    }
    Ok(())
}

fn dies() -> Result<()> {
    let mut scene = Scene::new()?;
    let mut process = start(&scene, own::BEREFT)?;
    process.output.wait_for(0, SOON, |line| line == "waiting")?;
    scene.vtnetd.kill()?;
    let status = process.wait(SOON)?;
    process.errors.wait_for_end(SOON)?;
    assert!(status.success(), "{:?}", process.errors.since(0));
    Ok(())
}
