//! A guest on a Linux tap, in a network namespace of the test's own.

use std::env;
use std::time::Duration;

use bed::{Error, Guest, Namespace, PacketSocket, Result, Test, equipment};

use crate::bench::Bench;
use crate::frames::NO_OFFLOADS;
use crate::host::Host;
use crate::judge::{LONGEST, judge};
use crate::lifecycle::has_offloads;

/// The host's address on the guest's network.
const HOST: &str = "10.0.0.254";
/// How much goes each way between guest and host, in MiB, and what says
/// otherwise.
const MEBIBYTES: u32 = 128;
const MEBIBYTES_FROM: &str = "VTNETD_TAP_MIB";
/// How much of it is looked at frame by frame: what a packet socket has room
/// for.
const LOOKED_AT: u32 = 8;

pub fn tests() -> Vec<Test> {
    let test = |name, body: fn() -> Result<()>| Test::new(name, body).needing(equipment::tap());
    vec![
        test("guest_to_host_over_tap", to_host_and_back),
        test("frames_of_a_tap_beyond_a_veth_are_complete", beyond_a_veth),
        test("frames_on_a_tap_without_offloads_are_complete", on_the_tap),
    ]
}

/// The guest of a bench that has one.
fn guest(bench: &mut Bench) -> Result<&mut Guest> {
    let first = bench.guests.first_mut();
    first.ok_or_else(|| Error::new("a guest was started"))
}

/// The mean length of the guest's frames since there were `before` of it:
/// bytes and frames of the queues `tx` or `rx`.
fn mean_length(bench: &mut Bench, queues: &str, before: &mut (u64, u64)) -> Result<u64> {
    let counters = bench.vtnetd.counters()?;
    let queues = format!("tap0 {queues}");
    let now = (
        counters.sum(&queues, "bytes"),
        counters.sum(&queues, "frames"),
    );
    let (bytes, frames) = (now.0 - before.0, now.1 - before.1);
    *before = now;
    if frames == 0 {
        return Err(Error::new(format!("{queues}: no frames")));
    }
    Ok(bytes / frames)
}

fn to_host_and_back() -> Result<()> {
    let mebibytes = match env::var(MEBIBYTES_FROM) {
        Ok(text) => text
            .parse()
            .map_err(|error| Error::new(format!("{MEBIBYTES_FROM}={text}: {error}")))?,
        Err(_) => MEBIBYTES,
    };
    let namespace = Namespace::new()?;
    let mut bench = Bench::on_tap(&namespace)?;
    namespace.run(&format!("ip address add {HOST}/24 dev tap0"))?;
    let mut options = bench.options(1);
    // It keeps what it is sent.
    options.memory += mebibytes;
    bench.boot([options])?;
    has_offloads(guest(&mut bench)?)?;

    let host = Host {
        namespace: &namespace,
        address: HOST,
    };
    let (mut tx, mut rx) = ((0, 0), (0, 0));
    let data = host.send(guest(&mut bench)?, mebibytes)?;
    let received = mean_length(&mut bench, "rx", &mut rx)?;
    mean_length(&mut bench, "tx", &mut tx)?;
    tell("host to guest", mebibytes, data.time, received);
    let time = host.fetch(guest(&mut bench)?, &data)?;
    let sent = mean_length(&mut bench, "tx", &mut tx)?;
    tell("guest to host", mebibytes, time, sent);
    // Offloads were not only negotiated but used: these are longer than what
    // the MTU lets onto a wire.
    for (mean, way) in [(sent, "guest to host"), (received, "host to guest")] {
        if mean <= LONGEST as u64 {
            return Err(Error::new(format!("{way}: frames of {mean} bytes")));
        }
    }
    Ok(())
}

fn tell(way: &str, mebibytes: u32, time: Duration, mean: u64) {
    println!("tap: {way}: {mebibytes} MiB in {time:.1?}, frames of {mean} bytes, equal SHA-256");
}

fn beyond_a_veth() -> Result<()> {
    let near = Namespace::new()?;
    let far = Namespace::new()?;
    let mut bench = Bench::on_tap(&near)?;
    near.run("ip link add br0 type bridge")?;
    near.run(&format!(
        "ip link add veth0 type veth peer name veth1 netns {}",
        far.path()
    ))?;
    near.run("ethtool -K veth0 tx off tso off gso off")?;
    // Nor may the other end put together what arrived.
    far.run("ethtool -K veth1 gro off")?;
    for link in ["tap0", "veth0"] {
        near.run(&format!("ip link set {link} master br0 up"))?;
    }
    near.run("ip link set br0 up")?;
    far.run(&format!("ip address add {HOST}/24 dev veth1"))?;
    far.run("ip link set veth1 up")?;
    let capture = far.within(|| Ok(PacketSocket::new("veth1")?))?;

    let options = bench.options(1);
    bench.boot([options])?;
    has_offloads(guest(&mut bench)?)?;
    there_and_back(&mut bench, &far)?;
    expect_complete(&capture, 1)?;
    // There was something to cut up.
    let sent = mean_length(&mut bench, "tx", &mut (0, 0))?;
    if sent <= LONGEST as u64 {
        return Err(Error::new(format!("the guest sent {sent} bytes a frame")));
    }
    Ok(())
}

fn on_the_tap() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut bench = Bench::on_tap(&namespace)?;
    namespace.run(&format!("ip address add {HOST}/24 dev tap0"))?;
    let capture = namespace.within(|| Ok(PacketSocket::both_ways("tap0")?))?;
    let mut options = bench.options(1);
    options.device = NO_OFFLOADS.to_owned();
    bench.boot([options])?;
    there_and_back(&mut bench, &namespace)?;
    expect_complete(&capture, 2)
}

/// Sends the guest what is looked at, from `namespace`, and fetches it.
fn there_and_back(bench: &mut Bench, namespace: &Namespace) -> Result<()> {
    let host = Host {
        namespace,
        address: HOST,
    };
    let guest = guest(bench)?;
    let sent = host.send(guest, LOOKED_AT)?;
    host.fetch(guest, &sent)?;
    Ok(())
}

/// Judges all frames that were captured while `ways` times as much as is
/// looked at went over TCP. Nothing is missing: it has arrived, and a packet
/// socket that is full loses frames of the capture.
fn expect_complete(capture: &PacketSocket, ways: u64) -> Result<()> {
    let (mut frames, mut bytes) = (0u64, 0);
    while let Some(frame) = capture.recv(Duration::ZERO)? {
        let payload = judge(&frame).map_err(|error| error.while_doing(format!("{frame:02x?}")))?;
        frames += 1;
        bytes += payload as u64;
    }
    println!("tap: {frames} complete frames, {bytes} bytes of TCP");
    let wanted = ways * (u64::from(LOOKED_AT) << 20);
    if bytes < wanted {
        return Err(Error::new(format!("{bytes} bytes captured of {wanted}")));
    }
    Ok(())
}
