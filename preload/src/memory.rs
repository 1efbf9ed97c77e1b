//! The program's memory, as a request names it: what is not there is an error
//! and no signal, so every copy is the kernel's.

use nix::errno::Errno;

/// Copies from `at` until `into` is full, as far as there is memory; how many
/// bytes that were.
#[cfg(target_os = "linux")]
pub(crate) fn copy_in(at: u64, into: &mut [u8]) -> usize {
    use nix::sys::uio::{RemoteIoVec, process_vm_readv};
    use nix::unistd::Pid;
    let Ok(base) = usize::try_from(at) else {
        return 0;
    };
    let remote = [RemoteIoVec {
        base,
        len: into.len(),
    }];
    let local = &mut [std::io::IoSliceMut::new(into)];
    process_vm_readv(Pid::this(), local, &remote).unwrap_or(0)
}

/// Copies `from` to `at`.
///
/// # Errors
/// `EFAULT`: not all of it is there to be written.
#[cfg(target_os = "linux")]
pub(crate) fn copy_out(at: u64, from: &[u8]) -> Result<(), Errno> {
    use nix::sys::uio::{RemoteIoVec, process_vm_writev};
    use nix::unistd::Pid;
    let base = usize::try_from(at).map_err(|_| Errno::EFAULT)?;
    let remote = [RemoteIoVec {
        base,
        len: from.len(),
    }];
    let local = [std::io::IoSlice::new(from)];
    match process_vm_writev(Pid::this(), &local, &remote) {
        Ok(copied) if copied == from.len() => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Most bytes that go through a pipe at once: what it has room for.
#[cfg(not(target_os = "linux"))]
const PIPE: usize = 4096;

/// As above; this system copies between a process and itself by way of a pipe.
#[cfg(not(target_os = "linux"))]
pub(crate) fn copy_in(at: u64, into: &mut [u8]) -> usize {
    let Ok((reader, writer)) = nix::unistd::pipe() else {
        return 0;
    };
    let mut done = 0;
    for part in into.chunks_mut(PIPE) {
        let from = at.wrapping_add(done as u64);
        let Ok(from) = usize::try_from(from) else {
            break;
        };
        // SAFETY: write(2) is told an address of the program's and answers
        // EFAULT where there is nothing; nothing is followed here.
        let written = unsafe { raw_write(&writer, from as *const _, part.len()) };
        let Some(part) = part.get_mut(..written.unwrap_or(0)) else {
            break;
        };
        match nix::unistd::read(&reader, part) {
            Ok(read) if read > 0 => done += read,
            _ => break,
        }
    }
    done
}

/// As above.
///
/// # Errors
/// `EFAULT`: not all of it is there to be written.
#[cfg(not(target_os = "linux"))]
pub(crate) fn copy_out(at: u64, from: &[u8]) -> Result<(), Errno> {
    let (reader, writer) = nix::unistd::pipe().map_err(|_| Errno::EFAULT)?;
    let mut done = 0;
    for part in from.chunks(PIPE) {
        let to = usize::try_from(at.wrapping_add(done)).map_err(|_| Errno::EFAULT)?;
        let written = nix::unistd::write(&writer, part)?;
        // SAFETY: read(2) is told an address of the program's, which has asked
        // for an answer there, and answers EFAULT where there is nothing.
        let read = unsafe { raw_read(&reader, to as *mut _, written) };
        if read.ok() != Some(part.len()) {
            return Err(Errno::EFAULT);
        }
        done += part.len() as u64;
    }
    Ok(())
}

/// write(2) of `len` bytes at an address that may be nothing's.
///
/// # Safety
/// None of its own: the kernel checks the address.
#[cfg(not(target_os = "linux"))]
unsafe fn raw_write(
    to: &std::os::fd::OwnedFd,
    from: *const std::ffi::c_void,
    len: usize,
) -> Result<usize, Errno> {
    use std::os::fd::AsRawFd;
    // SAFETY: the caller's.
    let written = unsafe { libc::write(to.as_raw_fd(), from, len) };
    Errno::result(written).map(|written| usize::try_from(written).unwrap_or(0))
}

/// read(2) of `len` bytes to an address that may be nothing's.
///
/// # Safety
/// No reference to that memory is alive.
#[cfg(not(target_os = "linux"))]
unsafe fn raw_read(
    from: &std::os::fd::OwnedFd,
    to: *mut std::ffi::c_void,
    len: usize,
) -> Result<usize, Errno> {
    use std::os::fd::AsRawFd;
    // SAFETY: the caller's.
    let read = unsafe { libc::read(from.as_raw_fd(), to, len) };
    Errno::result(read).map(|read| usize::try_from(read).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_there_is_copied_both_ways() {
        let from = [7_u8; 9000];
        let mut into = [0; 9000];
        assert_eq!(copy_in(from.as_ptr() as u64, &mut into), 9000);
        assert_eq!(into, from);
        let mut to = [0_u8; 9000];
        copy_out(to.as_mut_ptr() as u64, &from).unwrap();
        assert_eq!(std::hint::black_box(to), from);
    }

    #[test]
    fn memory_that_is_not_there_is_no_signal() {
        let mut into = [0; 16];
        for at in [0, 8, 0x10, u64::MAX - 3] {
            assert_eq!(copy_in(at, &mut into), 0);
            assert_eq!(copy_out(at, &into), Err(Errno::EFAULT));
        }
        // Read-only memory is there, but not to be written.
        let constant = c"constant";
        let refused = copy_out(constant.as_ptr() as u64, b"x");
        assert_eq!(refused, Err(Errno::EFAULT));
    }

    #[test]
    fn what_ends_early_is_copied_as_far_as_it_goes() {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
        let len = std::num::NonZeroUsize::new(8192).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, used by its number alone.
        let at = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_PRIVATE) }.unwrap();
        // SAFETY: the second page of it.
        unsafe { mprotect(at.add(4096), 4096, ProtFlags::PROT_NONE) }.unwrap();
        let begin = at.as_ptr() as u64 + 4000;
        let mut into = [1; 200];
        assert!(copy_in(begin, &mut into) <= 96);
        assert_eq!(copy_out(begin, &into), Err(Errno::EFAULT));
    }
}
