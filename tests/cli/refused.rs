//! Wrong command lines: each ends with status 64, prints nothing on standard
//! output, and one line on standard error that names the option, as it was
//! written, and the cure.

use crate::vtnetd::{EX_USAGE, run, text};

const MTU: &str = "write a number from 46 to 65535";
const QUEUES: &str = "write a number from 1 to 8";
const SLOT: &str = "write a number from 0 to 31";
const FUNC: &str = "write a number from 0 to 7";
const BACKENDS: &str = "write one of: none, tapN, vmnetN, valeSWITCH:PORT, netmap:IF, netgraph";
const KEYS: &str = "write one of socket=, mode=, fd=, mac=, mtu=, queues=, name=, offload=, type=, \
     path=, peerhook=, hook=, node=";
const MAC: &str = "write mac=58:9c:fc:0a:0b:0c";
const ONE_SOCKET: &str = "leave one of them out";
const WITHOUT: &str = "use a name without '.', ':'";
const ONCE: &str = "leave all but one out";

/// What is behind `-s`, the option in it that is to blame, and the cure.
const DEVICES: &[(&str, &str, &str)] = &[
    // Kind and place.
    ("", "virtio-net", "write virtio-net,BACKEND"),
    ("e1000,tap0,fd=3", "e1000", "write virtio-net"),
    ("virtio-blk,none,fd=3", "virtio-blk", "write virtio-net"),
    ("Virtio-Net,none,fd=3", "Virtio-Net", "write virtio-net"),
    ("3", "virtio-net", "write virtio-net,BACKEND"),
    ("3,", "virtio-net", "write virtio-net,BACKEND"),
    ("3,e1000,none,fd=3", "e1000", "write virtio-net"),
    ("32,virtio-net,none,fd=3", "slot '32'", SLOT),
    ("1:8,virtio-net,none,fd=3", "func '8'", FUNC),
    ("1:x,virtio-net,none,fd=3", "func 'x'", FUNC),
    ("1:,virtio-net,none,fd=3", "func ''", FUNC),
    (":1,virtio-net,none,fd=3", "slot ''", SLOT),
    ("1x,virtio-net,none,fd=3", "slot '1x'", SLOT),
    ("256:1:0,virtio-net,none,fd=3", "bus '256'", "from 0 to 255"),
    (
        "0:1:2:3,virtio-net,none,fd=3",
        "0:1:2:3",
        "write slot, slot:func",
    ),
    // Back end.
    ("virtio-net", "virtio-net,", BACKENDS),
    ("virtio-net,", "virtio-net,", BACKENDS),
    ("virtio-net,,fd=3", "virtio-net,", BACKENDS),
    ("virtio-net,fd=3,none", "fd=3", BACKENDS),
    ("virtio-net,bridge0,fd=3", "bridge0", BACKENDS),
    ("virtio-net,TAP0,fd=3", "TAP0", BACKENDS),
    ("virtio-net,none0,fd=3", "none0", "write none"),
    #[cfg(target_os = "linux")]
    ("virtio-net,tap,fd=3", "tap", "write tap0"),
    #[cfg(target_os = "linux")]
    ("virtio-net,vmnet,fd=3", "vmnet", "write vmnet0"),
    ("virtio-net,vmnet/0,fd=3", "vmnet/0", "use letters, digits"),
    (
        "virtio-net,tap0,offload=all,fd=3",
        "offload=all",
        "write offload=local",
    ),
    (
        "virtio-net,vale0:vm1,offload=local,fd=3",
        "offload=local",
        "leave it out",
    ),
    #[cfg(target_os = "linux")]
    (
        "virtio-net,tap0,offload=local,fd=3",
        "offload=local",
        "leave it out",
    ),
    (
        "virtio-net,tap0123456789abc,fd=3",
        "tap0123456789abc",
        "shorten it",
    ),
    ("virtio-net,tap%d,fd=3", "tap%d", "use letters, digits"),
    ("virtio-net,tap/0,fd=3", "tap/0", "use letters, digits"),
    ("virtio-net,tap 0,fd=3", "tap 0", "use letters, digits"),
    ("virtio-net,vale0,fd=3", "vale0", "write vale0:vm1"),
    ("virtio-net,vale0:,fd=3", "vale0:", "as in vale0:vm1"),
    ("virtio-net,vale0:a:b,fd=3", "vale0:a:b", "as in vale0:vm1"),
    ("virtio-net,vale0:a b,fd=3", "vale0:a b", "as in vale0:vm1"),
    ("virtio-net,vale-0:a,fd=3", "vale-0:a", "as in vale0"),
    (
        "virtio-net,vale0:a,type=netmap,fd=3",
        "type=netmap",
        "write type=kernel or type=core",
    ),
    (
        "virtio-net,tap0,type=core,fd=3",
        "type=core",
        "leave it out",
    ),
    (
        "virtio-net,netmap:em0,type=kernel,fd=3",
        "type=kernel",
        "leave it out",
    ),
    ("virtio-net,netmap,fd=3", "netmap", "named netmap:IF"),
    ("virtio-net,netmap:,fd=3", "netmap:", "give the port a name"),
    (
        "virtio-net,netmap0:em0,fd=3",
        "netmap0:em0",
        "named netmap:IF",
    ),
    (
        "virtio-net,netmap:em0-,fd=3",
        "netmap:em0-",
        "a ring number below 4095",
    ),
    (
        "virtio-net,netmap:em0-4095,fd=3",
        "netmap:em0-4095",
        "a ring number below 4095",
    ),
    (
        "virtio-net,netmap:em0/q,fd=3",
        "netmap:em0/q",
        "one of x z t r R T",
    ),
    (
        "virtio-net,netmap:em0{,fd=3",
        "netmap:em0{",
        "letters, digits",
    ),
    ("virtio-net,netmap:em0@0,fd=3", "netmap:em0@0", "from 1 to"),
    (
        "virtio-net,netmap:i234567890123456,fd=3",
        "netmap:i234567890123456",
        "at most 15 bytes",
    ),
    (
        "virtio-net,netmap:vale0:a,fd=3",
        "netmap:vale0:a",
        "write vale0:a",
    ),
    (
        "virtio-net,vale0:pppppppppppppppppppppppppppppppppppppppppppppppppppppppppp,fd=3",
        "vale0:pppppppppppppppppppppppppppppppppppppppppppppppppppppppppp",
        "shorten it",
    ),
    // Keys.
    ("virtio-net,none", "socket=", "add socket=PATH"),
    ("virtio-net,none,mtu=1500", "socket=", "add socket=PATH"),
    ("virtio-net,none,fd=3,", "','", "leave it out"),
    ("virtio-net,none,,fd=3", "','", "leave it out"),
    ("virtio-net,none,socket", "socket", KEYS),
    ("virtio-net,none,/run/vm1.sock", "/run/vm1.sock", KEYS),
    ("virtio-net,none,fd=3,speed=10", "speed=10", KEYS),
    ("virtio-net,none,fd=3,MTU=1500", "MTU=1500", KEYS),
    ("virtio-net,none,fd=3,mtu =1500", "mtu =1500", KEYS),
    ("virtio-net,none,fd=3,=1500", "=1500", KEYS),
    ("virtio-net,none,socket=", "socket=", "write socket=PATH"),
    ("virtio-net,none,fd=", "fd=", "write fd=N"),
    ("virtio-net,none,fd=3,mac=", "mac=", "write mac=XX:XX"),
    ("virtio-net,none,fd=3,mtu=", "mtu=", "write mtu=46..65535"),
    (
        "virtio-net,none,fd=3,queues=",
        "queues=",
        "write queues=1..8",
    ),
    ("virtio-net,none,fd=3,name=", "name=", "write name=VM"),
    ("virtio-net,none,fd=3,mode=", "mode=", "write mode=server"),
    ("virtio-net,none,fd=3,mtu=1500,mtu=1500", "mtu=1500", ONCE),
    ("virtio-net,none,socket=/a,socket=/b", "socket=/b", ONCE),
    // Sockets.
    ("virtio-net,none,socket=/a,fd=3", "fd=3", ONE_SOCKET),
    ("virtio-net,none,fd=3,socket=/a", "fd=3", ONE_SOCKET),
    ("virtio-net,none,fd=x", "fd=x", "write a number from 3 to"),
    ("virtio-net,none,fd=-1", "fd=-1", "write a number from 3 to"),
    ("virtio-net,none,fd=2", "fd=2", "write a number from 3 to"),
    (
        "virtio-net,none,fd=2147483648",
        "fd=2147483648",
        "write a number from 3 to",
    ),
    (
        "virtio-net,none,socket=/a,mode=both",
        "mode=both",
        "write mode=server or mode=client",
    ),
    (
        "virtio-net,none,fd=3,mode=client",
        "mode=client",
        "leave mode= out",
    ),
    ("virtio-net,none,mode=client", "socket=", "add socket=PATH"),
    (
        "virtio-net,none,socket=/run/ppppppppppppppppppppppppppppppppppppppppppppppppp\
         pppppppppppppppppppppppppppppppppppppppppppppppppppppppp",
        "socket=/run/ppp",
        "use a shorter one",
    ),
    // MAC addresses.
    (
        "virtio-net,none,fd=3,mac=58:9c:fc:0a:0b",
        "mac=58:9c:fc:0a:0b",
        MAC,
    ),
    (
        "virtio-net,none,fd=3,mac=58:9c:fc:0a:0b:0c:0d",
        "mac=58:9c:fc:0a:0b:0c:0d",
        MAC,
    ),
    (
        "virtio-net,none,fd=3,mac=58-9c-fc-0a-0b-0c",
        "mac=58-9c-fc-0a-0b-0c",
        MAC,
    ),
    (
        "virtio-net,none,fd=3,mac=58:9c:fc:0a:0b:0g",
        "mac=58:9c:fc:0a:0b:0g",
        MAC,
    ),
    (
        "virtio-net,none,fd=3,mac=58:9c:fc:0a:0b:100",
        "mac=58:9c:fc:0a:0b:100",
        MAC,
    ),
    (
        "virtio-net,none,fd=3,mac=58:9c:fc:0a::0c",
        "mac=58:9c:fc:0a::0c",
        MAC,
    ),
    (
        "virtio-net,none,fd=3,mac=00:00:00:00:00:00",
        "mac=00:00:00:00:00:00",
        "leave mac= out",
    ),
    (
        "virtio-net,none,fd=3,mac=ff:ff:ff:ff:ff:ff",
        "mac=ff:ff:ff:ff:ff:ff",
        "make the first octet even",
    ),
    (
        "virtio-net,none,fd=3,mac=01:00:5e:00:00:01",
        "mac=01:00:5e:00:00:01",
        "make the first octet even",
    ),
    // Numbers.
    ("virtio-net,none,fd=3,mtu=45", "mtu=45", MTU),
    ("virtio-net,none,fd=3,mtu=65536", "mtu=65536", MTU),
    (
        "virtio-net,none,fd=3,mtu=99999999999999999999",
        "mtu=99999999999999999999",
        MTU,
    ),
    ("virtio-net,none,fd=3,mtu=+1500", "mtu=+1500", MTU),
    ("virtio-net,none,fd=3,mtu=0x5dc", "mtu=0x5dc", MTU),
    ("virtio-net,none,fd=3,mtu=1500 ", "mtu=1500 ", MTU),
    ("virtio-net,none,fd=3,mtu=9k", "mtu=9k", MTU),
    ("virtio-net,none,fd=3,queues=0", "queues=0", QUEUES),
    ("virtio-net,none,fd=3,queues=9", "queues=9", QUEUES),
    ("virtio-net,none,fd=3,queues=two", "queues=two", QUEUES),
    (
        "virtio-net,none,fd=3,name=a\tb",
        "name=a\tb",
        "use printable characters",
    ),
];

/// As [`DEVICES`], with netgraph back ends.
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

const DEVICE: &str = "virtio-net,none,socket=/nowhere/vm1.sock";

/// Whole command lines, the option to blame, and the cure.
const LINES: &[(&[&str], &str, &str)] = &[
    (&[], "-s", "write -s virtio-net,vale0:vm1,socket="),
    (&["-v"], "-s", "write -s virtio-net,vale0:vm1,socket="),
    (
        &["--socket-path=/s"],
        "-s",
        "write -s virtio-net,vale0:vm1,socket=",
    ),
    (&["-s"], "-s", "vtnetd -h shows what"),
    (&["-s", DEVICE, "-p"], "-p", "vtnetd -h shows what"),
    (
        &["-s", DEVICE, "-p", ""],
        "-p",
        "write -p /var/run/vtnetd.pid",
    ),
    (&["-N"], "-N", "vtnetd -h shows what"),
    (&["-N", ""], "", "write one, as in"),
    (&["-N", "/s", "-N", "/t"], "-N", ONCE),
    (&["-N", "/s,"], "','", "leave it out"),
    (&["-N", "/s,mode"], "mode", "write one of mode=, group="),
    (&["-N", "/s,uid=0"], "uid=0", "write one of mode=, group="),
    (&["-N", "/s,mode="], "mode=", "write mode=OCTAL"),
    (&["-N", "/s,mode=rw"], "mode=rw", "write mode=0660"),
    (&["-N", "/s,mode=+7"], "mode=+7", "write mode=0660"),
    (&["-N", "/s,mode=01777"], "mode=01777", "write mode=0660"),
    (&["-N", "/s,mode=0600,mode=0660"], "mode=0660", ONCE),
    (&["-N", "/s,group="], "group=", "write group=NAME"),
    (&["-N", "/s,interface="], "interface=", "write interface=IF"),
    (
        &["-N", "/s,interface=vale0:a"],
        "interface=vale0:a",
        "write interface=eth0",
    ),
    (
        &["-N", "/s,interface=eth0{1"],
        "interface=eth0{1",
        "write interface=eth0",
    ),
    (
        &["-N", "/s,interface=../eth0"],
        "interface=../eth0",
        "write interface=eth0",
    ),
    (
        &["-N", "/s,interface=a,interface=b,interface=a"],
        "interface=a",
        "leave one of them out",
    ),
    (
        &["-N", "/nowhere/vm1.sock", "-s", DEVICE],
        "-N /nowhere/vm1.sock",
        "a path of its own",
    ),
    (&["-s", DEVICE, "-u"], "-u", "vtnetd -h shows what"),
    (&["-s", DEVICE, "-u", ""], "-u", "write -u vtnetd"),
    (&["-u", "a", "-u", "b", "-s", DEVICE], "-u", ONCE),
    (
        &["--no-sandbox=yes", "-s", DEVICE],
        "--no-sandbox",
        "leave out '='",
    ),
    (&["-p", "/a", "-p", "/b", "-s", DEVICE], "-p", ONCE),
    (&["-d", "-d", "-s", DEVICE], "-d", ONCE),
    (&["-x", "-s", DEVICE], "-x", "vtnetd -h lists"),
    (&["-dxv", "-s", DEVICE], "-x", "vtnetd -h lists"),
    (
        &["--sockets=/s", "-s", DEVICE],
        "--sockets",
        "vtnetd -h lists",
    ),
    (&["--version=2"], "--version", "leave out '='"),
    (&["--fd"], "--fd", "vtnetd -h shows what"),
    (&["tap0"], "'tap0'", "put -s before a device"),
    (&["-s", DEVICE, ""], "''", "put -s before a device"),
    (&["--", "-s", DEVICE], "'-s'", "put -s before a device"),
    (
        &["--socket-path=", "-s", "virtio-net,none"],
        "--socket-path=",
        "write one",
    ),
    (
        &["--fd=", "-s", "virtio-net,none"],
        "--fd=",
        "write a number from 3",
    ),
    (
        &["--fd=1", "-s", "virtio-net,none"],
        "--fd=1",
        "write a number from 3",
    ),
    (&["--fd=3", "--fd=4", "-s", "virtio-net,none"], "--fd", ONCE),
    (
        &["--fd=3", "--socket-path=/s", "-s", "virtio-net,none"],
        "--fd",
        ONE_SOCKET,
    ),
    (
        &["--fd=3", "-s", DEVICE],
        "socket=/nowhere/vm1.sock",
        ONE_SOCKET,
    ),
    (
        &["--socket-path=/s", "-s", DEVICE],
        "socket=/nowhere/vm1.sock",
        ONE_SOCKET,
    ),
    (
        &["--socket-path=/s", "-s", "virtio-net,none,fd=3"],
        "fd=3",
        ONE_SOCKET,
    ),
    (
        &["--fd=3", "-s", "virtio-net,none,mode=client"],
        "mode=client",
        "leave mode= out",
    ),
    (
        &["--socket-path=/s", "-s", "virtio-net,none", "-s", DEVICE],
        "--socket-path=/s",
        "write socket= or fd= into each -s",
    ),
    (
        &["--fd=3", "-s", "virtio-net,none", "-s", DEVICE],
        "--fd=3",
        "write socket= or fd= into each -s",
    ),
    // The second device is wrong.
    (
        &["-s", DEVICE, "-s", "virtio-net,none,fd=3,mtu=1"],
        "mtu=1",
        MTU,
    ),
    // What two devices both claim.
    (
        &["-s", DEVICE, "-s", DEVICE],
        "socket=/nowhere/vm1.sock",
        "a socket= of its own",
    ),
    (
        &[
            "-s",
            DEVICE,
            "-s",
            "virtio-net,none,socket=/nowhere/vm1.sock,mode=client",
        ],
        "socket=/nowhere/vm1.sock",
        "a socket= of its own",
    ),
    (
        &["-s", "virtio-net,none,fd=5", "-s", "virtio-net,none,fd=5"],
        "fd=5",
        "an fd= of its own",
    ),
    (
        &[
            "-s",
            "virtio-net,vale0:a,fd=3",
            "-s",
            "virtio-net,vale0:a,fd=4",
        ],
        "vale0:a",
        "vale0:vm1 and vale0:vm2",
    ),
    (
        &["-s", "virtio-net,tap0,fd=3", "-s", "virtio-net,tap0,fd=4"],
        "tap0",
        "an interface of its own",
    ),
    (
        &[
            "-s",
            "virtio-net,netgraph,path=br0:,peerhook=link1,fd=3",
            "-s",
            "virtio-net,netgraph,path=br0:,peerhook=link1,fd=4,node=other",
        ],
        "netgraph:br0:link1",
        "path=br0:,peerhook=link2",
    ),
    (
        &[
            "-s",
            "virtio-net,netgraph,path=br0:,peerhook=link1,fd=3,node=vm1",
            "-s",
            "virtio-net,netgraph,path=br0:,peerhook=link2,fd=4,socket=vm1",
        ],
        "node=vm1",
        "a node= of its own",
    ),
    (
        &[
            "--socket-path=/s",
            "-s",
            "virtio-net,netgraph,path=br0:,peerhook=link1,socket=/run/vm1.sock",
        ],
        "socket=/run/vm1.sock",
        WITHOUT,
    ),
    (
        &[
            "-s",
            "virtio-net,vale0:a,fd=3,mac=2:0:0:0:0:a",
            "-s",
            "virtio-net,vale0:b,fd=4,mac=02:00:00:00:00:0A",
        ],
        "mac=02:00:00:00:00:0a",
        "give each device on a switch its own",
    ),
    (
        &[
            "-s",
            "1:2,virtio-net,none,fd=3,name=a",
            "-s",
            "7:1:2,virtio-net,none,fd=4,name=a",
        ],
        "name=a",
        "put a slot of its own before each",
    ),
];

fn check(args: &[&str], option: &str, cure: &str) {
    let output = run(args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(EX_USAGE), "{args:?}: {said}");
    assert_eq!(text(&output.stdout), "", "{args:?}");
    assert!(
        said.ends_with('\n') && said.lines().count() == 1,
        "{args:?}: {said}"
    );
    // "vtnetd: -s STRING: OPTION: PROBLEM; CURE": the string names every option,
    // so only what follows it counts.
    let behind = args
        .windows(2)
        .find_map(|words| said.strip_prefix(&format!("vtnetd: {} {}: ", words[0], words[1])))
        .or(said.strip_prefix("vtnetd: "))
        .unwrap_or_default();
    assert!(
        behind.starts_with(option),
        "{args:?} does not name {option}: {said}"
    );
    let cured = behind
        .split_once("; ")
        .is_some_and(|(_, it)| it.contains(cure));
    assert!(cured, "{args:?} does not say {cure}: {said}");
}

#[test]
fn wrong_device_strings() {
    assert!(DEVICES.len() >= 60);
    for (device, option, cure) in DEVICES {
        check(&["-s", device], option, cure);
    }
}

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

#[test]
fn wrong_command_lines() {
    for (args, option, cure) in LINES {
        check(args, option, cure);
    }
}
