//! Opening a tap or vmnet interface: what needs a privilege, or names an
//! interface.

use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::super::OpenError;
use super::super::host::{Interface, Occasion};
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

/// How often, and how long apart, it is looked whether an interface that is on
/// its way out is gone.
const VANISHING: (u32, Duration) = (100, Duration::from_millis(10));
/// Numbers of interfaces (IF_MAXUNIT in net/if_var.h).
const NUMBERS: Range<u32> = 0..0x8000;

/// An interface as whoever may destroy it keeps it. Dropped, it destroys an
/// interface that was made, once nobody else has it open.
///
/// The kernel would do that by itself when the last descriptor is closed, and
/// is told to, for the case that nobody is left who can. But it frees the
/// number of such an interface before its device is gone, and crashes when an
/// interface with that number is made in between (`destroy_dev_sched` in
/// if_tuntap.c). Destroyed by name, it is gone when the call returns.
#[derive(Debug)]
pub(in super::super) struct Kept {
    tap: Option<OwnedFd>,
    index: u32,
    /// It is ours to destroy.
    ours: bool,
}

impl Kept {
    /// Leaves the interface to whoever destroys it: that waits for us.
    pub(in super::super) fn let_go(mut self) {
        self.ours &= !self.close();
    }

    /// Whether the interface does not disappear by that.
    fn close(&mut self) -> bool {
        let tap = self.tap.take();
        tap.is_some_and(|tap| !self.ours || request::set_transient(tap.as_fd(), false).is_ok())
    }

    /// What the open interface is called now. `ENXIO`: it is not in this
    /// network stack any more, where its name and number may be another's.
    fn name(&self) -> Result<String, Errno> {
        let tap = self.tap.as_ref().ok_or(Errno::ENXIO)?;
        let name = request::name(tap.as_fd())?;
        if if_nametoindex(name.as_str())? == self.index {
            Ok(name)
        } else {
            Err(Errno::ENXIO)
        }
    }

    /// Has the kernel leave to the guest what it takes (feature bits).
    pub(in super::super) fn set_capabilities(&self, features: u64) -> Result<(), Errno> {
        let name = self.name()?;
        let (mut mask, mut wanted) = (0, 0);
        for (needs, capabilities) in CAPABILITIES {
            mask |= capabilities;
            if features & needs == needs {
                wanted |= capabilities;
            }
        }
        let bits = |capabilities| libc::c_int::try_from(capabilities).map_err(|_| Errno::EINVAL);
        Control::new()?.set_capabilities(&name, bits(mask)?, bits(wanted)?)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let name = self.name();
        if !(self.close() && self.ours) {
            return;
        }
        // Closed, it may be destroyed by somebody else, and its number given to
        // another before it is its turn.
        let destroyed = name.and_then(|name| match if_nametoindex(name.as_str()) {
            Ok(index) if index == self.index => Control::new()?.destroy(&name),
            _ => Err(Errno::ENXIO),
        });
        if let Err(errno) = destroyed {
            tracing::debug!("interface {}: not destroyed: {errno}", self.index);
        }
    }
}

/// Opens the interface `name`; `tap` and `vmnet` without a number are one that
/// is new. Makes it if there is none, but not when others make it.
pub(in super::super) fn open(
    name: &str,
    pairs: u16,
    occasion: Occasion,
) -> Result<(Interface, Kept), OpenError> {
    let refused = |errno: Errno| failed(name, errno.into(), "see tap(4)");
    let control = Control::new().map_err(refused)?;
    let existed = if_nametoindex(name).ok();
    let absent = || {
        OpenError::Absent(match occasion {
            Occasion::First => format!(
                "{name}: this is no tap or vmnet interface, or it is being destroyed; take another"
            ),
            Occasion::AgainOurs => format!("{name}: the interface is being destroyed"),
            Occasion::AgainTheirs => format!(
                "{name}: the interface is not there; make it again: {}",
                create_command(name)
            ),
        })
    };
    // It may be gone by the time that it is asked about: whoever destroys it was
    // waiting for us. To open what is left of it would keep that there.
    let is_leaving = || {
        let in_group = control.is_in_group(name, &DRIVERS);
        matches!(in_group, Ok(false) | Err(Errno::ENXIO))
    };
    // Somebody may have taken one out of its group that is a tap all the same.
    let is_none = || is_leaving() && !(occasion == Occasion::First && has_device(name));
    if existed.is_none() && occasion == Occasion::AgainTheirs || existed.is_some() && is_none() {
        return Err(absent());
    }
    let created = match existed {
        Some(_) => None,
        // No kernel makes it; one that is in another network stack has a device.
        None if !is_makeable(name) && !has_device(name) => {
            return Err(OpenError::Absent(format!(
                "{name}: there is no such interface, and only tap0 to tap{0} and vmnet0 to \
                 vmnet{0} are made here; make it first: {1}",
                NUMBERS.end - 1,
                create_command(name)
            )));
        }
        None => match create(&control, name) {
            Ok(created) => Some(created),
            Err(Errno::EEXIST) if if_nametoindex(name).is_err() => {
                let cure = match occasion {
                    Occasion::First => "take another, or start again when that is gone",
                    Occasion::AgainOurs | Occasion::AgainTheirs => "it is waited for",
                };
                return Err(OpenError::Absent(format!(
                    "{name}: there is /dev/{name} and no such interface: it was renamed, is in \
                     another network stack, or is being destroyed; {cure}"
                )));
            }
            // The kernel may let us make it by opening it all the same.
            Err(_) => None,
        },
    };
    let tap = open_device(created.as_deref().unwrap_or(name)).map_err(|error| {
        if let Some(created) = &created {
            // Whoever opened it before us has it.
            let _ = control.destroy(created);
        }
        let cure = cure(&error);
        failed(name, error, cure)
    })?;

    let name = request::name(tap.as_fd()).map_err(refused)?;
    let index = if_nametoindex(name.as_str()).map_err(refused)?;
    // Opening may have made another in the place of what was there before.
    let made = existed != Some(index);
    if made {
        if let Err(errno) = request::set_transient(tap.as_fd(), true) {
            tracing::debug!("{name}: would stay if both processes were killed: {errno}");
        }
    }
    let kept = Kept {
        tap: Some(tap.try_clone().map_err(|error| {
            let cure = cure(&error);
            failed(&name, error, cure)
        })?),
        index,
        ours: created.is_some(),
    };
    // What follows has the last descriptor but that one, and closes it when it
    // fails: before it is closed, nothing can be destroyed.
    if made && occasion == Occasion::AgainTheirs {
        drop(tap);
        return Err(absent());
    }
    let interface = prepare(name, tap, control, made, pairs)?;
    Ok((interface, kept))
}

/// Makes the interface `name`, or the first that is free of `tap` or `vmnet`.
///
/// There may be a device of that name that is on its way out. The kernel would
/// not survive a new interface on it (see [`Kept`]), and it makes a device
/// without an interface when one is opened whose interface is on its way out.
/// So devices are looked for first, and none is opened that has no interface.
/// `EEXIST`: there is one now, or it takes too long to vanish.
fn create(control: &Control, name: &str) -> Result<String, Errno> {
    if name.ends_with(|c: char| c.is_ascii_digit()) {
        for _ in 0..VANISHING.0 {
            if !has_device(name) {
                match control.create(name) {
                    Err(Errno::EEXIST) => {}
                    created => return created,
                }
            }
            std::thread::sleep(VANISHING.1);
        }
        return Err(Errno::EEXIST);
    }
    for number in NUMBERS {
        let name = format!("{name}{number}");
        if if_nametoindex(name.as_str()).is_ok() || has_device(&name) {
            continue;
        }
        match control.create(&name) {
            Err(Errno::EEXIST) => {}
            created => return created,
        }
    }
    Err(Errno::ENOSPC)
}

/// The kernel makes an interface `name`: one that is new, or has a number.
fn is_makeable(name: &str) -> bool {
    let number = DRIVERS.iter().find_map(|driver| name.strip_prefix(driver));
    number.is_some_and(|number| {
        let parsed = number.parse::<u32>();
        let found = parsed.ok().filter(|found| NUMBERS.contains(found));
        number.is_empty() || found.is_some_and(|found| found.to_string() == number)
    })
}

/// What makes the interface `name`.
fn create_command(name: &str) -> String {
    let driver = DRIVERS.iter().find(|driver| name.starts_with(**driver));
    match driver {
        Some(driver) if !is_makeable(name) => format!("ifconfig {driver} create name {name}"),
        _ => format!("ifconfig {name} create"),
    }
}

/// Whether there is a device `name`. To ask for its very name would make it.
fn has_device(name: &str) -> bool {
    let devices = std::fs::read_dir("/dev");
    devices.is_ok_and(|mut all| all.any(|device| device.is_ok_and(|one| one.file_name() == name)))
}

/// Makes an open interface ready for use.
fn prepare(
    name: String,
    tap: OwnedFd,
    control: Control,
    made: bool,
    pairs: u16,
) -> Result<Interface, OpenError> {
    let header_len = header_len(|len| request::set_header_len(tap.as_fd(), len).is_ok());
    if made {
        control.bring_up(&name).map_err(|errno| {
            let cure = "run as root, or make the interface beforehand";
            failed(&name, errno.into(), cure)
        })?;
    }
    let mtu = control
        .mtu(&name)
        .map_err(|errno| failed(&name, errno.into(), "see tap(4)"))?;
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

/// Bytes of the first header that the kernel `takes`; 0: it has none that we
/// can use.
fn header_len(takes: impl Fn(libc::c_int) -> bool) -> libc::c_int {
    let mut known = HEADER_LENS.iter().copied();
    known.find(|len| takes(*len)).unwrap_or(0)
}

fn failed(name: &str, error: io::Error, cure: &'static str) -> OpenError {
    OpenError::System {
        name: name.to_owned(),
        error,
        cure,
    }
}

/// Opens `/dev/NAME`, which makes the interface where the kernel is set so.
fn open_device(name: &str) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(libc::O_NONBLOCK);
    Ok(options.open(format!("/dev/{name}"))?.into())
}

/// What helps when an interface cannot be had.
fn cure(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => "another process has it; stop that, or take another interface",
        Some(Errno::EACCES | Errno::EPERM) => {
            "run as root, or let this user open its device (devfs.rules(5))"
        }
        Some(Errno::ENOENT) => {
            "run as root, or make it: ifconfig NAME create; if that fails: kldload if_tuntap"
        }
        Some(Errno::EMFILE | Errno::ENFILE) => "raise the limit of open files (ulimit -n)",
        _ => "see tap(4)",
    }
}

#[cfg(test)]
mod tests {
    use super::super::features;
    use super::*;
    use crate::virtio::spec::net;

    #[test]
    fn an_interface_that_the_kernel_cannot_make_is_renamed() {
        for name in ["tap", "vmnet", "tap0", "vmnet12", "tap32767"] {
            assert!(is_makeable(name), "{name}");
            assert_eq!(create_command(name), format!("ifconfig {name} create"));
        }
        for (name, command) in [
            ("tapvm1", "ifconfig tap create name tapvm1"),
            ("tap32768", "ifconfig tap create name tap32768"),
            ("tap00", "ifconfig tap create name tap00"),
            ("tap+1", "ifconfig tap create name tap+1"),
            ("vmnet-web", "ifconfig vmnet create name vmnet-web"),
        ] {
            assert!(!is_makeable(name), "{name}");
            assert_eq!(create_command(name), command);
        }
    }

    /// Kernels of FreeBSD 13 and later take all; what an older one or another
    /// byte order leaves is less.
    #[test]
    fn the_longest_header_that_the_kernel_takes() {
        for (takes, chosen) in [
            (&[0, 10, 12][..], 12),
            (&[12], 12),
            (&[0, 10], 10),
            (&[0], 0),
            (&[], 0),
        ] {
            assert_eq!(header_len(|len| takes.contains(&len)), chosen, "{takes:?}");
        }
    }

    /// Without a header nothing says what a frame lacks.
    #[test]
    fn without_a_header_the_host_hands_over_finished_frames_only() {
        assert_eq!(features(0), net::HOST_OFFLOADS);
        for len in [10, 12] {
            assert_eq!(
                features(len) & !features(0),
                features(len) & net::GUEST_OFFLOADS
            );
            assert_ne!(features(len) & net::GUEST_OFFLOADS, 0);
        }
    }
}
