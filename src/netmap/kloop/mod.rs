//! The sync loop (`netmap_sync_kloop`): syncs a client's rings as the client
//! says in a block of ring pointers in its own memory, without its asking.
//!
//! Starting a loop takes the calling thread, so that is where it runs, in the
//! client's own process: the block stays private memory, and the service never
//! follows a client's pointer. The service allows the loop and can end it
//! ([`job`]); rings are synced one by one, through whatever leads to them
//! ([`Rings`]).
//!
//! | module | job |
//! | --- | --- |
//! | [`job`] | start and end |
//! | `ring` | one turn on one ring |
//! | `sleep` | between two turns |

pub mod job;
mod ring;
#[cfg_attr(loom, path = "sleep_model.rs")]
mod sleep;

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

pub use job::{Handle, Job, Plan, Running, wait};

use super::mem::Entries;
use super::port::Direction;
use super::sync::{Hardware, Pointers};
use ring::LoopRing;
use sleep::{Sleeper, Slept};

/// A client's bound rings, as its loop gets at them.
pub trait Rings {
    /// Syncs one ring, whose client is at `pointers`.
    ///
    /// # Errors
    /// The pointers are wrong and the ring begins anew, or it cannot be synced.
    fn sync(
        &mut self,
        direction: Direction,
        ring: u16,
        pointers: Pointers,
    ) -> Result<Hardware, Errno>;

    /// What comes from here on, frames or room in any ring, is told once.
    /// `true`: something has come since [`wake`](Self::wake), of what was to be
    /// told before.
    ///
    /// # Errors
    /// The rings are gone.
    fn listen(&mut self) -> Result<bool, Errno>;

    /// Before the loop sleeps. `false`: there is something already.
    ///
    /// # Errors
    /// The rings are gone.
    fn sleep(&mut self) -> Result<bool, Errno>;

    /// After the loop has slept. `true`: something has come since
    /// [`listen`](Self::listen).
    ///
    /// # Errors
    /// The rings are gone.
    fn wake(&mut self) -> Result<bool, Errno>;

    /// Becomes readable, between [`sleep`](Self::sleep) and
    /// [`wake`](Self::wake), when something comes.
    ///
    /// # Errors
    /// The rings are gone.
    fn fd(&self) -> Result<BorrowedFd<'_>, Errno>;
}

/// Runs a loop until it is to end. `entries` are those that the job names.
///
/// As in the kernel: without descriptors for events, or with one missing, the
/// loop looks at every ring, sleeps `sleep_us`, and looks again; clients are
/// then told that they need not wake it. Rings in direct mode are synced when
/// their client wakes the loop for them alone, and what comes for them wakes
/// the client, which then wakes the loop.
///
/// # Errors
/// `EINVAL`: a descriptor for events is no eventfd; `EBADF`: it is none;
/// others: the rings are gone.
pub fn run(running: &Running, entries: &Entries<'_>, rings: &mut impl Rings) -> Result<(), Errno> {
    let job = running.job();
    let sleeper = Sleeper::new(running, rings.fd()?)?;
    let mut own: Vec<LoopRing<'_>> = [Direction::Tx, Direction::Rx]
        .into_iter()
        .flat_map(|way| (0..job.plan.rings(way)).map(move |index| (way, index)))
        .enumerate()
        .filter_map(|(nth, ring)| LoopRing::new(job, ring, entries.entry(nth)?, nth))
        .collect();
    let mut news = false;
    // Rings in direct mode whose client has woken the loop.
    let mut due = BTreeSet::new();
    loop {
        if sleeper.has_events() {
            news |= rings.listen()?;
        }
        if news {
            // What came before is seen by the clients that are woken here, and
            // what comes later is told again.
            own.iter()
                .filter(|ring| ring.is_direct())
                .for_each(LoopRing::interrupt);
        }
        let mut busy = !due.is_empty();
        for ring in own.iter_mut().filter(|ring| !ring.is_direct()) {
            busy |= ring.turn(rings);
        }
        if !sleeper.has_events() {
            if sleeper.nap() {
                return Ok(());
            }
            continue;
        }
        // Rings that are not done are looked at again without sleeping.
        let asleep = rings.sleep()? && !busy;
        let Slept { stopped, kicked } = sleeper.sleep(asleep);
        if stopped {
            return Ok(());
        }
        news = rings.wake()?;
        due.extend(kicked);
        due.retain(|nth| {
            let ring = own.get_mut(*nth).filter(|ring| ring.is_direct());
            ring.is_some_and(|ring| ring.turn(rings))
        });
    }
}

#[cfg(test)]
mod tests;
