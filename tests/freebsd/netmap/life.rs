//! Ports that come and go.

use bed::freebsd::{Setting, run};
use bed::{Census, Error, Result, Test};
use vtnetd::backend;
use vtnetd::netmap::kernel::Device;
use vtnetd::netmap::register::Request;
use vtnetd::netmap::vale::Switches;

use super::quiet_epair;
use crate::drive::{SOON, Served, rounds};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("netmap::interfaces_are_let_go_with_the_process", starts),
        Test::new("netmap::ports_come_and_go_within_a_process", openings),
    ]
}

/// The kernel makes its buffers, 320 MiB of them, with the first port that is
/// opened after their number was changed.
fn few_buffers() -> Result<Setting> {
    Setting::set("dev.netmap.buf_num", "8192")
}

/// Whether nobody else has rings of `interface` (`NR_EXCLUSIVE`).
fn is_free(interface: &str) -> Result<bool> {
    use vtnetd::netmap::abi::nmreq::NR_EXCLUSIVE;
    let request = Request {
        flags: NR_EXCLUSIVE,
        ..Request::new(interface)
    };
    match Device::open()?.register(&request) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The kernel's pieces of memory that netmap has.
pub fn kernel_memory() -> Result<String> {
    let listed = run("vmstat -m")?;
    let line = listed
        .lines()
        .find(|line| line.split_whitespace().next() == Some("netmap"));
    // TYPE PIECES BYTES ...
    let pieces = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(pieces.unwrap_or("0").to_owned())
}

fn starts() -> Result<()> {
    let _few = few_buffers()?;
    let (first, _second) = quiet_epair()?;
    let name = first.name();
    // The kernel makes its buffers for the first of all.
    assert!(is_free(name)?);
    let before = kernel_memory()?;
    for round in 0..rounds(5) {
        let served = Served::start(&[format!("netmap:{name}")])?;
        if is_free(name)? {
            return Err(Error::new(format!("{name} is free while it is served")));
        }
        if round % 2 == 0 {
            served.vtnetd.stop()?;
        } else {
            // Without being asked to end; the opener ends a moment later.
            drop(served);
            let until = std::time::Instant::now() + SOON;
            while !is_free(name)? && std::time::Instant::now() < until {}
        }
        if !is_free(name)? {
            return Err(Error::new(format!("{name} is held after its process")));
        }
    }
    same(&before, &kernel_memory()?)
}

fn openings() -> Result<()> {
    let _few = few_buffers()?;
    let (first, _second) = quiet_epair()?;
    let spec = backend::Spec::new(&format!("netmap:{}", first.name()), 1);
    let open = || {
        let opened = backend::open(&spec, &Switches::default());
        opened.map_err(|error| Error::new(error.to_string()))
    };
    // What the first one leaves for all, such as a library's memory.
    drop(open()?);
    let hold = || Ok::<_, Error>((Census::of(std::process::id())?, kernel_memory()?));
    let before = hold()?;
    for _ in 0..rounds(20) {
        drop(open()?);
    }
    let after = hold()?;
    if before != after || !is_free(first.name())? {
        return Err(Error::new(format!("{before:?}, then {after:?}")));
    }
    Ok(())
}

/// Whether the kernel holds what it did.
pub fn same(before: &str, after: &str) -> Result<()> {
    if before == after {
        return Ok(());
    }
    Err(Error::new(format!(
        "the kernel's netmap had {before} pieces of memory, then {after}"
    )))
}
