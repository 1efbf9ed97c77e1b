//! Interfaces of the host for the netmap core: those that the command line
//! names for the service, each known by its place there.

use std::sync::Arc;

use nix::errno::Errno;

use super::protocol::{Answer, Index, Refusal, Request};
use super::{Link, Opened, index};
use crate::cli::Config;
use crate::netmap::device::{self, Device, DeviceError, Facts, Handles, Interfaces};
use crate::process::Exit;

/// The name at `place`.
fn name(config: &Config, place: Index) -> Option<&str> {
    let names = &config.service.as_ref()?.interfaces;
    names.get(usize::try_from(place).ok()?).map(String::as_str)
}

fn refused(error: &DeviceError) -> Refusal {
    Refusal {
        exit: Exit::Os as u8,
        errno: error.errno() as i32,
        message: error.cure().to_owned(),
    }
}

/// What is known of the interface at `place`: no number, there is none. `None`:
/// the configuration has no such place.
pub(super) fn look(config: &Config, place: Index) -> Option<Answer> {
    let looked = device::look(name(config, place)?);
    Some(looked.map_err(|error| refused(&error)).map(|facts| Opened {
        numbers: facts.map_or(Vec::new(), |facts| {
            vec![facts.index.into(), facts.mtu.into()]
        }),
        ..Opened::default()
    }))
}

/// Opens the interface at `place`.
pub(super) fn open(config: &Config, place: Index, promiscuous: bool) -> Option<Answer> {
    let opened = device::open(name(config, place)?, promiscuous);
    Some(
        opened
            .map_err(|error| refused(&error))
            .map(|Handles { fds, numbers }| Opened {
                fds,
                numbers,
                ..Opened::default()
            }),
    )
}

/// Opens by way of the opener.
pub(super) struct RemoteInterfaces {
    pub link: Arc<Link>,
    pub names: Vec<String>,
}

impl RemoteInterfaces {
    fn place(&self, name: &str) -> Option<Index> {
        self.names.iter().position(|one| one == name).map(index)
    }

    fn ask(&self, name: &str, request: Request) -> Result<Opened, DeviceError> {
        self.link.ask(request).map_err(|refusal| {
            DeviceError::new(name, Errno::from_raw(refusal.errno), &refusal.message)
        })
    }
}

impl Interfaces for RemoteInterfaces {
    fn look(&self, name: &str) -> Result<Option<Facts>, DeviceError> {
        let Some(place) = self.place(name) else {
            return Ok(None);
        };
        let Opened { numbers, .. } = self.ask(name, Request::LookAtInterface(place))?;
        let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(match numbers[..] {
            [index, mtu] => Some(Facts {
                index: number(index),
                mtu: number(mtu),
            }),
            _ => None,
        })
    }

    fn open(&self, name: &str, promiscuous: bool) -> Result<Device, DeviceError> {
        let Some(place) = self.place(name) else {
            let cure = "name it in interface= of -N";
            return Err(DeviceError::new(name, Errno::ENXIO, cure));
        };
        let Opened { fds, numbers, .. } =
            self.ask(name, Request::OpenInterface(place, promiscuous))?;
        device::assemble(name, Handles { fds, numbers })
    }
}
