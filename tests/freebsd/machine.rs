//! The bed itself: what a test is told of interfaces, frames and processes on
//! this machine is so.

use bed::freebsd::{Bpf, Direction, Interface, NgInterface, module, ngctl};
use bed::{Census, Error, Result, Test};

use crate::drive::{NEVER, SOON, frame, same};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("machine::frames_cross_an_epair", epair),
        Test::new("machine::frames_cross_a_bridge", bridge),
        Test::new("machine::frames_cross_a_netgraph_hub", hub),
        Test::new("machine::an_open_file_is_counted", census),
    ]
}

fn epair() -> Result<()> {
    module("if_epair")?;
    let (first, second) = Interface::epair()?;
    let mut sees = Bpf::new(&second)?;
    let mut own = Bpf::watching(first.name(), Direction::Out)?;
    let sends = Bpf::new(first.name())?;
    for len in [60, 1514] {
        let frame = frame(len, len);
        sends.send(&frame)?;
        same(sees.recv(SOON)?, &frame)?;
        same(own.recv(SOON)?, &frame)?;
    }
    if sends.send(&frame(1515, 0)).is_ok() {
        return Err(Error::new("a frame longer than the MTU was taken"));
    }
    if sees.dropped()? != 0 || sees.recv(NEVER)?.is_some() {
        return Err(Error::new("a frame that nobody sent, or one was dropped"));
    }
    Ok(())
}

fn bridge() -> Result<()> {
    module("if_epair")?;
    module("if_bridge")?;
    let (left, left_end) = Interface::epair()?;
    let (right, right_end) = Interface::epair()?;
    let _bridge = Interface::bridge(&[left.name(), right.name()])?;
    let sends = Bpf::new(&left_end)?;
    let mut sees = Bpf::new(&right_end)?;
    let frame = frame(100, 5);
    sends.send(&frame)?;
    same(sees.recv(SOON)?, &frame)
}

fn hub() -> Result<()> {
    for kind in ["ng_eiface", "ng_hub"] {
        module(kind)?;
    }
    let left = NgInterface::with_peer("hub", "left")?;
    let right = NgInterface::connected(&left.peer(), "right")?;
    let sends = Bpf::new(left.name())?;
    let mut sees = Bpf::new(right.name())?;
    let frame = frame(200, 6);
    sends.send(&frame)?;
    same(sees.recv(SOON)?, &frame)?;
    let name = right.name().to_owned();
    drop(right);
    if ngctl("list")?.contains(&name) {
        return Err(Error::new(format!("{name} is still there")));
    }
    Ok(())
}

fn census() -> Result<()> {
    let own = std::process::id();
    let before = Census::of(own)?.descriptors;
    let file = std::fs::File::open("/dev/null")?;
    let mut after = Census::of(own)?.descriptors;
    drop(file);
    let Some(at) = after.iter().position(|path| path == "/dev/null") else {
        return Err(Error::new(format!("no /dev/null in {after:?}")));
    };
    after.remove(at);
    if after != before {
        return Err(Error::new(format!("{before:?}, then {after:?}")));
    }
    Ok(())
}
