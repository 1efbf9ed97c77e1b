//! Comparisons of all that can be seen.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vtnetd::netmap::port::{Direction, Port};

use super::state::RingKey;
use super::switch::{Numbers, Who};
use super::world::{Outcome, World, same};

impl World {
    /// The rings and buffers that the model has touched.
    pub fn compare_touched(&mut self) -> Outcome {
        let touched = self.model.rings.iter().filter(|(_, ring)| ring.touched);
        let touched: Vec<RingKey> = touched.map(|(key, _)| *key).collect();
        for key in touched {
            self.compare_ring(key)?;
            self.model.ring_mut(key).touched = false;
        }
        for (key, region) in &mut self.model.regions {
            let Some([_, _, buffers]) = region.layout else {
                continue;
            };
            let mut written = std::mem::take(&mut region.written);
            written.sort_unstable();
            written.dedup();
            for index in written {
                let at = buffers.object(index).unwrap();
                let real = self.real.read(*key, at, buffers.size as usize);
                same!(
                    real,
                    region.buffer(index),
                    "buffer {index} of region {:?}",
                    region.id
                );
            }
        }
        Ok(())
    }

    fn compare_ring(&self, key: RingKey) -> Outcome {
        let ring = self.model.ring(key);
        let Some(offset) = ring.offset else {
            return Ok(());
        };
        let seen = self.real.ring(ring.region, offset, ring.slots.len());
        same!(
            (seen.head, seen.cur, seen.tail),
            (ring.head, ring.cur, ring.tail),
            "ring {key}"
        );
        same!(seen.slots, ring.slots, "slots of ring {key}");
        Ok(())
    }

    /// Everything.
    pub fn compare_all(&mut self) -> Outcome {
        for key in self.model.rings.keys() {
            self.compare_ring(*key)?;
        }
        self.compare_clients()?;
        self.compare_switches()?;
        for region in self.model.regions.values() {
            let Some(id) = region.id else { continue };
            let real = self.real.core.regions().find(id).unwrap().free();
            let free = [
                region.free_interfaces(),
                region.free_rings(),
                region.free_buffers(),
            ];
            same!(real, free, "what is free of region {id}");
        }
        Ok(())
    }

    fn compare_clients(&self) -> Outcome {
        for (at, (client, real)) in self
            .model
            .clients
            .iter()
            .zip(&self.real.clients)
            .enumerate()
        {
            same!(
                real.registration().is_some(),
                client.is_some(),
                "client {at} is bound"
            );
            let (Some(client), Some(real)) = (client, real.registration()) else {
                continue;
            };
            for way in [Direction::Tx, Direction::Rx] {
                same!(
                    real.ring_count(way),
                    client.bound(way).len(),
                    "rings of client {at}"
                );
                for (nth, &index) in client.bound(way).iter().enumerate() {
                    let place = self.model.ports[&client.port].place(way, index);
                    let ring = self.model.ring(place.ring.unwrap());
                    let kring = real.kring(way, nth).unwrap();
                    let name = kring.name();
                    same!(kring.counters().read(), ring.counts, "counters of {name}");
                    let (hardware, user) = (kring.hardware(), kring.user());
                    same!(
                        (hardware.hwcur, hardware.hwtail),
                        (ring.hwcur, ring.hwtail),
                        "how far {name} is"
                    );
                    same!(
                        (user.rhead, user.rcur, user.rtail),
                        (ring.rhead, ring.rcur, ring.rtail),
                        "what {name} has taken over"
                    );
                }
            }
            let mut fd = [PollFd::new(real.fd(), PollFlags::POLLIN)];
            let woken = poll(&mut fd, PollTimeout::ZERO) == Ok(1);
            same!(
                woken,
                client.woken,
                "client {at} of {} was woken",
                real.name()
            );
        }
        Ok(())
    }

    fn compare_switches(&mut self) -> Outcome {
        let real = self.real.switches.numbered();
        let numbers: Vec<(usize, &str)> = real.iter().map(|(at, one)| (*at, one.name())).collect();
        let model = self.model.switches.iter().enumerate();
        let model: Vec<(usize, &str)> = model
            .filter_map(|(at, one)| Some((at, one.as_ref()?.name.as_str())))
            .collect();
        same!(numbers, model, "switches");
        for (_, switch) in &real {
            let model = self.model.switch(switch.name()).unwrap();
            let member = |at: u8| model.members[usize::from(at)].as_ref().unwrap();
            let mut heard: Vec<_> = switch.addresses();
            heard.sort_unstable_by_key(|(mac, _, _)| mac.0);
            let want: Vec<_> = model
                .addresses
                .iter()
                .map(|(mac, (port, age))| {
                    let [_, _, mac @ ..] = mac.to_be_bytes();
                    (
                        vtnetd::net::ethernet::Mac(mac),
                        member(*port).name.clone(),
                        *age,
                    )
                })
                .collect();
            same!(heard, want, "addresses on {}", switch.name());
            let statistics = switch.statistics();
            same!(
                statistics.len(),
                model.members.iter().flatten().count(),
                "ports"
            );
            for real in statistics {
                let member = member(real.id.index());
                same!(real.name, member.name, "name");
                let numbers = Numbers {
                    in_frames: real.in_frames,
                    in_bytes: real.in_bytes,
                    out_frames: real.out_frames,
                    out_bytes: real.out_bytes,
                    dropped: real.dropped,
                    flooded: real.flooded,
                    unknown: real.unknown,
                };
                same!(numbers, member.numbers, "statistics of {}", real.name);
                if let Who::Client(port) = member.who {
                    same!(
                        real.causes,
                        self.model.causes(port),
                        "drops at {}",
                        real.name
                    );
                }
            }
        }
        self.compare_guests()
    }

    fn compare_guests(&mut self) -> Outcome {
        for guest in 0..self.real.guests.len() {
            let Some(seat) = &self.real.guests[guest] else {
                continue;
            };
            let (on, port) = self.model.seat(guest);
            let switch = self.model.switch_mut(&on).unwrap();
            let mut members = switch.members.iter_mut().flatten();
            let member = members.find(|one| one.name == port).unwrap();
            let given = std::mem::take(&mut member.given);
            same!(seat.guest.take(), given, "frames of guest {guest}");
        }
        Ok(())
    }
}
