//! Systems whose kernels have netmap: interfaces are to be had there.

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::source::{Device, DeviceError, Facts, Handles};

const CURE: &str = "interfaces of this system belong to the kernel's netmap: open /dev/netmap \
                    itself, or give a guest the back end netmap:IF";

/// `None`: there is no such interface.
///
/// # Errors
/// `EOPNOTSUPP` when there is, so that whoever names it knows from the start.
pub fn look(name: &str) -> Result<Option<Facts>, DeviceError> {
    match if_nametoindex(name) {
        Ok(_) => Err(DeviceError::new(name, Errno::EOPNOTSUPP, CURE)),
        Err(_) => Ok(None),
    }
}

/// bpf(4) gets copies, and nothing takes an interface away from the host's
/// stack but the kernel's own netmap.
///
/// # Errors
/// Always `EOPNOTSUPP`.
pub fn open(name: &str, _promiscuous: bool) -> Result<Handles, DeviceError> {
    Err(DeviceError::new(name, Errno::EOPNOTSUPP, CURE))
}

/// There is nothing that [`open`] returns.
///
/// # Errors
/// Always `EOPNOTSUPP`.
pub fn assemble(name: &str, _handles: Handles) -> Result<Device, DeviceError> {
    Err(DeviceError::new(name, Errno::EOPNOTSUPP, CURE))
}
