//! What takes the place of `sleep` in a model: bells for descriptors.

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::job::Running;
use crate::word::model::{Bell, END, bell};

/// A loop for which all rings, and who ends it, have one descriptor to wake it.
pub(super) struct Sleeper {
    kick: Arc<Bell>,
    rings: usize,
}

impl Sleeper {
    pub(super) fn new(running: &Running, _: BorrowedFd<'_>) -> Result<Self, Errno> {
        let events = &running.job().events;
        let first = events.first().ok_or(Errno::EINVAL)?;
        Ok(Self {
            kick: bell(first.ioeventfd),
            rings: events.len(),
        })
    }

    pub(super) fn has_events(&self) -> bool {
        true
    }

    pub(super) fn nap(&self) -> bool {
        true
    }

    pub(super) fn sleep(&self, asleep: bool) -> Slept {
        let kicked = if asleep {
            self.kick.wait();
            true
        } else {
            self.kick.take()
        };
        Slept {
            stopped: bell(END).take(),
            kicked: (0..self.rings).filter(|_| kicked).collect(),
        }
    }
}

/// As in `sleep`.
pub(super) struct Slept {
    pub stopped: bool,
    pub kicked: BTreeSet<usize>,
}

pub(super) fn signal(fd: RawFd) {
    if fd >= 0 {
        bell(fd).ring();
    }
}
