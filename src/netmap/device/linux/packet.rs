//! The wire: a packet(7) socket with a receive ring.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};

use super::Mapped;
use super::line::{Channel, Refused};
use crate::net::frame::{Batch, Frame, MAX_FRAME};
use crate::netmap::attachment::Dropped;
use crate::netmap::device::source::{Arrived, Line, Put};
use crate::virtio::memory::Readable;
use crate::virtio::net_header::{F_NEEDS_CSUM, LEN, LEN_LEGACY, NetHeader};

/// Bytes before a frame in its slot, at most.
pub(super) const OVERHEAD: u32 = 128;
/// Bytes of both addresses in front of a VLAN tag.
const ADDRESSES: usize = 12;
/// Bytes of the tag.
const TAG: usize = 4;
/// The header before a frame, and a tag, as slots count.
const HEADER_BYTES: u32 = 10;
const TAG_BYTES: u16 = 4;

const _: () = assert!(HEADER_BYTES as usize == LEN_LEGACY && TAG_BYTES as usize == TAG);

/// How long the ring is, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    frame_size: u32,
    frames: u32,
}

impl Geometry {
    /// `None`: no ring that is asked for here.
    pub(super) fn new(frame_size: u64, frames: u64) -> Option<Self> {
        let (frame_size, frames) = (u32::try_from(frame_size).ok()?, u32::try_from(frames).ok()?);
        let good = frame_size.is_power_of_two()
            && (2048..=1 << 17).contains(&frame_size)
            && (1..=1 << 16).contains(&frames);
        good.then_some(Self { frame_size, frames })
    }

    /// Bytes of a slot, so that an ordinary frame of an interface with this MTU
    /// fits.
    pub(super) fn frame_size(mtu: u32) -> u32 {
        mtu.min(1 << 16)
            .saturating_add(OVERHEAD)
            .next_power_of_two()
            .max(2048)
    }

    fn bytes(self) -> usize {
        self.frame_size as usize * self.frames as usize
    }
}

#[derive(Debug)]
struct Inbox {
    /// The next slot.
    at: u32,
    /// Room for a frame that is longer than a slot, and for a tag before it.
    long: Box<[u8]>,
}

/// What a slot says of its frame.
struct Slot {
    header: NetHeader,
    /// The frame, as much of it as there is in the slot.
    at: NonNull<u8>,
    here: u32,
    /// Bytes of the whole frame.
    len: u32,
    /// The tag, which the kernel has taken out.
    tag: Option<[u8; TAG]>,
    /// The whole frame waits in the socket.
    waits: bool,
}

/// The wire.
#[derive(Debug)]
pub(super) struct Packet {
    socket: Channel,
    ring: Mapped,
    geometry: Geometry,
    inbox: Mutex<Inbox>,
}

impl Packet {
    pub(super) fn new(name: &str, socket: OwnedFd, geometry: Geometry) -> Result<Self, Errno> {
        Ok(Self {
            ring: Mapped::new(&socket, geometry.bytes())?,
            socket: Channel::new(name, socket, LEN_LEGACY),
            geometry,
            inbox: Mutex::new(Inbox {
                at: 0,
                long: vec![0; TAG + MAX_FRAME + 1].into_boxed_slice(),
            }),
        })
    }

    /// Slot `at`, which is below the number of slots.
    fn slot(&self, at: u32) -> NonNull<u8> {
        let offset = at as usize * self.geometry.frame_size as usize;
        // SAFETY: the slots fill the mapping.
        unsafe { self.ring.base.add(offset) }
    }

    fn status(&self, at: u32) -> &AtomicU32 {
        // SAFETY: a slot is aligned to its size and begins with this word,
        // which both sides use as an atomic.
        unsafe { self.slot(at).cast::<AtomicU32>().as_ref() }
    }

    fn next(&self, at: u32) -> u32 {
        if at + 1 < self.geometry.frames {
            at + 1
        } else {
            0
        }
    }

    /// What is in slot `at`; `None`: nothing yet. An error: nothing to be used.
    fn look(&self, at: u32) -> Option<Result<Slot, Refused>> {
        let status = self.status(at).load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        let slot = self.slot(at);
        // SAFETY: each slot is longer than its header, and ours as long as the
        // status says so.
        let said = unsafe { slot.cast::<libc::tpacket2_hdr>().read() };
        let mac = u32::from(said.tp_mac);
        let header_at = mac.checked_sub(HEADER_BYTES);
        let inside = mac
            .checked_add(said.tp_snaplen)
            .is_some_and(|end| end <= self.geometry.frame_size);
        let (Some(header_at), true) = (header_at, inside) else {
            return Some(Err(Refused::Short));
        };
        let mut raw = [0; LEN];
        // SAFETY: both offsets are inside the slot.
        let (header, at) = unsafe {
            let header = Readable::new(slot.add(header_at as usize), HEADER_BYTES);
            (header, slot.add(mac as usize))
        };
        header.read(&mut raw);
        let mut header = NetHeader::from_bytes(&raw);
        let tagged = status & libc::TP_STATUS_VLAN_VALID != 0;
        let tag = tagged.then(|| {
            let kind = match status & libc::TP_STATUS_VLAN_TPID_VALID {
                0 => 0x8100,
                _ => said.tp_vlan_tpid,
            };
            let ([a, b], [c, d]) = (kind.to_be_bytes(), said.tp_vlan_tci.to_be_bytes());
            [a, b, c, d]
        });
        if tag.is_some() && header.flags & F_NEEDS_CSUM != 0 {
            header.csum_start = header.csum_start.saturating_add(TAG_BYTES);
        }
        Some(Ok(Slot {
            header,
            at,
            here: said.tp_snaplen,
            len: said.tp_len,
            tag,
            waits: status & libc::TP_STATUS_COPY != 0,
        }))
    }

    /// The frame where it lies, with its tag.
    fn in_slot(&self, slot: &Slot) -> Readable<'_> {
        let Some(tag) = slot.tag else {
            // SAFETY: `look` has checked that it is inside the slot, which is
            // ours until its status is changed, after the batch.
            return unsafe { Readable::new(slot.at, slot.here) };
        };
        let mut addresses = [0; ADDRESSES];
        let moved = ADDRESSES.min(slot.here as usize);
        // SAFETY: `moved` bytes are there, and before them the header of
        // LEN_LEGACY bytes, which was read; nobody else has the slot now.
        unsafe {
            let from = slot.at.as_ptr();
            std::ptr::copy_nonoverlapping(from, addresses.as_mut_ptr(), moved);
            let to = from.sub(TAG);
            std::ptr::copy_nonoverlapping(addresses.as_ptr(), to, moved);
            std::ptr::copy_nonoverlapping(tag.as_ptr(), to.add(moved), TAG);
            let to = NonNull::new_unchecked(to);
            Readable::new(to, slot.here + u32::from(TAG_BYTES))
        }
    }

    /// The whole frame, which waits in the socket, with its tag.
    fn behind<'l>(&self, slot: &Slot, long: &'l mut [u8]) -> Result<&'l [u8], Errno> {
        let room = long.get_mut(TAG..).unwrap_or_default();
        let (_, len) = self.socket.read(room)?;
        let Some(tag) = slot.tag else {
            return Ok(long.get(TAG..TAG + len).unwrap_or_default());
        };
        long.copy_within(TAG..TAG + ADDRESSES, 0);
        if let Some(room) = long.get_mut(ADDRESSES..ADDRESSES + TAG) {
            room.copy_from_slice(&tag);
        }
        Ok(long.get(..TAG + len).unwrap_or_default())
    }
}

impl Line for Packet {
    fn receive(
        &self,
        fits: &mut dyn FnMut(Arrived) -> bool,
        take: &mut dyn FnMut(&Batch<'_>),
    ) -> usize {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let Inbox { at, long } = &mut *inbox;
        let first = *at;
        let mut gone = 0;
        let mut batch = Batch::new();
        let mut slots = arrayvec::ArrayVec::<Slot, { crate::net::frame::BATCH }>::new();
        let mut waiting = None;
        // Looked at first: views of slots are lent to the batch together.
        while !slots.is_full() && gone < slots.capacity() {
            let slot = match self.look(*at) {
                None => break,
                Some(Err(why)) => {
                    self.socket.refuse(why);
                    (*at, gone) = (self.next(*at), gone + 1);
                    continue;
                }
                Some(Ok(slot)) => slot,
            };
            if slot.waits && !slots.is_empty() {
                break;
            }
            let arrived = Arrived {
                len: slot.len as usize + slot.tag.map_or(0, |tag| tag.len()),
                segment: slot.header.gso_size.into(),
            };
            if !fits(arrived) {
                break;
            }
            (*at, gone) = (self.next(*at), gone + 1);
            if slot.waits {
                waiting = Some(slot);
                break;
            }
            if slot.here < slot.len {
                self.socket.refuse(Refused::Cut);
                continue;
            }
            slots.push(slot);
        }
        if let Some(slot) = &waiting {
            match self.behind(slot, long) {
                Ok(frame) if frame.len() <= MAX_FRAME => {
                    let parts = [Readable::from_slice(frame)];
                    self.socket.push(&mut batch, &slot.header, &parts);
                }
                Ok(_) => self.socket.refuse(Refused::Full),
                Err(errno) => self.socket.lose(errno),
            }
        }
        for slot in &slots {
            self.socket
                .push(&mut batch, &slot.header, &[self.in_slot(slot)]);
        }
        if !batch.frames().is_empty() {
            take(&batch);
        }
        drop(batch);
        let mut back = first;
        for _ in 0..gone {
            self.status(back)
                .store(libc::TP_STATUS_KERNEL, Ordering::Release);
            back = self.next(back);
        }
        gone
    }

    fn send(&self, batch: &Batch<'_>, frame: &Frame) -> Put {
        self.socket.send(batch, frame)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn settle(&self) -> bool {
        // The interface went down, or away; asked once, the socket forgets it.
        matches!(getsockopt(&self.socket, sockopt::SocketError), Ok(error) if error != 0)
    }

    fn dropped(&self) -> Dropped {
        self.socket.dropped()
    }
}
