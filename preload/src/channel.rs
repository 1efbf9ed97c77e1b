//! A channel: over which one thread asks the service about one connection.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{MsgFlags, recv};
use vtnetd::event::{give_way, leave, processor};
use vtnetd::netmap::abi::nmreq::{NETMAP_REQ_SYNC_KLOOP_START, NETMAP_REQ_SYNC_KLOOP_STOP};
use vtnetd::netmap::ctrl::{ClientMemory, Fault};
use vtnetd::netmap::port::Direction;
use vtnetd::netmap::service::gather::{external_memory, gather, request_kind};
use vtnetd::netmap::service::wire::page::{Client, Operation, Outcome};
use vtnetd::netmap::service::wire::socket::{
    bell_pair, channel_pair, last_word, quiet, receive_message, ring, send_message,
};
use vtnetd::netmap::service::wire::{Answer, MESSAGE_MAX, Request, VERSION};

use crate::descriptors::{self, OWN, changes_of};
use crate::pipes::Pipes;
use crate::real::POLL;
use crate::{external, looping, memory};

/// Our own descriptors have numbers from here on where that can be had: low
/// ones are the program's, which may count on getting the lowest that is free.
const FIRST_NUMBER: RawFd = 200;
/// Looks at the page before the processor is given up: few, for it may be the
/// one that the answer waits for.
const LOOKS: u32 = 8;
/// How long the processor is given up, again and again, before the bell is
/// waited for: longer than a sync of the longest rings takes on a slow machine.
/// To be rung for costs the service more than that, as long as it is awake.
const PATIENCE: Duration = Duration::from_millis(5);

/// The same file under a number that is not in the program's way, if there is
/// one.
pub(crate) fn move_up(fd: OwnedFd) -> OwnedFd {
    let moved = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST_NUMBER));
    moved.map_or(fd, |moved| {
        // SAFETY: fcntl(2) has just made it for us.
        unsafe { OwnedFd::from_raw_fd(moved) }
    })
}

/// A descriptor of our own, which the program knows nothing of.
#[derive(Debug)]
struct Own {
    fd: Option<OwnedFd>,
    changes: u32,
    forks: u32,
}

impl Own {
    fn new(fd: OwnedFd) -> Self {
        let fd = move_up(fd);
        OWN.insert(fd.as_raw_fd());
        Self {
            changes: changes_of(fd.as_raw_fd()),
            forks: descriptors::forks(),
            fd: Some(fd),
        }
    }

    /// Nobody has closed it meanwhile.
    #[inline]
    fn is_whole(&self) -> bool {
        self.forks == descriptors::forks()
            && self
                .fd
                .as_ref()
                .is_some_and(|fd| self.changes == changes_of(fd.as_raw_fd()))
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.fd.as_ref().map(AsFd::as_fd).ok_or(Errno::ENXIO)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let whole = self.is_whole();
        if let Some(fd) = self.fd.take() {
            if whole {
                OWN.remove(fd.as_raw_fd());
            } else {
                // The number may be somebody else's by now.
                let _ = fd.into_raw_fd();
            }
        }
    }
}

/// One thread's way to ask about one connection.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: Own,
    bell: Own,
    page: Client,
    /// `ready` as it was before the last poll.
    seen: u32,
    /// Its thread may be on one processor alone.
    is_tied: bool,
    pipes: Pipes,
}

/// The program's own memory.
struct OwnMemory;

impl ClientMemory for OwnMemory {
    fn copy_in(&mut self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        if memory::copy_in(at, into) == into.len() {
            Ok(())
        } else {
            Err(Fault)
        }
    }

    fn copy_out(&mut self, at: u64, from: &[u8]) -> Result<(), Fault> {
        memory::copy_out(at, from).map_err(|_| Fault)
    }
}

impl Channel {
    /// A new channel of the connection `fd`.
    ///
    /// # Errors
    /// What the service says: `EACCES`, `EMFILE`, `EPROTONOSUPPORT`; `ENXIO`:
    /// it is gone; those of making sockets.
    pub(crate) fn attach(fd: RawFd) -> Result<Self, Errno> {
        // SAFETY: the program has it open, and whoever closes it meanwhile
        // makes the calls below fail; the borrow ends with them.
        let connection = unsafe { BorrowedFd::borrow_raw(fd) };
        Self::attach_to(connection).map_err(|errno| match errno {
            // It may have said why.
            Errno::ENXIO => last_word(connection)
                .and_then(|answer| check(&answer).err())
                .unwrap_or(errno),
            errno => errno,
        })
    }

    fn attach_to(connection: BorrowedFd<'_>) -> Result<Self, Errno> {
        let (socket, theirs) = channel_pair()?;
        let (bell, their_bell) = bell_pair()?;
        let (socket, bell) = (Own::new(socket), Own::new(bell));
        let request = Request::Attach { version: VERSION };
        let request = request.encode().map_err(|_| Errno::EPROTO)?;
        send(connection, &request, &[theirs.as_fd(), their_bell.as_fd()])?;
        // Ours alone, so that the end is heard.
        drop((theirs, their_bell));
        let (answer, page) = receive(socket.fd()?)?;
        check(&answer)?;
        let page = Client::new(page.ok_or(Errno::EPROTO)?.as_fd())?;
        Ok(Self {
            seen: page.ready(),
            socket,
            bell,
            page,
            is_tied: false,
            pipes: Pipes::default(),
        })
    }

    /// Nobody has closed its descriptors, and they are this process's.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.socket.is_whole() && self.bell.is_whole()
    }

    /// ioctl(2), other than the syncs.
    ///
    /// # Errors
    /// The service's; `EFAULT`; `ENXIO`: it is gone.
    pub(crate) fn ioctl(&mut self, command: u64, argument: u64) -> Result<(), Errno> {
        let external = external_memory(command, argument, &mut OwnMemory);
        let object = external.and_then(|memory| external::object(memory.start, memory.bytes));
        let segments = gather(command, argument, &mut OwnMemory);
        let kind = request_kind(command, &segments);
        let request = Request::Ioctl {
            command,
            argument,
            segments,
        };
        let (answer, handed) = self.ask(&request, object.as_ref())?;
        for write in &answer.writes {
            memory::copy_out(write.address, &write.data)?;
        }
        check(&answer)?;
        match (kind, handed) {
            (Some(NETMAP_REQ_SYNC_KLOOP_START), Some(socket)) => looping::start(self, socket),
            (Some(NETMAP_REQ_SYNC_KLOOP_STOP), Some(end)) => looping::stop(end),
            _ => Ok(()),
        }
    }

    /// What mmap(2) maps, and its size in bytes.
    ///
    /// # Errors
    /// `ENXIO`: nothing is bound, or the service is gone.
    pub(crate) fn memory(&mut self) -> Result<(OwnedFd, u64), Errno> {
        let (answer, fd) = self.ask(&Request::Map, None)?;
        check(&answer)?;
        Ok((fd.ok_or(Errno::EPROTO)?, answer.value))
    }

    fn ask(
        &mut self,
        request: &Request,
        object: Option<&OwnedFd>,
    ) -> Result<(Answer, Option<OwnedFd>), Errno> {
        let request = request.encode().map_err(|_| Errno::EMSGSIZE)?;
        let object = object.map(AsFd::as_fd);
        send(self.socket.fd()?, &request, object.as_slice())?;
        receive(self.socket.fd()?)
    }

    /// `NIOCTXSYNC`, `NIOCRXSYNC`.
    ///
    /// # Errors
    /// The service's; `ENXIO` also when it is gone.
    #[inline]
    pub(crate) fn sync(&mut self, direction: Direction) -> Result<(), Errno> {
        if self.pipes.sync(direction) {
            return self.tell();
        }
        let done = self.operate(Operation::Sync(direction))?;
        self.borrow_at_times();
        check_result(done)
    }

    /// After a sync of this thread's own: whoever sleeps until what it has passed
    /// on comes is told by the service.
    #[inline]
    fn tell(&mut self) -> Result<(), Errno> {
        if self.pipes.is_awaited() {
            self.operate(Operation::Tell)?;
        }
        Ok(())
    }

    /// After a sync of the service's: has this thread do the next ones itself, if
    /// it may.
    #[inline]
    fn borrow_at_times(&mut self) {
        if self.pipes.are_due() {
            self.borrow();
        }
    }

    #[cold]
    fn borrow(&mut self) {
        if self.pipes.are_unknown() {
            let asked = self.ask(&Request::Borrow, None);
            self.pipes.meet(asked);
        }
        if self.pipes.can_be_had() {
            let borrowed = self.operate(Operation::Borrow).and_then(check_result);
            self.pipes.have(borrowed.is_ok());
        }
    }

    /// What poll(2) finds. With `arm`, what comes later is told: see
    /// [`sleep`](Self::sleep).
    ///
    /// # Errors
    /// `ENXIO`: the service is gone.
    #[inline]
    pub(crate) fn poll(&mut self, events: u16, arm: bool) -> Result<u16, Errno> {
        self.seen = self.page.ready();
        if let Some(found) = self.pipes.poll(events) {
            return self.tell().map(|()| found);
        }
        let operation = Operation::Poll { events, arm };
        let found = match self.ask_and_look(operation)? {
            Some(found) => {
                // Else who never waits would never let those run who get what it
                // sends.
                if found.result != 0 {
                    give_way();
                }
                found
            }
            None => self.outcome_later()?,
        };
        self.borrow_at_times();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "poll's events have 16 bits"
        )]
        Ok(found.result as u16)
    }

    /// Whether something may have come since a [`poll`](Self::poll) for
    /// `events`.
    #[inline]
    pub(crate) fn is_ready(&self, events: u16) -> bool {
        self.page.ready() != self.seen || self.pipes.have_news(events)
    }

    /// Before the bell is waited for, after a poll for `events`. Returns the
    /// bell, or `None` when there is something already.
    ///
    /// # Errors
    /// `ENXIO`: the service is gone.
    pub(crate) fn sleep(&mut self, events: u16) -> Result<Option<RawFd>, Errno> {
        if self.pipes.take_lost() {
            return Ok(None);
        }
        if self.pipes.are_held() {
            // Where it is not noted, or there is no service, the next poll is to
            // find that out.
            let noted = self.operate(Operation::Await { events });
            let noted = noted.and_then(check_result);
            if noted.is_err() {
                self.pipes.lose();
            }
            if noted.is_err() || self.is_ready(events) {
                return Ok(None);
            }
        }
        self.page.sleep();
        if self.is_ready(events) {
            self.page.wake();
            return Ok(None);
        }
        Ok(Some(self.bell.fd()?.as_raw_fd()))
    }

    /// After the bell was waited for.
    ///
    /// # Errors
    /// `ENXIO`: the service is gone.
    pub(crate) fn wake(&mut self) -> Result<(), Errno> {
        self.page.wake();
        if quiet(self.bell.fd()?) {
            return Ok(());
        }
        // So that the next poll finds it out.
        self.pipes.lose();
        Err(Errno::ENXIO)
    }

    /// Whether something may have come since this was asked last, or since
    /// [`poll`](Self::poll).
    pub(crate) fn has_news(&mut self) -> bool {
        let before = std::mem::replace(&mut self.seen, self.page.ready());
        self.seen != before
    }

    /// The bell.
    ///
    /// # Errors
    /// `ENXIO`: it was closed.
    pub(crate) fn bell(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.bell.fd()
    }

    /// Has the service do something, and waits until it has.
    ///
    /// # Errors
    /// `ENXIO`: the service is gone.
    #[inline]
    pub(crate) fn operate(&mut self, operation: Operation) -> Result<Outcome, Errno> {
        match self.ask_and_look(operation)? {
            Some(outcome) => Ok(outcome),
            None => self.outcome_later(),
        }
    }

    /// Has the service do something; what came of it, if that is there at once.
    #[inline]
    fn ask_and_look(&mut self, operation: Operation) -> Result<Option<Outcome>, Errno> {
        if self.page.ask(operation) {
            ring(self.bell.fd()?);
        }
        for _ in 0..LOOKS {
            if let Some(outcome) = self.page.answer() {
                return Ok(Some(outcome));
            }
            std::hint::spin_loop();
        }
        Ok(None)
    }

    /// Before the service is waited for: leaves it the processor that it works on.
    pub(crate) fn step_aside(&mut self) {
        if self.is_tied {
            return;
        }
        if let Some(place) = self.page.place() {
            self.is_tied = processor() == Some(place) && !leave(place);
        }
    }

    #[cold]
    fn outcome_later(&mut self) -> Result<Outcome, Errno> {
        self.step_aside();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            give_way();
            if let Some(outcome) = self.page.answer() {
                return Ok(outcome);
            }
        }
        loop {
            self.page.sleep();
            if let Some(outcome) = self.page.answer() {
                self.page.wake();
                return Ok(outcome);
            }
            let heard = hear(self.bell.fd()?);
            self.page.wake();
            if !heard {
                return Err(Errno::ENXIO);
            }
        }
    }
}

fn check(answer: &Answer) -> Result<(), Errno> {
    check_number(answer.errno)
}

/// What came of an operation whose result is an errno.
fn check_result(outcome: Outcome) -> Result<(), Errno> {
    check_number(outcome.result)
}

fn check_number(errno: u32) -> Result<(), Errno> {
    match errno {
        0 => Ok(()),
        errno => Err(Errno::from_raw(
            i32::try_from(errno).unwrap_or(libc::EPROTO),
        )),
    }
}

/// Waits until `fd` is ready. Signals do not end it: what waits here is a
/// request that the service works on, as the kernel would, in a moment.
fn wait(fd: BorrowedFd<'_>, events: PollFlags) -> Result<(), Errno> {
    let mut fds = [PollFd::new(fd, events)];
    let poll = POLL.get()?;
    loop {
        let timeout = i32::from(PollTimeout::NONE);
        // SAFETY: one structure, laid out as C's, alive meanwhile.
        let ready = unsafe { poll(fds.as_mut_ptr().cast(), 1, timeout) };
        match Errno::result(ready) {
            Err(Errno::EINTR) => {}
            ready => return ready.map(drop),
        }
    }
}

/// Waits until the bell is rung, and reads it, with one call. Returns whether
/// somebody is there to ring again. Signals do not end it, as above.
fn hear(bell: BorrowedFd<'_>) -> bool {
    let mut rung = [0; 256];
    loop {
        match recv(bell.as_raw_fd(), &mut rung, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            heard => return heard.is_ok_and(|read| read > 0),
        }
    }
}

fn send(
    socket: BorrowedFd<'_>,
    message: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    loop {
        match send_message(socket, message, descriptors) {
            Err(Errno::EAGAIN) => wait(socket, PollFlags::POLLOUT)?,
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => return Err(Errno::ENXIO),
            sent => return sent,
        }
    }
}

fn receive(socket: BorrowedFd<'_>) -> Result<(Answer, Option<OwnedFd>), Errno> {
    let mut room = vec![0; MESSAGE_MAX];
    loop {
        wait(socket, PollFlags::POLLIN)?;
        match receive_message(socket, &mut room) {
            Err(Errno::EAGAIN) => {}
            Ok((0, _)) | Err(Errno::ECONNRESET) => return Err(Errno::ENXIO),
            Ok((len, descriptors)) => {
                let answer = Answer::decode(room.get(..len).unwrap_or_default());
                let answer = answer.map_err(|_| Errno::EPROTO)?;
                return Ok((answer, descriptors.into_iter().next()));
            }
            Err(errno) => return Err(errno),
        }
    }
}
