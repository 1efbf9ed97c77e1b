//! What a switch forwards between.
//!
//! A *queue port* stands on a device's virtqueues, a *ring port* on krings.
//! Both take frames the same way: reserve room under the destination's lock,
//! copy outside it, commit in order (a *lease*), so that a frame is copied once
//! from where the sender has it to where the receiver wants it.

use crate::net::frame::Batch;

/// What a receiver took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Frames.
    pub frames: u32,
    /// Bytes of these frames, Ethernet headers included.
    pub bytes: u64,
}

/// Frames that were dropped at a port, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The receiver had no room.
    pub no_room: u64,
    /// Nobody has bound the receive ring.
    pub unbound: u64,
    /// Shorter than an Ethernet header.
    pub short: u64,
    /// Too long for a frame, or for the receiver.
    pub long: u64,
    /// In slots that name no buffer, or are longer than theirs.
    pub bad_slots: u64,
    /// With a virtio-net header that does not fit, or cannot be told.
    pub bad_headers: u64,
}

/// A receiver on a switch.
pub trait Attachment: Send + Sync {
    /// The `VIRTIO_NET_F_GUEST_*` bits of what this receiver takes unfinished;
    /// 0 means complete checksums and no segment longer than its MTU.
    fn offloads(&self) -> u64;

    /// Gives the frames of `batch` at the indices `picks` to the receiver, in
    /// this order, as many as there is room for. All of them are acceptable to
    /// [`offloads`](Self::offloads). `ring` is the sender's ring number: a
    /// receiver that does not tell flows apart takes it modulo its own.
    ///
    /// Never blocks: what finds no room is dropped and counted by the receiver.
    fn deliver(&self, ring: usize, batch: &Batch<'_>, picks: &[u16]) -> Delivered;

    /// What was dropped here, sent frames and received ones, if that is counted
    /// by cause.
    fn dropped(&self) -> Dropped {
        Dropped::default()
    }
}
