//! Names of ports: `nr_name` as the kernel reads it. Every name of a switch
//! port in this program is read here.

use super::abi;

/// Longest name of a port: a switch's name with its colon and the port's, or
/// an interface with what follows it. Parts have no limit of their own; in the
/// kernel, where they are names of interfaces, each has at most 15 bytes.
pub const MAX_NAME: usize = abi::NETMAP_REQ_IFNAMSIZ - 1;

/// A name that no port can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {rule}")]
pub struct NameError {
    /// The name.
    pub name: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

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
    /// An interface of the host, or a persistent port.
    Host(&'a str),
}

fn is_identifier(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl<'a> PortName<'a> {
    /// Reads a name: at most [`MAX_NAME`] bytes, an interface's at most 15, a
    /// switch's of letters, digits and underlines.
    ///
    /// # Errors
    /// Those rules, by name.
    pub fn parse(name: &'a str) -> Result<Self, NameError> {
        let refuse = |rule| NameError {
            name: name.to_owned(),
            rule,
        };
        if name.is_empty() {
            return Err(refuse("give the port a name"));
        }
        if name.len() > MAX_NAME {
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
        if !is_identifier(switch) {
            return Err(refuse(
                "a switch name is made of letters, digits and underlines",
            ));
        }
        if port.is_empty() {
            return Err(refuse("the port has no name after the colon"));
        }
        Ok(Self::Vale { switch, port })
    }
}

/// Reads `valeX:PORT`; returns `valeX` and `PORT`.
///
/// # Errors
/// When it is no name of a switch port.
pub fn switch_port(name: &str) -> Result<(&str, &str), NameError> {
    match PortName::parse(name)? {
        PortName::Vale { switch, port } => Ok((switch, port)),
        PortName::Pipe { .. } | PortName::Host(_) => Err(NameError {
            name: name.to_owned(),
            rule: "a switch port is named valeX:PORT",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_the_kernels_rules() {
        let vale = |switch, port| PortName::Vale { switch, port };
        let pipe = |parent, id, master| PortName::Pipe { parent, id, master };
        let longest = format!("vale0:{}", "p".repeat(57));
        for (name, want) in [
            ("vale0:a", vale("vale0", "a")),
            ("vale:a", vale("vale", "a")),
            ("vale_A9:em0.100-x", vale("vale_A9", "em0.100-x")),
            (
                "vale01234567890:p23456789012345",
                vale("vale01234567890", "p23456789012345"),
            ),
            (&longest, vale("vale0", &longest[6..])),
            ("vale0:a{7", pipe("vale0:a", "7", true)),
            ("eth0}slave_1", pipe("eth0", "slave_1", false)),
            ("eth0", PortName::Host("eth0")),
            ("i23456789012345", PortName::Host("i23456789012345")),
        ] {
            assert_eq!(PortName::parse(name), Ok(want), "{name}");
        }
        let long = format!("{longest}p");
        for (name, rule) in [
            ("", "give the port a name"),
            (&long, "at most 63 bytes"),
            ("vale0", "named valeX:PORT"),
            ("vale0:", "no name after the colon"),
            ("vale-0:a", "letters, digits and underlines"),
            ("vale0 :a", "letters, digits and underlines"),
            ("i234567890123456", "an interface name has at most 15"),
            ("vale0:a{", "what follows { or }"),
            ("vale0:a}x y", "what follows { or }"),
            ("vale0:a{b{c", "what follows { or }"),
            ("{1", "PORT{ID"),
            ("eth0\n", "control characters"),
            ("vale0:\0", "control characters"),
        ] {
            let error = PortName::parse(name).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
            assert!(error.contains(rule), "{error}");
        }
    }

    #[test]
    fn ports_of_switches_alone() {
        assert_eq!(switch_port("vale0:vm1"), Ok(("vale0", "vm1")));
        for name in ["", "eth0", "vale0", "vale0:a{1", "tap0:a", ":", "vale0:"] {
            assert!(switch_port(name).is_err(), "{name}");
        }
    }
}
