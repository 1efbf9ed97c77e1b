//! A device's front end: the endpoint, the connection when there is one, and
//! what makes the next one.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::endpoint::{Endpoint, EndpointError, EndpointSpec};
use super::session::{End, Session};
use super::socket::ChannelError;
use crate::device::Device;
use crate::event::{Interest, Poller, Waker};

/// How long to wait before connecting again, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long to accept nobody when there are no descriptors left.
const REST: Duration = Duration::from_secs(1);
/// Most connections accepted in one go.
const ACCEPTS: u32 = 16;

const LISTENER: u64 = 0;
const CONNECTION: u64 = 1;
const CONFIG: u64 = 2;

/// Whatever drives one device: connections come and go, one at a time.
///
/// All of it runs in one thread's event loop, and none of it blocks on a front
/// end. That thread calls [`on_event`](Self::on_event) for tokens from
/// `token_base` to `token_base + TOKENS - 1`, and [`on_timer`](Self::on_timer)
/// at the [`deadline`](Self::deadline).
pub struct FrontEnd {
    device: Arc<Device>,
    endpoint: Endpoint,
    /// An inherited connection that was not registered yet.
    inherited: Option<UnixStream>,
    session: Option<Session>,
    /// Woken, from any thread, when the device's configuration has changed.
    config: Arc<Waker>,
    token_base: u64,
    /// When to connect, or accept, again.
    retry: Option<Instant>,
    backoff: Duration,
    /// Why the last attempt to connect failed, so that it is logged once.
    failure: Option<Errno>,
}

impl FrontEnd {
    /// How many tokens each front end has.
    pub const TOKENS: u64 = 3;

    /// Opens the endpoint: from here on front ends can connect, though nothing
    /// is answered before [`register`](Self::register).
    ///
    /// # Errors
    /// When the endpoint cannot be had.
    pub fn new(
        device: Arc<Device>,
        endpoint: EndpointSpec,
        token_base: u64,
    ) -> Result<Self, EndpointError> {
        let (endpoint, inherited) = Endpoint::open(endpoint)?;
        let config = Arc::new(Waker::new().map_err(EndpointError::Waker)?);
        Ok(Self {
            device,
            endpoint,
            inherited,
            session: None,
            config,
            token_base,
            retry: None,
            backoff: BACKOFF.0,
            failure: None,
        })
    }

    /// Has `poller` watch everything, and connects for the first time.
    ///
    /// # Errors
    /// Those of [`Poller::add`].
    pub fn register(&mut self, poller: &Poller) -> std::io::Result<()> {
        let config = (*self.config).as_fd();
        poller.add(config, self.token_base + CONFIG, Interest::READ)?;
        match &self.endpoint {
            Endpoint::Listening(listener) => {
                poller.add(listener.as_fd(), self.token_base + LISTENER, Interest::READ)?;
            }
            Endpoint::Connecting(_) => self.connect(poller, Instant::now()),
            Endpoint::Once => {}
        }
        if let Some(socket) = self.inherited.take() {
            self.start(poller, socket);
        }
        Ok(())
    }

    /// There is no connection, and there will be none: it was inherited, and it
    /// has ended.
    pub fn is_finished(&self) -> bool {
        matches!(self.endpoint, Endpoint::Once)
            && self.session.is_none()
            && self.inherited.is_none()
    }

    /// When [`on_timer`](Self::on_timer) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.retry
    }

    /// What was registered under `token` is ready.
    pub fn on_event(&mut self, poller: &Poller, token: u64) {
        match token.wrapping_sub(self.token_base) {
            LISTENER => self.accept(poller),
            CONNECTION => self.serve(poller),
            CONFIG => {
                self.config.drain();
                if let Some(session) = &mut self.session {
                    session.config_changed();
                }
            }
            _ => {}
        }
    }

    /// Time has passed: it is `now`.
    pub fn on_timer(&mut self, poller: &Poller, now: Instant) {
        if self.retry.is_none_or(|retry| now < retry) {
            return;
        }
        self.retry = None;
        match &self.endpoint {
            Endpoint::Connecting(_) => self.connect(poller, now),
            Endpoint::Listening(listener) => {
                let token = self.token_base + LISTENER;
                if let Err(error) = poller.add(listener.as_fd(), token, Interest::READ) {
                    tracing::error!("{}: listening: {error}", self.device.name());
                    self.retry = Some(now + REST);
                }
            }
            Endpoint::Once => {}
        }
    }

    /// Guest memory may have vanished, or rings failed: ends the connection of
    /// a device that cannot go on.
    pub fn check_memory(&mut self, poller: &Poller) {
        if self.session.is_some() && self.device.is_broken() {
            self.close(poller, &End::Broken);
        }
    }

    fn accept(&mut self, poller: &Poller) {
        for _ in 0..ACCEPTS {
            let Endpoint::Listening(listener) = &self.endpoint else {
                return;
            };
            match listener.accept() {
                Ok(Some(socket)) => self.welcome(poller, socket),
                Ok(None) => return,
                Err(error) => {
                    tracing::error!("{}: accept: {error}", self.device.name());
                    // Level-triggered, it would be told again and again.
                    if poller.remove(listener.as_fd()).is_ok() {
                        self.retry = Some(Instant::now() + REST);
                    }
                    return;
                }
            }
        }
    }

    /// Takes a new connection unless another is alive.
    fn welcome(&mut self, poller: &Poller, socket: UnixStream) {
        // A front end that was restarted may be heard before the end of the
        // old one is.
        if self.session.as_ref().is_some_and(Session::is_hung_up) {
            self.serve(poller);
            self.close(poller, &End::Channel(ChannelError::Closed));
        }
        if self.session.is_some() {
            let name = self.device.name();
            tracing::warn!("{name}: a second front end was turned away; one drives the device");
            return;
        }
        self.start(poller, socket);
    }

    fn start(&mut self, poller: &Poller, socket: UnixStream) {
        let name = self.device.name();
        let session = Session::new(Arc::clone(&self.device), socket);
        let token = self.token_base + CONNECTION;
        if let Err(error) = poller.add(session.as_fd(), token, Interest::READ) {
            tracing::error!("{name}: connection: {error}");
            self.schedule(Instant::now());
            return;
        }
        tracing::info!("{name}: front end connected");
        // Until it is disconnected, which a session's end does.
        let waker = Arc::clone(&self.config);
        self.device
            .set_config_listener(Some(Box::new(move || waker.wake())));
        self.failure = None;
        self.session = Some(session);
    }

    fn serve(&mut self, poller: &Poller) {
        let Some(session) = &mut self.session else {
            return;
        };
        if let Err(end) = session.serve() {
            self.close(poller, &end);
        }
    }

    fn close(&mut self, poller: &Poller, end: &End) {
        let Some(session) = self.session.take() else {
            return;
        };
        let name = self.device.name();
        if let Err(error) = poller.remove(session.as_fd()) {
            tracing::error!("{name}: connection: {error}");
        }
        if session.has_spoken() {
            self.backoff = BACKOFF.0;
        }
        drop(session);
        // Said when it is so: whoever waits for it finds everything given back.
        match end {
            End::Channel(ChannelError::Closed) => tracing::info!("{name}: front end disconnected"),
            end => tracing::warn!("{name}: connection closed: {end}"),
        }
        self.schedule(Instant::now());
    }

    /// Connects to the front end that listens, now or later.
    fn connect(&mut self, poller: &Poller, now: Instant) {
        let Endpoint::Connecting(connector) = &self.endpoint else {
            return;
        };
        match connector.connect() {
            Ok(socket) => self.start(poller, socket),
            Err(errno) => {
                if self.failure.replace(errno) != Some(errno) {
                    report(self.device.name(), connector.path(), errno);
                }
                self.schedule(now);
            }
        }
    }

    fn schedule(&mut self, now: Instant) {
        if let Endpoint::Connecting(_) = self.endpoint {
            self.retry = Some(now + self.backoff);
            self.backoff = (self.backoff * 2).min(BACKOFF.1);
        }
    }
}

fn report(name: &str, path: &Path, errno: Errno) {
    let path = path.display().to_string();
    // A device without another name has that of its socket.
    let place = if name == path {
        String::new()
    } else {
        format!("{path}: ")
    };
    tracing::info!("{name}: {place}{errno}; trying again until a front end listens there");
}
