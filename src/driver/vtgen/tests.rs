//! Tests of the command line.

use std::time::Duration;

use super::options::{Command, Config, Peer, parse, usage};
use crate::cli::UsageError;
use crate::driver::report::Kind;
use crate::net::ethernet::Mac;
use crate::virtio::spec::{feature, net};

fn refused(line: &str) -> UsageError {
    match parse(line.split_whitespace()) {
        Err(error) => error,
        Ok(command) => panic!("'{line}' is accepted as {command:?}"),
    }
}

fn config(line: &str) -> Config {
    match parse(line.split_whitespace()) {
        Ok(Command::Run(config)) => *config,
        other => panic!("'{line}' is {other:?}"),
    }
}

/// What is wrong, the option that is named, and a word of the cure.
#[test]
fn wrong_command_lines_name_the_option_and_the_cure() {
    for (args, option, cure) in [
        ("", "--socket-path", "--fd"),
        ("tx", "--socket-path", "--fd"),
        ("--socket-path", "--socket-path", "-h"),
        (
            "--socket-path= tx",
            "--socket-path",
            "name the back end's socket",
        ),
        ("--socket-path=s", "mode", "tx, rx, reflect or ping"),
        ("--socket-path=s sing", "'sing'", "tx, rx, reflect or ping"),
        ("--socket-path=s tx rx", "'rx'", "one vtgen for each"),
        ("--socket-path=s --fd=3 tx", "--fd", "one of them"),
        (
            "--socket-path=s --socket-path=t tx",
            "--socket-path",
            "once",
        ),
        ("--fd=2 tx", "--fd=2", "from 3"),
        ("--fd=x tx", "--fd=x", "from 3"),
        ("--fd=3 --server tx", "--server", "--socket-path"),
        ("--server tx", "--socket-path", "name"),
        (
            "--socket-path=s --length=13 tx",
            "--length=13",
            "14 to 65535",
        ),
        (
            "--socket-path=s --length=65536 tx",
            "--length=65536",
            "14 to 65535",
        ),
        (
            "--socket-path=s --length=-1 tx",
            "--length=-1",
            "14 to 65535",
        ),
        (
            "--socket-path=s --length=41 --udp tx",
            "--length=41",
            "at least 42",
        ),
        (
            "--socket-path=s --length=31 ping",
            "--length=31",
            "at least 32",
        ),
        (
            "--socket-path=s --length=59 --udp ping",
            "--length=59",
            "at least 60",
        ),
        ("--socket-path=s --rate=0 tx", "--rate=0", "k, M and G"),
        ("--socket-path=s --rate=1kk tx", "--rate=1kk", "k, M and G"),
        ("--socket-path=s --rate=k tx", "--rate=k", "k, M and G"),
        (
            "--socket-path=s --rate=99999999999G tx",
            "--rate=99999999999G",
            "k, M and G",
        ),
        (
            "--socket-path=s --count=1.5 tx",
            "--count=1.5",
            "k, M and G",
        ),
        (
            "--socket-path=s --duration=1s tx",
            "--duration=1s",
            "10 or 0.5",
        ),
        (
            "--socket-path=s --duration=-1 tx",
            "--duration=-1",
            "10 or 0.5",
        ),
        (
            "--socket-path=s --duration=. tx",
            "--duration=.",
            "10 or 0.5",
        ),
        (
            "--socket-path=s --wait=soon ping",
            "--wait=soon",
            "10 or 0.5",
        ),
        (
            "--socket-path=s --src-mac=1:2 tx",
            "--src-mac=1:2",
            "58:9c:fc",
        ),
        (
            "--socket-path=s --src-mac=01:0:0:0:0:0 tx",
            "--src-mac=01:00",
            "even",
        ),
        (
            "--socket-path=s --dst-mac=g:0:0:0:0:0 tx",
            "--dst-mac=g",
            "58:9c:fc",
        ),
        ("--socket-path=s --pairs=0 tx", "--pairs=0", "1 to 127"),
        ("--socket-path=s --pairs=128 tx", "--pairs=128", "1 to 127"),
        (
            "--socket-path=s --ring-size=0 tx",
            "--ring-size=0",
            "1 to 32768",
        ),
        (
            "--socket-path=s --ring-size=100 tx",
            "--ring-size=100",
            "128",
        ),
        (
            "--socket-path=s --ring-size=65536 tx",
            "--ring-size=65536",
            "1 to 32768",
        ),
        ("--socket-path=s --batch=0 tx", "--batch=0", "1 to 1024"),
        (
            "--socket-path=s --rx-buffer=63 rx",
            "--rx-buffer=63",
            "from 64",
        ),
        ("--socket-path=s --piece=0 tx", "--piece=0", "from 1"),
        ("--socket-path=s --piece=4 tx", "--piece=4", "--length"),
        (
            "--socket-path=s --ring-size=2 --piece=1000 tx",
            "--piece=1000",
            "--length",
        ),
        ("--socket-path=s --regions=65 tx", "--regions=65", "1 to 64"),
        (
            "--socket-path=s --features=mergeable tx",
            "--features=mergeable",
            "+NAME",
        ),
        (
            "--socket-path=s --features=+fast tx",
            "--features=+fast",
            "event-idx",
        ),
        (
            "--socket-path=s --features=+csum, tx",
            "--features=+csum,",
            "+NAME",
        ),
        (
            "--socket-path=s --legacy --features=+version-1 tx",
            "--legacy",
            "leave one",
        ),
        (
            "--socket-path=s --set-mac=02:00:00:00:00:0b --features=+version-1 tx",
            "--set-mac",
            "leave one",
        ),
        ("--socket-path=s --cpu=x tx", "--cpu=x", "from 0"),
        (
            "--socket-path=s --set-mtu=67 tx",
            "--set-mtu=67",
            "68 to 65535",
        ),
        ("--socket-path=s --set-mac=2", "--set-mac=2", "58:9c:fc"),
        ("--socket-path=s --poll=yes tx", "--poll", "leave it out"),
        ("--socket-path=s --packed tx", "--packed", "-h"),
        ("--socket-path=s -x tx", "-x", "-h"),
    ] {
        let error = refused(args);
        let said = error.to_string();
        assert!(error.option.starts_with(option), "'{args}': {said}");
        assert!(error.cure.contains(cure), "'{args}': {said}");
    }
}

#[test]
fn a_full_command_line_is_understood() {
    let all = config(
        "--socket-path /s --server --length 1514 --udp --src-mac 2:0:0:0:0:1 \
         --dst-mac 2:0:0:0:0:2 --rate 2M --count 10k --duration 1.5 --pairs 2 --ring-size 512 \
         --batch 32 --no-event-idx --features +mergeable,-mq --no-verify --poll --cpu 1 \
         --set-mtu 9000 --json -vv tx",
    );
    assert_eq!(all.peer, Peer::Listen("/s".into()));
    assert_eq!(all.mode, Some(Kind::Source));
    assert_eq!((all.len, all.udp), (1514, true));
    assert_eq!(all.source, Some(Mac([2, 0, 0, 0, 0, 1])));
    assert_eq!(all.destination, Mac([2, 0, 0, 0, 0, 2]));
    assert_eq!((all.rate, all.count), (2_000_000, 10_000));
    assert_eq!(all.duration, Some(Duration::from_millis(1500)));
    assert_eq!((all.net.pairs, all.net.ring_size, all.batch), (2, 512, 32));
    assert_eq!((all.verify, all.poll, all.cpu), (false, true, Some(1)));
    assert_eq!((all.set_mtu, all.json, all.verbose), (Some(9000), true, 2));
    let negotiation = all.net.negotiation;
    assert_eq!(negotiation.required, net::F_MRG_RXBUF);
    assert_eq!(negotiation.features & (feature::EVENT_IDX | net::F_MQ), 0);
    assert_eq!(
        negotiation.features & feature::VERSION_1,
        feature::VERSION_1
    );
}

#[test]
fn without_options_there_is_a_default_for_all() {
    let tx = config("--fd 3 tx");
    assert_eq!(tx.peer, Peer::Inherited(3));
    assert_eq!((tx.len, tx.rate, tx.count, tx.duration), (60, 0, 0, None));
    assert_eq!(tx.destination, Mac::BROADCAST);
    let ping = config("--fd 3 ping");
    assert_eq!((ping.rate, ping.count), (1000, 100));
    assert_eq!(config("--fd 3 --duration 1 ping").count, 0);
    assert_eq!(config("--fd 3 --config").mode, None);
    // Buffers are as long as frames may come.
    assert_eq!(config("--fd 3 --length 9014 rx").net.rx_buffer, 2048);
    let whole = config("--fd 3 --length 9014 --no-mergeable rx");
    assert_eq!(whole.net.rx_buffer, 9014 + 12);
    let tso = config("--fd 3 --no-mergeable --features +guest-csum,+guest-tso4 rx");
    assert_eq!(tso.net.rx_buffer, 65562);
    assert_eq!(config("--fd 3 reflect").net.max_frame, 65550);
}

#[test]
fn help_and_version_need_nothing_else() {
    assert!(matches!(parse(["-h"]), Ok(Command::Help)));
    assert!(matches!(parse(["--version"]), Ok(Command::Version)));
    for mode in ["tx", "rx", "reflect", "ping"] {
        assert!(usage().contains(mode));
    }
}
