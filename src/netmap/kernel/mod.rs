//! Ports of `/dev/netmap` (netmap(4)), FreeBSD's own, behind the interface of
//! [`Port`](super::port::Port).
//!
//! Two halves: [`Device`] names things, which takes privileges and which a
//! sandboxed process cannot do; [`KernelPort`] is made from a registered
//! descriptor and from numbers, and does no more than mmap(2), `NIOCTXSYNC` and
//! `NIOCRXSYNC`.
//!
//! A port is registered with `NIOCCTRL` and not with `nm_open`, whose
//! `NIOCREGIF` takes names of up to 15 bytes, cannot say that virtio-net headers
//! are understood, and which would map the port's memory where it is opened.

mod control;
mod interface;
mod memory;
mod port;

use std::io;

pub use control::{Device, PATH, Registered};
pub use interface::{Interface, interface};
pub use memory::Memory;
pub use port::{Header, HeaderControl, KernelPort, Place};

/// What a registered descriptor cannot be used for.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// mmap(2) fails.
    #[error("its memory cannot be mapped: {0}")]
    Map(#[source] io::Error),
    /// What the kernel has laid out there is not where it says.
    #[error("its rings do not lie within its memory")]
    Layout,
}

/// This kernel has netmap.
pub fn is_there() -> bool {
    std::path::Path::new(PATH).exists()
}
