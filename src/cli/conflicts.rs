//! What two devices must not have in common.

use std::path::{Component, Path, PathBuf};

use super::device::{DeviceSpec, SocketSpec};
use super::error::{Blame, UsageError};
use super::service::ServiceSpec;
use crate::backend::netgraph::Link;

/// Looks at each pair of devices, and at the service with each.
///
/// # Errors
/// The first thing that two of them both claim.
pub(super) fn check(
    devices: &[DeviceSpec],
    service: Option<&ServiceSpec>,
) -> Result<(), UsageError> {
    for device in devices {
        match (&device.socket, service) {
            (SocketSpec::Listen(path) | SocketSpec::Connect(path), Some(service))
                if is_same(path, &service.path) =>
            {
                return Err(format!("socket={}", path.display())
                    .blame("-N has this socket", "give the service a path of its own"));
            }
            _ => {}
        }
    }
    for (index, later) in devices.iter().enumerate() {
        for earlier in devices.iter().take(index) {
            sockets(earlier, later)?;
            backends(earlier, later)?;
            addresses(earlier, later)?;
            places(earlier, later)?;
        }
    }
    Ok(())
}

fn sockets(earlier: &DeviceSpec, later: &DeviceSpec) -> Result<(), UsageError> {
    use SocketSpec::{Connect, Fd, Listen};
    match (&earlier.socket, &later.socket) {
        (Listen(one) | Connect(one), Listen(other) | Connect(other)) if is_same(one, other) => {
            Err(format!("socket={}", other.display()).blame(
                "two devices have this socket",
                "give each -s a socket= of its own",
            ))
        }
        (Fd(one), Fd(other)) if one == other => Err(format!("fd={other}").blame(
            "two devices have this descriptor",
            "give each -s an fd= of its own",
        )),
        _ => Ok(()),
    }
}

/// Two spellings of one path, as far as the text tells: `./a` and `a`.
fn is_same(one: &Path, other: &Path) -> bool {
    let parts = |path: &'_ Path| -> PathBuf {
        let parts = path.components();
        parts.filter(|part| *part != Component::CurDir).collect()
    };
    parts(one) == parts(other)
}

fn backends(earlier: &DeviceSpec, later: &DeviceSpec) -> Result<(), UsageError> {
    if let (Some(one), Some(other)) = (earlier.backend.link(), later.backend.link()) {
        return links(one, other);
    }
    if earlier.backend.name() != later.backend.name() || later.backend.is_shareable() {
        return Ok(());
    }
    Err(later.backend.blame(
        "two devices have this back end",
        match later.backend.switch() {
            Some(switch) => format!("name two ports, as in {switch}:vm1 and {switch}:vm2"),
            None => "give each -s an interface of its own".to_owned(),
        },
    ))
}

fn links(earlier: &Link, later: &Link) -> Result<(), UsageError> {
    if earlier.is_same_place(later) {
        return Err(later.blame(
            "two devices have this back end",
            format!(
                "name two hooks, as in path={0},peerhook=link1 and path={0},peerhook=link2",
                later.path
            ),
        ));
    }
    match &later.node {
        Some(node) if earlier.node == later.node => Err(format!("node={node}").blame(
            "two devices have a node of this name",
            "give each -s a node= of its own, or leave node= out",
        )),
        _ => Ok(()),
    }
}

fn addresses(earlier: &DeviceSpec, later: &DeviceSpec) -> Result<(), UsageError> {
    let together =
        later.backend.switch().is_some() && earlier.backend.switch() == later.backend.switch();
    match later.mac {
        Some(mac) if together && earlier.mac == later.mac => Err(format!("mac={mac}").blame(
            format!(
                "both {} and {} have this address",
                earlier.backend, later.backend
            ),
            "give each device on a switch its own, or leave mac= out",
        )),
        _ => Ok(()),
    }
}

/// Two devices of one virtual machine at one place would be given one MAC.
fn places(earlier: &DeviceSpec, later: &DeviceSpec) -> Result<(), UsageError> {
    let place = |device: &DeviceSpec| (device.slot, device.func);
    match &later.name {
        Some(name) if earlier.name == later.name && place(earlier) == place(later) => {
            let (slot, func) = place(later);
            Err(format!("name={name}").blame(
                format!("two of its devices are at slot {slot}:{func}"),
                format!("put a slot of its own before each, as in {slot}:1,virtio-net,..."),
            ))
        }
        _ => Ok(()),
    }
}
