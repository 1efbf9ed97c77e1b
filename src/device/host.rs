//! A host side that goes away and comes back while the guest runs: an interface
//! that is destroyed and made again, a netgraph peer that is shut down.
//!
//! The guest sees its link go down and come up, as with a real card whose cable
//! is pulled.

use super::{Device, Event};
use crate::backend::OpenError;

/// What the control thread knows of the host side.
#[derive(Debug)]
pub(super) struct HostSide {
    /// The link is to be up while the host side is there.
    pub(super) link: bool,
    lost: bool,
    /// Why it could not be had back, as it was logged last.
    refused: Option<String>,
}

impl HostSide {
    pub(super) fn new(link: bool) -> Self {
        Self {
            link,
            lost: false,
            refused: None,
        }
    }

    /// The host side is gone, and its descriptors are not watched.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// The link as the guest is to see it.
    pub(super) fn is_link_up(&self) -> bool {
        self.link && !self.lost
    }
}

impl Device {
    /// The back end's host side may go away, so that
    /// [`check_host`](Self::check_host) is to be called once a second.
    pub fn can_lose_host(&self) -> bool {
        self.shared.backend.can_be_lost()
    }

    /// Looks whether the host side is still there, or there again: sets the
    /// link, and has the workers watch the descriptors that are new.
    pub fn check_host(&self) {
        let backend = &self.shared.backend;
        let name = &self.shared.name;
        let mut host = self.host();
        if !host.lost {
            if !backend.is_lost() {
                return;
            }
            tracing::error!("{name}: gone from the host; the link is down until it is back");
            host.lost = true;
            self.unwatch_backend();
            self.apply_link(&host);
        }
        match backend.recover() {
            Ok(()) => {
                tracing::info!("{name}: back on the host; the link is up again");
                host.lost = false;
                host.refused = None;
                self.watch_backend();
                self.apply_link(&host);
            }
            Err(error) => {
                let said = error.to_string();
                if host.refused.as_ref() == Some(&said) {
                    return;
                }
                match error {
                    OpenError::Absent(_) => tracing::info!("{said}"),
                    _ => tracing::warn!("{said}"),
                }
                host.refused = Some(said);
            }
        }
    }

    /// Has the workers wait for frames from the host.
    pub(super) fn watch_backend(&self) {
        for (pair, seat) in self.pairs.iter().zip(&self.seats) {
            if let Some(fd) = self.shared.backend.rx_fd(pair.index) {
                if let Err(error) = seat.watch(fd, Event::Backend) {
                    let name = &self.shared.name;
                    tracing::error!("{name}: no frames will be received: {error}");
                }
            }
        }
    }

    pub(super) fn unwatch_backend(&self) {
        for (pair, seat) in self.pairs.iter().zip(&self.seats) {
            if let Some(fd) = self.shared.backend.rx_fd(pair.index) {
                seat.unwatch(fd);
            }
        }
    }
}
