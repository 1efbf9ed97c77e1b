//! Control requests: what a client's ioctl(2) on `/dev/netmap` does, on the
//! core in this process.
//!
//! A [`Control`] is one open descriptor. Requests come as the client has them,
//! a header with pointers into its memory, which is copied in and out through
//! [`ClientMemory`]; no address is followed here. Answers are the kernel's,
//! errno for errno; the reason in words goes to the log.

mod allowed;
mod csb;
mod memory;
mod message;
mod requests;
mod sync_loop;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::poll::PollFlags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use memory::{ClientMemory, Fault, LARGEST};
pub(super) use message::Message;

use super::abi::legacy::{CONFIG_SIZE, LegacyRequest, NIOCCONFIG, NIOCGINFO, NIOCREGIF};
use super::abi::nmreq::{NIOCCTRL, NIOCRXSYNC, NIOCTXSYNC, RequestHeader};
use super::abi::{NETMAP_MAX_API, NETMAP_MIN_API};
use super::authority::Authority;
use super::legacy;
use super::mem::Region;
use super::port::Direction;
use super::register::{Netmap, RegisterError, Registration};
use sync_loop::SyncLoop;

/// One open descriptor of `/dev/netmap`; closed when dropped.
pub struct Control {
    core: Arc<Netmap>,
    /// Whose it is.
    authority: Authority,
    /// What it has bound. Never changes once it is there.
    registration: OnceLock<Registration>,
    /// Ring pointers are exchanged through the client's memory.
    shared_block: AtomicBool,
    sync_loop: Mutex<SyncLoop>,
    /// The region of the port that it has asked about last: its id is good for
    /// a registration, also when the port has gone with the question.
    told: Mutex<Option<Arc<Region>>>,
    /// Held while a request is worked on that may bind.
    binding: Mutex<()>,
}

impl Control {
    /// A descriptor of this process itself, that has bound nothing.
    pub fn new(core: Arc<Netmap>) -> Self {
        Self::of(core, Authority::default())
    }

    /// A descriptor of who may do what `authority` says, that has bound nothing.
    pub fn of(core: Arc<Netmap>, authority: Authority) -> Self {
        Self {
            core,
            authority,
            registration: OnceLock::new(),
            shared_block: AtomicBool::new(false),
            sync_loop: Mutex::default(),
            told: Mutex::default(),
            binding: Mutex::default(),
        }
    }

    /// What is bound.
    pub fn registration(&self) -> Option<&Registration> {
        self.registration.get()
    }

    /// No other request binds meanwhile.
    fn binding(&self) -> MutexGuard<'_, ()> {
        self.binding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// ioctl(2): `argument` is what the client gave, for most commands an
    /// address of its memory.
    ///
    /// # Errors
    /// The kernel's: those of the request, `EFAULT` where there is no memory,
    /// `EOPNOTSUPP` for a command that netmap does not have.
    pub fn ioctl(
        &self,
        command: u64,
        argument: u64,
        memory: &mut dyn ClientMemory,
    ) -> Result<(), Errno> {
        match command {
            NIOCCTRL => {
                let mut header: RequestHeader = copy_in(argument, memory)?;
                self.request(&mut header, memory)?;
                Ok(memory.copy_out(argument, header.as_bytes())?)
            }
            NIOCREGIF | NIOCGINFO => {
                let mut request: LegacyRequest = copy_in(argument, memory)?;
                self.legacy(command, &mut request)?;
                Ok(memory.copy_out(argument, request.as_bytes())?)
            }
            NIOCCONFIG => {
                memory.copy_in(argument, &mut [0; CONFIG_SIZE])?;
                // No module of this core's switches can be configured.
                Err(Errno::EINVAL)
            }
            NIOCTXSYNC => self.sync(Direction::Tx),
            NIOCRXSYNC => self.sync(Direction::Rx),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// `NIOCCTRL`: works on one request. The header's name is the answer of
    /// some.
    ///
    /// # Errors
    /// The kernel's, for each kind of request.
    pub fn request(
        &self,
        header: &mut RequestHeader,
        memory: &mut dyn ClientMemory,
    ) -> Result<(), Errno> {
        if !(NETMAP_MIN_API..=NETMAP_MAX_API).contains(&header.nr_version) {
            tracing::debug!(
                "a netmap client speaks version {}; build it for {NETMAP_MIN_API} to \
                 {NETMAP_MAX_API}",
                header.nr_version
            );
            return Err(Errno::EINVAL);
        }
        let mut message = Message::copy_in(header, memory)?;
        let result = self.perform(&mut message, memory);
        let result = message.copy_out(memory, result);
        if result.is_ok() {
            header.nr_name.fill(0);
            for (to, from) in header.nr_name.iter_mut().zip(message.name.bytes()) {
                *to = from;
            }
        }
        result
    }

    /// `NIOCREGIF` and `NIOCGINFO`: works on a request of the older interface.
    ///
    /// # Errors
    /// The kernel's.
    pub fn legacy(&self, command: u64, request: &mut LegacyRequest) -> Result<(), Errno> {
        let mut message = legacy::to_current(command, request)?;
        self.perform(&mut message, &mut NoMemory)?;
        legacy::answer(&message, request);
        Ok(())
    }

    /// `NIOCTXSYNC` and `NIOCRXSYNC`: syncs the bound rings. A ring that is
    /// wrong begins anew and is no error, as in the kernel.
    ///
    /// # Errors
    /// `ENXIO` when nothing is bound, `EBUSY` when the client's loop syncs.
    #[inline]
    pub fn sync(&self, direction: Direction) -> Result<(), Errno> {
        let registration = self.registration().ok_or(Errno::ENXIO)?;
        if self.shared_block.load(Ordering::Acquire) {
            return Err(Errno::EBUSY);
        }
        registration.sync_each(direction);
        Ok(())
    }

    /// Lends the bound rings to the client's thread with the number `holder`.
    /// Returns whether it has them.
    pub(super) fn lend(&self, holder: NonZeroU32) -> bool {
        // Whoever begins a block of pointers looks where the rings are.
        let Ok(_binding) = self.binding.try_lock() else {
            return false;
        };
        let registration = self.registration();
        registration.is_some_and(|registration| {
            !self.shared_block.load(Ordering::Acquire) && registration.lend(holder)
        })
    }

    /// poll(2): as [`Registration::poll`]; `POLLERR` alone when nothing is
    /// bound, or the client's loop syncs.
    pub fn poll(&self, events: PollFlags, sleep: bool) -> PollFlags {
        match self.registration() {
            Some(registration) if !self.shared_block.load(Ordering::Acquire) => {
                registration.poll(events, sleep)
            }
            _ => PollFlags::POLLERR,
        }
    }

    /// As [`Registration::begin_poll`].
    pub(super) fn begin_poll(&self, events: PollFlags) -> Option<PollFlags> {
        let registration = self.registration()?;
        if self.shared_block.load(Ordering::Acquire) {
            return None;
        }
        registration.begin_poll(events)
    }
}

/// Reads a structure from a client's memory.
fn copy_in<T: FromBytes + IntoBytes + Immutable + KnownLayout>(
    at: u64,
    memory: &mut dyn ClientMemory,
) -> Result<T, Fault> {
    let mut value = T::new_zeroed();
    memory.copy_in(at, value.as_mut_bytes())?;
    Ok(value)
}

/// Tells the log why, and returns what the client is told.
fn refused(error: &RegisterError) -> Errno {
    let errno = error.errno();
    tracing::debug!("netmap request refused with {errno}: {error}");
    errno
}

/// Of requests that have nothing in a client's memory.
struct NoMemory;

impl ClientMemory for NoMemory {
    fn copy_in(&mut self, _: u64, _: &mut [u8]) -> Result<(), Fault> {
        Err(Fault)
    }

    fn copy_out(&mut self, _: u64, _: &[u8]) -> Result<(), Fault> {
        Err(Fault)
    }
}

#[cfg(test)]
mod tests;
