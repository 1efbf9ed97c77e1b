//! The two processes: who opens, who serves, and how they end.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

#[cfg(target_os = "linux")]
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt};

use crate::lifecycle::Running;
use crate::vtnetd::{EX_USAGE, Scratch, run, text, vtnetd};

const EX_NOUSER: i32 = 67;
const EX_NOPERM: i32 = 77;
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: only root can become another user");
    }
    root
}

/// However the serving process ends, nothing is left.
#[test]
fn a_killed_process_leaves_nothing() {
    let scratch = Scratch::new("killed");
    let (socket, pid_file) = (scratch.path("s"), scratch.path("pid"));
    let device = format!("virtio-net,none,socket={socket}");
    let running = Running::ready(&["-p", &pid_file, "-s", &device]);
    assert_eq!(scratch.names(), ["pid", "s"]);
    running.signal(Signal::SIGKILL);
    // The log ends with the opener, which has it open, too.
    assert_eq!(running.end().0, None);
    assert_eq!(scratch.names(), [""; 0]);
}

/// What ends a process group is not to end the opener before its time.
#[test]
fn the_opener_ends_with_the_other_one_only() {
    let scratch = Scratch::new("signals");
    let path = scratch.path("s");
    let device = format!("virtio-net,none,mode=client,socket={path}");
    let running = Running::ready(&["-s", &device]);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(running.opener(), signal).unwrap();
    }
    // It still connects.
    let listener = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        listener.accept().unwrap();
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
}

/// A front end is served on; only what needs opening is not, and that is said
/// once.
#[test]
fn the_other_one_goes_on_without_its_opener() {
    let scratch = Scratch::new("alone");
    let socket = scratch.path("s");
    let device = format!("virtio-net,none,socket={socket}");
    let mut running = Running::ready(&["-s", &device]);
    kill(running.opener(), Signal::SIGKILL).unwrap();
    let said = running.until("opener: it has ended");
    assert!(said.contains("; restart vtnetd"), "{said}");
    for _ in 0..2 {
        let front_end = UnixStream::connect(&socket).unwrap();
        running.until("front end connected");
        drop(front_end);
        running.until("front end disconnected");
    }
    running.signal(Signal::SIGTERM);
    let (status, rest) = running.end();
    assert_eq!(status, Some(0));
    assert!(!rest.contains("opener"), "{rest}");
    // Nobody is left who could.
    assert_eq!(scratch.names(), ["s"]);
}

#[test]
fn users_that_cannot_be_become() {
    let device = "virtio-net,none,mode=client,socket=/nowhere";
    let output = run(&["-u", "no-such-user", "-s", device]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(EX_NOUSER), "{said}");
    assert!(said.contains("-u no-such-user: no such user; "), "{said}");
    if !is_root() {
        return;
    }
    let output = run(&["-u", "root", "-s", device]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(EX_USAGE), "{said}");
    assert!(said.contains("name a user that is not root"), "{said}");

    let scratch = Scratch::new("user");
    let program = scratch.path("vtnetd");
    fs::copy(vtnetd(&[]).get_program(), &program).unwrap();
    let mut command = Command::new(&program);
    command.uid(NOBODY).gid(NOBODY);
    let output = command.args(["-u", "nobody", "-s", device]).output();
    let output = output.unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(EX_NOPERM), "{said}");
    assert!(said.contains("run as root, or leave -u out"), "{said}");
}

/// What nobody has named is open in neither of the two processes.
#[test]
fn other_inherited_descriptors_are_closed() {
    let scratch = Scratch::new("inherited");
    let device = format!("virtio-net,none,socket={}", scratch.path("s"));
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = crate::lifecycle::inheriting(theirs.into(), &["-s", &device]);
    let mut running = Running::spawn(&mut command);
    drop(command);
    running.until("ready");
    // Ends, or this waits for ever.
    assert_eq!(std::io::Read::read(&mut ours, &mut [0]).unwrap(), 0);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
}

/// Somebody else may have the connection with the opener.
#[test]
#[cfg(target_os = "linux")]
fn the_opener_ends_with_the_process_not_with_the_connection() {
    let scratch = Scratch::new("passed-on");
    let device = format!("virtio-net,none,socket={}", scratch.path("s"));
    let running = Running::ready(&["-s", &device]);
    let id = running.id();
    // SAFETY: numbers only.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
    assert!(process >= 0);
    let mut taken = 0;
    for entry in fs::read_dir(format!("/proc/{id}/fd")).unwrap() {
        let number = entry.unwrap().file_name().into_string().unwrap();
        let number: libc::c_int = number.parse().unwrap();
        // Its log is ours: where that ends, everything has.
        if number > 2 {
            // SAFETY: numbers only. They stay open as long as this test.
            let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, number, 0) };
            taken += usize::from(fd >= 0);
        }
    }
    if taken == 0 {
        println!("skipped: may not take another process's descriptors");
    }
    running.signal(Signal::SIGKILL);
    assert_eq!(running.end().0, None);
    assert_eq!(scratch.names(), [""; 0]);
}

/// The effective user of who has connected.
fn connected_as(stream: &UnixStream) -> u32 {
    #[cfg(target_os = "linux")]
    let peer = getsockopt(stream, sockopt::PeerCredentials);
    #[cfg(not(target_os = "linux"))]
    let peer = getsockopt(stream, sockopt::LocalPeerCred);
    peer.unwrap().uid()
}

/// The opener connects with no more rights than the process that it is for.
#[test]
fn with_a_user_it_connects_as_that_user() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("connects-as");
    let path = scratch.path("s");
    let ours = scratch.path("listens");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let devices = [
        format!("virtio-net,none,mode=client,socket={path}"),
        format!("virtio-net,none,socket={ours}"),
    ];
    let args = ["-u", "nobody", "-s", &devices[0], "-s", &devices[1]];
    let running = Running::ready(&args);
    for _ in 0..2 {
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(connected_as(&stream), NOBODY);
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
    // It is root again: nobody could not have removed its socket there.
    assert_eq!(scratch.names(), ["s"]);
}

/// Whoever is in the user's group is let in by the right umask. Where others
/// could put something else in the socket's place, nothing is handed over.
#[test]
fn with_a_user_sockets_are_that_users() {
    if !is_root() {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    for (mode, owner, handed_over) in [
        (0o755, 0, true),
        (0o700, 0, true),
        (0o755, NOBODY, true),
        (0o1777, 0, true),
        (0o755, 1, false),
        (0o775, 0, false),
    ] {
        let what = format!("{mode:o} of {owner}");
        let scratch = Scratch::new("owned");
        let path = scratch.path("s");
        let directory = Path::new(&path).parent().unwrap();
        chown(directory, Some(owner), Some(0)).unwrap();
        fs::set_permissions(directory, Permissions::from_mode(mode)).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 007; exec \"$0\" -u nobody -s \"$1\""]);
        shell.arg(vtnetd(&[]).get_program());
        shell.arg(format!("virtio-net,none,socket={path}"));
        let mut running = Running::spawn(&mut shell);
        if !handed_over {
            let said = running.until("stays root's");
            assert!(said.contains(&path) && said.contains("; have"), "{said}");
        }
        running.until("ready");
        let found = fs::metadata(&path).unwrap();
        if handed_over {
            let owners = (found.uid(), found.gid());
            assert_eq!(owners, (NOBODY, nobody.gid.as_raw()), "{what}");
        } else {
            assert_eq!(found.uid(), 0, "{what}");
        }
        assert_eq!(found.mode() & 0o777, 0o770, "{what}");
        running.signal(Signal::SIGTERM);
        assert_eq!(running.end().0, Some(0));
        assert_eq!(scratch.names(), [""; 0], "{what}");
    }
}

/// Lines of /proc/PID/status, by their names.
#[cfg(target_os = "linux")]
fn status(id: impl std::fmt::Display, name: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let values = line.unwrap().trim_start_matches(':').split_whitespace();
    values.map(str::to_owned).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn the_serving_process_has_no_privileges() {
    let scratch = Scratch::new("none");
    let device = format!("virtio-net,vale0:a,type=core,socket={}", scratch.path("s"));
    let nobody = if is_root() {
        &["-u", "nobody"][..]
    } else {
        &[]
    };
    for (user, options, filters) in [
        (&[][..], &[][..], "2"),
        (nobody, &[], "2"),
        (&[], &["--no-sandbox"], "0"),
    ] {
        let args = [user, options, &["-s", &device]].concat();
        let running = Running::ready(&args);
        let (id, opener) = (running.id(), running.opener());
        if !user.is_empty() {
            for kind in ["Uid", "Gid"] {
                assert_eq!(status(id, kind), vec![NOBODY.to_string(); 4]);
            }
            assert_eq!(status(id, "Groups"), [NOBODY.to_string()]);
            assert_eq!(status(opener, "Uid"), ["0"; 4]);
        }
        assert_eq!(status(id, "Seccomp_filters"), [filters], "{args:?}");
        if options.is_empty() {
            for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                assert_eq!(status(id, set), ["0000000000000000"], "{args:?}");
            }
            assert_eq!(status(id, "NoNewPrivs"), ["1"]);
        }
        // The workers, too.
        for thread in fs::read_dir(format!("/proc/{id}/task")).unwrap() {
            let thread = thread.unwrap().file_name().into_string().unwrap();
            assert_eq!(status(thread, "Seccomp_filters"), [filters]);
        }
        running.signal(Signal::SIGTERM);
        assert_eq!(running.end().0, Some(0));
        assert_eq!(scratch.names(), [""; 0]);
    }
}

/// Nothing of the other process is open in the opener: an inherited connection
/// ends when the other one closes it.
#[test]
fn the_opener_holds_no_connection() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let args = [
        "-s",
        "virtio-net,none,fd=7",
        "-s",
        "virtio-net,none,mode=client,socket=/nowhere",
    ];
    let mut command = crate::lifecycle::inheriting(theirs.into(), &args);
    let mut running = Running::spawn(&mut command);
    drop(command);
    running.until("ready");
    // Not a message: it hangs up.
    std::io::Write::write_all(&mut ours, &[0xff; 12]).unwrap();
    let mut rest = Vec::new();
    // Ends for good, or this waits for ever.
    let _ = std::io::Read::read_to_end(&mut ours, &mut rest);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
}
