//! What the process gives up before it serves, and the threads that it has
//! afterwards.

use super::Failure;
use crate::cli::Config;
use crate::sandbox::{Sandbox, Use, User};
use crate::worker::Workers;

/// Becomes `user` and puts the sandbox on; the workers are started inside of
/// its first half, and no thread is after them.
///
/// # Errors
/// The system refuses one of it.
pub fn confine_and_start_workers(config: &Config, user: Option<&User>) -> Result<Workers, Failure> {
    let pairs = config
        .devices
        .iter()
        .map(|device| usize::from(device.queues))
        .sum();
    let (use_of, most) = match config.service {
        // Any number of clients may come.
        Some(_) => (Use::Service, usize::MAX),
        None => (Use::Devices, pairs),
    };
    // The system says in files how many processors there are.
    let count = Workers::default_count(most);
    if let Some(user) = user {
        user.become_it()?;
    }
    let sandbox = config.sandbox.then(Sandbox::confine).transpose()?;
    let workers = Workers::start(count).map_err(Failure::os("worker threads"))?;
    sandbox.map(|sandbox| sandbox.seal(use_of)).transpose()?;
    Ok(workers)
}
