//! A netmap program's own view: a descriptor of `/dev/netmap` and the rings
//! behind it, through nothing but the C library.

use std::ffi::{c_int, c_void};
use std::io::{Error, Result};
use std::mem::offset_of;
use std::ptr;

use vtnetd::netmap::abi::nmreq::{
    NETMAP_REQ_REGISTER, NIOCCTRL, NIOCTXSYNC, NR_REG_ALL_NIC, RegisterBody, RequestHeader,
};
use vtnetd::netmap::abi::{Interface, NETMAP_API, Ring, Slot};
use zerocopy::FromZeros;

/// open(2) of the device.
pub fn open() -> Result<c_int> {
    // SAFETY: a C string.
    let fd = unsafe { libc::open(c"/dev/netmap".as_ptr(), libc::O_RDWR) };
    result(fd)
}

/// What a call returned, or what errno says.
pub fn result(returned: c_int) -> Result<c_int> {
    match returned {
        -1 => Err(Error::last_os_error()),
        value => Ok(value),
    }
}

/// The errno of a call that was to fail.
pub fn errno<T: std::fmt::Debug>(result: Result<T>) -> c_int {
    result.unwrap_err().raw_os_error().unwrap()
}

/// ioctl(2) with an address.
pub fn ioctl(fd: c_int, command: u64, argument: *mut c_void) -> Result<c_int> {
    // SAFETY: the callee finds out what is there.
    result(unsafe { libc::ioctl(fd, command, argument) })
}

/// A header for a request on `name` whose body is at `body`.
pub fn header<T>(kind: u16, name: &str, body: &mut T) -> RequestHeader {
    let mut header = RequestHeader::new_zeroed();
    header.nr_version = NETMAP_API;
    header.nr_reqtype = kind;
    header.nr_name[..name.len()].copy_from_slice(name.as_bytes());
    header.nr_body = ptr::from_mut(body) as u64;
    header
}

/// `NIOCCTRL`.
pub fn ask<T>(fd: c_int, kind: u16, name: &str, body: &mut T) -> Result<RequestHeader> {
    let mut header = header(kind, name, body);
    ioctl(fd, NIOCCTRL, ptr::from_mut(&mut header).cast())?;
    Ok(header)
}

/// Binds `name`.
pub fn register(fd: c_int, name: &str, flags: u64) -> Result<RegisterBody> {
    let mut body = RegisterBody {
        nr_mode: NR_REG_ALL_NIC,
        nr_flags: flags,
        ..RegisterBody::default()
    };
    ask(fd, NETMAP_REQ_REGISTER, name, &mut body)?;
    Ok(body)
}

/// mmap(2) of the whole region.
pub fn map(fd: c_int, bytes: u64) -> Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let bytes = usize::try_from(bytes).unwrap();
    // SAFETY: a new mapping at an address of the system's choice.
    let at = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, 0) };
    if at == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    Ok(at.cast())
}

/// An open port, closed when dropped.
pub struct Port {
    pub fd: c_int,
    memory: *mut u8,
    body: RegisterBody,
}

impl Port {
    pub fn open(name: &str) -> Self {
        Self::with(name, 0).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn with(name: &str, flags: u64) -> Result<Self> {
        let fd = open()?;
        let bound = register(fd, name, flags).and_then(|body| Self::new(fd, body));
        if bound.is_err() {
            // SAFETY: ours.
            unsafe { libc::close(fd) };
        }
        bound
    }

    /// One that was bound as `body` says, by whomever.
    pub fn new(fd: c_int, body: RegisterBody) -> Result<Self> {
        let memory = map(fd, body.nr_memsize)?;
        Ok(Self { fd, memory, body })
    }

    /// Gives the descriptor to somebody else, and keeps the memory.
    pub fn body(&self) -> RegisterBody {
        self.body
    }

    fn at<T>(&self, offset: u64) -> *mut T {
        assert!(offset < self.body.nr_memsize);
        self.memory
            .wrapping_add(usize::try_from(offset).unwrap())
            .cast()
    }

    /// Ring 0 of the transmit rings, or of the receive rings.
    fn ring(&self, rx: bool) -> Rings {
        let interface: *mut Interface = self.at(self.body.nr_offset);
        // SAFETY: inside of the region that the service has laid out.
        let nth = unsafe {
            let host = (*interface).ni_host_tx_rings;
            if rx {
                (*interface).ni_tx_rings + host
            } else {
                0
            }
        };
        let offsets = self.body.nr_offset + size_of::<Interface>() as u64;
        let offset: *mut i64 = self.at(offsets + u64::from(nth) * 8);
        // SAFETY: as above.
        let offset = unsafe { offset.read_volatile() };
        Rings(self.at(self.body.nr_offset.wrapping_add_signed(offset)))
    }

    /// Puts a frame into the transmit ring; `false`: it has no room.
    pub fn put(&self, frame: &[u8]) -> bool {
        let ring = self.ring(false);
        let head = ring.get(offset_of!(Ring, head));
        if head == ring.get(offset_of!(Ring, tail)) {
            return false;
        }
        let (slot, buffer) = ring.slot(head);
        // SAFETY: a slot of ours, and a buffer of 2048 bytes.
        unsafe {
            buffer.copy_from_nonoverlapping(frame.as_ptr(), frame.len());
            (*slot).len = u16::try_from(frame.len()).unwrap();
            (*slot).flags = 0;
        }
        ring.advance(head);
        true
    }

    /// Takes a frame out of the receive ring.
    pub fn take(&self) -> Option<Vec<u8>> {
        let ring = self.ring(true);
        let head = ring.get(offset_of!(Ring, head));
        if head == ring.get(offset_of!(Ring, tail)) {
            return None;
        }
        let (slot, buffer) = ring.slot(head);
        // SAFETY: a slot of ours, and its buffer.
        let frame = unsafe {
            let len = usize::from((*slot).len);
            std::slice::from_raw_parts(buffer, len).to_vec()
        };
        ring.advance(head);
        Some(frame)
    }

    /// `NIOCTXSYNC`.
    pub fn txsync(&self) {
        ioctl(self.fd, NIOCTXSYNC, ptr::null_mut()).unwrap();
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) {
        assert!(self.put(frame));
        self.txsync();
    }

    /// Waits in poll(2), without end, and takes a frame.
    pub fn receive(&self) -> Vec<u8> {
        loop {
            if let Some(frame) = self.take() {
                return frame;
            }
            assert_eq!(poll(self.fd, libc::POLLIN, -1).unwrap(), libc::POLLIN);
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // SAFETY: what `new` mapped, and a descriptor of ours.
        unsafe {
            let bytes = usize::try_from(self.body.nr_memsize).unwrap();
            libc::munmap(self.memory.cast(), bytes);
            libc::close(self.fd);
        }
    }
}

/// One ring in shared memory.
struct Rings(*mut Ring);

impl Rings {
    fn field(&self, at: usize) -> *mut u32 {
        self.0.cast::<u8>().wrapping_add(at).cast()
    }

    fn get(&self, at: usize) -> u32 {
        // SAFETY: a field of the ring.
        unsafe { self.field(at).read_volatile() }
    }

    fn slot(&self, at: u32) -> (*mut Slot, *mut u8) {
        // SAFETY: fields of the ring, which the service has written.
        unsafe {
            let slot = self.0.add(1).cast::<Slot>().add(at as usize);
            let size = self.get(offset_of!(Ring, nr_buf_size));
            let first = usize::try_from((*self.0).buf_ofs).unwrap();
            let buffer = first + (*slot).buf_idx as usize * size as usize;
            (slot, self.0.cast::<u8>().wrapping_add(buffer))
        }
    }

    fn advance(&self, from: u32) {
        let next = (from + 1) % self.get(offset_of!(Ring, num_slots));
        // SAFETY: as above.
        unsafe {
            self.field(offset_of!(Ring, cur)).write_volatile(next);
            self.field(offset_of!(Ring, head)).write_volatile(next);
        }
    }
}

/// poll(2) of one descriptor; what there is.
pub fn poll(fd: c_int, events: i16, timeout: c_int) -> Result<i16> {
    let mut one = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one structure.
    let ready = result(unsafe { libc::poll(&mut one, 1, timeout) })?;
    assert_eq!(ready, c_int::from(one.revents != 0));
    Ok(one.revents)
}
