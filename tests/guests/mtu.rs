//! The MTU that the front end tells both sides.

use bed::{Error, Result};

use crate::bench::Bench;

/// IP datagrams that this guest has cut up or put together.
fn fragments(guest: &mut bed::Guest) -> Result<String> {
    guest.run("awk '/^Ip: [0-9]/ { print $14 + $15 + $16 + $17 + $18 + $19 }' /proc/net/snmp")
}

pub fn of_the_front_end() -> Result<()> {
    let mut bench = Bench::new("")?;
    let options = [1, 2].map(|number| {
        let mut options = bench.options(number);
        options.device = "host_mtu=9000".to_owned();
        options
    });
    bench.boot(options)?;
    for guest in &mut bench.guests {
        let mtu = guest.run("cat /sys/class/net/eth0/mtu")?;
        if mtu.trim() != "9000" {
            return Err(Error::new(format!("{}: MTU {mtu}", guest.address())));
        }
    }
    let [first, second] = bench.guests.as_mut_slice() else {
        return Err(Error::new("two guests were started"));
    };
    // Linux marks what fits the MTU as not to be fragmented, and counts what
    // it fragments all the same.
    first.run(&format!("ping -A -q -c 20 -s 8000 {}", second.address()))?;
    for guest in [first, second] {
        let fragments = fragments(guest)?;
        if fragments.trim() != "0" {
            return Err(Error::new(format!("{fragments} fragments")));
        }
    }
    Ok(())
}

pub fn refused() -> Result<()> {
    let mut bench = Bench::new(",mtu=1500")?;
    let mut options = bench.options(1);
    options.device = "host_mtu=9000".to_owned();
    // QEMU goes on without us then, with a card that leads nowhere.
    let guest = bench.start(options)?;
    guest.wait_for_error("9000Bytes MTU not supported by the backend")?;
    bench.vtnetd.wait_for_log("9000")?;
    guest.kill()?;
    // One that agrees is welcome after it.
    let mut options = bench.options(1);
    options.device = "host_mtu=1500".to_owned();
    bench.boot([options])
}
