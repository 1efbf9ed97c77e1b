//! The symbols that stand in for the C library's. Each looks whether it is
//! about a connection to the service, and is the C library's function if not.
//!
//! open(2), openat(2) and ioctl(2) have a variable number of arguments in C. On
//! every machine that is served the last one is passed as if it were declared,
//! and what was not passed is not used.

use libc::{
    c_char, c_int, c_uint, c_ulong, c_void, fd_set, mode_t, nfds_t, off_t, pollfd, sigset_t,
    size_t, ssize_t, timespec, timeval,
};

use crate::connection::is_device;
use crate::edge::edge;
use crate::real::{self, Real};
use crate::{connection, files, polling};

/// The real function, or a failure.
fn or<F: Copy>(real: &Real<F>) -> Result<F, c_int> {
    real.get().map_err(|errno| edge(-1, || Err(errno)))
}

macro_rules! export {
    ($($(#[$meta:meta])* fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block)*) => {
        $($(#[$meta])*
        #[doc = concat!("Stands in for `", stringify!($name), "`.\n\n# Safety\nAs for that.")]
        // SAFETY: the name and type are the C library's, whose contract the
        // caller keeps; the name is exported to stand in for that function. A
        // test's own calls stay the C library's.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $result $body)*
    };
}

export! {
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        // SAFETY: the caller's string.
        if unsafe { is_device(path) } {
            return edge(-1, || connection::open(flags));
        }
        // SAFETY: the caller's.
        or(&real::OPEN).map_or_else(|failed| failed, |open| unsafe { open(path, flags, mode) })
    }

    fn openat(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        // SAFETY: the caller's string.
        if unsafe { is_device(path) } {
            return edge(-1, || connection::open(flags));
        }
        let real = or(&real::OPENAT);
        // SAFETY: the caller's.
        real.map_or_else(|failed| failed, |open| unsafe { open(at, path, flags, mode) })
    }

    fn close(fd: c_int) -> c_int {
        if let Err(errno) = files::closes(fd) {
            return edge(-1, || Err(errno));
        }
        // SAFETY: the caller's.
        or(&real::CLOSE).map_or_else(|failed| failed, |close| unsafe { close(fd) })
    }

    fn dup2(from: c_int, to: c_int) -> c_int {
        if from != to {
            files::becomes(to);
        }
        // SAFETY: the caller's.
        or(&real::DUP2).map_or_else(|failed| failed, |dup2| unsafe { dup2(from, to) })
    }

    fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int {
        files::becomes(to);
        // SAFETY: the caller's.
        or(&real::DUP3).map_or_else(|failed| failed, |dup3| unsafe { dup3(from, to, flags) })
    }

    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
        edge(-1, || files::close_range(first, last, flags).map(|()| 0))
    }

    fn closefrom(first: c_int) -> () {
        files::closefrom(first);
    }

    fn ioctl(fd: c_int, command: c_ulong, argument: *mut c_void) -> c_int {
        if let Some(done) = files::ioctl(fd, command, argument as u64) {
            return edge(-1, || done.map(|()| 0));
        }
        let real = or(&real::IOCTL);
        // SAFETY: the caller's.
        real.map_or_else(|failed| failed, |ioctl| unsafe { ioctl(fd, command, argument) })
    }

    fn mmap(
        at: *mut c_void, len: size_t, protection: c_int, flags: c_int, fd: c_int, offset: off_t
    ) -> *mut c_void {
        // SAFETY: the caller's.
        unsafe { files::mmap_or(at, len, protection, flags, fd, offset) }
    }

    fn read(fd: c_int, into: *mut c_void, len: size_t) -> ssize_t {
        if let Some(errno) = files::has_no_data(fd) {
            return edge(-1, || Err(errno));
        }
        match real::READ.get() {
            // SAFETY: the caller's.
            Ok(read) => unsafe { read(fd, into, len) },
            Err(errno) => edge(-1, || Err(errno)),
        }
    }

    fn write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t {
        if let Some(errno) = files::has_no_data(fd) {
            return edge(-1, || Err(errno));
        }
        match real::WRITE.get() {
            // SAFETY: the caller's.
            Ok(write) => unsafe { write(fd, from, len) },
            Err(errno) => edge(-1, || Err(errno)),
        }
    }

    fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
        // SAFETY: the caller's.
        unsafe { polling::poll_or(fds, count, timeout) }
    }

    fn ppoll(
        fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t
    ) -> c_int {
        // SAFETY: the caller's.
        unsafe { polling::ppoll_or(fds, count, timeout, mask) }
    }

    fn select(
        count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set,
        timeout: *mut timeval
    ) -> c_int {
        // SAFETY: the caller's.
        unsafe { polling::select_or(count, [read, write, except], timeout) }
    }

    fn pselect(
        count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set,
        timeout: *const timespec, mask: *const sigset_t
    ) -> c_int {
        // SAFETY: the caller's.
        unsafe { polling::pselect_or(count, [read, write, except], timeout, mask) }
    }
}

// The C library's names for the same with wider offsets, and for what a program
// calls that was compiled with _FORTIFY_SOURCE; the checks are the compiler's
// and the caller's, and the room that is told is not needed here.
#[cfg(target_os = "linux")]
export! {
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        // SAFETY: the caller's.
        unsafe { open(path, flags | libc::O_LARGEFILE, mode) }
    }

    fn openat64(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        // SAFETY: the caller's.
        unsafe { openat(at, path, flags | libc::O_LARGEFILE, mode) }
    }

    fn __open_2(path: *const c_char, flags: c_int) -> c_int {
        // SAFETY: the caller's.
        unsafe { open(path, flags, 0) }
    }

    fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
        // SAFETY: the caller's.
        unsafe { open64(path, flags, 0) }
    }

    fn __openat_2(at: c_int, path: *const c_char, flags: c_int) -> c_int {
        // SAFETY: the caller's.
        unsafe { openat(at, path, flags, 0) }
    }

    fn __openat64_2(at: c_int, path: *const c_char, flags: c_int) -> c_int {
        // SAFETY: the caller's.
        unsafe { openat64(at, path, flags, 0) }
    }

    fn mmap64(
        at: *mut c_void, len: size_t, protection: c_int, flags: c_int, fd: c_int, offset: off_t
    ) -> *mut c_void {
        // SAFETY: the caller's.
        unsafe { files::mmap_or(at, len, protection, flags, fd, offset) }
    }

    fn __poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, _room: size_t) -> c_int {
        // SAFETY: the caller's.
        unsafe { polling::poll_or(fds, count, timeout) }
    }

    fn __ppoll_chk(
        fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t,
        _room: size_t
    ) -> c_int {
        // SAFETY: the caller's.
        unsafe { polling::ppoll_or(fds, count, timeout, mask) }
    }

    fn epoll_ctl(queue: c_int, operation: c_int, fd: c_int, event: *mut libc::epoll_event) -> c_int {
        // SAFETY: the caller's.
        unsafe { crate::epoll::control_or(queue, operation, fd, event) }
    }

    fn epoll_wait(queue: c_int, events: *mut libc::epoll_event, count: c_int, timeout: c_int) -> c_int {
        // SAFETY: the caller's.
        unsafe { crate::epoll::wait_or(queue, events, count, timeout, std::ptr::null()) }
    }

    fn epoll_pwait(
        queue: c_int, events: *mut libc::epoll_event, count: c_int, timeout: c_int,
        mask: *const sigset_t
    ) -> c_int {
        // SAFETY: the caller's.
        unsafe { crate::epoll::wait_or(queue, events, count, timeout, mask) }
    }
}

#[cfg(target_os = "freebsd")]
export! {
    fn kevent(
        queue: c_int, changes: *const libc::kevent, change_count: c_int,
        events: *mut libc::kevent, count: c_int, timeout: *const timespec
    ) -> c_int {
        // SAFETY: the caller's.
        unsafe { crate::kevents::kevent_or(queue, changes, change_count, events, count, timeout) }
    }
}
