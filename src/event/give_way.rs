//! Giving up the processor while something is waited for.

/// Lets every other thread of this processor that can run do so.
///
/// FreeBSD's sched_yield(2) lets only those of at least the same priority,
/// which whoever has slept of late takes from whoever has worked: it would wait
/// in the way of what it waits for. Its yield(2) lets all but real-time ones.
#[cfg(target_os = "freebsd")]
pub fn give_way() {
    /// yield(2), which the system's library does not have.
    const YIELD: libc::c_int = 321;
    // SAFETY: it has no arguments, and always succeeds.
    unsafe { libc::syscall(YIELD) };
}

/// Lets every other thread of this processor that can run do so.
#[cfg(not(target_os = "freebsd"))]
pub fn give_way() {
    std::thread::yield_now();
}
