//! A control request with its body and options, copied in and out as the
//! kernel does it (`nmreq_copyin`, `nmreq_copyout`): what is too much, endless
//! or doubled is refused, and the statuses that a client finds in its options
//! afterwards are the same.

use std::mem::size_of;

use nix::errno::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::memory::ClientMemory;
use crate::netmap::abi::NETMAP_REQ_MAXSIZE;
use crate::netmap::abi::nmreq::{RequestHeader, body_size};
use crate::netmap::abi::option::{NETMAP_REQ_OPT_MAX, OptionHeader, payload_size};

const HEADER: usize = size_of::<OptionHeader>();
const KINDS: usize = NETMAP_REQ_OPT_MAX as usize;
/// The kernel's buffer for one request; an option of an unknown kind takes room
/// in it as well, which is what ends an endless list.
const BUFFER: usize =
    (2 + KINDS) * size_of::<u64>() + NETMAP_REQ_MAXSIZE + KINDS * size_of::<u64>();
/// What of that buffer is used before the first option, the body not counted.
const USED: usize = 2 * size_of::<u64>() + KINDS * size_of::<u64>();

/// One option.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ClientOption {
    /// Where the client has it.
    at: u64,
    header: OptionHeader,
    payload: Vec<u8>,
}

/// A request that is worked on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::netmap) struct Message {
    /// `NETMAP_REQ_`.
    pub reqtype: u16,
    /// The port's name.
    pub name: String,
    /// Where the client has the body.
    body_at: u64,
    body: Vec<u8>,
    options: Vec<ClientOption>,
}

fn status(errno: Errno) -> u32 {
    // They are positive.
    (errno as i32).unsigned_abs()
}

impl Message {
    /// A request that comes with its body and has no options.
    pub(in crate::netmap) fn new<T: IntoBytes + Immutable>(
        reqtype: u16,
        name: &str,
        body: &T,
    ) -> Self {
        Self {
            reqtype,
            name: name.to_owned(),
            body: body.as_bytes().to_vec(),
            ..Self::default()
        }
    }

    /// Copies a request in. Where that fails, the options that were read have
    /// their statuses in the client's memory.
    ///
    /// # Errors
    /// `EINVAL`: a reserved field is set, a body is missing or too much, an
    /// option has kind 0 or is there twice, or the name is no text.
    /// `EMSGSIZE`: options are too long or endless. `EFAULT`.
    pub(in crate::netmap) fn copy_in(
        header: &RequestHeader,
        memory: &mut dyn ClientMemory,
    ) -> Result<Self, Errno> {
        let size = body_size(header.nr_reqtype);
        if header.nr_reserved != 0 || (size == 0) != (header.nr_body == 0) {
            return Err(Errno::EINVAL);
        }
        let mut message = Self {
            reqtype: header.nr_reqtype,
            name: name(header).ok_or(Errno::EINVAL)?,
            body_at: header.nr_body,
            body: vec![0; size],
            options: Vec::new(),
        };
        if size > 0 {
            memory.copy_in(header.nr_body, &mut message.body)?;
        }
        match message.copy_options_in(header.nr_options, memory) {
            Ok(()) => {
                for option in &mut message.options {
                    // Who recognises it says so.
                    option.header.nro_status = status(Errno::EOPNOTSUPP);
                }
                Ok(message)
            }
            Err(errno) => Err(message.copy_out(memory, Err(errno)).err().unwrap_or(errno)),
        }
    }

    fn copy_options_in(&mut self, first: u64, memory: &mut dyn ClientMemory) -> Result<(), Errno> {
        let mut used = USED + self.body.len();
        let mut total = self.body.len();
        let mut at = first;
        while at != 0 {
            if used + size_of::<u64>() + HEADER > BUFFER {
                // The list may be a ring: nothing is written to it.
                self.options.clear();
                return Err(Errno::EMSGSIZE);
            }
            let mut header = OptionHeader::default();
            memory.copy_in(at, header.as_mut_bytes())?;
            header.nro_status = 0;
            used += size_of::<u64>() + HEADER;
            total += HEADER;
            let twin = self.options.iter().position(|other| {
                other.header.nro_reqtype == header.nro_reqtype
                    && header.nro_reqtype < NETMAP_REQ_OPT_MAX
            });
            self.options.push(ClientOption {
                at,
                header,
                payload: Vec::new(),
            });
            let wrong = if header.nro_reqtype == 0 {
                [Some(self.options.len() - 1), None]
            } else {
                [twin, twin.map(|_| self.options.len() - 1)]
            };
            if let [Some(_), _] = wrong {
                for option in wrong.into_iter().flatten() {
                    if let Some(option) = self.options.get_mut(option) {
                        option.header.nro_status = status(Errno::EINVAL);
                    }
                }
                return Err(Errno::EINVAL);
            }
            if header.nro_reqtype < NETMAP_REQ_OPT_MAX {
                let payload = payload_size(header.nro_reqtype, header.nro_size);
                let payload = usize::try_from(payload).unwrap_or(usize::MAX);
                let within = |size: usize, most| {
                    let sum = size.checked_add(payload);
                    sum.is_some_and(|sum| sum <= most)
                };
                let fits = within(total, NETMAP_REQ_MAXSIZE) && within(used, BUFFER);
                if !fits || header.nro_size > NETMAP_REQ_MAXSIZE as u64 {
                    return Err(Errno::EMSGSIZE);
                }
                total += payload;
                used += payload;
                let mut bytes = vec![0; payload];
                memory.copy_in(at.wrapping_add(HEADER as u64), &mut bytes)?;
                if let Some(option) = self.options.last_mut() {
                    option.payload = bytes;
                }
            }
            at = header.nro_next;
        }
        Ok(())
    }

    /// Copies a request out that ended with `result`: the body when all is
    /// well, every option's header, and what was recognised of an option.
    ///
    /// # Errors
    /// That of `result`, or `EFAULT`.
    pub(in crate::netmap) fn copy_out(
        &self,
        memory: &mut dyn ClientMemory,
        result: Result<(), Errno>,
    ) -> Result<(), Errno> {
        if result.is_ok() && !self.body.is_empty() {
            memory.copy_out(self.body_at, &self.body)?;
        }
        for option in &self.options {
            memory.copy_out(option.at, option.header.as_bytes())?;
            let answered = result.is_ok() && option.header.nro_status == 0;
            if answered && !option.payload.is_empty() {
                let behind = option.at.wrapping_add(HEADER as u64);
                memory.copy_out(behind, &option.payload)?;
            }
        }
        result
    }

    /// The body.
    pub(in crate::netmap) fn body<T: FromBytes + Default>(&self) -> T {
        // A body has its kind's size.
        T::read_from_bytes(&self.body).unwrap_or_default()
    }

    /// Puts another body in its place.
    pub(in crate::netmap) fn set_body<T: IntoBytes + Immutable>(&mut self, body: &T) {
        self.body.clear();
        self.body.extend_from_slice(body.as_bytes());
    }

    /// The option of this kind, if there is one. What is shorter than it should
    /// be is filled with zeros.
    pub(in crate::netmap) fn option<T: FromBytes + IntoBytes + Default>(
        &self,
        kind: u32,
    ) -> Option<T> {
        let option = self.find(kind)?;
        let mut value = T::default();
        for (to, from) in value.as_mut_bytes().iter_mut().zip(&option.payload) {
            *to = *from;
        }
        Some(value)
    }

    /// The whole size, `nro_size`, that an option of this kind says it has.
    pub(in crate::netmap) fn option_size(&self, kind: u32) -> Option<u64> {
        self.find(kind).map(|option| option.header.nro_size)
    }

    /// What is behind the header of the option of this kind.
    pub(in crate::netmap) fn payload(&self, kind: u32) -> &[u8] {
        self.find(kind).map_or(&[], |option| &option.payload)
    }

    fn find(&self, kind: u32) -> Option<&ClientOption> {
        let mut options = self.options.iter();
        options.find(|option| option.header.nro_reqtype == kind)
    }

    /// Says what became of an option.
    pub(in crate::netmap) fn set_status(&mut self, kind: u32, result: Result<(), Errno>) {
        let mut options = self.options.iter_mut();
        if let Some(option) = options.find(|option| option.header.nro_reqtype == kind) {
            option.header.nro_status = result.map_or_else(status, |()| 0);
        }
    }

    /// Puts another value into an option.
    pub(in crate::netmap) fn set_option<T: IntoBytes + Immutable>(&mut self, kind: u32, value: &T) {
        let mut options = self.options.iter_mut();
        if let Some(option) = options.find(|option| option.header.nro_reqtype == kind) {
            option.payload.clear();
            option.payload.extend_from_slice(value.as_bytes());
        }
    }

    /// Every option was recognised (`nmreq_checkoptions`).
    ///
    /// # Errors
    /// `EOPNOTSUPP` when one was not.
    pub(in crate::netmap) fn check_options(&self) -> Result<(), Errno> {
        let unknown = status(Errno::EOPNOTSUPP);
        let mut options = self.options.iter();
        match options.any(|option| option.header.nro_status == unknown) {
            true => Err(Errno::EOPNOTSUPP),
            false => Ok(()),
        }
    }
}

/// The name in a header; its last byte counts as the closing zero.
fn name(header: &RequestHeader) -> Option<String> {
    let [name @ .., _] = &header.nr_name;
    let end = name.iter().position(|byte| *byte == 0);
    let name = name.get(..end.unwrap_or(name.len()))?;
    std::str::from_utf8(name).ok().map(str::to_owned)
}
