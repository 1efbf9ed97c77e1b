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
    #[error("{path}: no back end: {source}; {cure}", cure = cure(.source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What connect(2) said.
        source: io::Error,
    },
    /// It closed the connection before it had answered anything.
    #[error(
        "the back end closed the connection at once; it has one front end at a time: end the other"
    )]
    TurnedAway,
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
    #[error("the back end refused {0:?} with {1:#x}; its log says why")]
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

impl FrontEndError {
    /// The other end of the connection is no more.
    pub fn is_gone(&self) -> bool {
        use Errno::{ECONNRESET, EPIPE};
        matches!(
            self,
            Self::Channel {
                source: ChannelError::Closed | ChannelError::Io(ECONNRESET | EPIPE),
                ..
            }
        )
    }
}

/// What helps against an error of connect(2).
fn cure(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        // Of another type, such as a netmap service's.
        Some(libc::EPROTOTYPE) => "name the socket of a device, which is another than that of -N",
        Some(libc::EACCES) => "run as a user who may write to it",
        _ => "start it first, or take --server if it connects to us",
    }
}
