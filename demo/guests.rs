//! Two Linux guests.

use std::time::Instant;

use bed::equipment::GuestImage;
use bed::{Error, Guest, GuestOptions, Result, transfer};

use crate::{PORTS, Stage};

const PINGS: u32 = 100;
const MEBIBYTES: u32 = 256;

pub fn show(stage: &mut Stage, image: &GuestImage) -> Result<()> {
    let start = Instant::now();
    let [first, second] = &stage.sockets;
    let options = [(1, first), (2, second)]
        .map(|(number, socket)| GuestOptions::numbered(number, socket.clone()));
    let [mut first, mut second] = Guest::boot(image, options, &stage.scratch)?;
    let release = first.run("uname -r")?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "two guests with Linux {} are up after {seconds:.1} s",
        release.trim()
    );

    let said = first.run(&format!("ping -A -q -c {PINGS} {}", second.address()))?;
    let all = format!("{PINGS} packets transmitted, {PINGS} packets received");
    if !said.contains(&all) {
        return Err(Error::new(said));
    }
    let times = said.lines().last().unwrap_or_default();
    println!("ping: {PINGS} of {PINGS}, {times}");

    send("1 to 2", &mut first, &mut second)?;
    send("2 to 1", &mut second, &mut first)?;

    let counters = stage.vtnetd.counters()?;
    for port in PORTS {
        let sum = |queues, name| counters.sum(&format!("{port} {queues}"), name);
        println!(
            "{port}: {} frames of {} bytes on average sent, {} received, {} dropped",
            sum("tx", "frames"),
            sum("tx", "bytes") / sum("tx", "frames").max(1),
            sum("rx", "frames"),
            sum("rx", "no_buffers"),
        );
    }
    // Killed as they go out of scope: vtnetd takes that as it comes.
    Ok(())
}

fn send(way: &str, from: &mut Guest, to: &mut Guest) -> Result<()> {
    let transfer = transfer(from, to, MEBIBYTES)?;
    println!(
        "TCP {way}: {MEBIBYTES} MiB at {:.0} Mbit/s, SHA-256 of both ends {}",
        transfer.rate() / 1e6,
        transfer.sha256
    );
    Ok(())
}
