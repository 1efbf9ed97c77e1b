//! Sync loops: the one that the calling thread runs, and the end of one that
//! somebody runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use vtnetd::netmap::kloop::{Rings, Running, run, wait};
use vtnetd::netmap::mem::Entries;
use vtnetd::netmap::port::Direction;
use vtnetd::netmap::service::wire::page::{Operation, Outcome};
use vtnetd::netmap::sync::{Hardware, Pointers};

use crate::channel::{Channel, move_up};

/// After a request that starts a loop: runs it until somebody ends it.
///
/// # Errors
/// A descriptor for events is none; `ENXIO`: the service is gone.
pub(crate) fn start(channel: &mut Channel, socket: OwnedFd) -> Result<(), Errno> {
    let running = Running::new(move_up(socket))?;
    let plan = running.job().plan;
    let count = plan.tx_rings as usize + plan.rx_rings as usize;
    let entries = |at| {
        let at = usize::try_from(at).map_err(|_| Errno::EFAULT)?;
        NonNull::new(at as *mut u8).ok_or(Errno::EFAULT)
    };
    let (atok, ktoa) = (entries(plan.atok)?.cast(), entries(plan.ktoa)?.cast());
    // SAFETY: the program has said that it has entries for all its rings there,
    // which were there and aligned when it said so, and that it keeps them as
    // long as there is a loop. They are numbers of 32 bits for it as well.
    let entries = unsafe { Entries::new(atok, ktoa, count) };
    run(&running, &entries, &mut ChannelRings(channel))
}

/// After a request that ends a loop: waits until it has ended.
///
/// # Errors
/// Those of poll(2).
pub(crate) fn stop(end: OwnedFd) -> Result<(), Errno> {
    wait(end.as_fd())
}

/// The rings of a channel's connection.
struct ChannelRings<'a>(&'a mut Channel);

fn check(result: u32) -> Result<(), Errno> {
    match result {
        0 => Ok(()),
        errno => Err(Errno::from_raw(
            i32::try_from(errno).unwrap_or(libc::EPROTO),
        )),
    }
}

impl Rings for ChannelRings<'_> {
    #[inline]
    fn sync(
        &mut self,
        direction: Direction,
        ring: u16,
        pointers: Pointers,
    ) -> Result<Hardware, Errno> {
        let Outcome { result, extra } = self.0.operate(Operation::Ring {
            direction,
            ring,
            pointers,
        })?;
        check(result)?;
        #[expect(clippy::cast_possible_truncation, reason = "the halves of it")]
        let (hwcur, hwtail) = ((extra >> 32) as u32, extra as u32);
        Ok(Hardware { hwcur, hwtail })
    }

    fn listen(&mut self) -> Result<bool, Errno> {
        let news = self.0.has_news();
        let Outcome { result, .. } = self.0.operate(Operation::Listen)?;
        check(result).map(|()| news)
    }

    fn sleep(&mut self) -> Result<bool, Errno> {
        self.0.sleep(0).map(|bell| bell.is_some())
    }

    fn wake(&mut self) -> Result<bool, Errno> {
        self.0.wake()?;
        Ok(self.0.has_news())
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.0.bell()
    }
}
