//! Frames between guests that do not want the same.

use std::time::{Duration, Instant};

use bed::{Error, Result, transfer};
use vtnetd::driver::front_end::FrontEnd;
use vtnetd::driver::net::{NetDriver, NetOptions};
use vtnetd::net::ethernet::Mac;

use crate::bench::Bench;
use crate::judge::judge;

/// How much is sent each way.
const MEBIBYTES: u32 = 32;

/// What qemu does not let a guest negotiate, if told so.
pub const NO_OFFLOADS: &str = "csum=off,guest_csum=off,gso=off,\
    host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,\
    guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";

/// Both ways, over the first two guests.
fn both_ways(bench: &mut Bench) -> Result<()> {
    let [first, second] = bench.guests.as_mut_slice() else {
        return Err(Error::new("two guests were started"));
    };
    transfer(first, second, MEBIBYTES)?;
    transfer(second, first, MEBIBYTES)?;
    Ok(())
}

pub fn segmentation_beside_none() -> Result<()> {
    let mut bench = Bench::new("")?;
    let with = bench.options(1);
    let mut without = bench.options(2);
    without.device = format!("{NO_OFFLOADS},mrg_rxbuf=off");
    bench.boot([with, without])?;
    both_ways(&mut bench)?;
    // What one sends in large pieces the other gets in small ones.
    let counters = bench.vtnetd.counters()?;
    let mean = |device: &str, queues: &str| {
        let queues = format!("{device} {queues}");
        counters.sum(&queues, "bytes") / counters.sum(&queues, "frames").max(1)
    };
    let [sent, received] = [mean("vale0:vm1", "tx"), mean("vale0:vm2", "rx")];
    if sent <= 1514 || received > 1514 {
        return Err(Error::new(format!(
            "frames of {sent} bytes on average were sent, of {received} received"
        )));
    }
    Ok(())
}

pub fn two_pairs() -> Result<()> {
    let mut bench = Bench::new(",queues=2")?;
    let options = [1, 2].map(|number| {
        let mut options = bench.options(number);
        options.queues = 2;
        options
    });
    bench.boot(options)?;
    for guest in &mut bench.guests {
        guest.run("ethtool -L eth0 combined 2")?;
    }
    bench.ping()?;
    both_ways(&mut bench)
}

/// A driver that negotiates nothing, on the switch of two guests with TSO,
/// takes the address of one of them again and again, and so gets some of its
/// frames: each must be short, complete, and with an empty header.
pub fn third_without() -> Result<()> {
    const WANTED: usize = 10;
    let mut bench = Bench::with_third_port()?;
    let options = [bench.options(1), bench.options(2)];
    bench.boot(options)?;
    bench.ping()?;
    let [first, second] = bench.guests.as_mut_slice() else {
        return Err(Error::new("two guests were started"));
    };
    let mac: Mac = second
        .run("cat /sys/class/net/eth0/address")?
        .trim()
        .parse()
        .map_err(|error| Error::new(format!("{error}")))?;
    let failed = |error: &dyn std::fmt::Display| Error::new(format!("third: {error}"));
    first.run("dd if=/dev/zero of=/tmp/served/data bs=1M count=64 2> /dev/null")?;
    let fetch = format!(
        "while [ ! -f /tmp/enough ]; do wget -q -O /dev/null http://{}/data; done &",
        first.address()
    );
    let front_end = FrontEnd::connect(&bench.socket(3)).map_err(|error| failed(&error))?;
    let mut nothing = NetOptions::default();
    nothing.negotiation.features = 0;
    let mut third = NetDriver::start(front_end, &nothing).map_err(|error| failed(&error))?;
    let pair = third.pair(0);
    let mut claim = [0xff; 60];
    claim[6..12].copy_from_slice(&mac.0);
    claim[12..14].copy_from_slice(&[0x88, 0xb5]);
    bench.second()?.run(&fetch)?;
    let until = Instant::now() + Duration::from_secs(60);
    let mut carrying = 0;
    while carrying < WANTED {
        if Instant::now() > until {
            return Err(Error::new(format!(
                "{carrying} frames of {WANTED} in a minute"
            )));
        }
        pair.tx.send(&claim).map_err(|error| failed(&error))?;
        // Long enough for the flow to go on: it is cut again when it runs.
        let wait = Duration::from_millis(300);
        while let Some(got) = pair.rx.recv(wait).map_err(|error| failed(&error))? {
            if got.header.flags != 0 || got.header.gso_type != 0 {
                return Err(Error::new(format!("{:?}", got.header)));
            }
            carrying += usize::from(judge(&got.frame)? > 0);
        }
    }
    bench.second()?.run("touch /tmp/enough")?;
    let counters = bench.vtnetd.counters()?;
    let mean =
        counters.sum("vale0:vm1 tx", "bytes") / counters.sum("vale0:vm1 tx", "frames").max(1);
    println!("{carrying} frames for who negotiated nothing, of {mean} bytes when sent");
    if mean <= 1514 {
        return Err(Error::new(format!(
            "the guest did not segment late: {mean} bytes"
        )));
    }
    Ok(())
}
