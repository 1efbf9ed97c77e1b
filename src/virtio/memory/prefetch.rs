//! Has the processor fetch a cache line from whoever has it, before it is
//! needed: between two processors that takes as long as dozens of frames' work.
//! Neither has any effect but on caches, whatever the address.

/// What is read soon.
#[inline]
pub fn for_reading(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch has no effect but on caches.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// What is written soon: it is taken from the others as well, for a line that
/// was fetched to be read has to be asked for a second time.
#[inline]
pub fn for_writing(at: *const u8) {
    // The intrinsic becomes a prefetch for reading unless the whole program is
    // built for processors that have this one; the others ignore it.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch has no effect but on caches.
    unsafe {
        std::arch::asm!(
            "prefetchw [{at}]",
            at = in(reg) at,
            options(nostack, preserves_flags, readonly),
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}
