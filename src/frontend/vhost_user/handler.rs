//! What each request means to the device.
//!
//! Every request is checked in full, its length, its descriptors and its
//! values, before it has any effect.

mod body;

use std::fmt;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::SockType;

use super::message::{
    ConfigAccess, MemoryTable, Request, VringAddress, VringState, protocol_feature,
    region_from_bytes, u64_from_bytes,
};
use super::session::Session;
use super::socket::{Channel, Message};
use crate::device::{Device, DeviceError};
use crate::sandbox::{Role, limit};
use crate::socket::is_unix;
use crate::virtio::feature_names;
use crate::virtio::memory::{GuestMemory, MAX_REGIONS, MemoryError, RegionSpec};
use crate::virtio::queue::RingAddresses;
use crate::virtio::spec::feature;
use body::Body;

/// The protocol features that we offer; `MQ` only with several queue pairs.
pub const PROTOCOL_FEATURES: u64 = protocol_feature::MQ
    | protocol_feature::RARP
    | protocol_feature::REPLY_ACK
    | protocol_feature::MTU
    | protocol_feature::BACKEND_REQ
    | protocol_feature::CONFIG
    | protocol_feature::RESET_DEVICE
    | protocol_feature::CONFIGURE_MEM_SLOTS
    | protocol_feature::STATUS;

/// What `device` offers. `GET_QUEUE_NUM` answers queue *pairs*, as QEMU and
/// DPDK take it; Cloud Hypervisor takes it for queues, and would find one pair
/// too few for its two queues. Without `MQ` all of them assume one pair.
fn protocol_features(device: &Device) -> u64 {
    if device.queue_pairs() > 1 {
        PROTOCOL_FEATURES
    } else {
        PROTOCOL_FEATURES & !protocol_feature::MQ
    }
}

/// What a request that was right is answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// Nothing, or that it was right.
    Done,
    /// The request's own answer.
    Payload(Vec<u8>),
}

impl Answer {
    fn number(number: u64) -> Self {
        Self::Payload(number.to_ne_bytes().to_vec())
    }
}

/// Why a request was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    request: u32,
    reason: Reason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Request::from_number(self.request) {
            Some(request) => write!(f, "{request:?}: {}", self.reason),
            None => write!(f, "request {}: {}", self.request, self.reason),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("unknown; the front end uses what was not negotiated")]
    Unknown,
    #[error("not offered; the front end uses what was not negotiated")]
    NotOffered,
    #[error("used without negotiating its protocol feature")]
    NotNegotiated,
    #[error("payload of {0} bytes is not what the request has")]
    Size(usize),
    #[error("{got} descriptors came with it, not {want}")]
    Descriptors { got: usize, want: usize },
    #[error("the descriptor flag and the {0} descriptors that came do not agree")]
    DescriptorFlag(usize),
    #[error("the descriptor is neither an eventfd nor a pipe nor a socket")]
    Notifier,
    #[error("the descriptor is not a Unix stream socket")]
    NotSocket,
    #[error("features {0:#x} were not offered")]
    Features(u64),
    #[error("{0} {1:#x} is not a multiple of {2}")]
    Alignment(&'static str, u64, u64),
    #[error(
        "{0} {1:#x} is in no memory region; share all guest memory (share=on) and send its table"
    )]
    Unmapped(&'static str, u64),
    #[error("logging is not offered")]
    Logging,
    #[error("{0} is not a value that it can have")]
    Value(u64),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("descriptor: {0}")]
    System(#[from] Errno),
    #[error("the rights of a descriptor: {0}")]
    Rights(std::io::Error),
}

fn index(state: VringState) -> usize {
    usize::try_from(state.index).unwrap_or(usize::MAX)
}

/// A ring's place in [`Session::started`]; no device has more than 64 rings.
fn ring_bit(ring: usize) -> u64 {
    u32::try_from(ring)
        .ok()
        .and_then(|ring| 1u64.checked_shl(ring))
        .unwrap_or(0)
}

impl Session {
    /// Does what `message` asks for.
    pub(super) fn handle(&mut self, message: Message) -> Result<Answer, Refusal> {
        let number = message.header.request;
        let refusal = |reason| Refusal {
            request: number,
            reason,
        };
        let request = Request::from_number(number).ok_or_else(|| refusal(Reason::Unknown))?;
        let body = Body {
            payload: &message.payload,
            fds: message.fds,
        };
        self.dispatch(request, body).map_err(refusal)
    }

    fn dispatch(&mut self, request: Request, body: Body<'_>) -> Result<Answer, Reason> {
        self.negotiated(request)?;
        let device = Arc::clone(&self.device);
        match request {
            Request::GetFeatures => {
                body.empty()?;
                let features = device.features() | feature::VHOST_USER_PROTOCOL_FEATURES;
                return Ok(Answer::number(features));
            }
            Request::SetFeatures => self.set_features(body.plain(u64_from_bytes)?)?,
            Request::GetProtocolFeatures => {
                body.empty()?;
                return Ok(Answer::number(protocol_features(&device)));
            }
            Request::SetProtocolFeatures => {
                let features = body.plain(u64_from_bytes)?;
                offered(features, protocol_features(&device))?;
                tracing::debug!("{}: protocol features: {features:#x}", device.name());
                self.protocol_features = Some(features);
            }
            Request::SetOwner => body.empty()?,
            Request::ResetOwner => {
                body.empty()?;
                for ring in 0..device.vrings() {
                    device.enable_vring(ring, false)?;
                }
            }
            Request::ResetDevice => {
                body.empty()?;
                self.started = 0;
                self.negotiated = false;
                self.says_enabled = false;
                device.reset();
            }
            Request::GetStatus => {
                body.empty()?;
                return Ok(Answer::number(u64::from(device.status())));
            }
            Request::SetStatus => self.set_status(body.plain(u64_from_bytes)?)?,
            Request::GetQueueNum => {
                body.empty()?;
                return Ok(Answer::number(u64::from(device.queue_pairs())));
            }
            Request::NetSetMtu => {
                let mtu = body.plain(u64_from_bytes)?;
                device.set_mtu(u16::try_from(mtu).map_err(|_| Reason::Value(mtu))?)?;
            }
            Request::SendRarp => {
                let raw = body.plain(u64_from_bytes)?.to_ne_bytes();
                let [a, b, c, d, e, f, ..] = raw;
                device.announce([a, b, c, d, e, f])?;
            }
            Request::GetConfig => return read_config(&device, &body),
            Request::SetConfig => write_config(&device, &body)?,
            Request::SetBackendReqFd => {
                body.decode(|raw| raw.is_empty().then_some(()))?;
                let fd = body.descriptor()?;
                if !is_unix(fd.as_fd(), SockType::Stream)? {
                    return Err(Reason::NotSocket);
                }
                limit(&fd, Role::Connection).map_err(Reason::Rights)?;
                self.backend = Some(Channel::new(UnixStream::from(fd)));
            }
            Request::SetMemTable
            | Request::AddMemReg
            | Request::RemMemReg
            | Request::GetMaxMemSlots => return memory(&device, request, body),
            Request::SetVringNum
            | Request::SetVringAddr
            | Request::SetVringBase
            | Request::SetVringEnable => {
                set_vring(&device, request, &body)?;
                self.says_enabled |= request == Request::SetVringEnable;
            }
            Request::SetVringCall => {
                let (ring, fd) = body.vring_fd(Role::Call)?;
                device.set_vring_call(ring, fd)?;
            }
            Request::SetVringErr => {
                let (ring, fd) = body.vring_fd(Role::Call)?;
                device.set_vring_err(ring, fd)?;
            }
            Request::SetVringKick => {
                let (ring, fd) = body.vring_fd(Role::Kick)?;
                device.set_vring_kick(ring, fd)?;
                self.started |= ring_bit(ring);
            }
            Request::GetVringBase => {
                let state = body.plain(VringState::from_bytes)?;
                let base = device.stop_vring(index(state))?;
                self.started &= !ring_bit(index(state));
                let state = VringState { num: base, ..state };
                return Ok(Answer::Payload(state.to_bytes().to_vec()));
            }
            Request::SetLogBase
            | Request::SetLogFd
            | Request::IotlbMsg
            | Request::SetVringEndian
            | Request::PostcopyAdvise
            | Request::PostcopyListen
            | Request::PostcopyEnd
            | Request::GetInflightFd
            | Request::SetInflightFd
            | Request::VringKick
            | Request::SetDeviceStateFd
            | Request::CheckDeviceState => return Err(Reason::NotOffered),
        }
        Ok(Answer::Done)
    }

    /// Some requests may be sent only when their protocol feature was
    /// negotiated; for others it is enough that it is offered.
    fn negotiated(&self, request: Request) -> Result<(), Reason> {
        let allowed = match request {
            Request::GetConfig | Request::SetConfig => self.uses(protocol_feature::CONFIG),
            Request::GetStatus | Request::SetStatus => self.uses(protocol_feature::STATUS),
            Request::GetMaxMemSlots | Request::AddMemReg | Request::RemMemReg => {
                self.uses(protocol_feature::CONFIGURE_MEM_SLOTS)
            }
            // QEMU before 7.2 enables rings after it has negotiated protocol
            // features, but never says so in SET_FEATURES.
            Request::SetVringEnable => self.negotiated || self.protocol_features.is_some(),
            _ => true,
        };
        allowed.then_some(()).ok_or(Reason::NotNegotiated)
    }

    fn set_features(&mut self, features: u64) -> Result<(), Reason> {
        let device = &self.device;
        let own = feature::VHOST_USER_PROTOCOL_FEATURES;
        offered(features, device.features() | own)?;
        device.set_features(features & !own)?;
        let names = feature_names::describe(features);
        tracing::debug!("{}: features: {features:#x}: {names}", device.name());
        self.negotiated = features & own != 0;
        // What was said of single rings, before or after, is meant.
        if !self.negotiated && !self.says_enabled {
            device.enable_all_vrings();
        }
        Ok(())
    }

    fn set_status(&mut self, status: u64) -> Result<(), Reason> {
        let status = u8::try_from(status).map_err(|_| Reason::Value(status))?;
        self.device.set_status(status)?;
        tracing::debug!("{}: driver's status: {status:#x}", self.device.name());
        if status == 0 {
            self.started = 0;
            self.says_enabled = false;
        }
        Ok(())
    }
}

fn offered(features: u64, offer: u64) -> Result<(), Reason> {
    match features & !offer {
        0 => Ok(()),
        surplus => Err(Reason::Features(surplus)),
    }
}

fn set_vring(device: &Device, request: Request, body: &Body<'_>) -> Result<(), Reason> {
    if request == Request::SetVringAddr {
        return set_vring_address(device, body.plain(VringAddress::from_bytes)?);
    }
    let state = body.plain(VringState::from_bytes)?;
    let wrong = |_| Reason::Value(u64::from(state.num));
    match request {
        Request::SetVringNum => {
            device.set_vring_size(index(state), u16::try_from(state.num).map_err(wrong)?)?;
        }
        Request::SetVringBase => {
            device.set_vring_base(index(state), state.num)?;
        }
        _ => {
            let enable = match state.num {
                0 => false,
                1 => true,
                other => return Err(Reason::Value(u64::from(other))),
            };
            device.enable_vring(index(state), enable)?;
        }
    }
    Ok(())
}

/// Section 2.7 of the virtio specification says how each part is aligned. How
/// far each reaches depends on the queue's size, which may not be known yet:
/// here only where it begins, the rest when the ring starts.
fn set_vring_address(device: &Device, at: VringAddress) -> Result<(), Reason> {
    if at.flags & VringAddress::LOG != 0 {
        return Err(Reason::Logging);
    }
    let memory = device.memory();
    for (part, address, alignment) in [
        ("descriptor table", at.desc, 16),
        ("available ring", at.avail, 2),
        ("used ring", at.used, 4),
    ] {
        if address % alignment != 0 {
            return Err(Reason::Alignment(part, address, alignment));
        }
        if !memory.is_empty() && memory.user_range(address, alignment).is_none() {
            return Err(Reason::Unmapped(part, address));
        }
    }
    let addresses = RingAddresses {
        desc: at.desc,
        avail: at.avail,
        used: at.used,
    };
    let ring = usize::try_from(at.index).unwrap_or(usize::MAX);
    Ok(device.set_vring_addresses(ring, addresses)?)
}

fn memory(device: &Device, request: Request, body: Body<'_>) -> Result<Answer, Reason> {
    for fd in &body.fds {
        limit(fd, Role::Memory).map_err(Reason::Rights)?;
    }
    let table = match request {
        Request::SetMemTable => {
            let MemoryTable(regions) = body.decode(MemoryTable::from_bytes)?;
            body.descriptors(regions.len())?;
            let table = GuestMemory::new(regions.iter().copied().zip(body.fds))?;
            for region in &regions {
                tell_of(device, region);
            }
            table
        }
        Request::AddMemReg => {
            let region = body.decode(region_from_bytes)?;
            let (memory, descriptor) = (device.memory(), body.descriptor()?);
            let table = match memory.with_region_again(region) {
                Some(table) => table,
                None => memory.with_region(region, &descriptor)?,
            };
            tell_of(device, &region);
            table
        }
        Request::RemMemReg => {
            // Some front ends attach the region's descriptor: it is closed.
            if body.fds.len() != 1 {
                body.descriptors(0)?;
            }
            let region = body.decode(region_from_bytes)?;
            let table = device.memory().without_region(region)?;
            let (name, guest) = (device.name(), region.guest_addr);
            tracing::debug!("{name}: memory at {guest:#x}: taken back");
            // The front end takes the memory away in any case, and QEMU adds a
            // region that it changed after it has removed it: a ring that was
            // there rests until then.
            if let Err(error) = device.set_memory(Arc::new(table)) {
                tracing::warn!("{}: RemMemReg: {error}", device.name());
            }
            return Ok(Answer::Done);
        }
        _ => {
            body.empty()?;
            return Ok(Answer::number(MAX_REGIONS as u64));
        }
    };
    device.set_memory(Arc::new(table))?;
    Ok(Answer::Done)
}

fn tell_of(device: &Device, region: &RegionSpec) {
    tracing::debug!("{}: memory at {region}", device.name());
}

/// What cannot be read is answered by a message without payload.
fn read_config(device: &Device, body: &Body<'_>) -> Result<Answer, Reason> {
    let (access, bytes) = body.plain(owned_config)?;
    let mut reply = access.to_bytes().to_vec();
    let mut config = bytes;
    match device.read_config(access.offset, &mut config) {
        Ok(()) => reply.extend_from_slice(&config),
        Err(error) => {
            tracing::debug!("{}: GetConfig: {error}", device.name());
            reply.clear();
        }
    }
    Ok(Answer::Payload(reply))
}

fn write_config(device: &Device, body: &Body<'_>) -> Result<(), Reason> {
    let (access, bytes) = body.plain(owned_config)?;
    let restore = match access.flags {
        ConfigAccess::WRITABLE => false,
        ConfigAccess::MIGRATION => true,
        flags => return Err(Reason::Value(u64::from(flags))),
    };
    Ok(device.write_config(access.offset, &bytes, restore)?)
}

fn owned_config(raw: &[u8]) -> Option<(ConfigAccess, Vec<u8>)> {
    ConfigAccess::from_bytes(raw).map(|(access, bytes)| (access, bytes.to_vec()))
}
