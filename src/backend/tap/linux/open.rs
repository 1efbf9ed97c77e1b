//! Opening a tap: what needs a privilege, or names an interface.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::super::OpenError;
use super::super::host::{Interface, Occasion};
use super::{empty_request, offloads, with_flags};
use crate::c_text;
use crate::virtio::net_header;

/// What makes interfaces.
const DEVICE: &str = "/dev/net/tun";
mod ioctl {
    // netdevice(7) and linux/if_tun.h.
    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_header_len, libc::TUNSETVNETHDRSZ, libc::c_int);
    nix::ioctl_write_ptr_bad!(set_little_endian, libc::TUNSETVNETLE, libc::c_int);
    nix::ioctl_read_bad!(get_flags, libc::SIOCGIFFLAGS, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
    nix::ioctl_read_bad!(get_mtu, libc::SIOCGIFMTU, libc::ifreq);
}

/// Opens the interface `name` with `pairs` queues. Makes it if there is none,
/// but not when others make it.
pub(in super::super) fn open(
    name: &str,
    pairs: u16,
    occasion: Occasion,
) -> Result<Interface, OpenError> {
    let failed = |errno: Errno, cure| OpenError::System {
        name: name.to_owned(),
        error: errno.into(),
        cure,
    };
    let request = request(name)
        .ok_or_else(|| failed(Errno::EINVAL, "an interface's name has 1 to 15 bytes"))?;
    let existed = if_nametoindex(name).ok();
    let must_exist = occasion == Occasion::AgainTheirs;
    let missing = || {
        OpenError::Absent(format!(
            "{name}: the interface is not there; make it again: ip tuntap add {name} mode tap"
        ))
    };
    if must_exist && existed.is_none() {
        return Err(missing());
    }
    let mut queues = Vec::with_capacity(usize::from(pairs));
    for _ in 0..pairs {
        let queue = device()?;
        attach(queue.as_fd(), request, pairs > 1)
            .map_err(|errno| failed(errno, cure(errno, existed.is_some(), pairs > 1)))?;
        queues.push(queue);
    }
    let first = queues[0].as_fd();
    let refused = |errno| failed(errno, "a Linux of 4.1 or later is needed");
    configure(first).map_err(refused)?;
    let control = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(refused)?;
    // It may have been removed, and made by us, since it was looked for.
    let made = existed.is_none() || if_nametoindex(name).ok() != existed;
    if made && must_exist {
        return Err(missing());
    }
    if made {
        bring_up(control.as_fd(), request)
            .map_err(|errno| failed(errno, "run as root, or make the interface beforehand"))?;
    }
    let mtu = mtu(control.as_fd(), request).map_err(refused)?;
    Ok(Interface {
        name: name.to_owned(),
        made,
        queues,
        control: None,
        pairs,
        mtu,
        header_len: net_header::LEN,
    })
}

/// Opens what makes interfaces.
fn device() -> Result<OwnedFd, OpenError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE);
    file.map(OwnedFd::from).map_err(|error| OpenError::System {
        name: DEVICE.to_owned(),
        cure: match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => "run as root, or let this user open it",
            Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files (ulimit -n)",
            _ => "load the driver: modprobe tun",
        },
        error,
    })
}

/// Attaches `queue` to the interface of `request`. One queue can also be had
/// of an interface that was made for several.
fn attach(queue: BorrowedFd<'_>, request: libc::ifreq, several: bool) -> Result<(), Errno> {
    let try_with = |flags: libc::c_int| {
        let request = with_flags(
            request,
            libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | flags,
        );
        // SAFETY: the request is a whole ifreq that outlives the call.
        unsafe { ioctl::set_interface(queue.as_raw_fd(), &request) }
    };
    let attached = match try_with(if several { libc::IFF_MULTI_QUEUE } else { 0 }) {
        Err(Errno::EINVAL) if !several => try_with(libc::IFF_MULTI_QUEUE),
        attached => attached,
    };
    attached.map(drop)
}

/// What helps when an interface cannot be had.
fn cure(errno: Errno, existed: bool, several: bool) -> &'static str {
    match errno {
        Errno::EPERM if existed => {
            "run as root or as the interface's owner (ip tuntap add ... mode tap user USER)"
        }
        Errno::EPERM => {
            "run as root, or have root make it: ip tuntap add dev NAME mode tap user USER"
        }
        Errno::EBUSY => "another process has it; stop that, or take another interface",
        Errno::EINVAL if several => {
            "it is not a tap with several queues; make it anew (ip tuntap add ... mode tap \
             multi_queue) or leave queues= out"
        }
        Errno::EINVAL => "it is not a tap interface; take another name",
        Errno::E2BIG => "it has no queue left; use fewer queues",
        _ => "see netdevice(7)",
    }
}

/// Headers of 12 bytes, in virtio's byte order, and no offloads yet.
fn configure(queue: BorrowedFd<'_>) -> Result<(), Errno> {
    let len = libc::c_int::try_from(net_header::LEN).map_err(|_| Errno::EINVAL)?;
    // SAFETY: both point to a whole int.
    unsafe {
        ioctl::set_header_len(queue.as_raw_fd(), &len)?;
        ioctl::set_little_endian(queue.as_raw_fd(), &1)?;
    }
    offloads::set(queue, 0)
}

fn bring_up(control: BorrowedFd<'_>, mut request: libc::ifreq) -> Result<(), Errno> {
    // SAFETY: the request is a whole ifreq; after the call its flags are set.
    unsafe {
        ioctl::get_flags(control.as_raw_fd(), &mut request)?;
        let flags = libc::c_int::from(request.ifr_ifru.ifru_flags);
        let request = with_flags(request, flags | libc::IFF_UP);
        ioctl::set_flags(control.as_raw_fd(), &request)?;
    }
    Ok(())
}

fn mtu(control: BorrowedFd<'_>, mut request: libc::ifreq) -> Result<usize, Errno> {
    // SAFETY: the request is a whole ifreq; after the call its MTU is set.
    let mtu = unsafe {
        ioctl::get_mtu(control.as_raw_fd(), &mut request)?;
        request.ifr_ifru.ifru_mtu
    };
    Ok(usize::try_from(mtu).unwrap_or(0))
}

/// A request about the interface `name`, if that can be one's name.
fn request(name: &str) -> Option<libc::ifreq> {
    let mut request = empty_request();
    c_text::put(&mut request.ifr_name, name).ok()?;
    (!name.is_empty()).then_some(request)
}
