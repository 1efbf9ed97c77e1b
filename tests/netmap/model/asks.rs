//! Requests that bind nothing.

use vtnetd::netmap::abi::nmreq::*;

use super::ports::Ask;
use super::steps::{Step, Wish};
use super::world::{Outcome, World, same};

impl World {
    /// A request that binds nothing.
    pub(super) fn request(&mut self, step: &Step) -> Outcome {
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

    pub(super) fn delete(&mut self, client: usize, name: &str) -> Outcome {
        let kind = NETMAP_REQ_VALE_DELIF;
        let deleted = self.real.ask(client, kind, name, &[0u8; 0]).map(|_| ());
        same!(
            deleted,
            self.model.delete_interface(name),
            "deletion of {name}"
        );
        Ok(())
    }

    pub(super) fn detach(&mut self, client: usize, name: &str) -> Outcome {
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
