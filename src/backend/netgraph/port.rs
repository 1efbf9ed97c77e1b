//! The half that carries frames. It needs nothing but its data socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::errno::Errno;

use super::socket::{Inbox, Socket};
use crate::backend::host::Host;
use crate::backend::{Backend, Dropped, OpenError, Received, Room, Sent};
use crate::net::direct::{Got, Writer, copy_out};
use crate::net::frame::{BATCH, Batch, ETHER_HEADER};
use crate::virtio::net_header::NetHeader;

/// For how long a frame room is asked at first: an Ethernet frame with a VLAN
/// tag. Longer ones are not lost, and are expected from then on.
const USUAL: usize = 1518;

/// A connection to a node of the netgraph.
pub struct Netgraph {
    name: String,
    socket: Socket,
    /// Longest frame that was seen.
    longest: AtomicUsize,
    /// Our node no longer has exactly one hook.
    astray: AtomicBool,
    host: Arc<dyn Host>,
}

impl Netgraph {
    /// Has `host`, a `NetgraphHost`, connect; `name` is for messages.
    ///
    /// # Errors
    /// Those of the host side; [`OpenError::Mismatch`] when it is none.
    pub fn open(name: &str, host: Arc<dyn Host>) -> Result<Self, OpenError> {
        Ok(Self {
            name: name.to_owned(),
            socket: Socket::new(data_socket(name, &*host)?),
            longest: AtomicUsize::new(USUAL),
            astray: AtomicBool::new(false),
            host,
        })
    }

    /// Gives the guest the next frame. `Err` says why there is none.
    fn receive_one(&self, inbox: &mut Inbox, rx: &mut dyn Room) -> Result<(), Received> {
        if let Some(frame) = &inbox.kept {
            let room = rx.room(frame.len())?;
            if copy_out(frame, room) {
                rx.finish(&NetHeader::default(), frame.len());
            } else if rx.may_grow(frame.len()) {
                return Err(Received::NoRoom);
            } else {
                rx.drop(Dropped::TooLong);
            }
            inbox.kept = None;
            return Ok(());
        }
        let room = rx.room(self.longest.load(Ordering::Relaxed))?;
        match self.socket.read(room, inbox) {
            // The end, unless somebody has sent an empty frame.
            Ok(Got::Whole(0)) if self.socket.is_hung_up() => Err(Received::Drained),
            Ok(Got::Whole(len)) if len < ETHER_HEADER => {
                rx.drop(Dropped::TooShort);
                Ok(())
            }
            Ok(Got::Whole(len)) => {
                rx.finish(&NetHeader::default(), len);
                Ok(())
            }
            Ok(Got::Spilled(frame)) => {
                self.longest.fetch_max(frame.len(), Ordering::Relaxed);
                inbox.kept = Some(frame);
                Ok(())
            }
            Ok(Got::TooLong) => {
                rx.drop(Dropped::TooLong);
                Ok(())
            }
            // The socket will say when there is more.
            Err(Errno::EAGAIN) => Err(Received::Drained),
            Err(Errno::EINTR) => Ok(()),
            Err(errno) => {
                tracing::debug!("{}: not received: {errno}", self.name);
                Err(Received::Drained)
            }
        }
    }

    /// A frame was not taken.
    fn refused(&self, errno: Errno) {
        match errno {
            // A receiver somewhere behind the hook is full.
            Errno::ENOBUFS => {}
            // Somebody has connected a further hook to our node, and has not
            // said which one frames are for (ngd_send() in ng_socket.c).
            Errno::EDESTADDRREQ | Errno::ENOTCONN => {
                self.astray.store(true, Ordering::Relaxed);
            }
            errno => tracing::debug!("{}: not sent: {errno}", self.name),
        }
    }
}

/// What the host side hands over.
fn data_socket(name: &str, host: &dyn Host) -> Result<OwnedFd, OpenError> {
    let mut fds = host.open()?.fds.into_iter();
    match (fds.next(), fds.next()) {
        (Some(data), None) => Ok(data),
        _ => Err(OpenError::Mismatch(name.to_owned())),
    }
}

impl Backend for Netgraph {
    fn features(&self) -> u64 {
        0
    }

    fn set_features(&self, _features: u64, _header_len: usize) -> io::Result<()> {
        Ok(())
    }

    fn max_pairs(&self) -> u16 {
        1
    }

    /// One call a frame: sendmmsg(3) is no system call on FreeBSD, but
    /// a loop over sendmsg(2) in libc.
    fn send(&self, _pair: usize, batch: &Batch<'_>) -> Sent {
        let mut sent = Sent::default();
        let mut writer = Writer::new();
        for frame in batch.frames() {
            match self.socket.write(batch.parts(frame), &mut writer) {
                Ok(()) => {
                    sent.frames += 1;
                    sent.bytes += u64::from(frame.len);
                }
                Err(errno) => {
                    sent.dropped += 1;
                    self.refused(errno);
                }
            }
        }
        sent
    }

    fn rx_fd(&self, pair: usize) -> Option<BorrowedFd<'_>> {
        (pair == 0).then(|| self.socket.as_fd())
    }

    fn receive(&self, pair: usize, rx: &mut dyn Room) -> Received {
        if pair != 0 {
            return Received::Drained;
        }
        // Only the pair's worker comes here.
        let mut inbox = self.socket.inbox();
        // What is dropped counts as well, so that a flood of that ends, too.
        for _ in 0..2 * BATCH {
            if let Err(received) = self.receive_one(&mut inbox, rx) {
                return received;
            }
        }
        Received::Budget
    }

    fn can_be_lost(&self) -> bool {
        true
    }

    fn is_lost(&self) -> bool {
        self.astray.load(Ordering::Relaxed) || self.socket.is_hung_up()
    }

    fn recover(&self) -> Result<(), OpenError> {
        let data = data_socket(&self.name, &*self.host)?;
        self.socket
            .replace(data.as_fd())
            .map_err(|errno| OpenError::System {
                name: self.name.clone(),
                error: errno.into(),
                cure: "it is tried again",
            })?;
        self.astray.store(false, Ordering::Relaxed);
        Ok(())
    }
}
