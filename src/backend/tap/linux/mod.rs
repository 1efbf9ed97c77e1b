//! Linux: what is done with a tap while it is in use
//! (`Documentation/networking/tuntap.rst`).

mod open;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;

use super::queue::Queue;
use crate::backend::host::Host;
use crate::net::frame::Frame;
use crate::virtio::spec::net;

pub(super) use open::open;

/// What a frame comes back with that is written to an interface that is down.
pub(super) const DOWN: Errno = Errno::EIO;

/// `TUN_F_CSUM` and so on, of linux/if_tun.h, by what the guest negotiated.
const OFFLOADS: [(u64, libc::c_uint); 5] = [
    (net::F_GUEST_CSUM, libc::TUN_F_CSUM),
    (net::F_GUEST_TSO4, libc::TUN_F_TSO4),
    (net::F_GUEST_TSO6, libc::TUN_F_TSO6),
    (net::F_GUEST_ECN, libc::TUN_F_TSO_ECN),
    (net::F_GUEST_UFO, libc::TUN_F_UFO),
];

mod ioctl {
    // linux/if_tun.h.
    nix::ioctl_read_bad!(get_interface, libc::TUNGETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_queue, libc::TUNSETQUEUE, libc::ifreq);
    nix::ioctl_write_int_bad!(set_offloads, libc::TUNSETOFFLOAD);
}

/// The offload bits that can be offered: all, as the kernel finishes frames
/// for whoever cannot take them, and takes what a guest has not finished.
pub(super) fn features(_header_len: usize) -> u64 {
    net::HOST_OFFLOADS | net::GUEST_OFFLOADS
}

/// What brings the interface up.
pub(super) fn bring_up_command(name: &str) -> String {
    format!("ip link set {name} up")
}

/// An open tap with a descriptor for each queue pair.
pub(super) struct Link {
    /// To how many queues, from the first on, the kernel hands frames. It
    /// takes them on all.
    active: Mutex<usize>,
}

impl Link {
    pub(super) fn new(_control: Option<OwnedFd>, _local: bool) -> io::Result<Self> {
        Ok(Self {
            active: Mutex::new(1),
        })
    }

    /// The kernel hands frames to all queues of an interface that was opened.
    pub(super) fn opened(&self, name: &str, queues: &[Queue]) {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = std::mem::replace(&mut *active, queues.len());
        drop(active);
        self.set_active(name, queues, u16::try_from(wanted).unwrap_or(1));
    }

    /// Has the kernel hand frames to the first `pairs` queues only.
    pub(super) fn set_active(&self, name: &str, queues: &[Queue], pairs: u16) {
        let wanted = usize::from(pairs).clamp(1, queues.len());
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, queue) in queues.iter().enumerate() {
            let attach = index < wanted;
            if attach == (index < *active) {
                continue;
            }
            if let Err(errno) = set_attached(queue.as_fd(), attach) {
                tracing::warn!("{name}: queue {index} not switched: {errno}");
            }
        }
        *active = wanted;
    }

    /// Whether the kernel takes `frame` with the offloads that it asks for.
    pub(super) fn takes(&self, _header_len: usize, _frame: &Frame) -> bool {
        true
    }

    /// Has the kernel hand over frames with these offloads (feature bits) only.
    pub(super) fn set_offloads(
        &self,
        queues: &[Queue],
        _host: &dyn Host,
        features: u64,
    ) -> io::Result<()> {
        match set_offloads(queues[0].as_fd(), features) {
            // Without its interface the guest goes on, but for frames.
            Err(Errno::EBADFD) => Ok(()),
            result => Ok(result?),
        }
    }

    pub(super) fn is_lost(&self, queues: &[Queue]) -> bool {
        is_gone(queues[0].as_fd())
    }

    /// What is left of an interface that is gone needs nothing.
    pub(super) fn let_go(&self, _queues: &[Queue]) {}
}

/// Has the kernel hand over frames with these offloads (feature bits) only.
fn set_offloads(queue: BorrowedFd<'_>, features: u64) -> Result<(), Errno> {
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
fn set_attached(queue: BorrowedFd<'_>, attach: bool) -> Result<(), Errno> {
    let flag = if attach {
        libc::IFF_ATTACH_QUEUE
    } else {
        libc::IFF_DETACH_QUEUE
    };
    let request = with_flags(empty_request(), flag);
    // SAFETY: the request is a whole ifreq that outlives the call.
    unsafe { ioctl::set_queue(queue.as_raw_fd(), &request) }.map(drop)
}

/// Whether the interface that `queue` was attached to is gone.
fn is_gone(queue: BorrowedFd<'_>) -> bool {
    let mut request = empty_request();
    // SAFETY: the request is a whole ifreq that outlives the call.
    let asked = unsafe { ioctl::get_interface(queue.as_raw_fd(), &mut request) };
    asked == Err(Errno::EBADFD)
}

fn empty_request() -> libc::ifreq {
    libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    }
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
