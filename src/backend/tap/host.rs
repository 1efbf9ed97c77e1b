//! The privileged half of a tap: it opens the interface, and opens it again
//! when it was gone. It sees no frames.

use std::os::fd::OwnedFd;

use super::system;
#[cfg(target_os = "freebsd")]
use crate::backend::host::Operation;
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
    /// A socket to ask about the interface with, where there is need for one.
    pub control: Option<OwnedFd>,
    /// How many queue pairs can use it.
    pub pairs: u16,
    /// Bytes of the interface's MTU.
    pub mtu: usize,
    /// Bytes of virtio-net header before each frame.
    pub header_len: usize,
}

/// When an interface is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// For the first time: it is made if it is missing.
    First,
    /// Again, and it was made: it is made anew.
    AgainOurs,
    /// Again, and others make it.
    AgainTheirs,
}

impl Interface {
    fn pack(self) -> Opened {
        let numbers = [
            self.queues.len(),
            self.mtu,
            self.header_len,
            self.pairs.into(),
            self.made.into(),
        ];
        let mut fds = self.queues;
        fds.extend(self.control);
        Opened {
            fds,
            numbers: numbers.map(|number| number as u64).into(),
            text: self.name,
        }
    }

    /// What the other half has sent, if it is an interface.
    pub(super) fn unpack(opened: Opened) -> Result<Self, OpenError> {
        let numbers: Vec<_> = opened
            .numbers
            .iter()
            .filter_map(|&number| usize::try_from(number).ok())
            .collect();
        let mut queues = opened.fds;
        let name = opened.text;
        match numbers[..] {
            [count, mtu, header_len, pairs, made] if (1..=queues.len()).contains(&count) => {
                let control = queues.drain(count..).next();
                Ok(Self {
                    name,
                    made: made != 0,
                    queues,
                    control,
                    pairs: u16::try_from(pairs).unwrap_or(1),
                    mtu,
                    header_len,
                })
            }
            _ => Err(OpenError::Mismatch(name)),
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
    occasion: Occasion,
    #[cfg(target_os = "freebsd")]
    kept: Option<system::Kept>,
}

impl TapHost {
    /// The interface `name`, to be opened for `pairs` queue pairs, at most
    /// [`MAX_PAIRS`]; it is made if there is none.
    pub fn new(name: &str, pairs: u16) -> Self {
        Self {
            name: name.to_owned(),
            pairs: pairs.clamp(1, MAX_PAIRS),
            occasion: Occasion::First,
            #[cfg(target_os = "freebsd")]
            kept: None,
        }
    }
}

impl HostSide for TapHost {
    fn open(&mut self) -> Result<Opened, OpenError> {
        #[cfg(target_os = "freebsd")]
        if let Some(kept) = self.kept.take() {
            kept.let_go();
        }
        let opened = system::open(&self.name, self.pairs, self.occasion)?;
        #[cfg(target_os = "freebsd")]
        let opened = {
            self.kept = Some(opened.1);
            opened.0
        };
        self.name.clone_from(&opened.name);
        self.occasion = if opened.made {
            Occasion::AgainOurs
        } else {
            Occasion::AgainTheirs
        };
        Ok(opened.pack())
    }

    /// [`Operation::SetFeatures`] switches the interface's capabilities to what
    /// the guest takes.
    #[cfg(target_os = "freebsd")]
    fn operate(&mut self, operation: Operation) -> Result<(), OpenError> {
        let Operation::SetFeatures(features) = operation else {
            return Err(OpenError::Operation(operation));
        };
        let kept = self.kept.as_ref().ok_or(nix::errno::Errno::ENXIO);
        kept.and_then(|kept| kept.set_capabilities(features))
            .map_err(|errno| OpenError::System {
                name: self.name.clone(),
                error: errno.into(),
                cure: "its guest gets finished frames; see ifconfig(8), txcsum and tso",
            })
    }
}
