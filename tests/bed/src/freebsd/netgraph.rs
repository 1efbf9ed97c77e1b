//! Netgraph nodes, made by ngctl(8).

use super::{run, run_words};
use crate::{Error, Result};

/// Runs one command of ngctl's, such as `list`, given as one line of words.
///
/// # Errors
/// ngctl's own; or it is missing.
pub fn ngctl(line: &str) -> Result<String> {
    let mut words = vec!["ngctl"];
    words.extend(line.split(' '));
    run_words(&words)
}

/// A network interface that is a netgraph node (ng_eiface(4)) with one hook,
/// `ether`; shut down when dropped. Node and interface have one name.
#[derive(Debug)]
pub struct NgInterface(String);

impl NgInterface {
    /// A new one, up, whose hook `ether` is connected to `hook` of a new node
    /// of type `kind`: `bridge` and `link0`, or `hub` and any.
    ///
    /// # Errors
    /// ngctl's and ifconfig's; or one of them is missing.
    pub fn with_peer(kind: &str, hook: &str) -> Result<Self> {
        let interface = Self::create()?;
        ngctl(&format!("mkpeer {}: {kind} ether {hook}", interface.0))?;
        Ok(interface)
    }

    /// A new one, up, whose hook `ether` is connected to `hook` of the node at
    /// `path`.
    ///
    /// # Errors
    /// As [`NgInterface::with_peer`].
    pub fn connected(path: &str, hook: &str) -> Result<Self> {
        let interface = Self::create()?;
        ngctl(&format!("connect {}: {path} ether {hook}", interface.0))?;
        Ok(interface)
    }

    /// Made on the socket node of ngctl, which takes its hook away and leaves
    /// the node when it ends: an interface stays until it is shut down.
    fn create() -> Result<Self> {
        let before = names()?;
        ngctl("mkpeer eiface ether ether")?;
        let made = names()?.into_iter().find(|name| !before.contains(name));
        let name = made.ok_or_else(|| Error::new("ngctl mkpeer eiface made no interface"))?;
        let interface = Self(name);
        run(&format!("ifconfig {} up", interface.0))?;
        Ok(interface)
    }

    /// What the interface and its node are called.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The path of the node that its hook is connected to.
    pub fn peer(&self) -> String {
        format!("{}:ether", self.0)
    }
}

impl Drop for NgInterface {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = ngctl(&format!("shutdown {}:", self.0));
    }
}

/// The interfaces of the system.
fn names() -> Result<Vec<String>> {
    let listed = run("ifconfig -l")?;
    Ok(listed.split_whitespace().map(str::to_owned).collect())
}
