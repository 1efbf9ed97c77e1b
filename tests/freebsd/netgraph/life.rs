//! Nodes that come and go.

use std::process::Command;

use bed::freebsd::run;
use bed::{Census, Scratch, Vtnetd, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vtnetd::backend;
use vtnetd::driver::net::{NetDriver, NetOptions};
use vtnetd::netmap::vale::Switches;

use super::bed::{
    GUEST, Middle, PEER, Peer, count, frame, is_link_up, ngctl, served, socket_nodes,
};
use crate::drive::{SOON, rounds};

/// A frame each way.
fn frames_cross(guest: &mut NetDriver, peer: &Peer, seed: u32) {
    let pair = guest.pair(0);
    let out = frame(PEER, GUEST, seed, 1514);
    pair.tx.send(&out).unwrap();
    assert!(peer.recv() == Some(out), "frame {seed} did not come out");
    let back = frame(GUEST, PEER, seed + 1, 1514);
    peer.send(&back);
    let got = pair.rx.recv(SOON).unwrap().expect("no frame came in");
    assert!(got.frame == back, "frame {seed} did not come in");
}

pub fn a_node_that_is_shut_down_is_found_again() {
    let mut middle = Some(Middle::new("bridge"));
    let mut served = served(",node=vtnetdvm");
    let mut guest = served.drive(0, &NetOptions::default()).unwrap();
    let peer = Peer::new("link2");
    frames_cross(&mut guest, &peer, 1);
    for round in 0..3 {
        drop(middle.take());
        let lost = served.vtnetd.wait_for_log("gone from the host").unwrap();
        assert!(lost.contains("netgraph:vtnetdtest:link1"), "{lost}");
        assert!(!is_link_up(&mut guest));
        assert_eq!(socket_nodes(), Vec::<String>::new());
        // Taken and thrown away.
        let pair = guest.pair(0);
        pair.tx.send(&frame(PEER, GUEST, 2, 60)).unwrap();
        pair.tx.drain().unwrap();
        middle = Some(Middle::new("bridge"));
        served.vtnetd.wait_for_log("back on the host").unwrap();
        assert!(is_link_up(&mut guest));
        assert_eq!(socket_nodes().len(), 1);
        frames_cross(&mut guest, &Peer::new("link2"), 10 + round);
    }
    assert!(served.vtnetd.stop().unwrap().success());
    assert_eq!(socket_nodes(), Vec::<String>::new());
}

pub fn a_hook_that_is_taken_away() {
    let _middle = Middle::new("hub");
    let mut served = served("");
    let mut guest = served.drive(0, &NetOptions::default()).unwrap();
    let peer = Peer::new("link2");
    frames_cross(&mut guest, &peer, 1);
    drop(ngctl(&format!("rmhook {}: link1\n", Middle::NAME)));
    served.vtnetd.wait_for_log("gone from the host").unwrap();
    served.vtnetd.wait_for_log("back on the host").unwrap();
    assert!(is_link_up(&mut guest));
    frames_cross(&mut guest, &peer, 3);
}

/// With a second hook our node cannot tell where frames are to go, so it is
/// ended and made anew, with the name that it had.
pub fn a_hook_that_nobody_asked_for() {
    let _middle = Middle::new("hub");
    let mut served = served(",node=vtnetdvm,hook=ours");
    let mut guest = served.drive(0, &NetOptions::default()).unwrap();
    let peer = Peer::new("link2");
    frames_cross(&mut guest, &peer, 1);
    let connected = ngctl(&format!(
        "connect vtnetdvm: {}: extra link7\n",
        Middle::NAME
    ));
    assert!(connected.status.success(), "{connected:?}");
    let pair = guest.pair(0);
    pair.tx.send(&frame(PEER, GUEST, 2, 60)).unwrap();
    pair.tx.drain().unwrap();
    served.vtnetd.wait_for_log("back on the host").unwrap();
    assert!(is_link_up(&mut guest));
    frames_cross(&mut guest, &peer, 3);
    let nodes = socket_nodes();
    let named = nodes.iter().filter(|line| line.contains("Name: vtnetdvm"));
    assert_eq!(named.count(), 1, "{nodes:?}");
    assert_eq!(count(&mut served, "link1", "tx0", "dropped"), 1);
}

/// Status 69 and one line that says what to do.
pub fn what_cannot_be_had() {
    let refused = |device: &str, words: &[&str]| {
        let scratch = Scratch::new().unwrap();
        let socket = scratch.path("socket");
        let output = Command::new(program(env!("CARGO_BIN_EXE_vtnetd")))
            .args([
                "-s",
                &format!("virtio-net,{device},socket={}", socket.display()),
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(69), "{said}");
        for word in words {
            assert!(said.contains(word), "{device}: no '{word}' in: {said}");
        }
        assert_eq!(said.lines().count(), 1, "{said}");
    };
    let nobody = "netgraph,path=nobody:,peerhook=link1";
    refused(
        nobody,
        &[
            "netgraph:nobody:link1",
            "there is no node nobody:",
            "make it first",
        ],
    );
    let _middle = Middle::new("bridge");
    let _peer = Peer::new("link1");
    refused(&Middle::device("link1"), &["write another peerhook="]);
    // A bridge's hooks have numbers.
    refused(
        &Middle::device("uplinkless"),
        &["does not take a peerhook="],
    );
    let taken = format!("{},node={}", Middle::device("link2"), Middle::NAME);
    refused(&taken, &["write another node="]);
    assert_eq!(socket_nodes().len(), 1);
}

pub fn two_hundred_processes_leave_no_node() {
    let _middle = Middle::new("bridge");
    let scratch = Scratch::new().unwrap();
    let socket = scratch.path("socket");
    let device = format!(
        "virtio-net,{},node=vtnetdvm,socket={}",
        Middle::device("link1"),
        socket.display()
    );
    for round in 0..rounds(200) {
        // The name and the hook are free again, or this would fail.
        let vtnetd = Vtnetd::start(
            &program(env!("CARGO_BIN_EXE_vtnetd")),
            std::slice::from_ref(&device),
            None,
        )
        .unwrap();
        if round % 2 == 0 {
            assert!(vtnetd.stop().unwrap().success());
        } else {
            let pid = Pid::from_raw(i32::try_from(vtnetd.id()).unwrap());
            kill(pid, Signal::SIGKILL).unwrap();
            drop(vtnetd);
            // Whoever else has a descriptor of it ends a moment later.
            let gone = (0..1000).any(|_| {
                std::thread::yield_now();
                socket_nodes().is_empty()
            });
            assert!(gone, "{:?}", socket_nodes());
        }
    }
    assert_eq!(socket_nodes(), Vec::<String>::new());
}

/// Back ends that come and go within one process: no node, no socket, no
/// descriptor.
pub fn many_devices_leave_nothing() {
    let _middle = Middle::new("bridge");
    let spec = backend::Spec {
        netgraph: Some(Middle::link("link1")),
        ..backend::Spec::new("netgraph", 1)
    };
    let sockets = || run("sysctl -n kern.ipc.numopensockets").unwrap();
    let hold = || {
        let own = Census::of(std::process::id()).unwrap();
        let nodes = String::from_utf8(ngctl("list\n").stdout).unwrap();
        // ngctl(8) is in its own list, under a number that is never the same.
        let nodes = nodes.lines().filter(|line| !line.contains("ngctl")).count();
        (own, nodes, sockets())
    };
    let before = hold();
    for round in 0..rounds(300) {
        match backend::open(&spec, &Switches::default()) {
            Ok(backend) => drop(backend),
            Err(error) => panic!("round {round}: {error}"),
        }
    }
    // The kernel ends a node a moment after its sockets.
    let until = std::time::Instant::now() + SOON;
    loop {
        let after = hold();
        if after == before {
            return;
        }
        assert!(
            std::time::Instant::now() < until,
            "{before:?}, then {after:?}"
        );
    }
}
