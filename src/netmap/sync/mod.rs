//! What a sync checks before it believes an application's ring, and what it
//! tells the application afterwards: `nm_txsync_prologue`, `nm_rxsync_prologue`,
//! `netmap_ring_reinit` and `nm_sync_finalize`.
//!
//! An application owns the slots from `head` up to but without `tail`, going
//! round. It gives slots back by moving `head` forward, at most to `tail`, and
//! says with `cur`, which lies between the two, when it wants to be woken. So
//! a new pair is good if
//!
//! ```text
//! tx:  rhead <= head <= cur <= rtail       rx:  hwcur <= head <= cur <= hwtail
//! ```
//!
//! going round, where all but `head` and `cur` are our own copies: `rhead`,
//! `rcur` and `rtail` what the last sync left in the ring, `hwcur` and `hwtail`
//! how far the port is. `head` and `cur` are read once; `tail` is ours, and
//! what the application may have written over it is put right.
//!
//! In one point this is stricter than the kernel. A ring with `head` or `cur`
//! at a wrong place *inside* the ring is left as it is there, and the wrong
//! values are taken over as those of the last sync. Here every wrong ring
//! begins anew from where the port is.

use std::time::{SystemTime, UNIX_EPOCH};

use super::abi::Timeval;
use super::mem::RingView;

/// What the last sync took over from the application, and left to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `head`.
    pub rhead: u32,
    /// `cur`.
    pub rcur: u32,
    /// `tail`.
    pub rtail: u32,
}

/// How far the port is. Transmit: `hwcur` is the next slot to be sent, `hwtail`
/// the last but one that is free. Receive: `hwcur` is the first slot that the
/// application has not given back, `hwtail` the first that has no frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// First slot that is not done with.
    pub hwcur: u32,
    /// First slot that is not the application's.
    pub hwtail: u32,
}

/// Where an application is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pointers {
    /// `head`.
    pub head: u32,
    /// `cur`.
    pub cur: u32,
}

impl Pointers {
    /// Those in the ring, each read once.
    #[inline]
    fn of(ring: &RingView<'_>) -> Self {
        Self {
            head: ring.head(),
            cur: ring.cur(),
        }
    }
}

/// Which rule an application has broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// `head` is not a slot of the application's, or `tail`.
    #[error("head {head} is not between {first} and {tail}")]
    Head {
        /// What was read.
        head: u32,
        /// The first slot it may be.
        first: u32,
        /// The last.
        tail: u32,
    },
    /// `cur` is behind `head` or beyond `tail`.
    #[error("cur {cur} is not between head {head} and {tail}")]
    Cur {
        /// What was read.
        cur: u32,
        /// `head`, which is good.
        head: u32,
        /// The last slot that `cur` may be.
        tail: u32,
    },
}

/// `at` is among the slots from `first` to `last`, both included, going round.
#[inline]
fn within(ring: &RingView<'_>, first: u32, at: u32, last: u32) -> bool {
    at < ring.num_slots() && ring.distance(first, at) <= ring.distance(first, last)
}

/// Checks `head` and `cur` as read, of which `head` may be from `first` on.
#[inline]
fn check(
    ring: &RingView<'_>,
    Pointers { head, cur }: Pointers,
    first: u32,
    tail: u32,
) -> Result<(), SyncError> {
    if !within(ring, first, head, tail) {
        return Err(SyncError::Head { head, first, tail });
    }
    if !within(ring, head, cur, tail) {
        return Err(SyncError::Cur { cur, head, tail });
    }
    Ok(())
}

/// Puts `tail` right if the application has written over it.
#[inline]
fn restore_tail(user: &User, ring: &RingView<'_>) {
    if ring.tail() != user.rtail {
        tracing::debug!("a netmap application has changed its ring's tail");
        ring.set_tail(user.rtail);
    }
}

/// Before a transmit ring is synced: takes `head` and `cur` over, from the ring
/// if they are not given.
///
/// # Errors
/// When one of them is at a wrong place. The ring is to begin anew then.
#[inline]
pub fn txsync_prologue(
    user: &mut User,
    ring: &RingView<'_>,
    given: Option<Pointers>,
) -> Result<(), SyncError> {
    let pointers = given.unwrap_or_else(|| Pointers::of(ring));
    check(ring, pointers, user.rhead, user.rtail)?;
    take(user, ring, pointers, given.is_some());
    Ok(())
}

/// Before a receive ring is synced: takes `head` and `cur` over, from the ring
/// if they are not given.
///
/// # Errors
/// As for [`txsync_prologue`].
#[inline]
pub fn rxsync_prologue(
    user: &mut User,
    hardware: Hardware,
    ring: &RingView<'_>,
    given: Option<Pointers>,
) -> Result<(), SyncError> {
    let pointers = given.unwrap_or_else(|| Pointers::of(ring));
    check(ring, pointers, hardware.hwcur, hardware.hwtail)?;
    take(user, ring, pointers, given.is_some());
    Ok(())
}

/// Takes over what is good. Who gives its pointers may have anything in the
/// ring's header.
#[inline]
fn take(user: &mut User, ring: &RingView<'_>, pointers: Pointers, given: bool) {
    if !given {
        restore_tail(user, ring);
    }
    (user.rhead, user.rcur) = (pointers.head, pointers.cur);
}

/// Lets a ring begin anew from where the port is, and takes its bad slots away:
/// one whose buffer is none gets buffer 0, of which nothing is sent, one that
/// is longer than a buffer gets length 0. Returns how many were bad.
pub fn reinit(user: &mut User, hardware: Hardware, ring: &RingView<'_>) -> u32 {
    let mut bad = 0;
    for at in 0..ring.num_slots() {
        let Some(mut slot) = ring.slot(at) else { break };
        if !ring.is_buffer(slot.buf_idx) {
            (slot.buf_idx, slot.len) = (0, 0);
        } else if u32::from(slot.len) > ring.buf_size() {
            slot.len = 0;
        } else {
            continue;
        }
        bad += 1;
        ring.set_slot(at, slot);
    }
    *user = User {
        rhead: hardware.hwcur,
        rcur: hardware.hwcur,
        rtail: hardware.hwtail,
    };
    ring.set_head(user.rhead);
    ring.set_cur(user.rcur);
    ring.set_tail(user.rtail);
    bad
}

/// After a sync: which slots are the application's now. It is told in the ring,
/// unless its pointers are `given`, and it is told elsewhere.
#[inline]
pub fn finalize(user: &mut User, hardware: Hardware, ring: &RingView<'_>, given: bool) {
    user.rtail = hardware.hwtail;
    if !given {
        ring.set_tail(hardware.hwtail);
    }
}

/// Writes the time of this sync.
pub fn timestamp(ring: &RingView<'_>) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    ring.set_timestamp(Timeval {
        tv_sec: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        tv_usec: i64::from(now.subsec_micros()),
    });
}

#[cfg(test)]
mod tests;
