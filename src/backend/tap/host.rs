//! The privileged half of a tap: it opens the interface, and opens it again
//! when it was gone. It sees no frames and keeps no descriptor.

use std::os::fd::OwnedFd;

use super::system;
use crate::backend::host::{HostSide, Opened};
use crate::backend::{MAX_PAIRS, OpenError};

/// An open interface, as this half hands it to the other.
pub(super) struct Interface {
    /// Its name.
    pub name: String,
    /// It was not there before: it is ours.
    pub made: bool,
    /// A descriptor for each queue, all of them in use by the kernel.
    pub queues: Vec<OwnedFd>,
    /// Bytes of the interface's MTU.
    pub mtu: usize,
    /// Bytes of virtio-net header before each frame.
    pub header_len: usize,
}

impl Interface {
    fn pack(self) -> Opened {
        Opened {
            fds: self.queues,
            numbers: vec![self.mtu as u64, self.header_len as u64, self.made.into()],
            text: self.name,
        }
    }

    /// What the other half has sent, if it is an interface.
    pub(super) fn unpack(opened: Opened) -> Result<Self, OpenError> {
        let Opened { fds, numbers, text } = opened;
        let numbers: Vec<_> = numbers
            .iter()
            .filter_map(|&number| usize::try_from(number).ok())
            .collect();
        match numbers[..] {
            [mtu, header_len, made] if !fds.is_empty() => Ok(Self {
                name: text,
                made: made != 0,
                queues: fds,
                mtu,
                header_len,
            }),
            _ => Err(OpenError::Mismatch(text)),
        }
    }
}

/// Opens the interface of a tap back end. Hands over a descriptor for each
/// queue, and the interface's MTU and header length in bytes.
///
/// When it is opened again, an interface that was made is made anew; another
/// is waited for, until whoever made it has made it again.
pub struct TapHost {
    name: String,
    pairs: u16,
    must_exist: bool,
}

impl TapHost {
    /// The interface `name`, to be opened for `pairs` queue pairs, at most
    /// [`MAX_PAIRS`]; it is made if there is none.
    pub fn new(name: &str, pairs: u16) -> Self {
        Self {
            name: name.to_owned(),
            pairs: pairs.clamp(1, MAX_PAIRS),
            must_exist: false,
        }
    }
}

impl HostSide for TapHost {
    fn open(&mut self) -> Result<Opened, OpenError> {
        let interface = system::open(&self.name, self.pairs, self.must_exist)?;
        self.name.clone_from(&interface.name);
        self.must_exist = !interface.made;
        Ok(interface.pack())
    }
}
