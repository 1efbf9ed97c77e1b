//! The name of a tap or vmnet interface, and the key that goes with it.

use super::error::{Blame, UsageError};
use super::keys::Keys;

/// Longest name of a network interface, in bytes (IFNAMSIZ - 1; netdevice(7),
/// net/if.h).
const INTERFACE_NAME: usize = 15;

/// Checks the name of an interface.
///
/// # Errors
/// It is none.
pub(super) fn interface(name: &str) -> Result<(), UsageError> {
    if is_new(name) && cfg!(not(target_os = "freebsd")) {
        return Err(name.blame(
            "the interface has no number",
            format!("write {name}0, {name}1, ..."),
        ));
    }
    if name.len() > INTERFACE_NAME {
        return Err(name.blame(
            format!("interface name is longer than {INTERFACE_NAME} bytes"),
            "shorten it",
        ));
    }
    if !name.chars().all(super::backend::is_plain) {
        return Err(name.blame(
            "not an interface name",
            "use letters, digits, '_', '-' and '.'",
        ));
    }
    Ok(())
}

/// Each device with this name has an interface of its own, which is made.
pub(super) fn is_new(name: &str) -> bool {
    matches!(name, "tap" | "vmnet")
}

/// Whether `offload=local` is among the keys of `backend`.
///
/// # Errors
/// It has another value, or does not go with this back end or system.
pub(super) fn local(keys: &Keys<'_>, backend: &str) -> Result<bool, UsageError> {
    let Some((item, value)) = keys.get("offload") else {
        return Ok(false);
    };
    if value != "local" {
        return Err(item.blame(
            "not a way to offload",
            "write offload=local, or leave it out",
        ));
    }
    if !backend.starts_with("tap") && !backend.starts_with("vmnet") {
        return Err(item.blame(
            format!("does not go with {backend}"),
            "leave it out; it is for tap and vmnet interfaces",
        ));
    }
    if cfg!(not(target_os = "freebsd")) {
        return Err(item.blame(
            "there is no need for it on this system",
            "leave it out; the kernel is given unfinished frames in any case",
        ));
    }
    Ok(true)
}
