//! Why there is no sandbox.

use std::io;

use crate::process::{Exit, Failure};

/// The sandbox cannot be put on, or the user not switched.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Capability mode cannot be entered, or a descriptor's rights not limited.
    #[error(
        "sandbox: Capsicum: {0}; run a kernel with options CAPABILITY_MODE and CAPABILITIES, \
         or give --no-sandbox"
    )]
    Capsicum(#[source] io::Error),
    /// The kernel has no Landlock, or it is switched off.
    #[error(
        "sandbox: this kernel has no Landlock; boot Linux 5.13 or later, with landlock in lsm=, \
         or give --no-sandbox"
    )]
    NoLandlock,
    /// Landlock is there and refuses.
    #[error("sandbox: Landlock: {0}; give --no-sandbox to do without")]
    Landlock(String),
    /// The system call filter cannot be put on.
    #[error("sandbox: seccomp: {0}; run a kernel with CONFIG_SECCOMP_FILTER, or give --no-sandbox")]
    Seccomp(String),
    /// Capabilities cannot be dropped.
    #[error("sandbox: capabilities: {0}; give --no-sandbox to keep them")]
    Capabilities(String),
    /// There is no such user.
    #[error("-u {0}: no such user; make it, or name another")]
    NoUser(String),
    /// Only root may become another user.
    #[error("-u {0}: {1}; run as root, or leave -u out")]
    Switch(String, io::Error),
    /// Another user in name, but the way back is open.
    #[error("-u {0}: root's privileges would stay; name a user that is not root")]
    StillRoot(String),
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        let exit = match error {
            SandboxError::NoUser(_) => Exit::NoUser,
            SandboxError::Switch(..) => Exit::Permission,
            SandboxError::StillRoot(_) => Exit::Usage,
            _ => Exit::Unavailable,
        };
        Self::new(exit, &error)
    }
}
