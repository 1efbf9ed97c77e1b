//! Back ends, as far as they can be judged without opening one.

use std::fmt;

use super::device::KEYS;
use super::error::{Blame, UsageError};
use super::keys::Keys;
use super::{netgraph, netmap, tap};
use crate::backend::netgraph::Link;
use crate::backend::{PREFIXES, Spec, SwitchType};

/// Longest name of a port with its switch, in bytes (NETMAP_REQ_IFNAMSIZ - 1;
/// netmap(4)).
const PORT_NAME: usize = crate::netmap::name::MAX_NAME;

/// A back end: the name, such as `vale0:vm1`, `tap0` or `none`, known by its
/// prefix and formed as that kind of back end wants it, and what its keys say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSpec {
    name: String,
    link: Option<Link>,
    local: bool,
    switch_type: SwitchType,
}

impl BackendSpec {
    /// Checks `name` and the keys in `items`, which it also gives back.
    /// `outer`: the vhost-user socket is not among these.
    ///
    /// # Errors
    /// The prefix is unknown, the name is too long or badly formed, or a key
    /// does not go with it.
    pub(super) fn parse<'a>(
        name: &str,
        items: impl Iterator<Item = &'a str>,
        outer: bool,
    ) -> Result<(Self, Keys<'a>), UsageError> {
        if name != name.trim() {
            return Err(format!("'{name}'").blame(
                "there is a blank before or behind the name",
                format!("write {}", name.trim()),
            ));
        }
        match PREFIXES.iter().find(|prefix| name.starts_with(**prefix)) {
            Some(&"none") if name != "none" => Err(name.blame("unknown back end", "write none")),
            Some(&"netgraph") if name != "netgraph" => {
                Err(name.blame("unknown back end", format!("write {}", netgraph::FORM)))
            }
            Some(&("none" | "netgraph")) => Ok(()),
            Some(&("tap" | "vmnet")) => tap::interface(name),
            Some(&"vale") => vale(name),
            Some(&"netmap") => netmap::port(name),
            _ => Err(name.blame("unknown back end", known())),
        }?;
        let mut keys = Keys::parse(KEYS, &[], items)?;
        let local = tap::local(&keys, name)?;
        let switch_type = netmap::switch_type(&keys, name)?;
        let backend = if name == "netgraph" {
            netgraph::adopt(&mut keys, outer)?;
            let link = netgraph::link(&keys)?;
            Self {
                name: link.to_string(),
                link: Some(link),
                local,
                switch_type,
            }
        } else {
            netgraph::refuse(&keys, name)?;
            Self {
                name: name.to_owned(),
                link: None,
                local,
                switch_type,
            }
        };
        Ok((backend, keys))
    }

    /// The name as it was written; of a netgraph back end, what it is
    /// connected to, as in `netgraph:br0:link1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The connection of a netgraph back end.
    pub fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    /// What is to be opened, for `pairs` queue pairs.
    pub fn spec(&self, pairs: u16) -> Spec {
        Spec {
            netgraph: self.link.clone(),
            local: self.local,
            switch: self.switch_type,
            ..Spec::new(&self.name, pairs)
        }
    }

    /// The switch that this is a port of, such as `vale0`.
    pub fn switch(&self) -> Option<&str> {
        let (switch, _) = self.name.split_once(':')?;
        switch.starts_with("vale").then_some(switch)
    }

    /// Two devices with this very name do not claim the same thing: nothing is
    /// connected, or an interface is made for each.
    pub fn is_shareable(&self) -> bool {
        self.is_none() || tap::is_new(&self.name)
    }

    /// Not connected to anything; any number of devices may be.
    pub fn is_none(&self) -> bool {
        self.name == "none"
    }
}

impl fmt::Display for BackendSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What names of back ends look like, in a list.
pub(super) fn forms() -> String {
    let forms: Vec<&str> = PREFIXES
        .iter()
        .map(|&prefix| match prefix {
            "tap" => "tapN",
            "vmnet" => "vmnetN",
            "vale" => "valeSWITCH:PORT",
            "netmap" => netmap::FORM,
            other => other,
        })
        .collect();
    forms.join(", ")
}

/// The cure for a name that is none.
pub(super) fn known() -> String {
    format!(
        "write one of: {}; tapN is any name that begins with tap",
        forms()
    )
}

/// What an interface may be called so that no kernel takes it for a pattern, a
/// path or an alias.
pub(super) fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// A switch is named as the kernel wants it, with letters, digits and `_`; so
/// that names can be told apart in a log, a port has no blanks either.
fn vale(name: &str) -> Result<(), UsageError> {
    if name.len() > PORT_NAME {
        return Err(name.blame(
            format!("port name is longer than {PORT_NAME} bytes"),
            "shorten it",
        ));
    }
    let Some((switch, port)) = name.split_once(':') else {
        return Err(name.blame(
            "no port of the switch is named",
            format!("write {name}:vm1"),
        ));
    };
    if !switch
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_')
    {
        return Err(name.blame(
            format!("'{switch}' is not a name of a switch"),
            "use letters, digits and '_', as in vale0",
        ));
    }
    if port.is_empty() || !port.chars().all(is_plain) {
        return Err(name.blame(
            format!("'{port}' is not a name of a port"),
            format!("use letters, digits, '_', '-' and '.', as in {switch}:vm1"),
        ));
    }
    Ok(())
}
