//! The core and its model side by side: each step is done on both, and what
//! they say must be the same.

use std::mem::offset_of;
use std::sync::Arc;

use arrayvec::ArrayVec;
use nix::errno::Errno;
use vtnetd::net::frame::{BATCH, Batch};
use vtnetd::netmap::abi::nmreq::*;
use vtnetd::netmap::abi::{Interface, NS_BUF_CHANGED, NS_MOREFRAG, Ring, Slot};
use vtnetd::netmap::mem::{GLOBAL_ID, PoolSize, RegionConfig};
use vtnetd::netmap::port::Direction;
use vtnetd::netmap::register::Netmap;
use vtnetd::netmap::vale::Switches;
use vtnetd::virtio::memory::Readable;
use vtnetd::virtio::net_header::NetHeader;

use super::ports::Ask;
use super::real::{Guest, Real, Seat};
use super::state::{Model, RingKey};
use super::steps::{CLIENTS, How, Mem, Scrawl, Spec, Step, Wish};
use super::switch::{Frame, Who};

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
fn frame(spec: &Spec) -> Vec<u8> {
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
        for (name, place) in self.model.persistent_ports() {
            if let Some(place) = place {
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

    fn mem(&self, mem: Mem) -> u16 {
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

    fn wanted(&self, wish: &Wish) -> Ask {
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
    fn ring_of(&self, client: usize, way: Direction, nth: u8) -> Option<RingKey> {
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

    fn register(&mut self, client: usize, wish: &Wish, how: How) -> Outcome {
        let mut ask = self.wanted(wish);
        let how = match how {
            // A name has less room there, and a pipe keeps its rings.
            How::Legacy if ask.name.len() > 15 => How::Plain,
            How::UnknownOption if ask.name.contains(['{', '}']) => How::Plain,
            how => how,
        };
        let model = match how {
            How::Plain => self.model.register(client, &ask),
            How::Legacy => {
                let mut meant = ask.clone();
                match ask.mode {
                    0 => meant.mode = NR_REG_ALL_NIC,
                    NR_REG_PIPE_MASTER | NR_REG_PIPE_SLAVE => {
                        let end = if ask.mode == NR_REG_PIPE_MASTER {
                            '{'
                        } else {
                            '}'
                        };
                        meant.name = format!("{}{end}{}", ask.name, ask.ring);
                        (meant.mode, meant.ring) = (NR_REG_ALL_NIC, 0);
                    }
                    _ => {}
                }
                self.model.register(client, &meant)
            }
            How::UnknownOption => {
                // Nothing was in them that had to be known.
                ask.extra = 0;
                let made = self.model.register(client, &ask);
                made.and_then(|()| {
                    self.model.close(client);
                    Err(Errno::EOPNOTSUPP)
                })
            }
            How::TwinOptions | How::NoOption | How::Version | How::Reserved | How::NoBody => {
                Err(Errno::EINVAL)
            }
            How::EndlessOptions => Err(Errno::EMSGSIZE),
            How::BadBody => Err(Errno::EFAULT),
        };
        let real = self.real.register(client, &ask, how);
        same!(real.map(|_| ()), model, "registration {ask:?} {how:?}");
        match real {
            Ok(body) => self.adopt(client, &ask, &body),
            Err(_) => Ok(()),
        }
    }

    fn region_file(&mut self, key: u32, id: u16) {
        let region = self.real.core.regions().find(id).unwrap();
        let model = self.model.regions.get_mut(&key).unwrap();
        model.adopt(id, region.layout());
        let file = || region.fd().try_clone_to_owned().unwrap().into();
        self.real.mapped.entry(key).or_insert_with(file);
    }

    /// Where the client's rings and buffers are is up to the core, as long as
    /// they were nobody's.
    fn adopt(&mut self, client: usize, ask: &Ask, body: &RegisterBody) -> Outcome {
        let one = self.model.clients[client].as_ref().unwrap();
        let port = &self.model.ports[&one.port];
        let (key, shape, name) = (port.region, port.shape, port.name.clone());
        let bound = [Direction::Tx, Direction::Rx].map(|way| one.bound(way).to_vec());
        let port = one.port;
        same!(body.nr_flags, one.flags, "flags");
        let shapes = (
            body.nr_tx_rings,
            body.nr_rx_rings,
            body.nr_tx_slots,
            body.nr_rx_slots,
        );
        let wanted = (
            shape.tx_rings,
            shape.rx_rings,
            shape.tx_slots,
            shape.rx_slots,
        );
        same!(shapes, wanted, "shape");
        let known = self.model.regions[&key].id;
        same!(known.unwrap_or(body.nr_mem_id), body.nr_mem_id, "region");
        let mut ids = self.model.regions.iter();
        let twice = ids.any(|(other, one)| *other != key && one.id == Some(body.nr_mem_id));
        same!(twice, false, "region {} is another port's", body.nr_mem_id);
        self.region_file(key, body.nr_mem_id);
        let count = usize::from(shape.tx_rings) + usize::from(shape.rx_rings) + 2;
        let (told, mut extra, offsets) = self.real.interface(key, body.nr_offset, count);
        let shown: String = name.chars().take(15).collect();
        let numbered = matches!(
            self.model.ports[&port].kind,
            super::state::Kind::Monitor { .. }
        );
        // A monitor's name has a number behind.
        same!(
            told.starts_with(&shown) || numbered,
            true,
            "name {told} of {name}"
        );
        let behind = usize::from(shape.tx_rings) + 1;
        let mut want = vec![false; count];
        for (way, rings) in [Direction::Tx, Direction::Rx].into_iter().zip(&bound) {
            for &at in rings {
                let first = if way == Direction::Tx { 0 } else { behind };
                want[first + at] = true;
                let ring = self.model.ports[&port].place(way, at).ring.unwrap();
                if let Some(offset) = offsets[first + at] {
                    self.adopt_ring(ring, offset)?;
                }
            }
        }
        let there: Vec<bool> = offsets.iter().map(Option::is_some).collect();
        same!(there, want, "rings of the netmap_if");
        let one = self.model.clients[client].as_mut().unwrap();
        (one.extra_head, one.offset) = (extra, body.nr_offset);
        let region = self.model.regions.get_mut(&key).unwrap();
        let wanted = ask.extra.min(region.free_buffers());
        same!(body.nr_extra_bufs, wanted, "extra buffers");
        let [_, _, buffers] = region.layout.unwrap();
        for _ in 0..wanted {
            let region = self.model.regions.get_mut(&key).unwrap();
            same!(region.take(extra), true, "extra buffer {extra} is free");
            let link = self.real.read(key, buffers.object(extra).unwrap(), 4);
            region.write(extra, 0, &link);
            extra = region.link(extra);
        }
        same!(extra, 0, "end of the extra buffers");
        Ok(())
    }

    fn adopt_ring(&mut self, key: RingKey, offset: u64) -> Outcome {
        let ring = self.model.ring_mut(key);
        let known = ring.offset.replace(offset);
        same!(known.unwrap_or(offset), offset, "place of a ring");
        if ring.adopted {
            return Ok(());
        }
        let (region, slots) = (ring.region, ring.slots.len());
        let seen = self.real.ring(region, offset, slots);
        let memory = self.model.regions.get_mut(&region).unwrap();
        for slot in &seen.slots {
            same!(
                memory.take(slot.buf_idx),
                true,
                "buffer {} is free",
                slot.buf_idx
            );
            let want = Slot {
                buf_idx: slot.buf_idx,
                len: u16::try_from(memory.buf_size()).unwrap(),
                ..Slot::default()
            };
            same!(*slot, want, "a new slot");
        }
        let links = self.model.links.values();
        let mut pairs = links.map(|link| [link.tx, link.rx]);
        let pair = pairs.find(|pair| pair.contains(&key)).unwrap_or([key; 2]);
        for half in pair {
            // Both rings of a pipe begin with the same buffers.
            let ring = self.model.ring_mut(half);
            ring.slots.clone_from(&seen.slots);
            ring.adopted = true;
        }
        Ok(())
    }

    /// A client's store to `head` or `cur`.
    fn point(&mut self, ring: RingKey, head: u32, cur: u32) {
        let one = self.model.ring_mut(ring);
        (one.head, one.cur) = (head, cur);
        let (region, at) = (one.region, one.offset.unwrap());
        let field = |offset: usize| at + offset as u64;
        self.real
            .write_u32(region, field(offset_of!(Ring, head)), head);
        self.real
            .write_u32(region, field(offset_of!(Ring, cur)), cur);
    }

    fn set_slot(&mut self, ring: RingKey, at: u32, slot: Slot) {
        let one = self.model.ring_mut(ring);
        one.slots[at as usize] = slot;
        let (region, offset) = (one.region, one.offset.unwrap());
        self.real.set_slot(region, offset, at, slot);
    }

    fn write_buffer(&mut self, region: u32, index: u32, at: usize, bytes: &[u8]) {
        let model = self.model.regions.get_mut(&region).unwrap();
        let len = model.write(index, at, bytes);
        let [_, _, buffers] = model.layout.unwrap();
        let offset = buffers.object(index).unwrap() + at as u64;
        self.real.write(region, offset, &bytes[..len]);
    }

    fn fill(&mut self, key: RingKey, header: usize, spec: &Spec) {
        let ring = self.model.ring(key);
        let (region, mut at, tail) = (ring.region, ring.head, ring.tail);
        let mut bytes = frame(spec);
        if header > 0 {
            let mut front = spec.header.to_vec();
            front.resize(header, 0);
            bytes = [front, bytes].concat();
        }
        let size = self.model.regions[&region].buf_size();
        let cut = match usize::from(spec.cut) {
            0 => size,
            cut => cut.min(size),
        };
        let mut pieces = bytes.chunks(cut).peekable();
        let mut room = self.model.ring(key).distance(at, tail);
        while let Some(piece) = pieces.next().filter(|_| room > 0) {
            let slot = self.model.ring(key).slot(at);
            if self.model.regions[&region].is_buffer(slot.buf_idx) {
                self.write_buffer(region, slot.buf_idx, 0, piece);
            }
            let more = pieces.peek().is_some();
            let slot = Slot {
                len: u16::try_from(piece.len()).unwrap(),
                flags: if more { NS_MOREFRAG } else { 0 },
                ..slot
            };
            self.set_slot(key, at, slot);
            at = self.model.ring(key).next(at);
            room -= 1;
        }
        self.point(key, at, at);
    }

    fn take(&mut self, key: RingKey, count: u8, further: u8) {
        let ring = self.model.ring(key);
        let go = |from: u32, steps: u8| {
            let room = ring.distance(from, ring.tail).min(steps.into());
            (0..room).fold(from, |at, _| ring.next(at))
        };
        let head = go(ring.head, count);
        let cur = go(head, further);
        self.point(key, head, cur);
    }

    fn exchange(&mut self, rx: RingKey, tx: RingKey) {
        let at = |ring| {
            (
                self.model.ring(ring).head,
                self.model.ring(ring).slots.len(),
            )
        };
        let ((from, rx_len), (to, tx_len)) = (at(rx), at(tx));
        if from as usize >= rx_len || to as usize >= tx_len {
            return;
        }
        let (ours, theirs) = (self.model.ring(rx).slot(from), self.model.ring(tx).slot(to));
        let changed = |slot: Slot, buf_idx| Slot {
            buf_idx,
            flags: slot.flags | NS_BUF_CHANGED,
            ..slot
        };
        self.set_slot(rx, from, changed(ours, theirs.buf_idx));
        self.set_slot(tx, to, changed(theirs, ours.buf_idx));
    }

    fn scrawl(&mut self, client: usize, way: Direction, nth: u8, what: Scrawl) {
        let Some(one) = &mut self.model.clients[client] else {
            return;
        };
        let (port, offset) = (one.port, one.offset);
        let region = self.model.ports[&port].region;
        if let Scrawl::Extra(head) = what {
            one.extra_head = head;
            let at = offset + offset_of!(Interface, ni_bufs_head) as u64;
            self.real.write_u32(region, at, head);
            return;
        }
        if let Scrawl::Bytes { buffer, value } = what {
            if self.model.regions[&region].is_buffer(buffer) {
                self.write_buffer(region, buffer, 0, &value.to_ne_bytes());
            }
            return;
        }
        let Some(key) = self.ring_of(client, way, nth) else {
            return;
        };
        let ring = self.model.ring(key);
        let (head, cur, base) = (ring.head, ring.cur, ring.offset.unwrap());
        let slots = ring.slots.len();
        let mut slot = |at: u8, change: &dyn Fn(&mut Slot)| {
            if slots > 0 {
                let at = u32::from(at) % u32::try_from(slots).unwrap();
                let mut slot = self.model.ring(key).slot(at);
                change(&mut slot);
                self.set_slot(key, at, slot);
            }
        };
        match what {
            Scrawl::Head(head) => self.point(key, head, cur),
            Scrawl::Cur(cur) => self.point(key, head, cur),
            Scrawl::Tail(tail) => {
                self.model.ring_mut(key).tail = tail;
                let at = base + offset_of!(Ring, tail) as u64;
                self.real.write_u32(region, at, tail);
            }
            Scrawl::Buffer { slot: at, value } => slot(at, &|slot| slot.buf_idx = value),
            Scrawl::Len { slot: at, value } => slot(at, &|slot| slot.len = value),
            Scrawl::Flags { slot: at, value } => slot(at, &|slot| slot.flags = value),
            Scrawl::Ptr { slot: at, value } => slot(at, &|slot| slot.ptr = value),
            Scrawl::Constants(byte) => {
                // buf_ofs, num_slots, nr_buf_size, ringid and dir.
                self.real
                    .write(region, base, &[byte; offset_of!(Ring, head)]);
            }
            Scrawl::Extra(_) | Scrawl::Bytes { .. } => {}
        }
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

    /// A request that binds nothing.
    fn request(&mut self, step: &Step) -> Outcome {
        let (real, model) = (&self.real, &mut self.model);
        match step {
            Step::NewInterface { client, wish } => self.new_interface(*client, wish),
            Step::DeleteInterface { client, name } => self.delete(*client, name),
            Step::Attach { client, name, mem } => {
                let mem = self.mem(*mem);
                let body = AttachBody {
                    reg: RegisterBody {
                        nr_mode: NR_REG_ALL_NIC,
                        nr_mem_id: mem,
                        ..RegisterBody::default()
                    },
                    ..AttachBody::default()
                };
                let attached = self.real.ask(*client, NETMAP_REQ_VALE_ATTACH, name, &body);
                let index = attached.map(|(_, body)| body.port_index);
                let want = self.model.attach_interface(name, mem).map(u32::from);
                same!(index, want, "attachment of {name}");
                Ok(())
            }
            Step::Detach { client, name } => self.detach(*client, name),
            Step::List {
                client,
                name,
                switch,
                port,
            } => {
                let body = ListBody {
                    nr_bridge_idx: *switch,
                    pad1: 0,
                    nr_port_idx: *port,
                };
                let listed = real.ask(*client, NETMAP_REQ_VALE_LIST, name, &body);
                let listed =
                    listed.map(|(name, body)| (body.nr_bridge_idx, body.nr_port_idx, name));
                same!(
                    listed,
                    model.list(name, *switch, *port),
                    "list from {name:?}"
                );
                Ok(())
            }
            Step::SetHeader { client, name, len } => {
                let body = HeaderBody {
                    nr_hdr_len: *len,
                    pad1: 0,
                };
                let set = real.ask(*client, NETMAP_REQ_PORT_HDR_SET, name, &body);
                same!(
                    set.map(|_| ()),
                    model.set_header(name, *len),
                    "header of {name}"
                );
                Ok(())
            }
            Step::Header { client, name } => {
                let body = HeaderBody::default();
                let told = real.ask(*client, NETMAP_REQ_PORT_HDR_GET, name, &body);
                let told = told.map(|(_, body)| body.nr_hdr_len);
                same!(told, model.header(name), "header of {name}");
                Ok(())
            }
            Step::Info { client, name, mem } => {
                let mem = self.mem(*mem);
                self.info(*client, name, mem)
            }
            Step::Pools { client, name, mem } => {
                let mem = self.mem(*mem);
                self.pools(*client, name, mem)
            }
            Step::Polling { client, name, on } => {
                let kind = match on {
                    true => NETMAP_REQ_VALE_POLLING_ENABLE,
                    false => NETMAP_REQ_VALE_POLLING_DISABLE,
                };
                let body = PollingBody::default();
                let polled = real.ask(*client, kind, name, &body).map(|_| ());
                same!(polled, model.polling(name), "polling of {name}");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn delete(&mut self, client: usize, name: &str) -> Outcome {
        let kind = NETMAP_REQ_VALE_DELIF;
        let deleted = self.real.ask(client, kind, name, &[0u8; 0]).map(|_| ());
        same!(
            deleted,
            self.model.delete_interface(name),
            "deletion of {name}"
        );
        Ok(())
    }

    fn detach(&mut self, client: usize, name: &str) -> Outcome {
        let body = DetachBody::default();
        let detached = self.real.ask(client, NETMAP_REQ_VALE_DETACH, name, &body);
        let index = detached.map(|(_, body)| body.port_index);
        let want = self.model.detach_interface(name).map(u32::from);
        same!(index, want, "detachment of {name}");
        Ok(())
    }

    fn new_interface(&mut self, client: usize, wish: &Wish) -> Outcome {
        let ask = Ask {
            mode: NR_REG_ALL_NIC,
            flags: 0,
            extra: 0,
            ..self.wanted(wish)
        };
        let body = NewInterfaceBody {
            nr_tx_slots: ask.shape.tx_slots,
            nr_rx_slots: ask.shape.rx_slots,
            nr_tx_rings: ask.shape.tx_rings,
            nr_rx_rings: ask.shape.rx_rings,
            nr_mem_id: ask.mem,
            pad1: 0,
        };
        let real = self
            .real
            .ask(client, NETMAP_REQ_VALE_NEWIF, &ask.name, &body);
        let model = self.model.new_interface(&ask);
        same!(
            real.as_ref().map(|_| ()).map_err(|errno| *errno),
            model.map(|_| ()),
            "{ask:?}"
        );
        let (Ok((_, body)), Ok(port)) = (real, model) else {
            return Ok(());
        };
        let port = &self.model.ports[&port];
        let (key, shape) = (port.region, port.shape);
        let told = (
            body.nr_tx_rings,
            body.nr_rx_rings,
            body.nr_tx_slots,
            body.nr_rx_slots,
        );
        let want = (
            shape.tx_rings,
            shape.rx_rings,
            shape.tx_slots,
            shape.rx_slots,
        );
        same!(told, want, "shape of {}", ask.name);
        self.region_file(key, body.nr_mem_id);
        Ok(())
    }

    fn info(&mut self, client: usize, name: &str, mem: u16) -> Outcome {
        let body = PortInfoBody {
            nr_mem_id: mem,
            ..PortInfoBody::default()
        };
        let told = self.real.ask(client, NETMAP_REQ_PORT_INFO_GET, name, &body);
        let told = told.map(|(_, body)| body);
        if name.is_empty() {
            let want = self.model.region_exists(mem);
            same!(told.map(|body| body.nr_mem_id), want, "region {mem}");
            return Ok(());
        }
        let want = self.model.facts(name, mem);
        let shape = told.map(|body| {
            (
                body.nr_tx_rings,
                body.nr_rx_rings,
                body.nr_tx_slots,
                body.nr_rx_slots,
            )
        });
        let wanted = want.map(|(shape, _)| {
            (
                shape.tx_rings,
                shape.rx_rings,
                shape.tx_slots,
                shape.rx_slots,
            )
        });
        same!(shape, wanted, "shape of {name}");
        if let (Ok(body), Ok((_, Some(id)))) = (told, want) {
            same!(body.nr_mem_id, id, "region of {name}");
        }
        Ok(())
    }

    fn pools(&mut self, client: usize, name: &str, mem: u16) -> Outcome {
        let body = PoolsBody {
            nr_mem_id: mem,
            ..PoolsBody::default()
        };
        let told = self
            .real
            .ask(client, NETMAP_REQ_POOLS_INFO_GET, name, &body);
        let told = told.map(|(_, body)| body);
        let want = self.model.facts(name, mem);
        same!(told.map(|_| ()), want.map(|_| ()), "pools of {name}");
        if let (Ok(body), Ok((_, Some(id)))) = (told, want) {
            same!(body.nr_mem_id, id, "region of {name}");
            let mut regions = self.model.regions.values();
            if let Some(known) = regions.find(|one| one.id == Some(id)) {
                let [_, _, buffers] = known.layout.unwrap();
                let told = (body.nr_buf_pool_offset, body.nr_buf_pool_objtotal);
                same!(told, (buffers.offset, buffers.num), "buffers of {name}");
            }
        }
        Ok(())
    }
}
