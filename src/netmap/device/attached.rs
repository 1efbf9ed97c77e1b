//! An interface on a switch, what the kernel calls *bwrap*: what comes in there
//! is forwarded by the switch, and what the switch sends there goes out. There
//! are no rings in between. The host's side may be a second port, with `^`
//! behind its name; else the host is cut off meanwhile.

use std::sync::Arc;

use nix::errno::Errno;

use super::end::{LineEnd, part_with};
use super::interrupts::{Forward, Handler, Interrupt};
use super::polling::{Polled, PollingError, PollingRequest};
use super::port::{DevicePort, Use};
use super::source::{DeviceError, Gate, Line, Taken};
use crate::netmap::attachment::Attachment;
use crate::netmap::vale::{PortError, PortId, Switch};

/// Why an interface cannot be attached, detached or polled.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The switch refuses it.
    #[error(transparent)]
    Switch(#[from] PortError),
    /// It cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It is on a switch already, or polled, or rings have it.
    #[error("the interface is in use")]
    InUse,
    /// Not so.
    #[error(transparent)]
    Polling(#[from] PollingError),
}

/// What was an attachment.
#[derive(Debug)]
pub struct Detached {
    /// The switch that it was on.
    pub switch: Arc<Switch>,
    /// Its number there.
    pub id: PortId,
}

/// One side of an interface as a port.
struct Side {
    id: PortId,
    /// There until it is closed.
    line: Option<Arc<dyn Line>>,
    /// Goes before the port does.
    interrupt: Option<Interrupt>,
}

/// An interface on a switch.
pub(super) struct Attached {
    polled: Option<Polled>,
    nic: Side,
    host: Option<Side>,
    switch: Arc<Switch>,
    gate: Box<dyn Gate>,
}

impl DevicePort {
    /// Puts the interface on `switch` as `port`, with `host` its host side as
    /// well.
    ///
    /// # Errors
    /// Nothing is left behind.
    pub fn attach(
        &self,
        switch: &Arc<Switch>,
        port: &str,
        host: bool,
    ) -> Result<PortId, AttachError> {
        let mut state = self.state();
        if !matches!(&*state, Use::Nobody) {
            return Err(AttachError::InUse);
        }
        let device = self.devices.source.open(&self.name, true)?;
        let nic = self.side(switch, port, device.nic)?;
        // Whatever fails from here on, dropping takes all of it back.
        let mut attached = Attached {
            polled: None,
            nic,
            host: None,
            switch: Arc::clone(switch),
            gate: device.gate,
        };
        if host {
            attached.host = Some(self.side(switch, &format!("{port}^"), device.host)?);
        }
        attached.gate.set(Taken {
            rx: true,
            tx: true,
            host,
        });
        let id = attached.nic.id;
        *state = Use::Switch(attached);
        Ok(id)
    }

    fn side(
        &self,
        switch: &Arc<Switch>,
        port: &str,
        line: Arc<dyn Line>,
    ) -> Result<Side, AttachError> {
        let end: Arc<dyn Attachment> = LineEnd::new(Arc::clone(&line));
        let id = switch.attach(port, None, end)?;
        let forward = Forward {
            switch: Arc::clone(switch),
            port: id,
        };
        let handler = Handler::Forward(forward);
        match self.devices.interrupts.add(Arc::clone(&line), handler) {
            Ok(interrupt) => Ok(Side {
                id,
                line: Some(line),
                interrupt: Some(interrupt),
            }),
            Err(error) => {
                switch.detach(id);
                let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                let cure = "raise the limit of open files";
                Err(DeviceError::new(&self.name, errno, cure).into())
            }
        }
    }

    /// Takes the interface off its switch; `None`: it is on none.
    ///
    /// # Errors
    /// It is polled.
    pub fn detach(&self) -> Result<Option<Detached>, AttachError> {
        let mut state = self.state();
        match &*state {
            Use::Switch(Attached {
                polled: Some(_), ..
            }) => return Err(AttachError::InUse),
            Use::Switch(_) => {}
            _ => return Ok(None),
        }
        let Use::Switch(attached) = std::mem::take(&mut *state) else {
            return Ok(None);
        };
        Ok(Some(Detached {
            switch: Arc::clone(&attached.switch),
            id: attached.nic.id,
        }))
    }

    /// Has the interface polled, or waited for again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_polling(&self, request: Option<PollingRequest>) -> Result<(), PollingError> {
        let mut state = self.state();
        let Use::Switch(attached) = &mut *state else {
            return Err(PollingError::NoDevice);
        };
        let Attached {
            polled,
            nic,
            switch,
            ..
        } = attached;
        match (request, polled.is_some()) {
            (Some(_), true) => Err(PollingError::Already),
            (None, false) => Err(PollingError::Not),
            (Some(request), false) => {
                let forward = Forward {
                    switch: Arc::clone(switch),
                    port: nic.id,
                };
                let line = nic.line.clone().ok_or(PollingError::NoDevice)?;
                *polled = Some(self.devices.pollers.add(request, line, forward)?);
                nic.rest(true);
                Ok(())
            }
            (None, true) => {
                *polled = None;
                nic.rest(false);
                Ok(())
            }
        }
    }

    /// It is on a switch with its host side.
    pub fn has_host_port(&self) -> bool {
        matches!(&*self.state(), Use::Switch(Attached { host: Some(_), .. }))
    }
}

impl Side {
    fn rest(&self, rest: bool) {
        if let Some(interrupt) = &self.interrupt {
            interrupt.rest(rest);
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.polled = None;
        for side in [Some(&mut self.nic), self.host.as_mut()]
            .into_iter()
            .flatten()
        {
            side.interrupt = None;
            self.switch.detach(side.id);
            if let Some(line) = side.line.take() {
                part_with(line);
            }
        }
        self.gate.set(Taken::default());
    }
}
