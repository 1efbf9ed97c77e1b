//! How a process ends that cannot go on.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use super::inherited::InheritError;
use super::pid_file::PidFileError;
use crate::backend::{AttachError, OpenError};
use crate::frontend::vhost_user::EndpointError;
use crate::netmap::service::rules::RuleError;

/// Exit statuses of sysexits(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// EX_USAGE: the command line is wrong.
    Usage = 64,
    /// EX_NOUSER: there is no such user.
    NoUser = 67,
    /// EX_UNAVAILABLE: a back end cannot be had.
    Unavailable = 69,
    /// EX_SOFTWARE: a defect of ours.
    Software = 70,
    /// EX_OSERR: the system has no descriptors, memory or threads left.
    Os = 71,
    /// EX_CANTCREAT: a socket or the pid file cannot be made.
    CannotCreate = 73,
    /// EX_TEMPFAIL: nothing is wrong here; try again.
    TemporaryFailure = 75,
    /// EX_PROTOCOL: the other side does not keep to the rules.
    Protocol = 76,
    /// EX_NOPERM: not allowed to.
    Permission = 77,
}

impl Exit {
    /// All of them.
    const ALL: [Self; 9] = [
        Self::Usage,
        Self::NoUser,
        Self::Unavailable,
        Self::Software,
        Self::Os,
        Self::CannotCreate,
        Self::TemporaryFailure,
        Self::Protocol,
        Self::Permission,
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the process ends: a message that names the thing and the cure.
#[derive(Debug)]
pub struct Failure {
    /// What it ends with.
    pub exit: Exit,
    message: String,
}

impl Failure {
    /// Ends with `exit` because of `error`.
    pub fn new(exit: Exit, error: &dyn Error) -> Self {
        Self {
            exit,
            message: error.to_string(),
        }
    }

    /// Ends as another process has said: with this exit status and message.
    pub(crate) fn told(exit: u8, message: String) -> Self {
        let exit = Exit::ALL.into_iter().find(|known| *known as u8 == exit);
        Self {
            exit: exit.unwrap_or(Exit::Software),
            message,
        }
    }

    /// Ends with `exit` because of `error`, at the bottom of which is `cause`:
    /// with [`Exit::Permission`] if that is what is wrong.
    pub(crate) fn by_cause(exit: Exit, error: &dyn Error, cause: &io::Error) -> Self {
        let forbidden = cause.kind() == io::ErrorKind::PermissionDenied;
        Self::new(if forbidden { Exit::Permission } else { exit }, error)
    }

    /// [`Exit::Os`]: the system refuses what every process may have. To be used
    /// with `map_err`.
    pub fn os(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            let cure = match error.raw_os_error() {
                Some(libc::EMFILE) => "; raise the limit of open files (ulimit -n)",
                _ => "",
            };
            Self {
                exit: Exit::Os,
                message: format!("{what}: {error}{cure}"),
            }
        }
    }
}

impl From<PidFileError> for Failure {
    fn from(error: PidFileError) -> Self {
        match &error {
            PidFileError::Held { .. } => Self::new(Exit::CannotCreate, &error),
            PidFileError::Io(_, cause) => Self::by_cause(Exit::CannotCreate, &error, cause),
        }
    }
}

/// An inherited descriptor is named by the command line, and it is that which
/// has to change.
impl From<InheritError> for Failure {
    fn from(error: InheritError) -> Self {
        Self::new(Exit::Usage, &error)
    }
}

impl From<RuleError> for Failure {
    fn from(error: RuleError) -> Self {
        Self::new(Exit::NoUser, &error)
    }
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Self {
        use EndpointError::{Fd, Idle, NotSocket, Waker};
        match &error {
            NotSocket(_) | Idle(_) | Fd(..) => Self::new(Exit::Usage, &error),
            Waker(_) => Self::new(Exit::Os, &error),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Opener { exit, message } => Self::told(exit, message),
            OpenError::System {
                error: ref cause, ..
            } => Self::by_cause(Exit::Unavailable, &error, cause),
            _ => Self::new(Exit::Unavailable, &error),
        }
    }
}

/// What the command line alone does not show, such as a made-up MAC address
/// that is on the switch already.
impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::DuplicateMac(..) | AttachError::Name(_) => Self::new(Exit::Usage, &error),
            _ => Self::new(Exit::Unavailable, &error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_can_be_raised_is_named() {
        let failed = |errno| Failure::os("event loop")(io::Error::from_raw_os_error(errno));
        let files = failed(libc::EMFILE).to_string();
        assert!(files.ends_with("raise the limit of open files (ulimit -n)"));
        assert!(!failed(libc::ENOMEM).to_string().contains("ulimit"));
    }
}
