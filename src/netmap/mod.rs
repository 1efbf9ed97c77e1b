//! The netmap core in user space: VALE switches, what is attached to them, and
//! the rings and memory of netmap(4).
//!
//! | module | job |
//! | --- | --- |
//! | [`abi`] | what lies in shared memory and in requests, as in C |
//! | [`mem`] | memory regions: interfaces, rings, buffers |
//! | [`kring`] | a ring's private state, and leases |
//! | [`sync`] | what is checked before an application's ring is believed |
//! | [`kloop`] | rings synced without asking, in the client's own process |
//! | [`name`] | names of ports and switches |
//! | [`ctrl`] | control requests: what ioctl(2) does |
//! | [`legacy`] | the older ones |
//! | [`register`] | modes, and clients that come and go |
//! | [`port`] | what a client does with its port |
//! | [`rings`] | the rings of a port, and who has them bound |
//! | [`ring_port`] | krings on a switch |
//! | `kernel` | FreeBSD only: ports of `/dev/netmap` behind the same interface |
//! | [`device`] | interfaces of the host |
//! | [`adapter`] | a port of any kind |
//! | [`bwrap`] | a persistent port on a second switch |
//! | [`pipe`] | ports that lead to each other |
//! | [`poll`] | what poll(2) does on somebody's rings |
//! | [`monitor`] | ports that see what others send and receive |
//! | [`vale`] | the switch |
//! | [`mac_table`] | where each address was heard |
//! | [`authority`] | who asks, and what it may have |
//! | [`service`] | other processes as clients |
//! | [`attachment`] | what a switch forwards between |
//! | [`offload`] | frames completed for receivers that need it |

pub mod abi;
pub mod adapter;
pub mod attachment;
pub mod authority;
pub mod bwrap;
pub mod ctrl;
pub mod device;
#[cfg(target_os = "freebsd")]
pub mod kernel;
pub mod kloop;
pub mod kring;
pub mod legacy;
pub mod mac_table;
pub mod mem;
pub mod monitor;
pub mod name;
pub mod offload;
pub mod pipe;
pub mod poll;
pub mod port;
pub mod register;
pub mod ring_port;
pub mod rings;
pub mod service;
pub mod sync;
pub mod vale;
