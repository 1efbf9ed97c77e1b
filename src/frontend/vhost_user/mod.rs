//! The vhost-user protocol, as QEMU's `docs/interop/vhost-user.rst` defines it.
//!
//! A *front end* (the VMM, or `vtgen`) hands the guest's memory and rings to
//! the *back end*, which is us, over a Unix socket.
//!
//! | module | job |
//! | --- | --- |
//! | `front_end` | a device's connections, one after the other |
//! | `endpoint` | where they come from |
//! | `session` | one connection: requests in, answers out |
//! | `handler` | what each request means to the device |
//! | [`message`] | what a message looks like: numbers, flags, payloads |
//! | [`socket`] | one message with its descriptors, in or out |
//!
//! [`FrontEnd`] is what the control thread's event loop drives. The [`message`]
//! and [`socket`] modules serve both sides of the protocol.

mod endpoint;
mod front_end;
mod handler;
pub mod message;
mod session;
pub mod socket;

pub use endpoint::{Connect, EndpointError, EndpointSpec, try_connect};
pub use front_end::FrontEnd;
pub use handler::PROTOCOL_FEATURES;
pub use message::{Header, Request};
pub use socket::{Channel, ChannelError, Message};
