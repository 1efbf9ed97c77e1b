//! The strings by which netmap's programs name a port, which say more than an
//! `nr_name`.

use super::{RegisterError, Request, RingMode};
use crate::netmap::abi::{self, nmreq};
use crate::netmap::name::{NameError, PortName};

/// Reads a port as netmap's programs name it, in libnetmap's grammar:
/// `netmap:IF` or `valeX:PORT`, then `-N` (ring pair N), `^` or `^N` (host
/// rings), `*` (all rings), then `/` and any of `x` (exclusive), `z` (zero-copy
/// monitor), `t` and `r` (monitor of tx and rx), `R` and `T` (rx or tx rings
/// only), then `@ID` (memory region).
///
/// # Errors
/// What is not of this form, with what was expected.
pub fn parse_port_string(text: &str) -> Result<Request, RegisterError> {
    let refuse = |rule| {
        RegisterError::Name(NameError {
            name: text.to_owned(),
            rule,
        })
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
                'x' => nmreq::NR_EXCLUSIVE,
                'z' => nmreq::NR_ZCOPY_MON,
                't' => nmreq::NR_MONITOR_TX,
                'r' => nmreq::NR_MONITOR_RX,
                'R' => nmreq::NR_RX_RINGS_ONLY,
                'T' => nmreq::NR_TX_RINGS_ONLY,
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
