//! What guests go through while vtnetd stays.

use bed::{Error, Result};

use crate::bench::Bench;

/// Fails unless `now` is as `before`.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, before: &T, now: &T) -> Result<()> {
    if before == now {
        return Ok(());
    }
    Err(Error::new(format!(
        "{what}: before {before:#?}, now {now:#?}"
    )))
}

/// What ethtool(8) says of a card with offloads; `[fixed]` may follow.
const OFFLOADS: [&str; 5] = [
    "rx-checksumming: on",
    "tx-checksumming: on",
    "tcp-segmentation-offload: on",
    "tx-tcp-segmentation: on",
    "tx-tcp6-segmentation: on",
];

/// Fails unless `guest` was offered checksums and segmentation, and took them.
pub fn has_offloads(guest: &mut bed::Guest) -> Result<()> {
    let features = guest.run("ethtool -k eth0")?;
    for offload in OFFLOADS {
        let mut lines = features.lines();
        if !lines.any(|line| line.trim().starts_with(offload)) {
            return Err(Error::new(format!("no '{offload}' in {features}")));
        }
    }
    Ok(())
}

pub fn offered() -> Result<()> {
    let mut bench = Bench::with_guests()?;
    for guest in &mut bench.guests {
        same(
            "carrier",
            &"1\n".to_owned(),
            &guest.run("cat /sys/class/net/eth0/carrier")?,
        )?;
        has_offloads(guest)?;
    }
    Ok(())
}

pub fn driver_loaded_again() -> Result<()> {
    let mut bench = Bench::with_guests()?;
    let before = bench.vtnetd.census()?;
    for _ in 0..3 {
        for guest in &mut bench.guests {
            guest.run("rmmod virtio_net && load-driver")?;
        }
        bench.ping()?;
        same("vtnetd", &before, &bench.vtnetd.census()?)?;
    }
    Ok(())
}

pub fn booted_again() -> Result<()> {
    let mut bench = Bench::with_guests()?;
    let before = bench.vtnetd.census()?;
    for number in [0, 1, 0] {
        bench.guests[number].reboot()?;
        bench.ping()?;
        same("vtnetd", &before, &bench.vtnetd.census()?)?;
    }
    Ok(())
}

/// One guest with packed rings beside one with split ones, through reloads and
/// a reboot.
pub fn packed() -> Result<()> {
    let mut bench = Bench::new("")?;
    let mut options = [bench.options(1), bench.options(2)];
    options[0].device = "packed=on".to_owned();
    bench.boot(options)?;
    let before = bench.vtnetd.census()?;
    let ring_packed = 34;
    for (guest, wanted) in bench.guests.iter_mut().zip(["1", "0"]) {
        let features = guest.run("cat /sys/bus/virtio/devices/virtio0/features")?;
        let bit = features.trim().get(ring_packed..=ring_packed);
        same("VIRTIO_F_RING_PACKED", &Some(wanted), &bit)?;
    }
    bench.guests[0].run("rmmod virtio_net && load-driver")?;
    bench.ping()?;
    bench.guests[0].reboot()?;
    bench.ping()?;
    let [first, second] = bench.guests.as_mut_slice() else {
        return Err(Error::new("two guests were started"));
    };
    bed::transfer(first, second, 16)?;
    bed::transfer(second, first, 16)?;
    same("vtnetd", &before, &bench.vtnetd.census()?)
}

/// A driver is not let reset a queue to change its length: QEMU would not tell
/// us of it, and frames would go nowhere.
pub fn rings_keep_their_length() -> Result<()> {
    let mut bench = Bench::with_guests()?;
    let guest = &mut bench.guests[0];
    let tried = guest.run("ethtool -G eth0 rx 64 tx 64; echo status $?")?;
    if tried.contains("status 0") {
        return Err(Error::new(format!("the rings have changed: {tried}")));
    }
    bench.ping()
}

pub fn killed() -> Result<()> {
    let mut bench = Bench::new("")?;
    let options = [bench.options(1)];
    bench.boot(options)?;
    let alone = bench.vtnetd.census()?;
    let options = bench.options(2);
    bench.boot([options.clone()])?;
    let both = bench.vtnetd.census()?;
    for _ in 0..2 {
        if let Some(guest) = bench.guests.pop() {
            guest.kill()?;
        }
        bench.vtnetd.wait_for_log("front end disconnected")?;
        same("vtnetd without the guest", &alone, &bench.vtnetd.census()?)?;
        bench.boot([options.clone()])?;
        bench.ping()?;
        same("vtnetd with the guest", &both, &bench.vtnetd.census()?)?;
    }
    Ok(())
}
