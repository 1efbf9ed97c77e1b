//! Pipes between threads, which after a while sync them themselves. As in
//! [`own`], each function is run in a process of its own.
//!
//! [`own`]: crate::own

use std::env;
use std::ffi::c_int;
use std::process::Command;
use std::ptr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use bed::{Error, Result, Test};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vtnetd::netmap::abi::nmreq::*;

use crate::port::*;
use crate::scene::{SOON, Scene};
use crate::{CLIENT, HANGS, service};

/// By the name that the test has.
pub const ALL: [(&str, fn()); 5] = [
    ("both_ends_of_a_pipe_sleep_and_wake_each_other", sleepers),
    ("threads_that_share_an_end_of_a_pipe_lose_nothing", shared),
    (
        "a_monitor_sees_what_a_busy_pipe_has_from_then_on",
        monitored,
    ),
    ("a_pipe_can_be_waited_for_both_ways_at_once", both_ways),
    ("a_pipe_takes_no_descriptor_of_its_program_s", descriptors),
];

/// The program that stops the service.
const STOPPER: &str = "stopper";
/// What is run by name alone.
pub const NAMED: [(&str, fn()); 2] = [(STOPPER, stopper), (BEREFT, bereft)];
/// The program whose service is killed.
const BEREFT: &str = "bereft_of_a_pipe";
/// The environment variable that says what the service's process is.
const SERVICE: &str = "NETMAP_SERVICE";

/// More syncs than a thread leaves to the service.
const MANY: u32 = 1000;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "a_pipe_goes_on_while_the_service_stands_still",
            stands_still,
        ),
        Test::new("who_waits_at_a_pipe_hears_that_the_service_is_gone", || {
            service::dies_under(BEREFT)
        }),
    ]
}

/// The two ends of one.
fn ends() -> [Port; 2] {
    [Port::open("loose{x"), Port::open("loose}x")]
}

/// A port that another thread has.
struct Moved(Port);

// SAFETY: a mapping belongs to no thread, and each port is used by one at a time.
unsafe impl Send for Moved {}

fn frame(nth: u32) -> [u8; 60] {
    let mut frame = [0xff; 60];
    frame[20..24].copy_from_slice(&nth.to_ne_bytes());
    frame
}

/// Sends frames through a pipe and takes them out again, without ever sleeping.
fn go_round([a, b]: &[Port; 2], frames: u32) {
    for nth in 0..frames {
        a.send(&frame(nth));
        assert_eq!(poll(b.fd, libc::POLLIN, 0).unwrap(), libc::POLLIN);
        assert_eq!(b.take().unwrap(), frame(nth));
        ioctl(b.fd, NIOCRXSYNC, ptr::null_mut()).unwrap();
    }
}

fn stopper() {
    let service = env::var(SERVICE).unwrap().parse().unwrap();
    let service = Pid::from_raw(service);
    let ends = ends();
    go_round(&ends, MANY);
    kill(service, Signal::SIGSTOP).unwrap();
    // Longer than a ring is.
    go_round(&ends, 5000);
    kill(service, Signal::SIGCONT).unwrap();
    // And it is there still.
    let monitor = Port::with("loose{x", NR_MONITOR_TX).unwrap();
    go_round(&ends, 1);
    assert_eq!(monitor.receive(), frame(0));
}

fn stands_still() -> Result<()> {
    let scene = Scene::new()?;
    let mut command = Command::new(env::current_exe()?);
    command.env(SERVICE, scene.vtnetd.id().to_string());
    let mut process = scene.start_as(STOPPER, command.env(CLIENT, STOPPER))?;
    let status = process.wait(HANGS);
    // However it ended.
    let service = i32::try_from(scene.vtnetd.id()).map_err(|_| Error::new("no process"))?;
    kill(Pid::from_raw(service), Signal::SIGCONT).map_err(std::io::Error::from)?;
    match status {
        Ok(status) if status.success() => scene.end(),
        Ok(status) => Err(process.explain(Error::new(status.to_string()), "it failed")),
        Err(error) => Err(process.explain(error, "the pipe stood still")),
    }
}

fn bereft() {
    let ends = ends();
    go_round(&ends, MANY);
    println!("waiting");
    let found = poll(ends[0].fd, libc::POLLIN, -1).unwrap();
    assert_ne!(found & libc::POLLERR, 0);
    let asked = ioctl(ends[0].fd, NIOCTXSYNC, ptr::null_mut());
    assert_eq!(errno(asked), libc::ENXIO);
}

/// The number that the next descriptor gets.
fn lowest_free() -> c_int {
    // SAFETY: a C string; the descriptor is ours.
    unsafe {
        let fd = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY);
        libc::close(fd);
        fd
    }
}

fn descriptors() {
    let ends = ends();
    let before = lowest_free();
    go_round(&ends, MANY);
    assert_eq!(lowest_free(), before);
}

/// The same descriptor is there twice, once for frames and once for room.
fn both_ways() {
    const ROUNDS: u32 = 50;
    let [a, b] = ends();
    for nth in 0..MANY {
        a.send(&frame(nth));
        assert_eq!(b.receive(), frame(nth));
        b.send(&frame(nth));
        assert_eq!(a.receive(), frame(nth));
    }
    while a.put(&frame(0)) {
        a.txsync();
    }
    let (go, begun) = mpsc::channel();
    let b = Moved(b);
    let sender = thread::spawn(move || {
        let b = b;
        for nth in begun {
            // Most often, the other one sleeps by then.
            thread::sleep(Duration::from_millis(5));
            b.0.send(&frame(nth));
        }
    });
    for nth in 0..ROUNDS {
        go.send(nth).unwrap();
        let mut fds = [libc::POLLIN, libc::POLLOUT].map(|events| libc::pollfd {
            fd: a.fd,
            events,
            revents: 0,
        });
        let wait = i32::try_from(SOON.as_millis()).unwrap();
        // SAFETY: two structures.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 2, wait) };
        assert_eq!((ready, fds.map(|one| one.revents)), (1, [libc::POLLIN, 0]));
        assert_eq!(a.take().unwrap(), frame(nth));
        ioctl(a.fd, NIOCRXSYNC, ptr::null_mut()).unwrap();
    }
    drop(go);
    sender.join().unwrap();
}

fn sleepers() {
    let [a, b] = ends();
    let b = Moved(b);
    let echo = thread::spawn(move || {
        let b = b;
        for _ in 0..5 * MANY {
            let frame = b.0.receive();
            b.0.send(&frame);
        }
    });
    for nth in 0..5 * MANY {
        a.send(&frame(nth));
        assert_eq!(a.receive(), frame(nth));
    }
    echo.join().unwrap();
}

/// One thread reads; two take turns at sending, as they come.
fn shared() {
    const FRAMES: u32 = 20 * MANY;
    let [a, b] = ends();
    let next = Arc::new(Mutex::new((0, Moved(a))));
    let senders = [(); 2].map(|()| {
        let next = Arc::clone(&next);
        thread::spawn(move || {
            loop {
                let mut next = next.lock().unwrap();
                let (nth, Moved(port)) = &mut *next;
                if *nth == FRAMES {
                    return;
                }
                // As long as one of them may have the rings to itself.
                for _ in 0..100 {
                    if *nth < FRAMES && port.put(&frame(*nth)) {
                        *nth += 1;
                    }
                    assert_eq!(poll(port.fd, libc::POLLOUT, -1).unwrap(), libc::POLLOUT);
                }
            }
        })
    });
    for nth in 0..FRAMES {
        assert_eq!(b.receive(), frame(nth));
    }
    for sender in senders {
        sender.join().unwrap();
    }
}

/// It comes and goes while both ends are at work.
fn monitored() {
    let [a, b] = ends();
    let b = Moved(b);
    let sink = thread::spawn(move || {
        let b = b;
        for nth in 0..20 * MANY {
            assert_eq!(b.0.receive(), frame(nth));
        }
    });
    let mut nth = 0;
    let mut send = |count| {
        for _ in 0..count {
            while !a.put(&frame(nth)) {
                assert_eq!(poll(a.fd, libc::POLLOUT, -1).unwrap(), libc::POLLOUT);
            }
            a.txsync();
            nth += 1;
        }
        nth
    };
    for _ in 0..20 {
        let first = send(MANY - 10);
        let monitor = Port::with("loose{x", NR_MONITOR_TX).unwrap();
        let end = send(10);
        for nth in first..end {
            assert_eq!(monitor.receive(), frame(nth));
        }
    }
    sink.join().unwrap();
}
