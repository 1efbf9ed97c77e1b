//! A port of a VALE switch in this process, `vale0:vm1`.
//!
//! What the guest sends is forwarded by the sending worker itself, straight
//! into the receivers' queues; nothing is ever asked for.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::{AttachError, Backend, MAX_PAIRS, Sent};
use crate::net::ethernet::Mac;
use crate::net::frame::Batch;
use crate::netmap::attachment::Attachment;
use crate::netmap::vale::{PortId, Switch};
use crate::virtio::spec::net;

/// One port.
pub struct Vale {
    switch: Arc<Switch>,
    port_name: String,
    port: Mutex<Option<PortId>>,
}

impl Vale {
    /// The port `port_name` of `switch`, which is made by `attach`.
    pub fn new(switch: Arc<Switch>, port_name: &str) -> Self {
        Self {
            switch,
            port_name: port_name.to_owned(),
            port: Mutex::new(None),
        }
    }

    fn port(&self) -> Option<PortId> {
        *self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Vale {
    fn features(&self) -> u64 {
        net::HOST_OFFLOADS | net::GUEST_OFFLOADS
    }

    fn set_features(&self, _features: u64, _header_len: usize) -> io::Result<()> {
        // The switch asks each receiver, frame by frame.
        Ok(())
    }

    fn max_pairs(&self) -> u16 {
        MAX_PAIRS
    }

    fn send(&self, pair: usize, batch: &Batch<'_>) -> Sent {
        let frames = batch.frames();
        let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        let Some(port) = self.port() else {
            return Sent {
                dropped: count,
                ..Sent::default()
            };
        };
        self.switch.forward(port, pair, batch);
        Sent {
            frames: count,
            bytes: frames.iter().map(|frame| u64::from(frame.len)).sum(),
            dropped: 0,
        }
    }

    fn attach(&self, mac: Mac, receiver: Arc<dyn Attachment>) -> Result<(), AttachError> {
        let id = self.switch.attach(&self.port_name, Some(mac), receiver)?;
        *self.port.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        Ok(())
    }

    fn detach(&self) {
        let port = self
            .port
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(id) = port {
            self.switch.detach(id);
        }
    }
}
