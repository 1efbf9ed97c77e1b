//! Words of memory that somebody else writes meanwhile: how rings, ring
//! pointers and sync pages are read, written and put in order.
//!
//! To the machine these are plain loads and stores. Built with `--cfg loom` the
//! same calls go to a `model` of memory, which tries every order in which
//! threads may come to see each other's stores; so the models test the code
//! that runs, and no copy of it.

#[cfg(loom)]
pub mod model;

#[cfg(loom)]
pub use model::{AtomicU16, AtomicU32, AtomicU64, fence, load, store};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, fence};

/// Reads a word once, in no order with others.
///
/// # Safety
/// As for [`read_volatile`](std::ptr::read_volatile), but that others may
/// write the word at any time.
#[cfg(not(loom))]
#[inline(always)]
pub unsafe fn load<T: Copy>(at: *const T) -> T {
    // SAFETY: by contract.
    unsafe { at.read_volatile() }
}

/// Writes a word once, in no order with others.
///
/// # Safety
/// As for [`write_volatile`](std::ptr::write_volatile), but that others may
/// read or write the word at any time.
#[cfg(not(loom))]
#[inline(always)]
pub unsafe fn store<T: Copy>(at: *mut T, value: T) {
    // SAFETY: by contract.
    unsafe { at.write_volatile(value) }
}
