//! A tap interface of the host, `tap0` (Linux: `Documentation/networking/tuntap.rst`).
//!
//! What the guest sends appears to the kernel as received on the interface;
//! what the kernel sends there is the guest's to receive. Frames go by
//! writev(2) and readv(2) between guest memory and the kernel, behind a
//! virtio-net header that is always ours ([`header`]): checksums and
//! segmentation are left to whoever can do them best.
//!
//! An interface that is missing is made, is up from the start and disappears
//! with us. One that is there is used as it is: whoever made it also brings it
//! up. Each queue pair has a descriptor of its own ([`queue`]).
//!
//! When the interface is removed from under us, the privileged half
//! ([`TapHost`]) is asked for it again and again: one that we made is made
//! anew, another is waited for.

mod header;
mod host;
mod queue;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod system;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrayvec::ArrayVec;
use nix::errno::Errno;

use super::host::Host;
use super::{Backend, Dropped, MAX_PAIRS, OpenError, Received, Room, Sent};
use crate::net::frame::{BATCH, Batch, FRAME_PARTS, MAX_FRAME};
use crate::virtio::spec::net;
use queue::{Inbox, Kept, Queue, Read};

use host::Interface;
pub use host::TapHost;

/// What a frame has beyond its interface's MTU: an Ethernet header with a VLAN
/// tag.
const BEYOND_MTU: usize = 18;
/// What makes a guest take frames beyond the MTU.
const SEGMENTED: u64 = net::F_GUEST_TSO4 | net::F_GUEST_TSO6 | net::F_GUEST_UFO;

/// A tap interface.
pub struct Tap {
    name: String,
    queues: Vec<Queue>,
    /// To how many queues, from the first on, the kernel hands frames. It
    /// takes them on all.
    active: Mutex<usize>,
    /// Offloads that the guest takes, as feature bits.
    offloads: AtomicU64,
    /// Longest frame that was seen, or that the MTU allows.
    longest: AtomicUsize,
    /// It was said already that the interface is down.
    down: AtomicBool,
    host: Arc<dyn Host>,
}

impl Tap {
    /// Has `host`, a [`TapHost`], open the interface, with a queue for each
    /// queue pair.
    ///
    /// # Errors
    /// Those of [`TapHost`]; [`OpenError::Mismatch`] when it is none.
    pub fn open(host: Arc<dyn Host>) -> Result<Self, OpenError> {
        let opened = Interface::unpack(host.open()?)?;
        let tap = Self {
            name: opened.name,
            active: Mutex::new(opened.queues.len()),
            queues: opened.queues.into_iter().map(Queue::new).collect(),
            offloads: AtomicU64::new(0),
            longest: AtomicUsize::new(opened.mtu + BEYOND_MTU),
            down: AtomicBool::new(false),
            host,
        };
        // A guest begins with one pair; the kernel must not hand frames to
        // queues that nobody reads.
        tap.set_active_pairs(1);
        Ok(tap)
    }

    /// Goes on with the interface as it was opened again.
    fn resume(&self, opened: &Interface) -> Result<(), Errno> {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        for (queue, fd) in self.queues.iter().zip(&opened.queues) {
            queue.replace(fd.as_fd())?;
        }
        system::set_offloads(
            self.queues[0].as_fd(),
            self.offloads.load(Ordering::Relaxed),
        )?;
        self.longest
            .store(opened.mtu + BEYOND_MTU, Ordering::Relaxed);
        self.down.store(false, Ordering::Relaxed);
        let wanted = std::mem::replace(&mut *active, self.queues.len());
        drop(active);
        self.set_active_pairs(u16::try_from(wanted).unwrap_or(MAX_PAIRS));
        Ok(())
    }

    /// For how long a frame room is asked. A longer one is not lost; it takes
    /// the slow path.
    fn expected(&self) -> usize {
        if self.offloads.load(Ordering::Relaxed) & SEGMENTED != 0 {
            MAX_FRAME
        } else {
            self.longest.load(Ordering::Relaxed)
        }
    }

    /// Gives the guest the next frame. `Err` says why there is none.
    fn receive_one(
        &self,
        queue: &Queue,
        inbox: &mut Inbox,
        rx: &mut dyn Room,
    ) -> Result<(), Received> {
        if inbox.kept.is_some() {
            return self.deliver_kept(inbox, rx);
        }
        let room = rx.room(self.expected())?;
        let offloads = self.offloads.load(Ordering::Relaxed);
        match queue.read(room, &mut inbox.spill) {
            Ok(Read::Whole(host, len)) => {
                match header::for_guest(&host, len, offloads) {
                    Some(header) => rx.finish(&header, len),
                    None => rx.drop(Dropped::Offload),
                }
                Ok(())
            }
            Ok(Read::Spilled(kept)) => {
                if offloads & SEGMENTED == 0 {
                    self.longest.fetch_max(kept.frame.len(), Ordering::Relaxed);
                }
                inbox.kept = Some(kept);
                Ok(())
            }
            Ok(Read::TooLong) => {
                rx.drop(Dropped::TooLong);
                Ok(())
            }
            // The interface will say when there is more.
            Err(Errno::EAGAIN) => Err(Received::Drained),
            Err(Errno::EINTR) => Ok(()),
            Err(errno) => {
                self.report(errno);
                Err(Received::Drained)
            }
        }
    }

    /// Gives the guest the frame that did not fit its buffers the last time.
    fn deliver_kept(&self, inbox: &mut Inbox, rx: &mut dyn Room) -> Result<(), Received> {
        let Some(Kept { header, frame }) = &inbox.kept else {
            return Ok(());
        };
        let offloads = self.offloads.load(Ordering::Relaxed);
        let header = header::for_guest(header, frame.len(), offloads);
        match header {
            None => rx.drop(Dropped::Offload),
            Some(header) => {
                let room = rx.room(frame.len())?;
                if queue::copy_out(frame, room) {
                    rx.finish(&header, frame.len());
                } else if rx.may_grow(frame.len()) {
                    return Err(Received::NoRoom);
                } else {
                    rx.drop(Dropped::TooLong);
                }
            }
        }
        inbox.kept = None;
        Ok(())
    }

    /// Logs an error that is more than a lost frame, once.
    fn report(&self, errno: Errno) {
        let name = &self.name;
        match errno {
            Errno::EIO if !self.down.swap(true, Ordering::Relaxed) => {
                tracing::warn!(
                    "{name}: the interface is down and takes no frames; ip link set {name} up"
                );
            }
            errno => tracing::debug!("{name}: {errno}"),
        }
    }
}

impl Backend for Tap {
    fn features(&self) -> u64 {
        net::HOST_OFFLOADS | net::GUEST_OFFLOADS
    }

    fn set_features(&self, features: u64, _header_len: usize) -> io::Result<()> {
        let offloads = features & net::GUEST_OFFLOADS;
        if self.offloads.swap(offloads, Ordering::Relaxed) == offloads {
            return Ok(());
        }
        match system::set_offloads(self.queues[0].as_fd(), offloads) {
            // Without its interface the guest goes on, but for frames.
            Err(Errno::EBADFD) => Ok(()),
            result => Ok(result?),
        }
    }

    fn max_pairs(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(MAX_PAIRS)
    }

    fn set_active_pairs(&self, pairs: u16) {
        let wanted = usize::from(pairs).clamp(1, self.queues.len());
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, queue) in self.queues.iter().enumerate() {
            let attach = index < wanted;
            if attach == (index < *active) {
                continue;
            }
            if let Err(errno) = system::set_attached(queue.as_fd(), attach) {
                tracing::warn!("{}: queue {index} not switched: {errno}", self.name);
            }
        }
        *active = wanted;
    }

    fn send(&self, pair: usize, batch: &Batch<'_>) -> Sent {
        let mut sent = Sent::default();
        let Some(queue) = self.queues.get(pair) else {
            sent.dropped = u32::try_from(batch.frames().len()).unwrap_or(u32::MAX);
            return sent;
        };
        let mut parts = ArrayVec::<libc::iovec, { FRAME_PARTS + 1 }>::new();
        for frame in batch.frames() {
            match queue.write(&frame.header, batch.parts(frame), &mut parts) {
                Ok(()) => {
                    sent.frames += 1;
                    sent.bytes += u64::from(frame.len);
                }
                Err(errno) => {
                    sent.dropped += 1;
                    self.report(errno);
                }
            }
        }
        if sent.frames > 0 && self.down.load(Ordering::Relaxed) {
            self.down.store(false, Ordering::Relaxed);
        }
        sent
    }

    fn rx_fd(&self, pair: usize) -> Option<BorrowedFd<'_>> {
        self.queues.get(pair).map(AsFd::as_fd)
    }

    fn receive(&self, pair: usize, rx: &mut dyn Room) -> Received {
        let Some(queue) = self.queues.get(pair) else {
            return Received::Drained;
        };
        // Only the pair's worker comes here.
        let mut inbox = queue.inbox();
        // What is dropped counts as well, so that a flood of that ends, too.
        for _ in 0..2 * BATCH {
            if let Err(received) = self.receive_one(queue, &mut inbox, rx) {
                return received;
            }
        }
        Received::Budget
    }
    fn can_be_lost(&self) -> bool {
        true
    }

    fn is_lost(&self) -> bool {
        system::is_gone(self.queues[0].as_fd())
    }

    fn recover(&self) -> Result<(), OpenError> {
        let opened = Interface::unpack(self.host.open()?)?;
        self.resume(&opened).map_err(|errno| OpenError::System {
            name: self.name.clone(),
            error: errno.into(),
            cure: "it is tried again",
        })
    }
}
