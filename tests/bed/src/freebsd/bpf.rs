//! Frames as the kernel sends and gets them: bpf(4).

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{self, bpf_hdr, c_int, c_uint, ifreq};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Bytes of the buffers that are asked for; the kernel gives what
/// `net.bpf.maxbufsize` allows. A longer frame arrives cut.
const BUFFER: c_uint = 1 << 20;

nix::ioctl_readwrite!(set_buffer_len, b'B', 102, c_uint);
nix::ioctl_write_ptr!(set_interface, b'B', 108, ifreq);
nix::ioctl_write_ptr!(set_immediate, b'B', 112, c_uint);
nix::ioctl_write_ptr!(set_header_complete, b'B', 117, c_uint);
nix::ioctl_write_ptr!(set_direction, b'B', 119, c_uint);
nix::ioctl_none!(set_promiscuous, b'B', 105);

/// Which frames of an interface are seen (net/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that come in on it.
    In = 0,
    /// Those, and those that go out, ours too.
    Both = 1,
    /// Those that go out.
    Out = 2,
}

/// A bpf(4) descriptor on one interface: sends frames out of it, and receives
/// what comes in on it.
#[derive(Debug)]
pub struct Bpf {
    device: File,
    buffer: Vec<u8>,
    /// What one read gave and nobody has asked for yet.
    arrived: VecDeque<Vec<u8>>,
}

impl Bpf {
    /// One on `interface` that sees every frame that comes in.
    ///
    /// # Errors
    /// There is none of that name, or this user may not.
    pub fn new(interface: &str) -> io::Result<Self> {
        Self::watching(interface, Direction::In)
    }

    /// One on `interface` that sees frames that go `direction`.
    ///
    /// # Errors
    /// As [`Bpf::new`].
    pub fn watching(interface: &str, direction: Direction) -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/bpf")?;
        let fd = device.as_raw_fd();
        // SAFETY: all zeros is a valid request.
        let mut request: ifreq = unsafe { mem::zeroed() };
        // One byte stays zero, behind the name.
        let room = request.ifr_name.len() - 1;
        if interface.len() > room {
            return Err(Errno::ENAMETOOLONG.into());
        }
        for (to, &from) in request.ifr_name.iter_mut().zip(interface.as_bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let mut len = BUFFER;
        let yes = 1;
        let direction = direction as c_uint;
        // SAFETY: each takes a pointer to what it is given, for the call alone.
        unsafe {
            set_buffer_len(fd, &raw mut len)?;
            set_interface(fd, &raw const request)?;
            set_immediate(fd, &raw const yes)?;
            set_header_complete(fd, &raw const yes)?;
            set_direction(fd, &raw const direction)?;
            set_promiscuous(fd)?;
        }
        Ok(Self {
            device,
            buffer: vec![0; usize::try_from(len).map_err(io::Error::other)?],
            arrived: VecDeque::new(),
        })
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// The kernel does not take it: EMSGSIZE when it is longer than the
    /// interface's MTU and the Ethernet header.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        nix::unistd::write(&self.device, frame)?;
        Ok(())
    }

    /// The next frame; `None` when none comes within `timeout`.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn recv(&mut self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(frame) = self.arrived.pop_front() {
                return Ok(Some(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).map_err(io::Error::other)?;
            let mut fds = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, left)? == 0 {
                return Ok(None);
            }
            self.read()?;
        }
    }

    /// Takes what there is: frames, each behind a header of its own.
    fn read(&mut self) -> io::Result<()> {
        let len = nix::unistd::read(&self.device, &mut self.buffer)?;
        let mut rest = self.buffer.get(..len).unwrap_or_default();
        while rest.len() >= mem::size_of::<bpf_hdr>() {
            // SAFETY: so many bytes are there, and any are a valid header.
            let header: bpf_hdr = unsafe { rest.as_ptr().cast::<bpf_hdr>().read_unaligned() };
            let start = usize::from(header.bh_hdrlen);
            let end = start + usize::try_from(header.bh_caplen).map_err(io::Error::other)?;
            let frame = rest.get(start..end).ok_or(ErrorKind::InvalidData)?;
            self.arrived.push_back(frame.to_vec());
            let next = end.next_multiple_of(mem::size_of::<libc::c_long>());
            rest = rest.get(next..).unwrap_or_default();
        }
        Ok(())
    }

    /// Frames that came when both buffers were full.
    ///
    /// # Errors
    /// None that an open descriptor gives.
    pub fn dropped(&self) -> io::Result<u32> {
        let mut counts = [0 as c_uint; 2];
        let fd = self.device.as_raw_fd();
        // SAFETY: struct bpf_stat is these two numbers, received and dropped.
        let got: c_int = unsafe { libc::ioctl(fd, libc::BIOCGSTATS, counts.as_mut_ptr()) };
        Errno::result(got)?;
        Ok(counts[1])
    }
}
