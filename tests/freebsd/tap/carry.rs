//! Frames of every size, both ways, and counts that agree.

use bed::freebsd::Interface;
use bed::{Result, Test};
use vtnetd::driver::net::{NetDriver, NetOptions, Pair};
use vtnetd::virtio::spec::net;

use super::{LONGEST, MTU, served};
use crate::drive::{NEVER, SOON, frame};

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (kind, first, second) in [("tap", "tap70", "tap71"), ("vmnet", "vmnet70", "vmnet71")] {
        for (how, mergeable) in [("mergeable", true), ("one_buffer", false)] {
            let name = format!("{kind}::every_size_crosses_a_bridge_{how}");
            tests.push(Test::new(name, move || crosses(first, second, mergeable)));
        }
    }
    tests.push(Test::new(
        "tap::further_pairs_send_through_the_same_interface",
        pairs,
    ));
    tests
}

/// Short ones, those around page and cluster sizes, a selection of the rest.
fn sizes() -> impl Iterator<Item = usize> {
    let near = (11..16).flat_map(|bit| (1 << bit) - 3..(1 << bit) + 3);
    let rest = (2000..LONGEST).step_by(2477);
    (60..70)
        .chain(1500..1530)
        .chain(near)
        .chain(rest)
        .chain([LONGEST - 1, LONGEST])
}

fn options(mergeable: bool) -> NetOptions {
    let mut options = NetOptions {
        max_frame: LONGEST + 1,
        rx_buffer: if mergeable { 1536 } else { LONGEST + 12 },
        ring_size: if mergeable { 256 } else { 16 },
        ..NetOptions::default()
    };
    if !mergeable {
        options.negotiation.features &= !net::F_MRG_RXBUF;
    }
    options
}

/// The next frame of the tests: the host says something of its own as well.
pub fn received(pair: &mut Pair, within: std::time::Duration) -> Option<Vec<u8>> {
    loop {
        let frame = pair.rx.recv(within).expect("the ring goes on")?.frame;
        if frame[12..14] == [0x88, 0xb5] {
            return Some(frame);
        }
    }
}

fn crosses(first: &str, second: &str, mergeable: bool) -> Result<()> {
    let mut served = served(&[first, second], MTU)?;
    let _bridge = Interface::bridge(&[first, second])?;
    let options = options(mergeable);
    let mut guests = [served.drive(0, &options)?, served.drive(1, &options)?];
    let mut sent = 0u64;
    for len in sizes() {
        for from in [0, 1] {
            let frame = frame(len, len + from);
            guests[from].pair(0).tx.send(&frame).unwrap();
            let got = received(guests[1 - from].pair(0), SOON);
            assert!(got.as_ref() == Some(&frame), "{len} bytes from {from}");
        }
        sent += 1;
    }
    let over = frame(LONGEST + 1, 0);
    for guest in &mut guests {
        guest.pair(0).tx.send(&over).unwrap();
        guest.pair(0).tx.drain().unwrap();
    }
    for guest in &mut guests {
        assert!(received(guest.pair(0), NEVER).is_none(), "one over arrived");
    }
    let counters = served.vtnetd.counters()?;
    for (index, name) in [first, second].into_iter().enumerate() {
        let other = [second, first][index];
        assert_eq!(counters.sum(&format!("{name} tx"), "frames"), sent);
        assert_eq!(counters.sum(&format!("{name} tx"), "dropped"), 1);
        // The kernel may have said something of its own.
        let got = counters.sum(&format!("{name} rx"), "frames");
        assert!(
            got >= counters.sum(&format!("{other} tx"), "frames"),
            "{got}"
        );
        assert_eq!(counters.sum(&format!("{name} rx"), "too_long"), 0);
    }
    Ok(())
}

fn pairs() -> Result<()> {
    let mut served = served(&["tap70,queues=4", "tap71"], 1500)?;
    let _bridge = Interface::bridge(&["tap70", "tap71"])?;
    let mut four = options(true);
    four.pairs = 4;
    four.negotiation.features |= net::F_CTRL_VQ | net::F_MQ;
    let mut many: NetDriver = served.drive(0, &four)?;
    many.control()
        .expect("a control queue")
        .set_pairs(4)
        .unwrap();
    let mut one = served.drive(1, &options(true))?;
    for pair in 0..4 {
        let there = frame(100, pair);
        many.pair(pair).tx.send(&there).unwrap();
        assert!(received(one.pair(0), SOON) == Some(there), "pair {pair}");
        let back = frame(200, pair);
        one.pair(0).tx.send(&back).unwrap();
        assert!(received(many.pair(0), SOON) == Some(back));
    }
    assert_eq!(served.vtnetd.counters()?.sum("tap70 tx", "frames"), 4);
    Ok(())
}
