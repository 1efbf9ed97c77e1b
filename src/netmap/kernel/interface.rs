//! What netmap does not tell of the interface behind a port.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::{c_text, ffi};

/// An interface of the host (ifnet(9)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Bytes.
    pub mtu: u32,
    /// It is up (`IFF_UP`).
    pub up: bool,
    /// It takes frames for any address (`IFF_PPROMISC`, `IFF_PROMISC`).
    pub promiscuous: bool,
}

/// Asks the system about the interface `name`.
///
/// # Errors
/// Those of socket(2); `ENXIO` when there is no such interface.
pub fn interface(name: &str) -> io::Result<Interface> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    let ask = |request: u64| {
        let mut answer = ffi::ifreq::default();
        c_text::put(&mut answer.ifr_name, name)?;
        // SAFETY: both requests read and write an ifreq.
        match unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut answer) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(answer.ifr_ifru),
        }
    };
    // SAFETY: what the request has written; a number may be anything.
    let mtu = unsafe { ask(ffi::SIOCGIFMTU)?.ifru_mtu };
    // SAFETY: as above.
    let [low, high] = unsafe { ask(ffi::SIOCGIFFLAGS)?.ifru_flags };
    let promiscuous = i32::from(low) & libc::IFF_PROMISC != 0
        || i64::from(high) << 16 & i64::from(ffi::IFF_PPROMISC) != 0;
    Ok(Interface {
        mtu: u32::try_from(mtu).unwrap_or_default(),
        up: i32::from(low) & libc::IFF_UP != 0,
        promiscuous,
    })
}
