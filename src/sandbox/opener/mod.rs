//! The privileged process that opens and names things for the sandboxed one.
//!
//! It is forked before anything else happens, and has all that it needs to know
//! from the command line: a request (`protocol`) names nothing but a device's
//! place there, so there is nothing that a process which was taken over could
//! ask for beyond it. It sees no guest's memory and no front end's message.
//!
//! The process that was started stays the one that serves, so its number, its
//! signals and its exit status are what whoever started it expects. The opener
//! ends when the other one does, however that ends, and then removes the names
//! that it has made: sockets and the pid file. When it is the opener that ends
//! first, because somebody killed it, the other one says so and serves on: what
//! is open stays open, and its guests keep their network.

mod client;
mod interfaces;
mod packets;
mod protocol;
mod server;
mod sockets;
#[cfg(test)]
mod tests;
mod throttle;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::parent_id;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, signal};
use nix::unistd::{ForkResult, fork};

use crate::backend::OpenError;
use crate::backend::host::{Host, Opened, Operation};
use crate::cli::Config;
use crate::event::SIGNALS;
use crate::frontend::vhost_user::Connect;
use crate::netmap::device::Interfaces;
use crate::process::{Exit, Failure, log};
use crate::sandbox::{Role, User, limit};
use interfaces::RemoteInterfaces;
use packets::Packets;
use protocol::{ABSENT, ANSWER, Answer, Index, Refusal, Request, decode};
use server::Server;
pub use sockets::SocketError;

/// The opener, as the process that is served has it. Dropping it waits until
/// the opener has removed what it made.
#[derive(Debug)]
pub struct Opener(Arc<Link>);

/// The connection with the opener.
#[derive(Debug)]
struct Link(Mutex<Packets>);

impl Opener {
    /// Forks the opener of what `config` says, for this process, which is going
    /// to be `user`, or to stay what it is. It drops `others`, descriptors
    /// that are not its business; they are given back here.
    ///
    /// To be called while this process has one thread.
    ///
    /// # Errors
    /// The system has no process or no descriptor left.
    pub fn start<T>(config: &Config, user: Option<&User>, others: T) -> Result<(Self, T), Failure> {
        let os = |errno: Errno| Failure::os("opener")(errno.into());
        let (ours, theirs) = Packets::pair().map_err(os)?;
        let client = std::process::id();
        // SAFETY: there is one thread, so no lock is held by another one that
        // the child does not have.
        match unsafe { fork() }.map_err(os)? {
            ForkResult::Parent { .. } => {
                drop(theirs);
                limit(&ours, Role::Opener).map_err(Failure::os("opener"))?;
                Ok((Self(Arc::new(Link(Mutex::new(ours)))), others))
            }
            ForkResult::Child => {
                drop((ours, others));
                // Nothing may unwind into what the other process goes on with.
                let ended = catch_unwind(AssertUnwindSafe(|| run(config, user, client, &theirs)));
                let status = if ended.is_ok() {
                    0
                } else {
                    Exit::Software as i32
                };
                // SAFETY: ends this process; what had to be dropped was.
                unsafe { libc::_exit(status) }
            }
        }
    }

    /// What hangs up when the opener has ended before it was dropped.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn end(&self) -> Result<OwnedFd, Failure> {
        let packets = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = packets.duplicate();
        let end = end.map_err(|errno| Failure::os("opener")(errno.into()))?;
        limit(&end, Role::OpenerEnd).map_err(Failure::os("opener"))?;
        Ok(end)
    }

    /// Makes sure that the pid file can be had.
    ///
    /// # Errors
    /// Another process has it, or it cannot be written.
    pub fn claim_pid_file(&self) -> Result<(), Failure> {
        self.0.ask(Request::ClaimPidFile)?;
        Ok(())
    }

    /// Has the claimed pid file appear.
    ///
    /// # Errors
    /// Another process has taken it since, or it cannot be written.
    pub fn publish_pid_file(&self) -> Result<(), Failure> {
        self.0.ask(Request::PublishPidFile)?;
        Ok(())
    }

    /// Listens where the configuration has `device` do so.
    ///
    /// # Errors
    /// The name cannot be had.
    pub fn listen(&self, device: usize) -> Result<UnixListener, Failure> {
        let fd = self.0.ask(Request::Listen(index(device))).and_then(only)?;
        Ok(UnixListener::from(fd))
    }

    /// Listens where the configuration has clients of the netmap service
    /// connect.
    ///
    /// # Errors
    /// The name cannot be had, or not for that group.
    pub fn listen_service(&self) -> Result<OwnedFd, Failure> {
        Ok(self.0.ask(Request::ListenService).and_then(only)?)
    }

    /// The interfaces of the host that the configuration lets clients of the
    /// netmap service have.
    pub fn interfaces(&self, config: &Config) -> Arc<dyn Interfaces> {
        let service = config.service.as_ref();
        Arc::new(RemoteInterfaces {
            link: Arc::clone(&self.0),
            names: service.map_or(Vec::new(), |service| service.interfaces.clone()),
        })
    }

    /// What connects `device` to its front end, which is said to be at `path`.
    pub fn connector(&self, device: usize, path: PathBuf) -> Box<dyn Connect> {
        Box::new(Connector {
            link: Arc::clone(&self.0),
            device: index(device),
            path,
        })
    }

    /// The privileged half of the back end of `device`.
    pub fn host(&self, device: usize) -> Arc<dyn Host> {
        Arc::new(RemoteHost {
            link: Arc::clone(&self.0),
            device: index(device),
        })
    }
}

/// No configuration has as many devices as would make this wrong.
fn index(device: usize) -> Index {
    Index::try_from(device).unwrap_or(Index::MAX)
}

/// What the opener does from its fork to its end.
fn run(config: &Config, user: Option<&User>, client: u32, packets: &Packets) {
    // They are for the other process, whose end is this one's.
    for number in SIGNALS {
        // SAFETY: to ignore a signal calls nothing.
        let ignored = unsafe { signal(number, SigHandler::SigIgn) };
        if let Err(errno) = ignored {
            tracing::warn!("opener: {number}: {errno}");
        }
    }
    name_process();
    // Whoever asks must not wait for who reads the log.
    if let Err(error) = log::detach() {
        tracing::warn!("opener: log: {error}");
    }
    let end = match client::watch(client) {
        Ok(end) => Some(end),
        Err(Errno::ESRCH) => return log::flush(),
        // A kernel without pidfd_open(2).
        Err(errno) => {
            tracing::warn!("opener: process {client} cannot be watched: {errno}");
            None
        }
    };
    // It may have ended before, and its number be another's.
    if parent_id() != client {
        return log::flush();
    }
    let end = end.as_ref().map(OwnedFd::as_fd);
    Server::new(config, user, client).serve(packets, end);
    log::flush();
}

/// Has ps(1) and top(1) tell the two processes apart.
#[cfg(target_os = "linux")]
fn name_process() {
    // Only a name: without one it serves as well.
    let _ = nix::sys::prctl::set_name(c"vtnetd-opener");
}

#[cfg(target_os = "freebsd")]
fn name_process() {
    // SAFETY: a constant format without arguments.
    unsafe { libc::setproctitle(c"opener".as_ptr()) };
}

impl Link {
    /// Asks and waits for the answer.
    fn ask(&self, request: Request) -> Answer {
        // Both sides of an exchange belong together.
        let packets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        exchange(&packets, request).unwrap_or_else(|errno| {
            Err(Refusal {
                exit: Exit::Os as u8,
                errno: errno as i32,
                message: match errno {
                    Errno::EMFILE | Errno::ENFILE => {
                        format!("opener: {errno}; raise the limit of open files (ulimit -Hn)")
                    }
                    _ => format!("opener: {errno}; restart vtnetd"),
                },
            })
        })
    }
}

fn exchange(packets: &Packets, request: Request) -> Result<Answer, Errno> {
    packets.send(&request.to_bytes())?;
    let mut room = vec![0; ANSWER];
    let (len, fds) = packets.receive_with(&mut room)?;
    if len == 0 {
        return Err(Errno::EPIPE);
    }
    let answer = room.get(..len).and_then(decode);
    let (answer, count) = answer.ok_or(Errno::EPROTO)?;
    if fds.len() != count {
        // This process has no numbers left for them.
        return Err(Errno::EMFILE);
    }
    Ok(answer.map(|opened| Opened { fds, ..opened }))
}

/// The one descriptor that an answer has.
fn only(mut opened: Opened) -> Result<OwnedFd, Refusal> {
    match (opened.fds.pop(), opened.fds.is_empty()) {
        (Some(fd), true) => Ok(fd),
        _ => Err(Refusal {
            exit: Exit::Software as u8,
            errno: libc::EPROTO,
            message: "opener: the answer has not one descriptor; restart vtnetd".to_owned(),
        }),
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::told(refusal.exit, refusal.message)
    }
}

impl From<Refusal> for OpenError {
    fn from(refusal: Refusal) -> Self {
        let Refusal {
            exit,
            errno,
            message,
        } = refusal;
        match errno {
            ABSENT => Self::Absent(message),
            _ => Self::Opener { exit, message },
        }
    }
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        match &error {
            SocketError::Path(_, cause) => Self::by_cause(Exit::CannotCreate, &error, cause),
            SocketError::NoGroup(..) => Self::new(Exit::NoUser, &error),
            _ => Self::new(Exit::CannotCreate, &error),
        }
    }
}

/// Connects by way of the opener.
struct Connector {
    link: Arc<Link>,
    device: Index,
    path: PathBuf,
}

impl Connect for Connector {
    fn connect(&self) -> Result<UnixStream, Errno> {
        let answer = self.link.ask(Request::Connect(self.device));
        let fd = answer.and_then(only);
        fd.map(UnixStream::from)
            .map_err(|refusal| Errno::from_raw(refusal.errno))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// Opens by way of the opener.
struct RemoteHost {
    link: Arc<Link>,
    device: Index,
}

impl Host for RemoteHost {
    fn open(&self) -> Result<Opened, OpenError> {
        Ok(self.link.ask(Request::Open(self.device))?)
    }

    fn operate(&self, operation: Operation) -> Result<(), OpenError> {
        self.link.ask(Request::Operate(self.device, operation))?;
        Ok(())
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        let packets = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut end = [0; 1];
        let ended = packets.finish().and_then(|()| packets.receive(&mut end));
        match ended {
            // It has ended before, and that was said then.
            Ok(_) | Err(Errno::EPIPE | Errno::ENOTCONN | Errno::ECONNRESET) => {}
            Err(errno) => tracing::warn!("opener: {}", io::Error::from(errno)),
        }
    }
}
