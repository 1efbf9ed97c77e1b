//! What the process cannot do any more once it serves: nothing is opened or
//! named from then on, except by asking the opener.
//!
//! A process that talks to hostile guests and front ends is to gain nothing by
//! being taken over. So it is two processes: the [`opener`], which is small,
//! privileged and sees no guest data, and this one, which gives up everything
//! that names or opens before it reads a guest's first byte.
//!
//! | | FreeBSD | Linux |
//! | --- | --- | --- |
//! | naming and opening | capability mode | Landlock without a rule, seccomp |
//! | system calls | those of capability mode | a list of those that we make |
//! | descriptors | rights of each ([`rights`]) | one list of ioctl(2) and fcntl(2) |
//! | privileges | none in capability mode | no capability, no new privileges |
//!
//! All of it works without privileges, too.

#[cfg(target_os = "freebsd")]
mod capsicum;
#[cfg(target_os = "freebsd")]
use capsicum as sys;
mod error;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as sys;
pub mod opener;
pub mod rights;
mod user;

pub use error::SandboxError;
pub use rights::{Role, limit};
pub use user::User;

/// The half of the sandbox that is put on while the process has one thread.
/// The other half is put on when it has all that it will have.
#[derive(Debug)]
#[must_use = "the sandbox is not on before it is sealed"]
pub struct Sandbox(());

/// What the process is for: it keeps what that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It serves devices.
    Devices,
    /// It serves other programs, too, and hands descriptors to them.
    Service,
}

impl Sandbox {
    /// Takes away what threads inherit: to be called before any is started.
    ///
    /// # Errors
    /// The system has no such sandbox.
    pub fn confine() -> Result<Self, SandboxError> {
        sys::confine()?;
        Ok(Self(()))
    }

    /// Takes away the rest, from all threads: to be called when all are there,
    /// for no more can be started afterwards.
    ///
    /// # Errors
    /// The system has no such sandbox.
    pub fn seal(self, use_of: Use) -> Result<(), SandboxError> {
        sys::seal(use_of)
    }
}
