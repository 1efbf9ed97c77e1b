//! The privileged half: makes the node, connects it, and makes its data socket
//! ready for use.

use std::os::fd::OwnedFd;
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{setsockopt, sockopt};

use super::node::Node;
use super::{Link, buffers};
use crate::backend::OpenError;
use crate::backend::host::{HostSide, Opened};
use crate::sandbox::{Role, limit};

/// Makes an ng_socket(4) node and connects it. Hands over its data socket.
///
/// The control socket stays here: with it a node that is of no use any more is
/// ended before the next one takes its name.
pub struct NetgraphHost {
    link: Link,
    node: Option<Node>,
}

impl NetgraphHost {
    /// For the connection `link`.
    pub fn new(link: &Link) -> Self {
        Self {
            link: link.clone(),
            node: None,
        }
    }

    fn refused(&self, errno: Errno, cure: &'static str) -> OpenError {
        OpenError::System {
            name: self.link.to_string(),
            error: errno.into(),
            cure,
        }
    }

    fn make(&self) -> Result<(Node, OwnedFd), OpenError> {
        Node::new(self.link.node.as_deref()).map_err(|errno| {
            self.refused(
                errno,
                match errno {
                    Errno::EPERM | Errno::EACCES => "run as root",
                    Errno::EADDRINUSE => "another node has that name; write another node=",
                    Errno::EMFILE | Errno::ENFILE => "raise the limit of open files (ulimit -n)",
                    _ => "load ng_socket(4): kldload ng_socket",
                },
            )
        })
    }

    fn connect(&self, node: &Node) -> Result<(), OpenError> {
        let Link { path, peerhook, .. } = &self.link;
        match node.connect(&self.link) {
            Ok(()) => {}
            Err(Errno::ENOENT) => {
                return Err(OpenError::Absent(format!(
                    "{}: there is no node {path}; make it first (ngctl list shows nodes)",
                    self.link
                )));
            }
            Err(errno) => {
                return Err(self.refused(
                    errno,
                    match errno {
                        Errno::EEXIST => "the node has that hook already; write another peerhook=",
                        _ => "the node does not take a peerhook= of that name; see its manual page",
                    },
                ));
            }
        }
        // The node may have second thoughts, of which the message above does
        // not tell (ng_con_part2() in ng_base.c).
        let settled = node.end_with_last_hook().and_then(|()| node.hooks());
        match settled {
            Ok(1) => Ok(()),
            settled => {
                tracing::debug!("{path}{peerhook}: not connected: {settled:?}");
                Err(self.refused(
                    Errno::ECONNREFUSED,
                    "the node does not take a peerhook= of that name; see its manual page",
                ))
            }
        }
    }

    fn prepare(&self, data: &OwnedFd) -> Result<(), Errno> {
        let flags = OFlag::from_bits_retain(fcntl(data, FcntlArg::F_GETFL)?);
        fcntl(data, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let size = buffers::size(max_socket_buffer()?);
        setsockopt(data, sockopt::SndBuf, &size)?;
        setsockopt(data, sockopt::RcvBuf, &size)
    }
}

impl HostSide for NetgraphHost {
    fn open(&mut self) -> Result<Opened, OpenError> {
        if let Some(node) = self.node.take() {
            node.shut_down();
        }
        let (node, data) = self.make()?;
        // Before there is a frame to be lost.
        self.prepare(&data).map_err(|errno| {
            self.refused(errno, "see kern.ipc.maxsockbuf, and limits(1) for sbsize")
        })?;
        self.connect(&node)?;
        limit(&data, Role::NetgraphData).map_err(|error| OpenError::System {
            name: self.link.to_string(),
            error,
            cure: "see capsicum(4)",
        })?;
        self.node = Some(node);
        Ok(Opened {
            fds: vec![data],
            ..Opened::default()
        })
    }
}

/// `kern.ipc.maxsockbuf`, in bytes.
fn max_socket_buffer() -> Result<u64, Errno> {
    let mut value: libc::c_ulong = 0;
    let mut len = size_of_val(&value);
    // SAFETY: the name ends with NUL, the value is as long as is said, and
    // nothing is to be set.
    let got = unsafe {
        libc::sysctlbyname(
            c"kern.ipc.maxsockbuf".as_ptr(),
            (&raw mut value).cast(),
            &mut len,
            ptr::null(),
            0,
        )
    };
    Errno::result(got)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;

    use super::*;

    #[test]
    fn a_data_socket_has_large_buffers_and_does_not_block() {
        let link = Link {
            path: "nobody:".into(),
            peerhook: "nothing".into(),
            hook: Link::DEFAULT_HOOK.into(),
            node: None,
        };
        let mut host = NetgraphHost::new(&link);
        let Ok((_node, data)) = host.make() else {
            println!("skipped: netgraph(4) takes root");
            return;
        };
        host.prepare(&data).unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&data, FcntlArg::F_GETFL).unwrap());
        assert!(flags.contains(OFlag::O_NONBLOCK));
        let size = buffers::size(max_socket_buffer().unwrap());
        assert!(size > crate::net::frame::MAX_FRAME);
        assert_eq!(getsockopt(&data, sockopt::SndBuf), Ok(size));
        assert_eq!(getsockopt(&data, sockopt::RcvBuf), Ok(size));
        assert!(matches!(host.open(), Err(OpenError::Absent(_))));
        assert!(host.node.is_none());
    }
}
