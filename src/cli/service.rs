//! `-N`: where other programs find the netmap core, and who may.
//! `PATH[,KEY=VALUE...]`.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::device::{number, socket_path};
use super::error::{Blame, UsageError};
use super::keys::{self, Keys, Known};
use crate::netmap::authority::Limits;
use crate::netmap::name::PortName;
use crate::netmap::service::rules::Rule;

/// The keys of `-N`.
const KEYS: &Known = &[
    (
        "mode",
        "OCTAL",
        "permissions of the socket; 0600 when left out",
    ),
    ("group", "NAME", "group of the socket"),
    (
        "interface",
        "IF",
        "an interface of the host that clients may have; once for each",
    ),
    (
        "allow",
        "WHO:RIGHT[+RIGHT][:SWITCH]",
        "what a user, %GROUP or * may do; may be repeated",
    ),
    ("descriptors", "N", "most that a user may have open; 64"),
    ("ports", "N", "most ports of a user; 64"),
    ("memory", "MIB", "most memory of a user's ports; 4096"),
];

/// Those that may be there again.
const REPEATED: &[&str] = &["interface", "allow"];

/// Who may connect when nothing is said: whoever runs vtnetd.
const MODE: u32 = 0o600;
/// Of descriptors and ports.
const COUNTS: RangeInclusive<u64> = 1..=65536;
/// Of memory: up to a tebibyte.
const MEBIBYTES: RangeInclusive<u64> = 1..=1 << 20;

/// `-N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Where to listen.
    pub path: PathBuf,
    /// `mode=`: permissions of the socket.
    pub mode: u32,
    /// `group=`: its group, by name or number, if not that of the process.
    pub group: Option<String>,
    /// `interface=`: the interfaces of the host that clients may have.
    pub interfaces: Vec<String>,
    /// `allow=`, each.
    pub rules: Vec<Rule>,
    /// `descriptors=`, `ports=` and `memory=`.
    pub limits: Limits,
}

/// The part of `-h` that is about the service.
pub(super) fn usage() -> String {
    format!(
        "\nService:\n    PATH[,KEY=VALUE...]\n\n{}",
        keys::usage(KEYS)
    )
}

impl ServiceSpec {
    /// Reads what follows `-N`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, UsageError> {
        Self::parse_items(text).map_err(|error| error.within(format_args!("-N {text}")))
    }

    fn parse_items(text: &str) -> Result<Self, UsageError> {
        let mut items = text.split(',');
        let path = items.next().unwrap_or_default();
        let mut spec = Self {
            path: socket_path(path, path)?,
            mode: MODE,
            group: None,
            interfaces: Vec::new(),
            rules: Vec::new(),
            limits: Limits::default(),
        };
        for (item, key, value) in Keys::parse(KEYS, REPEATED, items)?.iter() {
            match key {
                "mode" => spec.mode = mode(item, value)?,
                "interface" => {
                    let name = interface(item, value)?;
                    if spec.interfaces.contains(&name) {
                        return Err(
                            item.blame("the interface is named already", "leave one of them out")
                        );
                    }
                    spec.interfaces.push(name);
                }
                "allow" => spec.rules.push(rule(item, value)?),
                "descriptors" => spec.limits.connections = number(item, value, COUNTS)?,
                "ports" => spec.limits.ports = number(item, value, COUNTS)?,
                "memory" => spec.limits.memory = number(item, value, MEBIBYTES)? << 20,
                _ => spec.group = Some(value.to_owned()),
            }
        }
        Ok(spec)
    }
}

/// The name of an interface.
fn interface(item: &str, value: &str) -> Result<String, UsageError> {
    match PortName::parse(value) {
        Ok(PortName::Host(name)) if !name.contains(['/', ' ', ':']) && !name.starts_with('.') => {
            Ok(name.to_owned())
        }
        _ => Err(item.blame(
            "not the name of an interface",
            "write interface=eth0, for example",
        )),
    }
}

fn rule(item: &str, value: &str) -> Result<Rule, UsageError> {
    let parsed = value.parse::<Rule>();
    parsed.map_err(|error| item.blame("not a rule", error.to_string()))
}

/// Permissions of a file, in octal.
fn mode(item: &str, value: &str) -> Result<u32, UsageError> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    u32::from_str_radix(value, 8)
        .ok()
        .filter(|mode| digits && *mode <= 0o777)
        .ok_or_else(|| {
            item.blame(
                "not permissions in octal",
                "write mode=0660, for example: read and write for user and group",
            )
        })
}
