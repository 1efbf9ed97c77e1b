//! From proc(5).

use std::time::Duration;
use std::{fs, io};

use crate::{Error, Result};

pub(super) fn descriptors(id: u32) -> Result<Vec<String>> {
    let mut descriptors = Vec::new();
    for entry in fs::read_dir(format!("/proc/{id}/fd"))? {
        let target = match fs::read_link(entry?.path()) {
            // It was closed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            target => target?,
        };
        let target = target.to_string_lossy();
        // Sockets and pipes have numbers that are never the same again.
        let kind = target.split(":[").next().unwrap_or(&target);
        descriptors.push(if kind == "anon_inode" {
            target.to_string()
        } else {
            kind.to_owned()
        });
    }
    Ok(descriptors)
}

pub(super) fn shared_mappings(id: u32) -> Result<Vec<String>> {
    let shared = mappings(id)?.into_iter().filter(|mapping| mapping.shared);
    Ok(shared.map(|mapping| mapping.of).collect())
}

struct Mapping {
    shared: bool,
    of: String,
    resident: u64,
}

fn mappings(id: u32) -> Result<Vec<Mapping>> {
    let mut mappings = Vec::new();
    for line in fs::read_to_string(format!("/proc/{id}/smaps"))?.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first == "Rss:" {
            let kibibytes: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            if let Some(mapping) = mappings.last_mut() {
                let Mapping { resident, .. } = mapping;
                *resident = kibibytes * 1024;
            }
        } else if !first.ends_with(':') {
            // START-END PERMISSIONS OFFSET DEVICE INODE PATH
            let shared = words
                .next()
                .is_some_and(|permissions| permissions.ends_with('s'));
            let of = words.skip(3).collect::<Vec<_>>().join(" ");
            mappings.push(Mapping {
                shared,
                of,
                resident: 0,
            });
        }
    }
    Ok(mappings)
}

/// Bytes of memory that process `id` has resident and shares with nobody by a
/// shared mapping.
///
/// # Errors
/// It is gone, or belongs to somebody else.
pub fn private_resident(id: u32) -> Result<u64> {
    let private = mappings(id)?.into_iter().filter(|mapping| !mapping.shared);
    Ok(private.map(|mapping| mapping.resident).sum())
}

/// The processes that process `id` has started and that live, such as the
/// opener of vtnetd.
///
/// # Errors
/// It is gone, or belongs to somebody else.
pub fn children(id: u32) -> Result<Vec<u32>> {
    let text = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    text.split_whitespace()
        .map(|child| child.parse().map_err(|_| Error::new("children: no number")))
        .collect()
}

/// The processor time that the threads of process `id` have used.
///
/// # Errors
/// It is gone, or this kernel does not count it to the nanosecond.
pub fn processor_time(id: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{id}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let used: u64 = text
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .ok_or_else(|| Error::new("schedstat: no processor time"))?;
        nanoseconds += used;
    }
    Ok(Duration::from_nanos(nanoseconds))
}
