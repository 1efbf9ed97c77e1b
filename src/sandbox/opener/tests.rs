//! An opener and a process that was taken over.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use proptest::prelude::*;

use super::*;
use crate::cli::{Command, parse};

/// A directory of this test's own.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vtnetd-opener-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An opener in a thread. It is given a device that listens, one that connects,
/// and one with an inherited socket, none of which has a back end to open.
struct Bed {
    directory: Directory,
    opener: Option<Opener>,
    /// Dropped, it is as if the process had ended.
    process: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Bed {
    fn new() -> Self {
        let directory = Directory::new();
        let args = [
            "-p".to_owned(),
            directory.path("pid"),
            "-s".to_owned(),
            format!("virtio-net,none,socket={}", directory.path("listens")),
            "-s".to_owned(),
            format!(
                "virtio-net,none,mode=client,socket={}",
                directory.path("connects")
            ),
            "-s".to_owned(),
            "virtio-net,none,fd=3".to_owned(),
        ];
        let Ok(Command::Run(config)) = parse(args) else {
            panic!("a right command line");
        };
        let (ours, theirs) = Packets::pair().unwrap();
        let (end, process) = nix::unistd::pipe().unwrap();
        let thread = std::thread::spawn(move || {
            Server::new(&config, None, 4711).serve(&theirs, Some(end.as_fd()));
        });
        Self {
            directory,
            opener: Some(Opener(Arc::new(Link(Mutex::new(ours))))),
            process: Some(process),
            thread: Some(thread),
        }
    }

    fn opener(&self) -> &Opener {
        self.opener.as_ref().unwrap()
    }

    fn ask(&self, request: Request) -> Answer {
        self.opener().0.ask(request)
    }

    /// Sends any bytes, and says what the answer is.
    fn send(&self, packet: &[u8]) -> Answer {
        let link = self.opener().0.0.lock().unwrap();
        link.send(packet).unwrap();
        let mut room = vec![0; ANSWER];
        let len = link.receive(&mut room).unwrap();
        decode(&room[..len]).unwrap().0
    }

    /// The other process ends.
    fn end(&mut self) {
        self.opener = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.end();
    }
}

fn refused(answer: Answer) -> bool {
    matches!(
        answer,
        Err(Refusal {
            errno: libc::EPERM,
            ..
        })
    )
}

#[test]
fn it_listens_and_connects_where_the_configuration_says() {
    let mut bed = Bed::new();
    let listener = bed.opener().listen(0).unwrap();
    assert_eq!(bed.directory.names(), ["listens"]);
    UnixStream::connect(bed.directory.path("listens")).unwrap();
    listener.accept().unwrap();
    let flags = nix::fcntl::fcntl(&listener, nix::fcntl::F_GETFD).unwrap();
    assert_eq!(flags, libc::FD_CLOEXEC);

    let connector = bed.opener().connector(1, "there".into());
    assert_eq!(connector.connect().unwrap_err(), Errno::ENOENT);
    let theirs = UnixListener::bind(bed.directory.path("connects")).unwrap();
    for _ in 0..3 {
        let connection = connector.connect().unwrap();
        assert!(connection.peer_addr().is_ok());
        theirs.accept().unwrap();
    }
    // Not where a link leads to.
    let path = PathBuf::from(bed.directory.path("connects"));
    let moved = path.with_extension("moved");
    fs::rename(&path, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &path).unwrap();
    assert_eq!(connector.connect().unwrap_err(), Errno::ENOTSOCK);
    fs::rename(&moved, &path).unwrap();
    drop(theirs);
    assert_eq!(connector.connect().unwrap_err(), Errno::ECONNREFUSED);

    // What it made goes with the other process; what others made stays.
    bed.end();
    assert_eq!(bed.directory.names(), ["connects"]);
    drop(listener);
}

#[test]
fn the_pid_file_is_about_the_other_process() {
    let mut bed = Bed::new();
    assert!(refused(bed.ask(Request::PublishPidFile)));
    bed.opener().claim_pid_file().unwrap();
    assert_eq!(bed.directory.names(), ["pid.4711"]);
    bed.opener().publish_pid_file().unwrap();
    let path = bed.directory.path("pid");
    assert_eq!(fs::read_to_string(&path).unwrap(), "4711\n");
    // Once is enough: a file that somebody else puts there is not taken away.
    assert!(refused(bed.ask(Request::ClaimPidFile)));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "others").unwrap();
    bed.end();
    assert_eq!(bed.directory.names(), ["pid"]);
}

#[test]
fn an_error_keeps_its_words_and_its_exit_status() {
    let bed = Bed::new();
    fs::write(bed.directory.path("listens"), "precious").unwrap();
    let failure = bed.opener().listen(0).unwrap_err();
    assert_eq!(failure.exit, Exit::CannotCreate);
    let path = bed.directory.path("listens");
    let cure = "exists and is not a socket; remove it or choose another path";
    assert_eq!(failure.to_string(), format!("{path}: {cure}"));
    // It may be tried again.
    fs::remove_file(&path).unwrap();
    bed.opener().listen(0).unwrap();
}

#[test]
fn what_is_not_in_the_configuration_is_refused() {
    let bed = Bed::new();
    let _listener = bed.opener().listen(0).unwrap();
    let features = Operation::SetFeatures(u64::MAX);
    let header = Operation::SetHeaderLen(12);
    for request in [
        // There is no such device.
        Request::Listen(3),
        Request::Connect(3),
        Request::Open(u32::MAX),
        Request::Operate(3, features),
        // There is no service, so no interface is its.
        Request::LookAtInterface(0),
        Request::OpenInterface(0, false),
        Request::OpenInterface(u32::MAX, true),
        // There is, and it is another kind.
        Request::Listen(0),
        Request::Listen(1),
        Request::Listen(2),
        Request::Connect(0),
        Request::Connect(2),
        Request::Open(0),
        Request::Open(1),
        Request::Operate(0, features),
        Request::Operate(1, header),
    ] {
        assert!(refused(bed.ask(request)), "{request:?}");
    }
    assert_eq!(bed.directory.names(), ["listens"]);
}

/// Descriptors that come with a request are never had, so none can fill the
/// opener up; a packet of another length is no request.
#[test]
fn packets_that_are_none() {
    let bed = Bed::new();
    let right = Request::Connect(1).to_bytes();
    let gift = fs::File::open("/dev/null").unwrap();
    {
        let link = bed.opener().0.0.lock().unwrap();
        for _ in 0..2000 {
            let fds: Vec<OwnedFd> = (0..8).map(|_| gift.try_clone().unwrap().into()).collect();
            link.send_with(&right, &fds).unwrap();
            let mut room = vec![0; ANSWER];
            let len = link.receive(&mut room).unwrap();
            let (answer, _) = decode(&room[..len]).unwrap();
            assert_eq!(answer.unwrap_err().errno, libc::ENOENT);
        }
    }
    for packet in [&right[..15], &[right.as_slice(), &[0]].concat(), &[0; 8000]] {
        let mut bed = Bed::new();
        bed.opener().claim_pid_file().unwrap();
        let link = bed.opener().0.0.lock().unwrap();
        link.send(packet).unwrap();
        // It has ended, and what it had made is gone; FreeBSD says that there
        // was more that nobody has read.
        let ended = link.receive(&mut [0; 1]);
        assert!(matches!(ended, Ok(0) | Err(Errno::ECONNRESET)), "{ended:?}");
        drop(link);
        if let Some(thread) = bed.thread.take() {
            thread.join().unwrap();
        }
        assert_eq!(bed.directory.names(), [""; 0], "{} bytes", packet.len());
    }
}

/// Whoever has the other end of the connection by then.
#[test]
fn it_ends_when_the_other_process_does() {
    let mut bed = Bed::new();
    let _listener = bed.opener().listen(0).unwrap();
    drop(bed.process.take());
    bed.thread.take().unwrap().join().unwrap();
    assert_eq!(bed.directory.names(), [""; 0]);
}

/// Nor is it held up by who does not read.
#[test]
fn it_ends_when_its_answers_are_not_read() {
    let mut bed = Bed::new();
    {
        let link = bed.opener().0.0.lock().unwrap();
        let request = Request::Connect(1).to_bytes();
        // It cannot be asked any more once it has ended.
        while matches!(link.send(&request), Ok(()) | Err(Errno::EAGAIN)) {}
    }
    bed.thread.take().unwrap().join().unwrap();
}

/// It ends with the other process in any case, and leaves nothing.
#[test]
fn who_does_not_wait_for_answers_gets_them_all_the_same() {
    let mut bed = Bed::new();
    {
        let link = bed.opener().0.0.lock().unwrap();
        for _ in 0..20 {
            link.send(&Request::Listen(0).to_bytes()).unwrap();
        }
    }
    bed.end();
    assert_eq!(bed.directory.names(), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a taken-over process says, nothing appears but what is in the
    /// configuration, and the opener goes on.
    #[test]
    fn any_talk_makes_only_names_of_the_configuration(
        packets in prop::collection::vec(
            (1u32..9, 0u32..5, prop_oneof![Just(0u64), any::<u64>()]),
            1..8,
        ),
    ) {
        let mut bed = Bed::new();
        for (kind, device, number) in packets {
            let mut packet = [0; Request::LEN];
            packet[..4].copy_from_slice(&kind.to_ne_bytes());
            packet[4..8].copy_from_slice(&device.to_ne_bytes());
            packet[8..].copy_from_slice(&number.to_ne_bytes());
            let _ = bed.send(&packet);
        }
        for name in bed.directory.names() {
            prop_assert!(["listens", "pid", "pid.4711"].contains(&name.as_str()), "{name}");
        }
        bed.end();
        prop_assert!(bed.directory.names().is_empty());
    }
}

#[test]
fn interfaces_that_the_service_names_and_no_others() {
    let Ok(Command::Run(config)) = parse(["-N", "/s,interface=lo,interface=nobody0"]) else {
        panic!("a right command line");
    };
    let (ours, theirs) = Packets::pair().unwrap();
    let served = config.clone();
    let thread = std::thread::spawn(move || {
        let (end, _process) = nix::unistd::pipe().unwrap();
        Server::new(&served, None, 4711).serve(&theirs, Some(end.as_fd()));
    });
    let opener = Opener(Arc::new(Link(Mutex::new(ours))));
    let interfaces = opener.interfaces(&config);
    let absent = |name| interfaces.open(name, false).err().unwrap().errno();
    for name in ["nobody0", "nobody1"] {
        assert_eq!(interfaces.look(name), Ok(None), "{name}");
        assert_ne!(absent(name), Errno::EPERM, "{name}");
    }
    for place in [2, u32::MAX] {
        assert!(refused(opener.0.ask(Request::LookAtInterface(place))));
        assert!(refused(opener.0.ask(Request::OpenInterface(place, false))));
    }
    assert!(
        interfaces
            .look("nobody2")
            .is_ok_and(|facts| facts.is_none())
    );
    #[cfg(target_os = "linux")]
    assert!(interfaces.look("lo").is_ok_and(|facts| facts.is_some()));
    drop((interfaces, opener));
    thread.join().unwrap();
}
