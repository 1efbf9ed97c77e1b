//! Frames over a persistent port that is on two switches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use vtnetd::netmap::mem::RegionConfig;
use vtnetd::netmap::register::{Netmap, Request};
use vtnetd::netmap::vale::Switches;

use crate::client::{BROADCAST, Client, core, frame};

/// A core whose switches `valeA` and `valeB` are joined by the port `per0`.
fn joined() -> Arc<Netmap> {
    let core = core(2048);
    join(&core);
    core
}

pub fn join(core: &Netmap) {
    core.new_interface(&Request::new("per0")).unwrap();
    for name in ["valeA:per0", "valeB:per0"] {
        core.attach_interface(&Request::new(name)).unwrap();
    }
}

fn clients<const N: usize>(core: &Arc<Netmap>, names: [&str; N]) -> [Client; N] {
    names.map(|name| Client::new(core, name))
}

#[test]
fn switches_that_are_joined_are_like_one() {
    let core = joined();
    let [a, near, far] = clients(&core, ["valeA:a", "valeA:near", "valeB:far"]);
    let one = |client: &Client| client.receive();
    a.send(&[frame(BROADCAST, 1, 60)]);
    for client in [&near, &far] {
        assert_eq!(one(client), [frame(BROADCAST, 1, 60)]);
    }
    near.send(&[frame(1, 2, 61)]);
    assert_eq!((one(&a), one(&far)), (vec![frame(1, 2, 61)], vec![]));
    // Of one batch each gets what is for it, and all of what is for all.
    far.send(&[frame(1, 3, 62)]);
    assert_eq!((one(&a), one(&near)), (vec![frame(1, 3, 62)], vec![]));
    let sent = [
        frame(2, 1, 70),
        frame(3, 1, 71),
        frame(BROADCAST, 1, 72),
        frame(2, 1, 73),
        frame(3, 1, 5000),
    ];
    a.send(&sent);
    assert!(one(&near) == [0, 2, 3].map(|at| sent[at].clone()));
    assert!(one(&far) == [1, 2, 4].map(|at| sent[at].clone()));
    assert_eq!(one(&a).len(), 0, "nothing comes back");
}

#[test]
fn nothing_passes_before_or_after() {
    let core = joined();
    let [a, far] = clients(&core, ["valeA:a", "valeB:far"]);
    core.detach_interface("valeB:per0").unwrap();
    a.send(&[frame(BROADCAST, 1, 60)]);
    assert_eq!(far.receive().len(), 0);
    // What is for it is its own again.
    let own = Client::new(&core, "per0");
    a.send(&[frame(BROADCAST, 1, 61)]);
    assert_eq!((own.receive().len(), far.receive().len()), (1, 0));
    own.send(&[frame(BROADCAST, 9, 62)]);
    assert_eq!((a.receive().len(), far.receive().len()), (1, 0));
}

#[test]
fn ports_on_the_way_count_what_passes() {
    let switches = Arc::new(Switches::default());
    let core = Arc::new(Netmap::new(Arc::clone(&switches), RegionConfig::global()));
    join(&core);
    let [a, far] = clients(&core, ["valeA:a", "valeB:far"]);
    far.send(&[frame(BROADCAST, 3, 60)]);
    a.receive();
    a.send(&[frame(3, 1, 100), frame(3, 1, 200)]);
    assert_eq!(far.receive().len(), 2);
    let count = |switch: &str| {
        let (_, switch) = switches.find(switch).unwrap();
        let mut ports = switch.statistics().into_iter();
        let port = ports.find(|port| port.name == "per0").unwrap();
        let frames = (port.in_frames, port.out_frames);
        (frames, (port.in_bytes, port.out_bytes), port.dropped)
    };
    assert_eq!(count("valeA"), ((1, 2), (60, 300), 0));
    assert_eq!(count("valeB"), ((2, 1), (300, 60), 0));
}

/// Senders on both sides, while the switches are joined and parted again and
/// again: whatever comes is whole and in order, and all of it once it stays.
#[test]
fn switches_are_joined_and_parted_while_frames_pass() {
    let core = joined();
    let stop = AtomicBool::new(false);
    let names = [("valeA:a", "valeB:x"), ("valeB:b", "valeA:y")];
    thread::scope(|scope| {
        for (nth, (from, to)) in (1..).zip(names) {
            let (core, stop) = (&core, &stop);
            scope.spawn(move || {
                let [from, to] = clients(core, [from, to]);
                let mut last = 0;
                let mut number: u32 = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let mut sent = frame(BROADCAST, nth, 64);
                    sent[60..].copy_from_slice(&number.to_be_bytes());
                    from.send(&[&sent]);
                    for got in to.receive().iter().filter(|got| got[11] == nth) {
                        let number = u32::from_be_bytes(got[60..].try_into().unwrap());
                        assert!(number > last && got[..60] == sent[..60]);
                        last = number;
                    }
                }
            });
        }
        for _ in 0..2000 {
            core.detach_interface("valeB:per0").unwrap();
            core.attach_interface(&Request::new("valeB:per0")).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let [a, far] = clients(&core, ["valeA:a", "valeB:far"]);
    a.send(&[frame(BROADCAST, 1, 60)]);
    assert_eq!(far.receive().len(), 1);
}
