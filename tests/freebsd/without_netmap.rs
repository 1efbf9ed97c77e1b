//! A kernel without netmap, as far as programs can tell: its device is not
//! there. devfs(8) hides it for a while.

use std::process::Command;

use bed::freebsd::run;
use bed::{Error, Process, Result, Scratch, Test};

use crate::drive::{NEVER, SOON, Served, carry, frame, options, received};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("without_netmap::a_switch_is_our_own", || {
            let _hidden = Hidden::new()?;
            own_switch()
        }),
        Test::new("without_netmap::that_is_said_once", || {
            let _hidden = Hidden::new()?;
            said_once()
        }),
        Test::new("without_netmap::what_needs_the_kernels", || {
            let _hidden = Hidden::new()?;
            refused()
        }),
        Test::new("without_netmap::with_it_nothing_is_said", with_netmap),
    ]
}

/// /dev/netmap is hidden until this is dropped.
struct Hidden(());

const DEVICE: &str = "/dev/netmap";

impl Hidden {
    fn new() -> Result<Self> {
        run("devfs rule apply path netmap hide")?;
        let hidden = Self(());
        if std::path::Path::new(DEVICE).exists() {
            return Err(Error::new("devfs does not hide netmap"));
        }
        Ok(hidden)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        run("devfs rule apply path netmap unhide").expect("netmap is shown again");
        assert!(std::path::Path::new(DEVICE).exists());
    }
}

/// Frames as long as a switch in the kernel has them cross all the same.
fn own_switch() -> Result<()> {
    let served = Served::start(&["vale9:a,mtu=65521", "vale9:b,mtu=65521"])?;
    let options = options(true, 65535);
    let mut a = served.drive(0, &options)?;
    let mut b = served.drive(1, &options)?;
    for len in [60, 1514, 65535] {
        let frames: Vec<_> = (0..16).map(|number| frame(len, number)).collect();
        carry(a.pair(0), b.pair(0), &frames)?;
        carry(b.pair(0), a.pair(0), &frames)?;
    }
    if received(b.pair(0), NEVER).is_some() {
        return Err(Error::new("a frame arrived that nobody sent"));
    }
    Ok(())
}

/// What vtnetd says until it is ready, with a device on each of `backends`.
fn said(backends: &[&str]) -> Result<Vec<String>> {
    let scratch = Scratch::new()?;
    let mut command = Command::new(bed::program(env!("CARGO_BIN_EXE_vtnetd")));
    for (number, backend) in backends.iter().enumerate() {
        let socket = scratch.path(&number.to_string());
        let device = format!("virtio-net,{backend},socket={}", socket.display());
        command.args(["-s", &device]);
    }
    let mut vtnetd = Process::start("vtnetd", &mut command)?;
    vtnetd
        .errors
        .wait_for(0, SOON, |line| line.contains("ready"))?;
    vtnetd.stop(SOON)?;
    Ok(vtnetd.errors.since(0))
}

const SAYS: &str = "this kernel has no netmap, so the switch is vtnetd's own; kldload netmap";

fn said_once() -> Result<()> {
    let lines = said(&["vale9:a", "vale9:b", "vale8:a"])?;
    let says: Vec<_> = lines.iter().filter(|line| line.contains(SAYS)).collect();
    if says.len() != 1 || !says[0].contains("vale9:a: ") {
        return Err(Error::new(format!("not said once: {lines:?}")));
    }
    let lines = said(&["vale9:a,type=core"])?;
    if lines.iter().any(|line| line.contains(SAYS)) {
        return Err(Error::new(format!("nobody asked for it: {lines:?}")));
    }
    Ok(())
}

fn with_netmap() -> Result<()> {
    let lines = said(&["vale9:a"])?;
    if lines.iter().any(|line| line.contains(SAYS)) {
        return Err(Error::new(format!("it has: {lines:?}")));
    }
    Ok(())
}

/// Status 69, and one line that says what to do.
fn refused() -> Result<()> {
    let scratch = Scratch::new()?;
    for backend in ["vale9:a,type=kernel", "netmap:lo0"] {
        let mut command = Command::new(bed::program(env!("CARGO_BIN_EXE_vtnetd")));
        let socket = scratch.path("socket");
        let device = format!("virtio-net,{backend},socket={}", socket.display());
        let output = command.args(["-s", &device]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let cured = said.contains("/dev/netmap is missing: kldload netmap");
        if output.status.code() != Some(69) || !cured {
            return Err(Error::new(format!("{backend}: {}: {said}", output.status)));
        }
    }
    Ok(())
}
