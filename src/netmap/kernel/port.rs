//! A registered descriptor as a port.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{MapError, Memory};
use crate::ffi;
use crate::netmap::mem::{RingParts, RingView};
use crate::netmap::port::{Direction, HeaderLen, Port};

/// Who may change what is in front of a port's frames: the privileged process.
pub trait HeaderControl: Send + Sync {
    /// `PORT_HDR_SET` for the port that this is about.
    ///
    /// # Errors
    /// The port cannot, or is gone.
    fn set_header_len(&self, len: HeaderLen) -> io::Result<()>;
}

/// What is in front of the frames of a port; shared by all of its descriptors.
pub struct Header {
    len: AtomicUsize,
    control: Box<dyn HeaderControl>,
}

impl Header {
    /// `len` for now, to be changed by `control`.
    pub fn new(len: HeaderLen, control: Box<dyn HeaderControl>) -> Arc<Self> {
        Arc::new(Self {
            len: AtomicUsize::new(len.bytes()),
            control,
        })
    }
}

/// One descriptor of a port of `/dev/netmap`, with the rings it is bound to.
pub struct KernelPort {
    name: String,
    fd: OwnedFd,
    tx: Vec<RingParts>,
    rx: Vec<RingParts>,
    header: Arc<Header>,
    /// Where the rings are.
    _memory: Arc<Memory>,
}

// SAFETY: the addresses of the rings are in `_memory`, which lives as long and
// can be used from any thread.
unsafe impl Send for KernelPort {}
// SAFETY: as above.
unsafe impl Sync for KernelPort {}

/// Where the rings of a descriptor are, as its registration was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the `netmap_if`, in bytes from the start of the memory.
    pub offset: u64,
    /// Transmit rings of the port, bound or not, host rings included.
    pub tx_rings: usize,
    /// Receive rings likewise.
    pub rx_rings: usize,
}

impl KernelPort {
    /// The port `name` from its descriptor `fd`, bound to the rings at `place`
    /// in `memory`.
    ///
    /// # Errors
    /// [`MapError::Layout`].
    pub fn new(
        name: &str,
        fd: OwnedFd,
        memory: Arc<Memory>,
        place: Place,
        header: Arc<Header>,
    ) -> Result<Self, MapError> {
        let [tx, rx] = memory.rings(place.offset, place.tx_rings, place.rx_rings)?;
        Ok(Self {
            name: name.to_owned(),
            fd,
            tx,
            rx,
            header,
            _memory: memory,
        })
    }

    fn rings(&self, direction: Direction) -> &[RingParts] {
        match direction {
            Direction::Tx => &self.tx,
            Direction::Rx => &self.rx,
        }
    }

    /// `NIOCTXSYNC` or `NIOCRXSYNC`.
    fn sync(&self, request: libc::c_ulong) -> io::Result<()> {
        // SAFETY: neither request has an argument.
        if unsafe { libc::ioctl(self.fd.as_raw_fd(), request) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Port for KernelPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn ring_count(&self, direction: Direction) -> usize {
        self.rings(direction).len()
    }

    fn ring(&self, direction: Direction, index: usize) -> Option<RingView<'_>> {
        let parts = self.rings(direction).get(index)?;
        // SAFETY: they were found to lie in the memory, which stays mapped for
        // as long as this is borrowed.
        Some(unsafe { RingView::new(*parts) })
    }

    fn txsync(&self) -> io::Result<()> {
        self.sync(ffi::NIOCTXSYNC)
    }

    fn rxsync(&self) -> io::Result<()> {
        self.sync(ffi::NIOCRXSYNC)
    }

    fn header_len(&self) -> io::Result<HeaderLen> {
        let bytes = self.header.len.load(Ordering::Relaxed);
        HeaderLen::try_from(u32::try_from(bytes).unwrap_or(u32::MAX))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn set_header_len(&self, len: HeaderLen) -> io::Result<()> {
        self.header.control.set_header_len(len)?;
        self.header.len.store(len.bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The kernel tells of every frame that a sync has not seen, so there is
    /// nothing to arm.
    fn listen(&self) -> io::Result<bool> {
        self.rxsync()?;
        let mut rings = (0..self.rx.len()).filter_map(|at| self.ring(Direction::Rx, at));
        Ok(rings.any(|ring| ring.available() > 0))
    }
}
