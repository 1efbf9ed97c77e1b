//! Monitors: of ports that have rings, and of those that have none.

use std::sync::Arc;

use super::bindings::selected;
use super::find::Search;
use super::{Netmap, RegisterError, Request, State};
use crate::netmap::abi::nmreq;
use crate::netmap::adapter::{Adapter, Kind, monitor_letters};
use crate::netmap::authority::{Authority, Rights};
use crate::netmap::monitor::GuestMonitor;
use crate::netmap::name::PortName;
use crate::netmap::rings::HostRings;
use crate::netmap::vale::Switch;

impl Netmap {
    /// The monitor that a request asks for.
    ///
    /// # Errors
    /// There is nothing to monitor, or it is not to be seen.
    pub(super) fn monitor(
        &self,
        state: &mut State,
        request: &Request,
        search: Search<'_>,
    ) -> Result<Arc<Adapter>, RegisterError> {
        let flags = request.monitors();
        if let Some(made) = self.guest_monitor(state, request, flags) {
            return made;
        }
        let plain = Request {
            flags: request.flags & !(flags | nmreq::NR_ZCOPY_MON),
            // A copy has memory of its own; who may have it is asked below.
            authority: Authority::default(),
            ..request.clone()
        };
        let parent = self.find(state, &plain, search)?;
        let made = match request.may_monitor(parent.region()) {
            Ok(()) => self.monitor_of(&parent, request, flags),
            Err(error) => Err(error),
        };
        if made.is_err() {
            // The monitor holds it from here on; where there is none, nobody.
            self.put(state, &parent);
        }
        made
    }

    /// A monitor of a guest's port: one that is on a switch and whose rings no
    /// client can have.
    fn guest_monitor(
        &self,
        state: &State,
        request: &Request,
        flags: u64,
    ) -> Option<Result<Arc<Adapter>, RegisterError>> {
        let Ok(PortName::Vale { switch, port }) = PortName::parse(&request.name) else {
            return None;
        };
        let known = state.on_switch(&request.name);
        let has_rings = |adapter: &Adapter| adapter.device().is_none() && !adapter.is_joint();
        if known.as_deref().is_some_and(has_rings) {
            return None;
        }
        let (_, switch) = self.switches.find(switch)?;
        if !switch.ports().iter().any(|(_, name)| name == port) {
            return None;
        }
        let joint = known.filter(|adapter| adapter.is_joint());
        let allowed = match joint {
            Some(joint) => request.may_monitor(joint.region()),
            None => request.may(Rights::MONITOR),
        };
        Some(allowed.and_then(|()| self.monitor_of_guest(request, switch, port, flags)))
    }

    fn monitor_of_guest(
        &self,
        request: &Request,
        switch: Arc<Switch>,
        port: &str,
        flags: u64,
    ) -> Result<Arc<Adapter>, RegisterError> {
        if flags & nmreq::NR_ZCOPY_MON != 0 {
            return Err(RegisterError::GuestMemory(request.name.clone()));
        }
        let one = Request {
            tx_rings: 1,
            rx_rings: 1,
            ..request.clone()
        };
        let shape = one.shape();
        selected(request, &shape, HostRings::default())?;
        let region = self.new_region(request, shape, 0)?;
        let monitor = GuestMonitor::new(switch, port, shape, flags).map_err(|switch| {
            self.switches.release(switch);
            RegisterError::NoPort(request.name.clone())
        })?;
        let name = format!("{}/{}", request.name, monitor_letters(flags));
        let kind = Kind::GuestMonitor(monitor);
        Ok(Arc::new(Adapter::new(name, region, kind)))
    }

    fn monitor_of(
        &self,
        parent: &Arc<Adapter>,
        request: &Request,
        flags: u64,
    ) -> Result<Arc<Adapter>, RegisterError> {
        if parent.active() == 0 {
            return Err(RegisterError::NotActive(request.name.clone()));
        }
        selected(request, &parent.shape(), parent.rings().host())?;
        let shape = request.monitor_shape(parent.shape());
        let region = if flags & nmreq::NR_ZCOPY_MON != 0 {
            Arc::clone(parent.region())
        } else {
            self.new_region(request, shape, 0)?
        };
        let parent = Arc::clone(parent);
        Ok(Arc::new(Adapter::monitor(parent, region, shape, flags)))
    }
}
