//! Looking ports up, and making those that come into being when somebody names
//! them (`netmap_get_na`).

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{Netmap, PIPES, RegisterError, Request, RingMode, State};
use crate::netmap::abi::{NM_MAXPIPES, NM_PIPE_MAXRINGS, NM_PIPE_MAXSLOTS, nmreq};
use crate::netmap::adapter::{Adapter, Kind, Lifetime, PipeEnd, Place, ValePort};
use crate::netmap::authority::{Resource, Rights};
use crate::netmap::mem::{MemError, PortNeeds, Region, RegionConfig};
use crate::netmap::name::PortName;
use crate::netmap::pipe::{End, Pipe};
use crate::netmap::ring_port::RingPort;
use crate::netmap::rings::{Rings, Shape};

/// What a search may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search<'a> {
    /// Ports are made that are not there.
    pub make: bool,
    /// The region of a new port; none: one of its own.
    pub region: Option<&'a Arc<Region>>,
}

impl Netmap {
    /// The port that a request names, which the caller holds from here on.
    ///
    /// # Errors
    /// When there is none, or it cannot be made. Nothing is held then.
    pub(super) fn find(
        &self,
        state: &mut State,
        request: &Request,
        search: Search<'_>,
    ) -> Result<Arc<Adapter>, RegisterError> {
        if let RingMode::Other(mode @ (nmreq::NR_REG_PIPE_MASTER | nmreq::NR_REG_PIPE_SLAVE)) =
            request.mode
        {
            let name = request.name.clone();
            return Err(RegisterError::Mode { name, mode });
        }
        let named = match search.region {
            None if request.mem_id != 0 => Some(self.region(request)?),
            _ => None,
        };
        let search = Search {
            region: search.region.or(named.as_ref()),
            ..search
        };
        let adapter = if request.mode == RingMode::Null {
            self.null_port(request, search)?
        } else if request.monitors() != 0 {
            self.monitor(state, request, search)?
        } else {
            self.named(state, request, search)?
        };
        adapter.hold();
        // A port that is new belongs to who asks.
        if let Err(error) = request.may_use(adapter.region()) {
            self.put(state, &adapter);
            return Err(error);
        }
        Ok(adapter)
    }

    /// The region that a request names.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn region(&self, request: &Request) -> Result<Arc<Region>, RegisterError> {
        let region = self.regions.find(request.mem_id);
        region.map_err(|error| memory(request, error))
    }

    fn null_port(
        &self,
        request: &Request,
        search: Search<'_>,
    ) -> Result<Arc<Adapter>, RegisterError> {
        if !search.make {
            return Err(RegisterError::NullPort(request.name.clone()));
        }
        let Some(region) = search.region else {
            return Err(RegisterError::NullRegion(request.name.clone()));
        };
        let shape = request.null_shape();
        // These it has exactly; what no pipe has either would keep who syncs
        // them busy for too long.
        let too_much =
            |rings, slots| rings > NM_PIPE_MAXRINGS || (rings > 0 && slots > NM_PIPE_MAXSLOTS);
        if too_much(shape.tx_rings, shape.tx_slots) || too_much(shape.rx_rings, shape.rx_slots) {
            return Err(RegisterError::NullShape(request.name.clone()));
        }
        let rings = u32::from(shape.tx_rings) + u32::from(shape.rx_rings);
        let [_, pool, _] = region.layout();
        if rings > pool.num {
            let error = MemError::Exhausted {
                region: region.id(),
                what: "ring",
            };
            return Err(memory(request, error));
        }
        let name = format!("null:{}", request.name);
        let kind = Kind::Null(Rings::new(shape));
        Ok(Arc::new(Adapter::new(name, Arc::clone(region), kind)))
    }

    /// A port that is known by its name.
    fn named(
        &self,
        state: &mut State,
        request: &Request,
        search: Search<'_>,
    ) -> Result<Arc<Adapter>, RegisterError> {
        let name = &request.name;
        match PortName::parse(name) {
            Ok(PortName::Pipe { parent, id, master }) => {
                let end = if master { End::Master } else { End::Slave };
                self.pipe(state, request, search, parent, id, end)
            }
            Ok(PortName::Vale { switch, port }) => {
                self.vale_port(state, request, search, switch, port)
            }
            Ok(PortName::Host(name)) => match state.ports.get(name) {
                Some(adapter) => Ok(Arc::clone(adapter)),
                None => {
                    if self.is_device(name)? {
                        request.may(Rights::BWRAP)?;
                    }
                    self.device_port(state, request, search)?
                        .ok_or_else(|| RegisterError::NoPort(name.to_owned()))
                }
            },
            Err(error) if name.contains(['{', '}']) => Err(RegisterError::Name(error)),
            Err(error) if name.starts_with("vale") => Err(RegisterError::SwitchName {
                error,
                make: search.make,
            }),
            Err(_) => Err(RegisterError::NoPort(name.clone())),
        }
    }

    fn pipe(
        &self,
        state: &mut State,
        request: &Request,
        search: Search<'_>,
        parent: &str,
        id: &str,
        end: End,
    ) -> Result<Arc<Adapter>, RegisterError> {
        if !matches!(request.mode, RingMode::All | RingMode::One(_)) {
            return Err(RegisterError::PipeMode(request.name.clone()));
        }
        let above = Request {
            name: parent.to_owned(),
            ..request.clone()
        };
        let parent = match self.find(state, &above, search) {
            // Pipes need no interface: a port is made to be their parent.
            Err(RegisterError::NoPort(_)) if !above.name.starts_with("vale") => {
                self.new_port(state, &above, search.region, Lifetime::Parent)?;
                self.find(state, &above, search)?
            }
            found => found?,
        };
        let made = self.pipe_below(&parent, request, search, id, end);
        match made {
            Ok((adapter, true)) => Ok(adapter),
            Ok((adapter, false)) => {
                // The pipe holds its parent already.
                self.put(state, &parent);
                Ok(adapter)
            }
            Err(error) => {
                self.put(state, &parent);
                Err(error)
            }
        }
    }

    /// An end of a pipe below `parent`, and whether the pipe is new.
    fn pipe_below(
        &self,
        parent: &Arc<Adapter>,
        request: &Request,
        search: Search<'_>,
        id: &str,
        end: End,
    ) -> Result<(Arc<Adapter>, bool), RegisterError> {
        let pick = |[master, slave]: &[Arc<Adapter>; 2]| match end {
            End::Master => Arc::clone(master),
            End::Slave => Arc::clone(slave),
        };
        let mut pipes = parent.pipes();
        let is_it = |ends: &&[Arc<Adapter>; 2]| {
            let [master, _] = ends;
            matches!(master.kind(), Kind::Pipe(PipeEnd { pipe, .. }) if pipe.id() == id)
        };
        if let Some(ends) = pipes.iter().find(is_it) {
            return Ok((pick(ends), false));
        }
        if !search.make {
            return Err(RegisterError::NoPipe(request.name.clone()));
        }
        if pipes.len() >= NM_MAXPIPES as usize {
            return Err(RegisterError::TooManyPipes(parent.name().to_owned()));
        }
        let region = parent.region();
        let shape = request.pipe_shape(parent.shape());
        let pipe = Arc::new(Pipe::new(parent.name(), id, Arc::clone(region), shape));
        let ends = [End::Master, End::Slave].map(|end| {
            let kind = Kind::Pipe(PipeEnd {
                pipe: Arc::clone(&pipe),
                end,
                parent: Arc::clone(parent),
            });
            let name = pipe.name(end).to_owned();
            Arc::new(Adapter::new(name, Arc::clone(region), kind))
        });
        let picked = pick(&ends);
        pipes.push(ends);
        Ok((picked, true))
    }

    fn vale_port(
        &self,
        state: &mut State,
        request: &Request,
        search: Search<'_>,
        switch: &str,
        port: &str,
    ) -> Result<Arc<Adapter>, RegisterError> {
        if let Some(adapter) = state.on_switch(&request.name) {
            return Ok(adapter);
        }
        if !search.make {
            return Err(RegisterError::NoPort(request.name.clone()));
        }
        if state.ports.contains_key(port) || self.is_device(port)? {
            return Err(RegisterError::NotAttached(request.name.clone()));
        }
        let adapter = self.vale_adapter(request, search.region, Lifetime::Ephemeral)?;
        self.place(&adapter, switch, port)?;
        state
            .ports
            .insert(request.name.clone(), Arc::clone(&adapter));
        Ok(adapter)
    }

    /// A port that can be on a switch and is not yet.
    fn vale_adapter(
        &self,
        request: &Request,
        region: Option<&Arc<Region>>,
        lifetime: Lifetime,
    ) -> Result<Arc<Adapter>, RegisterError> {
        let charge = request.authority.charge(Resource::Ports, 1)?;
        let shape = request.shape();
        let region = match region {
            Some(region) => Arc::clone(region),
            None => self.new_region(request, shape, PIPES)?,
        };
        let name = request.name.clone();
        let ring_port = Arc::new(RingPort::new(&name, Arc::clone(&region), shape));
        let kind = Kind::Vale(ValePort {
            ring_port,
            charge,
            lifetime,
            place: ArcSwapOption::empty(),
            second: ArcSwapOption::empty(),
        });
        Ok(Arc::new(Adapter::new(name, region, kind)))
    }

    /// Puts a port on a switch; returns its number there.
    ///
    /// # Errors
    /// When the switch is full or has a port of that name.
    pub(super) fn place(
        &self,
        adapter: &Adapter,
        switch: &str,
        port: &str,
    ) -> Result<u8, RegisterError> {
        let Some(vale) = adapter.vale() else {
            return Err(RegisterError::NotPersistent {
                name: adapter.name().to_owned(),
                why: "only ports of switches can be attached",
            });
        };
        let switch = self.switches.get(switch);
        let id = match switch.attach(port, None, Arc::clone(&vale.ring_port) as _) {
            Ok(id) => id,
            Err(error) => {
                self.switches.release(switch);
                return Err(error.into());
            }
        };
        vale.place.store(Some(Arc::new(Place {
            name: format!("{}:{port}", switch.name()),
            switch,
            id,
        })));
        Ok(id.index())
    }

    /// Takes a port off its switch; returns the number that it had there.
    pub(super) fn displace(&self, vale: &ValePort) -> Option<u8> {
        let place = vale.place.swap(None)?;
        place.switch.detach(place.id);
        let id = place.id.index();
        if let Some(place) = Arc::into_inner(place) {
            self.switches.release(place.switch);
        }
        Some(id)
    }

    /// Makes a port that is named like an interface; nobody holds it yet.
    ///
    /// # Errors
    /// When the name is taken, or none of an interface.
    pub(super) fn new_port(
        &self,
        state: &mut State,
        request: &Request,
        region: Option<&Arc<Region>>,
        lifetime: Lifetime,
    ) -> Result<Arc<Adapter>, RegisterError> {
        let name = match PortName::parse(&request.name)? {
            PortName::Host(name) => name.to_owned(),
            PortName::Vale { .. } | PortName::Pipe { .. } => {
                return Err(RegisterError::NotPersistent {
                    name: request.name.clone(),
                    why: "a persistent port is named like an interface",
                });
            }
        };
        if state.ports.contains_key(&name) || self.is_device(&name)? {
            return Err(RegisterError::Exists(name));
        }
        let adapter = self.vale_adapter(request, region, lifetime)?;
        state.ports.insert(name, Arc::clone(&adapter));
        Ok(adapter)
    }

    pub(super) fn new_region(
        &self,
        request: &Request,
        shape: Shape,
        pipes: u32,
    ) -> Result<Arc<Region>, RegisterError> {
        let region = self.regions.private(&RegionConfig::private(&PortNeeds {
            tx_rings: shape.tx_rings,
            tx_slots: shape.tx_slots,
            rx_rings: shape.rx_rings,
            rx_slots: shape.rx_slots,
            extra_bufs: request.extra_bufs(),
            pipes,
        }));
        let region = region.map_err(|error| memory(request, error))?;
        let charged = region.charge_to(&request.authority);
        charged.map_err(|error| memory(request, error))?;
        Ok(region)
    }

    /// The caller holds the port no more. What nobody holds is gone, and what
    /// it held with it.
    pub(super) fn put(&self, state: &mut State, adapter: &Arc<Adapter>) {
        if adapter.release() > 0 {
            return;
        }
        match adapter.kind() {
            Kind::Vale(vale) => {
                if let Some(place) = &*vale.place.load() {
                    state.attached.remove(&place.name);
                }
                self.displace(vale);
                state.ports.remove(adapter.name());
            }
            Kind::Pipe(PipeEnd { parent, .. }) => {
                let mut pipes = parent.pipes();
                let mine = |ends: &[Arc<Adapter>; 2]| ends.iter().any(|e| Arc::ptr_eq(e, adapter));
                let unused = |ends: &[Arc<Adapter>; 2]| ends.iter().all(|e| e.holders() == 0);
                let before = pipes.len();
                pipes.retain(|ends| !(mine(ends) && unused(ends)));
                let gone = pipes.len() < before;
                drop(pipes);
                if gone {
                    self.put(state, parent);
                }
            }
            Kind::Monitor(monitor) => self.put(state, &monitor.parent),
            Kind::GuestMonitor(monitor) => {
                if let Some(switch) = monitor.close() {
                    self.switches.release(switch);
                }
            }
            Kind::Device(_) => {
                state.ports.remove(adapter.name());
            }
            Kind::Null(_) => {}
        }
    }
}

fn memory(request: &Request, error: MemError) -> RegisterError {
    RegisterError::Memory {
        name: request.name.clone(),
        error,
    }
}

impl State {
    /// The port of that name on its switch.
    pub(super) fn on_switch(&self, name: &str) -> Option<Arc<Adapter>> {
        let known = self.attached.get(name).or_else(|| self.ports.get(name));
        known.cloned()
    }
}
