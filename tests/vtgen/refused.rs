//! What vtgen refuses, and what it says of itself.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};

use crate::program::{run, text};

#[test]
fn what_is_asked_for_goes_to_standard_output() {
    for (args, beginning) in [(&["-h"][..], "usage: vtgen "), (&["--version"], "vtgen ")] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(text(&output.stdout).starts_with(beginning), "{args:?}");
        assert_eq!(text(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_64() {
    let output = run(&["--socket-path=/s", "--length=13", "tx"]);
    assert_eq!(output.status.code(), Some(64));
    let said = text(&output.stderr);
    assert!(said.starts_with("vtgen: --length=13: "), "{said}");
    assert!(said.contains("14 to 65535"), "{said}");
}

#[test]
fn a_back_end_that_is_not_there_ends_with_69() {
    let output = run(&["--socket-path=/nonexistent/vtgen.sock", "tx"]);
    assert_eq!(output.status.code(), Some(69));
    let said = text(&output.stderr);
    assert!(said.contains("/nonexistent/vtgen.sock"), "{said}");
    assert!(said.contains("start it first"), "{said}");
}

/// As that of `vtnetd -N` is.
#[test]
fn a_socket_of_another_type_is_no_device() {
    let path = std::env::temp_dir().join(format!("vtgen-{}-packets.sock", std::process::id()));
    let kind = SockType::SeqPacket;
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&fd, Backlog::MAXCONN).unwrap();
    let output = run(&["--socket-path", path.to_str().unwrap(), "tx"]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(69));
    let said = text(&output.stderr);
    assert!(said.contains("name the socket of a device"), "{said}");
    assert!(!said.contains("start it first"), "{said}");
}

#[test]
fn a_descriptor_that_is_no_socket_ends_with_64() {
    let output = run(&["--fd=999", "tx"]);
    assert_eq!(output.status.code(), Some(64));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("vtgen: --fd=999: no such descriptor"),
        "{said}"
    );
    assert!(!said.contains("vtnetd"), "{said}");
}

#[test]
fn a_back_end_that_hangs_up_at_once_has_another_front_end() {
    let path = std::env::temp_dir().join(format!("vtgen-{}-hangup.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let closer = std::thread::spawn(move || {
        // Reads the first request and answers nothing.
        let (mut socket, _) = listener.accept().unwrap();
        socket.read_exact(&mut [0; 12]).unwrap();
    });
    let output = run(&["--socket-path", path.to_str().unwrap(), "tx"]);
    closer.join().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("one front end at a time"));
}

#[test]
fn the_manual_page_describes_every_option() {
    let page = include_str!("../../man/vtgen.8");
    let help = text(&run(&["-h"]).stdout);
    let options: Vec<_> = help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"))
        .map(|name| name.trim_end_matches([',', ']']))
        .collect();
    assert!(options.len() > 25, "{options:?}");
    for name in options {
        let described = page.lines().any(|line| {
            let items = line.strip_prefix(".It ").unwrap_or_default();
            items
                .split_whitespace()
                .any(|word| word.strip_prefix('-') == Some(name))
        });
        assert!(described, "--{name}");
    }
}
