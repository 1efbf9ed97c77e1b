//! Descriptors of clients, and the thread that closes them.
//!
//! close(2) waits for whoever is behind a file: on FUSE that is a program, and
//! may be the client's; a TCP socket with data and a time to linger waits for
//! its peer. A Unix socket that is closed closes all that was sent to it and
//! not taken. So what a client has sent, and what it can send to, is closed by a
//! thread for which nobody waits, and is on its user's account until then.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::netmap::authority::{Account, Charge, Resource};

/// How many descriptors of one user that nobody has asked for may wait to be
/// closed.
pub(super) const MOST: u64 = 16;
/// How many descriptors of all users may wait before nobody is let in.
const BACKLOG: usize = 256;

/// One of them, on its user's account.
struct Stray {
    fd: OwnedFd,
    charge: Option<Arc<Charge>>,
}

/// The way to the thread. It ends when the last of these is dropped, unless a
/// file keeps it, for which nobody waits either.
#[derive(Clone)]
pub struct Strays {
    sender: Sender<Stray>,
    waiting: Arc<AtomicUsize>,
}

impl Strays {
    /// Starts the thread, so that the sandbox can be sealed.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start() -> io::Result<Self> {
        let (sender, strays) = channel::<Stray>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&waiting);
        let thread = thread::Builder::new().name("strays".to_owned());
        thread.spawn(move || {
            for Stray { fd, charge } in strays {
                drop(fd);
                drop(charge);
                count.fetch_sub(1, Ordering::Relaxed);
            }
        })?;
        Ok(Self { sender, waiting })
    }

    /// So many of them wait that nothing more is to be taken from this user.
    pub(super) fn are_too_many(account: &Account) -> bool {
        account.has(Resource::Strays) >= MOST
    }

    /// So many wait that nobody is to be let in.
    pub(super) fn are_behind(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= BACKLOG
    }

    /// A descriptor that is not on an account yet.
    pub(super) fn keep(&self, fd: OwnedFd) -> Foreign {
        Foreign {
            fd: Some(fd),
            charge: None,
            strays: self.clone(),
        }
    }

    /// A descriptor that a client of `account` has sent.
    pub(super) fn sent(&self, account: &Arc<Account>, fd: OwnedFd) -> Foreign {
        let charge = account.charge(Resource::Strays, 1).ok();
        self.keep(fd).on(charge.map(Arc::new))
    }
}

/// A descriptor that the thread will close.
pub(super) struct Foreign {
    /// There until it is dropped.
    fd: Option<OwnedFd>,
    charge: Option<Arc<Charge>>,
    strays: Strays,
}

impl Foreign {
    /// The same, with `charge` in place of what it was charged for.
    pub(super) fn on(mut self, charge: Option<Arc<Charge>>) -> Self {
        self.charge = charge;
        self
    }

    /// On whose account it is, if it is on one.
    pub(super) fn account(&self) -> Option<&Arc<Account>> {
        self.charge.as_ref().map(|charge| charge.account())
    }

    /// Another descriptor that came this way.
    pub(super) fn brought(&self, fd: OwnedFd) -> Self {
        match self.account() {
            Some(account) => self.strays.sent(account, fd),
            None => self.strays.keep(fd),
        }
    }

    /// The descriptor alone, which is one that is closed at once.
    pub(super) fn into_fd(mut self) -> Option<OwnedFd> {
        self.fd.take()
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.fd {
            Some(fd) => fd.as_fd(),
            None => unreachable!("taken when it is dropped"),
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            let charge = self.charge.take();
            self.strays.waiting.fetch_add(1, Ordering::Relaxed);
            // The thread ends no sooner than this.
            let _ = self.strays.sender.send(Stray { fd, charge });
        }
    }
}

#[cfg(test)]
mod tests {

    use nix::unistd::{pipe, read};

    use super::*;
    use crate::netmap::authority::Limits;
    use crate::netmap::service::tests::{slow_to_close, until};

    #[test]
    fn they_are_closed_and_paid_for_until_then() {
        let account = Arc::new(Account::new(7, Limits::default()));
        let strays = Strays::start().unwrap();
        let (end, other) = pipe().unwrap();
        drop(strays.sent(&account, other));
        assert_eq!(read(&end, &mut [0]), Ok(0), "it is closed");
        until("nothing is paid for", || account.has(Resource::Strays) == 0);
    }

    #[test]
    fn one_that_is_not_closed_keeps_its_user_and_not_others() {
        let account = Arc::new(Account::new(7, Limits::default()));
        let other = Account::new(8, Limits::default());
        let strays = Strays::start().unwrap();
        let (fd, held) = slow_to_close();
        drop(strays.sent(&account, fd));
        for _ in 1..MOST {
            assert!(!Strays::are_too_many(&account));
            drop(strays.sent(&account, pipe().unwrap().0));
        }
        assert!(Strays::are_too_many(&account) && !Strays::are_too_many(&other));
        while !strays.are_behind() {
            drop(strays.keep(pipe().unwrap().0));
        }
        // Now it can be closed, and the others after it.
        drop(held);
        until("all are closed", || {
            account.has(Resource::Strays) == 0 && !strays.are_behind()
        });
    }
}
