//! From sysctl(3), `kern.proc`: packed records that each begin with their
//! length (sys/user.h).

use std::ffi::CStr;
use std::mem::{self, MaybeUninit};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{
    self, CTL_KERN, KERN_PROC, KERN_PROC_FILEDESC, KERN_PROC_PID, KERN_PROC_PROC, KERN_PROC_VMMAP,
    c_char, c_int, kinfo_file, kinfo_proc, kinfo_vmentry,
};

use crate::{Error, Result};

/// `KVME_FLAG_POSIXSHM` (sys/user.h): shm_open(2) or memfd_create(3) made it.
const POSIX_SHM: c_int = 0x0000_0100;
/// `KF_TYPE_EVENTFD`, which the libc crate has not.
const EVENTFD: c_int = 13;

/// The bytes of `kern.proc.WHAT.ID`.
fn sysctl(what: c_int, id: u32) -> Result<Vec<u8>> {
    let id = c_int::try_from(id).map_err(|_| Error::new("not a process ID"))?;
    let name = [CTL_KERN, KERN_PROC, what, id];
    let mut bytes = Vec::new();
    loop {
        let mut len = 0;
        let ask = |to: *mut u8, len: *mut usize| {
            // SAFETY: the name has four numbers, and `to` is room for `len`
            // bytes, or null, when only the length is asked for.
            let asked =
                unsafe { libc::sysctl(name.as_ptr(), 4, to.cast(), len, std::ptr::null(), 0) };
            Errno::result(asked)
        };
        ask(std::ptr::null_mut(), &raw mut len).map_err(|error| Error::new(error.desc()))?;
        bytes.resize(len, 0);
        match ask(bytes.as_mut_ptr(), &raw mut len) {
            Ok(_) => {
                bytes.truncate(len);
                return Ok(bytes);
            }
            // More was opened or mapped between the two.
            Err(Errno::ENOMEM) => {}
            Err(error) => return Err(Error::new(error.desc())),
        }
    }
}

/// The records of one kind; what they leave out at their end is zero.
///
/// # Safety
/// `T` is the kernel's structure: an `int` with its length first, and any bytes
/// make a valid one.
unsafe fn records<T>(bytes: &[u8]) -> Vec<T> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while let Some((first, _)) = rest.split_first_chunk() {
        let Ok(len @ 1..) = usize::try_from(c_int::from_ne_bytes(*first)) else {
            break;
        };
        let mut record = MaybeUninit::<T>::zeroed();
        let len = len.min(rest.len());
        // SAFETY: both have that many bytes, and any make a valid record, as
        // the caller promises.
        records.push(unsafe {
            let copied = len.min(mem::size_of::<T>());
            rest.as_ptr()
                .copy_to_nonoverlapping(record.as_mut_ptr().cast(), copied);
            record.assume_init()
        });
        rest = &rest[len..];
    }
    records
}

fn text(path: &[c_char]) -> String {
    let bytes: Vec<u8> = path.iter().flat_map(|byte| byte.to_ne_bytes()).collect();
    let text = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
    text.to_string_lossy().into_owned()
}

/// What each open descriptor is: the kind, or the path where it has one.
pub(super) fn descriptors(id: u32) -> Result<Vec<String>> {
    // SAFETY: the kernel's structure, of integers and characters.
    let files: Vec<kinfo_file> = unsafe { records(&sysctl(KERN_PROC_FILEDESC, id)?) };
    // Numbers below 0 are the working directory, the executable and such.
    let open = files.into_iter().filter(|file| file.kf_fd >= 0);
    Ok(open
        .map(|file| {
            let path = text(&file.kf_path);
            match file.kf_type {
                libc::KF_TYPE_SOCKET => "socket".to_owned(),
                libc::KF_TYPE_PIPE => "pipe".to_owned(),
                libc::KF_TYPE_KQUEUE => "kqueue".to_owned(),
                EVENTFD => "eventfd".to_owned(),
                _ if !path.is_empty() => path,
                kind => format!("kind {kind}"),
            }
        })
        .collect())
}

fn mappings(id: u32) -> Result<Vec<kinfo_vmentry>> {
    // SAFETY: the kernel's structure, of integers and characters.
    Ok(unsafe { records(&sysctl(KERN_PROC_VMMAP, id)?) })
}

/// Shared memory objects and devices that are mapped.
pub(super) fn shared_mappings(id: u32) -> Result<Vec<String>> {
    let shared = mappings(id)?.into_iter().filter(|mapping| {
        mapping.kve_flags & POSIX_SHM != 0
            || [libc::KVME_TYPE_DEVICE, libc::KVME_TYPE_MGTDEVICE].contains(&mapping.kve_type)
    });
    Ok(shared
        .map(|mapping| match text(mapping.kve_path.as_flattened()) {
            // memfd_create(3) and SHM_ANON leave no name.
            path if path.is_empty() => "anonymous".to_owned(),
            path => path,
        })
        .collect())
}

/// Bytes of memory that process `id` has resident and shares with nobody.
///
/// # Errors
/// It is gone, or belongs to somebody else.
pub fn private_resident(id: u32) -> Result<u64> {
    let pages = mappings(id)?
        .into_iter()
        .map(|mapping| mapping.kve_private_resident);
    Ok(pages
        .map(|pages| u64::try_from(pages).unwrap_or(0) * 4096)
        .sum())
}

/// The processes that process `id` has started and that live, such as the
/// opener of vtnetd.
///
/// # Errors
/// The system does not tell.
pub fn children(id: u32) -> Result<Vec<u32>> {
    // SAFETY: as in `processor_time`; the number behind it is not looked at.
    let all: Vec<kinfo_proc> = unsafe { records(&sysctl(KERN_PROC_PROC, 0)?) };
    let number = |pid| u32::try_from(pid).ok();
    Ok(all
        .into_iter()
        .filter(|process| number(process.ki_ppid) == Some(id))
        .filter_map(|process| number(process.ki_pid))
        .collect())
}

/// The processor time that the threads of process `id` have used.
///
/// # Errors
/// It is gone.
pub fn processor_time(id: u32) -> Result<Duration> {
    // SAFETY: the kernel's structure; any bytes are valid pointers and numbers.
    let process: Vec<kinfo_proc> = unsafe { records(&sysctl(KERN_PROC_PID, id)?) };
    let process = process
        .first()
        .ok_or_else(|| Error::new("no such process"))?;
    Ok(Duration::from_micros(process.ki_runtime))
}
