//! The keys of a device string: what there are, and those of one string.

use std::fmt::Write as _;

use super::error::{Blame, UsageError};

/// Keys, what their values look like, and what they are for.
const KEYS: [(&str, &str, &str); 13] = [
    ("socket", "PATH", "vhost-user socket of the device"),
    (
        "mode",
        "server|client",
        "listen on the socket (the default), or connect to it",
    ),
    ("fd", "N", "inherited vhost-user socket"),
    (
        "mac",
        "XX:XX:XX:XX:XX:XX",
        "MAC address; made of slot, func and name when left out",
    ),
    ("mtu", "46..65535", "MTU that the guest is told"),
    ("queues", "1..8", "pairs of queues; 1 when left out"),
    ("name", "VM", "name of the virtual machine"),
    (
        "offload",
        "local",
        "tap, vmnet: every frame ends on this host (FreeBSD)",
    ),
    (
        "type",
        "kernel|core",
        "vale: whose switch; the kernel's if it has netmap",
    ),
    ("path", "ADDR", "netgraph: node to connect to, as in br0:"),
    ("peerhook", "HOOK", "netgraph: hook of that node"),
    (
        "hook",
        "HOOK",
        "netgraph: our own hook; vmlink when left out",
    ),
    ("node", "NAME", "netgraph: name of our own node"),
];

/// The part of `-h` that is about keys.
pub(super) fn usage() -> String {
    let mut text = String::new();
    for (key, value, purpose) in KEYS {
        let form = format!("{key}={value}");
        // Writing to a string does not fail.
        let _ = writeln!(text, "    {form:<22} {purpose}");
    }
    text
}

/// The keys of one device string, each known, with a value, and there once: as
/// written, key, value.
pub(super) struct Keys<'a>(Vec<(&'a str, &'a str, &'a str)>);

impl<'a> Keys<'a> {
    pub(super) fn parse(items: impl Iterator<Item = &'a str>) -> Result<Self, UsageError> {
        let names = || KEYS.map(|(key, ..)| format!("{key}=")).join(", ");
        let mut found: Vec<(&str, &str, &str)> = Vec::new();
        for item in items {
            if item.is_empty() {
                return Err("','".blame("nothing follows it", "leave it out, or write KEY=VALUE"));
            }
            let Some((key, value)) = item.split_once('=') else {
                return Err(item.blame("'=' is missing", format!("write one of {}", names())));
            };
            let Some((_, form, _)) = KEYS.iter().find(|(known, ..)| *known == key) else {
                return Err(item.blame("unknown key", format!("write one of {}", names())));
            };
            if value.is_empty() {
                return Err(item.blame("the value is empty", format!("write {key}={form}")));
            }
            if found.iter().any(|(_, earlier, _)| *earlier == key) {
                return Err(item.blame(
                    format!("{key}= is given more than once"),
                    "leave all but one out",
                ));
            }
            found.push((item, key, value));
        }
        Ok(Self(found))
    }

    /// The item as it was written, and its value.
    pub(super) fn get(&self, wanted: &str) -> Option<(&'a str, &'a str)> {
        self.0
            .iter()
            .find(|(_, key, _)| *key == wanted)
            .map(|(item, _, value)| (*item, *value))
    }

    /// The value of `wanted`, judged by `parse`.
    pub(super) fn parse_value<T>(
        &self,
        wanted: &str,
        parse: impl FnOnce(&str, &str) -> Result<T, UsageError>,
    ) -> Result<Option<T>, UsageError> {
        self.get(wanted)
            .map(|(item, value)| parse(item, value))
            .transpose()
    }

    /// Has `key` stand for `meant`, if it is there.
    ///
    /// # Errors
    /// `meant` is there as well.
    pub(super) fn rename(&mut self, key: &str, meant: &'static str) -> Result<(), UsageError> {
        let twice = self.get(meant).is_some();
        let Some(found) = self.0.iter_mut().find(|(_, found, _)| *found == key) else {
            return Ok(());
        };
        if twice {
            return Err(found.0.blame(
                format!("excludes {meant}="),
                format!("leave one of them out: here {key}= means the same"),
            ));
        }
        found.1 = meant;
        Ok(())
    }
}
