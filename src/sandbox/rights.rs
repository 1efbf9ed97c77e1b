//! What each descriptor may be used for.
//!
//! Whoever gets a descriptor says what it is for, and the system forbids the
//! rest: FreeBSD by cap_rights_limit(2), cap_ioctls_limit(2) and
//! cap_fcntls_limit(2). Linux knows no rights of descriptors; there the system
//! call filter has one list for all of them.

use std::io;
use std::os::fd::AsFd;

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A queue of a tap or vmnet interface.
    Tap,
    /// A socket to ask with what groups an interface is in.
    InterfaceQuery,
    /// The data socket of a netgraph node.
    NetgraphData,
    /// An open netmap port: frames, no registration and no control.
    Netmap,
    /// A socket on which front ends connect.
    Listener,
    /// A vhost-user connection, or the channel of back-end requests.
    Connection,
    /// Guest memory, to be mapped.
    Memory,
    /// What a driver calls its device by.
    Kick,
    /// What a driver is called by, for interrupts and errors.
    Call,
    /// A kqueue(2).
    EventQueue,
    /// The end of our own pipe that is waited on, and drained.
    Awaited,
    /// The end of our own pipe that somebody is woken by.
    Waking,
    /// The connection with the opener.
    Opener,
    /// The same, to be told of its end.
    OpenerEnd,
    /// Standard output and error.
    Log,
    /// Standard input.
    Nothing,
}

/// Takes all rights from `fd` but those that `role` needs. Those that are gone
/// already stay away: a front end may have taken more.
///
/// # Errors
/// Those of cap_rights_limit(2); none on Linux.
pub fn limit(fd: impl AsFd, role: Role) -> io::Result<()> {
    #[cfg(target_os = "freebsd")]
    super::capsicum::limit(fd.as_fd(), role)?;
    #[cfg(not(target_os = "freebsd"))]
    let _ = (fd.as_fd(), role);
    Ok(())
}
