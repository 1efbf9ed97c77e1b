//! The functions that are stood in for: the next ones of their names, which
//! are the C library's unless somebody else stands in for them, too.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::mem::{size_of, transmute_copy};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{mode_t, nfds_t, off_t, pollfd, sigset_t, size_t, ssize_t, timespec};
use nix::errno::Errno;

/// A function of the C library, looked up when it is first called.
pub(crate) struct Real<F> {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
    kind: PhantomData<F>,
}

impl<F: Copy> Real<F> {
    /// # Safety
    /// `F` is a pointer to a C function of the type that `name` has.
    const unsafe fn new(name: &'static CStr) -> Self {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        Self {
            name,
            found: AtomicPtr::new(ptr::null_mut()),
            kind: PhantomData,
        }
    }

    /// The function.
    ///
    /// # Errors
    /// `ENOSYS`: the C library has none of that name.
    pub(crate) fn get(&self) -> Result<F, Errno> {
        let mut found = self.found.load(Ordering::Relaxed);
        if found.is_null() {
            // SAFETY: the name is a C string; dlsym(3) follows nothing else.
            found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            if found.is_null() {
                return Err(Errno::ENOSYS);
            }
            self.found.store(found, Ordering::Relaxed);
        }
        // SAFETY: not null, of a function pointer's size, and of the type that
        // `new` was promised.
        Ok(unsafe { transmute_copy(&found) })
    }
}

macro_rules! real {
    ($($(#[$doc:meta])* $name:ident = $symbol:literal: fn($($argument:ty),*) -> $result:ty;)*) => {
        $($(#[$doc])*
        pub(crate) static $name: Real<unsafe extern "C" fn($($argument),*) -> $result> = {
            // SAFETY: the type is the C library's prototype; see the page.
            unsafe { Real::new($symbol) }
        };)*

        /// Looks all of them up, before anybody is in a hurry: in a signal
        /// handler, or in the child of a fork.
        pub(crate) fn look_up() {
            // Who misses one is told when he calls it.
            $(let _ = $name.get();)*
        }
    };
}

// The calling convention passes the last argument of open(2), openat(2),
// ioctl(2) and fcntl(2) like any other on every machine that is served.
real! {
    /// open(2).
    OPEN = c"open": fn(*const c_char, c_int, mode_t) -> c_int;
    /// openat(2).
    OPENAT = c"openat": fn(c_int, *const c_char, c_int, mode_t) -> c_int;
    /// close(2).
    CLOSE = c"close": fn(c_int) -> c_int;
    /// dup2(2).
    DUP2 = c"dup2": fn(c_int, c_int) -> c_int;
    /// dup3(2).
    DUP3 = c"dup3": fn(c_int, c_int, c_int) -> c_int;
    /// close_range(2).
    CLOSE_RANGE = c"close_range": fn(libc::c_uint, libc::c_uint, c_int) -> c_int;
    /// closefrom(3).
    CLOSEFROM = c"closefrom": fn(c_int) -> ();
    /// ioctl(2).
    IOCTL = c"ioctl": fn(c_int, libc::c_ulong, *mut c_void) -> c_int;
    /// mmap(2).
    MMAP = c"mmap": fn(*mut c_void, size_t, c_int, c_int, c_int, off_t) -> *mut c_void;
    /// read(2).
    READ = c"read": fn(c_int, *mut c_void, size_t) -> ssize_t;
    /// write(2).
    WRITE = c"write": fn(c_int, *const c_void, size_t) -> ssize_t;
    /// poll(2).
    POLL = c"poll": fn(*mut pollfd, nfds_t, c_int) -> c_int;
    /// ppoll(2).
    PPOLL = c"ppoll": fn(*mut pollfd, nfds_t, *const timespec, *const sigset_t) -> c_int;
    /// select(2).
    SELECT = c"select": fn(
        c_int, *mut libc::fd_set, *mut libc::fd_set, *mut libc::fd_set, *mut libc::timeval
    ) -> c_int;
    /// pselect(2).
    PSELECT = c"pselect": fn(
        c_int, *mut libc::fd_set, *mut libc::fd_set, *mut libc::fd_set, *const timespec,
        *const sigset_t
    ) -> c_int;
}

#[cfg(target_os = "linux")]
pub(crate) mod system {
    //! What only Linux has.

    use libc::{c_int, sigset_t};

    use super::Real;

    real! {
        /// epoll_ctl(2).
        EPOLL_CTL = c"epoll_ctl": fn(c_int, c_int, c_int, *mut libc::epoll_event) -> c_int;
        /// epoll_pwait(2).
        EPOLL_PWAIT = c"epoll_pwait": fn(
            c_int, *mut libc::epoll_event, c_int, c_int, *const sigset_t
        ) -> c_int;
    }
}

#[cfg(target_os = "freebsd")]
pub(crate) mod system {
    //! What only FreeBSD has.

    use libc::{c_int, timespec};

    use super::Real;

    real! {
        /// kevent(2).
        KEVENT = c"kevent": fn(
            c_int, *const libc::kevent, c_int, *mut libc::kevent, c_int, *const timespec
        ) -> c_int;
    }
}
