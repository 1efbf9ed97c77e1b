//! The other side of the socket: a vhost-user front end with a virtio-net
//! driver in software, which is what vtgen(8) and this project's tests stand
//! on.
//!
//! | module | job |
//! | --- | --- |
//! | [`vtgen`] | what vtgen(8) does: command line, loop and modes |
//! | [`report`] | what vtgen(8) tells of what it did |
//! | [`latency`] | a distribution of times |
//! | [`traffic`] | frames that a receiver can judge |
//! | [`net`] | a virtio-net driver: send and receive frames |
//! | [`front_end`] | the front end's side of a vhost-user connection |
//! | [`notifier`] | kicks and interrupts |
//! | [`queue`] | the driver's side of a virtqueue |
//! | [`memory`] | guest memory of our own, shared with the back end |

pub mod front_end;
pub mod latency;
pub mod memory;
pub mod net;
pub mod notifier;
pub mod queue;
pub mod report;
pub mod traffic;
pub mod vtgen;
