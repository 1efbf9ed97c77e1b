//! The keys of a netgraph back end.
//!
//! They are the reference's, but for one: `socket=`, the name of our own node
//! there, is the vhost-user socket here. So the node's name is `node=`. Where
//! the vhost-user socket is given in another way (`fd=`, `--fd`,
//! `--socket-path`) there can be no mistake, and `socket=` is what it is in
//! the reference.

use super::error::{Blame, UsageError};
use super::keys::Keys;
use crate::backend::netgraph::Link;

/// What there has to be at least.
pub(super) const FORM: &str = "netgraph,path=ADDR,peerhook=HOOK";

/// Keys that no other back end has.
const OWN: [&str; 4] = ["path", "peerhook", "hook", "node"];

/// Makes `socket=` mean the node, when the vhost-user socket is `elsewhere`.
///
/// # Errors
/// `node=` is there as well.
pub(super) fn adopt(keys: &mut Keys<'_>, elsewhere: bool) -> Result<(), UsageError> {
    if elsewhere || keys.get("fd").is_some() {
        keys.rename("socket", "node")?;
    }
    Ok(())
}

/// The link that the keys describe.
///
/// # Errors
/// A key is missing, or its value is too long or badly formed.
pub(super) fn link(keys: &Keys<'_>) -> Result<Link, UsageError> {
    let missing = |key: &str, cure: &str| key.blame("is missing", cure);
    Ok(Link {
        path: keys.parse_value("path", path)?.ok_or_else(|| {
            missing(
                "path=",
                "add path=ADDR, the node to connect to, as in path=br0:",
            )
        })?,
        peerhook: keys.parse_value("peerhook", hook)?.ok_or_else(|| {
            missing(
                "peerhook=",
                "add peerhook=HOOK, the hook of that node, as in peerhook=link1",
            )
        })?,
        hook: keys
            .parse_value("hook", hook)?
            .unwrap_or_else(|| Link::DEFAULT_HOOK.to_owned()),
        node: keys.parse_value("node", node)?,
    })
}

/// Refuses netgraph's keys beside another `backend`.
///
/// # Errors
/// There is one.
pub(super) fn refuse(keys: &Keys<'_>, backend: &str) -> Result<(), UsageError> {
    match OWN.into_iter().find_map(|key| keys.get(key)) {
        Some((item, _)) => Err(item.blame(
            format!("does not go with {backend}"),
            format!("leave it out, or write {FORM}"),
        )),
        None => Ok(()),
    }
}

fn fits(item: &str, value: &str, limit: usize, macro_name: &str) -> Result<(), UsageError> {
    if value.len() > limit {
        return Err(item.blame(
            format!("longer than {limit} bytes ({macro_name} - 1)"),
            "shorten it",
        ));
    }
    Ok(())
}

/// What can be neither in a name nor in a path.
fn is_odd(c: char) -> bool {
    c.is_control() || c.is_whitespace()
}

/// An absolute address: our node has no other hook that a relative one could
/// begin with (ng_path_parse() in ng_base.c).
fn path(item: &str, value: &str) -> Result<String, UsageError> {
    fits(item, value, Link::MAX_PATH, "NG_PATHSIZ")?;
    let Some((node, hooks)) = value.split_once(':') else {
        return Err(item.blame(
            "not an address: the ':' behind the node's name is missing",
            format!("write {item}:"),
        ));
    };
    if node.len() > Link::MAX_NODE {
        return Err(item.blame(
            format!(
                "the node's name is longer than {} bytes (NG_NODESIZ - 1)",
                Link::MAX_NODE
            ),
            "shorten it",
        ));
    }
    if node.is_empty()
        || node.contains('.')
        || hooks.contains(':')
        || hooks.contains("..")
        || value.contains(is_odd)
    {
        return Err(item.blame(
            "not an address of a node",
            "write NODE:, or NODE:HOOK.HOOK for a node behind it; ngctl list shows nodes",
        ));
    }
    Ok(value.to_owned())
}

fn hook(item: &str, value: &str) -> Result<String, UsageError> {
    fits(item, value, Link::MAX_HOOK, "NG_HOOKSIZ")?;
    if value.contains(['.', ':']) || value.contains(is_odd) {
        return Err(item.blame(
            "not a name of a hook",
            "use a name without '.', ':' and blanks",
        ));
    }
    Ok(value.to_owned())
}

/// The kernel takes more than this; but what has a '/' was meant to be a path,
/// and what has a '[' can be taken for a node's number.
fn node(item: &str, value: &str) -> Result<String, UsageError> {
    fits(item, value, Link::MAX_NODE, "NG_NODESIZ")?;
    if value.contains(['.', ':', '/', '[']) || value.contains(is_odd) {
        return Err(item.blame(
            "not a name of a netgraph node",
            "use a name without '.', ':', '/', '[' and blanks",
        ));
    }
    Ok(value.to_owned())
}
