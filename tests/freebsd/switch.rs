//! The VALE switch of the core in user space.

use std::time::Instant;

use bed::{Census, Error, Result, Test};

use crate::drive::{NEVER, SOON, Served, carry, frame, options, received};

/// The most bytes that a frame of the switch has (65535 with the Ethernet
/// header), and lengths on the way there.
const LENGTHS: [usize; 9] = [60, 61, 64, 1514, 1515, 2048, 9014, 65534, 65535];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("switch::frames_cross_unchanged_mergeable", || crosses(true)),
        Test::new("switch::frames_cross_unchanged_one_buffer", || {
            crosses(false)
        }),
        Test::new("switch::two_vtgens_agree_on_their_counts", counts),
        Test::new("switch::what_a_session_held_is_given_back", given_back),
    ]
}

fn crosses(mergeable: bool) -> Result<()> {
    let served = Served::start(&["vale0:a,type=core,mtu=65521", "vale0:b,type=core,mtu=65521"])?;
    let options = options(mergeable, 65535);
    let mut a = served.drive(0, &options)?;
    let mut b = served.drive(1, &options)?;
    for len in LENGTHS {
        let frames: Vec<_> = (0..40).map(|number| frame(len, number)).collect();
        carry(a.pair(0), b.pair(0), &frames)?;
        carry(b.pair(0), a.pair(0), &frames)?;
    }
    if received(b.pair(0), NEVER).is_some() {
        return Err(Error::new("a frame arrived that nobody sent"));
    }
    Ok(())
}

fn counts() -> Result<()> {
    const FRAMES: u64 = 5000;
    let mut served = Served::start(&["vale0:a,type=core", "vale0:b,type=core"])?;
    let mac = "02:00:00:00:00:0b";
    let mut reflector = served.vtgen(1, &["-v", "--src-mac", mac, "reflect"])?;
    // It reports every second, so from the first report on it is there.
    reflector.errors.wait_for(0, SOON, |_| true)?;
    let mut asking = served.vtgen(
        0,
        &[
            "--dst-mac",
            mac,
            "--count",
            &FRAMES.to_string(),
            "--rate",
            "1k",
            "ping",
        ],
    )?;
    let status = asking.wait(SOON)?;
    if !status.success() {
        return Err(asking.explain(Error::new(status.to_string()), "ping"));
    }
    let counters = served.vtnetd.counters()?;
    // On a slow machine a receiver may have no buffers for a moment: what is
    // sent and does not arrive is counted as dropped.
    let mut sent = counters.sum("vale0:a tx", "frames");
    if sent != FRAMES {
        return Err(Error::new(format!("vtgen sent {FRAMES}, counted {sent}")));
    }
    for (from, to) in [("vale0:a tx", "vale0:b rx"), ("vale0:b tx", "vale0:a rx")] {
        let passed = counters.sum(from, "frames");
        let arrived = counters.sum(to, "frames");
        let dropped = counters.sum(to, "dropped");
        if passed != sent || arrived + dropped != sent {
            return Err(Error::new(format!(
                "{sent} sent: {from} counted {passed}, {to} {arrived} and {dropped} dropped"
            )));
        }
        // What arrived is sent back.
        sent = arrived;
    }
    reflector.stop(SOON)?;
    Ok(())
}

fn given_back() -> Result<()> {
    let served = Served::start(&["vale0:a,type=core", "vale0:b,type=core"])?;
    let before = served.vtnetd.census()?;
    for session in 0..20 {
        {
            let mut a = served.drive(0, &options(true, 1514))?;
            let mut b = served.drive(1, &options(true, 1514))?;
            carry(a.pair(0), b.pair(0), &[frame(60, session)])?;
            if served.vtnetd.census()? == before {
                return Err(Error::new("a session holds nothing"));
            }
        }
        at_rest(&served, &before)?;
    }
    Ok(())
}

/// Waits until vtnetd holds what it did `before`: a connection's end is noticed
/// a moment later.
fn at_rest(served: &Served, before: &Census) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let held = served.vtnetd.census()?;
        if held == *before {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::new(format!("{held:?} held, not {before:?}")));
        }
        std::thread::yield_now();
    }
}
