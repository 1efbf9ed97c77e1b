//! Interfaces in netmap mode.

pub mod life;

use std::ffi::CString;

use bed::freebsd::{Interface, Setting, module, run};
use bed::{Error, Result, Test};
use vtnetd::backend::host::HostSide;
use vtnetd::backend::netmap::NetmapHost;
use vtnetd::ffi;
use vtnetd::virtio::spec::net;

use crate::drive::{NEVER, SOON, Served, carry, frame, options, received, same};

/// What one buffer of netmap holds (dev.netmap.buf_size).
const BUFFER: usize = 2048;

pub fn tests() -> Vec<Test> {
    let mut tests = vec![
        Test::new("netmap::frames_cross_an_epair_mergeable", || epair(true, 1)),
        Test::new("netmap::frames_cross_an_epair_one_buffer", || {
            epair(false, 1)
        }),
        Test::new("netmap::frames_cross_an_epair_on_two_pairs", || {
            epair(true, 2)
        }),
        Test::new(
            "netmap::each_pair_has_a_ring_where_there_are_two",
            two_rings,
        ),
        Test::new("netmap::a_nic_with_two_queues", two_queues),
        Test::new("netmap::pipes_take_long_frames", pipe),
        Test::new("netmap::an_interface_that_goes_and_returns", returns),
        Test::new("netmap::what_there_is_not", missing),
        Test::new("netmap::registered_as_nm_open_does", as_nm_open),
        Test::new("netmap::vtnet_on_one_segment", || nics("vtnet0", "vtnet1")),
        Test::new("netmap::em_on_one_segment", || nics("em0", "em1")),
        Test::new("netmap::em_with_long_frames", || long("em0", "em1")),
    ];
    tests.extend(life::tests());
    tests
}

/// Two devices, each on one end; frames of `over` bytes are too long for them.
fn between(
    ends: [&str; 2],
    mergeable: bool,
    queues: u16,
    lengths: &[usize],
    over: usize,
) -> Result<()> {
    let names = ends.map(|end| format!("netmap:{end}"));
    let devices = names
        .each_ref()
        .map(|name| format!("{name},queues={queues}"));
    let mut served = Served::start(&devices)?;
    let mut options = options(mergeable, over.max(4096));
    // Or nothing longer than the MTU arrives.
    options.negotiation.features &= !net::F_MTU;
    {
        let mut a = served.drive(0, &options)?;
        let mut b = served.drive(1, &options)?;
        for len in lengths {
            let frames: Vec<_> = (0..16).map(|number| frame(*len, number)).collect();
            carry(a.pair(0), b.pair(0), &frames)?;
            carry(b.pair(0), a.pair(0), &frames)?;
        }
        let long = frame(over, 0);
        let sent = a.pair(0).tx.send_batch(std::iter::once(long.as_slice()));
        sent.map_err(|error| Error::new(error.to_string()))?;
        if received(b.pair(0), NEVER).is_some() {
            return Err(Error::new("a frame arrived that is too long"));
        }
    }
    let counters = served.vtnetd.counters()?;
    let total = 16 * lengths.len() as u64;
    let tx = format!("{} tx", names[0]);
    let rx = format!("{} rx", names[1]);
    for (queues, name, want) in [
        (&tx, "frames", total),
        (&tx, "dropped", 1),
        (&rx, "frames", total),
    ] {
        let counted = counters.sum(queues, name);
        if counted != want {
            return Err(Error::new(format!(
                "{queues}: {name}={counted}, not {want}"
            )));
        }
    }
    Ok(())
}

/// An epair whose stack sends nothing by itself.
pub fn quiet_epair() -> Result<(Interface, String)> {
    module("if_epair")?;
    let (first, second) = Interface::epair()?;
    for end in [first.name(), &second] {
        run(&format!("ifconfig {end} inet6 ifdisabled promisc"))?;
        // Longer frames than this and the header the interface drops.
        run(&format!("ifconfig {end} mtu {}", BUFFER - 14))?;
    }
    Ok((first, second))
}

fn epair(mergeable: bool, queues: u16) -> Result<()> {
    let (first, second) = quiet_epair()?;
    let lengths = [60, 61, 1514, BUFFER - 1, BUFFER];
    // One byte more than a buffer has.
    let over = BUFFER + 1;
    between([first.name(), &second], mergeable, queues, &lengths, over)
}

/// The emulation gives an interface as many rings as it is told.
fn two_rings() -> Result<()> {
    let _two = Setting::set("dev.netmap.generic_rings", "2")?;
    let (first, second) = quiet_epair()?;
    let names = [first.name(), &second].map(|end| format!("netmap:{end}"));
    if rings(&names[0])? != [2, 2] {
        return Err(Error::new("the emulation has not two rings"));
    }
    let served = Served::start(&names.each_ref().map(|name| format!("{name},queues=2")))?;
    let mut options = options(true, 1514);
    options.pairs = 2;
    let mut a = served.drive(0, &options)?;
    let mut b = served.drive(1, &options)?;
    for pair in [0, 1] {
        // What is sent on a ring comes in on the ring of that number.
        for number in 0..50 {
            carry(a.pair(pair), b.pair(pair), &[frame(60 + number, pair)])?;
            carry(b.pair(pair), a.pair(pair), &[frame(60 + number, pair)])?;
        }
    }
    Ok(())
}

/// vtnet2 of the test machine: two queues, and nobody at the other end.
fn two_queues() -> Result<()> {
    let name = "vtnet2";
    let pairs = run(&format!("sysctl -n dev.vtnet.{}.max_vq_pairs", &name[5..]));
    if pairs.map_or(true, |pairs| pairs.trim() != "2") {
        return Err(Error::missing(format!("no {name} with two queues")));
    }
    run(&format!(
        "ifconfig {name} inet6 ifdisabled promisc -rxcsum -txcsum -rxcsum6 -txcsum6 -tso -lro up"
    ))?;
    let port = format!("netmap:{name}");
    if rings(&port)? != [2, 2] || rings(&format!("{port}-1"))? != [1, 1] {
        return Err(Error::new(format!("{port} has not two rings")));
    }
    let mut served = Served::start(&[format!("{port},queues=2")])?;
    {
        let mut options = options(true, 1514);
        options.pairs = 2;
        let mut driver = served.drive(0, &options)?;
        for pair in [0, 1] {
            let frames: Vec<_> = (0..200).map(|number| frame(60, number)).collect();
            for some in frames.chunks(20) {
                let tx = &mut driver.pair(pair).tx;
                let sent = tx.send_batch(some.iter().map(Vec::as_slice));
                sent.map_err(|error| Error::new(error.to_string()))?;
                tx.drain().map_err(|error| Error::new(error.to_string()))?;
            }
        }
    }
    let counters = served.vtnetd.counters()?;
    for queue in ["tx0", "tx1"] {
        let queue = format!("{port} {queue}");
        let [frames, dropped] = ["frames", "dropped"].map(|name| counters.sum(&queue, name));
        if [frames, dropped] != [200, 0] {
            return Err(Error::new(format!("{queue}: {frames} sent, {dropped} not")));
        }
    }
    Ok(())
}

/// A pipe below an epair: as many buffers as a frame may have.
fn pipe() -> Result<()> {
    let (first, _second) = quiet_epair()?;
    let name = first.name();
    let devices = ["{7", "}7"].map(|end| format!("netmap:{name}{end}"));
    let served = Served::start(&devices)?;
    let mut options = options(true, 65535);
    options.negotiation.features &= !net::F_MTU;
    let mut a = served.drive(0, &options)?;
    let mut b = served.drive(1, &options)?;
    for len in [60, BUFFER, BUFFER + 1, 9014, 65535] {
        let frames: Vec<_> = (0..4).map(|number| frame(len, number)).collect();
        carry(a.pair(0), b.pair(0), &frames)?;
        carry(b.pair(0), a.pair(0), &frames)?;
    }
    Ok(())
}

fn returns() -> Result<()> {
    let (first, second) = quiet_epair()?;
    let name = first.name().to_owned();
    let ends = [name.as_str(), &second].map(|end| format!("netmap:{end}"));
    let mut served = Served::start(&ends)?;
    let options = options(true, 2048);
    let mut a = served.drive(0, &options)?;
    let mut b = served.drive(1, &options)?;
    carry(a.pair(0), b.pair(0), &[frame(60, 1)])?;
    first.destroy()?;
    served.vtnetd.wait_for_log("gone from the host")?;
    let again = Interface::create(name.trim_end_matches('a'))?;
    if again.name() != name {
        return Err(Error::new(format!("{name} came back as {}", again.name())));
    }
    for end in [&name, &second] {
        run(&format!("ifconfig {end} inet6 ifdisabled promisc up"))?;
    }
    for _ in 0..2 {
        served.vtnetd.wait_for_log("back on the host")?;
    }
    let again = frame(61, 2);
    let sent = a.pair(0).tx.send_batch(std::iter::once(again.as_slice()));
    sent.map_err(|error| Error::new(error.to_string()))?;
    same(received(b.pair(0), SOON), &again)
}

fn missing() -> Result<()> {
    let mut host =
        NetmapHost::new("netmap:nothere0", 1).map_err(|error| Error::new(error.to_string()))?;
    match host.open() {
        Ok(_) => Err(Error::new("an interface was opened that is not there")),
        Err(error) if error.to_string().contains("there is no such interface") => Ok(()),
        Err(error) => Err(Error::new(error.to_string())),
    }
}

/// The rings that a name binds are those that `nm_open` binds by it.
fn as_nm_open() -> Result<()> {
    let (first, _second) = quiet_epair()?;
    for suffix in ["", "-0", "^", "*", "/R", "/T", "{1", "}1"] {
        let name = format!("netmap:{}{suffix}", first.name());
        let text = CString::new(name.as_str()).unwrap();
        // SAFETY: a string with a NUL at its end.
        let theirs = unsafe { ffi::vtnetd_nm_open(text.as_ptr()) };
        if theirs.is_null() {
            return Err(Error::new(format!("{name}: nm_open fails")));
        }
        let count = |index: fn(*mut ffi::netmap_if, u32) -> *mut ffi::netmap_ring| {
            // SAFETY: it stays open until below, and its memory mapped.
            let port = unsafe { (*theirs).nifp };
            // Rings that are not bound are nowhere: where the port itself is.
            (0..2)
                .filter(|ring| !std::ptr::addr_eq(index(port, *ring), port))
                .count()
        };
        // SAFETY: there are two rings of each direction, one the host's.
        let tx = count(|port, ring| unsafe { ffi::vtnetd_netmap_txring(port, ring) });
        // SAFETY: as above.
        let rx = count(|port, ring| unsafe { ffi::vtnetd_netmap_rxring(port, ring) });
        // SAFETY: nothing of it is used any more.
        unsafe { ffi::vtnetd_nm_close(theirs) };
        let ours = rings(&name)?;
        if ours != [tx, rx] {
            return Err(Error::new(format!(
                "{name}: {ours:?} rings are bound, nm_open has {tx} and {rx}"
            )));
        }
    }
    Ok(())
}

/// How many rings of each direction a back end has.
fn rings(name: &str) -> Result<[usize; 2]> {
    use vtnetd::backend::host::InProcess;
    use vtnetd::backend::netmap::{Kernel, Source};
    use vtnetd::netmap::port::Direction;
    let host = NetmapHost::new(name, 1).map_err(|error| Error::new(error.to_string()))?;
    let opening = Kernel::new(InProcess::new(Box::new(host)))
        .open()
        .map_err(|error| Error::new(error.to_string()))?;
    Ok([Direction::Tx, Direction::Rx].map(|direction| {
        let ports = opening.ports.iter();
        ports.map(|port| port.ring_count(direction)).sum()
    }))
}

/// Two NICs that hear each other.
fn nics(first: &str, second: &str) -> Result<()> {
    up(&[first, second])?;
    between([first, second], true, 1, &[60, 61, 1514], BUFFER + 1)
}

/// NICs with frames of several buffers.
fn long(first: &str, second: &str) -> Result<()> {
    const MTU: usize = 9000;
    up(&[first, second])?;
    // As long as the driver's own, or netmap does not take the interface.
    let _long = Setting::set("dev.netmap.buf_size", "4096")?;
    let _few = Setting::set("dev.netmap.buf_num", "16384")?;
    for name in [first, second] {
        run(&format!("ifconfig {name} mtu {MTU}"))?;
    }
    // The kernel makes such buffers, and takes the others away, for the first
    // who opens a port; that can take longer than a start may.
    rings(&format!("netmap:{first}"))?;
    // With a VLAN tag that the MTU does not count.
    let longest = MTU + 14 + 4;
    let lengths = [60, 1514, 4095, 4096, 4097, 8192, 8193, MTU + 14, longest];
    let crossed = between([first, second], true, 1, &lengths, longest + 1);
    for name in [first, second] {
        run(&format!("ifconfig {name} mtu 1500"))?;
    }
    crossed
}

/// Has NICs leave nothing to their hardware.
fn up(names: &[&str]) -> Result<()> {
    for name in names {
        if run(&format!("ifconfig {name}")).is_err() {
            return Err(Error::missing(format!("no {name} on this machine")));
        }
        run(&format!(
            "ifconfig {name} inet6 ifdisabled promisc -rxcsum -txcsum -rxcsum6 -txcsum6 -tso -lro up"
        ))?;
    }
    Ok(())
}
