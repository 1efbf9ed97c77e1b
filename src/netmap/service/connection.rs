//! One connection, which is one open descriptor of a client, and its channels.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::SockType;

use super::client::{Channel, Client, Event};
use super::memory::SegmentMemory;
use super::strays::Foreign;
use super::wire::page::{PAGE, Service as Page};
use super::wire::socket::send_message;
use super::wire::{Answer, Request, Segment, VERSION, WireError};
use crate::netmap::abi::nmreq::{NIOCRXSYNC, NIOCTXSYNC};
use crate::netmap::authority::{Account, Charge};
use crate::netmap::ctrl::Control;
use crate::netmap::mem::Region;
use crate::sandbox::{Role, limit};
use crate::socket::is_unix;
use crate::worker::{Occupant, Seat, Workers};

/// Why a connection or a channel ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The client has closed it.
    #[error("closed")]
    Closed,
    /// The system refused, or the client does not read its answers.
    #[error("{0}")]
    System(#[from] Errno),
    /// No message of the protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A request that does not belong there.
    #[error("a request in the wrong place")]
    Misplaced,
    /// What its user has sent before is not closed yet.
    #[error("descriptors that its user has sent cannot be closed; end what serves their files")]
    Strays,
    /// The descriptors of a channel are none.
    #[error("a channel is two Unix sockets, SOCK_SEQPACKET and SOCK_STREAM")]
    NotSockets,
}

/// One connection.
pub(super) struct Connection {
    socket: Foreign,
    client: Arc<Client>,
    seat: Seat,
    /// The worker watches what is bound.
    watched: bool,
    /// Tokens of its channels.
    pub channels: Vec<u64>,
    account: Arc<Account>,
}

/// A channel, as the control thread sees it.
pub(super) struct Line {
    socket: Foreign,
    channel: Arc<Channel>,
    /// Token of its connection.
    pub connection: u64,
    account: Arc<Account>,
}

impl Line {
    /// On whose account it is.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The two ends of a new channel that a client has sent.
pub(super) struct Ends {
    socket: Foreign,
    bell: Foreign,
}

impl Ends {
    /// Takes the descriptors of a request to attach. Others than sockets could
    /// block whoever uses them.
    ///
    /// # Errors
    /// They are not what a channel has.
    pub(super) fn new(descriptors: Vec<Foreign>) -> Result<Self, End> {
        let ends: Result<[Foreign; 2], _> = descriptors.try_into();
        let [socket, bell] = ends.map_err(|_| End::NotSockets)?;
        for (end, kind) in [(&socket, SockType::SeqPacket), (&bell, SockType::Stream)] {
            if !is_unix(end.as_fd(), kind)? {
                return Err(End::NotSockets);
            }
            limit(end, Role::Connection).map_err(errno)?;
        }
        Ok(Self { socket, bell })
    }

    /// Tells the client that there is no channel for it.
    pub(super) fn refuse(&self, errno: Errno) {
        // Who does not read it will not hear anything else either.
        let _ = answer(self.socket.as_fd(), &Answer::failed(errno), None);
    }
}

impl Connection {
    pub(super) fn new(
        socket: Foreign,
        control: Control,
        workers: &Workers,
        account: Arc<Account>,
    ) -> Self {
        let client = Arc::new(Client::new(control));
        Self {
            seat: workers.seat(Occupant::Client(Arc::clone(&client))),
            socket,
            client,
            watched: false,
            channels: Vec::new(),
            account,
        }
    }

    /// On whose account it is.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Makes a channel of what the client has sent. The connection's token is
    /// `token`.
    ///
    /// # Errors
    /// The client was told, too, if it can be.
    pub(super) fn attach(&self, ends: Ends, token: u64, charge: Charge) -> Result<Line, End> {
        let (page, fd) = Page::new().inspect_err(|errno| ends.refuse(*errno))?;
        limit(&fd, Role::Memory).map_err(errno)?;
        // It is there until both are closed.
        let charge = Some(Arc::new(charge));
        let [socket, bell] = [ends.socket, ends.bell].map(|end| end.on(charge.clone()));
        let line = Line {
            socket,
            channel: Arc::new(Channel::new(page, bell)),
            connection: token,
            account: Arc::clone(&self.account),
        };
        let bell = line.channel.bell();
        let watched = self.seat.watch(bell, Event::Bell);
        watched.map_err(errno)?;
        self.client.add(&line.channel);
        let welcome = Answer {
            value: PAGE as u64,
            ..Answer::default()
        };
        if let Err(end) = answer(line.socket.as_fd(), &welcome, Some(fd.as_fd())) {
            self.detach(&line);
            return Err(end);
        }
        Ok(line)
    }

    /// Forgets a channel.
    pub(super) fn detach(&self, line: &Line) {
        self.client.remove(&line.channel);
        self.seat.unwatch(line.channel.bell());
    }

    /// Works on a request that came on a channel, with a descriptor, if one
    /// came along.
    ///
    /// # Errors
    /// Why the channel is to be closed.
    pub(super) fn serve(
        &mut self,
        line: &Line,
        request: Request,
        object: Option<OwnedFd>,
    ) -> Result<(), End> {
        let socket = line.socket.as_fd();
        match request {
            Request::Attach { .. } => Err(End::Misplaced),
            Request::Ioctl {
                command: NIOCTXSYNC | NIOCRXSYNC,
                ..
            } => answer(socket, &Answer::failed(Errno::EOPNOTSUPP), None),
            Request::Ioctl {
                command,
                argument,
                segments,
            } => {
                if let Some(object) = &object {
                    limit(object, Role::Memory).map_err(errno)?;
                }
                let mut memory = SegmentMemory::new(segments).with_object(object);
                let control = self.client.control();
                let done = control.ioctl(command, argument, &mut memory);
                self.watch_binding();
                let handed = memory.take_handed();
                let done = Answer {
                    errno: done.map_or_else(super::number, |()| 0),
                    value: 0,
                    writes: memory.into_writes(),
                };
                let handed = handed.as_ref().map(AsFd::as_fd);
                answer(socket, &done, handed)
            }
            Request::Map => match self.client.control().registration() {
                Some(registration) => hand_over(socket, registration.region(), Vec::new()),
                None => answer(socket, &Answer::failed(Errno::ENXIO), None),
            },
            Request::Borrow => {
                let registration = self.client.control().registration();
                let terms = registration.and_then(|registration| {
                    let terms = registration.terms(line.channel.number())?.encode();
                    Some((registration.region(), terms))
                });
                let Some((region, terms)) = terms else {
                    return answer(socket, &Answer::failed(Errno::EOPNOTSUPP), None);
                };
                let terms = Segment {
                    address: 0,
                    len: u32::try_from(terms.len()).unwrap_or(u32::MAX),
                    data: terms,
                };
                hand_over(socket, region, vec![terms])
            }
        }
    }

    /// Has the worker hear when what is bound gets frames, or room.
    fn watch_binding(&mut self) {
        if self.watched {
            return;
        }
        if let Some(registration) = self.client.control().registration() {
            self.watched = true;
            let waker = registration.listener().waker();
            if let Err(error) = self.seat.watch(waker.as_fd(), Event::Ready) {
                tracing::error!("netmap client: wake-ups: {error}");
            }
        }
    }

    /// Its client, for whoever waits until the worker has let go of it; nothing
    /// is watched any more.
    pub(super) fn into_client(self) -> Arc<Client> {
        let registration = self.client.control().registration();
        if let Some(registration) = registration.filter(|_| self.watched) {
            self.seat.unwatch(registration.listener().waker().as_fd());
        }
        self.client
    }
}

impl Answer {
    fn failed(errno: Errno) -> Self {
        Self {
            errno: super::number(errno),
            ..Self::default()
        }
    }
}

fn answer(
    socket: BorrowedFd<'_>,
    answer: &Answer,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(), End> {
    let bytes = answer.encode()?;
    send_message(socket, &bytes, descriptor.as_slice())?;
    Ok(())
}

/// Gives the client a region, and what else there is to say.
fn hand_over(socket: BorrowedFd<'_>, region: &Region, writes: Vec<Segment>) -> Result<(), End> {
    // A copy, so that rights can be taken from it.
    let fd = region.fd().try_clone_to_owned();
    let fd = fd.and_then(|fd| limit(&fd, Role::Memory).map(|()| fd));
    match fd {
        Ok(fd) => {
            let mapped = Answer {
                value: region.bytes(),
                writes,
                ..Answer::default()
            };
            answer(socket, &mapped, Some(fd.as_fd()))
        }
        Err(error) => answer(socket, &Answer::failed(errno(error)), None),
    }
}

/// Tells whoever has connected that nothing will come of it.
pub(super) fn turn_away(socket: BorrowedFd<'_>, errno: Errno) {
    // As with `Ends::refuse`.
    let _ = answer(socket, &Answer::failed(errno), None);
}

/// The version of a client, if it may have a channel.
///
/// # Errors
/// `EPROTONOSUPPORT`.
pub(super) fn check_version(version: u32) -> Result<(), Errno> {
    if version == VERSION {
        Ok(())
    } else {
        Err(Errno::EPROTONOSUPPORT)
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
