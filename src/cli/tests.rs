use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::backend::SwitchType;
use crate::backend::netgraph::Link;
use crate::net::ethernet::Mac;

fn config(args: &[&str]) -> Config {
    match parse(args) {
        Ok(Command::Run(config)) => config,
        other => panic!("{args:?}: {other:?}"),
    }
}

fn device(string: &str) -> DeviceSpec {
    config(&["-s", string]).devices.remove(0)
}

fn error(args: &[&str]) -> UsageError {
    parse(args).expect_err(&args.join(" "))
}

#[test]
fn the_least_that_a_device_needs() {
    let device = device("virtio-net,none,socket=/run/vm1.sock");
    assert_eq!((device.slot, device.func), (0, 0));
    assert_eq!(device.name, None);
    assert!(device.backend.is_none());
    assert_eq!(device.socket, SocketSpec::Listen("/run/vm1.sock".into()));
    assert_eq!((device.mac, device.mtu, device.queues), (None, None, 1));
}

#[test]
fn all_that_a_device_may_have() {
    let device = device(
        "3:1,virtio-net,vale0:vm1,queues=8,mtu=65535,mac=58:9C:fc:a:0b:0c,name=web,mode=client,\
         socket=/run/a=b",
    );
    assert_eq!((device.slot, device.func), (3, 1));
    assert_eq!(device.name.as_deref(), Some("web"));
    assert_eq!(device.backend.name(), "vale0:vm1");
    assert_eq!(device.backend.switch(), Some("vale0"));
    assert_eq!(device.socket, SocketSpec::Connect("/run/a=b".into()));
    assert_eq!(device.mac, Some(Mac([0x58, 0x9c, 0xfc, 10, 11, 12])));
    assert_eq!((device.mtu, device.queues), (Some(65535), 8));
}

#[test]
fn places() {
    for (place, expected) in [
        ("0", (0, 0)),
        ("31", (31, 0)),
        ("5:7", (5, 7)),
        ("255:4:2", (4, 2)),
    ] {
        let device = device(&format!("{place},virtio-net,none,fd=3"));
        assert_eq!((device.slot, device.func), expected, "{place}");
    }
}

#[test]
fn back_ends_at_their_limits() {
    for name in [
        "none",
        "tap0",
        "tap12345678-_.a",
        "vale:p",
        "vale_1:vm-1.net",
    ] {
        let device = device(&format!("virtio-net,{name},fd=9"));
        assert_eq!(device.backend.name(), name);
        assert_eq!(device.backend.is_none(), name == "none");
        assert_eq!(device.backend.switch().is_some(), name.starts_with("vale"));
    }
    let longest = format!("vale0:{}", "p".repeat(57));
    assert_eq!(
        device(&format!("virtio-net,{longest},fd=9")).backend.name(),
        longest
    );
}

#[test]
fn ports_of_netmap_with_their_suffixes() {
    for name in [
        "netmap:em0",
        "netmap:em0-3",
        "netmap:em0*",
        "netmap:em0^",
        "netmap:em0^1",
        "netmap:em0/R",
        "netmap:em0-0/xT@5",
        "netmap:em0{1",
        "netmap:em0}up",
    ] {
        let device = device(&format!("virtio-net,{name},fd=3"));
        assert_eq!(device.backend.name(), name);
        assert_eq!(device.backend.switch(), None, "{name}");
        assert_eq!(device.backend.spec(2).name, name);
    }
}

#[test]
fn whose_switch() {
    for (text, want) in [
        ("vale0:a,fd=3", SwitchType::Any),
        ("vale0:a,fd=3,type=kernel", SwitchType::Kernel),
        ("vale0:a,type=core,fd=3", SwitchType::Core),
    ] {
        let device = device(&format!("virtio-net,{text}"));
        assert_eq!(device.backend.spec(1).switch, want, "{text}");
        assert_eq!(device.backend.switch(), Some("vale0"));
    }
}

fn link(text: &str) -> Link {
    let device = device(&format!("virtio-net,netgraph,{text}"));
    assert!(device.backend.switch().is_none() && !device.backend.is_none());
    device.backend.link().unwrap().clone()
}

#[test]
fn netgraph() {
    let least = link("path=br0:,peerhook=link1,fd=3");
    assert_eq!(least.to_string(), "netgraph:br0:link1");
    assert_eq!(
        (least.path.as_str(), least.peerhook.as_str()),
        ("br0:", "link1")
    );
    assert_eq!((least.hook.as_str(), least.node), ("vmlink", None));
    let all = link("node=vm1,hook=h,socket=/run/s,peerhook=upper,path=[1f]:a.b,mtu=9000");
    assert_eq!(
        (all.path.as_str(), all.peerhook.as_str()),
        ("[1f]:a.b", "upper")
    );
    assert_eq!((all.hook.as_str(), all.node.as_deref()), ("h", Some("vm1")));
}

/// `socket=` names the node, as in the reference, where nothing else needs it.
#[test]
fn the_socket_of_netgraph() {
    let text = "virtio-net,netgraph,socket=vm1,path=br0:,peerhook=link1";
    let node = |device: &DeviceSpec| device.backend.link().unwrap().node.clone();
    let listens = device(text);
    assert_eq!(listens.socket, SocketSpec::Listen("vm1".into()));
    assert_eq!(node(&listens), None);
    let inherited = device(&format!("{text},fd=3"));
    assert_eq!(inherited.socket, SocketSpec::Fd(3));
    assert_eq!(node(&inherited).as_deref(), Some("vm1"));
    for outer in ["--socket-path=/s", "--fd=3"] {
        let config = config(&[outer, "-s", text]);
        assert_eq!(node(&config.devices[0]).as_deref(), Some("vm1"), "{outer}");
    }
}

#[test]
fn netgraph_at_its_limits() {
    // 31 bytes of node, ':' and hooks up to 511 bytes.
    let path = format!("{}:{}", "n".repeat(31), "h".repeat(511 - 32));
    let name = "x".repeat(31);
    let link = link(&format!(
        "path={path},peerhook={name},hook={name},node={name},fd=3"
    ));
    assert_eq!(
        (&link.path, &link.peerhook, &link.hook),
        (&path, &name, &name)
    );
    assert_eq!(link.node, Some(name));
}

/// The limit is the system's, so std is asked about it.
#[test]
fn the_longest_path_of_a_socket() {
    use std::os::unix::net::SocketAddr;
    let fits = |len: usize| {
        let path = "p".repeat(len);
        let ours = parse(["-s", &format!("virtio-net,none,socket={path}")]).is_ok();
        assert_eq!(ours, SocketAddr::from_pathname(&path).is_ok(), "{len}");
        ours
    };
    assert!(fits(100));
    assert!((101..110).any(|len| fits(len) && !fits(len + 1)));
}

#[test]
fn the_only_device_may_have_its_socket_from_outside() {
    let bare = "virtio-net,tap0";
    for (args, socket) in [
        (
            vec!["--socket-path=/s", "-s", bare],
            SocketSpec::Listen("/s".into()),
        ),
        (
            vec!["-s", bare, "--socket-path", "/s,1"],
            SocketSpec::Listen("/s,1".into()),
        ),
        (vec!["--fd=3", "-s", bare], SocketSpec::Fd(3)),
        (
            vec!["--socket-path=/s", "-s", "virtio-net,tap0,mode=client"],
            SocketSpec::Connect("/s".into()),
        ),
        (
            vec!["--socket-path=/s", "-s", "virtio-net,tap0,mode=server"],
            SocketSpec::Listen("/s".into()),
        ),
    ] {
        assert_eq!(config(&args).devices[0].socket, socket, "{args:?}");
    }
}

#[test]
fn flags() {
    let device = ["-s", "virtio-net,none,fd=3"];
    let with = |flags: &[&str]| config(&[flags, &device].concat());
    let plain = with(&[]);
    assert_eq!(
        (plain.debug, plain.verbose, plain.pid_file),
        (false, 0, None)
    );
    assert_eq!((plain.user, plain.sandbox), (None, true));
    assert_eq!(with(&["-u", "www"]).user.as_deref(), Some("www"));
    assert!(!with(&["--no-sandbox"]).sandbox);
    assert_eq!(with(&["-v"]).verbose, 1);
    assert_eq!(with(&["-v", "-v"]).verbose, 2);
    let all = with(&["-dvvp", "/run/p"]);
    assert_eq!((all.debug, all.verbose), (true, 2));
    assert_eq!(all.pid_file, Some("/run/p".into()));
    assert_eq!((with(&["-d"]).debug, with(&["-d"]).verbose), (true, 1));
}

#[test]
fn threads() {
    let config = |args: &[&str]| {
        let config = config(&[args, &["-s", "virtio-net,none,fd=3"]].concat());
        (config.workers, config.polling)
    };
    let micros = Duration::from_micros;
    assert_eq!(config(&[]), (None, Polling::AtMost(micros(50))));
    let both = config(&["--workers=4", "--poll-us", "always"]);
    assert_eq!(both, (Some(4), Polling::Always));
}

#[test]
fn what_is_printed_is_printed_before_devices_are_judged() {
    for (args, expected) in [
        (vec!["-h"], Command::Help),
        (vec!["--help", "-s", "x"], Command::Help),
        (vec!["--version"], Command::Version),
        (vec!["--print-capabilities"], Command::PrintCapabilities),
        (
            vec!["--nonsense", "--print-capabilities", "x"],
            Command::PrintCapabilities,
        ),
    ] {
        assert_eq!(parse(&args), Ok(expected), "{args:?}");
    }
}

#[test]
fn devices_that_go_together() {
    for pair in [
        // One MAC on two switches, or beside a tap.
        [
            "vale0:a,mac=2:0:0:0:0:1,fd=3",
            "vale1:a,mac=2:0:0:0:0:1,fd=4",
        ],
        ["tap0,mac=2:0:0:0:0:1,fd=3", "tap1,mac=2:0:0:0:0:1,fd=4"],
        ["none,fd=3", "none,fd=4"],
        // Two machines, both with their first device; none of them named.
        ["none,fd=3,name=a", "none,fd=4,name=b"],
        ["vale0:a,fd=3", "vale0:b,fd=4"],
    ] {
        let [one, other] = pair.map(|device| format!("virtio-net,{device}"));
        assert_eq!(config(&["-s", &one, "-s", &other]).devices.len(), 2);
    }
    let places = [
        "1,virtio-net,none,fd=3,name=a",
        "1:1,virtio-net,none,fd=4,name=a",
    ];
    assert_eq!(config(&["-s", places[0], "-s", places[1]]).devices.len(), 2);
}

/// The whole sentence once for each shape; the table in `tests/cli` has one of
/// each kind of mistake.
#[test]
fn messages_read_well() {
    assert_eq!(
        error(&["-s", "virtio-net,vale0:vm1,socket=/s,mtu=45"]).to_string(),
        "-s virtio-net,vale0:vm1,socket=/s,mtu=45: mtu=45: out of range; \
         write a number from 46 to 65535"
    );
    assert_eq!(
        error(&["-x"]).to_string(),
        "-x: unknown option; vtnetd -h lists those that there are"
    );
    assert_eq!(
        error(&[
            "-s",
            "virtio-net,vale0:a,fd=3",
            "-s",
            "virtio-net,vale0:a,fd=4"
        ])
        .to_string(),
        "vale0:a: two devices have this back end; \
         name two ports, as in vale0:vm1 and vale0:vm2"
    );
}

#[test]
fn arguments_that_are_not_utf8_are_an_error() {
    use std::os::unix::ffi::OsStrExt;
    let arg = OsStr::from_bytes(b"-p\xff").to_owned();
    assert_eq!(parse([arg]).unwrap_err().problem, "not UTF-8");
}

#[test]
fn usage_names_every_option_and_key() {
    let usage = usage();
    for word in [
        "-d ",
        "-h, --help",
        "-p ",
        "-s ",
        "-v ",
        "--socket-path",
        "--fd",
        "--print-capabilities",
        "--version",
        "socket=",
        "mode=",
        "fd=",
        "mac=",
        "mtu=",
        "queues=",
        "name=",
        "tapN",
        "none",
        "valeSWITCH:PORT",
        "netmap:IF",
        "netgraph\n",
        "type=kernel|core",
        "path=",
        "peerhook=",
        " hook=",
        "node=",
    ] {
        assert!(usage.contains(word), "{word}:\n{usage}");
    }
}

/// Pieces of device strings, so that random ones get far.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("virtio-net".to_owned()),
        Just("vale0:vm1".to_owned()),
        Just("tap0".to_owned()),
        Just("none".to_owned()),
        "(socket|mode|fd|mac|mtu|queues|name|x)=.{0,12}",
        Just("netgraph".to_owned()),
        "netmap:[a-c{}*^@/xR-]{0,8}",
        "type=(core|kernel|x)",
        "path=[a-c.:]{0,6}",
        "(peer)?hook=[a-c.:]{0,34}",
        "node=.{0,34}",
        "mac=([0-9a-g]{1,3}:){4,6}[0-9a-f]{1,2}",
        "(mtu|queues|fd)=[0-9]{1,25}",
        "[0-9:]{1,10}",
        "(vale|tap|none).{0,70}",
        ".{0,20}",
    ]
}

proptest! {
    /// What is accepted keeps within the limits that the rest relies on; what
    /// is not has a cure; neither panics.
    #[test]
    fn no_device_string_panics(pieces in prop::collection::vec(piece(), 0..8)) {
        match parse(["-s", &pieces.join(",")]) {
            Ok(Command::Run(config)) => {
                let device = &config.devices[0];
                prop_assert!(device.slot < 32 && device.func < 8);
                prop_assert!((1..=8).contains(&device.queues));
                prop_assert!(device.mtu.is_none_or(|mtu| mtu >= 46));
                prop_assert!(device.mac.is_none_or(|mac| !mac.is_multicast()));
                let linked = device.backend.link().is_some();
                prop_assert!(linked || device.backend.name().len() < 64);
            }
            Ok(other) => prop_assert!(false, "{:?}", other),
            Err(error) => prop_assert!(!error.option.is_empty() && !error.cure.is_empty()),
        }
    }

    #[test]
    fn no_command_line_panics(
        args in prop::collection::vec(
            prop_oneof!["-{1,3}[dhvps]{0,3}", "--(fd|socket-path|version)(=.{0,5})?", ".{0,8}"],
            0..6,
        )
    ) {
        if let Err(error) = parse(&args) {
            prop_assert!(!error.option.is_empty() && !error.cure.is_empty());
        }
    }
}
