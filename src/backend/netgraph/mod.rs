//! A connection to a node of the kernel's netgraph(4), such as a hook of an
//! ng_bridge(4): `netgraph,path=br0:,peerhook=link1`.
//!
//! Frames are datagrams on the data socket of an ng_socket(4) node of our own
//! ([`Link`] says what is connected to what). They go by writev(2) and
//! readv(2) between guest memory and the kernel, as long as vtnetd carries
//! them: netgraph itself knows no limit below its socket buffers. There are no
//! offloads, for netgraph does not pass on what they would need.
//!
//! The node ends with the process, and with its only hook. When the peer is
//! shut down our sockets hang up; the privileged half (`NetgraphHost`) is then
//! asked for a new node again and again, until the peer is there.

#[cfg(any(target_os = "freebsd", test))]
mod buffers;
#[cfg(target_os = "freebsd")]
mod host;
mod link;
#[cfg(target_os = "freebsd")]
mod node;
#[cfg(any(target_os = "freebsd", test))]
mod port;
#[cfg(any(target_os = "freebsd", test))]
mod socket;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;

#[cfg(target_os = "freebsd")]
pub use host::NetgraphHost;
pub use link::Link;
#[cfg(target_os = "freebsd")]
pub use port::Netgraph;
