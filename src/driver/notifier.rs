//! Kicks and interrupts: a counter or a byte stream of which nothing matters
//! but that there is something to read.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{pipe2, read, write};

/// By what kind of descriptor the two sides call each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signalling {
    /// eventfd(2), which both sides have as one descriptor.
    #[default]
    Eventfd,
    /// pipe(2), as front ends use that know no eventfd.
    Pipe,
    /// A pair of connected Unix stream sockets.
    SocketPair,
}

/// One end of a notification on which the other side's end can be passed on.
#[derive(Debug)]
pub struct Notifier {
    /// An eventfd, or the end that is read.
    source: OwnedFd,
    /// The end that is written, where it is another.
    sink: Option<OwnedFd>,
}

impl Notifier {
    /// A notification of this kind.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn new(signalling: Signalling) -> nix::Result<Self> {
        match signalling {
            Signalling::Eventfd => {
                let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
                let source = EventFd::from_flags(flags)?.into();
                Ok(Self { source, sink: None })
            }
            Signalling::Pipe => {
                let (source, sink) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
                let sink = Some(sink);
                Ok(Self { source, sink })
            }
            Signalling::SocketPair => {
                let kind = (AddressFamily::Unix, SockType::Stream);
                let (source, sink) = socketpair(kind.0, kind.1, None, SockFlag::SOCK_CLOEXEC)?;
                for end in [&source, &sink] {
                    fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                }
                let sink = Some(sink);
                Ok(Self { source, sink })
            }
        }
    }

    /// What is read from: ours to wait on, or the other side's when we notify.
    pub fn source(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }

    /// What is written to: ours, or the other side's when it notifies.
    pub fn sink(&self) -> BorrowedFd<'_> {
        self.sink.as_ref().unwrap_or(&self.source).as_fd()
    }

    /// Notifies. Never blocks: where there is no room, enough is unread.
    #[inline]
    pub fn notify(&self) {
        // Nobody there to read is the other side's business; the connection's
        // end says the same and is noticed.
        let _ = write(self.sink(), &1u64.to_ne_bytes());
    }

    /// Takes every notification that has arrived; `false` when there was none.
    /// Never blocks.
    pub fn drain(&self) -> bool {
        let mut some = false;
        let mut room = [0; 64];
        loop {
            match read(self.source(), &mut room) {
                Ok(0) | Err(Errno::EAGAIN) => return some,
                // One read empties an eventfd.
                Ok(_) if self.sink.is_none() => return true,
                Ok(_) => some = true,
                Err(Errno::EINTR) => {}
                Err(_) => return some,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_add_up_and_are_taken_at_once() {
        for signalling in [
            Signalling::Eventfd,
            Signalling::Pipe,
            Signalling::SocketPair,
        ] {
            let notifier = Notifier::new(signalling).unwrap();
            assert!(!notifier.drain());
            // More than any pipe holds: nothing blocks.
            for _ in 0..100_000 {
                notifier.notify();
            }
            assert!(notifier.drain());
            assert!(!notifier.drain());
        }
    }
}
