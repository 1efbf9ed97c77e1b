//! The front end's side of a vhost-user connection: what a VMM says to a back
//! end, message by message.
//!
//! Each function sends one message, and when the back end acknowledges
//! messages (`REPLY_ACK`) waits for that, so that an error is reported by what
//! caused it. [`FrontEnd::channel`] is there for tests that send what no front
//! end should.

mod device;
mod error;
mod vring;

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use error::FrontEndError;
pub use vring::Vring;

use super::memory::DriverMemory;
use crate::frontend::vhost_user::message::{
    BackendRequest, FLAG_NEED_REPLY, MAX_FDS, MemoryTable, SINGLE_REGION_LEN, protocol_feature,
    region_to_bytes, u64_from_bytes,
};
use crate::frontend::vhost_user::{Channel, Header, Message, Request};
use crate::virtio::memory::RegionSpec;
use crate::virtio::spec::feature;

/// How long a back end may take to answer, unless it is said otherwise.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What to negotiate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiation {
    /// Features (`virtio::spec`) that we take if they are offered. Without
    /// `VHOST_USER_PROTOCOL_FEATURES` no protocol features are used, as by
    /// front ends of old.
    pub features: u64,
    /// Those of them without which there is no point.
    pub required: u64,
    /// Protocol features ([`protocol_feature`]) that we take.
    pub protocol: u64,
}

/// Every protocol feature that a [`FrontEnd`] can use.
pub const PROTOCOL_FEATURES: u64 = protocol_feature::MQ
    | protocol_feature::RARP
    | protocol_feature::REPLY_ACK
    | protocol_feature::MTU
    | protocol_feature::BACKEND_REQ
    | protocol_feature::CONFIG
    | protocol_feature::RESET_DEVICE
    | protocol_feature::CONFIGURE_MEM_SLOTS
    | protocol_feature::STATUS;

/// A connection to a back end.
#[derive(Debug)]
pub struct FrontEnd {
    channel: Channel,
    timeout: Duration,
    offered: u64,
    features: u64,
    protocol_offered: u64,
    protocol: u64,
    /// The back end's own requests arrive here.
    requests: Option<Channel>,
}

impl FrontEnd {
    /// Connects to a back end that listens at `path`.
    ///
    /// # Errors
    /// [`FrontEndError::Connect`].
    pub fn connect(path: &Path) -> Result<Self, FrontEndError> {
        let socket = UnixStream::connect(path).map_err(|source| FrontEndError::Connect {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::new(socket))
    }

    /// Talks to a back end over a connected socket.
    pub fn new(socket: UnixStream) -> Self {
        Self {
            channel: Channel::new(socket),
            timeout: ANSWER_TIMEOUT,
            offered: 0,
            features: 0,
            protocol_offered: 0,
            protocol: 0,
            requests: None,
        }
    }

    /// Changes how long an answer may take.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The connection itself.
    pub fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }

    /// Features that the back end offers, once negotiated.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// Features that are in use.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Protocol features that the back end offers, once negotiated.
    pub fn protocol_offered(&self) -> u64 {
        self.protocol_offered
    }

    /// Protocol features that are in use.
    pub fn protocol(&self) -> u64 {
        self.protocol
    }

    /// Sends a message and waits for nothing.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(
        &mut self,
        request: Request,
        flags: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), FrontEndError> {
        let size =
            u32::try_from(payload.len()).map_err(|_| FrontEndError::DoesNotFit("the payload"))?;
        let mut header = Header::request(request, size);
        header.flags |= flags;
        tracing::trace!("{request:?}: {size} bytes, {} descriptors", fds.len());
        self.channel
            .send(header, payload, fds)
            .map_err(|source| FrontEndError::Channel { request, source })
    }

    /// Waits for the answer to `request`.
    ///
    /// # Errors
    /// When none comes, or one to something else.
    pub fn receive(&mut self, request: Request) -> Result<Message, FrontEndError> {
        let lost = |source| FrontEndError::Channel { request, source };
        let until = Instant::now() + self.timeout;
        let answer = loop {
            if let Some(answer) = self.channel.try_receive().map_err(lost)? {
                break answer;
            }
            if !wait(self.channel.as_fd(), until)? {
                return Err(FrontEndError::Timeout(request, self.timeout));
            }
        };
        if answer.header.request == request as u32 && answer.header.is_reply() {
            let payload = answer.payload.len();
            tracing::trace!("{request:?}: answered with {payload} bytes");
            Ok(answer)
        } else {
            Err(nonsense(request, &answer))
        }
    }

    /// Asks for something that has an answer, and returns its payload.
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`receive`](Self::receive).
    pub fn query(&mut self, request: Request, payload: &[u8]) -> Result<Message, FrontEndError> {
        self.send(request, 0, payload, &[])?;
        self.receive(request)
    }

    fn query_u64(&mut self, request: Request) -> Result<u64, FrontEndError> {
        let answer = self.query(request, &[])?;
        u64_from_bytes(&answer.payload).ok_or_else(|| nonsense(request, &answer))
    }

    /// Says something that has no answer of its own; waits for the
    /// acknowledgement where that was negotiated.
    ///
    /// # Errors
    /// [`FrontEndError::Refused`] when the acknowledgement is an error.
    pub fn command(
        &mut self,
        request: Request,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), FrontEndError> {
        if self.protocol & protocol_feature::REPLY_ACK == 0 {
            return self.send(request, 0, payload, fds);
        }
        self.send(request, FLAG_NEED_REPLY, payload, fds)?;
        let answer = self.receive(request)?;
        match u64_from_bytes(&answer.payload) {
            Some(0) => Ok(()),
            Some(error) => Err(FrontEndError::Refused(request, error)),
            None => Err(nonsense(request, &answer)),
        }
    }

    fn command_u64(&mut self, request: Request, value: u64) -> Result<(), FrontEndError> {
        self.command(request, &value.to_ne_bytes(), &[])
    }

    fn needs(&self, feature: u64, request: Request) -> Result<(), FrontEndError> {
        if self.protocol & feature == 0 {
            return Err(FrontEndError::NotNegotiated(request));
        }
        Ok(())
    }

    /// Becomes the owner and agrees on features, in the order that QEMU has.
    /// Returns the features in use.
    ///
    /// # Errors
    /// [`FrontEndError::Features`] when one that is required is not offered.
    pub fn negotiate(&mut self, want: Negotiation) -> Result<u64, FrontEndError> {
        let offered = self.query_u64(Request::GetFeatures);
        self.offered = offered.map_err(|error| match error.is_gone() {
            true => FrontEndError::TurnedAway,
            false => error,
        })?;
        let features = self.offered & want.features;
        let missing = want.required & !features;
        if missing != 0 {
            let offered = self.offered;
            return Err(FrontEndError::Features { offered, missing });
        }
        if features & feature::VHOST_USER_PROTOCOL_FEATURES != 0 {
            self.protocol_offered = self.query_u64(Request::GetProtocolFeatures)?;
            let protocol = self.protocol_offered & want.protocol;
            self.command_u64(Request::SetProtocolFeatures, protocol)?;
            self.protocol = protocol;
        }
        self.command(Request::SetOwner, &[], &[])?;
        self.set_features(features)?;
        Ok(features)
    }

    /// Changes the features in use, as a driver does that is loaded anew.
    ///
    /// # Errors
    /// As [`command`](Self::command); so do all that follow.
    pub fn set_features(&mut self, features: u64) -> Result<(), FrontEndError> {
        self.command_u64(Request::SetFeatures, features)?;
        self.features = features;
        Ok(())
    }

    /// How many queue pairs the back end can have.
    ///
    /// # Errors
    /// When there is no sensible answer. Without the protocol feature MQ there
    /// is one pair.
    pub fn queue_pairs(&mut self) -> Result<u64, FrontEndError> {
        if self.protocol & protocol_feature::MQ == 0 {
            return Ok(1);
        }
        self.query_u64(Request::GetQueueNum)
    }

    /// Shares all of `memory` in one table, or where that has too few places
    /// region by region.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn share(&mut self, memory: &DriverMemory) -> Result<(), FrontEndError> {
        if memory.regions().len() <= MAX_FDS {
            return self.set_memory_table(memory.regions());
        }
        for (spec, object) in memory.regions() {
            self.add_region(&spec, object)?;
        }
        Ok(())
    }

    /// Shares these regions and no others; at most [`MAX_FDS`].
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn set_memory_table<'a>(
        &mut self,
        regions: impl Iterator<Item = (RegionSpec, BorrowedFd<'a>)>,
    ) -> Result<(), FrontEndError> {
        let (specs, fds): (Vec<_>, Vec<_>) = regions.unzip();
        if specs.len() > MAX_FDS {
            return Err(FrontEndError::DoesNotFit("the memory table"));
        }
        let table: MemoryTable = specs.into_iter().collect();
        self.command(Request::SetMemTable, &table.to_bytes(), &fds)
    }

    /// How many regions the back end takes.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn max_memory_slots(&mut self) -> Result<u64, FrontEndError> {
        self.needs(
            protocol_feature::CONFIGURE_MEM_SLOTS,
            Request::GetMaxMemSlots,
        )?;
        self.query_u64(Request::GetMaxMemSlots)
    }

    /// Shares one region more.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn add_region(
        &mut self,
        spec: &RegionSpec,
        object: BorrowedFd<'_>,
    ) -> Result<(), FrontEndError> {
        self.needs(protocol_feature::CONFIGURE_MEM_SLOTS, Request::AddMemReg)?;
        self.command(Request::AddMemReg, &region_to_bytes(spec), &[object])
    }

    /// Shares one region no longer.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn remove_region(&mut self, spec: &RegionSpec) -> Result<(), FrontEndError> {
        self.needs(protocol_feature::CONFIGURE_MEM_SLOTS, Request::RemMemReg)?;
        let payload: [u8; SINGLE_REGION_LEN] = region_to_bytes(spec);
        self.command(Request::RemMemReg, &payload, &[])
    }

    /// Opens the channel for the back end's own requests.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn open_request_channel(&mut self) -> Result<(), FrontEndError> {
        let request = Request::SetBackendReqFd;
        self.needs(protocol_feature::BACKEND_REQ, request)?;
        let (ours, theirs) = UnixStream::pair()
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        self.command(request, &[], &[theirs.as_fd()])?;
        self.requests = Some(Channel::new(ours));
        Ok(())
    }

    /// What becomes readable when the back end requests something, once
    /// [`open_request_channel`](Self::open_request_channel) was called.
    pub fn request_fd(&self) -> Option<BorrowedFd<'_>> {
        self.requests.as_ref().map(AsFd::as_fd)
    }

    /// The back end's next request, answered when it wants an answer; `None`
    /// when there is none now. A request that we do not know is answered by an
    /// error and left out.
    ///
    /// # Errors
    /// When the channel is gone.
    pub fn next_request(&mut self) -> Result<Option<BackendRequest>, FrontEndError> {
        let request = Request::SetBackendReqFd;
        let lost = |source| FrontEndError::Channel { request, source };
        let Some(channel) = &mut self.requests else {
            return Ok(None);
        };
        while let Some(message) = channel.try_receive().map_err(lost)? {
            let known = BackendRequest::from_number(message.header.request);
            if message.header.needs_reply() {
                let status = u64::from(known.is_none());
                channel
                    .send(message.header.reply(8), &status.to_ne_bytes(), &[])
                    .map_err(lost)?;
            }
            if known.is_some() {
                return Ok(known);
            }
        }
        Ok(None)
    }
}

/// Readable when the back end says something unasked or is gone.
impl AsFd for FrontEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

fn nonsense(request: Request, answer: &Message) -> FrontEndError {
    FrontEndError::Answer {
        request,
        header: answer.header,
        len: answer.payload.len(),
    }
}

/// Waits until `fd` can be read; `false` when `until` came first.
fn wait(fd: BorrowedFd<'_>, until: Instant) -> nix::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up, so that the end is really reached.
        let millis = left.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => {}
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno),
        }
    }
}
