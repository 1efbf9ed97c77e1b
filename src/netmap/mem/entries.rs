//! Ring pointers in a client's own memory (`NETMAP_REQ_OPT_CSB`), as the loop
//! sees them that syncs the client's rings in the client's process.
//!
//! Two pointers cannot be written at once, so each side writes them in an
//! order in which nothing that the other side may read is wrong:
//!
//! ```text
//!   client            loop              loop              client
//!   store cur         load head         store hwcur       load hwtail
//!   release <-------> acquire           release <-------> acquire
//!   store head        load cur          store hwtail      load hwcur
//! ```
//!
//! `cur` may be newer than `head`, and `hwcur` than `hwtail`, never the other
//! way round.

use std::marker::PhantomData;
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use crate::netmap::abi::option::{AppToKernel, KernelToApp};
use crate::netmap::sync::{Hardware, Pointers};
use crate::word::{AtomicU32, fence};

/// A client's entries, one each way for every ring, while `'m` lasts.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'m> {
    atok: NonNull<AppToKernel>,
    ktoa: NonNull<KernelToApp>,
    count: usize,
    memory: PhantomData<&'m ()>,
}

/// One ring's.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'m> {
    atok: NonNull<u8>,
    ktoa: NonNull<u8>,
    memory: PhantomData<&'m ()>,
}

impl<'m> Entries<'m> {
    /// # Safety
    /// For `'m`, `count` entries must stay mapped at either address, aligned
    /// to 4 bytes, readable and writable, and be accessed only as numbers of
    /// 32 bits. Whoever else does may be of another language.
    pub unsafe fn new(
        atok: NonNull<AppToKernel>,
        ktoa: NonNull<KernelToApp>,
        count: usize,
    ) -> Self {
        Self {
            atok,
            ktoa,
            count,
            memory: PhantomData,
        }
    }

    /// The entry of ring `nth`, transmit rings first, if there is such.
    pub fn entry(&self, nth: usize) -> Option<Entry<'m>> {
        // SAFETY: there are more than `nth`.
        (nth < self.count).then(|| unsafe {
            Entry {
                atok: self.atok.add(nth).cast(),
                ktoa: self.ktoa.add(nth).cast(),
                memory: PhantomData,
            }
        })
    }
}

impl<'m> Entry<'m> {
    #[inline]
    fn theirs(&self, offset: usize) -> &'m AtomicU32 {
        // SAFETY: the offset is that of a number of an entry, which is mapped
        // and aligned as long as 'm lasts.
        unsafe { AtomicU32::from_ptr(self.atok.add(offset).cast().as_ptr()) }
    }

    #[inline]
    fn ours(&self, offset: usize) -> &'m AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.ktoa.add(offset).cast().as_ptr()) }
    }

    /// Where the client is. What it wrote to slots before is seen after.
    #[inline]
    pub fn pointers(&self) -> Pointers {
        let head = self
            .theirs(offset_of!(AppToKernel, head))
            .load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let cur = self
            .theirs(offset_of!(AppToKernel, cur))
            .load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        Pointers { head, cur }
    }

    /// Tells the client how far its ring is. What was written to slots before
    /// is there when it sees that.
    #[inline]
    pub fn publish(&self, Hardware { hwcur, hwtail }: Hardware) {
        fence(Ordering::Release);
        self.ours(offset_of!(KernelToApp, hwcur))
            .store(hwcur, Ordering::Relaxed);
        fence(Ordering::Release);
        self.ours(offset_of!(KernelToApp, hwtail))
            .store(hwtail, Ordering::Relaxed);
    }

    /// How far the ring is, as the client was told.
    pub fn published(&self) -> Hardware {
        let hwtail = self
            .ours(offset_of!(KernelToApp, hwtail))
            .load(Ordering::Acquire);
        let hwcur = self
            .ours(offset_of!(KernelToApp, hwcur))
            .load(Ordering::Relaxed);
        Hardware { hwcur, hwtail }
    }

    /// Says whether the client is to wake the loop for this ring. Who says yes
    /// looks once more, at [`pointers`](Self::pointers): either it sees what
    /// the client has just written, or the client sees this.
    #[inline]
    pub fn want_kick(&self, wanted: bool) {
        self.ours(offset_of!(KernelToApp, kern_need_kick))
            .store(wanted.into(), Ordering::Relaxed);
        if wanted {
            fence(Ordering::SeqCst);
        }
    }

    /// The client is to be woken for this ring. Asked after
    /// [`publish`](Self::publish): either the client sees that, or it is seen
    /// to wait.
    #[inline]
    pub fn is_awaited(&self) -> bool {
        fence(Ordering::SeqCst);
        let wanted = self.theirs(offset_of!(AppToKernel, appl_need_kick));
        wanted.load(Ordering::Relaxed) != 0
    }
}
