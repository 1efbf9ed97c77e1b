//! `vtnetd -N` as a process of its own, sandboxed, and its clients as others,
//! which die.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what is wrong")]

#[allow(dead_code, reason = "unit tests have the rest of it")]
mod program;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bed::{Census, Process, Scratch};
use nix::poll::PollFlags;
use program::{Channel, LONG, Program, frame};

/// How long vtnetd may take for what it does at once.
const SOON: Duration = Duration::from_secs(10);
/// What a second process is to do, and where the service is.
const PART: &str = "VTNETD_SERVICE_PART";
const PLACE: &str = "VTNETD_SERVICE_PLACE";

struct Served {
    vtnetd: Process,
    path: PathBuf,
    _scratch: Scratch,
}

impl Served {
    fn new(keys: &str) -> Self {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path("netmap.sock");
        let mut command = Command::new(bed::program(env!("CARGO_BIN_EXE_vtnetd")));
        let service = format!("{}{keys}", path.display());
        command.args(["-vv", "-N", &service]);
        let vtnetd = Process::start("vtnetd", &mut command).unwrap();
        let ready = vtnetd
            .errors
            .wait_for(0, SOON, |line| line.contains("ready"));
        ready.unwrap_or_else(|error| panic!("{}", vtnetd.explain(error, "starting")));
        Self {
            vtnetd,
            path,
            _scratch: scratch,
        }
    }

    fn open(&self) -> Program {
        Program::open(&self.path).unwrap()
    }

    /// A second process that plays `part`, once it has begun.
    fn second(&self, part: &str) -> Second {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "second_process", "--nocapture"])
            .env(PART, part)
            .env(PLACE, &self.path)
            .stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        Second(child)
    }

    /// Descriptors that go while they are counted are counted anew.
    fn census(&self) -> Census {
        let began = Instant::now();
        loop {
            match Census::of(self.vtnetd.id()) {
                Ok(census) => return census,
                Err(error) => assert!(began.elapsed() < LONG, "{error}"),
            }
        }
    }

    /// Waits until the service holds what it held `before`.
    fn until_it_holds(&self, before: &Census) {
        let began = Instant::now();
        while self.census() != *before {
            assert!(
                began.elapsed() < LONG,
                "{:?}, not {before:?}",
                self.census()
            );
            std::thread::yield_now();
        }
    }
}

struct Second(Child);

impl Second {
    /// Waits until it says that it has begun.
    fn begun(mut self) -> Self {
        use std::io::BufRead;
        let output = self.0.stdout.take().unwrap();
        let begun = std::io::BufReader::new(output)
            .lines()
            .any(|line| line.is_ok_and(|line| line.contains("begun")));
        assert!(begun, "the second process has ended");
        self
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Not a test by itself: the other process of the tests below.
#[test]
fn second_process() {
    let (Ok(part), Ok(place)) = (std::env::var(PART), std::env::var(PLACE)) else {
        return;
    };
    let place = Path::new(&place);
    let mut program = Program::open(place).unwrap();
    match part.as_str() {
        // Sends on and on.
        "sends" => {
            program.bind("vale0:second").unwrap();
            println!("begun");
            loop {
                let frames: Vec<_> = (0..500).map(frame).collect();
                program.send(&frames);
            }
        }
        // Has a port and never looks at it.
        "stops" => {
            program.bind("vale0:second").unwrap();
            println!("begun");
            std::thread::sleep(Duration::from_secs(600));
        }
        // Has many things, and is not tidy.
        "hoards" => {
            program.bind("vale0:second").unwrap();
            let _channels: Vec<_> = (0..20)
                .map(|_| Channel::attach(program.connection.as_fd()).unwrap())
                .collect();
            let mut pipe = Program::open(place).unwrap();
            pipe.bind("vale0:second{1").unwrap();
            let mut waits = Program::open(place).unwrap();
            waits.bind("vale0:waits").unwrap();
            println!("begun");
            loop {
                waits.channel.poll(PollFlags::POLLIN);
                waits.receive();
            }
        }
        part => panic!("no such part: {part}"),
    }
}

#[test]
fn who_is_killed_leaves_nothing_behind() {
    let served = Served::new("");
    let before = served.census();
    for part in ["stops", "sends", "hoards", "sends", "hoards"] {
        let second = served.second(part).begun();
        assert_ne!(served.census(), before);
        second.kill();
        served.until_it_holds(&before);
    }
    // The names are free again.
    served.open().bind("vale0:second").unwrap();
}

#[test]
fn others_go_on_while_one_is_killed() {
    let served = Served::new("");
    let (mut a, mut b) = (served.open(), served.open());
    a.bind("vale0:a").unwrap();
    b.bind("vale0:b").unwrap();
    for part in ["stops", "sends", "hoards"] {
        let second = served.second(part).begun();
        let mut killed = Some(second);
        for round in 0..40 {
            if round == 20 {
                killed.take().unwrap().kill();
            }
            let numbers = 10_000 + round * 100..10_000 + round * 100 + 100;
            let frames: Vec<_> = numbers.map(frame).collect();
            assert_eq!(a.send(&frames), 100, "there is room");
            let mut seen = b.receive();
            // The second one's frames may fill the ring; ours come in order.
            seen.retain(|seen| frames.contains(seen));
            assert!(seen.windows(2).all(|two| two[0] < two[1]));
            if round > 30 {
                assert_eq!(seen, frames, "{part}");
            }
            a.receive();
        }
    }
}

#[test]
fn the_service_ends_at_once_and_takes_its_name_along() {
    let mut served = Served::new(",mode=0660");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&served.path)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut program = served.open();
    program.bind("vale0:a").unwrap();
    let status = served.vtnetd.stop(SOON).unwrap();
    assert!(status.success());
    assert!(!served.path.exists());
    assert!(program.bind("vale0:b").is_err());
}
