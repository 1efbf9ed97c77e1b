//! The kernel's VALE switches.

use std::sync::Arc;

use bed::{Census, Error, Result, Test};
use vtnetd::backend::host::{HostSide, InProcess};
use vtnetd::backend::netmap::{Kernel, NetmapHost, Source};
use vtnetd::driver::net::Pair;
use vtnetd::net::frame::MAX_FRAME;
use vtnetd::netmap::kernel::Device;
use vtnetd::netmap::port::{Direction, Port};
use vtnetd::virtio::spec::net as spec;

use crate::drive::{NEVER, SOON, Served, carry, frame, options, received, same};

/// Around the buffers' 2048 bytes, with and without a header of 12.
const LENGTHS: [usize; 10] = [60, 61, 1514, 2036, 2037, 2048, 2049, 9014, 65535, MAX_FRAME];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("vale::frames_cross_unchanged_mergeable", || {
            crosses(true, 1)
        }),
        Test::new("vale::frames_cross_unchanged_one_buffer", || {
            crosses(false, 1)
        }),
        Test::new("vale::frames_cross_unchanged_on_two_pairs", || {
            crosses(true, 2)
        }),
        Test::new("vale::two_vtgens_agree_on_their_counts", counts),
        Test::new("vale::another_program_on_the_switch", another_program),
        Test::new("vale::ports_go_with_the_process", gone),
        Test::new("vale::ports_come_and_go_within_a_process", openings),
    ]
}

fn crosses(mergeable: bool, queues: u16) -> Result<()> {
    let device = |port| format!("vale9:{port},type=kernel,queues={queues}");
    let mut served = Served::start(&[device("a"), device("b")])?;
    let mut options = options(mergeable, MAX_FRAME);
    // Or nothing longer than the MTU arrives.
    options.negotiation.features &= !spec::F_MTU;
    {
        let mut a = served.drive(0, &options)?;
        let mut b = served.drive(1, &options)?;
        for len in LENGTHS {
            let frames: Vec<_> = (0..16).map(|number| frame(len, number)).collect();
            carry(a.pair(0), b.pair(0), &frames)?;
            carry(b.pair(0), a.pair(0), &frames)?;
        }
        if received(b.pair(0), NEVER).is_some() {
            return Err(Error::new("a frame arrived that nobody sent"));
        }
    }
    agree(&mut served, "vale9:a tx", "vale9:b rx")?;
    agree(&mut served, "vale9:b tx", "vale9:a rx")
}

/// What one has sent, the other has received.
fn agree(served: &mut Served, sent: &str, received: &str) -> Result<()> {
    let counters = served.vtnetd.counters()?;
    let total = 16 * LENGTHS.len() as u64;
    let counted =
        [(sent, "frames"), (received, "frames")].map(|(queues, name)| counters.sum(queues, name));
    if counted != [total, total] {
        return Err(Error::new(format!(
            "{sent} counted {}, {received} {}, not {total}",
            counted[0], counted[1]
        )));
    }
    Ok(())
}

fn counts() -> Result<()> {
    const FRAMES: &str = "2000";
    let mut served = Served::start(&["vale9:a,type=kernel", "vale9:b,type=kernel"])?;
    let mac = "02:00:00:00:00:0b";
    let mut reflector = served.vtgen(1, &["-v", "--src-mac", mac, "reflect"])?;
    // It reports every second, so from the first report on it is there.
    reflector.errors.wait_for(0, SOON, |_| true)?;
    let mut asking = served.vtgen(
        0,
        &["--dst-mac", mac, "--count", FRAMES, "--rate", "500", "ping"],
    )?;
    let status = asking.wait(SOON)?;
    if !status.success() {
        return Err(asking.explain(Error::new(status.to_string()), "ping"));
    }
    let counters = served.vtnetd.counters()?;
    for queues in ["vale9:a tx", "vale9:b rx", "vale9:b tx", "vale9:a rx"] {
        let counted = counters.sum(queues, "frames");
        if counted.to_string() != FRAMES {
            return Err(Error::new(format!(
                "{queues} counted {counted}, not {FRAMES}"
            )));
        }
    }
    reflector.stop(SOON)?;
    Ok(())
}

/// A program that knows nothing of virtio-net headers, on a port of its own.
fn another_program() -> Result<()> {
    let served = Served::start(&["vale9:a,type=kernel"])?;
    let side: Box<dyn HostSide> = Box::new(wrong(NetmapHost::new("vale9:other", 1))?);
    let other = wrong(Kernel::new(InProcess::new(side)).open())?;
    let other = Arc::clone(&other.ports[0]);
    let mut a = served.drive(0, &options(true, 1514))?;
    for len in [60, 1514] {
        let frame = frame(len, len);
        send(&mut *a.pair(0), &frame)?;
        same(await_frame(&*other)?, &frame)?;
        put(&*other, &frame)?;
        same(received(a.pair(0), SOON), &frame)?;
    }
    Ok(())
}

fn send(pair: &mut Pair, frame: &[u8]) -> Result<()> {
    let sent = pair.tx.send_batch(std::iter::once(frame));
    sent.map_err(|error| Error::new(error.to_string()))?;
    pair.tx
        .drain()
        .map_err(|error| Error::new(error.to_string()))?;
    Ok(())
}

/// Puts a frame of one buffer into the first transmit ring.
fn put(port: &dyn Port, frame: &[u8]) -> Result<()> {
    let ring = port.ring(Direction::Tx, 0).unwrap();
    let at = ring.head();
    let mut slot = ring.slot(at).unwrap();
    ring.buffer(slot.buf_idx).unwrap().write(frame);
    slot.len = u16::try_from(frame.len()).unwrap();
    slot.flags = 0;
    ring.set_slot(at, slot).unwrap();
    ring.set_cur(ring.next(at));
    ring.set_head(ring.next(at));
    port.txsync()?;
    Ok(())
}

/// The next frame of one buffer in the first receive ring.
fn await_frame(port: &dyn Port) -> Result<Option<Vec<u8>>> {
    use vtnetd::event::{Events, Interest, Poller};
    let poller = Poller::new()?;
    poller.add(port.fd(), 0, Interest::READ_EDGE)?;
    let mut events = Events::new();
    while !port.listen()? {
        poller.wait(&mut events, Some(SOON))?;
        if events.is_empty() {
            return Ok(None);
        }
    }
    let ring = port.ring(Direction::Rx, 0).unwrap();
    let at = ring.head();
    let slot = ring.slot(at).unwrap();
    let mut frame = vec![0; slot.len.into()];
    let buffer = ring.buffer(slot.buf_idx).unwrap();
    buffer.as_readable().read(&mut frame);
    ring.set_cur(ring.next(at));
    ring.set_head(ring.next(at));
    Ok(Some(frame))
}

/// How often something is repeated: `usual`, or what VTNETD_ROUNDS says. To
/// make a port takes an emulated machine's kernel near half a second.
fn rounds(usual: usize) -> usize {
    let asked = std::env::var("VTNETD_ROUNDS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Nothing stays on the switch when the process is gone.
fn gone() -> Result<()> {
    let control = Device::open()?;
    for _ in 0..rounds(5) {
        let served = Served::start(&["vale9:a,type=kernel,queues=2"])?;
        control.header_len("vale9:a")?;
        served.vtnetd.stop()?;
        if control.header_len("vale9:a").is_ok() {
            return Err(Error::new("vale9:a is there after its process"));
        }
    }
    Ok(())
}

/// Ports that come and go within one process.
fn openings() -> Result<()> {
    let own = std::process::id();
    let control = Device::open()?;
    let mut before = None;
    for _ in 0..rounds(20) {
        let side: Box<dyn HostSide> = Box::new(wrong(NetmapHost::new("vale9:a", 1))?);
        let opening = wrong(Kernel::new(InProcess::new(side)).open())?;
        if opening.ports.len() != 1 {
            return Err(Error::new("vale9:a has not one ring"));
        }
        drop(opening);
        // What the first one has left for all, such as a library's memory.
        if before.is_none() {
            before = Some(Census::of(own)?);
        }
    }
    let after = Census::of(own)?;
    if before
        .as_ref()
        .is_some_and(|before| before.descriptors != after.descriptors)
    {
        return Err(Error::new(format!("{before:?}, then {after:?}")));
    }
    if control.header_len("vale9:a").is_ok() {
        return Err(Error::new("vale9:a is still there"));
    }
    Ok(())
}

fn wrong<T>(result: std::result::Result<T, vtnetd::backend::OpenError>) -> Result<T> {
    result.map_err(|error| Error::new(error.to_string()))
}
