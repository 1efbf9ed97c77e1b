//! Opening a tap or vmnet interface: what needs a privilege, or names an
//! interface.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::super::OpenError;
use super::super::host::Interface;
use super::request::{self, Control};
use super::{DRIVERS, HEADER_LENS};
use crate::ffi;
use crate::sandbox::{Role, limit};
use crate::virtio::spec::net;

/// What the kernel is to leave to whoever reads from the interface, by what
/// the guest negotiated. Segments without their checksum left to the reader
/// would make the kernel's own assertions fail.
const CAPABILITIES: [(u64, u64); 3] = [
    (
        net::F_GUEST_CSUM,
        ffi::IFCAP_TXCSUM | ffi::IFCAP_TXCSUM_IPV6,
    ),
    (net::F_GUEST_CSUM | net::F_GUEST_TSO4, ffi::IFCAP_TSO4),
    (net::F_GUEST_CSUM | net::F_GUEST_TSO6, ffi::IFCAP_TSO6),
];

/// Opens the interface `name`; `tap` and `vmnet` without a number are one that
/// is new. Makes it if there is none, but not when it `must_exist`.
pub(in super::super) fn open(
    name: &str,
    pairs: u16,
    must_exist: bool,
) -> Result<Interface, OpenError> {
    let refused = |errno: Errno| failed(name, errno.into(), "see tap(4)");
    let control = Control::new().map_err(refused)?;
    let existed = if_nametoindex(name).ok();
    let absent = || {
        OpenError::Absent(format!(
            "{name}: the interface is not there; make it again: ifconfig {name} create"
        ))
    };
    if must_exist && existed.is_none() {
        return Err(absent());
    }
    // A kernel that does not let us may still make it when it is opened.
    let created = match existed {
        Some(_) => None,
        None => control.create(name).ok(),
    };
    let device = created.as_deref().unwrap_or(name);
    let tap = open_device(device).map_err(|error| {
        if let Some(created) = &created {
            // Whoever opened it before us has it.
            let _ = control.destroy(created);
        }
        // It is on its way out, and waits for those that use it.
        if existed.is_some() && control.is_in_group(name, &DRIVERS) == Ok(false) {
            return absent();
        }
        let cure = cure(&error);
        failed(name, error, cure)
    })?;

    let name = request::name(tap.as_fd()).map_err(refused)?;
    let made = created.is_some() || if_nametoindex(name.as_str()).ok() != existed;
    if made {
        if let Err(errno) = request::set_transient(tap.as_fd(), true) {
            tracing::warn!("{name}: will not disappear with us ({errno}); ifconfig {name} destroy");
        }
        // Opening has made another in the place of what was there a moment ago.
        if must_exist {
            return Err(absent());
        }
    }
    let set = |len: &&libc::c_int| request::set_header_len(tap.as_fd(), **len).is_ok();
    let header_len = HEADER_LENS.iter().find(set).copied().unwrap_or(0);
    if made {
        control.bring_up(&name).map_err(|errno| {
            let cure = "run as root, or make the interface beforehand";
            failed(&name, errno.into(), cure)
        })?;
    }
    let mtu = control.mtu(&name).map_err(refused)?;
    limit(&tap, Role::Tap)
        .and_then(|()| limit(&control, Role::InterfaceQuery))
        .map_err(|error| failed(&name, error, "see cap_rights_limit(2)"))?;
    Ok(Interface {
        name,
        made,
        queues: vec![tap],
        control: Some(control.into()),
        pairs,
        mtu,
        header_len: usize::try_from(header_len).unwrap_or(0),
    })
}

fn failed(name: &str, error: io::Error, cure: &'static str) -> OpenError {
    OpenError::System {
        name: name.to_owned(),
        error,
        cure,
    }
}

/// Opens `/dev/NAME`, which makes the interface if the kernel is set so.
fn open_device(name: &str) -> io::Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(format!("/dev/{name}"))?;
    Ok(file.into())
}

/// What helps when an interface cannot be had.
fn cure(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => "another process has it; stop that, or take another interface",
        Some(Errno::EACCES | Errno::EPERM) => {
            "run as root, or let this user open its device (devfs.rules(5))"
        }
        Some(Errno::ENOENT) => {
            "run as root, or make it (ifconfig NAME create); if that fails: kldload if_tuntap"
        }
        Some(Errno::EMFILE | Errno::ENFILE) => "raise the limit of open files (ulimit -n)",
        _ => "see tap(4)",
    }
}

/// Has the kernel leave to the guest what it takes (feature bits), on the
/// interface `index`. Needs the privilege to configure interfaces.
pub(in super::super) fn set_capabilities(index: u32, features: u64) -> Result<(), Errno> {
    let name = if_indextoname(index)?;
    let name = name.to_str().map_err(|_| Errno::EINVAL)?;
    let (mut mask, mut wanted) = (0, 0);
    for (needs, capabilities) in CAPABILITIES {
        mask |= capabilities;
        if features & needs == needs {
            wanted |= capabilities;
        }
    }
    let bits = |capabilities| libc::c_int::try_from(capabilities).map_err(|_| Errno::EINVAL);
    Control::new()?.set_capabilities(name, bits(mask)?, bits(wanted)?)
}
