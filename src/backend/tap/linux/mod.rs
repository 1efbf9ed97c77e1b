//! Linux: what is done with a tap while it is in use
//! (`Documentation/networking/tuntap.rst`).

mod offloads;
mod open;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;

use super::queue::Queue;
use crate::backend::host::Host;
use crate::net::frame::Frame;
use crate::net::offload::linux;
use crate::virtio::net_header::GSO_UDP_L4;
use crate::virtio::spec::net;

pub(super) use open::open;

/// What a frame comes back with that is written to an interface that is down.
pub(super) const DOWN: Errno = Errno::EIO;

mod ioctl {
    // linux/if_tun.h.
    nix::ioctl_read_bad!(get_interface, libc::TUNGETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_queue, libc::TUNSETQUEUE, libc::ifreq);
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
    /// The kernel knows of UDP segmentation.
    cuts_datagrams: AtomicBool,
}

impl Link {
    pub(super) fn new(_control: Option<OwnedFd>, _local: bool) -> io::Result<Self> {
        Ok(Self {
            active: Mutex::new(1),
            cuts_datagrams: AtomicBool::new(false),
        })
    }

    /// The kernel hands frames, without offloads, to all queues of an interface
    /// that was opened.
    pub(super) fn opened(&self, name: &str, queues: &[Queue]) {
        let cuts_datagrams = offloads::can_cut_datagrams(queues[0].as_fd());
        self.cuts_datagrams.store(cuts_datagrams, Ordering::Relaxed);
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
    pub(super) fn takes(&self, _header_len: usize, frame: &Frame) -> bool {
        frame.header.gso_type != GSO_UDP_L4
            || (self.cuts_datagrams.load(Ordering::Relaxed)
                && linux::takes(&frame.header, frame.len))
    }

    /// Has the kernel hand over frames with these offloads (feature bits) only.
    pub(super) fn set_offloads(
        &self,
        queues: &[Queue],
        _host: &dyn Host,
        features: u64,
    ) -> io::Result<()> {
        match offloads::set(queues[0].as_fd(), features) {
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
