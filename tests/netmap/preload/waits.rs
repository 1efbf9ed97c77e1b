//! Ways to wait for several ports, and what ends a wait. As in [`own`], each
//! function is run in a process of its own.
//!
//! [`own`]: crate::own

use std::ffi::c_int;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::port::*;

/// By the name that the test has.
pub const ALL: [(&str, fn()); 4] = [
    ("several_ports_and_a_pipe_in_one_poll", mixed_poll),
    ("select_waits_for_ports", select),
    ("time_runs_out", time),
    ("a_signal_ends_a_wait", signal),
];

/// What only this system has.
#[cfg(target_os = "linux")]
pub const SYSTEM: [(&str, fn()); 1] = [("epoll_waits_for_ports", epoll)];
/// What only this system has.
#[cfg(not(target_os = "linux"))]
pub const SYSTEM: [(&str, fn()); 1] = [("kqueue_waits_for_ports", kqueue)];

fn mixed_poll() {
    let ports = ["vale0:a", "vale0:b", "vale1:a"].map(Port::open);
    let (read, write) = UnixStream::pair().unwrap();
    let wait = |timeout| {
        let mut fds = [
            (ports[0].fd, libc::POLLIN),
            (read.as_raw_fd(), libc::POLLIN),
            (ports[1].fd, libc::POLLIN | libc::POLLOUT),
            (-1, libc::POLLIN),
            (ports[2].fd, libc::POLLIN),
        ]
        .map(|(fd, events)| libc::pollfd {
            fd,
            events,
            revents: 7,
        });
        // SAFETY: five structures.
        let ready = result(unsafe { libc::poll(fds.as_mut_ptr(), 5, timeout) }).unwrap();
        let found = fds.map(|one| one.revents);
        let count = found.iter().filter(|found| **found != 0).count();
        assert_eq!(usize::try_from(ready).unwrap(), count);
        found
    };
    assert_eq!(wait(-1), [0, 0, libc::POLLOUT, 0, 0]);
    std::io::Write::write_all(&mut &write, b"x").unwrap();
    assert_eq!(wait(0), [0, libc::POLLIN, libc::POLLOUT, 0, 0]);
    (&read).read_exact(&mut [0]).unwrap();
    ports[0].send(&[0xff; 60]);
    let both = libc::POLLIN | libc::POLLOUT;
    assert_eq!(wait(-1), [0, 0, both, 0, 0]);
    assert!(ports[1].take().is_some());
    // Only the pipe, while two ports are slept for.
    let fds = [ports[0].fd, ports[2].fd, read.as_raw_fd()];
    let waiter = thread::spawn(move || {
        let mut fds = fds.map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: three structures.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 3, -1) };
        (ready, fds.map(|one| one.revents))
    });
    drop(write);
    let (ready, found) = waiter.join().unwrap();
    assert_eq!((ready, found[..2].to_vec()), (1, vec![0, 0]));
    assert_ne!(found[2] & (libc::POLLIN | libc::POLLHUP), 0);
}

fn select() {
    let (a, b) = (Port::open("vale0:a"), Port::open("vale0:b"));
    let (read, _write) = UnixStream::pair().unwrap();
    let wait = |timeout: Option<i64>| {
        // SAFETY: a set of bits is good with any.
        let (mut readable, mut writable): (libc::fd_set, libc::fd_set) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        // SAFETY: numbers of open descriptors, and sets of ours.
        let ready = unsafe {
            libc::FD_SET(b.fd, &mut readable);
            libc::FD_SET(read.as_raw_fd(), &mut readable);
            libc::FD_SET(a.fd, &mut writable);
            let mut time = timeout.map(|tv_usec| libc::timeval { tv_sec: 0, tv_usec });
            let time = time.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
            let top = read.as_raw_fd().max(a.fd).max(b.fd) + 1;
            libc::select(top, &mut readable, &mut writable, ptr::null_mut(), time)
        };
        // SAFETY: as above.
        let is = unsafe {
            [
                libc::FD_ISSET(b.fd, &readable),
                libc::FD_ISSET(read.as_raw_fd(), &readable),
                libc::FD_ISSET(a.fd, &writable),
            ]
        };
        (result(ready).unwrap(), is)
    };
    assert_eq!(wait(None), (1, [false, false, true]));
    a.send(&[0xff; 60]);
    assert_eq!(wait(None), (2, [true, false, true]));
    b.take().unwrap();
    assert_eq!(wait(Some(0)), (1, [false, false, true]));
}

fn time() {
    let port = Port::open("vale0:a");
    let begun = Instant::now();
    assert_eq!(poll(port.fd, libc::POLLIN, 60).unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(60));
    assert_eq!(poll(port.fd, libc::POLLIN, 0).unwrap(), 0);
    let mut one = libc::pollfd {
        fd: port.fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let bad = libc::timespec {
        tv_sec: 0,
        tv_nsec: 1_000_000_000,
    };
    // SAFETY: one structure, a time, and no mask.
    let ready = unsafe { libc::ppoll(&mut one, 1, &bad, ptr::null()) };
    assert_eq!(errno(result(ready)), libc::EINVAL);
}

fn signal() {
    extern "C" fn nothing(_: c_int) {}
    let port = Port::open("vale0:a");
    // SAFETY: a handler that does nothing, and the thread's own ID.
    let thread = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
        libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut());
        libc::pthread_self()
    };
    struct Thread(libc::pthread_t);
    // SAFETY: an ID is good in every thread.
    unsafe impl Send for Thread {}
    let thread = Thread(thread);
    let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = Arc::clone(&ended);
    let kicker = thread::spawn(move || {
        let thread = thread;
        // One that comes before the wait is missed; the next is not. One upon
        // another would leave the thread no time to get to the wait.
        while !stop.load(std::sync::atomic::Ordering::Acquire) {
            // SAFETY: the thread lives as long as this one is waited for.
            unsafe { libc::pthread_kill(thread.0, libc::SIGUSR1) };
            thread::sleep(Duration::from_millis(1));
        }
    });
    assert_eq!(errno(poll(port.fd, libc::POLLIN, -1)), libc::EINTR);
    ended.store(true, std::sync::atomic::Ordering::Release);
    kicker.join().unwrap();
}

#[cfg(target_os = "linux")]
fn epoll() {
    let (a, b) = (Port::open("vale0:a"), Port::open("vale0:b"));
    let (read, write) = UnixStream::pair().unwrap();
    // SAFETY: no pointers.
    let queue = result(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).unwrap();
    let control = |operation, fd, events: c_int, data| {
        let mut event = libc::epoll_event {
            events: u32::try_from(events).unwrap(),
            u64: data,
        };
        // SAFETY: one structure.
        result(unsafe { libc::epoll_ctl(queue, operation, fd, &mut event) })
    };
    let wait = |timeout| {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 4];
        // SAFETY: room for four.
        let ready = unsafe { libc::epoll_wait(queue, events.as_mut_ptr(), 4, timeout) };
        let ready = usize::try_from(result(ready).unwrap()).unwrap();
        let mut told: Vec<(u64, u32)> = events[..ready]
            .iter()
            .map(|event| (event.u64, event.events))
            .collect();
        told.sort_unstable();
        told
    };
    let readable = 1; // EPOLLIN
    control(libc::EPOLL_CTL_ADD, b.fd, libc::EPOLLIN, 1 << 40).unwrap();
    let twice = control(libc::EPOLL_CTL_ADD, b.fd, libc::EPOLLIN, 2);
    assert_eq!(errno(twice), libc::EEXIST);
    control(libc::EPOLL_CTL_ADD, read.as_raw_fd(), libc::EPOLLIN, 3).unwrap();
    assert_eq!(wait(0), []);
    a.send(&[0xff; 60]);
    assert_eq!(wait(-1), [(1 << 40, readable)]);
    std::io::Write::write_all(&mut &write, b"x").unwrap();
    assert_eq!(wait(-1), [(3, readable), (1 << 40, readable)]);
    b.take().unwrap();
    assert_eq!(wait(-1), [(3, readable)]);
    (&read).read_exact(&mut [0]).unwrap();
    assert_eq!(wait(20), []);
    // Woken from a sleep, by a port.
    let waiter = thread::spawn({
        move || {
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            // SAFETY: room for one.
            let ready = unsafe { libc::epoll_wait(queue, &mut event, 1, -1) };
            (ready, event.u64)
        }
    });
    a.send(&[0xff; 60]);
    assert_eq!(waiter.join().unwrap(), (1, 1 << 40));
    let once = libc::EPOLLIN | libc::EPOLLONESHOT;
    control(libc::EPOLL_CTL_MOD, b.fd, once, 4).unwrap();
    assert_eq!(wait(-1), [(4, readable)]);
    assert_eq!(wait(0), []);
    control(libc::EPOLL_CTL_MOD, b.fd, libc::EPOLLIN, 5).unwrap();
    assert_eq!(wait(-1), [(5, readable)]);
    control(libc::EPOLL_CTL_DEL, b.fd, 0, 0).unwrap();
    assert_eq!(wait(0), []);
    let gone = control(libc::EPOLL_CTL_DEL, b.fd, 0, 0);
    assert_eq!(errno(gone), libc::ENOENT);
}

#[cfg(not(target_os = "linux"))]
fn kqueue() {
    let (a, b) = (Port::open("vale0:a"), Port::open("vale0:b"));
    let (read, write) = UnixStream::pair().unwrap();
    // SAFETY: no pointers.
    let queue = result(unsafe { libc::kqueue() }).unwrap();
    let call = |changes: &[libc::kevent], timeout: Option<i64>| {
        // SAFETY: numbers and null pointers.
        let mut events: [libc::kevent; 4] = unsafe { std::mem::zeroed() };
        let time = timeout.map(|milliseconds| libc::timespec {
            tv_sec: 0,
            tv_nsec: milliseconds * 1_000_000,
        });
        let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
        let count = c_int::try_from(changes.len()).unwrap();
        // SAFETY: so many changes, room for four, and a time.
        let ready =
            unsafe { libc::kevent(queue, changes.as_ptr(), count, events.as_mut_ptr(), 4, time) };
        let ready = usize::try_from(result(ready).unwrap()).unwrap();
        let mut told: Vec<(usize, i16)> = events[..ready]
            .iter()
            .map(|event| (event.udata as usize, event.filter))
            .collect();
        told.sort_unstable();
        told
    };
    let change = |fd: c_int, filter, flags, data: usize| libc::kevent {
        ident: usize::try_from(fd).unwrap(),
        filter,
        flags,
        fflags: 0,
        data: 0,
        udata: ptr::without_provenance_mut(data),
        ext: [0; 4],
    };
    let readable = libc::EVFILT_READ;
    let added = [
        change(b.fd, readable, libc::EV_ADD, 1),
        change(read.as_raw_fd(), readable, libc::EV_ADD, 3),
    ];
    assert_eq!(call(&added, Some(0)), []);
    a.send(&[0xff; 60]);
    assert_eq!(call(&[], None), [(1, readable)]);
    std::io::Write::write_all(&mut &write, b"x").unwrap();
    assert_eq!(call(&[], None), [(1, readable), (3, readable)]);
    b.take().unwrap();
    assert_eq!(call(&[], None), [(3, readable)]);
    (&read).read_exact(&mut [0]).unwrap();
    assert_eq!(call(&[], Some(20)), []);
    let once = change(b.fd, readable, libc::EV_ADD | libc::EV_ONESHOT, 4);
    a.send(&[0xff; 60]);
    assert_eq!(call(&[once], None), [(4, readable)]);
    assert_eq!(call(&[], Some(0)), []);
    let room = change(a.fd, libc::EVFILT_WRITE, libc::EV_ADD, 5);
    assert_eq!(call(&[room], None), [(5, libc::EVFILT_WRITE)]);
    call(
        &[change(a.fd, libc::EVFILT_WRITE, libc::EV_DELETE, 0)],
        Some(0),
    );
    assert_eq!(call(&[], Some(0)), []);
}
