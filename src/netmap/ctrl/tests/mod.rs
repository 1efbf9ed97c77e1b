//! Tests of control requests, in the order of netmap's own `ctrl-api-test`,
//! whose cases are here with those that it leaves out.

mod allowed;
mod external;
mod hostile;
mod legacy;
mod loops;
mod options;
mod ports;
mod registers;

use std::os::fd::OwnedFd;

use super::*;
use crate::netmap::abi::NETMAP_API;
use crate::netmap::abi::nmreq::*;
use crate::netmap::abi::option::OptionHeader;
use crate::netmap::mem::RegionConfig;
use crate::netmap::vale::Switches;

/// Where the client's memory begins; nothing is below.
const BASE: u64 = 0x10_0000;
const SIZE: usize = 0x1_0000;

/// A client: its memory, in which what it hands over is put one behind the
/// other, and its descriptor.
struct Client {
    control: Control,
    memory: Memory,
}

struct Memory {
    bytes: Vec<u8>,
    used: usize,
    /// What comes along with the next request.
    object: Option<OwnedFd>,
    /// What came along with an answer; `None`: nobody takes it.
    handed: Option<Vec<OwnedFd>>,
}

impl Memory {
    fn range(&self, at: u64, len: usize) -> Option<std::ops::Range<usize>> {
        let from = usize::try_from(at.checked_sub(BASE)?).ok()?;
        let to = from.checked_add(len).filter(|to| *to <= self.bytes.len())?;
        Some(from..to)
    }

    /// Puts something into memory; returns where.
    fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) -> u64 {
        let at = BASE + self.used as u64;
        let range = self.range(at, value.as_bytes().len()).unwrap();
        self.bytes[range].copy_from_slice(value.as_bytes());
        self.used += value.as_bytes().len().next_multiple_of(64);
        at
    }

    fn get<T: FromBytes>(&self, at: u64) -> T {
        let range = self.range(at, size_of::<T>()).unwrap();
        T::read_from_bytes(&self.bytes[range]).unwrap()
    }

    /// Puts an option before those at `next`; returns where.
    fn option<T: IntoBytes + Immutable>(&mut self, kind: u32, payload: &T, next: u64) -> u64 {
        let header = OptionHeader {
            nro_next: next,
            nro_reqtype: kind,
            nro_status: 777,
            nro_size: 0,
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(payload.as_bytes());
        self.put(bytes.as_slice())
    }

    fn status(&self, option: u64) -> u32 {
        self.get::<OptionHeader>(option).nro_status
    }
}

impl ClientMemory for Memory {
    fn copy_in(&mut self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        assert!(into.len() <= LARGEST);
        let range = self.range(at, into.len()).ok_or(Fault)?;
        into.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    fn copy_out(&mut self, at: u64, from: &[u8]) -> Result<(), Fault> {
        assert!(from.len() <= LARGEST);
        let range = self.range(at, from.len()).ok_or(Fault)?;
        self.bytes[range].copy_from_slice(from);
        Ok(())
    }

    fn object(&mut self) -> Result<OwnedFd, Errno> {
        self.object.take().ok_or(Errno::EOPNOTSUPP)
    }

    fn hand_over(&mut self, descriptor: OwnedFd) -> Result<(), Errno> {
        let handed = self.handed.as_mut().ok_or(Errno::EOPNOTSUPP)?;
        handed.push(descriptor);
        Ok(())
    }
}

fn core() -> Arc<Netmap> {
    Arc::new(Netmap::new(
        Arc::new(Switches::default()),
        RegionConfig::global(),
    ))
}

fn header(reqtype: u16, name: &str) -> RequestHeader {
    let mut header = RequestHeader {
        nr_version: NETMAP_API,
        nr_reqtype: reqtype,
        nr_reserved: 0,
        nr_name: [0; 64],
        nr_options: 0,
        nr_body: 0,
    };
    header.nr_name[..name.len()].copy_from_slice(name.as_bytes());
    header
}

impl Client {
    fn new(core: &Arc<Netmap>) -> Self {
        Self {
            control: Control::new(Arc::clone(core)),
            memory: Memory {
                bytes: vec![0; SIZE],
                used: 0,
                object: None,
                handed: None,
            },
        }
    }

    /// A request with a body and a list of options; the body afterwards.
    fn ask_with<T: IntoBytes + Immutable + FromBytes>(
        &mut self,
        reqtype: u16,
        name: &str,
        body: &T,
        options: u64,
    ) -> Result<T, Errno> {
        let at = self.memory.put(body);
        let header = RequestHeader {
            nr_options: options,
            nr_body: if size_of::<T>() == 0 { 0 } else { at },
            ..header(reqtype, name)
        };
        let header = self.memory.put(&header);
        self.control.ioctl(NIOCCTRL, header, &mut self.memory)?;
        Ok(self.memory.get(at))
    }

    fn ask<T: IntoBytes + Immutable + FromBytes>(
        &mut self,
        reqtype: u16,
        name: &str,
        body: &T,
    ) -> Result<T, Errno> {
        self.ask_with(reqtype, name, body, 0)
    }

    /// A registration of all rings.
    fn register(&mut self, name: &str) -> Result<RegisterBody, Errno> {
        self.ask(NETMAP_REQ_REGISTER, name, &all())
    }
}

/// All rings.
fn all() -> RegisterBody {
    RegisterBody {
        nr_mode: NR_REG_ALL_NIC,
        ..RegisterBody::default()
    }
}
