//! What can be asked of ports without binding them: facts, headers, persistent
//! ports, and what is attached where.

use std::sync::Arc;

use super::{Netmap, RegisterError, Request, Search};
use crate::netmap::abi::NM_BDG_NAME;
use crate::netmap::adapter::{Adapter, Lifetime, ValePort};
use crate::netmap::authority::Rights;
use crate::netmap::mem::Region;
use crate::netmap::name::{PortName, switch_port};
use crate::netmap::port::HeaderLen;
use crate::netmap::rings::{HostRings, Shape};

/// What a port is.
#[derive(Clone, Debug)]
pub struct PortFacts {
    /// Its rings.
    pub shape: Shape,
    /// Those of the host.
    pub host: HostRings,
    /// Where they are.
    pub region: Arc<Region>,
}

/// A port among those of all switches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchPort {
    /// Its switch's number.
    pub switch: usize,
    /// Its own, there; `None`: the switch has no port of that name.
    pub port: Option<u8>,
    /// Its name, for instance `vale0:a`.
    pub name: String,
}

impl Netmap {
    /// Does something with a port that is held meanwhile.
    fn with_port<T>(
        &self,
        request: &Request,
        make: bool,
        look: impl FnOnce(&Adapter) -> Result<T, RegisterError>,
    ) -> Result<T, RegisterError> {
        let mut state = self.state();
        let search = Search { make, region: None };
        let adapter = self.find(&mut state, request, search)?;
        let found = look(&adapter);
        self.put(&mut state, &adapter);
        found
    }

    /// A port's rings and region. A port that comes into being when it is named
    /// does so for as long as it takes to look at it.
    ///
    /// # Errors
    /// When there is no such port and it cannot be made.
    pub fn facts(&self, request: &Request) -> Result<PortFacts, RegisterError> {
        self.with_port(request, true, |adapter| Ok(facts(adapter)))
    }

    /// What is in front of a port's frames.
    ///
    /// # Errors
    /// When there is no such port.
    pub fn header_len(&self, name: &str) -> Result<HeaderLen, RegisterError> {
        self.with_port(&Request::new(name), false, |adapter| {
            Ok(adapter.header_len())
        })
    }

    /// Puts something else in front of the frames of a switch's port.
    ///
    /// # Errors
    /// When there is no such port.
    pub fn set_header_len(&self, name: &str, len: HeaderLen) -> Result<(), RegisterError> {
        let no_port = || RegisterError::NoPort(name.to_owned());
        let state = self.state();
        let adapter = state
            .on_switch(name)
            .filter(|_| name.starts_with(NM_BDG_NAME));
        let adapter = adapter.ok_or_else(no_port)?;
        if adapter.device().is_some() {
            // What passes there is as its receiver takes it.
            return match len {
                HeaderLen::None => Ok(()),
                _ => Err(RegisterError::DeviceHeader(name.to_owned())),
            };
        }
        let vale = adapter.vale().ok_or_else(no_port)?;
        vale.ring_port.set_header_len(len);
        Ok(())
    }

    /// Makes a persistent port.
    ///
    /// # Errors
    /// When one of that name is there, or it cannot be made.
    pub fn new_interface(&self, request: &Request) -> Result<PortFacts, RegisterError> {
        let mut state = self.state();
        let is_interface = matches!(PortName::parse(&request.name), Ok(PortName::Host(_)));
        if is_interface
            && (state.ports.contains_key(&request.name) || self.is_device(&request.name)?)
        {
            return Err(RegisterError::Exists(request.name.clone()));
        }
        let region = match request.mem_id {
            0 => None,
            _ => Some(self.region(request)?),
        };
        if let Some(region) = &region {
            request.may_use(region)?;
        }
        let adapter = self.new_port(&mut state, request, region.as_ref(), Lifetime::Persistent)?;
        // Held by its own name, until it is deleted.
        adapter.hold();
        Ok(facts(&adapter))
    }

    /// Deletes a persistent port.
    ///
    /// # Errors
    /// When there is none of that name, or it has users or is on a switch.
    pub fn delete_interface(&self, name: &str) -> Result<(), RegisterError> {
        let mut state = self.state();
        let adapter = match PortName::parse(name) {
            Ok(PortName::Host(name)) => state.ports.get(name).cloned(),
            _ => None,
        };
        let adapter = adapter.ok_or_else(|| RegisterError::NoPort(name.to_owned()))?;
        persistent(&adapter)?;
        if adapter.holders() > 1 || adapter.active() > 0 {
            return Err(RegisterError::InUse(name.to_owned()));
        }
        self.put(&mut state, &adapter);
        Ok(())
    }

    /// Attaches a persistent port to a switch, as `valeX:NAME`, or to a second
    /// one, which joins them; returns its number there.
    ///
    /// # Errors
    /// When there is no such port, or it is attached or in use.
    pub fn attach_interface(&self, request: &Request) -> Result<u8, RegisterError> {
        let name = &request.name;
        let (switch, port) = attachable(name)?;
        let mut state = self.state();
        if request.mem_id != 0 {
            self.region(request)?;
        }
        if state.on_switch(name).is_some() {
            return Err(RegisterError::InUse(name.clone()));
        }
        let nic = Request {
            name: port.to_owned(),
            ..request.clone()
        };
        let search = Search {
            make: true,
            region: None,
        };
        let adapter = match state.ports.get(port).cloned() {
            Some(adapter) => Some(adapter),
            None => self.device_port(&mut state, &nic, search)?,
        };
        let Some(adapter) = adapter else {
            return Err(RegisterError::NotPersistent {
                name: name.clone(),
                why: "there is no interface or persistent port of that name to attach",
            });
        };
        if adapter.device().is_some() {
            adapter.hold();
            let index = self.attach_device(&mut state, request, &adapter, switch, port);
            self.put(&mut state, &adapter);
            return index;
        }
        let vale = persistent(&adapter)?;
        request.may(Rights::CREATE)?;
        if adapter.active() > 0 {
            return Err(RegisterError::InUse(name.clone()));
        }
        let first = vale.place.load();
        let index = match &*first {
            Some(first) => self.join(&state, request, vale, first, (switch, port))?,
            None => self.place(&adapter, switch, port)?,
        };
        adapter.hold();
        state.attached.insert(name.clone(), adapter);
        Ok(index)
    }

    /// Takes a persistent port off its switch; returns the number that it had.
    ///
    /// # Errors
    /// When no such port is there, or it is one that lives on its switch, or it
    /// is on a second one.
    pub fn detach_interface(&self, name: &str) -> Result<u8, RegisterError> {
        if !name.starts_with(NM_BDG_NAME) {
            return Err(not_of_a_switch(name));
        }
        let mut state = self.state();
        let Some(adapter) = state.attached.get(name).cloned() else {
            let known = state.ports.contains_key(name) || Self::is_host_side(&state, name);
            return Err(match known {
                true => RegisterError::InUse(name.to_owned()),
                false => RegisterError::NoPort(name.to_owned()),
            });
        };
        if let Some(device) = adapter.device() {
            return self.detach_device(&mut state, name, &adapter, device);
        }
        let Some(vale) = adapter.vale() else {
            return Err(RegisterError::NoPort(name.to_owned()));
        };
        let index = match self.part(vale, name)? {
            None => self.displace(vale),
            parted => parted,
        };
        state.attached.remove(name);
        self.put(&mut state, &adapter);
        Ok(index.unwrap_or_default())
    }

    /// A switch's port by its name.
    ///
    /// # Errors
    /// `Ok(None)` when there is no such switch.
    pub fn look_up(&self, name: &str) -> Result<Option<SwitchPort>, RegisterError> {
        if !name.starts_with(NM_BDG_NAME) {
            return Err(not_of_a_switch(name));
        }
        let Some((switch, port)) = name.split_once(':') else {
            return Ok(None);
        };
        Ok(self.switches.find(switch).map(|(number, switch)| {
            let ports = switch.ports();
            let id = ports.iter().find(|(_, name)| name == port);
            SwitchPort {
                switch: number,
                port: id.map(|(id, _)| id.index()),
                name: name.to_owned(),
            }
        }))
    }

    /// The first port from port `port` of switch `switch` on, if there is one.
    pub fn enumerate(&self, switch: usize, port: u32) -> Option<SwitchPort> {
        let switches = self.switches.numbered();
        let from = switches.into_iter().filter(|(number, _)| *number >= switch);
        from.into_iter().find_map(|(number, one)| {
            let first = if number == switch { port } else { 0 };
            let mut ports = one.ports().into_iter();
            let (id, name) = ports.find(|(id, _)| u32::from(id.index()) >= first)?;
            Some(SwitchPort {
                switch: number,
                port: Some(id.index()),
                name: format!("{}:{name}", one.name()),
            })
        })
    }

    /// Only what is on a switch can be polled.
    ///
    /// # Errors
    /// When there is no such port.
    pub(super) fn check_polled(&self, name: &str) -> Result<(), RegisterError> {
        if !name.starts_with(NM_BDG_NAME) {
            return Err(not_of_a_switch(name));
        }
        let state = self.state();
        match state.on_switch(name) {
            Some(_) => Ok(()),
            None if Self::is_host_side(&state, name) => Ok(()),
            None => Err(RegisterError::NoPort(name.to_owned())),
        }
    }
}

fn facts(adapter: &Adapter) -> PortFacts {
    PortFacts {
        shape: adapter.shape(),
        host: adapter.rings().host(),
        region: Arc::clone(adapter.region()),
    }
}

fn not_of_a_switch(name: &str) -> RegisterError {
    RegisterError::NotPersistent {
        name: name.to_owned(),
        why: "name a port of a switch, valeX:PORT",
    }
}

/// The switch and the port of an attachment's name.
fn attachable(name: &str) -> Result<(&str, &str), RegisterError> {
    switch_port(name).map_err(|error| {
        if name.starts_with(NM_BDG_NAME) {
            RegisterError::SwitchName { error, make: true }
        } else {
            not_of_a_switch(name)
        }
    })
}

/// The port, if it is one that was made to stay.
fn persistent(adapter: &Adapter) -> Result<&ValePort, RegisterError> {
    let vale = adapter.vale();
    vale.filter(|vale| vale.lifetime == Lifetime::Persistent)
        .ok_or_else(|| RegisterError::NotPersistent {
            name: adapter.name().to_owned(),
            why: "the port was not made as a persistent one",
        })
}
