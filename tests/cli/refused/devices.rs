//! Device strings of all back ends but netgraph.

use super::{BACKENDS, MTU, ONCE, ONE_SOCKET, check};

const QUEUES: &str = "write a number from 1 to 8";
const SLOT: &str = "write a number from 0 to 31";
const FUNC: &str = "write a number from 0 to 7";
const KEYS: &str = "write one of socket=, mode=, fd=, mac=, mtu=, queues=, name=, offload=, type=, \
     path=, peerhook=, hook=, node=";
const MAC: &str = "write mac=58:9c:fc:0a:0b:0c";

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
    ("virtio-net,vnet0,fd=3", "vnet0", "begins with tap"),
    ("virtio-net, vale0:a,fd=3", "' vale0:a'", "write vale0:a"),
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

#[test]
fn wrong_device_strings() {
    assert!(DEVICES.len() >= 60);
    for (device, option, cure) in DEVICES {
        check(&["-s", device], option, cure);
    }
}
