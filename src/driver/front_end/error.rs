//! What can go wrong between a front end and a back end.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use crate::frontend::vhost_user::{ChannelError, Header, Request};

/// Why the back end cannot be used, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum FrontEndError {
    /// Nobody listens.
    #[error("{path}: no back end: {source}; start it first, or take --server if it connects to us")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What connect(2) said.
        source: io::Error,
    },
    /// The connection is good for nothing any more.
    #[error("back end, at {request:?}: {source}")]
    Channel {
        /// What was being asked.
        request: Request,
        /// What is wrong with the connection.
        source: ChannelError,
    },
    /// No answer came.
    #[error("the back end did not answer {0:?} within {1:?}")]
    Timeout(Request, Duration),
    /// The answer is not one to this request.
    #[error(
        "the back end's answer to {request:?} makes no sense: {header:?}, {len} bytes of payload"
    )]
    Answer {
        /// What was asked.
        request: Request,
        /// The answer's header.
        header: Header,
        /// Length of its payload in bytes.
        len: usize,
    },
    /// The back end acknowledged with an error.
    #[error("the back end refused {0:?} with {1:#x}")]
    Refused(Request, u64),
    /// A message needs a protocol feature that was not negotiated.
    #[error("the back end does not offer what {0:?} needs")]
    NotNegotiated(Request),
    /// The back end does not offer a feature that is required.
    #[error("the back end offers features {offered:#x}; {missing:#x} is missing")]
    Features {
        /// What it offers.
        offered: u64,
        /// What is required and not among it.
        missing: u64,
    },
    /// What cannot be said in a message.
    #[error("{0} does not fit a message")]
    DoesNotFit(&'static str),
    /// No descriptors left, or similar.
    #[error("system: {0}")]
    System(#[from] Errno),
}
