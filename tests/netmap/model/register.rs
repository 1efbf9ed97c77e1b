//! Registrations, and what the core has made of them.

use nix::errno::Errno;
use vtnetd::netmap::abi::Slot;
use vtnetd::netmap::abi::nmreq::*;
use vtnetd::netmap::port::Direction;

use super::ports::Ask;
use super::state::{Kind, RingKey};
use super::steps::{How, Wish};
use super::world::{Outcome, World, same};

impl World {
    pub(super) fn register(&mut self, client: usize, wish: &Wish, how: How) -> Outcome {
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

    pub(super) fn region_file(&mut self, key: u32, id: u16) {
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
        let numbered = matches!(self.model.ports[&port].kind, Kind::Monitor { .. });
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
}
