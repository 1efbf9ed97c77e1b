//! What a device is connected to in the netgraph.

use std::fmt;

/// A connection of two hooks: one of a node that is there, one of our own
/// ng_socket(4) node. Displayed as `netgraph:br0:link1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Address of the node to connect to, such as `br0:`; at most [`Self::MAX_PATH`]
    /// bytes.
    pub path: String,
    /// The hook there, such as `link1`; at most [`Self::MAX_HOOK`] bytes.
    pub peerhook: String,
    /// Our own hook; at most [`Self::MAX_HOOK`] bytes.
    pub hook: String,
    /// Our own node's name, if it is to have one; at most [`Self::MAX_NODE`] bytes.
    pub node: Option<String>,
}

impl Link {
    /// Longest address of a node, in bytes (NG_PATHSIZ - 1; ng_message.h).
    pub const MAX_PATH: usize = 511;
    /// Longest name of a hook, in bytes (NG_HOOKSIZ - 1; ng_message.h).
    pub const MAX_HOOK: usize = 31;
    /// Longest name of a node, in bytes (NG_NODESIZ - 1; ng_message.h).
    pub const MAX_NODE: usize = 31;
    /// [`hook`](Self::hook) when nothing else is asked for; the reference's.
    pub const DEFAULT_HOOK: &str = "vmlink";

    /// Whether both claim one hook of one node. Two ways to write a node's
    /// address are not seen through.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.path == other.path && self.peerhook == other.peerhook
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "netgraph:{}{}", self.path, self.peerhook)
    }
}
