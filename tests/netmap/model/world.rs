//! The core and its model side by side: each step is done on both, and what
//! they say must be the same.

use std::sync::Arc;

use arrayvec::ArrayVec;
use vtnetd::net::frame::{BATCH, Batch};
use vtnetd::netmap::mem::{GLOBAL_ID, PoolSize, RegionConfig};
use vtnetd::netmap::port::Direction;
use vtnetd::netmap::register::Netmap;
use vtnetd::netmap::vale::Switches;
use vtnetd::virtio::memory::Readable;
use vtnetd::virtio::net_header::NetHeader;

use super::forward::Frame;
use super::ports::Ask;
use super::real::{Guest, Real, Seat};
use super::state::{Model, RingKey};
use super::steps::{CLIENTS, Mem, Spec, Step, Wish};
use super::switch::Who;

/// What is not as the model has it.
pub type Outcome = Result<(), String>;

/// Both must be the same.
macro_rules! same {
    ($real:expr, $model:expr, $($what:tt)*) => {
        let (real, model) = (&$real, &$model);
        if real != model {
            return Err(format!("{}: {real:?}, and {model:?} in the model", format!($($what)*)));
        }
    };
}
pub(super) use same;

pub struct World {
    pub real: Real,
    pub model: Model,
}

/// A global region in which things run out, and of whose buffers a frame may
/// need several.
fn global() -> RegionConfig {
    RegionConfig {
        interfaces: PoolSize { size: 512, num: 10 },
        rings: PoolSize {
            size: 2048,
            num: 24,
        },
        buffers: PoolSize {
            size: 128,
            num: 500,
        },
    }
}

/// The bytes of a frame.
pub(super) fn frame(spec: &Spec) -> Vec<u8> {
    let station = |number: u8| match number {
        8 => [0xff; 6],
        7 => [3, 0, 0, 0, 0, 7],
        _ => [2, 0, 0, 0, 0, number],
    };
    let mut bytes = [station(spec.to), station(spec.from)].concat();
    bytes.extend([0x88, 0xb5]);
    bytes.resize(spec.len.into(), spec.fill);
    bytes
}

impl World {
    pub fn new() -> Self {
        let switches = Arc::new(Switches::default());
        let core = Arc::new(Netmap::new(Arc::clone(&switches), global()));
        let layout = core.regions().find(GLOBAL_ID).unwrap().layout();
        Self {
            real: Real::new(core, switches),
            model: Model::new(CLIENTS, layout),
        }
    }

    /// Does one step and compares.
    pub fn apply(&mut self, step: &Step) -> Outcome {
        self.perform(step)?;
        let regions = &self.model.regions;
        self.real.mapped.retain(|key, _| regions.contains_key(key));
        self.compare_touched()
    }

    /// Everybody goes; nothing is left.
    pub fn end(&mut self) -> Outcome {
        for client in 0..CLIENTS {
            self.apply(&Step::Close { client })?;
        }
        for guest in 0..self.real.guests.len() {
            self.apply(&Step::Leave { guest })?;
        }
        for (name, places) in self.model.persistent_ports() {
            for place in places {
                self.detach(0, &place)?;
            }
            self.delete(0, &name)?;
        }
        self.compare_all()?;
        same!(self.real.switches.numbered().len(), 0, "switches left");
        same!(self.model.ports.len(), 0, "ports left in the model");
        for id in GLOBAL_ID + 1..=u16::MAX {
            same!(
                self.real.core.regions().find(id).is_ok(),
                false,
                "region {id} left"
            );
        }
        Ok(())
    }

    pub(super) fn mem(&self, mem: Mem) -> u16 {
        match mem {
            Mem::Own => 0,
            Mem::Global => GLOBAL_ID,
            Mem::Missing => 65000,
            Mem::OfSome(nth) => {
                let ids = self.model.regions.values().filter_map(|region| region.id);
                let ids: Vec<u16> = ids.collect();
                let nth = usize::from(nth) % ids.len().max(1);
                ids.get(nth).copied().unwrap_or(65001)
            }
        }
    }

    pub(super) fn wanted(&self, wish: &Wish) -> Ask {
        Ask {
            name: wish.name.to_owned(),
            mode: wish.mode,
            ring: wish.ring,
            flags: wish.flags,
            shape: wish.shape,
            mem: self.mem(wish.mem),
            extra: wish.extra,
        }
    }

    /// The bound ring `nth`, around and around.
    pub(super) fn ring_of(&self, client: usize, way: Direction, nth: u8) -> Option<RingKey> {
        let client = self.model.clients[client].as_ref()?;
        let bound = client.bound(way);
        let at = *bound.get(usize::from(nth) % bound.len().max(1))?;
        self.model.ports[&client.port].place(way, at).ring
    }

    fn perform(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Register { client, wish, how } => self.register(*client, wish, *how),
            Step::Close { client } => {
                self.model.close(*client);
                self.real.close(*client);
                Ok(())
            }
            Step::Fill {
                client,
                ring,
                frames,
                sync,
            } => {
                if let Some(ring) = self.ring_of(*client, Direction::Tx, *ring) {
                    let port = self.model.clients[*client].as_ref().unwrap().port;
                    let header = self.model.ports[&port].header;
                    for spec in frames {
                        self.fill(ring, header, spec);
                    }
                }
                match sync {
                    true => self.sync(*client, Direction::Tx),
                    false => Ok(()),
                }
            }
            Step::Take {
                client,
                ring,
                count,
                further,
                sync,
            } => {
                if let Some(ring) = self.ring_of(*client, Direction::Rx, *ring) {
                    self.take(ring, *count, *further);
                }
                match sync {
                    true => self.sync(*client, Direction::Rx),
                    false => Ok(()),
                }
            }
            Step::Sync { client, way } => self.sync(*client, *way),
            Step::Poll {
                client,
                events,
                sleep,
            } => {
                let model = self.model.poll(*client, *events, *sleep);
                let real = self.real.clients[*client].poll(*events, *sleep);
                same!(real, model, "poll of client {client}");
                Ok(())
            }
            Step::Scrawl {
                client,
                way,
                ring,
                what,
            } => {
                self.scrawl(*client, *way, *ring, *what);
                Ok(())
            }
            Step::Exchange { client, rx, tx } => {
                let ring = |way, nth| self.ring_of(*client, way, nth);
                if let (Some(rx), Some(tx)) = (ring(Direction::Rx, *rx), ring(Direction::Tx, *tx)) {
                    self.exchange(rx, tx);
                }
                Ok(())
            }
            Step::Age => {
                for switch in self.model.switches.iter_mut().flatten() {
                    switch.age();
                }
                self.real.switches.age();
                Ok(())
            }
            Step::Join { guest, name } => self.join(*guest, name),
            Step::Leave { guest } => self.leave(*guest),
            Step::Send { guest, frames } => self.send(*guest, frames),
            _ => self.request(step),
        }
    }

    fn sync(&mut self, client: usize, way: Direction) -> Outcome {
        let model = self.model.sync_all(client, way);
        let real = self.real.clients[client].sync(way);
        same!(real, model, "sync of client {client}");
        Ok(())
    }

    fn join(&mut self, guest: usize, name: &str) -> Outcome {
        if self.real.guests[guest].is_some() {
            return Ok(());
        }
        let (on, port) = name.split_once(':').unwrap();
        let taken = self.model.switch(on).is_some_and(|one| one.has_port(port));
        let switch = self.real.switches.get(on);
        let receiver = Arc::new(Guest::default());
        let joined = switch.attach(port, None, Arc::clone(&receiver) as _);
        same!(joined.is_err(), taken, "guest joins {name}");
        match joined {
            Ok(id) => {
                let who = self.model.new_guest(guest);
                let index = self.model.join(Who::Guest(who), on, port);
                same!(id.index(), index, "number of {name}");
                self.real.guests[guest] = Some(Seat {
                    switch,
                    port: id,
                    guest: receiver,
                });
            }
            Err(_) => self.real.switches.release(switch),
        }
        Ok(())
    }

    fn leave(&mut self, guest: usize) -> Outcome {
        let Some(seat) = self.real.guests[guest].take() else {
            return Ok(());
        };
        let (on, port) = self.model.seat(guest);
        let index = self.model.off_switch(&on, &port);
        same!(seat.port.index(), index, "number of {on}:{port}");
        seat.switch.detach(seat.port);
        self.real.switches.release(seat.switch);
        Ok(())
    }

    fn send(&mut self, guest: usize, specs: &[Spec]) -> Outcome {
        let Some(seat) = &self.real.guests[guest] else {
            return Ok(());
        };
        let frames: ArrayVec<Vec<u8>, BATCH> = specs
            .iter()
            .map(frame)
            .filter(|frame| frame.len() >= 14)
            .collect();
        let mut batch = Batch::new();
        for frame in &frames {
            let mark = batch.mark();
            batch.push_part(mark, Readable::from_slice(frame)).unwrap();
            let ether = *frame.first_chunk().unwrap();
            let len = u32::try_from(frame.len()).unwrap();
            assert!(batch.push_frame(mark, len, ether, NetHeader::default()));
        }
        if !frames.is_empty() {
            seat.switch.forward(seat.port, 0, &batch);
            let (on, port) = self.model.seat(guest);
            let frames: Vec<Frame> = frames.iter().map(|one| Frame::of_guest(one)).collect();
            self.model.forward(&on, &port, 0, 0, &frames);
        }
        Ok(())
    }
}
