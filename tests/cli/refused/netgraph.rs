//! Device strings of netgraph back ends.

use super::{BACKENDS, ONCE, ONE_SOCKET, WITHOUT, check};
use crate::vtnetd::{run, text};

/// What is behind `-s virtio-net,`, the option in it that is to blame, and the
/// cure.
const NETGRAPH: &[(&str, &str, &str)] = &[
    (
        "netgraph0,fd=3",
        "netgraph0",
        "write netgraph,path=ADDR,peerhook=HOOK",
    ),
    (
        "netgraph:br0:link1,fd=3",
        "netgraph:br0:link1",
        "write netgraph,path",
    ),
    ("Netgraph,path=br0:,peerhook=l,fd=3", "Netgraph", BACKENDS),
    ("netgraph,fd=3", "path=", "add path=ADDR"),
    ("netgraph,peerhook=link1,fd=3", "path=", "add path=ADDR"),
    ("netgraph,path=br0:,fd=3", "peerhook=", "add peerhook=HOOK"),
    (
        "netgraph,path=,peerhook=link1,fd=3",
        "path=",
        "write path=ADDR",
    ),
    (
        "netgraph,path=br0:,peerhook=,fd=3",
        "peerhook=",
        "write peerhook=HOOK",
    ),
    (
        "netgraph,path=br0:,peerhook=l,hook=,fd=3",
        "hook=",
        "write hook=HOOK",
    ),
    (
        "netgraph,path=br0:,peerhook=l,node=,fd=3",
        "node=",
        "write node=NAME",
    ),
    (
        "netgraph,path=br0:,peerhook=l,path=br1:,fd=3",
        "path=br1:",
        ONCE,
    ),
    (
        "netgraph,path=br0,peerhook=l,fd=3",
        "path=br0",
        "write path=br0:",
    ),
    ("netgraph,path=:,peerhook=l,fd=3", "path=:", "write NODE:"),
    ("netgraph,path=.:,peerhook=l,fd=3", "path=.:", "write NODE:"),
    (
        "netgraph,path=a.b:,peerhook=l,fd=3",
        "path=a.b:",
        "write NODE:",
    ),
    (
        "netgraph,path=a:b:c,peerhook=l,fd=3",
        "path=a:b:c",
        "write NODE:",
    ),
    (
        "netgraph,path=a:b..c,peerhook=l,fd=3",
        "path=a:b..c",
        "write NODE:",
    ),
    (
        "netgraph,path=a b:,peerhook=l,fd=3",
        "path=a b:",
        "write NODE:",
    ),
    (
        "netgraph,path=br0:,peerhook=a.b,fd=3",
        "peerhook=a.b",
        WITHOUT,
    ),
    (
        "netgraph,path=br0:,peerhook=a:b,fd=3",
        "peerhook=a:b",
        WITHOUT,
    ),
    (
        "netgraph,path=br0:,peerhook=a b,fd=3",
        "peerhook=a b",
        WITHOUT,
    ),
    (
        "netgraph,path=br0:,peerhook=l,hook=a.b,fd=3",
        "hook=a.b",
        WITHOUT,
    ),
    (
        "netgraph,path=br0:,peerhook=l,node=a.b,fd=3",
        "node=a.b",
        WITHOUT,
    ),
    (
        "netgraph,path=br0:,peerhook=l,node=a:,fd=3",
        "node=a:",
        WITHOUT,
    ),
    (
        "netgraph,path=br0:,peerhook=l,node=[5],fd=3",
        "node=[5]",
        WITHOUT,
    ),
    // The node, or the vhost-user socket.
    (
        "netgraph,path=br0:,peerhook=l",
        "socket=",
        "add socket=PATH",
    ),
    (
        "netgraph,path=br0:,peerhook=l,node=vm1",
        "socket=",
        "add socket=PATH",
    ),
    (
        "netgraph,path=br0:,peerhook=l,fd=3,socket=/run/vm1",
        "socket=/run/vm1",
        WITHOUT,
    ),
    (
        "netgraph,path=br0:,peerhook=l,fd=3,socket=vm1,node=vm2",
        "socket=vm1",
        ONE_SOCKET,
    ),
    // Beside other back ends.
    ("none,path=br0:,fd=3", "path=br0:", "leave it out"),
    ("tap0,peerhook=l,fd=3", "peerhook=l", "leave it out"),
    ("vale0:a,hook=l,fd=3", "hook=l", "leave it out"),
    ("vale0:a,node=vm1,fd=3", "node=vm1", "leave it out"),
];

#[test]
fn wrong_netgraph_strings() {
    for (device, option, cure) in NETGRAPH {
        check(&["-s", &format!("virtio-net,{device}")], option, cure);
    }
}

/// One byte less is right (`cli::tests`).
#[test]
fn netgraph_strings_that_are_too_long() {
    let long = |len: usize| "p".repeat(len);
    for (path, peerhook, hook, node, blamed, limit) in [
        (
            long(511),
            "l".into(),
            "h".into(),
            "n".into(),
            "path=",
            "511 bytes (NG_PATHSIZ - 1)",
        ),
        (
            long(32),
            "l".into(),
            "h".into(),
            "n".into(),
            "path=",
            "31 bytes (NG_NODESIZ - 1)",
        ),
        (
            "br0".into(),
            long(32),
            "h".into(),
            "n".into(),
            "peerhook=",
            "31 bytes (NG_HOOKSIZ - 1)",
        ),
        (
            "br0".into(),
            "l".into(),
            long(32),
            "n".into(),
            "hook=",
            "31 bytes (NG_HOOKSIZ - 1)",
        ),
        (
            "br0".into(),
            "l".into(),
            "h".into(),
            long(32),
            "node=",
            "31 bytes (NG_NODESIZ - 1)",
        ),
    ] {
        let device = format!(
            "virtio-net,netgraph,path={path}:,peerhook={peerhook},hook={hook},node={node},fd=3"
        );
        check(&["-s", &device], blamed, "shorten it");
        let said = text(&run(&["-s", &device]).stderr).to_owned();
        assert!(said.contains(limit), "{said}");
    }
}
