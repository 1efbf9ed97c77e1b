//! How vtnetd starts, what it leaves behind, and how it ends.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

use crate::vtnetd::{EX_USAGE, Scratch, run, text, vtnetd};

const EX_CANTCREAT: i32 = 73;
const EX_NOPERM: i32 = 77;

/// A vtnetd that runs; killed when the test ends before it does.
pub struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Running {
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Starts it and waits until it is ready.
    pub fn ready(args: &[&str]) -> Self {
        let mut running = Self::spawn(&mut vtnetd(args));
        running.until("ready");
        running
    }

    /// Reads the log up to the line that has `what` in it, which is returned.
    pub fn until(&mut self, what: &str) -> String {
        self.read(what).1
    }

    /// Reads the log up to the line that has `what` in it, and returns what
    /// was before it.
    fn before(&mut self, what: &str) -> String {
        self.read(what).0
    }

    fn read(&mut self, what: &str) -> (String, String) {
        let mut seen = String::new();
        loop {
            let from = seen.len();
            let len = self.log.read_line(&mut seen).unwrap();
            assert_ne!(len, 0, "no {what:?} in the log:\n{seen}");
            if seen[from..].contains(what) {
                let line = seen.split_off(from);
                return (seen, line);
            }
        }
    }

    #[cfg(target_os = "linux")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
    }

    /// Its opener, the only child that it has.
    pub fn opener(&self) -> Pid {
        let children = bed::children(self.child.id()).unwrap();
        let [opener] = children[..] else {
            panic!("{children:?}");
        };
        Pid::from_raw(opener.try_into().unwrap())
    }

    /// Waits for the end; the status, and the rest of the log.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }

    /// Waits for the end without reading the log; the status.
    pub fn end_unread(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_signal_ends_it_and_nothing_is_left() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let scratch = Scratch::new("ends");
        let (socket, pid_file) = (scratch.path("s"), scratch.path("pid"));
        let one = format!("virtio-net,none,socket={socket}");
        let other = format!("virtio-net,vale0:a,type=core,socket={socket}2,queues=2");
        let mut command = vtnetd(&["-p", &pid_file, "-s", &one, "-s", &other]);
        let mut running = Running::spawn(hangup(&mut command, SigHandler::SigDfl));
        running.until("ready");

        let pid = fs::read_to_string(&pid_file).unwrap();
        assert_eq!(pid, format!("{}\n", running.child.id()));
        let _front_end = UnixStream::connect(&socket).unwrap();
        UnixStream::connect(format!("{socket}2")).unwrap();

        running.signal(signal);
        let (status, log) = running.end();
        assert_eq!(status, Some(0), "{signal}: {log}");
        assert!(log.contains(signal.as_str()), "{log}");
        assert_eq!(scratch.names(), [""; 0]);
    }
}

/// Has the command started with this disposition of SIGHUP, whatever the one is
/// that the test was started with.
fn hangup(command: &mut Command, handler: SigHandler) -> &mut Command {
    let set = move || {
        // SAFETY: no function of ours is called by the signal.
        unsafe { signal(Signal::SIGHUP, handler) }?;
        Ok(())
    };
    // SAFETY: between fork and exec, signal(2) may be called.
    unsafe { command.pre_exec(set) }
}

/// As nohup(1) starts it; whoever wants its end has SIGTERM.
#[test]
fn a_hangup_that_is_ignored_stays_ignored() {
    let scratch = Scratch::new("nohup");
    let device = format!("virtio-net,none,socket={}", scratch.path("s"));
    let mut command = vtnetd(&["-s", &device]);
    let mut running = Running::spawn(hangup(&mut command, SigHandler::SigIgn));
    running.until("ready");
    running.signal(Signal::SIGHUP);
    running.signal(Signal::SIGUSR1);
    running.until("worker0: ");
    running.signal(Signal::SIGTERM);
    let (status, log) = running.end();
    assert_eq!(status, Some(0), "{log}");
    assert!(log.ends_with("SIGTERM: ending\n"), "{log}");
}

/// Each of them has several descriptors.
#[test]
fn many_devices_fit_whatever_the_soft_limit_is() {
    let scratch = Scratch::new("many");
    let sockets =
        (0..40).map(|i| format!("-s virtio-net,none,socket={}", scratch.path(&i.to_string())));
    let sockets: Vec<String> = sockets.collect();
    let mut shell = Command::new("sh");
    let program = vtnetd(&[]).get_program().to_owned();
    shell.args(["-c", "ulimit -S -n 32 && exec \"$0\" $1"]);
    shell.arg(program).arg(sockets.join(" "));
    let mut running = Running::spawn(&mut shell);
    running.until("ready");
    assert_eq!(scratch.names().len(), 40);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn statistics_are_logged_on_demand() {
    let scratch = Scratch::new("statistics");
    let device = format!(
        "virtio-net,vale0:vm1,type=core,name=web,socket={}",
        scratch.path("s")
    );
    let mut running = Running::ready(&["-s", &device]);
    // Every time, other than what guests can cause.
    for _ in 0..50 {
        running.signal(Signal::SIGUSR1);
        let line = running.until("web/vale0:vm1 tx0");
        assert!(line.contains("frames=0"), "{line}");
        running.until("vale0:vm1 in=0 in_bytes=0");
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
}

/// A front end that comes and goes as fast as it can fills no disk, and hides
/// nothing of what the others do.
#[test]
fn the_log_has_a_limit() {
    // All of it fits into the pipe, should there be no limit.
    const TIMES: usize = 300;
    let scratch = Scratch::new("limit");
    let device = |vm: &str| format!("virtio-net,none,name={vm},socket={}", scratch.path(vm));
    let mut running = Running::ready(&["-s", &device("a"), "-s", &device("b")]);
    let begun = Instant::now();
    for _ in 0..TIMES {
        // It closes its end once it has seen ours closed.
        let mut front_end = UnixStream::connect(scratch.path("a")).unwrap();
        front_end.shutdown(Shutdown::Write).unwrap();
        front_end.read_to_end(&mut Vec::new()).unwrap();
    }
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    let _other = UnixStream::connect(scratch.path("b")).unwrap();
    let log = running.before("b/none: front end connected");
    let lines = log.matches("a/none: front end connected").count();
    assert!(
        lines <= 20 * (seconds + 1) && lines < TIMES,
        "{lines} in {seconds} s"
    );
}

#[test]
fn a_pid_file_has_one_living_process() {
    let scratch = Scratch::new("pid");
    let pid_file = scratch.path("pid");
    let device = |socket: &str| format!("virtio-net,none,socket={}", scratch.path(socket));
    let mut first = Running::ready(&["-p", &pid_file, "-s", &device("a")]);

    let second = run(&["-p", &pid_file, "-s", &device("b")]);
    let said = text(&second.stderr);
    assert_eq!(second.status.code(), Some(EX_CANTCREAT), "{said}");
    assert!(
        said.contains(&format!("process {} has this", first.child.id())),
        "{said}"
    );
    assert!(said.contains("choose another -p"), "{said}");

    // What both of its processes, killed at once, leave behind is in nobody's way.
    let opener = first.opener();
    kill(opener, Signal::SIGKILL).unwrap();
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert_eq!(scratch.names(), ["a", "pid"]);
    let third = Running::ready(&["-p", &pid_file, "-s", &device("a")]);
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert_eq!(pid, format!("{}\n", third.child.id()));
    third.signal(Signal::SIGTERM);
    assert_eq!(third.end().0, Some(0));
    assert_eq!(scratch.names(), [""; 0]);
}

#[test]
fn sockets_that_cannot_be_had() {
    let scratch = Scratch::new("sockets");
    let (taken, file) = (scratch.path("taken"), scratch.path("file"));
    let _listener = UnixListener::bind(&taken).unwrap();
    fs::write(&file, "precious").unwrap();
    let pid_file = scratch.path("pid");
    for (socket, cure) in [
        (taken.clone(), "choose another path"),
        (file.clone(), "choose another path"),
        (scratch.path("missing/s"), "No such file"),
    ] {
        let device = format!("virtio-net,none,socket={socket}");
        let output = run(&["-p", &pid_file, "-s", &device]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(EX_CANTCREAT), "{socket}: {said}");
        let names_it = said.contains(&format!("vtnetd: {socket}: "));
        assert!(names_it && said.contains(cure), "{said}");
        // The first device's socket and the claim on the pid file are undone.
        assert_eq!(scratch.names(), ["file", "taken"]);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

/// Root may do everything, so the test gives that up: as nobody it runs a copy
/// of the program, which nobody may not reach where it is built, perhaps.
#[test]
fn a_directory_that_may_not_be_written() {
    const NOBODY: u32 = 65534;
    let scratch = Scratch::new("forbidden");
    let (program, forbidden) = (scratch.path("vtnetd"), scratch.path("forbidden"));
    fs::copy(vtnetd(&[]).get_program(), &program).unwrap();
    fs::create_dir(&forbidden).unwrap();
    fs::set_permissions(&forbidden, fs::Permissions::from_mode(0o555)).unwrap();
    let socket = format!("virtio-net,none,socket={forbidden}/s");
    let pid_file = format!("{forbidden}/pid");
    for args in [
        &["-s", &socket][..],
        &[
            "-p",
            &pid_file,
            "-s",
            "virtio-net,none,mode=client,socket=/s",
        ],
    ] {
        let mut command = Command::new(&program);
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.args(args).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(EX_NOPERM), "{said}");
        assert!(
            said.contains("forbidden/") && said.contains("denied"),
            "{said}"
        );
    }
}

#[test]
fn a_made_up_address_may_not_be_anothers() {
    let scratch = Scratch::new("mac");
    let socket = scratch.path("s");
    let mac = vtnetd::device::mac::generate(0, 0, "web");
    let output = run(&[
        "-s",
        &format!("virtio-net,vale0:a,type=core,name=web,socket={socket}"),
        "-s",
        &format!("virtio-net,vale0:b,type=core,mac={mac},socket={socket}2"),
    ]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(EX_USAGE), "{said}");
    assert!(
        said.contains(&format!("mac {mac}")) && said.contains("its own mac="),
        "{said}"
    );
    assert_eq!(scratch.names(), [""; 0]);
}

/// vtnetd with `file` as descriptor 7.
pub fn inheriting(file: OwnedFd, args: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec \"$0\" \"$@\" 7<&0 0</dev/null"])
        .arg(vtnetd(&[]).get_program())
        .args(args)
        .stdin(file);
    shell
}

#[test]
fn an_inherited_connection_is_served_until_it_ends() {
    let device = "virtio-net,none";
    for args in [
        ["--fd=7", "-s", device],
        ["-v", "-s", "virtio-net,none,fd=7"],
    ] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut running = Running::spawn(&mut inheriting(theirs.into(), &args));
        running.until("ready");
        drop(ours);
        let (status, log) = running.end();
        assert_eq!(status, Some(0), "{log}");
        assert!(
            log.contains("every inherited connection has ended"),
            "{log}"
        );
    }
}

#[test]
fn an_inherited_listener_is_listened_on() {
    let scratch = Scratch::new("listener");
    let path = PathBuf::from(scratch.path("s"));
    let listener = UnixListener::bind(&path).unwrap();
    let args = ["--fd=7", "-s", "virtio-net,none"];
    let mut running = Running::spawn(&mut inheriting(listener.into(), &args));
    running.until("ready");
    for _ in 0..2 {
        UnixStream::connect(&path).unwrap();
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
    // Whoever made it removes it.
    assert!(path.exists());
}

#[test]
fn a_descriptor_that_was_not_inherited_or_is_no_socket() {
    let null = || OwnedFd::from(fs::File::open("/dev/null").unwrap());
    for (number, what) in [(9, "fd=9: no such descriptor"), (7, "fd=7: not a Unix")] {
        let option = format!("--fd={number}");
        let args = [option.as_str(), "-s", "virtio-net,none"];
        let output = inheriting(null(), &args).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(EX_USAGE), "{said}");
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn a_client_connects_and_connects_again() {
    let scratch = Scratch::new("client");
    let path = scratch.path("s");
    let device = format!("virtio-net,none,mode=client,socket={path}");
    let running = Running::ready(&["-s", &device]);
    let listener = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        listener.accept().unwrap();
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
    // It was not vtnetd who made it.
    assert_eq!(scratch.names(), ["s"]);
}

/// In a network namespace of the test's own.
#[test]
#[cfg(target_os = "linux")]
fn a_tap_that_cannot_be_had() {
    const EX_UNAVAILABLE: i32 = 69;
    if !nix::unistd::geteuid().is_root() || !PathBuf::from("/dev/net/tun").exists() {
        println!("skipped: a tap needs root and /dev/net/tun");
        return;
    }
    let scratch = Scratch::new("tap");
    let program = scratch.path("vtnetd");
    fs::copy(vtnetd(&[]).get_program(), &program).unwrap();
    let device = |socket| format!("virtio-net,tap0,socket={}", scratch.path(socket));

    let mut first = Command::new("unshare");
    first.args(["--net", &program, "-s", &device("a")]);
    let mut first = Running::spawn(&mut first);
    first.until("ready");
    let namespace = format!("--net=/proc/{}/ns/net", first.child.id());
    let then = |command: &[&str]| {
        let mut nsenter = Command::new("nsenter");
        let output = nsenter.arg(&namespace).args(command).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };

    let (status, said) = then(&[&program, "-s", &device("b")]);
    assert_eq!(status, Some(EX_UNAVAILABLE), "{said}");
    assert!(said.contains("vtnetd: tap0: "), "{said}");
    assert!(said.contains("another process has it"), "{said}");

    let nobody = ["setpriv", "--reuid=65534", "--clear-groups", &program];
    let other = "virtio-net,tap1,mode=client,socket=/nowhere";
    let (status, said) = then(&[&nobody[..], &["-s", other]].concat());
    assert_eq!(status, Some(EX_NOPERM), "{said}");
    assert!(
        said.contains("tap") && said.contains("run as root"),
        "{said}"
    );

    first.signal(Signal::SIGTERM);
    assert_eq!(first.end().0, Some(0));
}

/// By the process itself, from inside its sandbox.
#[test]
#[cfg(target_os = "linux")]
fn a_tap_that_is_removed_is_made_again() {
    if !nix::unistd::geteuid().is_root() || !PathBuf::from("/dev/net/tun").exists() {
        println!("skipped: a tap needs root and /dev/net/tun");
        return;
    }
    let scratch = Scratch::new("removed");
    let program = vtnetd(&[]).get_program().to_owned();
    let device = format!("virtio-net,tap0,socket={}", scratch.path("s"));
    let mut running = Command::new("unshare");
    running.arg("--net").arg(program).args(["-s", &device]);
    let mut running = Running::spawn(&mut running);
    running.until("ready");
    let namespace = format!("--net=/proc/{}/ns/net", running.child.id());
    let ip = |command: &str| {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(&namespace).arg("ip").args(command.split(' '));
        let output = nsenter.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    for _ in 0..2 {
        ip("link delete tap0");
        running.until("tap0: gone from the host");
        running.until("tap0: back on the host");
        ip("link show up dev tap0");
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
}
