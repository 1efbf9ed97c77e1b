//! How far a half of a pipe's link is, as both sides of it can see.
//!
//! ```text
//!  0 holder  u32  service  who syncs the half: 0 the service, or a channel
//!  4 busy    u32  holder   its number while it is in a sync
//!  8 hwcur   u32  holder   as the service's kring has them
//! 12 hwtail  u32  holder
//! 16 rhead   u32  holder
//! 20 rcur    u32  holder
//! 24 rtail   u32  holder
//! 28 passed  u32  holder   how far the other half may go
//! 32 awaited u32  service  somebody sleeps until `passed` changes
//! ```
//!
//! It is one cache line, behind the ring's slots where the ring's object has
//! room for it, so that whoever shares the region can be lent the half; a ring
//! that fills its object has it in private memory.
//!
//! **Holder and busy.** The holder says that it is busy before it looks whether
//! it holds the half still; the service takes the half back before it looks
//! whether somebody is busy. A fence lies between the two on both sides, so at
//! least one of them sees the other. Only one at a time says that it is busy, as
//! one that has lost the half may still try.
//!
//! **Passed and awaited.** Likewise: the holder passes slots before it looks
//! whether somebody waits for them, and who waits says so before it looks once
//! more. And whoever tells them takes the word back before it looks who is there
//! to be told, and who waits is there before it says so.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use crate::netmap::sync::{Hardware, User};
use crate::word::{AtomicU32, fence};

const HOLDER: usize = 0;
const BUSY: usize = 4;
const HWCUR: usize = 8;
const HWTAIL: usize = 12;
const RHEAD: usize = 16;
const RCUR: usize = 20;
const RTAIL: usize = 24;
const PASSED: usize = 28;
const AWAITED: usize = 32;

/// Bytes of it, and what it is aligned to.
pub const LINE: usize = 64;

/// Room for one in private memory, all zeros at first.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Line(UnsafeCell<[u64; LINE / 8]>);

// SAFETY: it is accessed through `Progress` alone, atomically.
unsafe impl Sync for Line {}

#[cfg(loom)]
impl Line {
    /// Lets a model's threads share it.
    pub fn share(&self) {
        crate::word::model::share(self.0.get().cast(), LINE, 4);
    }
}

/// How far one half is. What is read here may be a client's claim.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'m> {
    line: NonNull<u8>,
    memory: PhantomData<&'m ()>,
}

// SAFETY: an address, behind which everything is read and written atomically.
unsafe impl Send for Progress<'_> {}
// SAFETY: as above.
unsafe impl Sync for Progress<'_> {}

impl<'m> Progress<'m> {
    /// # Safety
    /// For `'m`, as many bytes as a [`Line`] has stay mapped at `line`, readable,
    /// writable, and aligned as that is. Whoever else has them makes atomic
    /// accesses, or shares the region and spoils numbers that are believed of
    /// nobody.
    pub unsafe fn new(line: NonNull<u8>) -> Self {
        Self {
            line,
            memory: PhantomData,
        }
    }

    /// That in private memory.
    pub fn private(line: &'m Line) -> Self {
        // SAFETY: borrowed for 'm, as long and aligned as its type says.
        unsafe { Self::new(NonNull::from(line).cast()) }
    }

    #[inline]
    fn word<const AT: usize>(&self) -> &'m AtomicU32 {
        const { assert!(AT % 4 == 0 && AT + 4 <= LINE) };
        // SAFETY: inside of the line, aligned, and mapped for 'm.
        unsafe { AtomicU32::from_ptr(self.line.add(AT).cast().as_ptr()) }
    }

    #[inline]
    fn get<const AT: usize>(&self) -> u32 {
        self.word::<AT>().load(Ordering::Relaxed)
    }

    #[inline]
    fn set<const AT: usize>(&self, value: u32) {
        self.word::<AT>().store(value, Ordering::Relaxed);
    }

    /// A new ring's: nobody holds it, and nothing is passed.
    pub fn clear(&self) {
        // SAFETY: the line is mapped, and all of it; nobody knows of the ring
        // yet.
        unsafe { self.line.write_bytes(0, LINE) };
    }

    /// Writes a word, as whoever shares the region may.
    #[cfg(test)]
    pub fn scribble(&self, word: usize, value: u32) {
        assert!(word < LINE / 4);
        // SAFETY: inside of the line, and aligned.
        unsafe { AtomicU32::from_ptr(self.line.cast().add(word).as_ptr()) }
            .store(value, Ordering::Relaxed);
    }

    /// How far the other half may go, and what was passed before is seen.
    #[inline]
    pub fn passed(&self) -> u32 {
        self.word::<PASSED>().load(Ordering::Acquire)
    }

    /// The other half may go so far.
    #[inline]
    pub fn pass(&self, passed: u32) {
        self.word::<PASSED>().store(passed, Ordering::Release);
    }

    /// Application and port are so far.
    #[inline]
    pub fn state(&self) -> (User, Hardware) {
        let user = User {
            rhead: self.get::<RHEAD>(),
            rcur: self.get::<RCUR>(),
            rtail: self.get::<RTAIL>(),
        };
        let hardware = Hardware {
            hwcur: self.get::<HWCUR>(),
            hwtail: self.get::<HWTAIL>(),
        };
        (user, hardware)
    }

    /// They are so far now.
    #[inline]
    pub fn set_state(&self, user: User, hardware: Hardware) {
        self.set::<RHEAD>(user.rhead);
        self.set::<RCUR>(user.rcur);
        self.set::<RTAIL>(user.rtail);
        self.set::<HWCUR>(hardware.hwcur);
        self.set::<HWTAIL>(hardware.hwtail);
    }

    /// The service: `holder` may sync the half from now on, once it is known how
    /// far that is. Returns whether it may: nobody is in a sync.
    pub fn lend(&self, holder: NonZeroU32) -> bool {
        let idle = self.word::<BUSY>().load(Ordering::Acquire) == 0;
        if idle {
            self.word::<HOLDER>().store(holder.get(), Ordering::Release);
        }
        idle
    }

    /// The service: nobody begins a sync any more. Returns whether the last one
    /// is over, and what it did is seen; asked again until it is.
    pub fn recall(&self) -> bool {
        self.set::<HOLDER>(0);
        fence(Ordering::SeqCst);
        self.word::<BUSY>().load(Ordering::Acquire) == 0
    }

    /// The holder: begins a sync, if `holder` has the half still. It ends with
    /// what is returned.
    #[inline]
    pub fn begin(self, holder: NonZeroU32) -> Option<Busy<'m>> {
        let (order, number) = (Ordering::Relaxed, holder.get());
        let busy = self.word::<BUSY>();
        busy.compare_exchange(0, number, order, order).ok()?;
        fence(Ordering::SeqCst);
        let busy = Busy(self);
        (self.word::<HOLDER>().load(Ordering::Acquire) == number).then_some(busy)
    }

    /// `holder` has the half.
    #[inline]
    pub fn is_held_by(&self, holder: NonZeroU32) -> bool {
        self.get::<HOLDER>() == holder.get()
    }

    /// The service: somebody is about to sleep until more is passed, and is
    /// there to be told. Who does looks once more before it sleeps.
    pub fn await_more(&self) {
        fence(Ordering::SeqCst);
        self.set::<AWAITED>(1);
        fence(Ordering::SeqCst);
    }

    /// The holder, after it has passed something: somebody is to be told.
    #[inline]
    pub fn is_awaited(&self) -> bool {
        fence(Ordering::SeqCst);
        self.get::<AWAITED>() != 0
    }

    /// The service: whoever is there is told now, once this returns.
    pub fn told(&self) {
        self.set::<AWAITED>(0);
        fence(Ordering::SeqCst);
    }
}

/// A holder that is in a sync.
pub struct Busy<'m>(Progress<'m>);

impl Drop for Busy<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.word::<BUSY>().store(0, Ordering::Release);
    }
}
