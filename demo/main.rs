//! Two virtual machines on one switch: what the command `demo/run` shows.
//!
//! vtnetd is started with two devices on `vale0`, and a Linux guest under qemu
//! on each. They ping each other and send data both ways over TCP, which is
//! compared by SHA-256. Where there are no guests, two vtgens take their place.

mod generators;
mod guests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use bed::{Result, Scratch, Vtnetd, equipment};

/// The ports of the switch, a device on each.
const PORTS: [&str; 2] = ["vale0:vm1", "vale0:vm2"];

/// vtnetd with its devices, and where things are.
struct Stage {
    // Dropped first, for its sockets are in the directory.
    vtnetd: Vtnetd,
    sockets: [PathBuf; 2],
    vtgen: PathBuf,
    scratch: Scratch,
}

impl Stage {
    fn set() -> Result<Self> {
        // Examples are built into a directory beside the programs.
        let here = std::env::current_exe()?;
        let programs = here.ancestors().nth(2).unwrap_or(Path::new("."));
        let scratch = Scratch::new()?;
        let sockets = [scratch.path("vm1.sock"), scratch.path("vm2.sock")];
        let devices = [0, 1].map(|at| {
            let (port, socket) = (PORTS[at], sockets[at].display());
            format!("virtio-net,{port},socket={socket}")
        });
        println!("vtnetd -s {}", devices.join(" \\\n       -s "));
        Ok(Self {
            vtnetd: Vtnetd::start(&programs.join("vtnetd"), &devices, None)?,
            sockets,
            vtgen: programs.join("vtgen"),
            scratch,
        })
    }
}

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let start = Instant::now();
    let guests = equipment::guests();
    let mut stage = Stage::set()?;
    match guests {
        Ok(image) => guests::show(&mut stage, &image)?,
        Err(missing) => println!("no guests: {missing}; two vtgens take their place"),
    }
    generators::show(&mut stage)?;
    stage.vtnetd.stop()?;
    println!("done in {} s", start.elapsed().as_secs());
    Ok(())
}
