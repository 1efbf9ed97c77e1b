//! Device strings, after bhyve(8)'s:
//! `[[bus:]slot[:func],]virtio-net,BACKEND[,KEY=VALUE...]`.

use std::fmt;
use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::path::PathBuf;

use super::backend::{self, BackendSpec};
use super::error::{Blame, UsageError};
use super::keys::{self, Keys, Known};
use crate::net::ethernet::Mac;

/// Where a device meets its front end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketSpec {
    /// Listen on this path, for one front end after the other.
    Listen(PathBuf),
    /// Connect to a front end that listens on this path, and again when the
    /// connection is lost.
    Connect(PathBuf),
    /// An inherited socket, which listens or is connected.
    Fd(RawFd),
}

/// The path, or `fd N`.
impl fmt::Display for SocketSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(path) | Self::Connect(path) => path.display().fmt(f),
            Self::Fd(number) => write!(f, "fd {number}"),
        }
    }
}

/// One `-s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// PCI slot, 0 to 31; a made-up MAC address depends on it.
    pub slot: u8,
    /// PCI function, 0 to 7; a made-up MAC address depends on it.
    pub func: u8,
    /// `name=`: the virtual machine's.
    pub name: Option<String>,
    /// What the device is connected to.
    pub backend: BackendSpec,
    /// `socket=` with `mode=`, or `fd=`.
    pub socket: SocketSpec,
    /// `mac=`: a unicast address.
    pub mac: Option<Mac>,
    /// `mtu=`: bytes, 46 to 65535.
    pub mtu: Option<u16>,
    /// `queues=`: pairs of queues, 1 to 8.
    pub queues: u16,
}

const SLOTS: RangeInclusive<u8> = 0..=31;
const FUNCS: RangeInclusive<u8> = 0..=7;
/// As in the reference: from the shortest Ethernet payload to what two bytes
/// hold.
const MTUS: RangeInclusive<u16> = 46..=u16::MAX;
const QUEUES: RangeInclusive<u16> = 1..=8;
/// Longest `name=`, in bytes.
const VM_NAME: usize = 255;
/// Below are standard input, output and error, which are to stay that.
const DESCRIPTORS: RangeInclusive<RawFd> = 3..=RawFd::MAX;
/// Longest path of a socket, in bytes, without the NUL at the end (unix(7)).
const SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The keys of a device string.
pub(super) const KEYS: &Known = &[
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

/// The part of `-h` that is about device strings.
pub(super) fn usage() -> String {
    format!(
        "\nDevice:\n    [[bus:]slot[:func],]virtio-net,BACKEND[,KEY=VALUE...]\n\
         \nBackend:\n    {}\n\nKeys:\n{}",
        backend::forms(),
        keys::usage(KEYS)
    )
}

impl DeviceSpec {
    /// Whose device it is, for a made-up MAC address: the virtual machine's
    /// name, or else the socket's.
    pub fn owner(&self) -> String {
        let name = self.name.clone();
        name.unwrap_or_else(|| self.socket.to_string())
    }

    /// What the log calls the device: its machine, if that has a name, and its
    /// back end, or its socket when it has none.
    pub fn label(&self) -> String {
        match (&self.name, self.backend.is_none()) {
            (Some(name), _) => format!("{name}/{}", self.backend),
            (None, false) => self.backend.to_string(),
            (None, true) => self.socket.to_string(),
        }
    }

    /// Reads one device string. `outer` is `--socket-path` or `--fd`, as
    /// written and as understood.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn parse(
        text: &str,
        outer: Option<(String, SocketSpec)>,
    ) -> Result<Self, UsageError> {
        Self::parse_items(text, outer).map_err(|error| error.within(format_args!("-s {text}")))
    }

    fn parse_items(text: &str, outer: Option<(String, SocketSpec)>) -> Result<Self, UsageError> {
        let mut items = text.split(',').peekable();
        let place =
            items.next_if(|item| item.starts_with(|c: char| c.is_ascii_digit() || c == ':'));
        let (slot, func) = place.map_or(Ok((0, 0)), slot)?;
        match items.next() {
            Some("virtio-net") => {}
            Some(model) if !model.is_empty() => {
                return Err(model.blame("unknown kind of device", "write virtio-net"));
            }
            _ => {
                let cure = "write virtio-net,BACKEND, as in virtio-net,vale0:vm1";
                return Err("virtio-net".blame("is missing", cure));
            }
        }
        let backend = match items.next() {
            None | Some("") => Err("virtio-net,".blame("no back end follows", backend::known())),
            Some(item) if item.contains('=') => Err(item.blame(
                "stands where the back end should be",
                format!("put it behind the back end; {}", backend::known()),
            )),
            Some(name) => Ok(name),
        }?;
        let (backend, keys) = BackendSpec::parse(backend, items, outer.is_some())?;
        Ok(Self {
            slot,
            func,
            name: keys.parse_value("name", vm_name)?,
            backend,
            socket: socket(&keys, outer)?,
            mac: keys.parse_value("mac", mac)?,
            mtu: keys.parse_value("mtu", |item, value| number(item, value, MTUS))?,
            queues: keys
                .parse_value("queues", |item, value| number(item, value, QUEUES))?
                .unwrap_or(*QUEUES.start()),
        })
    }
}

/// Slot and function. The bus is bhyve's; no made-up MAC depends on it, and
/// nothing is done with it here.
fn slot(item: &str) -> Result<(u8, u8), UsageError> {
    let parts: Vec<&str> = item.split(':').collect();
    let (bus, slot, func) = match *parts {
        [slot] => ("0", slot, "0"),
        [slot, func] => ("0", slot, func),
        [bus, slot, func] => (bus, slot, func),
        _ => {
            return Err(item.blame("not a PCI slot", "write slot, slot:func or bus:slot:func"));
        }
    };
    number(&format!("bus '{bus}'"), bus, 0..=u8::MAX)?;
    Ok((
        number(&format!("slot '{slot}'"), slot, SLOTS)?,
        number(&format!("func '{func}'"), func, FUNCS)?,
    ))
}

/// A decimal number, without a sign.
pub(super) fn number<T>(item: &str, value: &str, range: RangeInclusive<T>) -> Result<T, UsageError>
where
    T: TryFrom<u64> + PartialOrd + std::fmt::Display + Copy,
{
    let (first, last) = (range.start(), range.end());
    let cure = format!("write a number from {first} to {last}");
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(item.blame("not a decimal number", cure));
    }
    // What u64 cannot hold is out of any range here.
    let number = value.parse::<u64>().ok();
    number
        .and_then(|number| T::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| item.blame("out of range", cure))
}

fn mac(item: &str, value: &str) -> Result<Mac, UsageError> {
    let mac: Mac = value.parse().map_err(|error| {
        item.blame(
            format!("{error}"),
            "write mac=58:9c:fc:0a:0b:0c, for example",
        )
    })?;
    if mac.is_multicast() {
        return Err(item.blame(
            "a group's address, not a station's",
            "make the first octet even, as in 58:9c:fc:0a:0b:0c",
        ));
    }
    if mac == Mac::default() {
        return Err(item.blame("no station's address", "write another, or leave mac= out"));
    }
    Ok(mac)
}

fn vm_name(item: &str, value: &str) -> Result<String, UsageError> {
    if value.len() > VM_NAME {
        return Err(item.blame(format!("longer than {VM_NAME} bytes"), "shorten it"));
    }
    if value.chars().any(char::is_control) {
        return Err(item.blame("has a control character", "use printable characters"));
    }
    Ok(value.to_owned())
}

/// Checks the path of a socket that `option` names.
///
/// # Errors
/// Empty, with a NUL, or longer than the system's socket addresses.
pub(super) fn socket_path(option: &str, path: &str) -> Result<PathBuf, UsageError> {
    if path.is_empty() {
        return Err(option.blame("the path is empty", "write one, as in /var/run/vm1.sock"));
    }
    if path.contains('\0') {
        return Err(option.blame("the path has a NUL in it", "leave it out"));
    }
    if path.len() > SOCKET_PATH {
        return Err(option.blame(
            format!("a socket's path has at most {SOCKET_PATH} bytes"),
            "use a shorter one, or one relative to the working directory",
        ));
    }
    Ok(PathBuf::from(path))
}

/// Checks the number of an inherited descriptor that `option` names.
///
/// # Errors
/// Not a number, or not one that an inherited socket can have.
pub(super) fn descriptor(option: &str, number_text: &str) -> Result<RawFd, UsageError> {
    number(option, number_text, DESCRIPTORS)
}

fn socket(keys: &Keys<'_>, outer: Option<(String, SocketSpec)>) -> Result<SocketSpec, UsageError> {
    let client = keys.parse_value("mode", |item, value| match value {
        "client" => Ok(true),
        "server" => Ok(false),
        _ => Err(item.blame("unknown mode", "write mode=server or mode=client")),
    })?;
    let mode = keys.get("mode").map(|(item, _)| item);
    match (keys.get("socket"), keys.get("fd"), outer) {
        (Some((item, _)), _, Some((option, _))) | (None, Some((item, _)), Some((option, _))) => {
            Err(item.blame(
                format!("excludes {option}"),
                "leave one of them out: a device has one socket",
            ))
        }
        (Some(_), Some((item, _)), None) => Err(item.blame(
            "excludes socket=",
            "leave one of them out: a device has one socket",
        )),
        (None, None, None) => Err("socket=".blame(
            "is missing",
            "add socket=PATH (or fd=N), where the front end is met",
        )),
        (Some((item, path)), None, None) => {
            let path = socket_path(item, path)?;
            Ok(if client == Some(true) {
                SocketSpec::Connect(path)
            } else {
                SocketSpec::Listen(path)
            })
        }
        (None, Some((item, number)), None) => {
            let fd = descriptor(item, number)?;
            refuse_mode(mode, "fd=")?;
            Ok(SocketSpec::Fd(fd))
        }
        (None, None, Some((_, SocketSpec::Listen(path)))) if client == Some(true) => {
            Ok(SocketSpec::Connect(path))
        }
        (None, None, Some((option, socket))) => {
            if matches!(socket, SocketSpec::Fd(_)) {
                refuse_mode(mode, &option)?;
            }
            Ok(socket)
        }
    }
}

/// An inherited socket listens or is connected already.
fn refuse_mode(mode: Option<&str>, other: &str) -> Result<(), UsageError> {
    match mode {
        Some(item) => Err(item.blame(
            format!("does not go with {other}"),
            "leave mode= out: an inherited socket shows by itself what it is",
        )),
        None => Ok(()),
    }
}
