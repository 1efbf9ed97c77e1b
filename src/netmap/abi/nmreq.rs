//! The current control interface: one header for every request, and a body for
//! each kind (`<net/netmap.h>`). Padding is spelled out, so that a structure's
//! bytes are all its own and none of ours leave with an answer.

use std::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::NETMAP_REQ_IFNAMSIZ;

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $($(#[$doc])*
        #[repr(C)]
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        })*
    };
}
pub(super) use structures;

/// What every control request begins with (`struct nmreq_header`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RequestHeader {
    /// Version: [`NETMAP_MIN_API`](super::NETMAP_MIN_API) to
    /// [`NETMAP_MAX_API`](super::NETMAP_MAX_API).
    pub nr_version: u16,
    /// `NETMAP_REQ_`.
    pub nr_reqtype: u16,
    /// 0.
    pub nr_reserved: u32,
    /// Port name, closed by a zero.
    pub nr_name: [u8; NETMAP_REQ_IFNAMSIZ],
    /// The client's pointer to the first option.
    pub nr_options: u64,
    /// The client's pointer to the body.
    pub nr_body: u64,
}

/// Bind a port; the body is a [`RegisterBody`].
pub const NETMAP_REQ_REGISTER: u16 = 1;
/// Tell a port's rings and region; the body is a [`PortInfoBody`].
pub const NETMAP_REQ_PORT_INFO_GET: u16 = 2;
/// Attach an interface to a switch; the body is an [`AttachBody`].
pub const NETMAP_REQ_VALE_ATTACH: u16 = 3;
/// Take an interface off its switch; the body is a [`DetachBody`].
pub const NETMAP_REQ_VALE_DETACH: u16 = 4;
/// Look up or enumerate ports of switches; the body is a [`ListBody`].
pub const NETMAP_REQ_VALE_LIST: u16 = 5;
/// Set the length of a port's virtio-net header; the body is a [`HeaderBody`].
pub const NETMAP_REQ_PORT_HDR_SET: u16 = 6;
/// Tell the length of a port's virtio-net header; the body is a [`HeaderBody`].
pub const NETMAP_REQ_PORT_HDR_GET: u16 = 7;
/// Make a persistent port; the body is a [`NewInterfaceBody`].
pub const NETMAP_REQ_VALE_NEWIF: u16 = 8;
/// Remove a persistent port; no body.
pub const NETMAP_REQ_VALE_DELIF: u16 = 9;
/// Poll an attached interface; the body is a [`PollingBody`].
pub const NETMAP_REQ_VALE_POLLING_ENABLE: u16 = 10;
/// Poll it no more; the body is a [`PollingBody`].
pub const NETMAP_REQ_VALE_POLLING_DISABLE: u16 = 11;
/// Tell the pools of a port's region; the body is a [`PoolsBody`].
pub const NETMAP_REQ_POOLS_INFO_GET: u16 = 12;
/// Sync the rings in a loop; the body is a [`LoopBody`].
pub const NETMAP_REQ_SYNC_KLOOP_START: u16 = 13;
/// End that loop; no body.
pub const NETMAP_REQ_SYNC_KLOOP_STOP: u16 = 14;
/// Exchange ring pointers through the client's memory; no body.
pub const NETMAP_REQ_CSB_ENABLE: u16 = 15;

/// Bytes of a request's body, 0 for what has none or does not exist
/// (`nmreq_size_by_type`).
pub fn body_size(reqtype: u16) -> usize {
    match reqtype {
        NETMAP_REQ_REGISTER => size_of::<RegisterBody>(),
        NETMAP_REQ_PORT_INFO_GET => size_of::<PortInfoBody>(),
        NETMAP_REQ_VALE_ATTACH => size_of::<AttachBody>(),
        NETMAP_REQ_VALE_DETACH => size_of::<DetachBody>(),
        NETMAP_REQ_VALE_LIST => size_of::<ListBody>(),
        NETMAP_REQ_PORT_HDR_SET | NETMAP_REQ_PORT_HDR_GET => size_of::<HeaderBody>(),
        NETMAP_REQ_VALE_NEWIF => size_of::<NewInterfaceBody>(),
        NETMAP_REQ_VALE_POLLING_ENABLE | NETMAP_REQ_VALE_POLLING_DISABLE => {
            size_of::<PollingBody>()
        }
        NETMAP_REQ_POOLS_INFO_GET => size_of::<PoolsBody>(),
        NETMAP_REQ_SYNC_KLOOP_START => size_of::<LoopBody>(),
        _ => 0,
    }
}

structures! {
    /// Of [`NETMAP_REQ_REGISTER`] (`struct nmreq_register`).
    RegisterBody {
        /// Out: where the `netmap_if` is in the region.
        nr_offset: u64,
        /// Out: bytes of the region.
        nr_memsize: u64,
        /// Slots of a transmit ring.
        nr_tx_slots: u32,
        /// Slots of a receive ring.
        nr_rx_slots: u32,
        /// Transmit rings.
        nr_tx_rings: u16,
        /// Receive rings.
        nr_rx_rings: u16,
        /// Host transmit rings.
        nr_host_tx_rings: u16,
        /// Host receive rings.
        nr_host_rx_rings: u16,
        /// The region; 0: a new one, or what the port has.
        nr_mem_id: u16,
        /// Which ring, when `nr_mode` asks for one.
        nr_ringid: u16,
        /// `NR_REG_`.
        nr_mode: u32,
        /// Buffers beyond those of the rings.
        nr_extra_bufs: u32,
        /// Not used.
        pad: u32,
        /// Flags below.
        nr_flags: u64,
    }

    /// Of [`NETMAP_REQ_PORT_INFO_GET`] (`struct nmreq_port_info_get`).
    PortInfoBody {
        /// Out: bytes of the region.
        nr_memsize: u64,
        /// Slots of a transmit ring.
        nr_tx_slots: u32,
        /// Slots of a receive ring.
        nr_rx_slots: u32,
        /// Transmit rings.
        nr_tx_rings: u16,
        /// Receive rings.
        nr_rx_rings: u16,
        /// Host transmit rings.
        nr_host_tx_rings: u16,
        /// Host receive rings.
        nr_host_rx_rings: u16,
        /// The region.
        nr_mem_id: u16,
        /// Not used.
        pad: [u16; 3],
    }

    /// Of [`NETMAP_REQ_VALE_ATTACH`] (`struct nmreq_vale_attach`).
    AttachBody {
        /// As for a registration.
        reg: RegisterBody,
        /// Out: the port's number on the switch.
        port_index: u32,
        /// Not used.
        pad1: u32,
    }

    /// Of [`NETMAP_REQ_VALE_DETACH`] (`struct nmreq_vale_detach`).
    DetachBody {
        /// Out: the number that the port had on the switch.
        port_index: u32,
        /// Not used.
        pad1: u32,
    }

    /// Of [`NETMAP_REQ_VALE_LIST`] (`struct nmreq_vale_list`).
    ListBody {
        /// The switch's number.
        nr_bridge_idx: u16,
        /// Not used.
        pad1: u16,
        /// The port's.
        nr_port_idx: u32,
    }

    /// Of [`NETMAP_REQ_PORT_HDR_SET`] and [`NETMAP_REQ_PORT_HDR_GET`]
    /// (`struct nmreq_port_hdr`).
    HeaderBody {
        /// Bytes: 0, 10 or 12.
        nr_hdr_len: u32,
        /// Not used.
        pad1: u32,
    }

    /// Of [`NETMAP_REQ_VALE_NEWIF`] (`struct nmreq_vale_newif`).
    NewInterfaceBody {
        /// Slots of a transmit ring.
        nr_tx_slots: u32,
        /// Slots of a receive ring.
        nr_rx_slots: u32,
        /// Transmit rings.
        nr_tx_rings: u16,
        /// Receive rings.
        nr_rx_rings: u16,
        /// The region; 0: one of its own.
        nr_mem_id: u16,
        /// Not used.
        pad1: u16,
    }

    /// Of [`NETMAP_REQ_VALE_POLLING_ENABLE`] and
    /// [`NETMAP_REQ_VALE_POLLING_DISABLE`] (`struct nmreq_vale_polling`).
    PollingBody {
        /// [`NETMAP_POLLING_MODE_SINGLE_CPU`] or
        /// [`NETMAP_POLLING_MODE_MULTI_CPU`].
        nr_mode: u32,
        /// The first processor.
        nr_first_cpu_id: u32,
        /// How many.
        nr_num_polling_cpus: u32,
        /// Not used.
        pad1: u32,
    }

    /// Of [`NETMAP_REQ_POOLS_INFO_GET`] (`struct nmreq_pools_info`).
    PoolsBody {
        /// Out: bytes of the region.
        nr_memsize: u64,
        /// The region.
        nr_mem_id: u16,
        /// Not used.
        pad1: [u16; 3],
        /// Where `netmap_if`s begin.
        nr_if_pool_offset: u64,
        /// How many there are.
        nr_if_pool_objtotal: u32,
        /// Bytes of each.
        nr_if_pool_objsize: u32,
        /// Where rings begin.
        nr_ring_pool_offset: u64,
        /// How many there are.
        nr_ring_pool_objtotal: u32,
        /// Bytes of each.
        nr_ring_pool_objsize: u32,
        /// Where buffers begin.
        nr_buf_pool_offset: u64,
        /// How many there are.
        nr_buf_pool_objtotal: u32,
        /// Bytes of each.
        nr_buf_pool_objsize: u32,
    }

    /// Of [`NETMAP_REQ_SYNC_KLOOP_START`] (`struct nmreq_sync_kloop_start`).
    LoopBody {
        /// How long to sleep when there is nothing to do, in microseconds.
        sleep_us: u32,
        /// Not used.
        pad1: u32,
    }
}

/// `nr_mode` of a [`PollingBody`]: one processor polls all rings.
pub const NETMAP_POLLING_MODE_SINGLE_CPU: u32 = 1;
/// `nr_mode` of a [`PollingBody`]: each processor polls one ring.
pub const NETMAP_POLLING_MODE_MULTI_CPU: u32 = 2;

/// `nr_mode`: not to be used.
pub const NR_REG_DEFAULT: u32 = 0;
/// `nr_mode`: all rings but the host's.
pub const NR_REG_ALL_NIC: u32 = 1;
/// `nr_mode`: the host rings.
pub const NR_REG_SW: u32 = 2;
/// `nr_mode`: all rings and the host's.
pub const NR_REG_NIC_SW: u32 = 3;
/// `nr_mode`: the pair `nr_ringid`.
pub const NR_REG_ONE_NIC: u32 = 4;
/// `nr_mode`: given up; pipes are named `port{id`.
pub const NR_REG_PIPE_MASTER: u32 = 5;
/// `nr_mode`: given up; pipes are named `port}id`.
pub const NR_REG_PIPE_SLAVE: u32 = 6;
/// `nr_mode`: memory and no port.
pub const NR_REG_NULL: u32 = 7;
/// `nr_mode`: the host pair `nr_ringid`.
pub const NR_REG_ONE_SW: u32 = 8;

/// `nr_flags`: a monitor of what the port sends.
pub const NR_MONITOR_TX: u64 = 0x100;
/// `nr_flags`: a monitor of what the port receives.
pub const NR_MONITOR_RX: u64 = 0x200;
/// `nr_flags`: a monitor that shares buffers with the port.
pub const NR_ZCOPY_MON: u64 = 0x400;
/// `nr_flags`: nobody else may bind these rings.
pub const NR_EXCLUSIVE: u64 = 0x800;
/// `nr_flags`: receive rings only.
pub const NR_RX_RINGS_ONLY: u64 = 0x2000;
/// `nr_flags`: transmit rings only.
pub const NR_TX_RINGS_ONLY: u64 = 0x4000;
/// `nr_flags`: frames may begin with a virtio-net header.
pub const NR_ACCEPT_VNET_HDR: u64 = 0x8000;
/// `nr_flags`: poll(2) syncs receive rings without `POLLIN` too.
pub const NR_DO_RX_POLL: u64 = 0x10000;
/// `nr_flags`: poll(2) syncs transmit rings with `POLLOUT` only.
pub const NR_NO_TX_POLL: u64 = 0x20000;

/// The first argument of ioctl(2) with which netmap's commands are made.
const GROUP: u64 = (b'i' as u64) << 8;

/// `_IOWR('i', number, size)`, which is the same on FreeBSD and Linux.
pub(super) const fn read_write(number: u64, size: usize) -> u64 {
    0xc000_0000 | (size as u64) << 16 | GROUP | number
}

/// `_IO('i', number)`.
const fn plain(number: u64) -> u64 {
    let void = if cfg!(target_os = "linux") {
        0
    } else {
        0x2000_0000
    };
    void | GROUP | number
}

/// ioctl(2): a control request; the argument is a [`RequestHeader`].
pub const NIOCCTRL: u64 = read_write(151, size_of::<RequestHeader>());
/// ioctl(2): sync the bound transmit rings.
pub const NIOCTXSYNC: u64 = plain(148);
/// ioctl(2): sync the bound receive rings.
pub const NIOCRXSYNC: u64 = plain(149);
