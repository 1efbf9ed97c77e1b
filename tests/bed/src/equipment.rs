//! What this machine has to stand tests on.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::{Error, Result};

/// The emulator that guests run in.
pub const QEMU: &str = "qemu-system-x86_64";
/// DPDK's program.
pub const TESTPMD: &str = "dpdk-testpmd";

/// A Linux guest that qemu can start.
#[derive(Clone, Debug)]
pub struct GuestImage {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its first file system, which is all that it has.
    pub initramfs: PathBuf,
}

/// A program that the shell would find.
///
/// # Errors
/// It is not there.
pub fn program(name: &str) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|directory| directory.join(name).is_file()) {
        return Ok(());
    }
    Err(Error::new(format!("{name} is not installed")))
}

/// A guest and what runs it: what is in the directory that `VTNETD_GUEST`
/// names, or else what `guest-image` makes.
///
/// # Errors
/// What is missing.
pub fn guests() -> Result<GuestImage> {
    program(QEMU)?;
    let directory = match env::var_os("VTNETD_GUEST") {
        Some(directory) => PathBuf::from(directory),
        None => make_guest()?,
    };
    Ok(GuestImage {
        kernel: directory.join("vmlinuz"),
        initramfs: directory.join("initramfs"),
    })
}

/// Has a guest made when it is not there yet; where it is.
fn make_guest() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| here.join("../../target"), PathBuf::from);
    let directory = target.join("guest");
    let made = Command::new(here.join("guest-image"))
        .arg(&directory)
        .output()?;
    if made.status.success() {
        return Ok(directory);
    }
    let said = String::from_utf8_lossy(&made.stderr);
    Err(Error::new(said.lines().last().unwrap_or("no guest")))
}

/// DPDK's testpmd, and stdbuf(1), which makes it speak while it runs.
///
/// # Errors
/// What is missing.
pub fn testpmd() -> Result<()> {
    program("stdbuf")?;
    program(TESTPMD)
}

/// What a tap in a network namespace takes: root, /dev/net/tun, ip(8) and
/// ethtool(8).
///
/// # Errors
/// What is missing.
#[cfg(target_os = "linux")]
pub fn tap() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new("a network namespace takes root"));
    }
    if fs::File::open("/dev/net/tun").is_err() {
        return Err(Error::new("there is no /dev/net/tun (modprobe tun)"));
    }
    program("ip")?;
    program("ethtool")
}

/// What it takes to have an interface instead of the host's stack: programs
/// where frames come in and go out, which Linux has since 6.6.
///
/// # Errors
/// What is missing.
#[cfg(target_os = "linux")]
pub fn tcx() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= (6, 6) => Ok(()),
        _ => Err(Error::new("a tap as host rings takes Linux 6.6")),
    }
}

/// How many huge pages of 2 MiB nobody uses.
pub fn free_huge_pages() -> u32 {
    fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// A command that runs `program` on the processors `cpus` alone, written as
/// taskset(1) takes them; or anywhere.
pub fn pinned(program: impl AsRef<OsStr>, cpus: Option<&str>) -> Command {
    match cpus {
        Some(cpus) => {
            let mut command = Command::new("taskset");
            command.args(["-c", cpus]).arg(program);
            command
        }
        None => Command::new(program),
    }
}
