//! What can happen.

use nix::poll::PollFlags;
use vtnetd::netmap::port::Direction;
use vtnetd::netmap::rings::Shape;

/// Descriptors of `/dev/netmap` that are open all the time.
pub const CLIENTS: usize = 6;
/// Guests on switches.
pub const GUESTS: usize = 2;

/// A region, as a request says it.
#[derive(Clone, Copy, Debug)]
pub enum Mem {
    Own,
    Global,
    Missing,
    /// That of some port.
    OfSome(u8),
}

/// How a registration comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Plain,
    /// By `NIOCREGIF`.
    Legacy,
    /// With an option that nobody knows.
    UnknownOption,
    /// With two options of one kind.
    TwinOptions,
    /// With an option of kind 0.
    NoOption,
    /// With options that lead to each other.
    EndlessOptions,
    /// With a version of the future.
    Version,
    /// With a reserved field set.
    Reserved,
    /// Without a body.
    NoBody,
    /// With a body that is nowhere.
    BadBody,
}

#[derive(Clone, Debug)]
pub struct Wish {
    pub name: &'static str,
    pub mode: u32,
    pub ring: u16,
    pub flags: u64,
    pub shape: Shape,
    pub mem: Mem,
    pub extra: u32,
}

/// A frame from one station to another, cut into slots.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub to: u8,
    pub from: u8,
    pub len: u16,
    pub fill: u8,
    /// Bytes of each slot; 0: whole buffers.
    pub cut: u16,
    /// Flags and GSO type of the virtio-net header, where there is one.
    pub header: [u8; 2],
}

/// What a hostile client writes where.
#[derive(Clone, Copy, Debug)]
pub enum Scrawl {
    Head(u32),
    Cur(u32),
    Tail(u32),
    Buffer {
        slot: u8,
        value: u32,
    },
    Len {
        slot: u8,
        value: u16,
    },
    Flags {
        slot: u8,
        value: u16,
    },
    Ptr {
        slot: u8,
        value: u64,
    },
    /// The ring's fields that are the kernel's, and the client's never.
    Constants(u8),
    /// The first of the extra buffers.
    Extra(u32),
    /// What a buffer begins with.
    Bytes {
        buffer: u32,
        value: u32,
    },
}

#[derive(Clone, Debug)]
pub enum Step {
    Register {
        client: usize,
        wish: Wish,
        how: How,
    },
    Close {
        client: usize,
    },
    /// Puts frames into a transmit ring.
    Fill {
        client: usize,
        ring: u8,
        frames: Vec<Spec>,
        sync: bool,
    },
    /// Gives slots of a receive ring back; `cur` goes further than `head`.
    Take {
        client: usize,
        ring: u8,
        count: u8,
        further: u8,
        sync: bool,
    },
    Sync {
        client: usize,
        way: Direction,
    },
    Poll {
        client: usize,
        events: PollFlags,
        sleep: bool,
    },
    Scrawl {
        client: usize,
        way: Direction,
        ring: u8,
        what: Scrawl,
    },
    /// Exchanges the buffers of a receive and a transmit slot.
    Exchange {
        client: usize,
        rx: u8,
        tx: u8,
    },
    NewInterface {
        client: usize,
        wish: Wish,
    },
    DeleteInterface {
        client: usize,
        name: &'static str,
    },
    Attach {
        client: usize,
        name: &'static str,
        mem: Mem,
    },
    Detach {
        client: usize,
        name: &'static str,
    },
    List {
        client: usize,
        name: &'static str,
        switch: u16,
        port: u32,
    },
    SetHeader {
        client: usize,
        name: &'static str,
        len: u32,
    },
    Header {
        client: usize,
        name: &'static str,
    },
    Info {
        client: usize,
        name: &'static str,
        mem: Mem,
    },
    Pools {
        client: usize,
        name: &'static str,
        mem: Mem,
    },
    Polling {
        client: usize,
        name: &'static str,
        on: bool,
    },
    Join {
        guest: usize,
        name: &'static str,
    },
    Leave {
        guest: usize,
    },
    Send {
        guest: usize,
        frames: Vec<Spec>,
    },
    Age,
}
