//! Options of control requests: a list in the client's memory, each entry with
//! a header that says its kind and, in the end, what became of it.

use std::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::nmreq::{PoolsBody, structures};

/// Registration: the region lies in the client's memory; an
/// [`ExternalMemory`].
pub const NETMAP_REQ_OPT_EXTMEM: u32 = 1;
/// Sync loop: descriptors to wake and be woken by; [`EventDescriptors`] for
/// each ring.
pub const NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS: u32 = 2;
/// Registration: ring pointers are exchanged through the client's memory; a
/// [`SharedBlock`].
pub const NETMAP_REQ_OPT_CSB: u32 = 3;
/// Sync loop: sync where the event is told; a [`LoopMode`].
pub const NETMAP_REQ_OPT_SYNC_KLOOP_MODE: u32 = 4;
/// Registration: slots say where in the buffer a frame begins; [`Offsets`].
pub const NETMAP_REQ_OPT_OFFSETS: u32 = 5;
/// Kinds of options are below this.
pub const NETMAP_REQ_OPT_MAX: u32 = 6;

/// Bytes behind the header of an option (`nmreq_opt_size_by_type`); `size` is
/// its own `nro_size`.
pub fn payload_size(reqtype: u32, size: u64) -> u64 {
    match reqtype {
        NETMAP_REQ_OPT_EXTMEM => size_of::<ExternalMemory>() as u64,
        NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS => size.saturating_sub(size_of::<OptionHeader>() as u64),
        NETMAP_REQ_OPT_CSB => size_of::<SharedBlock>() as u64,
        NETMAP_REQ_OPT_SYNC_KLOOP_MODE => size_of::<LoopMode>() as u64,
        NETMAP_REQ_OPT_OFFSETS => size_of::<Offsets>() as u64,
        _ => 0,
    }
}

structures! {
    /// What every option begins with (`struct nmreq_option`).
    OptionHeader {
        /// The client's pointer to the next option.
        nro_next: u64,
        /// `NETMAP_REQ_OPT_`.
        nro_reqtype: u32,
        /// Out: 0, or an errno.
        nro_status: u32,
        /// Bytes, header included, of an option that has no fixed size.
        nro_size: u64,
    }

    /// Of [`NETMAP_REQ_OPT_EXTMEM`] (`struct nmreq_opt_extmem`), behind the
    /// header.
    ExternalMemory {
        /// Where the client's memory begins.
        nro_usrptr: u64,
        /// Its pools.
        nro_info: PoolsBody,
    }

    /// Of [`NETMAP_REQ_OPT_CSB`] (`struct nmreq_opt_csb`), behind the header.
    SharedBlock {
        /// Where the client has an [`AppToKernel`] for each ring.
        csb_atok: u64,
        /// Where it has a [`KernelToApp`] for each ring.
        csb_ktoa: u64,
    }

    /// Of [`NETMAP_REQ_OPT_SYNC_KLOOP_MODE`]
    /// (`struct nmreq_opt_sync_kloop_mode`), behind the header.
    LoopMode {
        /// `NM_OPT_SYNC_KLOOP_DIRECT_`.
        mode: u32,
        /// Not used.
        pad: u32,
    }

    /// Of [`NETMAP_REQ_OPT_OFFSETS`] (`struct nmreq_opt_offsets`), behind the
    /// header.
    Offsets {
        /// The largest offset that will be used; out: that may be used.
        nro_max_offset: u64,
        /// What every slot begins with.
        nro_initial_offset: u64,
        /// Low bits of a slot's `ptr` that are the offset; 0: all.
        nro_offset_bits: u32,
        /// What offsets of transmit slots are to be multiples of, in bytes.
        nro_tx_align: u32,
        /// Least bytes between two offsets in one buffer.
        nro_min_gap: u64,
    }

    /// One ring's descriptors in [`NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS`].
    EventDescriptors {
        /// The client wakes the loop; negative: it sleeps.
        ioeventfd: i32,
        /// The loop wakes the client; negative: it does not.
        irqfd: i32,
    }

    /// What a client tells the loop of one ring (`struct nm_csb_atok`).
    AppToKernel {
        /// The ring's `head`.
        head: u32,
        /// The ring's `cur`.
        cur: u32,
        /// The client wants to be woken.
        appl_need_kick: u32,
        /// Flags of the client's sync.
        sync_flags: u32,
        /// Up to a cache line.
        pad: [u32; 12],
    }

    /// What the loop tells a client of one ring (`struct nm_csb_ktoa`).
    KernelToApp {
        /// First slot that is not done with.
        hwcur: u32,
        /// First slot that is not the client's.
        hwtail: u32,
        /// The loop wants to be woken.
        kern_need_kick: u32,
        /// Up to a cache line.
        pad: [u32; 13],
    }
}

/// `mode`: transmit rings are synced where the event is told.
pub const NM_OPT_SYNC_KLOOP_DIRECT_TX: u32 = 1;
/// `mode`: receive rings likewise.
pub const NM_OPT_SYNC_KLOOP_DIRECT_RX: u32 = 2;
