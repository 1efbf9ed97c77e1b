//! Control requests: what names a port. For the privileged process.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::netmap::port::HeaderLen;
use crate::netmap::register::{Request, RingMode};
use crate::{c_text, ffi};

/// The path of the device.
pub const PATH: &str = "/dev/netmap";

/// An open `/dev/netmap`, for control requests, and to be bound to one port.
#[derive(Debug)]
pub struct Device(OwnedFd);

/// What a registration was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Where the `netmap_if` lies, in bytes from the start of the memory.
    pub offset: u64,
    /// Bytes of the memory.
    pub memory: u64,
    /// Transmit rings of the port, its host rings not counted.
    pub tx_rings: u16,
    /// Receive rings likewise.
    pub rx_rings: u16,
    /// Transmit rings to the host's stack.
    pub host_tx_rings: u16,
    /// Receive rings from the host's stack.
    pub host_rx_rings: u16,
}

impl Device {
    /// Opens the device.
    ///
    /// # Errors
    /// Those of open(2): `NotFound` in a kernel without netmap,
    /// `PermissionDenied`.
    pub fn open() -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(PATH)?;
        Ok(Self(file.into()))
    }

    /// Binds the rings of `request` (`NETMAP_REQ_REGISTER`). Polling will send
    /// nothing by itself, and virtio-net headers are accepted.
    ///
    /// # Errors
    /// The kernel's: `ENXIO` when there is no such interface, `EBUSY` when
    /// others have the rings or the interface is on a switch, `EINVAL` when it
    /// does not go together, `ENOMEM`.
    pub fn register(&self, request: &Request) -> io::Result<Registered> {
        let (mode, ring) = match request.mode {
            RingMode::All => (ffi::NR_REG_ALL_NIC, 0),
            RingMode::Host => (ffi::NR_REG_SW, 0),
            RingMode::AllAndHost => (ffi::NR_REG_NIC_SW, 0),
            RingMode::One(ring) => (ffi::NR_REG_ONE_NIC, ring),
            RingMode::OneHost(ring) => (ffi::NR_REG_ONE_SW, ring),
            RingMode::Null => (ffi::NR_REG_NULL, 0),
            RingMode::Other(mode) => (mode, 0),
        };
        let mut body = ffi::nmreq_register {
            nr_mode: mode,
            nr_ringid: ring,
            nr_flags: request.flags
                | u64::from(ffi::NR_ACCEPT_VNET_HDR)
                | u64::from(ffi::NR_NO_TX_POLL),
            nr_tx_rings: request.tx_rings,
            nr_rx_rings: request.rx_rings,
            nr_tx_slots: request.tx_slots,
            nr_rx_slots: request.rx_slots,
            nr_mem_id: request.mem_id,
            nr_extra_bufs: request.extra_bufs,
            ..Default::default()
        };
        self.control(&request.name, ffi::NETMAP_REQ_REGISTER, &mut body)?;
        Ok(Registered {
            offset: body.nr_offset,
            memory: body.nr_memsize,
            tx_rings: body.nr_tx_rings,
            rx_rings: body.nr_rx_rings,
            host_tx_rings: body.nr_host_tx_rings,
            host_rx_rings: body.nr_host_rx_rings,
        })
    }

    /// What is in front of every frame of port `name`
    /// (`NETMAP_REQ_PORT_HDR_GET`).
    ///
    /// # Errors
    /// `ENXIO` when there is no such port; `InvalidData` for a length that no
    /// virtio-net header has.
    pub fn header_len(&self, name: &str) -> io::Result<HeaderLen> {
        let mut body = ffi::nmreq_port_hdr::default();
        self.control(name, ffi::NETMAP_REQ_PORT_HDR_GET, &mut body)?;
        HeaderLen::try_from(body.nr_hdr_len)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Puts something else in front of every frame of port `name`
    /// (`NETMAP_REQ_PORT_HDR_SET`).
    ///
    /// # Errors
    /// `ENXIO` when there is no such port, or it is no switch's.
    pub fn set_header_len(&self, name: &str, len: HeaderLen) -> io::Result<()> {
        let mut body = ffi::nmreq_port_hdr {
            nr_hdr_len: u32::try_from(len.bytes()).unwrap_or_default(),
            ..Default::default()
        };
        self.control(name, ffi::NETMAP_REQ_PORT_HDR_SET, &mut body)
    }

    /// One control request, whose body is the structure that `kind` goes with.
    fn control<T: Body>(&self, name: &str, kind: u32, body: &mut T) -> io::Result<()> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let mut header = ffi::nmreq_header {
            nr_version: u16::try_from(ffi::NETMAP_API).map_err(|_| invalid())?,
            nr_reqtype: u16::try_from(kind).map_err(|_| invalid())?,
            nr_body: std::ptr::from_mut(body) as u64,
            ..Default::default()
        };
        c_text::put(&mut header.nr_name, name)?;
        // SAFETY: the request is a header whose body, which `T` says is that of
        // a request, is writable and outlives the call.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), ffi::NIOCCTRL, &raw mut header) };
        if done == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// A body of a control request: plain numbers, any of which the kernel may
/// write.
trait Body {}
impl Body for ffi::nmreq_register {}
impl Body for ffi::nmreq_port_hdr {}

/// The descriptor, once it is bound.
impl From<Device> for OwnedFd {
    fn from(device: Device) -> Self {
        device.0
    }
}
