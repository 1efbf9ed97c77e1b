//! Linux: interfaces by AF_PACKET, their host side by a tap, and programs that
//! take the interface away from the host's stack meanwhile.
//!
//! ```text
//!            receive ring   transmit ring          host rings
//!                 ^              |                  ^    |
//!   packet(7)     |              v                  |    v
//!   socket  ------+--------------+      tap  -------+----+
//!                 |              |                  ^    |
//!              copy of       with a mark        redirect redirect
//!              every frame       |                  |    v
//!   NIC  ----> in: drop ---------|-------------- X ----> host's stack
//!        <---------------------- + <- out: -------- +---------'
//! ```
//!
//! A packet socket gets copies, so the original is dropped behind it
//! (`programs`); what the host sends to the interface is turned to the tap. The
//! interface keeps its addresses and routes, and the host never knows.
//!
//! Frames are received in the socket's ring (`TPACKET_V2`): `TPACKET_V3` makes
//! a frame wait until a block of others is full, or for milliseconds. They are
//! sent by one writev(2) each, from where they lie: the transmit ring lends its
//! pages to the kernel, which says that it is done with them while a receiver
//! on this host still reads.

mod bpf;
mod line;
mod open;
mod packet;
mod programs;
mod tap;

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::source::{Device, DeviceError, Gate, Handles, Taken};
use packet::Packet;
use tap::Tap;

pub use open::{look, open};

/// Shared memory of the kernel's, unmapped when dropped.
#[derive(Debug)]
struct Mapped {
    base: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: a mapping belongs to no thread; who uses it says how.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the first `len` bytes of `fd`.
    fn new(fd: &OwnedFd, len: usize) -> Result<Self, Errno> {
        let len = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the system's choice touches
        // no memory that this program knows.
        let base = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self {
            base: base.cast(),
            len,
        })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped; whoever uses it owns it.
        if let Err(errno) = unsafe { munmap(self.base.cast(), self.len.get()) } {
            tracing::error!("{} bytes of a ring not unmapped: {errno}", self.len);
        }
    }
}

/// What the programs are told by. Whoever drops it gives the interface back.
#[derive(Debug)]
struct Programs {
    word: Mapped,
    _links: Vec<OwnedFd>,
}

impl Gate for Programs {
    fn set(&self, taken: Taken) {
        let bits = [
            (taken.rx, programs::RX),
            (taken.tx, programs::TX),
            (taken.host, programs::HOST),
        ];
        let bits = bits.iter().filter(|(set, _)| *set);
        let word = bits.fold(0, |word, (_, bit)| word | bit);
        // SAFETY: a word at the start of a page that is mapped while `self`
        // lives, which the kernel only reads.
        let at = unsafe { self.word.base.cast::<AtomicU32>().as_ref() };
        at.store(word, Ordering::SeqCst);
    }
}

/// Makes a device of what [`open`] has opened, be it here or in the opener.
///
/// # Errors
/// When memory cannot be mapped, or it is nothing that `open` returns.
pub fn assemble(name: &str, handles: Handles) -> Result<Device, DeviceError> {
    let failed = |errno| DeviceError::new(name, errno, "restart vtnetd");
    let mut fds = handles.fds.into_iter();
    let (Some(socket), Some(tap), Some(word)) = (fds.next(), fds.next(), fds.next()) else {
        return Err(failed(Errno::EPROTO));
    };
    let [frame_size, frames, mtu] = handles.numbers[..] else {
        return Err(failed(Errno::EPROTO));
    };
    let geometry = packet::Geometry::new(frame_size, frames).ok_or(failed(Errno::EPROTO))?;
    let gate = Programs {
        word: Mapped::new(&word, 4096).map_err(failed)?,
        _links: fds.collect(),
    };
    Ok(Device {
        nic: Arc::new(Packet::new(name, socket, geometry).map_err(failed)?),
        host: Arc::new(Tap::new(name, tap)),
        gate: Box::new(gate),
        mtu: u32::try_from(mtu).unwrap_or(u32::MAX),
    })
}
