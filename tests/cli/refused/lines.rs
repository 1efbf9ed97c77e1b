//! Whole command lines: options, and devices that do not go together.

use super::{MTU, ONCE, ONE_SOCKET, WITHOUT, check};

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
    (
        &["-s", DEVICE, "--workers=0"],
        "--workers=0",
        "leave it out for one on each processor",
    ),
    (
        &["-s", DEVICE, "--poll-us=ever"],
        "--poll-us=ever",
        "write 50, 0 to sleep at once, or always",
    ),
    (
        &["-s", DEVICE, "--poll-us"],
        "--poll-us",
        "vtnetd -h shows what",
    ),
    (&["-N"], "-N", "vtnetd -h shows what"),
    (&["-N", ""], "", "write one, as in"),
    (&["-N", "/s", "-N", "/t"], "-N", ONCE),
    (&["-N", "/s,"], "','", "leave it out"),
    (&["-N", "/s,mode"], "mode", "write one of mode=, group="),
    (&["-N", "/s,allow=attach"], "allow=attach", "write a user"),
    (&["-N", "/s,allow=a:"], "allow=a:", "write attach, monitor"),
    (&["-N", "/s,allow=:all"], "allow=:all", "write a user"),
    (
        &["-N", "/s,allow=a:attach,allow=a:read:vale0"],
        "allow=a:read:vale0",
        "write attach, monitor",
    ),
    (
        &["-N", "/s,allow=a:all:tap0"],
        "allow=a:all:tap0",
        "write a switch last",
    ),
    (&["-N", "/s,allow="], "allow=", "write allow=WHO:RIGHT"),
    (
        &["-N", "/s,descriptors=0"],
        "descriptors=0",
        "write a number from 1 to 65536",
    ),
    (&["-N", "/s,ports=x"], "ports=x", "write a number from 1"),
    (
        &["-N", "/s,memory=1G"],
        "memory=1G",
        "write a number from 1",
    ),
    (&["-N", "/s,memory=1,memory=1"], "memory=1", ONCE),
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
        "socket=/nowhere/vm1.sock",
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
        &[
            "-s",
            "virtio-net,none,socket=nowhere/a.sock",
            "-s",
            "virtio-net,none,socket=./nowhere/./a.sock",
        ],
        "socket=./nowhere/./a.sock",
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

#[test]
fn wrong_command_lines() {
    for (args, option, cure) in LINES {
        check(args, option, cure);
    }
}
