//! How many descriptors the process may have.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files to the highest that this process may have:
/// each device takes several, and the limit that users start with is meant for
/// programs that use select(2), which nothing here does.
///
/// # Errors
/// Those of setrlimit(2), which permits it in any case.
pub fn raise_open_files() -> Result<(), Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}
