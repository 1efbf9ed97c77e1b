//! The channels of each thread, by the connection's number.
//!
//! A channel that was found under a number stays good while nobody has closed
//! that number, or put another descriptor under it; what is not sure is asked of
//! the system, which knows the socket's inode.

use std::cell::RefCell;
use std::os::fd::RawFd;

use nix::errno::Errno;

use crate::channel::Channel;
use crate::connection::is_connection;
use crate::descriptors::Stamp;
use crate::edge::keeping_errno;

/// Device and inode of a socket.
type Identity = (u64, u64);

struct Entry {
    fd: RawFd,
    stamp: Stamp,
    identity: Identity,
    channel: Channel,
}

thread_local! {
    static CHANNELS: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// Calls `with` with this thread's channel of the connection `fd`, which is
/// made if there is none; `None`: it is no connection.
///
/// # Errors
/// Those of `with`, and of [`Channel::attach`].
#[inline]
pub(crate) fn with_channel<T>(
    fd: RawFd,
    with: impl FnOnce(&mut Channel) -> Result<T, Errno>,
) -> Option<Result<T, Errno>> {
    let mut with = Some(with);
    let cached = CHANNELS.try_with(|channels| {
        // A signal handler may come while its thread is in here.
        let mut channels = channels.try_borrow_mut().ok()?;
        let found = find(&mut channels, fd)?;
        let with = with.take()?;
        Some(found.and_then(|at| match channels.get_mut(at) {
            Some(entry) => with(&mut entry.channel),
            None => Err(Errno::ENXIO),
        }))
    });
    match (cached, with) {
        (Ok(Some(done)), _) => Some(done),
        // It was not called: there is no channel, or no cache to be had.
        (_, Some(with)) if is_connection(fd) => {
            Some(Channel::attach(fd).and_then(|mut channel| with(&mut channel)))
        }
        _ => None,
    }
}

/// Where the channel of `fd` is.
#[inline]
fn find(channels: &mut Vec<Entry>, fd: RawFd) -> Option<Result<usize, Errno>> {
    if let Some(at) = channels.iter().position(|entry| entry.fd == fd) {
        let entry = channels.get_mut(at)?;
        if entry.stamp == Stamp::now(fd) && entry.channel.is_whole() {
            return Some(Ok(at));
        }
        if entry.channel.is_whole() && identity(fd) == Some(entry.identity) {
            entry.stamp = Stamp::now(fd);
            return Some(Ok(at));
        }
    }
    attach(channels, fd)
}

#[cold]
fn attach(channels: &mut Vec<Entry>, fd: RawFd) -> Option<Result<usize, Errno>> {
    let stamp = Stamp::now(fd);
    channels.retain(|entry| {
        entry.fd != fd
            && entry.channel.is_whole()
            && (entry.stamp == Stamp::now(entry.fd) || identity(entry.fd) == Some(entry.identity))
    });
    if !is_connection(fd) {
        return None;
    }
    let identity = identity(fd)?;
    Some(Channel::attach(fd).map(|channel| {
        channels.push(Entry {
            fd,
            stamp,
            identity,
            channel,
        });
        channels.len() - 1
    }))
}

/// Which file `fd` is.
fn identity(fd: RawFd) -> Option<Identity> {
    keeping_errno(|| {
        let mut found = std::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: room for one structure, all of which is initialised.
        let found = unsafe {
            if libc::fstat(fd, found.as_mut_ptr()) != 0 {
                return None;
            }
            found.assume_init()
        };
        Some((found.st_dev, found.st_ino))
    })
}

/// Forgets the channel of `fd`, which is closed.
pub(crate) fn forget(fd: RawFd) {
    let _ = CHANNELS.try_with(|channels| {
        if let Ok(mut channels) = channels.try_borrow_mut() {
            channels.retain(|entry| entry.fd != fd);
        }
    });
}

/// Whether `fd` is a connection to the service. Sets no errno.
#[inline]
pub(crate) fn is_netmap(fd: RawFd) -> bool {
    let cached = CHANNELS.try_with(|channels| {
        let channels = channels.try_borrow().ok()?;
        let entry = channels.iter().find(|entry| entry.fd == fd)?;
        (entry.stamp == Stamp::now(fd)).then_some(())
    });
    matches!(cached, Ok(Some(()))) || is_connection(fd)
}
