//! What a message looks like: a header of three 32-bit words (request, flags,
//! size), then `size` bytes of payload, all in the machine's byte order.
//!
//! Payloads are plain data: `from_bytes` takes exactly the bytes of the payload
//! and answers `None` for any other length. What the fields mean is for the
//! receiver to check.

use arrayvec::ArrayVec;

use crate::virtio::memory::RegionSpec;

/// The only protocol version, in the lowest two bits of the flags.
pub const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
/// Flag: this answers a request.
pub const FLAG_REPLY: u32 = 1 << 2;
/// Flag: the sender wants an answer to a message that has none of its own.
/// Means something only once [`protocol_feature::REPLY_ACK`] was negotiated.
pub const FLAG_NEED_REPLY: u32 = 1 << 3;

/// Most regions in one `SET_MEM_TABLE`, and so most descriptors in one message.
pub const MAX_FDS: usize = 8;
/// Longest payload that is received. The longest message that means anything
/// to us has 268 bytes; the rest is room for those that we only refuse.
pub const MAX_PAYLOAD: usize = 4096;
/// Most bytes of configuration space in one message.
pub const MAX_CONFIG: usize = 256;

/// Protocol features, as masks; only those that we know how to use.
pub mod protocol_feature {
    /// `GET_QUEUE_NUM`: several queue pairs.
    pub const MQ: u64 = 1 << 0;
    /// `SEND_RARP`.
    pub const RARP: u64 = 1 << 2;
    /// Any message can ask for an answer.
    pub const REPLY_ACK: u64 = 1 << 3;
    /// `NET_SET_MTU`.
    pub const MTU: u64 = 1 << 4;
    /// `SET_BACKEND_REQ_FD`: a channel for the back end's own requests.
    pub const BACKEND_REQ: u64 = 1 << 5;
    /// `GET_CONFIG`, `SET_CONFIG` and the notification of a change.
    pub const CONFIG: u64 = 1 << 9;
    /// `RESET_DEVICE`.
    pub const RESET_DEVICE: u64 = 1 << 13;
    /// `GET_MAX_MEM_SLOTS`, `ADD_MEM_REG`, `REM_MEM_REG`.
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    /// `GET_STATUS`, `SET_STATUS`.
    pub const STATUS: u64 = 1 << 16;
}

macro_rules! numbered {
    ($(#[$of:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$doc])* $variant = $number,)*
        }

        impl $name {
            /// Every one of them, by number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The request of this number; `None` for one that we do not know.
            pub fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

numbered! {
    /// What a front end asks of a back end.
    Request {
        /// The virtio features that the back end offers, a `u64`.
        GetFeatures = 1,
        /// The virtio features that the driver accepted, a `u64`.
        SetFeatures = 2,
        /// The sender is the front end.
        SetOwner = 3,
        /// Deprecated; disables the rings.
        ResetOwner = 4,
        /// [`MemoryTable`], a descriptor for each region.
        SetMemTable = 5,
        /// Dirty-page log (not offered by us).
        SetLogBase = 6,
        /// Dirty-page log's notification (not offered by us).
        SetLogFd = 7,
        /// Size of a queue, a [`VringState`].
        SetVringNum = 8,
        /// Where a queue's parts are, a [`VringAddress`].
        SetVringAddr = 9,
        /// The next available index, a [`VringState`].
        SetVringBase = 10,
        /// Stops a queue; answered by its next available index, a [`VringState`].
        GetVringBase = 11,
        /// Starts a queue, a [`VringFd`]: what the driver kicks.
        SetVringKick = 12,
        /// A [`VringFd`]: what interrupts the driver.
        SetVringCall = 13,
        /// A [`VringFd`]: what tells of a failed queue.
        SetVringErr = 14,
        /// The protocol features that the back end offers, a `u64`.
        GetProtocolFeatures = 15,
        /// The protocol features that are used, a `u64`.
        SetProtocolFeatures = 16,
        /// How many queue pairs (for a network device) there can be, a `u64`.
        GetQueueNum = 17,
        /// Enables (1) or disables (0) a queue, a [`VringState`].
        SetVringEnable = 18,
        /// Announces the guest's address, the first 6 bytes of a `u64`.
        SendRarp = 19,
        /// The MTU that the guest is told, a `u64`.
        NetSetMtu = 20,
        /// A socket for the back end's own requests, one descriptor.
        SetBackendReqFd = 21,
        /// Address translations (not offered by us).
        IotlbMsg = 22,
        /// Byte order of a legacy queue (not offered by us).
        SetVringEndian = 23,
        /// [`ConfigAccess`]: part of the configuration space.
        GetConfig = 24,
        /// [`ConfigAccess`]: a change of the configuration space.
        SetConfig = 25,
        /// Userfaultfd (not offered by us).
        PostcopyAdvise = 28,
        /// Userfaultfd (not offered by us).
        PostcopyListen = 29,
        /// Userfaultfd (not offered by us).
        PostcopyEnd = 30,
        /// Requests in flight (not offered by us).
        GetInflightFd = 31,
        /// Requests in flight (not offered by us).
        SetInflightFd = 32,
        /// Resets the device.
        ResetDevice = 34,
        /// A kick as a message (not offered by us).
        VringKick = 35,
        /// How many memory regions there can be, a `u64`.
        GetMaxMemSlots = 36,
        /// One more [memory region](region_from_bytes), one descriptor.
        AddMemReg = 37,
        /// One memory region less.
        RemMemReg = 38,
        /// The virtio device status, a `u64`.
        SetStatus = 39,
        /// The virtio device status, a `u64`.
        GetStatus = 40,
        /// A channel for device state (not offered by us).
        SetDeviceStateFd = 42,
        /// Outcome of a transfer of device state (not offered by us).
        CheckDeviceState = 43,
    }
}

numbered! {
    /// What a back end asks of a front end, over the channel that
    /// [`Request::SetBackendReqFd`] sets up; only what we use.
    BackendRequest {
        /// The configuration space has changed.
        ConfigChange = 2,
    }
}

impl Request {
    /// The request has an answer of its own, whether asked for or not.
    pub fn has_reply(self) -> bool {
        matches!(
            self,
            Self::GetFeatures
                | Self::GetProtocolFeatures
                | Self::GetVringBase
                | Self::GetQueueNum
                | Self::GetConfig
                | Self::GetMaxMemSlots
                | Self::GetStatus
        )
    }
}

/// A message's first 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// A [`Request`] or a [`BackendRequest`], as the channel has it.
    pub request: u32,
    /// Version, [`FLAG_REPLY`], [`FLAG_NEED_REPLY`].
    pub flags: u32,
    /// Bytes of payload that follow.
    pub size: u32,
}

/// Up to four bytes at `at`; callers have checked the length.
fn u32_at(raw: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(raw.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(raw: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(raw.get(at..at + 8)?.try_into().ok()?))
}

impl Header {
    /// Bytes of a header.
    pub const LEN: usize = 12;

    /// A request without further flags.
    pub fn request(request: Request, size: u32) -> Self {
        Self {
            request: request as u32,
            flags: VERSION,
            size,
        }
    }

    /// The header of the answer to `self`, with `size` bytes of payload.
    pub fn reply(self, size: u32) -> Self {
        Self {
            request: self.request,
            flags: VERSION | FLAG_REPLY,
            size,
        }
    }

    /// The wire form, read.
    pub fn from_bytes(raw: &[u8; Self::LEN]) -> Self {
        let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        Self {
            request: word(0),
            flags: word(4),
            size: word(8),
        }
    }

    /// The wire form.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut raw = [0; Self::LEN];
        raw[..4].copy_from_slice(&self.request.to_ne_bytes());
        raw[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        raw[8..].copy_from_slice(&self.size.to_ne_bytes());
        raw
    }

    /// The protocol version; only [`VERSION`] means anything.
    pub fn version(self) -> u32 {
        self.flags & VERSION_MASK
    }

    /// This answers a request.
    pub fn is_reply(self) -> bool {
        self.flags & FLAG_REPLY != 0
    }

    /// The sender wants an answer.
    pub fn needs_reply(self) -> bool {
        self.flags & FLAG_NEED_REPLY != 0
    }
}

/// Reads a payload that is one `u64`.
pub fn u64_from_bytes(raw: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(raw.try_into().ok()?))
}

/// A queue's index and one number about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringState {
    /// Which queue.
    pub index: u32,
    /// Size, base or enabled, as the request has it.
    pub num: u32,
}

impl VringState {
    /// Bytes on the wire.
    pub const LEN: usize = 8;

    /// The wire form, read.
    pub fn from_bytes(raw: &[u8]) -> Option<Self> {
        (raw.len() == Self::LEN).then_some(())?;
        Some(Self {
            index: u32_at(raw, 0)?,
            num: u32_at(raw, 4)?,
        })
    }

    /// The wire form.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut raw = [0; Self::LEN];
        raw[..4].copy_from_slice(&self.index.to_ne_bytes());
        raw[4..].copy_from_slice(&self.num.to_ne_bytes());
        raw
    }
}

/// Where the three parts of a queue are, in front-end addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VringAddress {
    /// Which queue.
    pub index: u32,
    /// [`VringAddress::LOG`] or nothing.
    pub flags: u32,
    /// Descriptor table.
    pub desc: u64,
    /// Used ring.
    pub used: u64,
    /// Available ring.
    pub avail: u64,
    /// Guest address for the dirty log.
    pub log: u64,
}

impl VringAddress {
    /// Bytes on the wire.
    pub const LEN: usize = 40;
    /// Flag: the used ring's changes are to be logged.
    pub const LOG: u32 = 1;

    /// The wire form, read.
    pub fn from_bytes(raw: &[u8]) -> Option<Self> {
        (raw.len() == Self::LEN).then_some(())?;
        Some(Self {
            index: u32_at(raw, 0)?,
            flags: u32_at(raw, 4)?,
            desc: u64_at(raw, 8)?,
            used: u64_at(raw, 16)?,
            avail: u64_at(raw, 24)?,
            log: u64_at(raw, 32)?,
        })
    }

    /// The wire form.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut raw = [0; Self::LEN];
        raw[..4].copy_from_slice(&self.index.to_ne_bytes());
        raw[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        raw[8..16].copy_from_slice(&self.desc.to_ne_bytes());
        raw[16..24].copy_from_slice(&self.used.to_ne_bytes());
        raw[24..32].copy_from_slice(&self.avail.to_ne_bytes());
        raw[32..].copy_from_slice(&self.log.to_ne_bytes());
        raw
    }
}

/// A queue's index, and whether a descriptor comes with it: the payload of the
/// kick, call and error messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringFd {
    /// Which queue.
    pub index: u8,
    /// No descriptor is attached: poll, or do not signal.
    pub no_fd: bool,
}

impl VringFd {
    /// Bytes on the wire.
    pub const LEN: usize = 8;
    const NO_FD: u64 = 1 << 8;

    /// The wire form, read; bits above the ninth mean nothing.
    pub fn from_bytes(raw: &[u8]) -> Option<Self> {
        let bits = u64_from_bytes(raw)?;
        Some(Self {
            index: bits.to_le_bytes()[0],
            no_fd: bits & Self::NO_FD != 0,
        })
    }

    /// The wire form.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let no_fd = if self.no_fd { Self::NO_FD } else { 0 };
        (u64::from(self.index) | no_fd).to_ne_bytes()
    }
}

/// Bytes of one memory region on the wire.
const REGION_LEN: usize = 32;

fn read_region(raw: &[u8]) -> Option<RegionSpec> {
    Some(RegionSpec {
        guest_addr: u64_at(raw, 0)?,
        len: u64_at(raw, 8)?,
        user_addr: u64_at(raw, 16)?,
        offset: u64_at(raw, 24)?,
    })
}

fn write_region(region: &RegionSpec) -> [u8; REGION_LEN] {
    let mut raw = [0; REGION_LEN];
    raw[..8].copy_from_slice(&region.guest_addr.to_ne_bytes());
    raw[8..16].copy_from_slice(&region.len.to_ne_bytes());
    raw[16..24].copy_from_slice(&region.user_addr.to_ne_bytes());
    raw[24..].copy_from_slice(&region.offset.to_ne_bytes());
    raw
}

/// Bytes of a payload that describes a single memory region.
pub const SINGLE_REGION_LEN: usize = 8 + REGION_LEN;

/// Reads a single memory region: 8 bytes of padding, then the region.
pub fn region_from_bytes(raw: &[u8]) -> Option<RegionSpec> {
    (raw.len() == SINGLE_REGION_LEN).then(|| read_region(raw.get(8..)?))?
}

/// The wire form of a single memory region.
pub fn region_to_bytes(region: &RegionSpec) -> [u8; SINGLE_REGION_LEN] {
    let mut raw = [0; SINGLE_REGION_LEN];
    raw[8..].copy_from_slice(&write_region(region));
    raw
}

/// The regions of one `SET_MEM_TABLE`; a descriptor for each comes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryTable(pub ArrayVec<RegionSpec, MAX_FDS>);

impl MemoryTable {
    /// The wire form, read: a count, padding, and that many regions, or room
    /// for as many as there can be, as the specification draws it.
    pub fn from_bytes(raw: &[u8]) -> Option<Self> {
        let count = usize::try_from(u32_at(raw, 0)?).ok()?;
        let room = raw.get(8..)?;
        let most = MAX_FDS * REGION_LEN;
        let regions = room.get(..count.checked_mul(REGION_LEN)?)?;
        let matches = regions.len() <= most && (room.len() == regions.len() || room.len() == most);
        matches.then(|| regions.chunks_exact(REGION_LEN).map(read_region).collect())?
    }

    /// The wire form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = self.0.len();
        let mut raw = Vec::with_capacity(8 + count * REGION_LEN);
        // At most MAX_FDS: nothing is lost.
        raw.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_ne_bytes());
        raw.extend_from_slice(&[0; 4]);
        self.0
            .iter()
            .for_each(|region| raw.extend_from_slice(&write_region(region)));
        raw
    }
}

impl FromIterator<RegionSpec> for MemoryTable {
    /// Takes at most [`MAX_FDS`] regions.
    fn from_iter<I: IntoIterator<Item = RegionSpec>>(regions: I) -> Self {
        Self(regions.into_iter().take(MAX_FDS).collect())
    }
}

/// An access to the configuration space: this, then `size` bytes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigAccess {
    /// Where in the configuration space, in bytes.
    pub offset: u32,
    /// How many bytes of it.
    pub size: u32,
    /// [`ConfigAccess::WRITABLE`] or [`ConfigAccess::MIGRATION`].
    pub flags: u32,
}

impl ConfigAccess {
    /// Bytes on the wire, without those of the configuration space.
    pub const LEN: usize = 12;
    /// Flags: the driver writes a writable field.
    pub const WRITABLE: u32 = 0;
    /// Flags: a migration restores any field.
    pub const MIGRATION: u32 = 1;

    /// The wire form, read, and the bytes of the configuration space: exactly
    /// `size` of them, at most [`MAX_CONFIG`].
    pub fn from_bytes(raw: &[u8]) -> Option<(Self, &[u8])> {
        let (head, bytes) = raw.split_at_checked(Self::LEN)?;
        let access = Self {
            offset: u32_at(head, 0)?,
            size: u32_at(head, 4)?,
            flags: u32_at(head, 8)?,
        };
        let matches = bytes.len() <= MAX_CONFIG && usize::try_from(access.size) == Ok(bytes.len());
        matches.then_some((access, bytes))
    }

    /// The wire form, the bytes of the configuration space left to the caller.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut raw = [0; Self::LEN];
        raw[..4].copy_from_slice(&self.offset.to_ne_bytes());
        raw[4..8].copy_from_slice(&self.size.to_ne_bytes());
        raw[8..].copy_from_slice(&self.flags.to_ne_bytes());
        raw
    }
}

#[cfg(test)]
mod tests;
