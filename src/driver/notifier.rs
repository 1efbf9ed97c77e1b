//! Kicks and interrupts: a counter or a byte stream of which nothing matters
//! but that there is something to read.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read, write};

/// One end of a notification on which the other side's end can be passed on.
#[derive(Debug)]
pub struct Notifier {
    /// An eventfd, or a pipe's reading end.
    source: OwnedFd,
    /// A pipe's writing end.
    sink: Option<OwnedFd>,
}

impl Notifier {
    /// An eventfd where there are such, else a pipe.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    #[cfg(target_os = "linux")]
    pub fn new() -> nix::Result<Self> {
        use nix::sys::eventfd::{EfdFlags, EventFd};
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Self {
            source: EventFd::from_flags(flags)?.into(),
            sink: None,
        })
    }

    /// An eventfd where there are such, else a pipe.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    #[cfg(not(target_os = "linux"))]
    pub fn new() -> nix::Result<Self> {
        Self::pipe()
    }

    /// A pipe, as front ends on systems without eventfd use.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn pipe() -> nix::Result<Self> {
        let (source, sink) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        Ok(Self {
            source,
            sink: Some(sink),
        })
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
        for notifier in [Notifier::new().unwrap(), Notifier::pipe().unwrap()] {
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
