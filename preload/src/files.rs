//! ioctl(2), mmap(2), close(2) and what is like them.

use std::os::fd::{AsRawFd, RawFd};

use libc::{c_int, c_uint, c_void, off_t, size_t};
use nix::errno::Errno;
use vtnetd::netmap::abi::legacy::{NIOCCONFIG, NIOCGINFO, NIOCREGIF};
use vtnetd::netmap::abi::nmreq::{NIOCCTRL, NIOCRXSYNC, NIOCTXSYNC};
use vtnetd::netmap::port::Direction;

use crate::cache::{self, with_channel};
use crate::connection::is_connection;
use crate::descriptors::{OWN, SEEN, changes, many_change};
use crate::edge::{edge, say};
use crate::real::{CLOSE_RANGE, CLOSEFROM, MMAP};
use crate::registered::REGISTERED;

/// ioctl(2), if it is for a connection.
///
/// # Errors
/// The service's; `EOPNOTSUPP` for what is no command of netmap's.
pub(crate) fn ioctl(fd: RawFd, command: libc::c_ulong, argument: u64) -> Option<Result<(), Errno>> {
    // Commands have 32 bits; who has them in an int has the sign in the rest.
    match command & 0xffff_ffff {
        NIOCTXSYNC => with_channel(fd, |channel| channel.sync(Direction::Tx)),
        NIOCRXSYNC => with_channel(fd, |channel| channel.sync(Direction::Rx)),
        command @ (NIOCCTRL | NIOCREGIF | NIOCGINFO | NIOCCONFIG) => {
            with_channel(fd, |channel| channel.ioctl(command, argument))
        }
        // What is about the descriptor itself, the system does.
        command if is_of_descriptors(command) => None,
        command if SEEN.contains(fd) && is_connection(fd) => {
            say(format_args!("ioctl {command:#x} is none of netmap's"));
            Some(Err(Errno::EOPNOTSUPP))
        }
        _ => None,
    }
}

/// `FIONBIO` and the like, which any descriptor has.
fn is_of_descriptors(command: u64) -> bool {
    [libc::FIONBIO, libc::FIOASYNC, libc::FIOCLEX, libc::FIONCLEX]
        .iter()
        .any(|known| {
            #[allow(clippy::useless_conversion, reason = "its type is the system's")]
            let known = u64::from(*known);
            known == command
        })
}

/// mmap(2) of a connection: maps the region of what is bound.
///
/// # Errors
/// `ENXIO`: nothing is bound; `EINVAL`: more than there is.
///
/// # Safety
/// As for mmap(2).
unsafe fn mmap(
    at: *mut c_void,
    len: size_t,
    protection: c_int,
    flags: c_int,
    region: Result<(std::os::fd::OwnedFd, u64), Errno>,
    offset: off_t,
) -> Result<*mut c_void, Errno> {
    let (region, bytes) = region?;
    let end = u64::try_from(offset)
        .ok()
        .and_then(|offset| offset.checked_add(len as u64));
    if end.is_none_or(|end| end > bytes) {
        return Err(Errno::EINVAL);
    }
    let real = MMAP.get()?;
    // SAFETY: the caller's; the mapping outlives the descriptor.
    let mapped = unsafe { real(at, len, protection, flags, region.as_raw_fd(), offset) };
    if mapped == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    Ok(mapped)
}

/// mmap(2).
///
/// # Safety
/// As for mmap(2).
pub(crate) unsafe fn mmap_or(
    at: *mut c_void,
    len: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    if fd >= 0 && flags & libc::MAP_ANON == 0 {
        if let Some(region) = with_channel(fd, |channel| channel.memory()) {
            return edge(libc::MAP_FAILED, || {
                // SAFETY: the caller's.
                unsafe { mmap(at, len, protection, flags, region, offset) }
            });
        }
    }
    match MMAP.get() {
        // SAFETY: the caller's.
        Ok(real) => unsafe { real(at, len, protection, flags, fd, offset) },
        Err(errno) => edge(libc::MAP_FAILED, || Err(errno)),
    }
}

/// read(2) and write(2) have nothing to do at a connection: the errno, as the
/// kernel's netmap has it.
pub(crate) fn has_no_data(fd: RawFd) -> Option<Errno> {
    if !SEEN.contains(fd) || !is_connection(fd) {
        return None;
    }
    Some(if cfg!(target_os = "linux") {
        Errno::EINVAL
    } else {
        Errno::ENODEV
    })
}

/// Before close(2).
///
/// # Errors
/// `EBADF`: the descriptor is ours, and the program knows of none.
pub(crate) fn closes(fd: RawFd) -> Result<(), Errno> {
    if OWN.contains(fd) {
        return Err(Errno::EBADF);
    }
    if SEEN.contains(fd) {
        cache::forget(fd);
    }
    REGISTERED.forget(fd);
    changes(fd);
    Ok(())
}

/// Before dup2(2) to `fd`.
pub(crate) fn becomes(fd: RawFd) {
    if OWN.contains(fd) {
        // The channel finds out, and is made anew.
        OWN.remove(fd);
    }
    if SEEN.contains(fd) {
        cache::forget(fd);
    }
    REGISTERED.forget(fd);
    changes(fd);
}

/// close_range(2), which leaves those of our own.
///
/// # Errors
/// Those of close_range(2).
pub(crate) fn close_range(first: c_uint, last: c_uint, flags: c_int) -> Result<(), Errno> {
    let real = CLOSE_RANGE.get()?;
    let close = |first, last| {
        // SAFETY: the program's wish, and close_range(2) follows no pointer.
        Errno::result(unsafe { real(first, last, flags) }).map(drop)
    };
    many_change();
    let mut first = first;
    while let Some(own) = c_int::try_from(first)
        .ok()
        .and_then(|at| OWN.first_from(at))
    {
        let own = c_uint::try_from(own).unwrap_or(c_uint::MAX);
        if own > last {
            break;
        }
        if first < own {
            close(first, own - 1)?;
        }
        first = own + 1;
    }
    if first <= last {
        close(first, last)?;
    }
    Ok(())
}

/// closefrom(3), which leaves those of our own.
pub(crate) fn closefrom(first: c_int) {
    if OWN.first_from(first.max(0)).is_none() {
        many_change();
        if let Ok(real) = CLOSEFROM.get() {
            // SAFETY: the program's wish; it follows no pointer.
            unsafe { real(first) };
        }
        return;
    }
    // It reports nothing.
    let _ = close_range(c_uint::try_from(first).unwrap_or(0), c_uint::MAX, 0);
}
