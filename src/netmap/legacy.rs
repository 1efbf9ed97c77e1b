//! The older control interface, in terms of the current one
//! (`nmreq_from_legacy`, `nmreq_to_legacy`).

use nix::errno::Errno;

use super::abi::legacy::*;
use super::abi::nmreq::*;
use super::abi::{IFNAMSIZ, NETMAP_REQ_IFNAMSIZ, NETMAP_RING_MASK};
use super::ctrl::Message;

/// The request that an old one means.
///
/// # Errors
/// `EINVAL`: older than API 11, a command that is none, or a name that is no
/// text; `ENOMEM`: a pipe's name that has no room, or what the kernel no
/// longer has.
pub(super) fn to_current(command: u64, old: &LegacyRequest) -> Result<Message, Errno> {
    if old.nr_version < LEGACY_MIN_API {
        return Err(Errno::EINVAL);
    }
    let [name @ .., _] = &old.nr_name;
    let end = name.iter().position(|byte| *byte == 0);
    let name = name.get(..end.unwrap_or(IFNAMSIZ - 1)).unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_| Errno::EINVAL)?;
    if command == NIOCGINFO {
        return Ok(information(name, old));
    }
    Ok(match old.nr_cmd {
        0 => {
            let (name, body) = registration(name, old)?;
            Message::new(NETMAP_REQ_REGISTER, &name, &body)
        }
        NETMAP_BDG_ATTACH => {
            let (name, reg) = registration(name, old)?;
            let nr_mode = if old.nr_arg1 & NETMAP_BDG_HOST != 0 {
                NR_REG_NIC_SW
            } else {
                NR_REG_ALL_NIC
            };
            let body = AttachBody {
                reg: RegisterBody { nr_mode, ..reg },
                ..AttachBody::default()
            };
            Message::new(NETMAP_REQ_VALE_ATTACH, &name, &body)
        }
        NETMAP_BDG_DETACH => Message::new(NETMAP_REQ_VALE_DETACH, name, &DetachBody::default()),
        NETMAP_BDG_VNET_HDR | NETMAP_VNET_HDR_GET => {
            let reqtype = if old.nr_cmd == NETMAP_BDG_VNET_HDR {
                NETMAP_REQ_PORT_HDR_SET
            } else {
                NETMAP_REQ_PORT_HDR_GET
            };
            let body = HeaderBody {
                nr_hdr_len: old.nr_arg1.into(),
                ..HeaderBody::default()
            };
            Message::new(reqtype, name, &body)
        }
        NETMAP_BDG_NEWIF => {
            let body = NewInterfaceBody {
                nr_tx_slots: old.nr_tx_slots,
                nr_rx_slots: old.nr_rx_slots,
                nr_tx_rings: old.nr_tx_rings,
                nr_rx_rings: old.nr_rx_rings,
                nr_mem_id: old.nr_arg2,
                pad1: 0,
            };
            Message::new(NETMAP_REQ_VALE_NEWIF, name, &body)
        }
        NETMAP_BDG_DELIF => Message::new(NETMAP_REQ_VALE_DELIF, name, &[0u8; 0]),
        NETMAP_BDG_POLLING_ON | NETMAP_BDG_POLLING_OFF => {
            let reqtype = if old.nr_cmd == NETMAP_BDG_POLLING_ON {
                NETMAP_REQ_VALE_POLLING_ENABLE
            } else {
                NETMAP_REQ_VALE_POLLING_DISABLE
            };
            let body = PollingBody {
                nr_mode: match old.nr_flags & NR_REG_MASK {
                    NR_REG_ONE_NIC => NETMAP_POLLING_MODE_MULTI_CPU,
                    NR_REG_ALL_NIC => NETMAP_POLLING_MODE_SINGLE_CPU,
                    _ => 0,
                },
                nr_first_cpu_id: (old.nr_ringid & NETMAP_RING_MASK).into(),
                nr_num_polling_cpus: old.nr_arg1.into(),
                pad1: 0,
            };
            Message::new(reqtype, name, &body)
        }
        NETMAP_PT_HOST_CREATE | NETMAP_PT_HOST_DELETE => return Err(Errno::ENOMEM),
        _ => return Err(Errno::EINVAL),
    })
}

fn information(name: &str, old: &LegacyRequest) -> Message {
    if old.nr_cmd == NETMAP_BDG_LIST {
        let body = ListBody {
            nr_bridge_idx: old.nr_arg1,
            pad1: 0,
            nr_port_idx: old.nr_arg2.into(),
        };
        return Message::new(NETMAP_REQ_VALE_LIST, name, &body);
    }
    let body = PortInfoBody {
        nr_memsize: old.nr_memsize.into(),
        nr_tx_slots: old.nr_tx_slots,
        nr_rx_slots: old.nr_rx_slots,
        nr_tx_rings: old.nr_tx_rings,
        nr_rx_rings: old.nr_rx_rings,
        nr_mem_id: old.nr_arg2,
        ..PortInfoBody::default()
    };
    Message::new(NETMAP_REQ_PORT_INFO_GET, name, &body)
}

/// A registration, and its name: a pipe's number is in the name today.
fn registration(name: &str, old: &LegacyRequest) -> Result<(String, RegisterBody), Errno> {
    let mode = match old.nr_flags & NR_REG_MASK {
        // Still older programs have it in nr_ringid.
        NR_REG_DEFAULT if old.nr_ringid & NETMAP_SW_RING != 0 => NR_REG_SW,
        NR_REG_DEFAULT if old.nr_ringid & NETMAP_HW_RING != 0 => NR_REG_ONE_NIC,
        NR_REG_DEFAULT => NR_REG_ALL_NIC,
        mode => mode,
    };
    let mut body = RegisterBody {
        nr_offset: old.nr_offset.into(),
        nr_memsize: old.nr_memsize.into(),
        nr_tx_slots: old.nr_tx_slots,
        nr_rx_slots: old.nr_rx_slots,
        nr_tx_rings: old.nr_tx_rings,
        nr_rx_rings: old.nr_rx_rings,
        nr_mem_id: old.nr_arg2,
        nr_ringid: old.nr_ringid & NETMAP_RING_MASK,
        nr_mode: mode,
        nr_extra_bufs: old.nr_arg3,
        nr_flags: u64::from(old.nr_flags & !NR_REG_MASK),
        ..RegisterBody::default()
    };
    let mut name = name.to_owned();
    if let NR_REG_PIPE_MASTER | NR_REG_PIPE_SLAVE = mode {
        name.push(if mode == NR_REG_PIPE_MASTER { '{' } else { '}' });
        name.push_str(&body.nr_ringid.to_string());
        if name.len() >= NETMAP_REQ_IFNAMSIZ {
            return Err(Errno::ENOMEM);
        }
        (body.nr_mode, body.nr_ringid) = (NR_REG_ALL_NIC, 0);
    }
    if old.nr_ringid & NETMAP_NO_TX_POLL != 0 {
        body.nr_flags |= NR_NO_TX_POLL;
    }
    if old.nr_ringid & NETMAP_DO_RX_POLL != 0 {
        body.nr_flags |= NR_DO_RX_POLL;
    }
    Ok((name, body))
}

/// Puts a request's answer into the old one: what its programs expect to be
/// written, cut to what they have room for.
#[expect(clippy::cast_possible_truncation, reason = "as the kernel answers")]
pub(super) fn answer(message: &Message, old: &mut LegacyRequest) {
    let registered = |body: &RegisterBody, old: &mut LegacyRequest| {
        old.nr_offset = body.nr_offset as u32;
        old.nr_memsize = body.nr_memsize as u32;
        old.nr_tx_slots = body.nr_tx_slots;
        old.nr_rx_slots = body.nr_rx_slots;
        old.nr_tx_rings = body.nr_tx_rings;
        old.nr_rx_rings = body.nr_rx_rings;
        old.nr_arg2 = body.nr_mem_id;
        old.nr_arg3 = body.nr_extra_bufs;
    };
    match message.reqtype {
        NETMAP_REQ_REGISTER => registered(&message.body(), old),
        NETMAP_REQ_VALE_ATTACH => registered(&message.body::<AttachBody>().reg, old),
        NETMAP_REQ_PORT_INFO_GET => {
            let body: PortInfoBody = message.body();
            old.nr_memsize = body.nr_memsize as u32;
            old.nr_tx_slots = body.nr_tx_slots;
            old.nr_rx_slots = body.nr_rx_slots;
            old.nr_tx_rings = body.nr_tx_rings;
            old.nr_rx_rings = body.nr_rx_rings;
            old.nr_arg2 = body.nr_mem_id;
        }
        NETMAP_REQ_VALE_LIST => {
            let body: ListBody = message.body();
            old.nr_name.fill(0);
            let room = old.nr_name.iter_mut().take(IFNAMSIZ - 1);
            for (to, from) in room.zip(message.name.bytes()) {
                *to = from;
            }
            old.nr_arg1 = body.nr_bridge_idx;
            old.nr_arg2 = body.nr_port_idx as u16;
        }
        NETMAP_REQ_PORT_HDR_SET | NETMAP_REQ_PORT_HDR_GET => {
            old.nr_arg1 = message.body::<HeaderBody>().nr_hdr_len as u16;
        }
        NETMAP_REQ_VALE_NEWIF => {
            let body: NewInterfaceBody = message.body();
            old.nr_tx_slots = body.nr_tx_slots;
            old.nr_rx_slots = body.nr_rx_slots;
            old.nr_tx_rings = body.nr_tx_rings;
            old.nr_rx_rings = body.nr_rx_rings;
            old.nr_arg2 = body.nr_mem_id;
        }
        _ => {}
    }
}
