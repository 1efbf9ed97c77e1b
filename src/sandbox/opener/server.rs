//! The opener's side: takes requests, checks them against the configuration,
//! and does them.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;

use super::interfaces;
use super::packets::Packets;
use super::protocol::{ABSENT, ANSWER, Answer, Index, Refusal, Request, encode};
use super::sockets::{self, Access, SocketFile};
use super::throttle::Throttle;
use crate::backend::host::{HostSide, MAX_FDS, MAX_NUMBERS, MAX_TEXT, Opened, Operation};
use crate::backend::{self, OpenError};
use crate::cli::{Config, DeviceSpec, SocketSpec};
use crate::process::{Exit, Failure, PidFile};
use crate::sandbox::{Role, User, limit};

/// What the opener knows, and what it keeps of what it has opened. The names
/// that it made are removed when it is dropped.
pub(super) struct Server<'c> {
    config: &'c Config,
    /// What the process that is served runs as, if not as it was started.
    user: Option<&'c User>,
    /// The process that is served; the pid file is about it.
    client: u32,
    pid_file: Option<PidFile>,
    service: Option<SocketFile>,
    devices: Vec<Kept<'c>>,
}

/// One device.
struct Kept<'c> {
    spec: &'c DeviceSpec,
    socket: Option<SocketFile>,
    host: Option<Box<dyn HostSide>>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self {
            exit: failure.exit as u8,
            errno: 0,
            message: failure.to_string(),
        }
    }
}

/// What no process asks for that has not been taken over.
fn forbidden(what: &str) -> Refusal {
    tracing::warn!("opener: {what} was asked for and refused");
    Refusal {
        exit: Exit::Permission as u8,
        errno: libc::EPERM,
        message: format!("opener: {what}: not in the configuration; restart vtnetd"),
    }
}

/// Changes what the modules below say into what is sent.
fn refusal(error: impl Into<Failure>) -> Refusal {
    error.into().into()
}

impl<'c> Server<'c> {
    pub(super) fn new(config: &'c Config, user: Option<&'c User>, client: u32) -> Self {
        let kept = |spec| Kept {
            spec,
            socket: None,
            host: None,
        };
        Self {
            config,
            user,
            client,
            pid_file: None,
            service: None,
            devices: config.devices.iter().map(kept).collect(),
        }
    }

    /// Answers until the other end is gone or `end` is readable, or it does
    /// what the program that it was does not: sends what has not the length of
    /// a request, or asks on without reading its answers.
    pub(super) fn serve(&mut self, packets: &Packets, end: Option<BorrowedFd<'_>>) {
        let mut throttle = Throttle::new(Instant::now());
        // One byte more than a request shows that a packet is none.
        let mut room = [0; Request::LEN + 1];
        while packets.wait(end) == Ok(true) {
            match packets.receive(&mut room) {
                Ok(Request::LEN) => {}
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    tracing::error!("opener: a request of a wrong length: ending");
                    return;
                }
            }
            let delay = throttle.delay(Instant::now());
            if !delay.is_zero() {
                std::thread::sleep(delay);
            }
            let request = room.get(..Request::LEN).and_then(Request::from_bytes);
            let answer = match request {
                Some(request) => self.answer(request),
                None => Err(forbidden("something unknown")),
            };
            if send(packets, &answer).is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::ClaimPidFile => self.claim_pid_file(),
            Request::PublishPidFile => self.publish_pid_file(),
            Request::Listen(device) => {
                let user = self.user;
                self.device(device)?.listen(user)
            }
            Request::Connect(device) => {
                let user = self.user;
                self.device(device)?.connect(user)
            }
            Request::Open(device) => self.device(device)?.open(),
            Request::Operate(device, operation) => self.device(device)?.operate(operation),
            Request::ListenService => self.listen_service(),
            Request::LookAtInterface(place) => interfaces::look(self.config, place)
                .unwrap_or_else(|| Err(forbidden("an interface"))),
            Request::OpenInterface(place, promiscuous) => {
                interfaces::open(self.config, place, promiscuous)
                    .unwrap_or_else(|| Err(forbidden("an interface")))
            }
        }
    }

    fn device(&mut self, index: Index) -> Result<&mut Kept<'c>, Refusal> {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.devices
            .get_mut(index)
            .ok_or_else(|| forbidden("a device that is not there"))
    }

    fn listen_service(&mut self) -> Answer {
        let Some(spec) = &self.config.service else {
            return Err(forbidden("a netmap service"));
        };
        if self.service.is_some() {
            return Err(forbidden("a second netmap service"));
        }
        let access = Access {
            mode: spec.mode,
            group: spec.group.as_deref(),
            user: self.user,
        };
        let (socket, file) = sockets::listen_packets(&spec.path, &access).map_err(refusal)?;
        self.service = Some(file);
        handed(socket, Role::Listener)
    }

    fn claim_pid_file(&mut self) -> Answer {
        let Some(path) = &self.config.pid_file else {
            return Err(forbidden("a pid file"));
        };
        if self.pid_file.is_some() {
            return Err(forbidden("a second pid file"));
        }
        self.pid_file = Some(PidFile::claim(path, self.client).map_err(refusal)?);
        Ok(Opened::default())
    }

    fn publish_pid_file(&mut self) -> Answer {
        let Some(file) = &mut self.pid_file else {
            return Err(forbidden("a pid file that is not there"));
        };
        file.publish().map_err(refusal)?;
        Ok(Opened::default())
    }
}

impl Kept<'_> {
    fn listen(&mut self, user: Option<&User>) -> Answer {
        let SocketSpec::Listen(path) = &self.spec.socket else {
            return Err(forbidden("a listening socket"));
        };
        if self.socket.is_some() {
            return Err(forbidden("a second listening socket"));
        }
        let (socket, file) = sockets::listen(path, user).map_err(refusal)?;
        self.socket = Some(file);
        handed(socket.into(), Role::Listener)
    }

    fn connect(&self, user: Option<&User>) -> Answer {
        let SocketSpec::Connect(path) = &self.spec.socket else {
            return Err(forbidden("a connection"));
        };
        let socket = sockets::connect(path, user).map_err(|errno| Refusal {
            exit: Exit::Unavailable as u8,
            errno: errno as i32,
            message: format!("{}: {errno}", path.display()),
        })?;
        handed(socket.into(), Role::Connection)
    }

    fn open(&mut self) -> Answer {
        if self.host.is_none() {
            let made =
                backend::host_side(&self.spec.backend.spec(self.spec.queues)).map_err(refusal)?;
            self.host = made;
        }
        let Some(host) = &mut self.host else {
            return Err(forbidden("a back end that needs no opening"));
        };
        let opened = host.open().map_err(|error| Refusal {
            errno: match error {
                OpenError::Absent(_) => ABSENT,
                _ => 0,
            },
            ..refusal(error)
        })?;
        let fits = opened.fds.len() <= MAX_FDS
            && opened.numbers.len() <= MAX_NUMBERS
            && opened.text.len() <= MAX_TEXT;
        if !fits {
            let name = self.spec.backend.name().to_owned();
            return Err(refusal(OpenError::Mismatch(name)));
        }
        Ok(opened)
    }

    fn operate(&mut self, operation: Operation) -> Answer {
        let Some(host) = &mut self.host else {
            return Err(forbidden("an operation on what is not open"));
        };
        host.operate(operation).map_err(refusal)?;
        Ok(Opened::default())
    }
}

/// One descriptor, for the use of `role` only.
fn handed(fd: OwnedFd, role: Role) -> Answer {
    limit(&fd, role).map_err(|error| Refusal {
        exit: Exit::Os as u8,
        errno: error.raw_os_error().unwrap_or(libc::EIO),
        message: format!("descriptor: {error}"),
    })?;
    Ok(Opened {
        fds: vec![fd],
        ..Opened::default()
    })
}

fn send(packets: &Packets, answer: &Answer) -> Result<(), Errno> {
    let bytes = encode(answer);
    debug_assert!(bytes.len() <= ANSWER);
    let fds = answer.as_ref().map_or(&[][..], |opened| &opened.fds);
    match packets.send_with(&bytes, fds) {
        // The system lets no more descriptors be on their way.
        Err(errno) if !fds.is_empty() => packets.send(&encode(&Err(Refusal {
            exit: Exit::Os as u8,
            errno: errno as i32,
            message: format!("descriptors: {errno}; raise the limit of open files"),
        }))),
        sent => sent,
    }
}
