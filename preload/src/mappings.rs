//! What the program has mapped where, as the system tells.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::stat::fstat;

/// Inode of a shared object; 0 where the system tells none.
pub(crate) type Identity = u64;

/// What kind of memory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Belongs to no file, and can be read and written.
    Anonymous,
    /// A shared object without a name, as memfd_create(2) makes it.
    Object(Identity),
    /// Anything else.
    Other,
}

/// A mapping.
struct Mapping {
    range: Range<u64>,
    kind: Kind,
}

/// Which object a descriptor is, as [`Kind::Object`] has it.
#[cfg(target_os = "linux")]
pub(crate) fn identity(fd: BorrowedFd<'_>) -> Option<Identity> {
    fstat(fd).ok().map(|stat| stat.st_ino)
}

/// This system does not tell which object a mapping has.
#[cfg(not(target_os = "linux"))]
pub(crate) fn identity(fd: BorrowedFd<'_>) -> Option<Identity> {
    fstat(fd).ok().map(|_| 0)
}

/// What is mapped in `range`, in order.
///
/// # Errors
/// `EFAULT`: nothing, in some of it; others: the system does not tell.
pub(crate) fn kinds(range: Range<u64>) -> Result<Vec<Kind>, Errno> {
    let mut found = Vec::new();
    let mut at = range.start;
    for mapping in all()? {
        if mapping.range.contains(&at) {
            found.push(mapping.kind);
            at = mapping.range.end;
        }
        if at >= range.end {
            return Ok(found);
        }
    }
    Err(Errno::EFAULT)
}

/// All mappings, in order of address.
#[cfg(target_os = "linux")]
fn all() -> Result<Vec<Mapping>, Errno> {
    let text = std::fs::read_to_string("/proc/self/maps");
    let text = text.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(text.lines().filter_map(parse).collect())
}

/// One line of proc(5)'s `maps`.
#[cfg(target_os = "linux")]
fn parse(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let may = fields.next()?;
    let inode = fields.nth(2)?.parse().ok()?;
    let name = fields.next().unwrap_or_default().trim_start();
    let nobodys = name.is_empty() || name == "[heap]" || name.starts_with("[anon");
    let is_shared = name == "/dev/zero (deleted)" || name.starts_with("[anon_shmem");
    let kind = if !may.starts_with("rw") {
        Kind::Other
    } else if (inode == 0 && nobodys) || is_shared {
        Kind::Anonymous
    } else if name.starts_with("/memfd:") {
        Kind::Object(inode)
    } else {
        Kind::Other
    };
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(Mapping {
        range: number(start)?..number(end)?,
        kind,
    })
}

/// All mappings, in order of address (`KERN_PROC_VMMAP`).
#[cfg(target_os = "freebsd")]
fn all() -> Result<Vec<Mapping>, Errno> {
    use std::mem::{offset_of, size_of};
    let pid = nix::unistd::getpid().as_raw();
    let name = [libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_VMMAP, pid];
    let mut len = 0;
    // SAFETY: a name of four numbers, and where the length is wanted.
    let asked = unsafe {
        libc::sysctl(
            name.as_ptr(),
            4,
            std::ptr::null_mut(),
            &raw mut len,
            std::ptr::null(),
            0,
        )
    };
    Errno::result(asked)?;
    // What is mapped meanwhile has room, too.
    let mut bytes = vec![0u8; len + len / 2];
    len = bytes.len();
    // SAFETY: as above, with room of `len` bytes.
    let asked = unsafe {
        libc::sysctl(
            name.as_ptr(),
            4,
            bytes.as_mut_ptr().cast(),
            &raw mut len,
            std::ptr::null(),
            0,
        )
    };
    Errno::result(asked)?;
    bytes.truncate(len);
    let mut rest = bytes.as_slice();
    let mut found = Vec::new();
    // Entries are as long as they say: the name at the end is cut.
    while let Some(size) = number(rest, offset_of!(libc::kinfo_vmentry, kve_structsize)) {
        let size = usize::try_from(size).unwrap_or(0);
        let Some((entry, behind)) = rest.split_at_checked(size).filter(|_| size > 0) else {
            break;
        };
        rest = behind;
        found.extend(parse(entry));
    }
    debug_assert!(size_of::<libc::kinfo_vmentry>() >= 32);
    Ok(found)
}

/// The number of 32 bits at an offset.
#[cfg(target_os = "freebsd")]
fn number(bytes: &[u8], at: usize) -> Option<i32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(i32::from_ne_bytes)
}

#[cfg(target_os = "freebsd")]
fn parse(entry: &[u8]) -> Option<Mapping> {
    use std::mem::offset_of;
    let long = |at: usize| {
        let bytes = entry.get(at..at.checked_add(8)?)?;
        bytes.try_into().ok().map(u64::from_ne_bytes)
    };
    let kind = number(entry, offset_of!(libc::kinfo_vmentry, kve_type))?;
    let may = number(entry, offset_of!(libc::kinfo_vmentry, kve_protection))?;
    let path = entry.get(offset_of!(libc::kinfo_vmentry, kve_path)..);
    let path = path.unwrap_or_default();
    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
    // KVME_PROT_READ and KVME_PROT_WRITE.
    let writable = may & 3 == 3;
    let kind = match (kind, path) {
        _ if !writable => Kind::Other,
        // Nothing of it has been touched yet.
        (libc::KVME_TYPE_NONE, b"") => Kind::Anonymous,
        (libc::KVME_TYPE_DEFAULT | libc::KVME_TYPE_SWAP, b"") => Kind::Anonymous,
        (libc::KVME_TYPE_SWAP, b"anon") => Kind::Object(0),
        _ => Kind::Other,
    };
    let start = long(offset_of!(libc::kinfo_vmentry, kve_start))?;
    let end = long(offset_of!(libc::kinfo_vmentry, kve_end))?;
    Some(Mapping {
        range: start..end,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_different_kinds() {
        let of = |at: u64| kinds(at..at + 1).unwrap();
        let local = 0u8;
        let code = memory_of_different_kinds as *const () as u64;
        assert_eq!(of(code), [Kind::Other]);
        let heap = Box::new([0u8; 100]);
        assert_eq!(of(heap.as_ptr() as u64), [Kind::Anonymous]);
        assert!(kinds(0..1).is_err());
        assert!(kinds((&raw const local as u64)..u64::MAX).is_err());
    }
}
