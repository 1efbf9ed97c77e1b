//! What the process gives up before it serves, and the threads that it has
//! afterwards.

use std::sync::Arc;

use super::{Failure, log};
use crate::cli::Config;
use crate::netmap::device::Devices;
use crate::netmap::service::Strays;
use crate::sandbox::opener::Opener;
use crate::sandbox::{Sandbox, Use, User};
use crate::worker::Workers;

/// The threads that a process serves with.
pub struct Threads {
    /// Those of devices and clients.
    pub workers: Arc<Workers>,
    /// Those of interfaces of the host, if clients may have any.
    pub interfaces: Option<Arc<Devices>>,
    /// The one that closes what clients should not have sent, if there may be
    /// any.
    pub strays: Option<Strays>,
}

/// A client that asks for one that is not there is told so, but not whoever has
/// misspelled its name.
fn look_for(names: &[String], interfaces: &Devices) {
    for name in names {
        match interfaces.look(name) {
            Ok(Some(_)) => {}
            Ok(None) => tracing::warn!(
                "-N: interface={name}: there is no such interface; clients have it once there is"
            ),
            Err(error) => tracing::warn!("-N: interface={error}"),
        }
    }
}

/// Becomes `user` and puts the sandbox on; the threads are started inside of
/// its first half, and none is after them.
///
/// # Errors
/// The system refuses one of it.
pub fn confine_and_start_threads(
    config: &Config,
    user: Option<&User>,
    opener: &Opener,
) -> Result<Threads, Failure> {
    let pairs: usize = config
        .devices
        .iter()
        .map(|device| usize::from(device.queues))
        .sum();
    let (use_of, most) = match config.service {
        // Any number of clients may come, each with a thread of its own that is
        // as busy as its worker.
        Some(_) => (
            Use::Service,
            pairs.max(Workers::default_count(usize::MAX) / 2),
        ),
        None => (Use::Devices, pairs),
    };
    // The system says in files how many processors there are.
    let count = config.workers;
    let count = count.unwrap_or_else(|| Workers::default_count(most));
    if let Some(user) = user {
        user.become_it()?;
    }
    let sandbox = config.sandbox.then(Sandbox::confine).transpose()?;
    log::detach().map_err(Failure::os("threads"))?;
    let workers = Workers::start(count, config.polling).map_err(Failure::os("worker threads"))?;
    let names = config.service.as_ref();
    let names = names.map_or(&[][..], |service| &service.interfaces);
    let interfaces = (!names.is_empty()).then(|| Devices::new(opener.interfaces(config)));
    let interfaces = interfaces.transpose().map_err(Failure::os("threads"))?;
    if let Some(interfaces) = &interfaces {
        look_for(names, interfaces);
    }
    let strays = config.service.is_some().then(Strays::start);
    let strays = strays.transpose().map_err(Failure::os("threads"))?;
    sandbox.map(|sandbox| sandbox.seal(use_of)).transpose()?;
    Ok(Threads {
        workers: Arc::new(workers),
        interfaces,
        strays,
    })
}
