//! Nodes, vtnetd connected to one, and somebody on another hook.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Output, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vtnetd::backend::host::HostSide;
use vtnetd::backend::netgraph::{Link, NetgraphHost};
use vtnetd::driver::net::NetDriver;
use vtnetd::virtio::spec::net_status;

use crate::drive::{SOON, Served};

pub const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Has ngctl(8) do what `lines` say, all in one process.
pub fn ngctl(lines: &str) -> Output {
    let mut ngctl = Command::new("ngctl")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = ngctl.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    ngctl.wait_with_output().unwrap()
}

/// The lines of `ngctl list` that are about ng_socket(4) nodes, but for its
/// own.
pub fn socket_nodes() -> Vec<String> {
    let output = Command::new("ngctl").arg("list").output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter(|line| line.contains("Type: socket") && !line.contains("Name: ngctl"))
        .map(str::to_owned)
        .collect()
}

/// A node of this kind, `hub` or `bridge`, that stays when nobody is connected.
pub struct Middle(());

impl Middle {
    pub const NAME: &str = "vtnetdtest";

    pub fn new(kind: &'static str) -> Self {
        let made = ngctl(&format!(
            "mkpeer . {kind} first link0\nname .:first {0}\nmsg {0}: setpersistent\n",
            Self::NAME
        ));
        assert!(made.status.success(), "{kind}: {made:?}");
        Self(())
    }

    /// What connects to its hook `hook`.
    pub fn link(hook: &str) -> Link {
        Link {
            path: format!("{}:", Self::NAME),
            peerhook: hook.into(),
            hook: "peer".into(),
            node: None,
        }
    }

    /// The back end for its hook `hook`.
    pub fn device(hook: &str) -> String {
        format!("netgraph,path={}:,peerhook={hook}", Self::NAME)
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        // A test may have done so.
        ngctl(&format!("shutdown {}:\n", Self::NAME));
    }
}

/// Somebody with a node of their own, who sends and sees whole frames.
pub struct Peer {
    data: OwnedFd,
    _host: NetgraphHost,
}

impl Peer {
    pub fn new(hook: &str) -> Self {
        let mut host = NetgraphHost::new(&Middle::link(hook));
        let data = host.open().unwrap().fds.remove(0);
        Self { data, _host: host }
    }

    pub fn send(&self, frame: &[u8]) {
        assert_eq!(nix::unistd::write(&self.data, frame), Ok(frame.len()));
    }

    /// The next frame, if one comes at all.
    pub fn recv(&self) -> Option<Vec<u8>> {
        let mut fds = [PollFd::new(self.data.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(SOON).unwrap();
        if poll(&mut fds, timeout).unwrap() == 0 {
            return None;
        }
        self.try_recv()
    }

    /// The next frame, if it is there.
    pub fn try_recv(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 1 << 17];
        match nix::unistd::read(&self.data, &mut frame) {
            Ok(len) => {
                frame.truncate(len);
                Some(frame)
            }
            Err(Errno::EAGAIN) => None,
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// vtnetd with one device, on hook `link1`.
pub fn served(keys: &str) -> Served {
    Served::start(&[format!("{}{keys}", Middle::device("link1"))]).unwrap()
}

/// What the device on hook `hook` counted on `queue`, such as `rx0`.
pub fn count(served: &mut Served, hook: &str, queue: &str, name: &str) -> u64 {
    let counters = served.vtnetd.counters().unwrap();
    let device = format!("netgraph:{}:{hook} {queue}", Middle::NAME);
    counters.sum(&device, name)
}

/// Whether the guest's link is up.
pub fn is_link_up(guest: &mut NetDriver) -> bool {
    let status = guest.config().unwrap().status.unwrap();
    status & net_status::LINK_UP != 0
}

/// A frame of `len` bytes whose every byte depends on `seed`.
pub fn frame(to: [u8; 6], from: [u8; 6], seed: u32, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed) << 1 | 1;
    let noise = std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    let mut frame = [&to[..], &from[..], &[0x88, 0xb5]].concat();
    frame.extend(noise.take(len - frame.len()));
    frame
}
