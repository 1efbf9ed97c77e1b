//! A loop from its start to its end, between who allows it and who runs it.
//!
//! The service makes a pair of sockets for each loop. One end goes to the
//! thread that asked for it, with all that it needs to know as the first
//! message. When the service has shut down its own end, the loop is to end;
//! when the loop's is shut down, or nobody has it any more, it has ended.

use std::io::IoSlice;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, sendmsg, shutdown, socketpair,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::netmap::abi::NETMAP_REQ_MAXSIZE;
use crate::netmap::abi::option::{
    EventDescriptors, NM_OPT_SYNC_KLOOP_DIRECT_RX, NM_OPT_SYNC_KLOOP_DIRECT_TX,
};
use crate::netmap::port::Direction;

/// What a loop is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// The rings, and how to sleep.
    pub plan: Plan,
    /// Descriptors for each ring, or none.
    pub events: Vec<EventDescriptors>,
}

impl Job {
    /// The client wakes the loop, for every ring.
    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty() && self.events.iter().all(|events| events.ioeventfd >= 0)
    }
}

/// The rings of a loop, and how to sleep.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Plan {
    /// Where the client has an `nm_csb_atok` for each ring.
    pub atok: u64,
    /// Where it has an `nm_csb_ktoa` for each ring.
    pub ktoa: u64,
    /// Bound transmit rings.
    pub tx_rings: u32,
    /// Bound receive rings.
    pub rx_rings: u32,
    /// Slots of each transmit ring.
    pub tx_slots: u32,
    /// Slots of each receive ring.
    pub rx_slots: u32,
    /// How long to sleep between two looks, in microseconds, where events do
    /// not tell.
    pub sleep_us: u32,
    /// `NM_OPT_SYNC_KLOOP_DIRECT_`.
    pub mode: u32,
}

impl Plan {
    /// Rings of one direction.
    pub fn rings(&self, direction: Direction) -> u32 {
        match direction {
            Direction::Tx => self.tx_rings,
            Direction::Rx => self.rx_rings,
        }
    }

    /// Slots of each of them.
    pub fn slots(&self, direction: Direction) -> u32 {
        match direction {
            Direction::Tx => self.tx_slots,
            Direction::Rx => self.rx_slots,
        }
    }

    /// Rings of this direction are synced when the client says so alone.
    pub fn is_direct(&self, direction: Direction) -> bool {
        let flag = match direction {
            Direction::Tx => NM_OPT_SYNC_KLOOP_DIRECT_TX,
            Direction::Rx => NM_OPT_SYNC_KLOOP_DIRECT_RX,
        };
        self.mode & flag != 0
    }
}

/// Largest first message: the option with the descriptors is part of a request.
const MESSAGE: usize = size_of::<Plan>() + NETMAP_REQ_MAXSIZE;

/// The service's end of a loop.
#[derive(Debug)]
pub struct Handle(OwnedFd);

impl Handle {
    /// A loop that is not run by anybody yet, and the descriptor that
    /// [`Running::new`] takes.
    ///
    /// # Errors
    /// Those of socketpair(2).
    pub fn new(job: &Job) -> Result<(Self, OwnedFd), Errno> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let parts = [
            IoSlice::new(job.plan.as_bytes()),
            IoSlice::new(job.events.as_bytes()),
        ];
        let flags = MsgFlags::MSG_EOR | MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(ours.as_raw_fd(), &parts, &[], flags, None)?;
        Ok((Self(ours), theirs))
    }

    /// Nobody has said that it has ended.
    pub fn is_running(&self) -> bool {
        // The loop sends nothing: what can be read is the end.
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0) | Err(Errno::EINTR))
    }

    /// Lets the loop end. Returns a descriptor that [`wait`] takes.
    ///
    /// # Errors
    /// No descriptors are left; the loop ends nevertheless.
    pub fn stop(&self) -> Result<OwnedFd, Errno> {
        // It may have ended by itself.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
        let end = self.0.try_clone();
        end.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    }
}

/// Waits until a loop has ended that was stopped.
///
/// # Errors
/// Those of poll(2); signals end nothing.
pub fn wait(end: BorrowedFd<'_>) -> Result<(), Errno> {
    loop {
        let mut fds = [PollFd::new(end, PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            ended => return ended.map(drop),
        }
    }
}

/// The other end: the loop has ended when this is dropped, and those who stopped
/// it go on.
#[derive(Debug)]
pub struct Running {
    socket: OwnedFd,
    job: Job,
}

impl Running {
    /// What came with the answer to a request that starts a loop.
    ///
    /// # Errors
    /// `EPROTO`: it is something else.
    pub fn new(socket: OwnedFd) -> Result<Self, Errno> {
        let mut room = [0; MESSAGE];
        let len = recv(socket.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT)?;
        let job = room.get(..len).and_then(decode).ok_or(Errno::EPROTO)?;
        Ok(Self { socket, job })
    }

    /// What is to be done.
    pub fn job(&self) -> &Job {
        &self.job
    }
}

fn decode(bytes: &[u8]) -> Option<Job> {
    let (plan, rest) = Plan::read_from_prefix(bytes).ok()?;
    let entries = rest.chunks(size_of::<EventDescriptors>());
    let events = entries.map(|entry| EventDescriptors::read_from_bytes(entry).ok());
    Some(Job {
        plan,
        events: events.collect::<Option<_>>()?,
    })
}

/// Becomes readable when the loop is to end.
impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A child may have the descriptor too.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }
}
