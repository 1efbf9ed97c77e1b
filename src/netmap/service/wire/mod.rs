//! What goes between a client and the service: version [`VERSION`] of the
//! protocol. The client's side of it is the preload object's.
//!
//! # Connection
//! The service listens on a Unix socket of type `SOCK_SEQPACKET`
//! ([`DEFAULT_SOCKET`], or what [`SOCKET_VARIABLE`] says). Every
//! `open("/dev/netmap")` connects a socket of its own, and that socket is the
//! descriptor that the program gets. What the program has bound belongs to the
//! connection: it lasts until the last descriptor of the socket is closed, in
//! whatever process, and rights are those of who connected. It is recognised by
//! getpeername(2), which gives the path that the service listens on.
//!
//! The client sends one kind of message on it, [`Request::Attach`], and the
//! service does not answer there: several processes may have the descriptor, so
//! nobody could tell whose answer it is. Whom it does not let in it tells so, by
//! an [`Answer`] with an errno that is the connection's last and only message:
//! `EACCES` (rules), `EMFILE` (limits). Who finds the connection ended looks for
//! it ([`socket::last_word`]) and leaves it there for the others.
//!
//! # Channel
//! Who wants something makes two pairs of sockets and sends one end of each
//! along with [`Request::Attach`]:
//!
//! 1. the *channel* (`SOCK_SEQPACKET`), for requests and their answers, with
//!    room for [`MESSAGE_MAX`] bytes both ways (`SO_SNDBUF`, `SO_RCVBUF` on both
//!    ends; [`socket::channel_pair`] makes one);
//! 2. the *bell* (`SOCK_STREAM`; [`socket::bell_pair`]), for wake-ups: a byte
//!    says "look at the page", whatever its value.
//!
//! The answer, on the channel, is [`Answer`] with errno 0 and one descriptor,
//! the [`page`], or an errno: `EMFILE` (limits), `EPROTONOSUPPORT` (version). A
//! channel is used by one thread of one process
//! at a time, and there may be as many as [`CHANNELS`] on a connection; it goes
//! when the client closes it, or the connection is gone. After fork(2) a child
//! makes channels of its own, for the page is shared.
//!
//! On a channel each request has one answer, in order:
//!
//! | request | answer |
//! | --- | --- |
//! | [`Request::Ioctl`] | errno, and what to write to the client's memory |
//! | the same, to register with `NETMAP_REQ_OPT_EXTMEM`, with the descriptor of a sealed object | the same |
//! | [`Request::Map`] | the region's descriptor, and its bytes in `value` |
//! | [`Request::Borrow`] | the same, and [`Terms`] as one segment |
//!
//! Along with a request may come the shared object that memory was made which
//! the client names in it (`NETMAP_REQ_OPT_EXTMEM`). The answer to a request
//! that starts a sync loop brings the loop's descriptor, unless there is nothing
//! to run, and that to one that stops it what becomes readable when it has
//! ended ([`kloop::job`](crate::netmap::kloop::job)).
//!
//! The client's memory is not read by the service: what a request needs of it
//! comes along as [`Segment`]s ([`gather`](super::gather::gather) collects them),
//! and what was written comes back as segments, to be applied in order. They may
//! be applied whatever the errno is: options have their statuses then.
//!
//! # Syncs
//! `NIOCTXSYNC`, `NIOCRXSYNC` and poll(2) go over the [`page`], and cost no
//! system call while both sides are busy. Of pipes a client may do them itself,
//! in its own thread, while nobody else has to do with its rings
//! ([`pipe::link`](crate::netmap::pipe::link)): it asks for the region and the
//! [`Terms`] once, for the rings by [`Operation::Borrow`] whenever it wants them,
//! and has them until a word in the region says that they are somebody else's
//! ([`Progress`](crate::netmap::mem::Progress)).
//!
//! [`Operation::Borrow`]: page::Operation::Borrow
//! [`Terms`]: crate::netmap::pipe::borrowed::Terms

mod message;
pub mod page;
pub mod socket;
#[cfg(test)]
mod tests;

pub use message::{Answer, Request, Segment, WireError};

/// Version of the protocol. Another one is refused.
pub const VERSION: u32 = 2;
/// Where the service listens when nobody says otherwise: in a directory that
/// FreeBSD has as well, which has no `/run`.
pub const DEFAULT_SOCKET: &str = "/var/run/netmap.sock";
/// The environment variable that says otherwise, to clients.
pub const SOCKET_VARIABLE: &str = "VTNETMAP_SOCKET";
/// Most bytes of a message: the entries of 512 rings both ways, and more than
/// any request and its options have.
pub const MESSAGE_MAX: usize = 80 * 1024;
/// Most bytes that the segments of a message claim together; with their heads
/// they fit an answer.
pub const CLAIM_MAX: usize = 70 * 1024;
/// Most segments of a message: a header, a body, more options with their
/// payloads than the kernel's buffer has room for, and two blocks of entries.
pub const SEGMENTS_MAX: usize = 512;
/// Most descriptors of a message.
pub const DESCRIPTORS_MAX: usize = 2;
/// Most channels of a connection.
pub const CHANNELS: usize = 64;
