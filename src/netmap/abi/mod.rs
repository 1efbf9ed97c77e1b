//! The application binary interface: what lies in shared memory and in
//! control requests, as `<net/netmap.h>` lays it out on a 64-bit machine.
//!
//! ```text
//! netmap_if                    netmap_ring
//! | name, flags, ring counts |   +->| buf_ofs, num_slots, ...   |
//! | ring_ofs[0]  tx          |---+  | head, cur, tail           |
//! | ...          host tx     |      | sem                       |
//! | ...          rx          |      | slot[0]: buf_idx, len ... |
//! | ...          host rx     |      | ...                       |
//! ```
//!
//! Ring offsets count from the `netmap_if`, `buf_ofs` from the ring: buffer
//! `i` begins at `ring + buf_ofs + i * nr_buf_size`.
//!
//! | module | what |
//! | --- | --- |
//! | this one | what lies in shared memory, and the limits |
//! | [`nmreq`] | the current control interface, `NIOCCTRL` |
//! | [`option`] | the options of its requests |
//! | [`legacy`] | the older one, `NIOCREGIF` and `NIOCGINFO` |

pub mod legacy;
pub mod nmreq;
pub mod option;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The interface version spoken (`NETMAP_API`); its ring and slot layout is
/// that of 14 and 15.
pub const NETMAP_API: u16 = 14;
/// The oldest version served (`NETMAP_MIN_API`).
pub const NETMAP_MIN_API: u16 = 14;
/// The newest version served (`NETMAP_MAX_API`).
pub const NETMAP_MAX_API: u16 = 15;

/// Bytes of an interface's name, with the closing zero (`IFNAMSIZ`).
pub const IFNAMSIZ: usize = 16;
/// Bytes of a port's name, with the closing zero.
pub const NETMAP_REQ_IFNAMSIZ: usize = 64;
/// Most bytes of a control request with all its options.
pub const NETMAP_REQ_MAXSIZE: usize = 4096;
/// Most slots of one frame that senders should use.
pub const NETMAP_MAX_FRAGS: usize = 64;
/// What switch names begin with.
pub const NM_BDG_NAME: &str = "vale";
/// Most rings of a switch port in each direction.
pub const NM_BDG_MAXRINGS: u16 = 16;
/// Most slots of a switch port's ring.
pub const NM_BDG_MAXSLOTS: u32 = 4096;
/// Slots of a switch port's ring when none are asked for.
pub const NM_BRIDGE_RINGSIZE: u32 = 1024;
/// Most pipes below one port.
pub const NM_MAXPIPES: u32 = 64;
/// Most rings of a pipe in each direction.
pub const NM_PIPE_MAXRINGS: u16 = 256;
/// Most slots of a pipe's ring.
pub const NM_PIPE_MAXSLOTS: u32 = 4096;
/// Most slots of a monitor's ring.
pub const NM_MONITOR_MAXSLOTS: u32 = 4096;
/// Ring numbers in port names are below this.
pub const NETMAP_RING_MASK: u16 = 0x0fff;

/// One slot: which buffer, how much of it, and flags.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct Slot {
    /// Index of the buffer in its region; 0 and 1 are nobody's.
    pub buf_idx: u32,
    /// Bytes used.
    pub len: u16,
    /// `NS_` flags.
    pub flags: u16,
    /// A client's pointer (`NS_INDIRECT`) or an offset into the buffer; never
    /// followed here.
    pub ptr: u64,
}

/// The buffer index was changed.
pub const NS_BUF_CHANGED: u16 = 0x0001;
/// Tell when the slot was sent.
pub const NS_REPORT: u16 = 0x0002;
/// Pass the frame on to the host (or the NIC) when the slot is released.
pub const NS_FORWARD: u16 = 0x0004;
/// Do not learn the source address.
pub const NS_NO_LEARN: u16 = 0x0008;
/// The data is at `ptr` in the client's address space.
pub const NS_INDIRECT: u16 = 0x0010;
/// The frame goes on in the next slot.
pub const NS_MOREFRAG: u16 = 0x0020;
/// Monitors: the frame was sent by the monitored port.
pub const NS_TXMON: u16 = 0x0040;
/// Receive rings of a switch: from this bit on, the frame's number of slots.
pub const NS_PORT_SHIFT: u32 = 8;
/// Most slots that [`NS_PORT_SHIFT`]'s eight bits can say.
pub const NS_RFRAGS_MAX: u32 = 0xff;

/// A `struct timeval`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeval {
    /// Seconds since 1970.
    pub tv_sec: i64,
    /// Microseconds.
    pub tv_usec: i64,
}

/// The lock that applications may keep in a ring; never looked at here.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug)]
pub struct Semaphore(pub [u8; 128]);

/// A ring without the slots that follow it (`struct netmap_ring`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// Bytes from this structure to buffer 0.
    pub buf_ofs: i64,
    /// Slots in the ring.
    pub num_slots: u32,
    /// Bytes of a buffer.
    pub nr_buf_size: u32,
    /// The ring's number.
    pub ringid: u16,
    /// 0: transmit, 1: receive.
    pub dir: u16,
    /// The application's: first slot that is still its own.
    pub head: u32,
    /// The application's: it wants to hear when `tail` passes this.
    pub cur: u32,
    /// Ours: first slot that is not the application's.
    pub tail: u32,
    /// `NR_TIMESTAMP`, `NR_FORWARD`.
    pub flags: u32,
    /// When the ring was last synced.
    pub ts: Timeval,
    /// Which bits of a slot's `ptr` are an offset.
    pub offset_mask: u64,
    /// What offsets are to be multiples of, in bytes.
    pub buf_align: u64,
    /// Room for the application's lock.
    pub sem: Semaphore,
}

/// Ring flag: set `ts` at every sync.
pub const NR_TIMESTAMP: u32 = 0x0002;
/// Ring flag: heed `NS_FORWARD`.
pub const NR_FORWARD: u32 = 0x0004;

/// `ni_flags`: the region is not the global one.
pub const NI_PRIV_MEM: u32 = 0x1;

/// One registration, without the ring offsets that follow it, each an `i64`
/// (`struct netmap_if`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// The port's name, closed by a zero.
    pub ni_name: [u8; IFNAMSIZ],
    /// Not used.
    pub ni_version: u32,
    /// [`NI_PRIV_MEM`].
    pub ni_flags: u32,
    /// Transmit rings, host rings not counted.
    pub ni_tx_rings: u32,
    /// Receive rings, host rings not counted.
    pub ni_rx_rings: u32,
    /// The first extra buffer, each of which begins with the next one's index.
    pub ni_bufs_head: u32,
    /// Host transmit rings, at least 1.
    pub ni_host_tx_rings: u32,
    /// Host receive rings, at least 1.
    pub ni_host_rx_rings: u32,
    /// Not used.
    pub ni_spare1: [u32; 3],
}

#[cfg(test)]
mod tests;
