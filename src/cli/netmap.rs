//! Ports of netmap(4), and whose switches there are.

use super::error::{Blame, UsageError};
use super::keys::Keys;
use crate::backend::SwitchType;
use crate::netmap::name::{NameError, PortName};
use crate::netmap::register::{RegisterError, parse_port_string};

/// What the name of a port looks like, without suffixes.
pub(super) const FORM: &str = "netmap:IF";

/// Checks the name of a port, with netmap's suffixes.
///
/// # Errors
/// The name is none, or a suffix is not understood.
pub(super) fn port(name: &str) -> Result<(), UsageError> {
    let refused = |error: NameError| name.blame("not a netmap port", error.rule);
    let request = parse_port_string(name).map_err(|error| match error {
        RegisterError::Name(error) => refused(error),
        error => name.blame(format!("{error}"), format!("write {FORM}")),
    })?;
    match PortName::parse(&request.name).map_err(refused)? {
        PortName::Vale { .. } => Err(name.blame(
            "a port of a switch",
            format!("write {}, without netmap:", request.name),
        )),
        PortName::Host(_) | PortName::Pipe { .. } => Ok(()),
    }
}

/// `type=`, which only ports of a switch have.
///
/// # Errors
/// An unknown type, or another back end.
pub(super) fn switch_type(keys: &Keys<'_>, backend: &str) -> Result<SwitchType, UsageError> {
    let found = keys.parse_value("type", |item, value| {
        if !backend.starts_with("vale") {
            return Err(item.blame(
                format!("does not go with {backend}"),
                "leave it out: only switches are of several types",
            ));
        }
        match value {
            "kernel" => Ok(SwitchType::Kernel),
            "core" => Ok(SwitchType::Core),
            _ => Err(item.blame("unknown type", "write type=kernel or type=core")),
        }
    })?;
    Ok(found.unwrap_or_default())
}
