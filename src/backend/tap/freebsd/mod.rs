//! FreeBSD: what is done with a tap or vmnet interface while it is in use
//! (tap(4), sys/net/if_tuntap.c).
//!
//! Its virtio-net header is one-sided. Frames that the kernel hands us have
//! what the interface's capabilities say, and unfinished frames of other
//! members of a bridge in any case. Of frames that we hand to the kernel it
//! believes the checksum and never looks at `gso_type`: left to it, a frame
//! that goes on to another interface leaves with a wrong checksum, or 64 KiB
//! long. So frames are finished before they are written, unless all of them
//! end on this host, where TCP takes long segments as they are.
//!
//! An interface cannot be destroyed while it is open: ifconfig(8) waits for
//! us. The only sign of it is that the kernel has taken the interface out of
//! its driver's group. Then we close it, and ifconfig goes on.

mod open;
mod request;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::queue::Queue;
use crate::backend::host::{Host, Operation};
use crate::ffi;
use crate::net::ethernet::{TYPE_IPV4, TYPE_IPV6};
use crate::net::frame::{ETHER_HEADER, Frame};
use crate::net::ip::{V4_HEADER, V6_HEADER};
use crate::net::transport::{TCP_CHECKSUM, UDP_CHECKSUM};
use crate::sandbox::{Role, limit};
use crate::virtio::net_header::GSO_UDP_L4;
use crate::virtio::spec::net;
use request::Control;

pub(super) use open::{Kept, open};

/// What [`Queue::write`] says of an interface that is down: the kernel takes
/// frames, and nothing of them.
pub(super) const DOWN: Errno = Errno::ENETDOWN;
/// The groups that an interface is in from its beginning to its end.
const DRIVERS: [&str; 2] = ["tap", "vmnet"];
/// Headers that the kernel may know, the best first. It has their fields in
/// its own byte order, and virtio has them little endian.
const HEADER_LENS: &[libc::c_int] = if cfg!(target_endian = "little") {
    &[12, 10]
} else {
    &[]
};

/// The offload bits that can be offered with headers of so many bytes. What
/// the guest leaves to us, we can do in any case. The kernel segments neither
/// UDP nor, for who is not told of it, TCP with ECN.
pub(super) fn features(header_len: usize) -> u64 {
    let received = net::F_GUEST_CSUM | net::F_GUEST_TSO4 | net::F_GUEST_TSO6;
    net::HOST_OFFLOADS | if header_len > 0 { received } else { 0 }
}

/// What brings the interface up.
pub(super) fn bring_up_command(name: &str) -> String {
    format!("ifconfig {name} up")
}

/// An open interface with one descriptor for all queue pairs.
pub(super) struct Link {
    control: Option<Control>,
    /// What takes the place of a descriptor that has to be closed.
    placeholder: OwnedFd,
    /// Every frame ends on this host.
    local: bool,
    /// The interface was in its driver's group, and will be until its end.
    in_group: AtomicBool,
    /// The interface is to be destroyed, or was.
    lost: AtomicBool,
    /// We have let go of it.
    closed: AtomicBool,
}

impl Link {
    pub(super) fn new(control: Option<OwnedFd>, local: bool) -> io::Result<Self> {
        // Without a writer it reads as ended, and cannot be written to.
        let (placeholder, _) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        limit(&placeholder, Role::Nothing)?;
        Ok(Self {
            control: control.map(Control::from),
            placeholder,
            local,
            in_group: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    /// The interface was opened, or opened again.
    pub(super) fn opened(&self, _name: &str, queues: &[Queue]) {
        let in_group = self.is_in_group(queues[0].as_fd()) == Ok(true);
        self.in_group.store(in_group, Ordering::Relaxed);
        self.closed.store(false, Ordering::Relaxed);
        self.lost.store(false, Ordering::Relaxed);
    }

    fn is_in_group(&self, tap: BorrowedFd<'_>) -> Result<bool, Errno> {
        let control = self.control.as_ref().ok_or(Errno::EBADF)?;
        control.is_in_group(&request::name(tap)?, &DRIVERS)
    }

    /// There is one queue, which is always in use.
    pub(super) fn set_active(&self, _name: &str, _queues: &[Queue], _pairs: u16) {}

    /// Whether the kernel takes `frame` with the offloads that it asks for: it
    /// drops what it does not understand, and of several datagrams in one
    /// frame it would make one.
    pub(super) fn takes(&self, header_len: usize, frame: &Frame) -> bool {
        let ip_header = match frame.ether.ether_type() {
            TYPE_IPV4 => V4_HEADER,
            TYPE_IPV6 => V6_HEADER,
            _ => return false,
        };
        let offset = usize::from(frame.header.csum_offset);
        self.local
            && header_len > 0
            && frame.header.gso_type != GSO_UDP_L4
            && frame.len <= ffi::TAPMRU
            && (offset == TCP_CHECKSUM || offset == UDP_CHECKSUM)
            && usize::from(frame.header.csum_start) >= ETHER_HEADER + ip_header
    }

    /// Has the kernel hand over frames with these offloads (feature bits).
    pub(super) fn set_offloads(
        &self,
        _queues: &[Queue],
        host: &dyn Host,
        features: u64,
    ) -> io::Result<()> {
        if self.lost.load(Ordering::Relaxed) {
            return Ok(());
        }
        host.operate(Operation::SetFeatures(features))
            .map_err(io::Error::other)
    }

    pub(super) fn is_lost(&self, queues: &[Queue]) -> bool {
        if !self.lost.load(Ordering::Relaxed) && self.in_group.load(Ordering::Relaxed) {
            // An error is no sign: the interface may have been moved to another
            // network stack, where it can still be used.
            let lost = self.is_in_group(queues[0].as_fd()) == Ok(false);
            self.lost.store(lost, Ordering::Relaxed);
        }
        self.lost.load(Ordering::Relaxed)
    }

    /// Closes an interface that waits to be destroyed. The other half keeps it
    /// open until it is asked for another.
    pub(super) fn let_go(&self, queues: &[Queue]) {
        if self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        for queue in queues {
            if let Err(errno) = queue.replace(self.placeholder.as_fd()) {
                tracing::warn!("tap: not closed: {errno}; restart vtnetd");
            }
        }
    }
}
