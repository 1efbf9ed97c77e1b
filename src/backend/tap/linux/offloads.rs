//! What the kernel is asked to leave unfinished, and what it can finish.
//!
//! UDP segmentation came with Linux 6.2, in both directions and for both IP
//! versions together.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::virtio::spec::net;

/// `TUN_F_CSUM` and so on, of linux/if_tun.h, by what the guest negotiated.
const OFFLOADS: [(u64, libc::c_uint); 6] = [
    (net::F_GUEST_CSUM, libc::TUN_F_CSUM),
    (net::F_GUEST_TSO4, libc::TUN_F_TSO4),
    (net::F_GUEST_TSO6, libc::TUN_F_TSO6),
    (net::F_GUEST_ECN, libc::TUN_F_TSO_ECN),
    (net::F_GUEST_UFO, libc::TUN_F_UFO),
    // The kernel refuses one without the other.
    (net::GUEST_USO, USO),
];
const USO: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

mod ioctl {
    // linux/if_tun.h.
    nix::ioctl_write_int_bad!(set_offloads, libc::TUNSETOFFLOAD);
}

/// Has the kernel hand over frames with these offloads (feature bits) only, as
/// far as it knows them.
pub(super) fn set(queue: BorrowedFd<'_>, features: u64) -> Result<(), Errno> {
    set_known(flags(features), |flags| set_flags(queue, flags))
}

/// Whether the kernel cuts what comes and goes into datagrams. Leaves it
/// without offloads.
pub(super) fn can_cut_datagrams(queue: BorrowedFd<'_>) -> bool {
    let known = set_flags(queue, libc::TUN_F_CSUM | USO).is_ok();
    known && set_flags(queue, 0).is_ok()
}

/// What the kernel is told of a guest that takes `features`.
fn flags(features: u64) -> libc::c_uint {
    if features & net::F_GUEST_CSUM == 0 {
        return 0;
    }
    OFFLOADS
        .iter()
        .filter(|(all, _)| features & all == *all)
        .fold(0, |flags, (_, flag)| flags | flag)
}

/// Tries with fewer flags for as long as there is one that the kernel does not
/// know. What it cuts for everybody it need not be told of.
fn set_known(
    wanted: libc::c_uint,
    set: impl Fn(libc::c_uint) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut flags = wanted;
    let mut result = set(flags);
    for unknown in [USO, libc::TUN_F_UFO] {
        if result == Err(Errno::EINVAL) && flags & unknown != 0 {
            flags &= !unknown;
            result = set(flags);
        }
    }
    result
}

fn set_flags(queue: BorrowedFd<'_>, flags: libc::c_uint) -> Result<(), Errno> {
    let flags = libc::c_int::try_from(flags).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the argument is a number.
    unsafe { ioctl::set_offloads(queue.as_raw_fd(), flags) }.map(drop)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn udp_segmentation_is_asked_for_with_both_ip_versions() {
        let csum = net::F_GUEST_CSUM;
        assert_eq!(flags(csum | net::GUEST_USO), libc::TUN_F_CSUM | USO);
        for one in [net::F_GUEST_USO4, net::F_GUEST_USO6] {
            assert_eq!(flags(csum | one), libc::TUN_F_CSUM);
        }
        assert_eq!(flags(net::GUEST_USO | net::F_GUEST_TSO4), 0);
        let all = flags(net::GUEST_OFFLOADS);
        assert_eq!(all, OFFLOADS.iter().fold(0, |all, (_, flag)| all | flag));
    }

    #[test]
    fn an_older_kernel_is_asked_for_what_it_knows() {
        let known_to = |known: libc::c_uint, wanted| {
            let last = Cell::new(None);
            let result = set_known(wanted, |flags| {
                if flags & !known != 0 {
                    return Err(Errno::EINVAL);
                }
                last.set(Some(flags));
                Ok(())
            });
            (result, last.get())
        };
        let all = flags(net::GUEST_OFFLOADS);
        let tcp = all & !(USO | libc::TUN_F_UFO);
        assert_eq!(known_to(all, all), (Ok(()), Some(all)));
        assert_eq!(known_to(all & !USO, all), (Ok(()), Some(all & !USO)));
        assert_eq!(known_to(tcp, all), (Ok(()), Some(tcp)));
        assert_eq!(known_to(tcp, tcp | USO), (Ok(()), Some(tcp)));
        // What the kernel has to know.
        assert_eq!(known_to(0, all), (Err(Errno::EINVAL), None));
        assert_eq!(known_to(0, 0), (Ok(()), Some(0)));
    }

    #[test]
    fn an_error_of_another_kind_is_told_at_once() {
        let tries = Cell::new(0);
        let result = set_known(USO, |_| {
            tries.set(tries.get() + 1);
            Err(Errno::EBADFD)
        });
        assert_eq!((result, tries.get()), (Err(Errno::EBADFD), 1));
    }
}
