//! What makes a queue pair look at its receive rings.
//!
//! The device watches one descriptor a pair, the same one all the time. Behind
//! it is a poller that watches the rings: which they are changes with the pairs
//! that the guest has active, and when a port was lost and is back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::event::{Events, Interest, Poller, Waker};
use crate::netmap::port::Port;

/// Tokens of the waker and of all rings: a pair looks at all of its rings.
const WAKER: u64 = 0;
const RING: u64 = 1;

/// One pair's.
pub(super) struct Wake {
    poller: Poller,
    /// For what is no frame.
    waker: Waker,
    watched: Mutex<Vec<Arc<dyn Port>>>,
    /// Where the poller's events go.
    events: Mutex<Events>,
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

impl Wake {
    /// One that watches no ring yet.
    ///
    /// # Errors
    /// No descriptors left.
    pub(super) fn new() -> io::Result<Self> {
        let poller = Poller::new()?;
        let waker = Waker::new()?;
        poller.add(waker.as_fd(), WAKER, Interest::READ_EDGE)?;
        Ok(Self {
            poller,
            waker,
            watched: Mutex::default(),
            events: Mutex::default(),
        })
    }

    /// Watches these ports and no others, and has the pair look once, for what
    /// came while nobody watched.
    ///
    /// # Errors
    /// Those of [`Poller::add`].
    pub(super) fn watch(&self, ports: Vec<Arc<dyn Port>>) -> io::Result<()> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for port in watched.drain(..) {
            if let Err(error) = self.poller.remove(port.fd()) {
                tracing::debug!("{}: no longer watched: {error}", port.name());
            }
        }
        let added = ports
            .iter()
            .try_for_each(|port| self.poller.add(port.fd(), RING, Interest::READ_EDGE));
        *watched = ports;
        self.wake();
        added
    }

    /// Makes the pair look once.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// What was said until now is known: only what comes from now on makes the
    /// descriptor readable again.
    ///
    /// # Errors
    /// Those of [`Poller::wait`].
    pub(super) fn rest(&self) -> io::Result<()> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        self.poller.wait(&mut events, Some(Duration::ZERO))?;
        if events.iter().any(|event| event.token == WAKER) {
            self.waker.drain();
        }
        Ok(())
    }
}
