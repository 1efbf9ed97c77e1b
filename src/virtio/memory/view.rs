//! What a lookup has proved: a run of bytes that may be read, or written.
//!
//! The bytes may change at any time under us: a guest, a front end or another
//! process shares them. So a view never becomes a reference; it copies, and
//! what it copied is then judged.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, compiler_fence};

use super::prefetch;

#[cfg(test)]
thread_local! {
    /// Bytes that this thread's views have copied: for the test that a frame
    /// is copied once.
    pub static COPIED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Bytes of a cache line.
const LINE: usize = 64;
/// Up to so many bytes a loop copies faster than FreeBSD's memmove(3), which is
/// `rep movs`: that takes long to begin, and emulated processors long to go on.
const LOOP: usize = 2048;

/// A run of bytes that may be read while `'m` lasts.
#[derive(Clone, Copy, Debug)]
pub struct Readable<'m> {
    ptr: NonNull<u8>,
    len: u32,
    memory: PhantomData<&'m ()>,
}

/// A run of bytes that may be written (and read) while `'m` lasts.
#[derive(Clone, Copy, Debug)]
pub struct Writable<'m> {
    ptr: NonNull<u8>,
    len: u32,
    memory: PhantomData<&'m ()>,
}

/// What [`Readable`] and [`Writable`] have in common.
pub trait View<'m>: Copy {
    /// The bytes may be written.
    const WRITES: bool;

    /// # Safety
    /// `len` bytes at `ptr` must stay mapped for `'m`, and be writable if
    /// [`WRITES`](Self::WRITES) says so.
    unsafe fn new(ptr: NonNull<u8>, len: u32) -> Self;
}

impl<'m> View<'m> for Readable<'m> {
    const WRITES: bool = false;

    #[inline]
    unsafe fn new(ptr: NonNull<u8>, len: u32) -> Self {
        // SAFETY: by contract.
        unsafe { Readable::new(ptr, len) }
    }
}

impl<'m> View<'m> for Writable<'m> {
    const WRITES: bool = true;

    #[inline]
    unsafe fn new(ptr: NonNull<u8>, len: u32) -> Self {
        // SAFETY: by contract.
        unsafe { Writable::new(ptr, len) }
    }
}

impl<'m> Readable<'m> {
    /// # Safety
    /// `len` bytes at `ptr` must stay mapped for `'m`.
    #[inline]
    pub(crate) unsafe fn new(ptr: NonNull<u8>, len: u32) -> Self {
        Self {
            ptr,
            len,
            memory: PhantomData,
        }
    }

    /// Our own bytes, so that they can be sent like a guest's. What passes
    /// `u32::MAX` is left out; no frame comes near.
    pub fn from_slice(bytes: &'m [u8]) -> Self {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // SAFETY: the slice is borrowed for 'm, and only read.
        unsafe { Self::new(NonNull::from(bytes).cast(), len) }
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// There is nothing in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes from `at` on; empty when there are none.
    #[inline]
    pub fn skip(self, at: usize) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "bounded by a u32")]
        let at = at.min(self.len()) as u32;
        Self {
            // SAFETY: at most one past the end of the run.
            ptr: unsafe { self.ptr.add(at as usize) },
            len: self.len - at,
            memory: PhantomData,
        }
    }

    /// The first `len` bytes, or all.
    #[inline]
    pub fn truncate(self, len: usize) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "bounded by a u32")]
        let len = len.min(self.len()) as u32;
        Self { len, ..self }
    }

    /// Has the processor fetch the first bytes, which are read soon.
    #[inline]
    pub fn prefetch(&self) {
        lines(self.ptr, self.len, prefetch::for_reading);
    }

    /// Copies as much as both sides hold; returns how much.
    #[inline]
    pub fn read(&self, into: &mut [u8]) -> usize {
        let len = self.len().min(into.len());
        #[cfg(test)]
        COPIED.with(|copied| copied.set(copied.get() + len));
        // SAFETY: both sides hold `len` bytes, and no reference to guest
        // memory exists that `into` could overlap with.
        unsafe { ptr::copy_nonoverlapping(self.ptr.as_ptr(), into.as_mut_ptr(), len) };
        // What was copied is what is judged: the compiler must not read again.
        compiler_fence(Ordering::Acquire);
        len
    }

    /// The first `N` bytes, if there are so many.
    #[inline]
    pub fn read_array<const N: usize>(&self) -> Option<[u8; N]> {
        self.read_array_at(0)
    }

    /// The `N` bytes from `at` on, if there are so many.
    #[inline]
    pub fn read_array_at<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if self.len() < at.checked_add(N)? {
            return None;
        }
        #[cfg(test)]
        COPIED.with(|copied| copied.set(copied.get() + N));
        // SAFETY: N bytes are there from `at` on; a byte array needs no
        // alignment.
        let bytes = unsafe { self.ptr.add(at).cast::<[u8; N]>().read() };
        // What was copied is what is judged: the compiler must not read again.
        compiler_fence(Ordering::Acquire);
        Some(bytes)
    }

    /// For writev(2): the kernel copies, as a view does.
    pub fn iovec(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.ptr.as_ptr().cast(),
            iov_len: self.len(),
        }
    }
}

impl<'m> Writable<'m> {
    /// # Safety
    /// `len` bytes at `ptr` must stay mapped and writable for `'m`.
    #[inline]
    pub(crate) unsafe fn new(ptr: NonNull<u8>, len: u32) -> Self {
        Self {
            ptr,
            len,
            memory: PhantomData,
        }
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// There is no room in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The room from `at` on; empty when there is none.
    #[inline]
    pub fn skip(self, at: usize) -> Self {
        let rest = self.as_readable().skip(at);
        Self {
            ptr: rest.ptr,
            len: rest.len,
            memory: PhantomData,
        }
    }

    /// Has the processor fetch the first bytes: a header of `header` bytes,
    /// which is [updated](Self::update), and what is written behind it. A
    /// header that has its line for itself is read first, and often no more.
    #[inline]
    pub fn prefetch(&self, header: usize) {
        let behind = self.ptr.as_ptr().wrapping_add(header);
        if header > 0 && behind.addr() % LINE == 0 {
            prefetch::for_reading(self.ptr.as_ptr());
            prefetch::for_writing(behind);
        } else {
            lines(self.ptr, self.len, prefetch::for_writing);
        }
    }

    /// The same bytes, to read.
    #[inline]
    pub fn as_readable(self) -> Readable<'m> {
        Readable {
            ptr: self.ptr,
            len: self.len,
            memory: PhantomData,
        }
    }

    /// Copies as much as both sides hold; returns how much.
    #[inline]
    pub fn write(&self, from: &[u8]) -> usize {
        let len = self.len().min(from.len());
        #[cfg(test)]
        COPIED.with(|copied| copied.set(copied.get() + len));
        // SAFETY: both sides hold `len` bytes; `from` is ours alone.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), self.ptr.as_ptr(), len) };
        len
    }

    /// Copies all of `from`, if there is room. A length that the compiler knows
    /// makes this a move or two.
    #[inline]
    pub fn write_array<const N: usize>(&self, from: &[u8; N]) -> bool {
        let fits = self.len() >= N;
        if fits {
            #[cfg(test)]
            COPIED.with(|copied| copied.set(copied.get() + N));
            // SAFETY: there is room for N bytes; a byte array needs no
            // alignment.
            unsafe { self.ptr.cast::<[u8; N]>().write(*from) };
        }
        fits
    }

    /// Copies all of `from`, if there is room and it is not there already: a
    /// cache line that nobody writes stays where it is read.
    #[inline]
    pub fn update<const N: usize>(&self, from: &[u8; N]) {
        if self.as_readable().read_array() != Some(*from) {
            self.write_array(from);
        }
    }

    /// Copies from another view as much as both hold; returns how much.
    #[inline]
    pub fn write_from(&self, from: &Readable<'_>) -> usize {
        let len = self.len().min(from.len());
        #[cfg(test)]
        COPIED.with(|copied| copied.set(copied.get() + len));
        // SAFETY: both sides hold `len` bytes.
        unsafe { copy_bytes(from.ptr.as_ptr(), self.ptr.as_ptr(), len) };
        len
    }

    /// For readv(2): the kernel copies, as a view does.
    pub fn iovec(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.ptr.as_ptr().cast(),
            iov_len: self.len(),
        }
    }
}

/// Has the cache lines of a run's first bytes fetched, as many as the headers
/// and a short frame are on.
#[inline]
fn lines(ptr: NonNull<u8>, len: u32, fetch: impl Fn(*const u8)) {
    fetch(ptr.as_ptr());
    if len as usize > LINE {
        fetch(ptr.as_ptr().wrapping_add(LINE));
    }
}

/// Copies `len` bytes. A guest may make the two overlap, and then gets what it
/// has asked for. Short frames are most frames: what is up to two blocks long
/// is done here, without a call.
///
/// # Safety
/// Both must be mapped for `len` bytes.
#[inline]
unsafe fn copy_bytes(from: *const u8, to: *mut u8, len: usize) {
    /// Copies the first and the last `N` of `len` bytes, which may overlap.
    ///
    /// # Safety
    /// As for `copy_bytes`, and `len` is from `N` to `2 * N`.
    #[inline]
    unsafe fn ends<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: both blocks lie within `len` bytes.
        unsafe {
            ptr::copy(from, to, N);
            ptr::copy(from.add(len - N), to.add(len - N), N);
        }
    }
    // SAFETY: by contract, and each length is within its block's bounds.
    unsafe {
        match len {
            65..=128 => ends::<64>(from, to, len),
            33..=64 => ends::<32>(from, to, len),
            16..=32 => ends::<16>(from, to, len),
            129..=LOOP if cfg!(target_os = "freebsd") => {
                for at in (0..len - LINE).step_by(LINE) {
                    ptr::copy(from.add(at), to.add(at), LINE);
                }
                ptr::copy(from.add(len - LINE), to.add(len - LINE), LINE);
            }
            _ => ptr::copy(from, to, len),
        }
    }
}

/// Copies the first bytes of `parts` into `into`; returns how many there were.
#[inline]
pub fn gather<'m>(
    parts: impl IntoIterator<Item = impl Borrow<Readable<'m>>>,
    into: &mut [u8],
) -> usize {
    let mut done = 0;
    for part in parts {
        let rest = into.get_mut(done..).unwrap_or_default();
        done += part.borrow().read(rest);
        if done == into.len() {
            break;
        }
    }
    done
}

/// Copies from one list of views to another as much as both hold; returns how
/// many bytes. Empty views are stepped over.
#[inline]
pub fn copy(from: &[Readable<'_>], to: &[Writable<'_>]) -> usize {
    let (mut from, mut to) = (from.iter().copied(), to.iter().copied());
    let (Some(mut source), Some(mut room)) = (from.next(), to.next()) else {
        return 0;
    };
    let mut total = 0;
    loop {
        let copied = room.write_from(&source);
        total += copied;
        if copied == source.len() {
            match from.next() {
                Some(next) => source = next,
                None => return total,
            }
        } else {
            source = source.skip(copied);
        }
        if copied == room.len() {
            match to.next() {
                Some(next) => room = next,
                None => return total,
            }
        } else {
            room = room.skip(copied);
        }
    }
}
