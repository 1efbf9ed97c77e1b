//! Ports that come and go.
//!
//! A port has memory of its own in the kernel, 42 MiB with one pair of rings:
//! 20 482 buffers, two a page, each page allocated and freed by itself
//! (`netmap_finalize_obj_allocator`). An emulated machine takes half a second
//! to a second for that, so ports that come and go by the thousand have the
//! least buffers that the kernel makes, 64 of them a page: as many rings, slots,
//! nodes and descriptors as ever, and a thirtieth of the pages.

use bed::freebsd::Setting;
use bed::{Census, Error, Result, Test};
use vtnetd::backend::host::{HostSide, InProcess};
use vtnetd::backend::netmap::{Kernel, NetmapHost, Source};
use vtnetd::netmap::kernel::Device;

use super::wrong;
use crate::drive::{Served, rounds};
use crate::netmap::life::{kernel_memory, same};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("vale::ports_go_with_the_process", gone),
        Test::new("vale::ports_come_and_go_within_a_process", openings),
        Test::new("vale::a_port_with_the_name_of_an_interface", interface),
        Test::new("vale::a_port_belongs_to_one_process", owned),
    ]
}

/// Nothing stays on the switch when the process is gone.
fn gone() -> Result<()> {
    let control = Device::open()?;
    let mut before = None;
    for _ in 0..rounds(5) {
        let served = Served::start(&["vale9:a,type=kernel,queues=2"])?;
        control.header_len("vale9:a")?;
        served.vtnetd.stop()?;
        if control.header_len("vale9:a").is_ok() {
            return Err(Error::new("vale9:a is there after its process"));
        }
        let memory = kernel_memory()?;
        same(before.get_or_insert_with(|| memory.clone()), &memory)?;
    }
    Ok(())
}

/// A second one would take frames away from the first.
fn owned() -> Result<()> {
    for queues in [1, 2] {
        let _served = Served::start(&[format!("vale9:a,type=kernel,queues={queues}")])?;
        for pairs in [1, 2] {
            match wrong(NetmapHost::new("vale9:a", pairs))?.open() {
                Err(error) if error.to_string().contains("another process has this") => {}
                other => return Err(Error::new(format!("{queues} and {pairs}: {other:?}"))),
            }
        }
    }
    Ok(())
}

/// Which the kernel takes for the interface itself.
fn interface() -> Result<()> {
    match wrong(NetmapHost::new("vale9:lo0", 1))?.open() {
        Err(error) if error.to_string().contains("valectl(8) puts") => Ok(()),
        other => Err(Error::new(format!("{other:?}"))),
    }
}

/// Ports that come and go within one process.
fn openings() -> Result<()> {
    let _small = Setting::set("dev.netmap.priv_buf_size", "64")?;
    let own = std::process::id();
    let control = Device::open()?;
    let open = || {
        let side: Box<dyn HostSide> = Box::new(wrong(NetmapHost::new("vale9:a", 1))?);
        let opening = wrong(Kernel::new(InProcess::new(side)).open())?;
        if opening.ports.len() != 1 {
            return Err(Error::new("vale9:a has not one ring"));
        }
        Ok(())
    };
    // What the first one leaves for all, such as a library's memory.
    open()?;
    let hold = || Ok::<_, Error>((Census::of(own)?, kernel_memory()?));
    let before = hold()?;
    for _ in 0..rounds(20) {
        open()?;
    }
    let after = hold()?;
    if before != after {
        return Err(Error::new(format!("{before:?}, then {after:?}")));
    }
    if control.header_len("vale9:a").is_ok() {
        return Err(Error::new("vale9:a is still there"));
    }
    Ok(())
}
