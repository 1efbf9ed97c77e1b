//! The service itself: connections that come and go, and their requests. All of
//! it runs in the control thread, and none of it waits for a client.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{SockFlag, accept4};
use nix::unistd::geteuid;

use super::client::Client;
use super::connection::{Connection, End, Ends, Line, check_version, turn_away};
use super::memory::is_object;
use super::peer::peer;
use super::rules::Rules;
use super::strays::{Foreign, Strays};
use super::wire::socket::receive_from_anyone;
use super::wire::{CHANNELS, DESCRIPTORS_MAX, MESSAGE_MAX, Request};
use crate::event::{Events, Interest, Poller};
use crate::netmap::authority::{Account, Resource};
use crate::netmap::ctrl::Control;
use crate::netmap::register::Netmap;
use crate::sandbox::{Role, limit};
use crate::worker::Workers;

/// How long to accept nobody when there are no descriptors left.
const REST: Duration = Duration::from_secs(1);
/// How soon to look again whether a worker has let go of a client.
const REAP: Duration = Duration::from_millis(2);
/// How long requests wait for workers to let go of clients that are gone.
const PATIENCE: Duration = Duration::from_millis(50);
/// Most connections accepted in one go.
const ACCEPTS: u32 = 16;
/// Token of the listening socket; the others count on from it and are not used
/// again.
const LISTENER: u64 = 0;

/// Who comes under a token.
enum Entry {
    Connection(Connection),
    Channel(Line),
}

impl AsFd for Entry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Connection(connection) => connection.as_fd(),
            Self::Channel(line) => line.as_fd(),
        }
    }
}

/// The service. Whoever runs it calls [`turn`](Self::turn) while its descriptor
/// is readable, and at the [`deadline`](Self::deadline).
pub struct Service {
    core: Arc<Netmap>,
    workers: Arc<Workers>,
    strays: Strays,
    listener: OwnedFd,
    rules: Rules,
    poller: Poller,
    events: Events,
    entries: HashMap<u64, Entry>,
    next: u64,
    /// When to accept again.
    retry: Option<Instant>,
    /// Clients that are gone, until their workers know.
    gone: Vec<Arc<Client>>,
    /// Since when requests wait for that.
    held: Option<Instant>,
    room: Vec<u8>,
}

/// Readable while somebody wants something.
impl AsFd for Service {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

impl Service {
    /// Lets those who connect to `listener` use ports of `core`; `workers` do
    /// their syncs, and `strays` closes what is theirs.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn new(
        core: Arc<Netmap>,
        workers: Arc<Workers>,
        strays: Strays,
        listener: OwnedFd,
        rules: Rules,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(listener.as_fd(), LISTENER, Interest::READ)?;
        Ok(Self {
            core,
            workers,
            strays,
            listener,
            rules: rules.of(geteuid().as_raw()),
            poller,
            events: Events::new(),
            entries: HashMap::new(),
            next: LISTENER + 1,
            retry: None,
            gone: Vec::new(),
            held: None,
            room: vec![0; MESSAGE_MAX],
        })
    }

    /// When [`turn`](Self::turn) has something to do, whoever comes or not.
    pub fn deadline(&self) -> Option<Instant> {
        let reap = (!self.gone.is_empty()).then(|| Instant::now() + REAP);
        self.retry.into_iter().chain(reap).min()
    }

    /// Does what waits, with a bounded budget.
    ///
    /// # Errors
    /// The event loop fails.
    pub fn turn(&mut self) -> io::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        let waited = self.poller.wait(&mut events, Some(Duration::ZERO));
        // What is closed is free for whoever asks afterwards, as with the
        // kernel's: ends come before requests, and requests wait until workers
        // have let go, but not for long: others may come and go all the time.
        // They are told again.
        let (ends, requests): (Vec<_>, Vec<_>) = events
            .iter()
            .map(|event| event.token)
            .partition(|token| !matches!(self.entries.get(token), Some(Entry::Channel(_))));
        for token in ends {
            if token == LISTENER {
                self.accept();
            } else {
                self.receive(token);
            }
        }
        self.reap();
        let held = *self.held.get_or_insert_with(Instant::now);
        if self.gone.is_empty() || held.elapsed() > PATIENCE {
            self.held = None;
            for token in requests {
                self.receive(token);
            }
        }
        self.events = events;
        self.reap();
        if self.retry.is_some_and(|retry| Instant::now() >= retry) {
            self.retry = None;
            let watched = self
                .poller
                .add(self.listener.as_fd(), LISTENER, Interest::READ);
            if let Err(error) = watched {
                tracing::error!("netmap service: listening: {error}");
                self.retry = Some(Instant::now() + REST);
            }
        }
        waited
    }

    /// Gives back what workers have let go of, so that it is ours alone.
    fn reap(&mut self) {
        self.gone.retain(|client| Arc::strong_count(client) > 1);
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS {
            match self.accept_one() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!("netmap service: accept: {error}");
                    // Level-triggered, it would be told again and again.
                    if self.poller.remove(self.listener.as_fd()).is_ok() {
                        self.retry = Some(Instant::now() + REST);
                    }
                    return;
                }
            }
        }
    }

    /// Takes the next connection; false when nobody waits.
    fn accept_one(&mut self) -> io::Result<bool> {
        if self.strays.are_behind() {
            return Err(io::Error::other(
                "descriptors of clients cannot be closed; end what serves their files",
            ));
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = match accept4(self.listener.as_raw_fd(), flags) {
            // SAFETY: the system has just made it for us; nobody else has seen
            // its number.
            Ok(fd) => self.strays.keep(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(Errno::EAGAIN) => return Ok(false),
            // Who was to be accepted has gone.
            Err(Errno::ECONNABORTED | Errno::EINTR) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        };
        limit(&socket, Role::Connection)?;
        let peer = peer(&socket)?;
        let uid = peer.uid;
        let Some((authority, account)) = self.rules.authority(&peer) else {
            tracing::warn!(
                "netmap service: user {uid} was turned away; to let it in, add \
                 allow={uid}:attach to -N"
            );
            turn_away(socket.as_fd(), Errno::EACCES);
            return Ok(true);
        };
        let charge = match account.charge(Resource::Connections, 1) {
            Ok(charge) => charge,
            Err(error) => {
                tracing::warn!("netmap service: {error}");
                turn_away(socket.as_fd(), Errno::EMFILE);
                return Ok(true);
            }
        };
        let socket = socket.on(Some(Arc::new(charge)));
        let token = self.take_token();
        self.poller.add(socket.as_fd(), token, Interest::READ)?;
        let control = Control::of(Arc::clone(&self.core), authority);
        let connection = Connection::new(socket, control, &self.workers, account);
        self.entries.insert(token, Entry::Connection(connection));
        tracing::debug!("netmap client {token}: user {uid} connected");
        Ok(true)
    }

    fn take_token(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Takes one message of whoever is under `token`.
    fn receive(&mut self, token: u64) {
        let done = match self.entries.remove(&token) {
            // It went while events before this one were handled.
            None => return,
            Some(Entry::Connection(connection)) => self.on_connection(token, connection),
            Some(Entry::Channel(line)) => self.on_channel(token, line),
        };
        match done {
            Ok(()) | Err(End::Closed) => {}
            Err(end) => tracing::debug!("netmap client {token}: ended: {end}"),
        }
    }

    fn on_connection(&mut self, token: u64, mut connection: Connection) -> Result<(), End> {
        let made = self.next_attach(token, &connection);
        match made {
            Ok(line) => {
                connection.channels.extend(line);
                self.entries.insert(token, Entry::Connection(connection));
                Ok(())
            }
            Err(end) => {
                self.close(connection);
                Err(end)
            }
        }
    }

    /// Takes a request to attach; returns the token of the new channel.
    fn next_attach(&mut self, token: u64, connection: &Connection) -> Result<Option<u64>, End> {
        let taken = self.take_message(connection.as_fd(), connection.account());
        let (len, descriptors) = match taken {
            // Too much, or no descriptors left for it here: what is bound stays
            // bound, and who has asked sees its ends closed.
            Err(End::System(Errno::EAGAIN | Errno::EMSGSIZE)) => return Ok(None),
            taken => taken?,
        };
        if len == 0 {
            return Err(End::Closed);
        }
        let request = Request::decode(self.room.get(..len).unwrap_or_default())?;
        let Request::Attach { version } = request else {
            return Err(End::Misplaced);
        };
        let ends = Ends::new(descriptors)?;
        if let Err(errno) = check_version(version) {
            ends.refuse(errno);
            return Ok(None);
        }
        let room = connection.channels.len() < CHANNELS;
        let charge = connection.account().charge(Resource::Channels, 1);
        let Some(charge) = charge.ok().filter(|_| room) else {
            ends.refuse(Errno::EMFILE);
            return Ok(None);
        };
        // A channel that cannot be had is no reason to end the others.
        let line = match connection.attach(ends, token, charge) {
            Ok(line) => line,
            Err(end) => {
                tracing::debug!("netmap client {token}: no channel: {end}");
                return Ok(None);
            }
        };
        let number = self.take_token();
        let watched = self.poller.add(line.as_fd(), number, Interest::READ);
        if let Err(error) = watched {
            tracing::error!("netmap client {token}: channel: {error}");
            connection.detach(&line);
            return Ok(None);
        }
        self.entries.insert(number, Entry::Channel(line));
        Ok(Some(number))
    }

    /// Takes a message from a client of `account`: its length, and what came
    /// along.
    fn take_message(
        &mut self,
        socket: BorrowedFd<'_>,
        account: &Arc<Account>,
    ) -> Result<(usize, Vec<Foreign>), End> {
        if Strays::are_too_many(account) {
            return Err(End::Strays);
        }
        let (len, descriptors) = receive_from_anyone(socket, &mut self.room)?;
        let sent = descriptors.into_iter();
        let sent: Vec<_> = sent.map(|fd| self.strays.sent(account, fd)).collect();
        match len {
            Some(len) if sent.len() <= DESCRIPTORS_MAX => Ok((len, sent)),
            _ => Err(End::System(Errno::EMSGSIZE)),
        }
    }

    fn on_channel(&mut self, token: u64, line: Line) -> Result<(), End> {
        let served = self.next_request(&line);
        match served {
            Ok(()) => {
                self.entries.insert(token, Entry::Channel(line));
                Ok(())
            }
            Err(end) => {
                self.unwatch(&line);
                if let Some(Entry::Connection(connection)) = self.entries.get_mut(&line.connection)
                {
                    connection.channels.retain(|channel| *channel != token);
                    connection.detach(&line);
                }
                Err(end)
            }
        }
    }

    fn next_request(&mut self, line: &Line) -> Result<(), End> {
        let (len, descriptors) = match self.take_message(line.as_fd(), line.account()) {
            Err(End::System(Errno::EAGAIN)) => return Ok(()),
            taken => taken?,
        };
        if len == 0 {
            return Err(End::Closed);
        }
        let request = Request::decode(self.room.get(..len).unwrap_or_default())?;
        let object = descriptors.into_iter().next();
        let object = object.filter(|fd| is_object(fd.as_fd()));
        let object = object.and_then(Foreign::into_fd);
        match self.entries.get_mut(&line.connection) {
            Some(Entry::Connection(connection)) => connection.serve(line, request, object),
            _ => Err(End::Closed),
        }
    }

    fn unwatch(&self, socket: &impl AsFd) {
        if let Err(error) = self.poller.remove(socket.as_fd()) {
            tracing::error!("netmap service: socket: {error}");
        }
    }

    /// Ends a connection with all its channels.
    fn close(&mut self, mut connection: Connection) {
        self.unwatch(&connection);
        for token in std::mem::take(&mut connection.channels) {
            if let Some(Entry::Channel(line)) = self.entries.remove(&token) {
                self.unwatch(&line);
                connection.detach(&line);
            }
        }
        // What it had bound is given back by this thread, and not by a worker
        // while guests wait.
        self.gone.push(connection.into_client());
    }
}
