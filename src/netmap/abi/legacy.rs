//! The control interface before `NIOCCTRL`: one structure for everything
//! (`<net/netmap_legacy.h>`). Its layout is the same since API 11.

use std::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::IFNAMSIZ;
use super::nmreq::{read_write, structures};

/// The oldest version with this layout.
pub const LEGACY_MIN_API: u32 = 11;

structures! {
    /// A request and its answer (`struct nmreq`).
    LegacyRequest {
        /// Port name, closed by a zero.
        nr_name: [u8; IFNAMSIZ],
        /// Version.
        nr_version: u32,
        /// Out: where the `netmap_if` is in the region.
        nr_offset: u32,
        /// Out: bytes of the region.
        nr_memsize: u32,
        /// Slots of a transmit ring.
        nr_tx_slots: u32,
        /// Slots of a receive ring.
        nr_rx_slots: u32,
        /// Transmit rings.
        nr_tx_rings: u16,
        /// Receive rings.
        nr_rx_rings: u16,
        /// Ring number and `NETMAP_` flags.
        nr_ringid: u16,
        /// 0, or one of the commands.
        nr_cmd: u16,
        /// The command's.
        nr_arg1: u16,
        /// The region.
        nr_arg2: u16,
        /// Buffers beyond those of the rings.
        nr_arg3: u32,
        /// `NR_REG_` and `NR_` flags.
        nr_flags: u32,
        /// Not used.
        spare2: [u32; 1],
    }
}

/// `nr_ringid`: a single pair.
pub const NETMAP_HW_RING: u16 = 0x4000;
/// `nr_ringid`: the host rings.
pub const NETMAP_SW_RING: u16 = 0x2000;
/// `nr_ringid`: as [`NR_NO_TX_POLL`](super::nmreq::NR_NO_TX_POLL).
pub const NETMAP_NO_TX_POLL: u16 = 0x1000;
/// `nr_ringid`: as [`NR_DO_RX_POLL`](super::nmreq::NR_DO_RX_POLL).
pub const NETMAP_DO_RX_POLL: u16 = 0x8000;
/// The bits of `nr_flags` that are an `NR_REG_`.
pub const NR_REG_MASK: u32 = 0xf;

/// `nr_cmd`: attach an interface to a switch.
pub const NETMAP_BDG_ATTACH: u16 = 1;
/// `nr_cmd`: take it off.
pub const NETMAP_BDG_DETACH: u16 = 2;
/// `nr_cmd`: look up or enumerate ports of switches.
pub const NETMAP_BDG_LIST: u16 = 4;
/// `nr_cmd`: set the length of a port's virtio-net header.
pub const NETMAP_BDG_VNET_HDR: u16 = 5;
/// `nr_cmd`: make a persistent port.
pub const NETMAP_BDG_NEWIF: u16 = 6;
/// `nr_cmd`: remove one.
pub const NETMAP_BDG_DELIF: u16 = 7;
/// `nr_cmd`: given up.
pub const NETMAP_PT_HOST_CREATE: u16 = 8;
/// `nr_cmd`: given up.
pub const NETMAP_PT_HOST_DELETE: u16 = 9;
/// `nr_cmd`: poll an attached interface.
pub const NETMAP_BDG_POLLING_ON: u16 = 10;
/// `nr_cmd`: poll it no more.
pub const NETMAP_BDG_POLLING_OFF: u16 = 11;
/// `nr_cmd`: tell the length of a port's virtio-net header.
pub const NETMAP_VNET_HDR_GET: u16 = 12;
/// `nr_arg1` of [`NETMAP_BDG_ATTACH`]: the host rings too.
pub const NETMAP_BDG_HOST: u16 = 1;

/// Bytes of the argument of [`NIOCCONFIG`] (`struct nm_ifreq`).
pub const CONFIG_SIZE: usize = IFNAMSIZ + 256;

/// ioctl(2): tell about a port.
pub const NIOCGINFO: u64 = read_write(145, size_of::<LegacyRequest>());
/// ioctl(2): bind a port, or a command.
pub const NIOCREGIF: u64 = read_write(146, size_of::<LegacyRequest>());
/// ioctl(2): configure a switch's module.
pub const NIOCCONFIG: u64 = read_write(150, CONFIG_SIZE);
