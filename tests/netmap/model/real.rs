//! The real core, as its clients see it: requests through their memory, and
//! what they map.

use std::collections::BTreeMap;
use std::fs::File;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use vtnetd::net::frame::Batch;
use vtnetd::netmap::abi::legacy::{LegacyRequest, NIOCREGIF};
use vtnetd::netmap::abi::nmreq::*;
use vtnetd::netmap::abi::option::{NETMAP_REQ_OPT_SYNC_KLOOP_MODE, OptionHeader};
use vtnetd::netmap::abi::{IFNAMSIZ, Interface, NETMAP_API, Ring, Slot};
use vtnetd::netmap::attachment::{Attachment, Delivered};
use vtnetd::netmap::ctrl::{ClientMemory, Control, Fault};
use vtnetd::netmap::register::Netmap;
use vtnetd::netmap::vale::{PortId, Switch, Switches};
use vtnetd::virtio::memory::gather;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::ports::Ask;
use super::steps::{CLIENTS, GUESTS, How};

/// A client's memory: nothing is below this address.
const BASE: u64 = 0x10_0000;
const BODY: u64 = BASE + 256;
const OPTIONS: u64 = BASE + 512;

struct Memory([u8; 2048]);

impl Memory {
    fn bytes(&mut self, at: u64, len: usize) -> Result<&mut [u8], Fault> {
        let from = at.checked_sub(BASE).and_then(|at| usize::try_from(at).ok());
        let from = from.ok_or(Fault)?;
        let to = from.checked_add(len).ok_or(Fault)?;
        self.0.get_mut(from..to).ok_or(Fault)
    }
}

impl ClientMemory for Memory {
    fn copy_in(&mut self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        into.copy_from_slice(self.bytes(at, into.len())?);
        Ok(())
    }

    fn copy_out(&mut self, at: u64, from: &[u8]) -> Result<(), Fault> {
        self.bytes(at, from.len())?.copy_from_slice(from);
        Ok(())
    }
}

/// A guest: it keeps what it is given.
#[derive(Default)]
pub struct Guest(Mutex<Vec<Vec<u8>>>);

impl Guest {
    pub fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Attachment for Guest {
    fn offloads(&self) -> u64 {
        0
    }

    fn deliver(&self, _: usize, batch: &Batch<'_>, picks: &[u16]) -> Delivered {
        let mut given = self.0.lock().unwrap();
        let mut delivered = Delivered::default();
        for pick in picks {
            let frame = &batch.frames()[usize::from(*pick)];
            let mut bytes = vec![0; frame.len as usize];
            gather(batch.parts(frame), &mut bytes);
            delivered.frames += 1;
            delivered.bytes += bytes.len() as u64;
            given.push(bytes);
        }
        delivered
    }
}

/// A guest's place on a switch.
pub struct Seat {
    pub switch: Arc<Switch>,
    pub port: PortId,
    pub guest: Arc<Guest>,
}

pub struct Real {
    pub core: Arc<Netmap>,
    pub switches: Arc<Switches>,
    pub clients: Vec<Control>,
    pub guests: Vec<Option<Seat>>,
    /// Regions by their keys in the model.
    pub mapped: BTreeMap<u32, File>,
}

/// What a ring's memory says.
pub struct Seen {
    pub head: u32,
    pub cur: u32,
    pub tail: u32,
    pub slots: Vec<Slot>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Real {
    pub fn new(core: Arc<Netmap>, switches: Arc<Switches>) -> Self {
        Self {
            clients: (0..CLIENTS)
                .map(|_| Control::new(Arc::clone(&core)))
                .collect(),
            guests: (0..GUESTS).map(|_| None).collect(),
            core,
            switches,
            mapped: BTreeMap::new(),
        }
    }

    /// A control request; the name and the body afterwards.
    pub fn ask<T: IntoBytes + Immutable + FromBytes>(
        &self,
        client: usize,
        reqtype: u16,
        name: &str,
        body: &T,
    ) -> Result<(String, T), Errno> {
        self.ask_how(client, reqtype, name, body, How::Plain)
    }

    fn ask_how<T: IntoBytes + Immutable + FromBytes>(
        &self,
        client: usize,
        reqtype: u16,
        name: &str,
        body: &T,
        how: How,
    ) -> Result<(String, T), Errno> {
        let mut memory = Memory([0; 2048]);
        let mut header = RequestHeader {
            nr_version: NETMAP_API,
            nr_reqtype: reqtype,
            nr_reserved: 0,
            nr_name: [0; 64],
            nr_options: 0,
            nr_body: if size_of::<T>() == 0 { 0 } else { BODY },
        };
        header.nr_name[..name.len()].copy_from_slice(name.as_bytes());
        let mode = NETMAP_REQ_OPT_SYNC_KLOOP_MODE;
        let options: &[(u32, u64)] = match how {
            How::UnknownOption => &[(77, 0)],
            How::TwinOptions => &[(mode, OPTIONS + 64), (mode, 0)],
            How::NoOption => &[(0, 0)],
            How::EndlessOptions => &[(77, OPTIONS + 64), (78, OPTIONS)],
            _ => &[],
        };
        for (at, (nro_reqtype, nro_next)) in (OPTIONS..).step_by(64).zip(options) {
            let option = OptionHeader {
                nro_next: *nro_next,
                nro_reqtype: *nro_reqtype,
                ..OptionHeader::default()
            };
            memory.copy_out(at, option.as_bytes()).unwrap();
            header.nr_options = OPTIONS;
        }
        match how {
            How::Version => header.nr_version = 99,
            How::Reserved => header.nr_reserved = 1,
            How::NoBody => header.nr_body = 0,
            How::BadBody => header.nr_body = 8,
            _ => {}
        }
        memory.copy_out(BASE, header.as_bytes()).unwrap();
        memory.copy_out(BODY, body.as_bytes()).unwrap();
        self.clients[client].ioctl(NIOCCTRL, BASE, &mut memory)?;
        let bytes = memory.bytes(BODY, size_of::<T>()).unwrap();
        let body = T::read_from_bytes(bytes).unwrap();
        let name = &memory.bytes(BASE + 8, 64).unwrap()[..];
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok((String::from_utf8_lossy(name).into_owned(), body))
    }

    /// A registration: offset, size and id of the region, extra buffers, shape.
    pub fn register(&self, client: usize, ask: &Ask, how: How) -> Result<RegisterBody, Errno> {
        if how == How::Legacy {
            return self.register_legacy(client, ask);
        }
        let body = RegisterBody {
            nr_tx_slots: ask.shape.tx_slots,
            nr_rx_slots: ask.shape.rx_slots,
            nr_tx_rings: ask.shape.tx_rings,
            nr_rx_rings: ask.shape.rx_rings,
            nr_mem_id: ask.mem,
            nr_ringid: ask.ring,
            nr_mode: ask.mode,
            nr_extra_bufs: ask.extra,
            nr_flags: ask.flags,
            ..RegisterBody::default()
        };
        let answer = self.ask_how(client, NETMAP_REQ_REGISTER, &ask.name, &body, how);
        Ok(answer?.1)
    }

    fn register_legacy(&self, client: usize, ask: &Ask) -> Result<RegisterBody, Errno> {
        let mut memory = Memory([0; 2048]);
        let mut old = LegacyRequest {
            nr_version: NETMAP_API.into(),
            nr_tx_slots: ask.shape.tx_slots,
            nr_rx_slots: ask.shape.rx_slots,
            nr_tx_rings: ask.shape.tx_rings,
            nr_rx_rings: ask.shape.rx_rings,
            nr_arg2: ask.mem,
            nr_ringid: ask.ring,
            nr_arg3: ask.extra,
            nr_flags: ask.mode | u32::try_from(ask.flags).unwrap(),
            ..LegacyRequest::default()
        };
        old.nr_name[..ask.name.len()].copy_from_slice(ask.name.as_bytes());
        memory.copy_out(BASE, old.as_bytes()).unwrap();
        self.clients[client].ioctl(NIOCREGIF, BASE, &mut memory)?;
        let bytes = memory.bytes(BASE, size_of::<LegacyRequest>()).unwrap();
        let old = LegacyRequest::read_from_bytes(bytes).unwrap();
        Ok(RegisterBody {
            nr_offset: old.nr_offset.into(),
            nr_memsize: old.nr_memsize.into(),
            nr_tx_slots: old.nr_tx_slots,
            nr_rx_slots: old.nr_rx_slots,
            nr_tx_rings: old.nr_tx_rings,
            nr_rx_rings: old.nr_rx_rings,
            nr_mem_id: old.nr_arg2,
            nr_extra_bufs: old.nr_arg3,
            // The old structure does not say them.
            nr_flags: ask.flags | ask.monitors(),
            ..RegisterBody::default()
        })
    }

    /// The client opens its descriptor anew.
    pub fn close(&mut self, client: usize) {
        self.clients[client] = Control::new(Arc::clone(&self.core));
    }

    pub fn read(&self, region: u32, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mapped[&region].read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    pub fn write(&self, region: u32, at: u64, bytes: &[u8]) {
        self.mapped[&region].write_all_at(bytes, at).unwrap();
    }

    pub fn write_u32(&self, region: u32, at: u64, value: u32) {
        self.write(region, at, &value.to_ne_bytes());
    }

    /// A ring of so many slots.
    pub fn ring(&self, region: u32, at: u64, slots: usize) -> Seen {
        let bytes = self.read(region, at, size_of::<Ring>() + slots * size_of::<Slot>());
        let slot = |bytes: &[u8]| Slot {
            buf_idx: u32_at(bytes, offset_of!(Slot, buf_idx)),
            len: u16::from_ne_bytes([bytes[4], bytes[5]]),
            flags: u16::from_ne_bytes([bytes[6], bytes[7]]),
            ptr: u64::from_ne_bytes(bytes[8..16].try_into().unwrap()),
        };
        let slots = bytes[size_of::<Ring>()..].chunks(size_of::<Slot>());
        Seen {
            head: u32_at(&bytes, offset_of!(Ring, head)),
            cur: u32_at(&bytes, offset_of!(Ring, cur)),
            tail: u32_at(&bytes, offset_of!(Ring, tail)),
            slots: slots.map(slot).collect(),
        }
    }

    /// A slot, in the ring at `at`.
    pub fn set_slot(&self, region: u32, at: u64, index: u32, slot: Slot) {
        let at = at + (size_of::<Ring>() + size_of::<Slot>() * index as usize) as u64;
        let bytes = [
            &slot.buf_idx.to_ne_bytes()[..],
            &slot.len.to_ne_bytes(),
            &slot.flags.to_ne_bytes(),
            &slot.ptr.to_ne_bytes(),
        ];
        self.write(region, at, &bytes.concat());
    }

    /// A `netmap_if`: its name, the first extra buffer, and where each of so
    /// many rings is, from the region's start.
    pub fn interface(&self, region: u32, at: u64, rings: usize) -> (String, u32, Vec<Option<u64>>) {
        let len = size_of::<Interface>();
        let bytes = self.read(region, at, len + 8 * rings);
        let name = bytes[..IFNAMSIZ].split(|byte| *byte == 0).next().unwrap();
        let name = String::from_utf8_lossy(name).into_owned();
        let offsets = bytes[len..].chunks(8).map(|offset| {
            let offset = u64::from_ne_bytes(offset.try_into().unwrap());
            Some(at + offset).filter(|_| offset != 0)
        });
        let head = u32_at(&bytes, offset_of!(Interface, ni_bufs_head));
        (name, head, offsets.collect())
    }
}
