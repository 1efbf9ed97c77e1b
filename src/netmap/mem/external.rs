//! Regions in a client's own memory (`NETMAP_REQ_OPT_EXTMEM`,
//! `netmap_mem_ext_create`).
//!
//! The pools follow each other without gaps, from the object's first byte on,
//! as on FreeBSD's kernel; what the client's memory has beyond them is more
//! buffers. Sizes are taken as they are, not rounded to cache lines, and
//! numbers not to whole pages. Other than in the kernel, sizes are multiples
//! of 8 bytes, so that numbers in them are aligned, and the piece of a buffer
//! that may be left at the end is none.

use std::num::NonZeroUsize;

use super::pool::{PoolLayout, PoolSize};
use super::{FIRST_BUFFER, MemError};
use crate::netmap::abi::nmreq::PoolsBody;

/// What a client says of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalConfig {
    /// Bytes, from the object's first on.
    pub bytes: u64,
    /// `netmap_if`s; a size or number of 0: the least of a port's own region.
    pub interfaces: PoolSize,
    /// Rings likewise.
    pub rings: PoolSize,
    /// Buffers likewise; there are more when there is room.
    pub buffers: PoolSize,
}

/// Where everything is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Bytes of the object, whole pages.
    pub len: NonZeroUsize,
    /// Interfaces, rings, buffers.
    pub layouts: [PoolLayout; 3],
}

/// A pool's name and the least that its objects must hold, in bytes.
const POOLS: [(&str, u32); 3] = [("interface", 64), ("ring", 256), ("buffer", 64)];
/// Objects are multiples of so many bytes.
const ALIGNMENT: u32 = 8;
/// Most objects of a pool, for each of which a bit is kept here: sixteen times
/// what other regions may have.
const MOST: u32 = 1 << 24;

impl ExternalConfig {
    /// What an option says (`nro_info`); zeros are replaced in it, as in the
    /// kernel.
    pub fn from_option(info: &mut PoolsBody, page: u32) -> Self {
        let or = |value: &mut u32, default| {
            if *value == 0 {
                *value = default;
            }
            *value
        };
        Self {
            bytes: info.nr_memsize,
            interfaces: PoolSize {
                size: or(&mut info.nr_if_pool_objsize, 1024),
                num: or(&mut info.nr_if_pool_objtotal, 2),
            },
            rings: PoolSize {
                size: or(&mut info.nr_ring_pool_objsize, 5 * page),
                num: or(&mut info.nr_ring_pool_objtotal, 4),
            },
            buffers: PoolSize {
                size: or(&mut info.nr_buf_pool_objsize, 2048),
                num: or(&mut info.nr_buf_pool_objtotal, 4098),
            },
        }
    }

    /// Lays the pools out, for pages of `page` bytes.
    ///
    /// # Errors
    /// When they do not fit, or an object is too small or not aligned.
    pub(super) fn plan(&self, page: u32) -> Result<Plan, MemError> {
        let bytes = self.bytes;
        let no_room = |what| MemError::NoRoom { what, bytes };
        let mut offset = 0;
        let mut layouts =
            [self.interfaces, self.rings, self.buffers].map(|PoolSize { size, num }| PoolLayout {
                offset: 0,
                size,
                num,
            });
        // What does not fit is told first, as the kernel tells nothing else.
        for (layout, (what, _)) in layouts.iter_mut().zip(POOLS) {
            layout.offset = offset;
            offset += layout.bytes();
            if offset > bytes {
                return Err(no_room(what));
            }
        }
        for (PoolLayout { size, num, .. }, (what, least)) in layouts.into_iter().zip(POOLS) {
            if size < least {
                let max = u32::MAX;
                return Err(MemError::Size {
                    what,
                    size,
                    min: least,
                    max,
                });
            }
            if size % ALIGNMENT != 0 {
                return Err(MemError::Alignment { what, size });
            }
            if num > MOST {
                return Err(MemError::Num {
                    what,
                    num,
                    min: 1,
                    max: MOST,
                });
            }
        }
        let [_, _, buffers] = &mut layouts;
        let more = (bytes - offset) / u64::from(buffers.size);
        let num = u64::from(buffers.num).saturating_add(more);
        buffers.num = u32::try_from(num).unwrap_or(MOST).min(MOST);
        if buffers.num <= FIRST_BUFFER {
            return Err(no_room("buffer"));
        }
        Ok(Plan {
            len: self.len(page)?,
            layouts,
        })
    }

    /// Bytes of the object that are used, in whole pages.
    ///
    /// # Errors
    /// When there are none, or more than can be mapped.
    pub(super) fn len(&self, page: u32) -> Result<NonZeroUsize, MemError> {
        let pages = self.bytes.checked_next_multiple_of(page.into());
        pages
            .and_then(|len| usize::try_from(len).ok())
            .and_then(NonZeroUsize::new)
            .ok_or(MemError::NoRoom {
                what: "interface",
                bytes: self.bytes,
            })
    }
}

#[cfg(test)]
mod tests;
