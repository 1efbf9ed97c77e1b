//! Linux: opening a tap and switching it, by the system calls of
//! `Documentation/networking/tuntap.rst`.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::OpenError;
use super::host::Interface;
use crate::virtio::net_header;
use crate::virtio::spec::net;

/// What makes interfaces.
const DEVICE: &str = "/dev/net/tun";
/// `TUN_F_CSUM` and so on, of linux/if_tun.h, by what the guest negotiated.
const OFFLOADS: [(u64, libc::c_uint); 5] = [
    (net::F_GUEST_CSUM, libc::TUN_F_CSUM),
    (net::F_GUEST_TSO4, libc::TUN_F_TSO4),
    (net::F_GUEST_TSO6, libc::TUN_F_TSO6),
    (net::F_GUEST_ECN, libc::TUN_F_TSO_ECN),
    (net::F_GUEST_UFO, libc::TUN_F_UFO),
];

mod ioctl {
    // netdevice(7) and linux/if_tun.h.
    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_read_bad!(get_interface, libc::TUNGETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_queue, libc::TUNSETQUEUE, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_header_len, libc::TUNSETVNETHDRSZ, libc::c_int);
    nix::ioctl_write_ptr_bad!(set_little_endian, libc::TUNSETVNETLE, libc::c_int);
    nix::ioctl_write_int_bad!(set_offloads, libc::TUNSETOFFLOAD);
    nix::ioctl_read_bad!(get_flags, libc::SIOCGIFFLAGS, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
    nix::ioctl_read_bad!(get_mtu, libc::SIOCGIFMTU, libc::ifreq);
}

/// Opens the interface `name` with `pairs` queues. Makes it if there is none,
/// but not when it `must_exist`.
pub(super) fn open(name: &str, pairs: u16, must_exist: bool) -> Result<Interface, OpenError> {
    let failed = |errno: Errno, cure| OpenError::System {
        name: name.to_owned(),
        error: errno.into(),
        cure,
    };
    let request = request(name)
        .ok_or_else(|| failed(Errno::EINVAL, "an interface's name has 1 to 15 bytes"))?;
    let existed = if_nametoindex(name).ok();
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
        mtu,
        header_len: net_header::LEN,
    })
}

/// Whether the interface that `queue` was attached to is gone.
pub(super) fn is_gone(queue: BorrowedFd<'_>) -> bool {
    let mut request = empty_request();
    // SAFETY: the request is a whole ifreq that outlives the call.
    let asked = unsafe { ioctl::get_interface(queue.as_raw_fd(), &mut request) };
    asked == Err(Errno::EBADFD)
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
    set_offloads(queue, 0)
}

/// Has the kernel hand over frames with these offloads (feature bits) only.
pub(super) fn set_offloads(queue: BorrowedFd<'_>, features: u64) -> Result<(), Errno> {
    let features = if features & net::F_GUEST_CSUM == 0 {
        0
    } else {
        features
    };
    let wanted = OFFLOADS
        .iter()
        .filter(|(feature, _)| features & feature != 0)
        .fold(0, |flags, (_, flag)| flags | flag);
    let set = |flags: libc::c_uint| {
        let flags = libc::c_int::try_from(flags).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the argument is a number.
        unsafe { ioctl::set_offloads(queue.as_raw_fd(), flags) }
    };
    match set(wanted) {
        // Kernels that do not fragment UDP for anyone need not be told.
        Err(Errno::EINVAL) if wanted & libc::TUN_F_UFO != 0 => set(wanted & !libc::TUN_F_UFO),
        result => result,
    }
    .map(drop)
}

/// Has the kernel use a queue, or no longer: then frames go to the others.
pub(super) fn set_attached(queue: BorrowedFd<'_>, attach: bool) -> Result<(), Errno> {
    let flag = if attach {
        libc::IFF_ATTACH_QUEUE
    } else {
        libc::IFF_DETACH_QUEUE
    };
    let request = with_flags(empty_request(), flag);
    // SAFETY: the request is a whole ifreq that outlives the call.
    unsafe { ioctl::set_queue(queue.as_raw_fd(), &request) }.map(drop)
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

fn empty_request() -> libc::ifreq {
    libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    }
}

/// A request about the interface `name`, if that can be one's name.
fn request(name: &str) -> Option<libc::ifreq> {
    let name = CString::new(name).ok()?.into_bytes_with_nul();
    let mut request = empty_request();
    if name.len() < 2 || name.len() > request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Some(request)
}

fn with_flags(mut request: libc::ifreq, flags: libc::c_int) -> libc::ifreq {
    // All flags of an ifreq are within 16 bits.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "16 bits, as the kernel has them"
    )]
    let flags = flags as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    request
}
