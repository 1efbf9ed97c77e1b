//! The kernel's VALE switches.

mod client;
mod life;
mod offloads;
mod syncs;

use std::time::Instant;

use bed::{Error, Result, Test};
use vtnetd::driver::net::Pair;
use vtnetd::net::frame::MAX_FRAME;
use vtnetd::netmap::port::HeaderLen;
use vtnetd::virtio::spec::net as spec;

use client::Client;

use crate::drive::{NEVER, SOON, Served, carry, frame, options, received, same};

/// Bytes of a buffer (dev.netmap.priv_buf_size).
const BUFFER: usize = 2048;
/// Around the buffers' 2048 bytes, with and without a header of 12.
const LENGTHS: [usize; 10] = [60, 61, 1514, 2036, 2037, 2048, 2049, 9014, 65535, MAX_FRAME];

pub fn tests() -> Vec<Test> {
    let mut tests = vec![
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
        Test::new("vale::what_is_too_long_is_counted", too_long),
    ];
    tests.extend(life::tests());
    tests.extend(offloads::tests());
    tests.extend(syncs::tests());
    tests
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

/// One without virtio-net headers, and one as bhyve(8) has it with some guests.
fn another_program() -> Result<()> {
    for header in [HeaderLen::None, HeaderLen::Legacy, HeaderLen::Full] {
        let mut served = Served::start(&["vale9:a,type=kernel"])?;
        let other = Client::new("vale9:other", header)?;
        let mut options = options(true, MAX_FRAME);
        options.negotiation.features &= !spec::F_MTU;
        let mut a = served.drive(0, &options)?;
        let mut lost = 0;
        for len in LENGTHS {
            let frame = frame(len, len);
            send(&mut *a.pair(0), &frame)?;
            let got = other.recv()?;
            same(got, &frame).map_err(|error| Error::new(format!("{header:?}: {error}")))?;
            other.send(&frame)?;
            if header != HeaderLen::Full && header.bytes() + len > BUFFER - (12 - header.bytes()) {
                // The kernel says that the first buffer holds more than it can.
                lost += 1;
                continue;
            }
            let got = received(a.pair(0), SOON);
            same(got, &frame).map_err(|error| Error::new(format!("from {header:?}: {error}")))?;
        }
        // The last one is noticed a moment later.
        let until = Instant::now() + SOON;
        loop {
            let counters = served.vtnetd.counters()?;
            let counted = counters.sum("vale9:a rx", "malformed");
            if counted == lost {
                break;
            }
            if Instant::now() > until {
                return Err(Error::new(format!(
                    "{header:?}: malformed={counted}, not {lost}"
                )));
            }
        }
    }
    Ok(())
}

/// One byte more than a frame has, from the guest and from the switch; what
/// follows arrives.
fn too_long() -> Result<()> {
    let mut served = Served::start(&["vale9:a,type=kernel", "vale9:b,type=kernel"])?;
    let other = Client::new("vale9:other", HeaderLen::Full)?;
    for (round, mergeable) in (1..).zip([true, false]) {
        let mut options = options(mergeable, MAX_FRAME + 1);
        options.negotiation.features &= !spec::F_MTU;
        let mut a = served.drive(0, &options)?;
        let mut b = served.drive(1, &options)?;
        send(&mut *a.pair(0), &frame(MAX_FRAME + 1, 1))?;
        send(&mut *a.pair(0), &frame(60, 2))?;
        same(received(b.pair(0), SOON), &frame(60, 2))?;
        same(other.recv()?, &frame(60, 2))?;
        other.send(&frame(MAX_FRAME + 1, 3))?;
        other.send(&frame(MAX_FRAME, 4))?;
        same(received(a.pair(0), SOON), &frame(MAX_FRAME, 4))?;
        same(received(b.pair(0), SOON), &frame(MAX_FRAME, 4))?;
        let counters = served.vtnetd.counters()?;
        for (queues, name) in [
            ("vale9:a tx", "bad_length"),
            ("vale9:a rx", "too_long"),
            ("vale9:b rx", "too_long"),
        ] {
            let counted = counters.sum(queues, name);
            if counted != round {
                return Err(Error::new(format!(
                    "{queues}: {name}={counted}, not {round}"
                )));
            }
        }
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

fn wrong<T>(result: std::result::Result<T, vtnetd::backend::OpenError>) -> Result<T> {
    result.map_err(|error| Error::new(error.to_string()))
}
