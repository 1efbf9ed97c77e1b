//! Whose ports are whose, and what clients may do to them.

use super::{Netmap, RegisterError, Request, State};
use crate::netmap::adapter::Adapter;
use crate::netmap::authority::{Authority, Rights};
use crate::netmap::mem::Region;
use crate::netmap::name::PortName;

/// The switch that a port, or a pipe below it, is on by its name.
pub(in crate::netmap) fn switch_of(name: &str) -> Option<&str> {
    match PortName::parse(name).ok()? {
        PortName::Vale { switch, .. } => Some(switch),
        PortName::Pipe { parent, .. } => switch_of(parent),
        PortName::Host(_) => None,
    }
}

impl Request {
    /// The client may do this on the switch of the port that it names, if it is
    /// on one.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn may(&self, right: Rights) -> Result<(), RegisterError> {
        if self.authority.may(right, switch_of(&self.name)) {
            return Ok(());
        }
        Err(RegisterError::Forbidden {
            name: self.name.clone(),
            right,
        })
    }

    /// The client may use this memory through the port that it names.
    ///
    /// # Errors
    /// It is another user's.
    pub(super) fn may_use(&self, region: &Region) -> Result<(), RegisterError> {
        if self
            .authority
            .may_share(region.owner(), switch_of(&self.name))
        {
            return Ok(());
        }
        Err(RegisterError::NotOwn(self.name.clone()))
    }

    /// The client may see what goes through a port whose memory is `region`.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn may_monitor(&self, region: &Region) -> Result<(), RegisterError> {
        match self.may_use(region) {
            Ok(()) => Ok(()),
            Err(_) => self.may(Rights::MONITOR),
        }
    }
}

impl Netmap {
    /// The client may change the port of this name, if there is one.
    ///
    /// # Errors
    /// It is another user's.
    pub fn check_owner(&self, name: &str, authority: &Authority) -> Result<(), RegisterError> {
        let state = self.state();
        let Some(adapter) = known(&state, name) else {
            return Ok(());
        };
        let request = Request {
            authority: authority.clone(),
            ..Request::new(name)
        };
        request.may_use(adapter.region())
    }
}

/// The port of this name; for `valeX:NAME` also the one that can be attached
/// there.
fn known(state: &State, name: &str) -> Option<std::sync::Arc<Adapter>> {
    let own = || match PortName::parse(name) {
        Ok(PortName::Vale { port, .. }) => state.ports.get(port).cloned(),
        _ => state.ports.get(name).cloned(),
    };
    state.on_switch(name).or_else(own)
}
