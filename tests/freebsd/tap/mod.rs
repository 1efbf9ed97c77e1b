//! tap(4) and vmnet(4).

mod carry;
mod life;
mod offloads;
mod peer;

use bed::freebsd::{module, run};
use bed::{Result, Test};

use crate::drive::Served;

/// The largest MTU that an interface can have with the longest frame.
const MTU: usize = LONGEST - 14;
/// The longest frame: TAPMRU in net/if_tap.h.
const LONGEST: usize = 65535;

pub fn tests() -> Vec<Test> {
    [carry::tests(), offloads::tests(), life::tests()]
        .into_iter()
        .flatten()
        .collect()
}

/// A vtnetd with a device on each of `backends`, whose interfaces it makes and
/// which get an MTU of `mtu` bytes, both for the guest and on the host.
fn served(backends: &[&str], mtu: usize) -> Result<Served> {
    module("if_tuntap")?;
    let devices = backends
        .iter()
        .map(|backend| format!("{backend},mtu={mtu}"))
        .collect::<Vec<_>>();
    let served = Served::start(&devices)?;
    for backend in backends {
        let name = interface(backend);
        run(&format!("ifconfig {name} inet6 ifdisabled"))?;
        run(&format!("ifconfig {name} mtu {mtu}"))?;
    }
    Ok(served)
}

/// The name of the interface in `tap0,offload=local`.
fn interface(backend: &str) -> &str {
    backend.split(',').next().unwrap_or(backend)
}

/// The interfaces of the system.
fn interfaces() -> Result<Vec<String>> {
    let listed = run("ifconfig -l")?;
    Ok(listed.split_whitespace().map(str::to_owned).collect())
}
