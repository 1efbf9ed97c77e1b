//! The privileged half of a port of `/dev/netmap`.

use std::io;
use std::os::fd::OwnedFd;

use crate::backend::host::{HostSide, MAX_FDS, Opened, Operation};
use crate::backend::{MAX_PAIRS, OpenError};
use crate::netmap::abi::{NM_BDG_NAME, nmreq};
use crate::netmap::kernel::{Device, Place, Registered, interface};
use crate::netmap::name::PortName;
use crate::netmap::port::HeaderLen;
use crate::netmap::register::{RegisterError, Request, RingMode, parse_port_string};
use crate::sandbox::{Role, limit};

/// Opens a port. Hands over a descriptor for each of its rings, or one for all,
/// and what the other half needs to find the rings (`Facts`).
pub struct NetmapHost {
    /// As it was configured.
    name: String,
    request: Request,
    /// Kept, for what is in front of the frames.
    control: Option<Device>,
}

/// What the kernel is to be asked for by the name of a back end.
///
/// # Errors
/// Those of the name.
fn request(name: &str, pairs: u16) -> Result<Request, OpenError> {
    if name.starts_with(NM_BDG_NAME) {
        PortName::parse(name).map_err(RegisterError::from)?;
        // The kernel says ENOMEM.
        let mut parts = name.splitn(2, ':');
        if parts.any(|part| part.len() >= libc::IFNAMSIZ) {
            return Err(OpenError::System {
                name: name.to_owned(),
                error: io::Error::from_raw_os_error(libc::ENAMETOOLONG),
                cure: "in the kernel a switch's and a port's name have 15 bytes at most; write \
                       shorter ones or type=core",
            });
        }
        let rings = pairs.clamp(1, MAX_PAIRS);
        // A port that this makes has a ring for each pair, and nobody else binds
        // them: a second process that was given the same port is to be told.
        return Ok(Request {
            tx_rings: rings,
            rx_rings: rings,
            flags: nmreq::NR_EXCLUSIVE,
            ..Request::new(name)
        });
    }
    Ok(parse_port_string(name)?)
}

impl NetmapHost {
    /// The port `name`, `netmap:` with netmap's suffixes or `valeX:PORT`, to be
    /// opened for `pairs` queue pairs.
    ///
    /// # Errors
    /// The name is none of these.
    pub fn new(name: &str, pairs: u16) -> Result<Self, OpenError> {
        Ok(Self {
            name: name.to_owned(),
            request: request(name, pairs)?,
            control: None,
        })
    }

    /// A port of a switch: made when it is opened, and able to have virtio-net
    /// headers.
    fn is_switch_port(&self) -> bool {
        self.request.name.starts_with(NM_BDG_NAME)
    }

    fn device(&self) -> Result<Device, OpenError> {
        Device::open().map_err(|error| OpenError::System {
            name: self.name.clone(),
            cure: match error.kind() {
                io::ErrorKind::NotFound => {
                    "/dev/netmap is missing: kldload netmap, or build a kernel with it"
                }
                io::ErrorKind::PermissionDenied => {
                    "run as root, or open /dev/netmap to this user in devfs.rules(5)"
                }
                _ => "look at /dev/netmap",
            },
            error,
        })
    }

    fn register(&self, device: &Device, request: &Request) -> Result<Registered, OpenError> {
        device.register(request).map_err(|error| {
            let cure = match error.raw_os_error() {
                Some(libc::ENXIO) => {
                    return OpenError::Absent(format!(
                        "{}: there is no such interface; make it, or name another",
                        self.name
                    ));
                }
                Some(libc::EBUSY) if self.is_switch_port() => {
                    "another process has this port, or it is an interface on the switch; name another"
                }
                Some(libc::EBUSY) => {
                    "another program has these rings for itself, or the interface is on a switch"
                }
                Some(libc::EINVAL) if self.is_switch_port() => {
                    "write a port that no interface of the host has the name of; valectl(8) puts \
                     interfaces on a switch"
                }
                Some(libc::EINVAL) => {
                    "netmap says why in dmesg(8); rings have numbers from 0 on, and the MTU must \
                     fit dev.netmap.buf_size"
                }
                Some(libc::ENOMEM) => {
                    "netmap says in dmesg(8) what is short; raise dev.netmap.if_num, ring_num or \
                     buf_num"
                }
                Some(libc::EIO) => {
                    "an interface that was never up has no buffers: ifconfig IF up; if it is up, \
                     netmap says why in dmesg(8)"
                }
                _ => "netmap says why in dmesg(8)",
            };
            OpenError::System {
                name: self.name.clone(),
                error,
                cure,
            }
        })
    }

    /// One descriptor for all rings that were asked for, or, where that is
    /// several, one for each.
    fn rings(&self) -> Result<(Registered, Vec<(OwnedFd, u64)>), OpenError> {
        if self.is_switch_port() && self.request.tx_rings > 1 {
            return self.own_rings();
        }
        let all = self.device()?;
        let registered = self.register(&all, &self.request)?;
        let one_by_one = each_ring(&self.request, &registered);
        if one_by_one.len() < 2 || one_by_one.len() > MAX_FDS {
            return Ok((registered, vec![(all.into(), registered.offset)]));
        }
        // Opened while all of them are bound, so that the interface is not
        // started anew for each.
        let each = one_by_one.iter().map(|request| {
            let device = self.device()?;
            let offset = self.register(&device, request)?.offset;
            Ok((device.into(), offset))
        });
        Ok((registered, each.collect::<Result<_, OpenError>>()?))
    }

    /// A descriptor for each ring of a port of a switch, which nobody else binds.
    fn own_rings(&self) -> Result<(Registered, Vec<(OwnedFd, u64)>), OpenError> {
        let bind = |request: &Request| -> Result<_, OpenError> {
            let device = self.device()?;
            let registered = self.register(&device, request)?;
            Ok((registered, OwnedFd::from(device)))
        };
        let first = Request {
            mode: FIRST,
            ..self.request.clone()
        };
        let (registered, device) = bind(&first)?;
        let mut rings = vec![(device, registered.offset)];
        for request in other_rings(&self.request, &registered) {
            let (more, device) = bind(&request)?;
            rings.push((device, more.offset));
        }
        Ok((registered, rings))
    }

    /// The MTU of the interface that this is about. Says what keeps frames
    /// away.
    fn mtu(&self) -> u32 {
        let Ok(PortName::Host(name)) = PortName::parse(&self.request.name) else {
            return 0;
        };
        // What is registered as an interface is one.
        let Ok(found) = interface(name) else {
            return 0;
        };
        if !found.up {
            tracing::warn!("{}: the interface is down; ifconfig {name} up", self.name);
        } else if !found.promiscuous {
            tracing::info!(
                "{}: a NIC that filters drops the guest's frames; ifconfig {name} promisc",
                self.name
            );
        }
        found.mtu
    }
}

/// The ring by whose registration it is known how many others there are.
const FIRST: RingMode = RingMode::One(0);

/// Requests for the rings of an exclusive `request` but the first.
fn other_rings(request: &Request, registered: &Registered) -> Vec<Request> {
    let shared = Request {
        flags: request.flags & !nmreq::NR_EXCLUSIVE,
        ..request.clone()
    };
    let mut others = each_ring(&shared, registered);
    others.retain(|other| other.mode != FIRST);
    for other in &mut others {
        other.flags |= request.flags;
    }
    others
}

/// Requests for the rings of `request` one by one, as `registered` says that
/// there are. What wants rings for itself alone cannot be had twice.
fn each_ring(request: &Request, registered: &Registered) -> Vec<Request> {
    let Registered {
        tx_rings,
        rx_rings,
        host_tx_rings,
        host_rx_rings,
        ..
    } = *registered;
    if request.flags & nmreq::NR_EXCLUSIVE != 0 {
        return Vec::new();
    }
    let (ports, host) = match request.mode {
        RingMode::All => (true, false),
        RingMode::Host => (false, true),
        RingMode::AllAndHost => (true, true),
        RingMode::One(_) | RingMode::OneHost(_) | RingMode::Null | RingMode::Other(_) => {
            return Vec::new();
        }
    };
    let mut requests = Vec::new();
    let mut add = |tx: u16, rx: u16, mode: fn(u16) -> RingMode| {
        for ring in 0..tx.max(rx) {
            // A direction that has fewer rings would give its first again.
            let mut flags = request.flags;
            if ring >= tx {
                flags |= nmreq::NR_RX_RINGS_ONLY;
            }
            if ring >= rx {
                flags |= nmreq::NR_TX_RINGS_ONLY;
            }
            let neither = nmreq::NR_RX_RINGS_ONLY | nmreq::NR_TX_RINGS_ONLY;
            if flags & neither != neither {
                requests.push(Request {
                    mode: mode(ring),
                    flags,
                    ..request.clone()
                });
            }
        }
    };
    if ports {
        add(tx_rings, rx_rings, RingMode::One);
    }
    if host {
        add(host_tx_rings, host_rx_rings, RingMode::OneHost);
    }
    requests
}

impl HostSide for NetmapHost {
    fn open(&mut self) -> Result<Opened, OpenError> {
        self.control = None;
        let (registered, rings) = self.rings()?;
        let system = |error| OpenError::System {
            name: self.name.clone(),
            error,
            cure: "restart vtnetd",
        };
        let control = self.device()?;
        let header = control.header_len(&self.request.name).map_err(system)?;
        let mtu = self.mtu();
        let mut opened = Facts {
            memory: registered.memory,
            tx_rings: u64::from(registered.tx_rings) + u64::from(registered.host_tx_rings.max(1)),
            rx_rings: u64::from(registered.rx_rings) + u64::from(registered.host_rx_rings.max(1)),
            mtu: mtu.into(),
            header_len: header.bytes() as u64,
        }
        .pack(&self.name);
        for (fd, offset) in rings {
            limit(&fd, Role::Netmap).map_err(system)?;
            opened.fds.push(fd);
            opened.numbers.push(offset);
        }
        self.control = Some(control);
        Ok(opened)
    }

    fn operate(&mut self, operation: Operation) -> Result<(), OpenError> {
        let (Operation::SetHeaderLen(bytes), Some(control), true) =
            (operation, &self.control, self.is_switch_port())
        else {
            return Err(OpenError::Operation(operation));
        };
        let system = |error| OpenError::System {
            name: self.name.clone(),
            error,
            cure: "only ports of a switch can have virtio-net headers",
        };
        let len = HeaderLen::try_from(u32::from(bytes))
            .map_err(|error| system(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        control
            .set_header_len(&self.request.name, len)
            .map_err(system)
    }
}

/// The numbers that stand before the offset of each descriptor's `netmap_if`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Bytes of the port's memory.
    pub memory: u64,
    /// Transmit rings, host rings included.
    pub tx_rings: u64,
    /// Receive rings likewise.
    pub rx_rings: u64,
    /// The interface's MTU in bytes; 0: there is no interface behind the port.
    pub mtu: u64,
    /// Bytes of the virtio-net header in front of frames.
    pub header_len: u64,
}

impl Facts {
    fn pack(self, name: &str) -> Opened {
        Opened {
            fds: Vec::new(),
            numbers: vec![
                self.memory,
                self.tx_rings,
                self.rx_rings,
                self.mtu,
                self.header_len,
            ],
            text: name.to_owned(),
        }
    }

    /// What was packed: the facts, and each descriptor with its place. `None`
    /// when it is something else.
    pub(super) fn unpack(opened: Opened) -> Option<(Self, Vec<(OwnedFd, Place)>)> {
        let (numbers, offsets) = opened.numbers.split_at_checked(5)?;
        let [memory, tx_rings, rx_rings, mtu, header_len] = *numbers else {
            return None;
        };
        if offsets.len() != opened.fds.len() || offsets.is_empty() {
            return None;
        }
        let place = |offset: &u64| {
            Some(Place {
                offset: *offset,
                tx_rings: usize::try_from(tx_rings).ok()?,
                rx_rings: usize::try_from(rx_rings).ok()?,
            })
        };
        let places = offsets.iter().map(place).collect::<Option<Vec<_>>>()?;
        let facts = Self {
            memory,
            tx_rings,
            rx_rings,
            mtu,
            header_len,
        };
        Some((facts, opened.fds.into_iter().zip(places).collect()))
    }
}

#[cfg(test)]
mod tests;
