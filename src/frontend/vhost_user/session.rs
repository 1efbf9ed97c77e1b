//! One connection: receives requests, has them handled, answers.
//!
//! A request is right or refused; a refused one changes nothing, but that a ring
//! which cannot run where the front end wants it does not run. The front end
//! hears of a refusal by the answer that it asked for (`REPLY_ACK`). When it
//! asked for none, it goes on as if all were well, so the connection is closed.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::handler::{Answer, Refusal};
use super::message::{BackendRequest, Header, Request, VERSION, protocol_feature};
use super::socket::{Channel, ChannelError, Message};
use crate::device::Device;

/// Most messages handled in one go, so that a front end that never stops
/// talking does not keep the others waiting.
const MESSAGES: u32 = 32;
/// Most refusals in one connection: each is a line in the log.
const REFUSALS: u32 = 64;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The socket failed, or was closed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A request was refused, and the front end did not ask whether it was.
    #[error("{0}")]
    Refused(Refusal),
    /// The front end does not take no for an answer.
    #[error("{REFUSALS} requests were refused, the last: {0}")]
    Refusals(Refusal),
    /// A reply, and we have asked for none.
    #[error("message {0} is marked as a reply, but nothing was asked")]
    Reply(u32),
    /// Guest memory vanished, or the rings failed.
    #[error("guest memory was truncated, or every ring failed")]
    Broken,
}

/// A connection with a front end. The device is disconnected when it is
/// dropped.
pub(super) struct Session {
    pub(super) device: Arc<Device>,
    /// For our own requests, once the front end has given it.
    pub(super) backend: Option<Channel>,
    /// Those in use, once the front end has said so.
    pub(super) protocol_features: Option<u64>,
    /// The driver's features include that of protocol features.
    pub(super) negotiated: bool,
    /// The front end has said of rings whether they are enabled.
    pub(super) says_enabled: bool,
    /// Rings that run, by index.
    pub(super) started: u64,
    /// The configuration has changed and the front end has not heard of it.
    config_changed: bool,
    /// How many messages were handled.
    handled: u64,
    refusals: u32,
    /// Dropped last: when the front end sees its end, all else is gone.
    channel: Channel,
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.device.disconnect();
    }
}

impl Session {
    pub(super) fn new(device: Arc<Device>, socket: UnixStream) -> Self {
        Self {
            device,
            backend: None,
            protocol_features: None,
            negotiated: false,
            says_enabled: false,
            started: 0,
            config_changed: false,
            handled: 0,
            refusals: 0,
            channel: Channel::new(socket),
        }
    }

    /// The protocol feature is in use.
    pub(super) fn uses(&self, feature: u64) -> bool {
        self.protocol_features.unwrap_or(0) & feature != 0
    }

    /// The front end has said something that was understood.
    pub(super) fn has_spoken(&self) -> bool {
        self.handled > 0
    }

    /// Handles the messages that have arrived. Never blocks on the front end.
    ///
    /// # Errors
    /// Why the connection is to be closed.
    pub(super) fn serve(&mut self) -> Result<(), End> {
        for _ in 0..MESSAGES {
            let Some(message) = self.channel.try_receive()? else {
                break;
            };
            self.answer(message)?;
        }
        self.tell_config();
        Ok(())
    }

    fn answer(&mut self, message: Message) -> Result<(), End> {
        let header = message.header;
        if header.is_reply() {
            return Err(End::Reply(header.request));
        }
        self.trace(&message);
        let outcome = self.handle(message);
        // Asked now: the request may have been the one to negotiate it.
        let asked = header.needs_reply() && self.uses(protocol_feature::REPLY_ACK);
        match outcome {
            Ok(Answer::Payload(payload)) => self.reply(header, &payload)?,
            Ok(Answer::Done) if asked => self.reply(header, &0u64.to_ne_bytes())?,
            Ok(Answer::Done) => {}
            Err(refusal) => {
                self.refusals += 1;
                if self.refusals >= REFUSALS {
                    return Err(End::Refusals(refusal));
                }
                let own_reply =
                    Request::from_number(header.request).is_some_and(Request::has_reply);
                if own_reply || !asked {
                    return Err(End::Refused(refusal));
                }
                tracing::warn!("{}: {refusal}", self.device.name());
                self.reply(header, &1u64.to_ne_bytes())?;
            }
        }
        self.handled += 1;
        Ok(())
    }

    fn trace(&self, message: &Message) {
        let (name, number) = (self.device.name(), message.header.request);
        let (bytes, fds) = (message.payload.len(), message.fds.len());
        match Request::from_number(number) {
            Some(request) => {
                tracing::trace!("{name}: {request:?}: {bytes} bytes, {fds} descriptors");
            }
            None => tracing::trace!("{name}: request {number}: {bytes} bytes, {fds} descriptors"),
        }
    }

    fn reply(&self, to: Header, payload: &[u8]) -> Result<(), ChannelError> {
        // No answer is longer than a message.
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.channel.try_send(to.reply(size), payload, &[])
    }

    /// The device's configuration has changed: the front end is told, at once
    /// or when the device runs again (while it is suspended it sends nothing).
    pub(super) fn config_changed(&mut self) {
        self.config_changed = true;
        self.tell_config();
    }

    fn tell_config(&mut self) {
        if !self.config_changed || self.started == 0 || !self.uses(protocol_feature::CONFIG) {
            return;
        }
        let Some(backend) = &self.backend else {
            return;
        };
        self.config_changed = false;
        let header = Header {
            request: BackendRequest::ConfigChange as u32,
            flags: VERSION,
            size: 0,
        };
        match backend.try_send(header, &[], &[]) {
            // Full of messages that it has not read: they say the same.
            Ok(()) | Err(ChannelError::Full) => {}
            Err(error) => {
                let name = self.device.name();
                tracing::warn!("{name}: back-end request channel closed: {error}");
                self.backend = None;
            }
        }
    }

    /// The front end has closed its socket; what it had sent may still be there.
    pub(super) fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(self.channel.as_fd(), PollFlags::empty())];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
    }
}
