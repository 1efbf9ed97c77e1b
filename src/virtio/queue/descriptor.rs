//! What the formats have in common: tables of descriptors in guest memory, and
//! how one descriptor becomes buffers of a chain.

use std::ptr::{self, NonNull};

use super::{ChainFault, Parts};
use crate::virtio::memory::{GuestMemory, Readable, View, Window, Writable, prefetch};
use crate::virtio::spec::desc;
use crate::word;

/// Bytes of a descriptor, in either format.
pub(super) const DESC: u16 = 16;
/// Most descriptors of a chain, empty ones included, so that a chain is never
/// long work. No driver comes near.
const MAX_CHAIN: u16 = 288;

/// A descriptor, read once.
#[derive(Clone, Copy)]
pub(super) struct Descriptor {
    /// Guest address of the buffer.
    pub(super) addr: u64,
    /// Bytes of the buffer.
    pub(super) len: u32,
    /// The 16 bits after the length: flags (split), buffer ID (packed).
    third: u16,
    /// The last 16 bits: next descriptor (split), flags (packed).
    fourth: u16,
}

impl Descriptor {
    /// `flags` and `next`, as section 2.7.5 has them.
    #[inline]
    pub(super) fn split(self) -> (u16, u16) {
        (self.third, self.fourth)
    }

    /// `flags` and `id`, as section 2.8.13 has them.
    #[inline]
    pub(super) fn packed(self) -> (u16, u16) {
        (self.fourth, self.third)
    }

    /// The buffer, if with these `flags` it is a whole chain that is to be used
    /// as `V` is, and lies in `window`.
    #[inline]
    pub(super) fn lone<'m, V: View<'m>>(self, flags: u16, window: &Window<'m>) -> Option<V> {
        let wanted = if V::WRITES { desc::F_WRITE } else { 0 };
        if flags & (desc::F_NEXT | desc::F_INDIRECT | desc::F_WRITE) != wanted {
            return None;
        }
        window.view(self.addr, self.len)
    }
}

/// A descriptor table that lies in guest memory: a ring's own or an indirect
/// one.
#[derive(Clone, Copy)]
pub(super) struct Table {
    base: NonNull<u8>,
    entries: u16,
}

impl Table {
    /// # Safety
    /// `entries` descriptors must lie at `base` for as long as the table is
    /// used.
    pub(super) unsafe fn new(base: NonNull<u8>, entries: u16) -> Self {
        Self { base, entries }
    }

    /// The table that an indirect descriptor names (2.7.5.3, 2.8.7).
    pub(super) fn indirect(
        memory: &GuestMemory,
        descriptor: &Descriptor,
        hint: &mut usize,
    ) -> Result<Self, ChainFault> {
        let len = descriptor.len;
        let entries = u16::try_from(len / u32::from(DESC)).map_err(|_| ChainFault::Indirect)?;
        if entries == 0 || len % u32::from(DESC) != 0 {
            return Err(ChainFault::Indirect);
        }
        let mut base = None;
        memory
            .pieces(descriptor.addr, len, hint, |at, piece| {
                base = Some(at);
                // A table that is not in one piece cannot be indexed.
                (piece == len).then_some(())
            })
            .and(base)
            .map(|base| Self { base, entries })
            .ok_or(ChainFault::Unmapped)
    }

    /// How many descriptors.
    #[inline]
    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    /// Has the processor fetch entry `index`, which is read soon.
    #[inline]
    pub(super) fn prefetch(&self, index: u16) {
        let offset = usize::from(index) * usize::from(DESC);
        prefetch::for_reading(self.base.as_ptr().wrapping_add(offset));
    }

    /// Reads entry `index`, or nothing when there is no such entry.
    #[inline]
    pub(super) fn read(&self, index: u16) -> Option<Descriptor> {
        if index >= self.entries {
            return None;
        }
        // SAFETY: `entries` descriptors lie at `base` (proved when the table
        // was made), and `index` is one of them.
        let at = unsafe { self.base.add(usize::from(index) * usize::from(DESC)) };
        let words: [u64; 2] = if at.cast::<u64>().is_aligned() {
            // SAFETY: 16 mapped bytes, aligned for u64.
            unsafe { word::load(at.cast().as_ptr()) }
        } else {
            // SAFETY: 16 mapped bytes; bytes need no alignment. Only an
            // indirect table can be this way.
            let raw: [u8; 16] = unsafe { ptr::read_volatile(at.cast().as_ptr()) };
            let half = |from| u64::from_ne_bytes(std::array::from_fn(|i| raw[from + i]));
            [half(0), half(8)]
        };
        let [addr, rest] = words.map(u64::from_le);
        #[expect(clippy::cast_possible_truncation, reason = "fields of the word")]
        Some(Descriptor {
            addr,
            len: rest as u32,
            third: (rest >> 32) as u16,
            fourth: (rest >> 48) as u16,
        })
    }
}

/// What has been seen of a chain so far.
pub(super) struct Walk {
    /// How many descriptors it may still have.
    left: u16,
    /// A writable buffer came.
    written: bool,
    /// It goes on in an indirect table.
    pub(super) indirect: bool,
}

impl Walk {
    /// A chain in a ring of `entries` descriptors.
    #[inline]
    pub(super) fn new(entries: u16) -> Self {
        Self {
            left: entries.min(MAX_CHAIN),
            written: false,
            indirect: false,
        }
    }

    /// Goes on in an indirect table.
    pub(super) fn enter(&mut self, table: &Table) {
        self.indirect = true;
        self.left = table.entries().min(MAX_CHAIN);
    }

    /// Counts one descriptor.
    #[inline]
    pub(super) fn step(&mut self) -> Result<(), ChainFault> {
        self.left = self.left.checked_sub(1).ok_or(ChainFault::Loop)?;
        Ok(())
    }

    /// Pushes the buffer of `descriptor`, whose flags are `flags`.
    #[inline]
    pub(super) fn buffer<'m>(
        &mut self,
        descriptor: &Descriptor,
        flags: u16,
        memory: &'m GuestMemory,
        hint: &mut usize,
        parts: &mut impl Parts<'m>,
    ) -> Result<(), ChainFault> {
        let writable = flags & desc::F_WRITE != 0;
        if self.written && !writable {
            return Err(ChainFault::Order);
        }
        self.written = writable;
        let mut refused = false;
        memory
            .pieces(descriptor.addr, descriptor.len, hint, |at, len| {
                let taken = if writable {
                    // SAFETY: the look-up proved these bytes, in a snapshot
                    // that lives for 'm.
                    parts.writable(unsafe { Writable::new(at, len) })
                } else {
                    // SAFETY: as above.
                    parts.readable(unsafe { Readable::new(at, len) })
                };
                refused = taken.is_none();
                taken
            })
            .ok_or(if refused {
                ChainFault::TooLong
            } else {
                ChainFault::Unmapped
            })
    }
}
