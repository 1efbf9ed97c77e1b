//! Memory of the program's that becomes a netmap region
//! (`NETMAP_REQ_OPT_EXTMEM`): a mapping of a new shared object is put in its
//! place, with the contents kept, and the object goes to the service.
//!
//! That is done to anonymous memory alone: what belongs to a file would no
//! longer. What other processes have of the memory already (a child's mapping of
//! shared memory) stays what it was; who is forked later shares the region.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::pwrite;
use nix::unistd::ftruncate;
use vtnetd::netmap::mem::page_size;

use crate::channel::move_up;
use crate::edge::say;
use crate::mappings::{Identity, Kind, identity, kinds};
use crate::memory;
use crate::real::MMAP;

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 16;

/// Memory that was put in place of the program's.
struct Replaced {
    at: u64,
    len: NonZeroUsize,
    identity: Identity,
    object: Option<OwnedFd>,
}

impl Replaced {
    /// The object, unless the program has closed it.
    fn object(&self) -> Option<BorrowedFd<'_>> {
        let object = self.object.as_ref()?;
        (identity(object.as_fd()) == Some(self.identity)).then(|| object.as_fd())
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        let closed = self.object().is_none();
        if let Some(object) = self.object.take().filter(|_| closed) {
            // The number may be somebody else's by now.
            let _ = object.into_raw_fd();
        }
    }
}

static REPLACED: Mutex<Vec<Replaced>> = Mutex::new(Vec::new());

fn replaced() -> MutexGuard<'static, Vec<Replaced>> {
    REPLACED.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// Held from before a fork until after it.
    static HELD: RefCell<Option<MutexGuard<'static, Vec<Replaced>>>> =
        const { RefCell::new(None) };
}

/// Before a fork: no other thread holds the lock.
pub(crate) fn hold() {
    let _ = HELD.try_with(|held| held.replace(Some(replaced())));
}

/// After a fork, in both processes: the memory, which is shared, and its object
/// are the child's too.
pub(crate) fn release() {
    let _ = HELD.try_with(RefCell::take);
}

/// The object behind `bytes` bytes of the program's memory at `at`, which is
/// made if there is none. `None`, and a line on stderr: it cannot be had.
pub(crate) fn object(at: u64, bytes: u64) -> Option<OwnedFd> {
    let refuse = |why: &str| {
        say(format_args!(
            "external memory of {bytes} bytes at {at:#x}: {why}"
        ));
        None
    };
    let page = u64::from(page_size());
    let len = bytes
        .checked_next_multiple_of(page)
        .and_then(|len| usize::try_from(len).ok())
        .and_then(NonZeroUsize::new);
    let Some(len) = len else {
        return refuse("there is no memory of that size; say how many bytes in nr_memsize");
    };
    if at % page != 0 {
        return refuse("it does not begin with a page; take it from mmap(2)");
    }
    let Some(end) = at.checked_add(len.get() as u64) else {
        return refuse("there is no such memory");
    };
    let mut all = replaced();
    let kinds = match kinds(at..end) {
        Ok(kinds) => kinds,
        Err(Errno::EFAULT) => return refuse("not all of it is there; map it first"),
        Err(errno) => return refuse(errno.desc()),
    };
    if let Some(known) = all.iter().position(|old| old.at == at && old.len == len) {
        let old = all.swap_remove(known);
        let same = kinds.iter().all(|kind| *kind == Kind::Object(old.identity));
        if let Some(object) = old.object().filter(|_| same) {
            let object = object.try_clone_to_owned().ok();
            all.push(old);
            return object;
        }
        // The program has put something else there.
    }
    if kinds.is_empty() || !kinds.iter().all(|kind| *kind == Kind::Anonymous) {
        return refuse("it is not all anonymous memory that can be read and written; map some");
    }
    match replace(at, bytes, len) {
        Ok(object) => {
            if let (Ok(own), Some(identity)) = (object.try_clone(), identity(object.as_fd())) {
                all.push(Replaced {
                    at,
                    len,
                    identity,
                    object: Some(move_up(own)),
                });
            }
            Some(object)
        }
        Err(Errno::EBUSY) => refuse("its last page has other things behind it; take whole pages"),
        Err(errno) => refuse(errno.desc()),
    }
}

/// Puts a shared object with the same contents there.
fn replace(at: u64, bytes: u64, len: NonZeroUsize) -> Result<OwnedFd, Errno> {
    let object = memfd_create(
        c"netmap-external",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?;
    let size = libc::off_t::try_from(len.get()).map_err(|_| Errno::EFBIG)?;
    ftruncate(&object, size)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&object, FcntlArg::F_ADD_SEALS(seals))?;
    copy(at, bytes, len, object.as_fd())?;
    let address = usize::try_from(at).map_err(|_| Errno::EFAULT)?;
    let map = MMAP.get()?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    let fd = object.as_raw_fd();
    // SAFETY: the program has said that this memory is netmap's from now on; it
    // is all anonymous and its own, and reads the same afterwards. Who writes to
    // it meanwhile would do so in the kernel's place, too.
    let mapped = unsafe { map(address as *mut _, len.get(), protection, flags, fd, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    Ok(object)
}

/// Copies what is not zero.
///
/// # Errors
/// `EBUSY`: there is something behind the last byte, on its page.
fn copy(at: u64, bytes: u64, len: NonZeroUsize, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut room = vec![0; CHUNK];
    for offset in (0..len.get()).step_by(CHUNK) {
        let part = room
            .get_mut(..CHUNK.min(len.get() - offset))
            .unwrap_or_default();
        if memory::copy_in(at + offset as u64, part) != part.len() {
            return Err(Errno::EFAULT);
        }
        let own = usize::try_from(bytes.saturating_sub(offset as u64)).unwrap_or(usize::MAX);
        let behind = part.get(own..).unwrap_or_default();
        if behind.iter().any(|byte| *byte != 0) {
            return Err(Errno::EBUSY);
        }
        if part.iter().all(|byte| *byte == 0) {
            continue;
        }
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::EFBIG)?;
        if pwrite(to, part, offset)? != part.len() {
            return Err(Errno::ENOSPC);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
    use nix::sys::stat::fstat;
    use nix::sys::uio::pread;

    use super::*;

    fn map(len: usize, flags: MapFlags) -> *mut u8 {
        let len = NonZeroUsize::new(len).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, which stays.
        let at = unsafe { mmap_anonymous(None, len, protection, flags) };
        at.unwrap().as_ptr().cast()
    }

    #[test]
    fn what_was_there_is_in_the_object_and_stays_shared() {
        for flags in [MapFlags::MAP_PRIVATE, MapFlags::MAP_SHARED] {
            let at = map(3 << 16, flags);
            // SAFETY: inside of the mapping.
            unsafe { at.add(70_000).write_volatile(7) };
            let fd = object(at as u64, (3 << 16) - 5).unwrap();
            let read = |at| {
                let mut byte = [0];
                assert_eq!(pread(&fd, &mut byte, at), Ok(1));
                byte[0]
            };
            assert_eq!(read(70_000), 7);
            // SAFETY: as above.
            unsafe { at.add(5).write_volatile(9) };
            assert_eq!(read(5), 9);
            assert_eq!(pwrite(&fd, &[3], 70_000), Ok(1));
            // SAFETY: as above.
            assert_eq!(unsafe { at.add(70_000).read_volatile() }, 3);
            // Once more, it is the same.
            let again = object(at as u64, (3 << 16) - 5).unwrap();
            assert_eq!(identity(again.as_fd()), identity(fd.as_fd()));
            assert!(object(at as u64, 1 << 16).is_none(), "a part of it");
        }
    }

    #[test]
    fn what_cannot_be_exchanged_is_left_alone() {
        let page = page_size() as usize;
        let at = map(4 * page, MapFlags::MAP_PRIVATE) as u64;
        assert!(object(at + 64, page as u64).is_none(), "not a page");
        assert!(object(at, 0).is_none(), "nothing");
        assert!(object(at, u64::MAX).is_none(), "no such memory");
        assert!(object(0, page as u64).is_none(), "nothing there");
        let end = at + 3 * page as u64 + 100;
        // SAFETY: inside of the mapping.
        unsafe { (end as *mut u8).write_volatile(1) };
        assert!(object(at, end - at).is_none(), "something behind");
        let code = what_cannot_be_exchanged_is_left_alone as *const () as u64;
        assert!(object(code - code % page as u64, page as u64).is_none());
    }

    #[test]
    fn memory_that_was_mapped_anew_is_another_object() {
        let page = page_size() as usize;
        let at = map(page, MapFlags::MAP_SHARED);
        let first = object(at as u64, page as u64).unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_ANON;
        // SAFETY: in place of our own mapping.
        let anew = unsafe { libc::mmap(at.cast(), page, protection, flags, -1, 0) };
        assert_eq!(anew, at.cast());
        let second = object(at as u64, page as u64).unwrap();
        let inode = |object: &OwnedFd| fstat(object).unwrap().st_ino;
        assert_ne!(inode(&first), inode(&second));
    }
}
