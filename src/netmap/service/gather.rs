//! What of a client's memory goes along with a control request: the client's
//! half of [`ClientMemory`] over [`Segment`]s.
//!
//! It is found out by copying the request in as the service will do it, so that
//! both read the same and refuse the same.

use super::wire::Segment;
use crate::netmap::abi::NM_PIPE_MAXRINGS;
use crate::netmap::abi::legacy::{CONFIG_SIZE, LegacyRequest, NIOCCONFIG, NIOCGINFO, NIOCREGIF};
use crate::netmap::abi::nmreq::{NETMAP_REQ_REGISTER, NIOCCTRL, RequestHeader};
use crate::netmap::abi::option::{
    AppToKernel, ExternalMemory, KernelToApp, NETMAP_REQ_OPT_CSB, NETMAP_REQ_OPT_EXTMEM,
    SharedBlock,
};
use crate::netmap::ctrl::{ClientMemory, Fault, Message};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Most rings of a registration, both ways.
const RINGS: u64 = 2 * NM_PIPE_MAXRINGS as u64;

/// Copies out of `memory` what an ioctl(2) with this command and argument
/// reads. What is not there is left out: the service then says `EFAULT`, in
/// place of whatever comes before that.
pub fn gather(command: u64, argument: u64, memory: &mut dyn ClientMemory) -> Vec<Segment> {
    let mut recorder = Recorder {
        memory,
        segments: Vec::new(),
    };
    match command {
        NIOCCTRL => {
            let mut header = RequestHeader::new_zeroed();
            let read = recorder.copy_in(argument, header.as_mut_bytes()).ok();
            let message = read.and_then(|()| Message::copy_in(&header, &mut recorder).ok());
            let block =
                message.and_then(|message| message.option::<SharedBlock>(NETMAP_REQ_OPT_CSB));
            if let Some(block) = block {
                recorder.claim(block.csb_atok, size_of::<AppToKernel>());
                recorder.claim(block.csb_ktoa, size_of::<KernelToApp>());
            }
        }
        NIOCREGIF | NIOCGINFO => {
            let _ = recorder.copy_in(argument, LegacyRequest::new_zeroed().as_mut_bytes());
        }
        NIOCCONFIG => {
            let _ = recorder.copy_in(argument, &mut [0; CONFIG_SIZE]);
        }
        _ => {}
    }
    recorder.segments
}

/// Memory of the client's that a region is to lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct External {
    /// Where it begins.
    pub start: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// The memory that an ioctl(2) with this command and argument wants a region in
/// (`NETMAP_REQ_OPT_EXTMEM`): its object is to go along.
pub fn external_memory(
    command: u64,
    argument: u64,
    memory: &mut dyn ClientMemory,
) -> Option<External> {
    let mut header = RequestHeader::new_zeroed();
    if command != NIOCCTRL || memory.copy_in(argument, header.as_mut_bytes()).is_err() {
        return None;
    }
    if header.nr_reqtype != NETMAP_REQ_REGISTER {
        return None;
    }
    let mut recorder = Recorder {
        memory,
        segments: Vec::new(),
    };
    let message = Message::copy_in(&header, &mut recorder).ok()?;
    let option: ExternalMemory = message.option(NETMAP_REQ_OPT_EXTMEM)?;
    Some(External {
        start: option.nro_usrptr,
        bytes: option.nro_info.nr_memsize,
    })
}

/// Which control request these segments of [`gather`] are.
pub fn request_kind(command: u64, segments: &[Segment]) -> Option<u16> {
    let first = segments.first().filter(|_| command == NIOCCTRL)?;
    let (header, _) = RequestHeader::read_from_prefix(&first.data).ok()?;
    Some(header.nr_reqtype)
}

/// Reads, and keeps what was read.
struct Recorder<'a> {
    memory: &'a mut dyn ClientMemory,
    segments: Vec<Segment>,
}

impl ClientMemory for Recorder<'_> {
    fn copy_in(&mut self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.memory.copy_in(at, into)?;
        self.segments.push(Segment {
            address: at,
            len: u32::try_from(into.len()).map_err(|_| Fault)?,
            data: into.to_vec(),
        });
        Ok(())
    }

    /// It is the service that answers.
    fn copy_out(&mut self, _: u64, _: &[u8]) -> Result<(), Fault> {
        Ok(())
    }
}

impl Recorder<'_> {
    /// Claims as many entries as there are from `base` on, of those that the
    /// rings of a registration can have.
    fn claim(&mut self, base: u64, entry: usize) {
        let mut bytes = vec![0; entry];
        let size = entry as u64;
        let there = (0..RINGS).take_while(|nth| {
            let at = base.checked_add(nth * size);
            at.is_some_and(|at| self.memory.copy_in(at, &mut bytes).is_ok())
        });
        // A few pages at most.
        let len = u32::try_from(there.count() * entry).unwrap_or(u32::MAX);
        if len > 0 {
            self.segments.push(Segment {
                address: base,
                len,
                data: Vec::new(),
            });
        }
    }
}
