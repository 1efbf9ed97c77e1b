//! Who runs where.

use std::panic::resume_unwind;
use std::thread;

use bed::{Error, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// The processor that a back end has for itself.
pub const BACK_END: u32 = 0;
/// The processor of the front end.
pub const FRONT_END: u32 = 1;

/// Has the calling thread run on `processor` alone.
///
/// # Errors
/// There is no such processor here.
pub fn pin(processor: u32) -> Result<()> {
    let mut set = CpuSet::new();
    let number = usize::try_from(processor).unwrap_or(usize::MAX);
    set.set(number)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|error| {
            Error::new(format!(
                "processor {processor}: {error}: a comparison takes processors 0 and 1"
            ))
        })
}

/// Calls `body` on a thread of its own that runs on `processor`.
///
/// # Errors
/// There is no such processor here.
///
/// # Panics
/// When `body` does.
pub fn on<T: Send>(processor: u32, body: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            pin(processor)?;
            Ok(body())
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}
