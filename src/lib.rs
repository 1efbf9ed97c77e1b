//! A virtual machine's network card as a process of its own.
//!
//! A VMM hands guest memory and rings to `vtnetd` over vhost-user; `vtnetd`
//! runs the virtio-net device and carries frames to and from the host's
//! network, or between guests over a VALE switch of the netmap core that it
//! has built in.
//!
//! The rooms of the house:
//!
//! | module | job |
//! | --- | --- |
//! | [`cli`] | command lines and device strings |
//! | [`process`] | control thread, log, pid file, exit statuses |
//! | [`sandbox`] | what the process gives up before it serves, and the opener |
//! | [`frontend`] | who drives the device: vhost-user |
//! | [`driver`] | the other side: a software front end and driver, for `vtgen` |
//! | [`device`] | the virtio-net device: config, features, rx, tx, control queue |
//! | [`worker`] | the threads that run queue pairs and netmap clients' syncs |
//! | [`backend`] | what a device is connected to: none, tap, vmnet, vale, netgraph, netmap |
//! | [`netmap`] | the netmap core in user space and its VALE switches |
//! | [`net`] | views of packets, checksums, segmentation |
//! | [`virtio`] | guest memory, queues, the net header |
//! | [`word`] | words of shared memory, and their model |
//! | [`event`] | one interface over epoll and kqueue |
//! | `ffi` | FreeBSD only: its kernel's and libnetgraph's structures, numbers and functions |

#![warn(missing_docs)]

// Files that tests here have in common with those in tests/.
#[cfg(test)]
extern crate self as vtnetd;

pub mod backend;
mod c_text;
pub mod cli;
pub mod device;
pub mod driver;
pub mod event;
#[cfg(target_os = "freebsd")]
pub mod ffi;
pub mod frontend;
pub mod net;
pub mod netmap;
pub mod process;
pub mod sandbox;
mod socket;
pub mod virtio;
pub mod word;
pub mod worker;
