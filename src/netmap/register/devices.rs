//! Ports of the host's interfaces: finding them, putting them on a switch and
//! taking them off, and having them polled.

use std::sync::Arc;

use super::find::Search;
use super::{Netmap, RegisterError, Request, RingMode, State};
use crate::netmap::adapter::{Adapter, Kind};
use crate::netmap::authority::Rights;
use crate::netmap::device::{AttachError, DevicePort, PollingError, PollingRequest};
use crate::netmap::rings::Shape;

impl Netmap {
    /// There is an interface of that name, which may be used.
    pub(super) fn is_device(&self, name: &str) -> Result<bool, RegisterError> {
        Ok(match &self.devices {
            Some(devices) => devices.look(name)?.is_some(),
            None => false,
        })
    }

    /// The port of an interface that has none yet; `None`: there is no such
    /// interface.
    pub(super) fn device_port(
        &self,
        state: &mut State,
        request: &Request,
        search: Search<'_>,
    ) -> Result<Option<Arc<Adapter>>, RegisterError> {
        let name = &request.name;
        let Some(devices) = &self.devices else {
            return Ok(None);
        };
        if devices.look(name)?.is_none() {
            return Ok(None);
        }
        let host = request.host_rings();
        let port = DevicePort::new(name, Arc::clone(devices), host);
        let region = match search.region {
            Some(region) => Arc::clone(region),
            None => {
                let shape = DevicePort::shape();
                // A region has room for one host ring each way beside these.
                let rings = Shape {
                    tx_rings: shape.tx_rings.saturating_add(host.tx - 1),
                    rx_rings: shape.rx_rings.saturating_add(host.rx - 1),
                    ..shape
                };
                self.new_region(request, rings, super::PIPES)?
            }
        };
        let adapter = Adapter::new(name.clone(), region, Kind::Device(port));
        let adapter = Arc::new(adapter);
        state.ports.insert(name.clone(), Arc::clone(&adapter));
        Ok(Some(adapter))
    }

    /// Puts an interface on a switch, and its host side if the mode says so.
    /// Returns its number there.
    ///
    /// # Errors
    /// Somebody has it, or it is not to be attached so.
    pub(super) fn attach_device(
        &self,
        state: &mut State,
        request: &Request,
        adapter: &Arc<Adapter>,
        switch: &str,
        port: &str,
    ) -> Result<u8, RegisterError> {
        request.may(Rights::BWRAP)?;
        let in_use = || RegisterError::InUse(request.name.clone());
        let Some(device) = adapter.device() else {
            return Err(in_use());
        };
        if adapter.active() > 0 {
            return Err(in_use());
        }
        let host = match request.mode {
            RingMode::All if request.ring == 0 => false,
            RingMode::AllAndHost if request.ring == 0 => true,
            _ => return Err(RegisterError::AttachMode(request.name.clone())),
        };
        let switch = self.switches.get(switch);
        match device.attach(&switch, port, host) {
            Ok(id) => {
                adapter.hold();
                adapter.enter();
                let known = Arc::clone(adapter);
                state.attached.insert(request.name.clone(), known);
                Ok(id.index())
            }
            Err(error) => {
                self.switches.release(switch);
                Err(refused(&request.name, error))
            }
        }
    }

    /// Takes an interface off its switch; returns the number that it had.
    ///
    /// # Errors
    /// It is polled.
    pub(super) fn detach_device(
        &self,
        state: &mut State,
        name: &str,
        adapter: &Arc<Adapter>,
        device: &DevicePort,
    ) -> Result<u8, RegisterError> {
        let detached = device.detach().map_err(|error| refused(name, error))?;
        state.attached.remove(name);
        adapter.leave();
        self.put(state, adapter);
        let index = detached.as_ref().map(|detached| detached.id.index());
        if let Some(detached) = detached {
            self.switches.release(detached.switch);
        }
        Ok(index.unwrap_or_default())
    }

    /// `NAME^` is the host side of an interface that is on a switch.
    pub(super) fn is_host_side(state: &State, name: &str) -> bool {
        let nic = name.strip_suffix('^');
        let adapter = nic.and_then(|nic| state.attached.get(nic));
        adapter
            .and_then(|adapter| adapter.device())
            .is_some_and(DevicePort::has_host_port)
    }

    /// Has an interface that is on a switch polled as `request` says, or waited
    /// for again (`nm_bdg_polling`).
    ///
    /// # Errors
    /// There is no such port, it is none of an interface, or the kernel's
    /// checks say no.
    pub fn set_polling(
        &self,
        name: &str,
        request: Option<PollingRequest>,
    ) -> Result<(), RegisterError> {
        self.check_polled(name)?;
        let refused = |error| RegisterError::Polling {
            name: name.to_owned(),
            error,
        };
        let adapter = self.state().attached.get(name).cloned();
        let device = adapter.as_ref().and_then(|adapter| adapter.device());
        let device = device.ok_or(refused(PollingError::NoDevice))?;
        device.set_polling(request).map_err(refused)
    }
}

fn refused(name: &str, error: AttachError) -> RegisterError {
    match error {
        AttachError::Switch(error) => error.into(),
        AttachError::Device(error) => error.into(),
        AttachError::InUse => RegisterError::InUse(name.to_owned()),
        AttachError::Polling(error) => RegisterError::Polling {
            name: name.to_owned(),
            error,
        },
    }
}
