//! What each kind of control request does.

use std::sync::{Arc, PoisonError};

use nix::errno::Errno;

use super::message::Message;
use super::{ClientMemory, Control, csb, refused};
use crate::netmap::abi::nmreq::*;
use crate::netmap::abi::option::*;
use crate::netmap::device::PollingRequest;
use crate::netmap::mem::{ExternalConfig, GLOBAL_ID, Region, page_size};
use crate::netmap::port::HeaderLen;
use crate::netmap::register::{PortFacts, RegisterError, Request};

/// `nr_port_idx` of a name that is no port's: behind all numbers of ports and
/// that of a broadcast.
const NO_PORT: u32 = 255;

impl Control {
    /// Works on a request whose body and options are copied in.
    pub(super) fn perform(
        &self,
        message: &mut Message,
        memory: &mut dyn ClientMemory,
    ) -> Result<(), Errno> {
        self.check_allowed(message)?;
        match message.reqtype {
            NETMAP_REQ_REGISTER => self.bind(message, memory),
            NETMAP_REQ_PORT_INFO_GET => self.port_info(message),
            NETMAP_REQ_VALE_ATTACH => self.attach(message),
            NETMAP_REQ_VALE_DETACH => self.detach(message),
            NETMAP_REQ_VALE_LIST => self.list(message),
            NETMAP_REQ_PORT_HDR_SET => self.set_header(message),
            NETMAP_REQ_PORT_HDR_GET => self.header(message),
            NETMAP_REQ_VALE_NEWIF => self.new_interface(message),
            NETMAP_REQ_VALE_DELIF => {
                let deleted = self.core.delete_interface(&message.name);
                deleted.map_err(|error| refused(&error))
            }
            NETMAP_REQ_VALE_POLLING_ENABLE | NETMAP_REQ_VALE_POLLING_DISABLE => {
                let body: PollingBody = message.body();
                let enable = message.reqtype == NETMAP_REQ_VALE_POLLING_ENABLE;
                let request = enable.then_some(PollingRequest {
                    mode: body.nr_mode,
                    first: body.nr_first_cpu_id,
                    count: body.nr_num_polling_cpus,
                });
                let set = self.core.set_polling(&message.name, request);
                set.map_err(|error| refused(&error))
            }
            NETMAP_REQ_POOLS_INFO_GET => self.pools_info(message),
            NETMAP_REQ_SYNC_KLOOP_START => self.start_loop(message, memory),
            NETMAP_REQ_SYNC_KLOOP_STOP => self.stop_loop(memory),
            NETMAP_REQ_CSB_ENABLE => self.enable_block(message, memory),
            _ => Err(Errno::EINVAL),
        }
    }

    fn bind(&self, message: &mut Message, memory: &mut dyn ClientMemory) -> Result<(), Errno> {
        let _binding = self.binding();
        if self.registration().is_some() {
            return Err(Errno::EBUSY);
        }
        let region = self.external_region(message, memory)?;
        let body: RegisterBody = message.body();
        let offsets: Option<Offsets> = message.option(NETMAP_REQ_OPT_OFFSETS);
        let request = Request {
            offsets,
            authority: self.authority.clone(),
            ..Request::from_body(&message.name, &body)
        };
        let registration = match self.core.register_in(&request, region.as_ref()) {
            Ok(registration) => registration,
            Err(error) => {
                if let RegisterError::Offsets { error, .. } = &error {
                    message.set_status(NETMAP_REQ_OPT_OFFSETS, Err(error.errno()));
                }
                return Err(refused(&error));
            }
        };
        if let (Some(offsets), Some(max)) = (offsets, registration.max_offset()) {
            message.set_status(NETMAP_REQ_OPT_OFFSETS, Ok(()));
            let told = Offsets {
                nro_max_offset: max,
                ..offsets
            };
            message.set_option(NETMAP_REQ_OPT_OFFSETS, &told);
        }
        let mut shared = None;
        if let Some(block) = message.option(NETMAP_REQ_OPT_CSB) {
            let begun = csb::begin(&registration, &block, memory);
            message.set_status(NETMAP_REQ_OPT_CSB, begun.map(|_| ()));
            shared = begun?.then_some(block);
        }
        message.check_options()?;
        message.set_body(&registration.answer(&body));
        if let Some(block) = shared {
            self.share(block);
        }
        // Nobody has bound anything meanwhile.
        self.registration
            .set(registration)
            .map_err(|_| Errno::EBUSY)
    }

    /// The region in the client's memory, if it asks for one.
    fn external_region(
        &self,
        message: &mut Message,
        memory: &mut dyn ClientMemory,
    ) -> Result<Option<Arc<Region>>, Errno> {
        let Some(mut option) = message.option::<ExternalMemory>(NETMAP_REQ_OPT_EXTMEM) else {
            return Ok(None);
        };
        let config = ExternalConfig::from_option(&mut option.nro_info, page_size());
        let region = memory.object().and_then(|object| {
            let region = self.core.regions().external(object, &config);
            let charged = region.and_then(|region| {
                region.charge_to(&self.authority)?;
                Ok(region)
            });
            charged.map_err(|error| {
                let name = message.name.clone();
                refused(&RegisterError::Memory { name, error })
            })
        });
        message.set_status(
            NETMAP_REQ_OPT_EXTMEM,
            region.as_ref().map(|_| ()).map_err(|e| *e),
        );
        message.set_option(NETMAP_REQ_OPT_EXTMEM, &option);
        region.map(Some)
    }

    fn enable_block(
        &self,
        message: &mut Message,
        memory: &mut dyn ClientMemory,
    ) -> Result<(), Errno> {
        let block = message.option(NETMAP_REQ_OPT_CSB).ok_or(Errno::EINVAL)?;
        let _binding = self.binding();
        let begun = match self.registration() {
            _ if self.is_looping() => Err(Errno::EBUSY),
            Some(registration) => {
                registration.recall();
                csb::begin(registration, &block, memory)
            }
            // No rings, nothing to check.
            None => Ok(false),
        };
        message.set_status(NETMAP_REQ_OPT_CSB, begun.map(|_| ()));
        if begun? {
            self.share(block);
        }
        Ok(())
    }

    fn region(&self, id: u16) -> Result<Arc<Region>, Errno> {
        let id = if id == 0 { GLOBAL_ID } else { id };
        self.core.regions().find(id).map_err(|error| {
            tracing::debug!("netmap request refused: {error}");
            Errno::EINVAL
        })
    }

    fn port_info(&self, message: &mut Message) -> Result<(), Errno> {
        let body: PortInfoBody = message.body();
        if message.name.is_empty() {
            // Memory alone.
            let region = self.region(body.nr_mem_id)?;
            message.set_body(&PortInfoBody {
                nr_memsize: region.bytes(),
                nr_mem_id: region.id(),
                ..body
            });
            return Ok(());
        }
        let request = Request {
            tx_slots: body.nr_tx_slots,
            rx_slots: body.nr_rx_slots,
            tx_rings: body.nr_tx_rings,
            rx_rings: body.nr_rx_rings,
            host_tx_rings: body.nr_host_tx_rings,
            host_rx_rings: body.nr_host_rx_rings,
            mem_id: body.nr_mem_id,
            authority: self.authority.clone(),
            ..Request::new(&message.name)
        };
        let PortFacts {
            shape,
            host,
            region,
        } = self.facts(&request)?;
        message.set_body(&PortInfoBody {
            nr_memsize: region.bytes(),
            nr_tx_slots: shape.tx_slots,
            nr_rx_slots: shape.rx_slots,
            nr_tx_rings: shape.tx_rings,
            nr_rx_rings: shape.rx_rings,
            nr_host_tx_rings: host.tx,
            nr_host_rx_rings: host.rx,
            nr_mem_id: region.id(),
            ..body
        });
        Ok(())
    }

    fn facts(&self, request: &Request) -> Result<PortFacts, Errno> {
        let facts = self.core.facts(request).map_err(|error| refused(&error))?;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = Some(Arc::clone(&facts.region));
        Ok(facts)
    }

    fn pools_info(&self, message: &mut Message) -> Result<(), Errno> {
        let body: PoolsBody = message.body();
        let request = Request {
            mem_id: body.nr_mem_id,
            authority: self.authority.clone(),
            ..Request::new(&message.name)
        };
        let PortFacts { region, .. } = self.facts(&request)?;
        let [interfaces, rings, buffers] = region.layout();
        message.set_body(&PoolsBody {
            nr_memsize: region.bytes(),
            nr_mem_id: region.id(),
            nr_if_pool_offset: interfaces.offset,
            nr_if_pool_objtotal: interfaces.num,
            nr_if_pool_objsize: interfaces.size,
            nr_ring_pool_offset: rings.offset,
            nr_ring_pool_objtotal: rings.num,
            nr_ring_pool_objsize: rings.size,
            nr_buf_pool_offset: buffers.offset,
            nr_buf_pool_objtotal: buffers.num,
            nr_buf_pool_objsize: buffers.size,
            ..body
        });
        Ok(())
    }

    fn attach(&self, message: &mut Message) -> Result<(), Errno> {
        let body: AttachBody = message.body();
        let request = Request {
            authority: self.authority.clone(),
            ..Request::from_body(&message.name, &body.reg)
        };
        let index = self.core.attach_interface(&request);
        message.set_body(&AttachBody {
            port_index: index.map_err(|error| refused(&error))?.into(),
            ..body
        });
        Ok(())
    }

    fn detach(&self, message: &mut Message) -> Result<(), Errno> {
        let body: DetachBody = message.body();
        let index = self.core.detach_interface(&message.name);
        message.set_body(&DetachBody {
            port_index: index.map_err(|error| refused(&error))?.into(),
            ..body
        });
        Ok(())
    }

    fn list(&self, message: &mut Message) -> Result<(), Errno> {
        let body: ListBody = message.body();
        let found = if message.name.is_empty() {
            let switch = body.nr_bridge_idx.into();
            self.core.enumerate(switch, body.nr_port_idx)
        } else {
            let found = self.core.look_up(&message.name);
            found.map_err(|error| refused(&error))?
        };
        let found = found.ok_or(Errno::ENOENT)?;
        message.set_body(&ListBody {
            // More switches than this can be had, but not told of.
            nr_bridge_idx: u16::try_from(found.switch).map_err(|_| Errno::ENOENT)?,
            nr_port_idx: found.port.map_or(NO_PORT, u32::from),
            ..body
        });
        message.name = found.name;
        Ok(())
    }

    fn set_header(&self, message: &Message) -> Result<(), Errno> {
        let body: HeaderBody = message.body();
        let len = HeaderLen::try_from(body.nr_hdr_len).map_err(|error| {
            tracing::debug!("{}: {error}", message.name);
            Errno::EINVAL
        })?;
        let set = self.core.set_header_len(&message.name, len);
        set.map_err(|error| refused(&error))
    }

    fn header(&self, message: &mut Message) -> Result<(), Errno> {
        let body: HeaderBody = message.body();
        let len = self.core.header_len(&message.name);
        let len = len.map_err(|error| refused(&error))?.bytes();
        message.set_body(&HeaderBody {
            nr_hdr_len: u32::try_from(len).unwrap_or_default(),
            ..body
        });
        Ok(())
    }

    fn new_interface(&self, message: &mut Message) -> Result<(), Errno> {
        let body: NewInterfaceBody = message.body();
        let request = Request {
            tx_slots: body.nr_tx_slots,
            rx_slots: body.nr_rx_slots,
            tx_rings: body.nr_tx_rings,
            rx_rings: body.nr_rx_rings,
            mem_id: body.nr_mem_id,
            authority: self.authority.clone(),
            ..Request::new(&message.name)
        };
        let made = self.core.new_interface(&request);
        let PortFacts { shape, region, .. } = made.map_err(|error| refused(&error))?;
        message.set_body(&NewInterfaceBody {
            nr_tx_slots: shape.tx_slots,
            nr_rx_slots: shape.rx_slots,
            nr_tx_rings: shape.tx_rings,
            nr_rx_rings: shape.rx_rings,
            nr_mem_id: region.id(),
            ..body
        });
        Ok(())
    }
}
