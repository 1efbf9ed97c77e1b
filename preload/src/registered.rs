//! Connections that a program has registered with an epoll or kqueue
//! descriptor. The system cannot be asked what the service has, so they are
//! kept here, by the descriptor's number; a fork's child has them, too.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One registration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<T> {
    /// The epoll or kqueue descriptor.
    pub(crate) queue: RawFd,
    /// The connection.
    pub(crate) fd: RawFd,
    /// How it is registered.
    pub(crate) how: T,
}

/// All registrations.
pub(crate) struct Registered<T: 'static> {
    items: Mutex<Vec<Item<T>>>,
    count: AtomicUsize,
}

impl<T: Copy> Registered<T> {
    pub(crate) const fn new() -> Self {
        Self {
            items: Mutex::new(Vec::new()),
            count: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Item<T>>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is none at all, as in most programs.
    #[inline]
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Those of one queue.
    pub(crate) fn of(&self, queue: RawFd) -> Vec<Item<T>> {
        if self.is_empty() {
            return Vec::new();
        }
        let items = self.lock();
        items
            .iter()
            .filter(|item| item.queue == queue)
            .copied()
            .collect()
    }

    /// Changes the list.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Vec<Item<T>>) -> R) -> R {
        let mut items = self.lock();
        let result = change(&mut items);
        self.count.store(items.len(), Ordering::Release);
        result
    }

    /// `fd` is closed, or becomes another.
    pub(crate) fn forget(&self, fd: RawFd) {
        if !self.is_empty() {
            self.change(|items| items.retain(|item| item.queue != fd && item.fd != fd));
        }
    }
}

/// How this system registers.
#[cfg(target_os = "linux")]
pub(crate) type How = libc::epoll_event;
/// How this system registers.
#[cfg(not(target_os = "linux"))]
pub(crate) type How = libc::kevent;

/// A `T` that any thread may have: structures of numbers, the program's pointers
/// among them, which are not followed here.
#[derive(Clone, Copy)]
pub(crate) struct Opaque(pub(crate) How);

// SAFETY: nothing of it is followed; it goes back to the program as it came.
unsafe impl Send for Opaque {}

/// All registrations of this process.
pub(crate) static REGISTERED: Registered<Opaque> = Registered::new();

type Guard = MutexGuard<'static, Vec<Item<Opaque>>>;

thread_local! {
    /// Held from before a fork until after it.
    static HELD: RefCell<Option<Guard>> = const { RefCell::new(None) };
}

/// Before a fork: no other thread holds the lock, which nobody in the child
/// would ever let go.
pub(crate) fn hold() {
    let _ = HELD.try_with(|held| held.replace(Some(REGISTERED.lock())));
}

/// After a fork, in both processes.
pub(crate) fn release() {
    let _ = HELD.try_with(RefCell::take);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_is_registered_no_more() {
        let registered = Registered::new();
        let item = |queue, fd| Item { queue, fd, how: 0 };
        registered.change(|items| items.extend([item(3, 4), item(3, 5), item(6, 4), item(6, 7)]));
        assert_eq!(registered.of(3).len(), 2);
        registered.forget(4);
        assert_eq!(registered.of(3).len(), 1);
        registered.forget(6);
        assert!(registered.of(6).is_empty());
        registered.forget(3);
        assert!(registered.is_empty());
    }
}
