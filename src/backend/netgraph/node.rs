//! An ng_socket(4) node of our own: the safe face of netgraph(3).
//!
//! A node lives as long as one of its two sockets. Frames go through the data
//! socket, messages through the control socket; the latter need privileges, and
//! an address, which is why capability mode ends them.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::Link;
use crate::{c_text, ffi};

/// The node itself, as messages to it are addressed.
const OURSELVES: &CStr = c".";

const _: () = assert!(Link::MAX_PATH + 1 == ffi::NG_PATHSIZ as usize);
const _: () = assert!(Link::MAX_HOOK + 1 == ffi::NG_HOOKSIZ as usize);
const _: () = assert!(Link::MAX_NODE + 1 == ffi::NG_NODESIZ as usize);

/// What NGM_NODEINFO is answered with.
#[repr(C)]
#[derive(Default)]
struct Answer {
    message: ffi::ng_mesg,
    node: ffi::nodeinfo,
}

const _: () = assert!(std::mem::offset_of!(Answer, node) == size_of::<ffi::ng_mesg>());

/// A node, by its control socket.
#[derive(Debug)]
pub(super) struct Node(OwnedFd);

impl Node {
    /// Makes a node, with the name `name` if there is one, and its data socket.
    /// Loads ng_socket(4) if need be. Neither socket survives execve(2).
    ///
    /// # Errors
    /// `EPERM` without privileges, `EADDRINUSE` when another node has the name,
    /// `EINVAL` when it is no name or too long.
    pub(super) fn new(name: Option<&str>) -> Result<(Self, OwnedFd), Errno> {
        let name = name
            .map(CString::new)
            .transpose()
            .map_err(|_| Errno::EINVAL)?;
        if name
            .as_ref()
            .is_some_and(|name| name.as_bytes().len() > Link::MAX_NODE)
        {
            return Err(Errno::EINVAL);
        }
        let (mut control, mut data): (c_int, c_int) = (-1, -1);
        let name = name.as_ref().map_or(ptr::null(), |name| name.as_ptr());
        // SAFETY: the name is null or ends with NUL, and both numbers are ours
        // to be written to.
        Errno::result(unsafe { ffi::NgMkSockNode(name, &mut control, &mut data) })?;
        // SAFETY: both were just made, and nobody else has them.
        let sockets = unsafe { [OwnedFd::from_raw_fd(control), OwnedFd::from_raw_fd(data)] };
        for socket in &sockets {
            fcntl(socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        let [control, data] = sockets;
        Ok((Self(control), data))
    }

    /// Connects our hook of `link` to the other one.
    ///
    /// # Errors
    /// `ENOENT` when there is no such node, `EEXIST` when it has such a hook
    /// already, and whatever that node answers.
    pub(super) fn connect(&self, link: &Link) -> Result<(), Errno> {
        let connect = ffi::ngm_connect {
            path: text(&link.path)?,
            ourhook: text(&link.hook)?,
            peerhook: text(&link.peerhook)?,
        };
        self.send(ffi::NGM_GENERIC_COOKIE, ffi::NGM_CONNECT, Some(&connect))
    }

    /// Has the node end with its last hook, which hangs up its sockets: the
    /// data socket says by itself then that the other side is gone.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(super) fn end_with_last_hook(&self) -> Result<(), Errno> {
        self.send::<()>(ffi::NGM_SOCKET_COOKIE, ffi::NGM_SOCK_CMD_NOLINGER, None)
    }

    /// How many hooks the node has.
    ///
    /// # Errors
    /// What the kernel answers, above all that the node is gone.
    pub(super) fn hooks(&self) -> Result<u32, Errno> {
        self.send::<()>(ffi::NGM_GENERIC_COOKIE, ffi::NGM_NODEINFO, None)?;
        loop {
            let mut answer = Answer::default();
            // SAFETY: the answer is plain data, as long as is said, and begins
            // with its message; nobody asks for the sender.
            let received = unsafe {
                ffi::NgRecvMsg(
                    self.0.as_raw_fd(),
                    (&raw mut answer).cast(),
                    size_of::<Answer>(),
                    ptr::null_mut(),
                )
            };
            let len = usize::try_from(Errno::result(received)?).unwrap_or(0);
            let header = &answer.message.header;
            // Nodes can send messages that nobody has asked for.
            if len >= size_of::<Answer>()
                && header.typecookie == ffi::NGM_GENERIC_COOKIE
                && header.cmd == ffi::NGM_NODEINFO
                && header.flags & ffi::NGF_RESP != 0
            {
                return Ok(answer.node.hooks);
            }
            if len == 0 {
                return Err(Errno::ENOTCONN);
            }
        }
    }

    /// Ends the node, whoever has its sockets.
    pub(super) fn shut_down(self) {
        // That it has ended already is as good.
        let _ = self.send::<()>(ffi::NGM_GENERIC_COOKIE, ffi::NGM_SHUTDOWN, None);
    }

    /// Sends a message to the node itself and waits until it has been handled.
    fn send<T>(&self, cookie: u32, command: u32, argument: Option<&T>) -> Result<(), Errno> {
        let number = |number: u32| c_int::try_from(number).map_err(|_| Errno::EINVAL);
        let argument = argument.map_or((ptr::null::<c_void>(), 0), |argument| {
            (ptr::from_ref(argument).cast(), size_of::<T>())
        });
        // SAFETY: the argument is null and empty, or a whole structure of C
        // without padding, that outlives the call.
        let sent = unsafe {
            ffi::NgSendMsg(
                self.0.as_raw_fd(),
                OURSELVES.as_ptr(),
                number(cookie)?,
                number(command)?,
                argument.0,
                argument.1,
            )
        };
        Errno::result(sent).map(drop)
    }
}

/// `text` as a field of a structure.
fn text<const N: usize>(text: &str) -> Result<[c_char; N], Errno> {
    let mut array = [0; N];
    c_text::put(&mut array, text)?;
    Ok(array)
}
