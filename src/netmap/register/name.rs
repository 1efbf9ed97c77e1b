//! Names of ports: `nr_name` as the kernel reads it, and the strings of
//! netmap's programs, which say more.

use super::{RegisterError, Request, RingMode};
use crate::netmap::abi;

/// What an `nr_name` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortName<'a> {
    /// `valeX:PORT`
    Vale {
        /// With `vale` in front.
        switch: &'a str,
        /// After the colon.
        port: &'a str,
    },
    /// `PARENT{ID` or `PARENT}ID`
    Pipe {
        /// The port that the pipe is below.
        parent: &'a str,
        /// What follows the brace.
        id: &'a str,
        /// `{`
        master: bool,
    },
    /// An interface of the host.
    Host(&'a str),
}

fn is_identifier(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl<'a> PortName<'a> {
    /// Reads a name by the kernel's rules: at most 63 bytes; of a switch's name
    /// and of its port's at most 15 each, the switch's of letters, digits and
    /// underlines.
    ///
    /// # Errors
    /// Those rules, by name.
    pub fn parse(name: &'a str) -> Result<Self, RegisterError> {
        let refuse = |rule| RegisterError::Name {
            name: name.to_owned(),
            rule,
        };
        if name.is_empty() {
            return Err(refuse("give the port a name"));
        }
        if name.len() >= abi::NETMAP_REQ_IFNAMSIZ {
            return Err(refuse("a port name has at most 63 bytes"));
        }
        if name.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(refuse("a port name has no control characters"));
        }
        if let Some(at) = name.find(['{', '}']) {
            let (parent, id) = name.split_at(at);
            let master = id.starts_with('{');
            let id = &id[1..];
            if id.is_empty() || !is_identifier(id) {
                return Err(refuse(
                    "what follows { or } is made of letters, digits and underlines",
                ));
            }
            if parent.is_empty() {
                return Err(refuse("a pipe is named PORT{ID or PORT}ID"));
            }
            return Ok(Self::Pipe { parent, id, master });
        }
        if !name.starts_with(abi::NM_BDG_NAME) {
            if name.len() >= abi::IFNAMSIZ {
                return Err(refuse("an interface name has at most 15 bytes"));
            }
            return Ok(Self::Host(name));
        }
        let Some((switch, port)) = name.split_once(':') else {
            return Err(refuse("a switch port is named valeX:PORT"));
        };
        if switch.len() >= abi::IFNAMSIZ {
            return Err(refuse("a switch name has at most 15 bytes"));
        }
        if !is_identifier(switch) {
            return Err(refuse(
                "a switch name is made of letters, digits and underlines",
            ));
        }
        if port.is_empty() {
            return Err(refuse("the port has no name after the colon"));
        }
        if port.len() >= abi::IFNAMSIZ {
            return Err(refuse("a port name has at most 15 bytes after the colon"));
        }
        Ok(Self::Vale { switch, port })
    }
}

/// Reads a port as netmap's programs name it, in libnetmap's grammar:
/// `netmap:IF` or `valeX:PORT`, then `-N` (ring pair N), `^` or `^N` (host
/// rings), `*` (all rings), then `/` and any of `x` (exclusive), `z` (zero-copy
/// monitor), `t` and `r` (monitor of tx and rx), `R` and `T` (rx or tx rings
/// only), then `@ID` (memory region).
///
/// # Errors
/// What is not of this form, with what was expected.
pub fn parse_port_string(text: &str) -> Result<Request, RegisterError> {
    let refuse = |rule| RegisterError::Name {
        name: text.to_owned(),
        rule,
    };
    let Some((prefix, rest)) = text.split_once(':') else {
        return Err(refuse("a port is named netmap:IF or valeX:PORT"));
    };
    // The interface's name goes to the core without its prefix.
    let (hidden, colon) = match prefix {
        "netmap" => ("netmap:".len(), prefix.len()),
        _ if prefix.starts_with(abi::NM_BDG_NAME) => (0, prefix.len()),
        _ => return Err(refuse("a port is named netmap:IF or valeX:PORT")),
    };
    let suffix = rest.find(['-', '*', '^', '/', '@']).unwrap_or(rest.len());
    let end = colon + 1 + suffix;
    let mut request = Request::new(&text[hidden..end]);
    let mut left = &text[end..];
    if let Some(after) = left.strip_prefix('^') {
        (request.mode, left) = match after.starts_with(|c: char| c.is_ascii_digit()) {
            true => number(after)
                .map(|(ring, left)| (RingMode::OneHost(ring), left))
                .ok_or(refuse("a ring number is below 4095"))?,
            false => (RingMode::Host, after),
        };
    } else if let Some(after) = left.strip_prefix('*') {
        (request.mode, left) = (RingMode::AllAndHost, after);
    } else if let Some(after) = left.strip_prefix('-') {
        (request.mode, left) = number(after)
            .map(|(ring, left)| (RingMode::One(ring), left))
            .ok_or(refuse("after - comes a ring number below 4095"))?;
    }
    if let Some(after) = left.strip_prefix('/') {
        let flags = after.find('@').unwrap_or(after.len());
        if flags == 0 {
            return Err(refuse("after / comes one of x z t r R T"));
        }
        for flag in after[..flags].chars() {
            request.flags |= match flag {
                'x' => abi::NR_EXCLUSIVE,
                'z' => abi::NR_ZCOPY_MON,
                't' => abi::NR_MONITOR_TX,
                'r' => abi::NR_MONITOR_RX,
                'R' => abi::NR_RX_RINGS_ONLY,
                'T' => abi::NR_TX_RINGS_ONLY,
                _ => return Err(refuse("after / comes one of x z t r R T")),
            };
        }
        left = &after[flags..];
    }
    if let Some(after) = left.strip_prefix('@') {
        request.mem_id = after
            .parse()
            .ok()
            .filter(|id| *id > 0 && !after.starts_with('+'))
            .ok_or(refuse("after @ comes a memory region from 1 to 65535"))?;
        left = "";
    }
    if !left.is_empty() {
        return Err(refuse("the end of the name is not understood"));
    }
    PortName::parse(&request.name)?;
    Ok(request)
}

/// A ring number and what follows it.
fn number(text: &str) -> Option<(u16, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    (number < abi::NETMAP_RING_MASK).then_some((number, &text[end..]))
}
