//! The option by which slots say where in the buffer their data begins
//! (`netmap_offsets_init`).

use nix::errno::Errno;

use super::Bindings;
use crate::netmap::abi::nmreq::NR_ZCOPY_MON;
use crate::netmap::abi::option::Offsets;
use crate::netmap::adapter::Kind;
use crate::netmap::mem::SlotOffsets;
use crate::netmap::port::Direction;

/// Why offsets were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffsetError {
    /// A zero-copy monitor has other ports' slots.
    #[error("slots of a zero-copy monitor have no offsets")]
    ZeroCopy,
    /// More bits than a slot's `ptr` has.
    #[error("nro_offset_bits is {0}; a slot has 64")]
    Bits(u32),
    /// The largest offset is not in a buffer, or not in so many bits.
    #[error("nro_max_offset is {0}; it must be in a buffer, and in nro_offset_bits bits")]
    Max(u64),
    /// The first offset is not an offset.
    #[error("nro_initial_offset is {0}; it is larger than nro_max_offset")]
    Initial(u64),
    /// The ring has offsets already, smaller ones.
    #[error("a ring is in use with fewer bits, or a smaller largest offset")]
    Busy,
}

impl OffsetError {
    /// What the kernel says in its place.
    pub fn errno(self) -> Errno {
        match self {
            Self::ZeroCopy => Errno::EOPNOTSUPP,
            Self::Bits(_) | Self::Max(_) | Self::Initial(_) => Errno::EINVAL,
            Self::Busy => Errno::EBUSY,
        }
    }
}

impl Bindings {
    /// Lets the bound rings have offsets. Returns the largest that may be used.
    ///
    /// As on the kernel's VALE ports, `nro_min_gap` and `nro_tx_align` say what
    /// the application does and change nothing here.
    ///
    /// # Errors
    /// When the option is wrong, or a ring has others already.
    pub(super) fn set_offsets(&self, want: &Offsets) -> Result<u64, OffsetError> {
        match self.adapter().kind() {
            Kind::Monitor(monitor) if monitor.flags() & NR_ZCOPY_MON != 0 => {
                return Err(OffsetError::ZeroCopy);
            }
            _ => {}
        }
        let mut mask = match want.nro_offset_bits {
            0 | 64 => u64::MAX,
            bits if bits < 64 => (1 << bits) - 1,
            bits => return Err(OffsetError::Bits(bits)),
        };
        let [_, _, buffers] = self.adapter().region().layout();
        let mut max = u32::try_from(want.nro_max_offset)
            .ok()
            .filter(|max| *max <= buffers.size && u64::from(*max) & mask == u64::from(*max))
            .ok_or(OffsetError::Max(want.nro_max_offset))?;
        let initial = u32::try_from(want.nro_initial_offset)
            .ok()
            .filter(|initial| *initial <= max)
            .ok_or(OffsetError::Initial(want.nro_initial_offset))?;
        for direction in [Direction::Rx, Direction::Tx] {
            for bound in self.bound(direction) {
                if let Some(has) = bound.kring.memory().offsets() {
                    if has.mask & mask != mask || has.max < max {
                        return Err(OffsetError::Busy);
                    }
                    (mask, max) = (has.mask, has.max);
                }
                let alone = self.adapter().rings().user_count(direction, bound.index) <= 1;
                for kring in bound.krings() {
                    kring.memory().set_offsets(SlotOffsets { mask, max });
                    if let Some(link) = bound.link() {
                        link.recall();
                    }
                    let view = kring.view();
                    for at in (0..view.num_slots()).filter(|_| initial > 0 && alone) {
                        let slot = view.slot(at).unwrap_or_default();
                        view.set_slot(at, view.with_offset(slot, initial));
                    }
                }
            }
        }
        Ok(max.into())
    }
}
