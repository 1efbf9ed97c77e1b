//! Rings on an open interface.
//!
//! The interface is opened when the first ring is bound, and is the host's
//! again with the last. Rings of the wire are filled and emptied by whoever
//! syncs, straight from the receive ring and to the socket; host rings
//! likewise, on the tap. Nothing is done behind an application's back, so a
//! full ring leaves frames where they are until the kernel has no room either.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use nix::errno::Errno;

use super::Devices;
use super::attached::Attached;
use super::end::{discard, part_with, receive, send};
use super::interrupts::{Handler, Interrupt};
use super::source::{DeviceError, Gate, Line, Taken};
use crate::net::frame::Batch;
use crate::netmap::abi::NR_FORWARD;
use crate::netmap::kring::{Kring, Synced};
use crate::netmap::port::Direction;
use crate::netmap::ring_port;
use crate::netmap::rings::{HostRings, Rings, Shape};

/// Slots of each ring, as of the kernel's emulated ports.
const SLOTS: u32 = 1024;

/// What every device port has on the wire.
const SHAPE: Shape = Shape {
    tx_rings: 1,
    rx_rings: 1,
    tx_slots: SLOTS,
    rx_slots: SLOTS,
};

/// Both sides of an open interface, for rings.
struct Lines {
    nic: Arc<dyn Line>,
    host: Arc<dyn Line>,
    nic_interrupt: Interrupt,
    host_interrupt: Interrupt,
}

/// Who has the interface.
#[derive(Default)]
pub(super) enum Use {
    /// The host.
    #[default]
    Nobody,
    /// Rings.
    Rings { gate: Box<dyn Gate>, taken: Taken },
    /// A switch.
    Switch(Attached),
}

/// An interface of the host as a port.
pub struct DevicePort {
    pub(super) name: String,
    pub(super) devices: Arc<Devices>,
    rings: Arc<Rings>,
    /// While rings have it.
    lines: ArcSwapOption<Lines>,
    state: Mutex<Use>,
}

impl std::fmt::Debug for DevicePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevicePort")
            .field("name", &self.name)
            .field("rings", &self.rings)
            .finish_non_exhaustive()
    }
}

impl DevicePort {
    /// A port that nobody has bound.
    pub fn new(name: &str, devices: Arc<Devices>, host: HostRings) -> Self {
        Self {
            name: name.to_owned(),
            devices,
            rings: Arc::new(Rings::with_host(SHAPE, host)),
            lines: ArcSwapOption::empty(),
            state: Mutex::default(),
        }
    }

    /// The rings that a port will have, but for the host's.
    pub fn shape() -> Shape {
        SHAPE
    }

    /// Its rings, those of the host behind the others.
    pub fn rings(&self) -> &Rings {
        &self.rings
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Use> {
        // Changes are whole values.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_host(direction: Direction, index: usize) -> bool {
        index >= usize::from(SHAPE.rings(direction))
    }

    /// The rings of one direction: those of the wire, or those of the host.
    fn range(&self, direction: Direction, host: bool) -> Range<usize> {
        let wire = usize::from(SHAPE.rings(direction));
        if host {
            wire..wire + usize::from(self.rings.host().rings(direction))
        } else {
            0..wire
        }
    }

    /// Rings were bound or given back: opens or closes the interface, and takes
    /// from the host what they stand for.
    ///
    /// # Errors
    /// The interface cannot be had; or, `EBUSY`, it is on a switch.
    pub fn rings_changed(&self) -> Result<(), DeviceError> {
        let mut state = self.state();
        let bound = |direction, host| self.rings.any_bound(direction, self.range(direction, host));
        let wanted = Taken {
            rx: bound(Direction::Rx, false),
            tx: bound(Direction::Tx, false),
            host: bound(Direction::Rx, true),
        };
        let any = wanted.rx || wanted.tx || wanted.host || bound(Direction::Tx, true);
        match (&mut *state, any) {
            (Use::Nobody, false) => Ok(()),
            (Use::Nobody, true) => {
                let (lines, gate) = self.open()?;
                gate.set(wanted);
                self.lines.store(Some(Arc::new(lines)));
                *state = Use::Rings {
                    gate,
                    taken: wanted,
                };
                Ok(())
            }
            (Use::Rings { gate, .. }, false) => {
                gate.set(Taken::default());
                if let Some(lines) = self.lines.swap(None) {
                    part_with(lines);
                }
                *state = Use::Nobody;
                Ok(())
            }
            (Use::Rings { gate, taken }, true) => {
                gate.set(wanted);
                if let Some(lines) = &*self.lines.load() {
                    // What came before went to the host as well.
                    if wanted.rx && !taken.rx {
                        discard(&*lines.nic);
                    }
                    if wanted.host && !taken.host {
                        discard(&*lines.host);
                    }
                }
                *taken = wanted;
                Ok(())
            }
            (Use::Switch(_), false) => Ok(()),
            (Use::Switch(_), true) => Err(DeviceError::new(
                &self.name,
                Errno::EBUSY,
                "it is on a switch; detach it first",
            )),
        }
    }

    fn open(&self) -> Result<(Lines, Box<dyn Gate>), DeviceError> {
        let device = self.devices.source.open(&self.name, false)?;
        let watch = |line: &Arc<dyn Line>, host| {
            let handler = Handler::Wake {
                rings: Arc::clone(&self.rings),
                tx: self.range(Direction::Tx, host),
                rx: self.range(Direction::Rx, host),
            };
            let watched = self.devices.interrupts.add(Arc::clone(line), handler);
            watched.map_err(|error| {
                let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                DeviceError::new(&self.name, errno, "raise the limit of open files")
            })
        };
        let lines = Lines {
            nic_interrupt: watch(&device.nic, false)?,
            host_interrupt: watch(&device.host, true)?,
            nic: device.nic,
            host: device.host,
        };
        Ok((lines, device.gate))
    }

    /// Somebody is going to sleep until ring `index` has frames, or room.
    pub fn wait_for(&self, direction: Direction, index: usize) {
        if let Some(lines) = &*self.lines.load() {
            if Self::is_host(direction, index) {
                lines.host_interrupt.ask(direction);
            } else {
                lines.nic_interrupt.ask(direction);
            }
        }
    }

    /// Syncs ring `index`. With `forward_down` what an application has marked
    /// `NS_FORWARD` in a host ring is sent to the wire.
    ///
    /// # Errors
    /// `ENXIO`: the interface is not open.
    pub fn sync(
        &self,
        direction: Direction,
        index: usize,
        kring: &Kring,
        forward_down: bool,
    ) -> Result<Synced, Errno> {
        let lines = self.lines.load();
        let Some(lines) = &*lines else {
            return Err(Errno::ENXIO);
        };
        let host = Self::is_host(direction, index);
        let line = if host { &*lines.host } else { &*lines.nic };
        Ok(match direction {
            Direction::Tx => ring_port::send_some(kring, &mut |batch| send(line, batch)),
            Direction::Rx => {
                // From the wire to the host, and the other way.
                let other = if host { &*lines.nic } else { &*lines.host };
                let may = forward_down || !host;
                receive(kring, line, |released| {
                    if may && kring.view().flags() & NR_FORWARD != 0 {
                        forward(kring, released, other);
                    }
                })
            }
        })
    }

    /// An application has it, or a switch.
    pub fn is_on_switch(&self) -> bool {
        matches!(&*self.state(), Use::Switch(_))
    }
}

/// Sends what is marked in `slots` to `line`; what finds no room there is lost,
/// as in the kernel.
fn forward(kring: &Kring, slots: Range<u32>, line: &dyn Line) {
    ring_port::send_marked(kring, slots, &mut |batch: &Batch<'_>| {
        let done = send(line, batch);
        if done < batch.frames().len() {
            tracing::debug!("{}: frames to be forwarded find no room", kring.name());
        }
    });
}
