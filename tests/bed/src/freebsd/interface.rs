//! Interfaces, made and destroyed by ifconfig(8).

use super::run;
use crate::Result;

/// An interface of a test's own, destroyed when dropped (of an epair, both
/// ends).
#[derive(Debug)]
pub struct Interface(String);

impl Interface {
    /// A new interface of a kind (`tap`, `vmnet`, `bridge`, `epair`), up.
    ///
    /// # Errors
    /// The kernel has no such kind; or there is no ifconfig.
    pub fn create(kind: &str) -> Result<Self> {
        let interface = Self(run(&format!("ifconfig {kind} create"))?);
        interface.set("up")?;
        Ok(interface)
    }

    /// An epair(4): its two ends, `epairNa` and `epairNb`, up. What goes out
    /// of one comes in on the other; the first owns both.
    ///
    /// # Errors
    /// As [`Interface::create`].
    pub fn epair() -> Result<(Self, String)> {
        let first = Self::create("epair")?;
        let second = format!("{}b", first.0.trim_end_matches('a'));
        run(&format!("ifconfig {second} up"))?;
        Ok((first, second))
    }

    /// A bridge(4) with `members`, up.
    ///
    /// # Errors
    /// As [`Interface::create`]; a member is not there, or has a bridge.
    pub fn bridge(members: &[&str]) -> Result<Self> {
        let bridge = Self::create("bridge")?;
        for member in members {
            bridge.set(&format!("addm {member}"))?;
        }
        Ok(bridge)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Changes it: `words` are ifconfig's parameters, such as `mtu 9000`.
    ///
    /// # Errors
    /// ifconfig's.
    pub fn set(&self, words: &str) -> Result<()> {
        run(&format!("ifconfig {} {words}", self.0))?;
        Ok(())
    }

    /// Destroys it now.
    ///
    /// # Errors
    /// It is not there any more.
    pub fn destroy(self) -> Result<()> {
        self.set("destroy")
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        // It may be gone already: that is what some tests are about.
        let _ = self.set("destroy");
    }
}
