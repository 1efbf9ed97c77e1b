//! The edge to C: results become return values and errno, and nothing unwinds
//! into the program.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;

/// What a C function returns that ended with `call`: its value, with errno as
/// it was, or `failed`, with errno set.
pub(crate) fn edge<T>(failed: T, call: impl FnOnce() -> Result<T, Errno>) -> T {
    let before = Errno::last_raw();
    // Nothing that a panic leaves half done is looked at again: channels are
    // thrown away when they are found in use.
    let ended = catch_unwind(AssertUnwindSafe(call));
    match ended.unwrap_or(Err(Errno::EIO)) {
        Ok(value) => {
            Errno::set_raw(before);
            value
        }
        Err(errno) => {
            errno.set();
            failed
        }
    }
}

/// Does `call`, whatever it is, and leaves errno as it was.
pub(crate) fn keeping_errno<T>(call: impl FnOnce() -> T) -> T {
    let before = Errno::last_raw();
    let value = call();
    Errno::set_raw(before);
    value
}

/// One line on stderr, in one write, if it can be had at all: the program's own
/// output goes on.
pub(crate) fn say(line: std::fmt::Arguments<'_>) {
    let line = format!("libvtnetmap: {line}\n");
    // Who cannot be told is not told.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_is_set_by_failures_alone() {
        Errno::EXDEV.set();
        let value = edge(-1, || {
            Errno::EBADF.set();
            Ok(7)
        });
        assert_eq!((value, Errno::last()), (7, Errno::EXDEV));
        assert_eq!(edge(-1, || Err(Errno::ENXIO)), -1);
        assert_eq!(Errno::last(), Errno::ENXIO);
    }

    #[test]
    fn a_panic_is_an_error_of_the_call() {
        assert_eq!(edge(-1, || panic!("a test")), -1);
        assert_eq!(Errno::last(), Errno::EIO);
    }
}
