//! The requests of tap(4) and netintro(4) that are made here.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::{c_text, ffi};

mod raw {
    use crate::ffi;
    nix::ioctl_write_ptr_bad!(set_header_len, ffi::TAPSVNETHDR, libc::c_int);
    nix::ioctl_write_ptr_bad!(set_transient, ffi::TAPSTRANSIENT, libc::c_int);
    nix::ioctl_read_bad!(tap_name, ffi::TAPGIFNAME, ffi::ifreq);
    nix::ioctl_readwrite_bad!(create, ffi::SIOCIFCREATE2, ffi::ifreq);
    nix::ioctl_write_ptr_bad!(destroy, ffi::SIOCIFDESTROY, ffi::ifreq);
    nix::ioctl_readwrite_bad!(get_flags, ffi::SIOCGIFFLAGS, ffi::ifreq);
    nix::ioctl_write_ptr_bad!(set_flags, ffi::SIOCSIFFLAGS, ffi::ifreq);
    nix::ioctl_readwrite_bad!(get_capabilities, ffi::SIOCGIFCAP, ffi::ifreq);
    nix::ioctl_write_ptr_bad!(set_capabilities, ffi::SIOCSIFCAP, ffi::ifreq);
    nix::ioctl_readwrite_bad!(get_mtu, ffi::SIOCGIFMTU, ffi::ifreq);
    nix::ioctl_readwrite_bad!(get_groups, ffi::SIOCGIFGROUP, ffi::ifgroupreq);
}

/// Most groups of an interface that are looked at.
const GROUPS: usize = 32;

/// The request about the interface `name`, if that can be one's name.
fn about(name: &str) -> Result<ffi::ifreq, Errno> {
    let mut request = ffi::ifreq::default();
    fill(&mut request.ifr_name, name)?;
    Ok(request)
}

/// Writes the name of an interface into `field`.
fn fill(field: &mut [libc::c_char], name: &str) -> Result<(), Errno> {
    if name.is_empty() || name.contains('/') {
        return Err(Errno::EINVAL);
    }
    c_text::put(field, name)
}

/// Sets how many bytes of virtio-net header are before each frame.
pub(super) fn set_header_len(tap: BorrowedFd<'_>, len: libc::c_int) -> Result<(), Errno> {
    // SAFETY: it points to a whole int.
    unsafe { raw::set_header_len(tap.as_raw_fd(), &len) }.map(drop)
}

/// Has the interface disappear when it is closed, or stay.
pub(super) fn set_transient(tap: BorrowedFd<'_>, transient: bool) -> Result<(), Errno> {
    // SAFETY: it points to a whole int.
    unsafe { raw::set_transient(tap.as_raw_fd(), &transient.into()) }.map(drop)
}

/// What the interface is called now.
pub(super) fn name(tap: BorrowedFd<'_>) -> Result<String, Errno> {
    let mut request = ffi::ifreq::default();
    // SAFETY: the request is a whole ifreq that outlives the call.
    unsafe { raw::tap_name(tap.as_raw_fd(), &mut request) }?;
    Ok(c_text::get(&request.ifr_name))
}

/// A socket to ask about interfaces with.
#[derive(Debug)]
pub(super) struct Control(OwnedFd);

impl From<OwnedFd> for Control {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Control> for OwnedFd {
    fn from(control: Control) -> Self {
        control.0
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Control {
    pub(super) fn new() -> Result<Self, Errno> {
        let kind = SockType::Datagram;
        socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).map(Self)
    }

    /// Makes the interface `name`, and says what it is called: `tap` has a
    /// number then. `EEXIST` when there is one.
    pub(super) fn create(&self, name: &str) -> Result<String, Errno> {
        let mut request = about(name)?;
        // SAFETY: the request is a whole ifreq that outlives the call.
        unsafe { raw::create(self.0.as_raw_fd(), &mut request) }?;
        Ok(c_text::get(&request.ifr_name))
    }

    pub(super) fn destroy(&self, name: &str) -> Result<(), Errno> {
        // SAFETY: the request is a whole ifreq that outlives the call.
        unsafe { raw::destroy(self.0.as_raw_fd(), &about(name)?) }.map(drop)
    }

    pub(super) fn bring_up(&self, name: &str) -> Result<(), Errno> {
        let mut request = about(name)?;
        let up = libc::c_short::try_from(libc::IFF_UP).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the request is a whole ifreq; after the first call its flags
        // are set, which are two halves.
        unsafe {
            raw::get_flags(self.0.as_raw_fd(), &mut request)?;
            if request.ifr_ifru.ifru_flags[0] & up == 0 {
                request.ifr_ifru.ifru_flags[0] |= up;
                raw::set_flags(self.0.as_raw_fd(), &request)?;
            }
        }
        Ok(())
    }

    pub(super) fn mtu(&self, name: &str) -> Result<usize, Errno> {
        let mut request = about(name)?;
        // SAFETY: the request is a whole ifreq; after the call its MTU is set.
        let mtu = unsafe {
            raw::get_mtu(self.0.as_raw_fd(), &mut request)?;
            request.ifr_ifru.ifru_mtu
        };
        Ok(usize::try_from(mtu).unwrap_or(0))
    }

    /// Switches the capabilities (`IFCAP_`) of `mask` to those of `wanted`.
    pub(super) fn set_capabilities(
        &self,
        name: &str,
        mask: libc::c_int,
        wanted: libc::c_int,
    ) -> Result<(), Errno> {
        let mut request = about(name)?;
        // SAFETY: the request is a whole ifreq; after the first call its
        // capabilities are set: those that there are, and those that are on.
        unsafe {
            raw::get_capabilities(self.0.as_raw_fd(), &mut request)?;
            let [there, on] = request.ifr_ifru.ifru_cap;
            let wanted = on & !mask | wanted & mask & there;
            if wanted != on {
                request.ifr_ifru.ifru_cap[0] = wanted;
                raw::set_capabilities(self.0.as_raw_fd(), &request)?;
            }
        }
        Ok(())
    }

    /// Whether the interface `name` is in one of `groups`. `ENXIO` when there
    /// is no such interface in this network stack.
    pub(super) fn is_in_group(&self, name: &str, groups: &[&str]) -> Result<bool, Errno> {
        let mut found = [ffi::ifg_req::default(); GROUPS];
        let mut request = ffi::ifgroupreq::default();
        fill(&mut request.ifgr_name, name)?;
        request.ifgr_len = u32::try_from(size_of_val(&found)).map_err(|_| Errno::EINVAL)?;
        request.ifgr_ifgru.ifgru_groups = found.as_mut_ptr();
        // SAFETY: the request says where the groups go and how many bytes there
        // are; both outlive the call, which leaves the number that it wrote.
        unsafe { raw::get_groups(self.0.as_raw_fd(), &mut request) }?;
        let count = usize::try_from(request.ifgr_len).unwrap_or(0) / size_of::<ffi::ifg_req>();
        Ok(found.iter().take(count).any(|group| {
            // SAFETY: the kernel has written the name of a group there, and all
            // of it is initialised.
            let group = c_text::get(unsafe { &group.ifgrq_ifgrqu.ifgrqu_group });
            groups.contains(&group.as_str())
        }))
    }
}
