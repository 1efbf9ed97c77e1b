//! Frames as the kernel sends and gets them.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// All protocols (linux/if_ether.h).
const ETH_P_ALL: u16 = 3;
/// Bytes of the longest frame with its header.
const LONGEST: usize = 1 << 17;

/// A packet(7) socket on one interface: sends frames out of it, and receives
/// what comes in on it.
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// One on `interface` of the namespace that the caller is in.
    ///
    /// # Errors
    /// There is none of that name, or this user may not.
    pub fn new(interface: &str) -> io::Result<Self> {
        let socket = Self::both_ways(interface)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        Ok(socket)
    }

    /// One that also receives what others send out of the interface.
    ///
    /// # Errors
    /// As [`PacketSocket::new`].
    pub fn both_ways(interface: &str) -> io::Result<Self> {
        let kind = (AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let socket = Self(socket(kind.0, kind.1, kind.2, SockProtocol::EthAll)?);
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20)?;
        socket.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 64 << 20)?;
        let index = if_nametoindex(interface)?;
        // SAFETY: all zeros is a valid address.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = number(libc::AF_PACKET)?;
        address.sll_protocol = ETH_P_ALL.to_be();
        address.sll_ifindex = number(index)?;
        let len = number(mem::size_of_val(&address))?;
        // SAFETY: the address is a whole sockaddr_ll.
        let bound = unsafe { libc::bind(socket.0.as_raw_fd(), (&raw const address).cast(), len) };
        Errno::result(bound)?;
        Ok(socket)
    }

    /// One on `interface` whose frames go behind a virtio-net header of 10
    /// bytes.
    ///
    /// # Errors
    /// As [`PacketSocket::new`].
    pub fn with_headers(interface: &str) -> io::Result<Self> {
        let socket = Self::new(interface)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        Ok(socket)
    }

    fn set(&self, level: i32, option: i32, value: i32) -> io::Result<()> {
        let len = number(mem::size_of_val(&value))?;
        let fd = self.0.as_raw_fd();
        // SAFETY: the value is a whole int.
        let set = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) };
        Errno::result(set)?;
        Ok(())
    }

    /// Sends a frame, behind its header where there are any.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        nix::unistd::write(&self.0, frame)?;
        Ok(())
    }

    /// The next frame; `None` when none comes within `timeout`.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn recv(&self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        let timeout = PollTimeout::try_from(timeout).map_err(io::Error::other)?;
        loop {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, timeout)? == 0 {
                return Ok(None);
            }
            let mut frame = vec![0; LONGEST];
            match nix::unistd::read(&self.0, &mut frame) {
                Ok(len) => {
                    frame.truncate(len);
                    return Ok(Some(frame));
                }
                // What poll saw was the interface going down; it may come up.
                Err(Errno::ENETDOWN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// A number as a system call has it.
fn number<T, F: TryInto<T>>(number: F) -> io::Result<T> {
    number.try_into().map_err(|_| Errno::EOVERFLOW.into())
}
