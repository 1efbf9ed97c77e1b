//! The privileged half of a tap.

use super::interface::Interface;
use crate::backend::host::{HostSide, Opened};
use crate::backend::{MAX_PAIRS, OpenError};

/// Opens the interface of a tap back end. Hands over a descriptor for each
/// queue, and the interface's MTU in bytes.
pub struct TapHost {
    name: String,
    pairs: u16,
}

impl TapHost {
    /// The interface `name`, to be opened for `pairs` queue pairs, at most
    /// [`MAX_PAIRS`]; it is made if there is none.
    pub fn new(name: &str, pairs: u16) -> Self {
        Self {
            name: name.to_owned(),
            pairs: pairs.clamp(1, MAX_PAIRS),
        }
    }
}

impl HostSide for TapHost {
    fn open(&mut self) -> Result<Opened, OpenError> {
        let Interface { queues, mtu } = Interface::open(&self.name, self.pairs)?;
        Ok(Opened {
            fds: queues,
            numbers: vec![mtu as u64],
            text: String::new(),
        })
    }
}
