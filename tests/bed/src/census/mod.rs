//! What a process holds and has used.

#[cfg(not(target_os = "freebsd"))]
mod linux;
#[cfg(not(target_os = "freebsd"))]
use linux as sys;
#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
use freebsd as sys;

use crate::Result;

pub use sys::{children, private_resident, processor_time};

/// The descriptors and the shared mappings of a process: what a session that
/// has ended must have given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// What each open descriptor is, sorted: a kind (`socket`), or a path.
    pub descriptors: Vec<String>,
    /// What each shared mapping is of, sorted: guest memory, above all.
    pub mappings: Vec<String>,
}

impl Census {
    /// Looks at process `id`.
    ///
    /// # Errors
    /// It is gone, or belongs to somebody else.
    pub fn of(id: u32) -> Result<Self> {
        let mut census = Self {
            descriptors: sys::descriptors(id)?,
            mappings: sys::shared_mappings(id)?,
        };
        census.descriptors.sort();
        census.mappings.sort();
        Ok(census)
    }
}
