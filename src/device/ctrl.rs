//! The control queue (5.1.6.5): receive modes, address tables, VLANs, the
//! announcement's acknowledgement, the number of queue pairs, offloads.
//!
//! Only front ends that hand the queue over get here; QEMU and Cloud Hypervisor
//! keep it and answer it themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;

use super::filter::TABLE;
use super::pair::Shared;
use super::vring::{Vring, VringFault};
use crate::net::ethernet::Mac;
use crate::virtio::memory::{GuestMemory, Readable, Writable};
use crate::virtio::queue::{Chain, Parts, Pop, Queue, VirtQueue};
use crate::virtio::spec::{ctrl, net};

/// Bytes of the longest command that is looked at: two full address tables.
const COMMAND: usize = 2 + 2 * (4 + TABLE * 6) + 4096;
/// Most buffers of one command.
const PARTS: usize = 64;
/// Most commands in one turn: a command may take a while at the host.
const BUDGET: u16 = 1;

/// The control queue of a device.
pub struct ControlQueue {
    /// The queue.
    pub vring: Vring,
    shared: Arc<Shared>,
    max_pairs: u16,
    kicked: AtomicBool,
}

/// A command's buffers.
#[derive(Default)]
struct Command<'m> {
    request: ArrayVec<Readable<'m>, PARTS>,
    answer: ArrayVec<Writable<'m>, PARTS>,
}

impl<'m> Parts<'m> for Command<'m> {
    fn readable(&mut self, part: Readable<'m>) -> Option<()> {
        self.request.try_push(part).ok()
    }

    fn writable(&mut self, part: Writable<'m>) -> Option<()> {
        self.answer.try_push(part).ok()
    }
}

/// A command is refused.
struct Refused;

impl ControlQueue {
    /// A control queue for a device of up to `max_pairs` queue pairs.
    pub(super) fn new(shared: Arc<Shared>, max_pairs: u16) -> Self {
        Self {
            vring: Vring::new(format!("{} ctrl", shared.name)),
            shared,
            max_pairs,
            kicked: AtomicBool::new(false),
        }
    }

    /// There may be commands.
    pub(super) fn note(&self) {
        self.kicked.store(true, Ordering::Release);
    }

    /// Executes what waits. Returns whether there was anything.
    pub(super) fn turn(&self) -> bool {
        if !self.kicked.swap(false, Ordering::AcqRel) || !self.vring.is_enabled() {
            return false;
        }
        let Some(mut turn) = self.vring.turn() else {
            return false;
        };
        let mut count = 0;
        let mut error = None;
        if let Some((queue, memory)) = turn.active() {
            while count < BUDGET {
                let mut command = Command::default();
                match queue.pop(memory, &mut command) {
                    Ok(Pop::Empty) => break,
                    Ok(Pop::Bad(chain, _)) => queue.put_used(chain, 0),
                    Ok(Pop::Chain(chain)) => self.answer(queue, memory, chain, &command),
                    Err(ring) => {
                        error = Some(ring.into());
                        break;
                    }
                }
                count += 1;
            }
            if memory.is_broken() {
                error = Some(VringFault::Memory);
            }
        }
        turn.publish(count);
        if let Some(error) = error {
            turn.fail(error);
        }
        if count == BUDGET {
            self.note();
        }
        count > 0
    }

    /// Executes one command and writes its answer, one byte (5.1.6.5).
    fn answer(&self, queue: &mut Queue, memory: &GuestMemory, chain: Chain, command: &Command<'_>) {
        let mut bytes = Vec::with_capacity(64);
        for part in &command.request {
            let room = COMMAND - bytes.len();
            let at = bytes.len();
            bytes.resize(at + part.len().min(room), 0);
            part.read(&mut bytes[at..]);
        }
        let answer = match self.execute(&bytes) {
            Ok(()) if !memory.is_broken() => ctrl::OK,
            _ => {
                tracing::debug!("{}: control command refused", self.shared.name);
                ctrl::ERR
            }
        };
        let written = command.answer.iter().find(|part| !part.is_empty());
        let len = written.map_or(0, |part| part.write(&[answer]));
        queue.put_used(chain, u32::from(len > 0));
    }

    fn execute(&self, command: &[u8]) -> Result<(), Refused> {
        let [class, code, data @ ..] = command else {
            return Err(Refused);
        };
        let need = match *class {
            ctrl::RX if *code > ctrl::RX_ALLMULTI => net::F_CTRL_RX_EXTRA,
            ctrl::RX => net::F_CTRL_RX,
            ctrl::MAC if *code == ctrl::MAC_ADDR_SET => net::F_CTRL_MAC_ADDR,
            ctrl::MAC => net::F_CTRL_RX,
            ctrl::VLAN => net::F_CTRL_VLAN,
            ctrl::ANNOUNCE => net::F_GUEST_ANNOUNCE,
            ctrl::MQ => net::F_MQ,
            ctrl::GUEST_OFFLOADS => net::F_CTRL_GUEST_OFFLOADS,
            _ => return Err(Refused),
        };
        if self.shared.features() & need == 0 {
            return Err(Refused);
        }
        match (*class, *code) {
            (ctrl::RX, mode) => self.receive_mode(mode, data),
            (ctrl::MAC, ctrl::MAC_TABLE_SET) => self.address_tables(data),
            (ctrl::MAC, ctrl::MAC_ADDR_SET) => self.address(data),
            (ctrl::VLAN, code) => self.vlan(code, data),
            (ctrl::ANNOUNCE, ctrl::ANNOUNCE_ACK) => {
                self.shared.config().announce = false;
                Ok(())
            }
            (ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET) => self.pairs(data),
            (ctrl::GUEST_OFFLOADS, ctrl::GUEST_OFFLOADS_SET) => self.offloads(data),
            _ => Err(Refused),
        }
    }

    fn receive_mode(&self, mode: u8, data: &[u8]) -> Result<(), Refused> {
        let &[on] = data else {
            return Err(Refused);
        };
        let on = on != 0;
        let mut filter = self.shared.copy_filter();
        *match mode {
            ctrl::RX_PROMISC => &mut filter.promisc,
            ctrl::RX_ALLMULTI => &mut filter.all_multicast,
            ctrl::RX_ALLUNI => &mut filter.all_unicast,
            ctrl::RX_NOMULTI => &mut filter.no_multicast,
            ctrl::RX_NOUNI => &mut filter.no_unicast,
            ctrl::RX_NOBCAST => &mut filter.no_broadcast,
            _ => return Err(Refused),
        } = on;
        self.shared.set_filter(filter);
        Ok(())
    }

    /// Two tables, each a count and so many addresses. A table that is longer
    /// than ours means every frame of its kind.
    fn address_tables(&self, data: &[u8]) -> Result<(), Refused> {
        let table = |data: &[u8]| -> Result<(Vec<Mac>, bool, usize), Refused> {
            let (count, rest) = data.split_first_chunk::<4>().ok_or(Refused)?;
            let count = u32::from_le_bytes(*count) as usize;
            let len = count.checked_mul(6).ok_or(Refused)?;
            let entries = rest.get(..len).ok_or(Refused)?;
            let macs = entries.chunks_exact(6).take(TABLE).map(|raw| {
                let mut mac = Mac::default();
                mac.0.copy_from_slice(raw);
                mac
            });
            Ok((macs.collect(), count > TABLE, 4 + len))
        };
        let (unicast, many_unicast, used) = table(data)?;
        let (multicast, many_multicast, rest) = table(&data[used..])?;
        if used + rest != data.len() {
            return Err(Refused);
        }
        let mut filter = self.shared.copy_filter();
        filter.unicast = unicast;
        filter.multicast = multicast;
        filter.unicast_overflow = many_unicast;
        filter.multicast_overflow = many_multicast;
        self.shared.set_filter(filter);
        Ok(())
    }

    fn address(&self, data: &[u8]) -> Result<(), Refused> {
        let mac = Mac(data.try_into().map_err(|_| Refused)?);
        if mac.is_multicast() {
            return Err(Refused);
        }
        self.shared.set_mac(mac);
        Ok(())
    }

    fn vlan(&self, code: u8, data: &[u8]) -> Result<(), Refused> {
        let vlan = u16::from_le_bytes(data.try_into().map_err(|_| Refused)?);
        let pass = match code {
            ctrl::VLAN_ADD => true,
            ctrl::VLAN_DEL => false,
            _ => return Err(Refused),
        };
        if vlan > 0xfff {
            return Err(Refused);
        }
        let mut filter = self.shared.copy_filter();
        filter.set_vlan(vlan, pass);
        self.shared.set_filter(filter);
        Ok(())
    }

    fn pairs(&self, data: &[u8]) -> Result<(), Refused> {
        let pairs = u16::from_le_bytes(data.try_into().map_err(|_| Refused)?);
        if !(1..=self.max_pairs).contains(&pairs) {
            return Err(Refused);
        }
        self.shared.set_active_pairs(pairs);
        Ok(())
    }

    fn offloads(&self, data: &[u8]) -> Result<(), Refused> {
        let offloads = u64::from_le_bytes(data.try_into().map_err(|_| Refused)?);
        if offloads & !(self.shared.features() & net::GUEST_OFFLOADS) != 0 {
            return Err(Refused);
        }
        self.shared.set_guest_offloads(offloads);
        self.shared
            .backend
            .set_features(self.shared.backend_features(), self.shared.header_len())
            .map_err(|error| {
                tracing::warn!("{}: offloads not changed: {error}", self.shared.name);
                Refused
            })
    }
}
