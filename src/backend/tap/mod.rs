//! A tap interface of the host, `tap0` (Linux:
//! `Documentation/networking/tuntap.rst`; FreeBSD: tap(4)), and FreeBSD's
//! `vmnet0`, which is one that stays up when it is closed.
//!
//! What the guest sends appears to the kernel as received on the interface;
//! what the kernel sends there is the guest's to receive. Frames go by a system
//! call each (`direct`) behind a virtio-net header that is always ours
//! ([`header`]): checksums and segmentation are left to whoever can do them
//! best.
//!
//! An interface that is missing is made, is up from the start and disappears
//! with us. One that is there is used as it is: whoever made it also brings it
//! up. Linux has a descriptor for each queue pair, FreeBSD one for all
//! ([`queue`]).
//!
//! When the interface is removed from under us, the privileged half
//! ([`TapHost`]) is asked for it again and again: one that we made is made
//! anew, another is waited for.

mod header;
mod host;
mod queue;
#[cfg(target_os = "freebsd")]
#[path = "freebsd/mod.rs"]
mod system;
#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod system;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use nix::errno::Errno;

use super::host::Host;
use super::{Backend, Dropped, OpenError, Received, Room, Sent, Spec};
use crate::net::direct::{self, Reader, Writer};
use crate::net::frame::{BATCH, Batch, Frame, MAX_FRAME};
use crate::net::offload::software;
use crate::virtio::memory::Readable;
use crate::virtio::net_header::{GSO_NONE, NetHeader};
use crate::virtio::spec::net;
use header::Verdict;
use host::Interface;
pub use host::TapHost;
use queue::{Inbox, Kept, Queue, Read};
use system::Link;

/// What a frame has beyond its interface's MTU: an Ethernet header with a VLAN
/// tag.
const BEYOND_MTU: usize = 18;

/// A tap interface.
pub struct Tap {
    name: String,
    pairs: u16,
    queues: Vec<Queue>,
    /// What is not the same on all systems.
    link: Link,
    host: Arc<dyn Host>,
    /// The `VIRTIO_NET_F_` offload bits that can be offered.
    features: u64,
    /// Offloads that the guest takes, as feature bits.
    offloads: AtomicU64,
    /// Bytes of virtio-net header between us and the kernel.
    header_len: AtomicUsize,
    /// Longest frame that was seen, or that the MTU allows.
    longest: AtomicUsize,
    /// It was said already that the interface is down.
    down: AtomicBool,
}

impl Tap {
    /// Has `host`, a [`TapHost`], open the interface.
    ///
    /// # Errors
    /// Those of [`TapHost`]; [`OpenError::Mismatch`] when it is none.
    pub fn open(spec: &Spec, host: Arc<dyn Host>) -> Result<Self, OpenError> {
        let interface = Interface::unpack(host.open()?)?;
        if interface.name != spec.name {
            tracing::info!("{}: the interface is {}", spec.name, interface.name);
        }
        let failed = |error| OpenError::System {
            name: interface.name.clone(),
            error,
            cure: "raise the limit of open files (ulimit -n)",
        };
        let tap = Self {
            link: Link::new(interface.control, spec.local).map_err(failed)?,
            name: interface.name,
            pairs: interface.pairs,
            queues: interface.queues.into_iter().map(Queue::new).collect(),
            host,
            features: system::features(interface.header_len),
            offloads: AtomicU64::new(0),
            header_len: AtomicUsize::new(interface.header_len),
            longest: AtomicUsize::new(interface.mtu + BEYOND_MTU),
            down: AtomicBool::new(false),
        };
        // A guest begins with one pair; the kernel must not hand frames to
        // queues that nobody reads.
        tap.link.opened(&tap.name, &tap.queues);
        Ok(tap)
    }

    /// Goes on with the interface as it was opened again.
    fn resume(&self, interface: &Interface) -> Result<(), Errno> {
        for (queue, fd) in self.queues.iter().zip(&interface.queues) {
            queue.replace(fd.as_fd())?;
        }
        self.header_len
            .store(interface.header_len, Ordering::Relaxed);
        self.longest
            .store(interface.mtu + BEYOND_MTU, Ordering::Relaxed);
        self.down.store(false, Ordering::Relaxed);
        self.link.opened(&self.name, &self.queues);
        if self.offloads.load(Ordering::Relaxed) != 0 {
            self.switch_offloads();
        }
        Ok(())
    }

    /// Asks the kernel for frames that are as unfinished as the guest takes
    /// them. What comes otherwise is finished in software, so that a failure
    /// costs time only.
    fn switch_offloads(&self) {
        let offloads = self.offloads.load(Ordering::Relaxed);
        let switched = self.link.set_offloads(&self.queues, &*self.host, offloads);
        if let Err(error) = switched {
            tracing::warn!("{}: offloads not switched: {error}", self.name);
        }
    }

    /// For how long a frame room is asked. A longer one is not lost; it takes
    /// the slow path. Room for frames that are yet to be segmented is most of a
    /// ring, which it takes time to look at.
    fn expected(&self, reader: &Reader) -> usize {
        let longest = self.longest.load(Ordering::Relaxed);
        let segmented = self.offloads.load(Ordering::Relaxed) & net::GUEST_SEGMENTED != 0;
        if segmented && reader.recent() > longest {
            MAX_FRAME
        } else {
            longest
        }
    }

    /// Gives the guest the next frame. `Err` says why there is none.
    fn receive_one(
        &self,
        queue: &Queue,
        inbox: &mut Inbox,
        rx: &mut dyn Room,
    ) -> Result<(), Received> {
        if !inbox.kept.is_empty() {
            return self.deliver_kept(inbox, rx);
        }
        let room = rx.room(self.expected(&inbox.reader))?;
        let header_len = self.header_len.load(Ordering::Relaxed);
        match queue.read(header_len, room, &mut inbox.reader) {
            Ok(Read::Whole(host, len)) => {
                let offloads = self.offloads.load(Ordering::Relaxed);
                match header::for_guest(&host, len, offloads) {
                    Verdict::Give(header) => rx.finish(&header, len),
                    Verdict::Finish => {
                        let frame = direct::copy_in(room, len);
                        inbox.kept.push_back(Kept {
                            header: host,
                            frame,
                        });
                    }
                    Verdict::Refuse => rx.drop(Dropped::Offload),
                }
                Ok(())
            }
            Ok(Read::Spilled(kept)) => {
                if kept.header.gso_type == GSO_NONE {
                    self.longest.fetch_max(kept.frame.len(), Ordering::Relaxed);
                }
                inbox.kept.push_back(kept);
                Ok(())
            }
            Ok(Read::TooLong) => {
                rx.drop(Dropped::TooLong);
                Ok(())
            }
            Ok(Read::Nothing) => {
                rx.drop(Dropped::Offload);
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

    /// Gives the guest the first of the frames that it could not have at once.
    fn deliver_kept(&self, inbox: &mut Inbox, rx: &mut dyn Room) -> Result<(), Received> {
        let Some(Kept { header, frame }) = inbox.kept.front() else {
            return Ok(());
        };
        let offloads = self.offloads.load(Ordering::Relaxed);
        match header::for_guest(header, frame.len(), offloads) {
            Verdict::Refuse => rx.drop(Dropped::Offload),
            Verdict::Finish => {
                let Some(Kept { header, frame }) = inbox.kept.pop_front() else {
                    return Ok(());
                };
                match header::finish(&header, frame) {
                    Ok(frames) => inbox.kept.extend(frames.into_iter().map(Kept::plain)),
                    Err(error) => {
                        tracing::debug!("{}: {error}", self.name);
                        rx.drop(Dropped::Offload);
                    }
                }
                return Ok(());
            }
            Verdict::Give(header) => {
                let room = rx.room(frame.len())?;
                if direct::copy_out(frame, room) {
                    rx.finish(&header, frame.len());
                } else if rx.may_grow(frame.len()) {
                    return Err(Received::NoRoom);
                } else {
                    rx.drop(Dropped::TooLong);
                }
            }
        }
        inbox.kept.pop_front();
        Ok(())
    }

    /// Sends one frame, in one piece or in several.
    fn send_one(
        &self,
        queue: &Queue,
        batch: &Batch<'_>,
        frame: &Frame,
        writer: &mut Writer,
    ) -> Result<(), Errno> {
        let header_len = self.header_len.load(Ordering::Relaxed);
        if frame.header.is_plain() || self.link.takes(header_len, frame) {
            return queue.write(header_len, &frame.header, batch.parts(frame), writer);
        }
        let plain = NetHeader::default();
        let (mut pieces, mut result) = (0, Ok(()));
        software::finish(batch, frame, &mut |frames| {
            for (head, body) in frames {
                let parts = [head, body].map(|part| Readable::from_slice(part));
                result = result.and(queue.write(header_len, &plain, &parts, writer));
                pieces += 1;
            }
        });
        // None: the guest has made something else of the frame meanwhile.
        if pieces == 0 {
            Err(Errno::EINVAL)
        } else {
            result
        }
    }

    /// Logs an error that is more than a lost frame, once.
    fn report(&self, errno: Errno) {
        let name = &self.name;
        if errno == system::DOWN && !self.down.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{name}: the interface is down and takes no frames; {}",
                system::bring_up_command(name)
            );
        } else {
            tracing::debug!("{name}: {errno}");
        }
    }
}

impl Backend for Tap {
    fn features(&self) -> u64 {
        self.features
    }

    fn set_features(&self, features: u64, _header_len: usize) -> io::Result<()> {
        let offloads = features & net::GUEST_OFFLOADS;
        if self.offloads.swap(offloads, Ordering::Relaxed) != offloads {
            self.switch_offloads();
        }
        Ok(())
    }

    fn max_pairs(&self) -> u16 {
        self.pairs
    }

    fn set_active_pairs(&self, pairs: u16) {
        self.link.set_active(&self.name, &self.queues, pairs);
    }

    fn send(&self, pair: usize, batch: &Batch<'_>) -> Sent {
        let mut sent = Sent::default();
        let queue = self.queues.get(pair).unwrap_or(&self.queues[0]);
        let mut writer = Writer::new();
        for frame in batch.frames() {
            match self.send_one(queue, batch, frame, &mut writer) {
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
        self.link.is_lost(&self.queues)
    }

    fn recover(&self) -> Result<(), OpenError> {
        self.link.let_go(&self.queues);
        let interface = Interface::unpack(self.host.open()?)?;
        self.resume(&interface).map_err(|errno| OpenError::System {
            name: self.name.clone(),
            error: errno.into(),
            cure: "it is tried again",
        })
    }
}
