//! What a program of ours does with the object in front of it. Each function is
//! run in a process of its own.

use std::ffi::c_int;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use vtnetd::netmap::abi::nmreq::*;
use vtnetd::netmap::abi::option::{NETMAP_REQ_OPT_OFFSETS, OptionHeader};

use crate::port::*;

/// By the name that the test has.
pub const ALL: [(&str, fn()); 13] = [
    ("requests_fault_where_the_kernels_do", faults),
    ("what_is_no_use_of_netmap_is_refused", refusals),
    ("frames_cross_and_are_polled_for", frames),
    ("both_sides_sleep_and_wake_each_other", sleepers),
    ("several_ports_and_a_pipe_in_one_poll", mixed_poll),
    ("select_waits_for_ports", select),
    ("time_runs_out", time),
    ("a_signal_ends_a_wait", signal),
    ("a_closed_port_is_free_at_once", closing),
    ("descriptors_are_inherited_and_duplicated", inherited),
    ("descriptors_are_passed_on", passed),
    ("every_thread_asks_for_itself", threads),
    (
        "a_program_that_closes_everything_can_begin_anew",
        closes_everything,
    ),
];

/// What only this system has.
#[cfg(target_os = "linux")]
pub const SYSTEM: [(&str, fn()); 1] = [("epoll_waits_for_ports", epoll)];
/// What only this system has.
#[cfg(not(target_os = "linux"))]
pub const SYSTEM: [(&str, fn()); 1] = [("kqueue_waits_for_ports", kqueue)];

fn faults() {
    let fd = open().unwrap();
    let at = |address: usize| ptr::without_provenance_mut(address);
    for address in [0, 8, usize::MAX - 7] {
        assert_eq!(errno(ioctl(fd, NIOCCTRL, at(address))), libc::EFAULT);
    }
    let mut body = PortInfoBody::default();
    let mut request = header(NETMAP_REQ_PORT_INFO_GET, "vale0:a", &mut body);
    request.nr_body = 8;
    let asked = ioctl(fd, NIOCCTRL, ptr::from_mut(&mut request).cast());
    assert_eq!(errno(asked), libc::EFAULT);
    // The same with its body, and an option that is nowhere.
    let mut request = header(NETMAP_REQ_PORT_INFO_GET, "vale0:a", &mut body);
    request.nr_options = 16;
    let asked = ioctl(fd, NIOCCTRL, ptr::from_mut(&mut request).cast());
    assert_eq!(errno(asked), libc::EFAULT);
    // An option that is there twice says so.
    let mut options = [OptionHeader::default(); 8];
    options[0].nro_reqtype = NETMAP_REQ_OPT_OFFSETS;
    options[4].nro_reqtype = NETMAP_REQ_OPT_OFFSETS;
    options[0].nro_next = ptr::from_ref(&options[4]) as u64;
    let mut request = header(NETMAP_REQ_PORT_INFO_GET, "vale0:a", &mut body);
    request.nr_options = options.as_ptr() as u64;
    let asked = ioctl(fd, NIOCCTRL, ptr::from_mut(&mut request).cast());
    assert_eq!(errno(asked), libc::EINVAL);
    let options = std::hint::black_box(options);
    let statuses = [options[0].nro_status, options[4].nro_status];
    assert_eq!(statuses, [22; 2]);
    // And one that is right is answered.
    let mut body = PortInfoBody::default();
    ask(fd, NETMAP_REQ_PORT_INFO_GET, "vale0:a", &mut body).unwrap();
    assert_eq!((body.nr_tx_slots, body.nr_rx_rings), (1024, 1));
}

fn refusals() {
    let fd = open().unwrap();
    assert_eq!(errno(ioctl(fd, NIOCTXSYNC, ptr::null_mut())), libc::ENXIO);
    assert_eq!(errno(map(fd, 4096)), libc::ENXIO);
    assert_eq!(poll(fd, libc::POLLIN, -1).unwrap(), libc::POLLERR);
    let body = register(fd, "vale0:a", 0).unwrap();
    assert_eq!(errno(map(fd, body.nr_memsize + 1)), libc::EINVAL);
    map(fd, body.nr_memsize).unwrap();
    assert_eq!(errno(register(fd, "vale0:b", 0)), libc::EBUSY);
    let mut byte = [0_u8];
    let no_data = if cfg!(target_os = "linux") {
        libc::EINVAL
    } else {
        libc::ENODEV
    };
    // SAFETY: room for a byte.
    let read = unsafe { libc::read(fd, byte.as_mut_ptr().cast(), 1) };
    assert_eq!(
        (read, std::io::Error::last_os_error().raw_os_error()),
        (-1, Some(no_data))
    );
    // SAFETY: as above.
    let written = unsafe { libc::write(fd, byte.as_ptr().cast(), 1) };
    assert_eq!(
        (written, std::io::Error::last_os_error().raw_os_error()),
        (-1, Some(no_data))
    );
    let unknown = ioctl(fd, 0x1234, ptr::null_mut());
    assert_eq!(errno(unknown), libc::EOPNOTSUPP);
    // A descriptor that is none of the service's is the system's, which on
    // FreeBSD looks for an interface when a socket is asked so (`soo_ioctl`).
    let no_request = if cfg!(target_os = "freebsd") {
        libc::ENXIO
    } else {
        libc::ENOTTY
    };
    let other = UnixStream::pair().unwrap().0;
    let asked = ioctl(other.as_raw_fd(), NIOCTXSYNC, ptr::null_mut());
    assert_eq!(errno(asked), no_request);
}

fn frames() {
    let (a, b) = (Port::open("vale0:a"), Port::open("vale0:b"));
    assert_eq!(poll(a.fd, libc::POLLOUT, -1).unwrap(), libc::POLLOUT);
    assert_eq!(poll(b.fd, libc::POLLIN, 0).unwrap(), 0);
    for len in [14, 60, 1514, 2048] {
        let frame = vec![0xff; len];
        a.send(&frame);
        let both = libc::POLLIN | libc::POLLOUT;
        assert_eq!(poll(b.fd, both, -1).unwrap(), both);
        assert_eq!(b.take(), Some(frame));
        assert_eq!(b.take(), None);
    }
    // poll(2) sends what was put into a ring, too.
    assert!(a.put(&[0xff; 60]));
    assert_eq!(poll(a.fd, 0, 0).unwrap(), 0);
    assert_eq!(b.receive(), [0xff; 60]);
}

/// Frames that go back and forth between two threads, both of which sleep in
/// between.
fn sleepers() {
    let (a, b) = (Port::open("vale0:a"), Port::open("vale0:b"));
    // SAFETY (of Send): each port is used by one thread at a time.
    struct Moved(Port);
    // SAFETY: a mapping belongs to no thread.
    unsafe impl Send for Moved {}
    let b = Moved(b);
    let echo = thread::spawn(move || {
        let b = b;
        for _ in 0..2000 {
            let frame = b.0.receive();
            b.0.send(&frame);
        }
    });
    for nth in 0..2000_u32 {
        let mut frame = [0xff; 60];
        frame[20..24].copy_from_slice(&nth.to_ne_bytes());
        a.send(&frame);
        assert_eq!(a.receive(), frame);
    }
    echo.join().unwrap();
}

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
        // One that comes before the wait is missed; the next is not.
        while !stop.load(std::sync::atomic::Ordering::Acquire) {
            // SAFETY: the thread lives as long as this one is waited for.
            unsafe { libc::pthread_kill(thread.0, libc::SIGUSR1) };
            thread::yield_now();
        }
    });
    assert_eq!(errno(poll(port.fd, libc::POLLIN, -1)), libc::EINTR);
    ended.store(true, std::sync::atomic::Ordering::Release);
    kicker.join().unwrap();
}

fn closing() {
    for _ in 0..100 {
        drop(Port::with("vale0:a", NR_EXCLUSIVE).unwrap());
        let fd = open().unwrap();
        register(fd, "vale0:a", NR_EXCLUSIVE).unwrap();
        assert_eq!(errno(Port::with("vale0:a", 0).map(|_| ())), libc::EBUSY);
        // SAFETY: ours.
        unsafe { libc::close(fd) };
    }
}

fn inherited() {
    let (a, b) = (Port::open("vale0:a"), Port::open("vale0:b"));
    // A duplicate keeps the port when the first is closed.
    // SAFETY: descriptors of ours.
    let copy = unsafe { libc::dup(a.fd) };
    let a = {
        let body = a.body();
        drop(a);
        Port::new(copy, body).unwrap()
    };
    a.send(&[0xff; 60]);
    assert_eq!(b.receive(), [0xff; 60]);
    // A child uses what it has inherited, beside its parent.
    // SAFETY: one thread runs here, so the child may do anything.
    let child = unsafe { libc::fork() };
    if child == 0 {
        assert_eq!(b.receive(), [0xff; 61]);
        b.send(&[0xff; 62]);
        // And so does what it becomes.
        // SAFETY: a descriptor of ours.
        unsafe { libc::fcntl(b.fd, libc::F_SETFD, 0) };
        let body = b.body();
        let error = Command::new(std::env::current_exe().unwrap())
            .env(crate::CLIENT, "inherited")
            .env(
                "PORT",
                format!("{} {} {}", b.fd, body.nr_offset, body.nr_memsize),
            )
            .exec();
        panic!("{error}");
    }
    a.send(&[0xff; 61]);
    assert_eq!(a.receive(), [0xff; 62]);
    assert_eq!(a.receive(), [0xff; 63]);
    let mut status = 0;
    // SAFETY: our child.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0);
}

/// What the child of [`inherited`] becomes.
fn heir() {
    let text = std::env::var("PORT").unwrap();
    let mut numbers = text.split(' ').map(|number| number.parse::<u64>().unwrap());
    let fd = c_int::try_from(numbers.next().unwrap()).unwrap();
    let body = RegisterBody {
        nr_offset: numbers.next().unwrap(),
        nr_memsize: numbers.next().unwrap(),
        ..RegisterBody::default()
    };
    Port::new(fd, body).unwrap().send(&[0xff; 63]);
}

fn passed() {
    use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
    let (ours, theirs) = UnixStream::pair().unwrap();
    // SAFETY: one thread runs here, so the child may do anything.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let port = Port::open("vale0:a");
        let sizes = [port.body().nr_offset, port.body().nr_memsize];
        let bytes: Vec<u8> = sizes.iter().flat_map(|size| size.to_ne_bytes()).collect();
        let fds = [port.fd];
        let rights = [ControlMessage::ScmRights(&fds)];
        let parts = [std::io::IoSlice::new(&bytes)];
        sendmsg::<()>(theirs.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
        std::process::exit(0);
    }
    let mut bytes = [0; 16];
    let mut space = nix::cmsg_space!([c_int; 1]);
    let fd = {
        let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(
            ours.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        );
        let message = message.unwrap();
        match message.cmsgs().unwrap().next().unwrap() {
            ControlMessageOwned::ScmRights(fds) => fds[0],
            other => panic!("{other:?}"),
        }
    };
    let mut status = 0;
    // SAFETY: our child.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0);
    // Whoever opened it is gone; the port is not.
    let number = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    let body = RegisterBody {
        nr_offset: number(0),
        nr_memsize: number(8),
        ..RegisterBody::default()
    };
    let a = Port::new(fd, body).unwrap();
    let b = Port::open("vale0:b");
    b.send(&[0xff; 60]);
    assert_eq!(a.receive(), [0xff; 60]);
}

fn threads() {
    let barrier = Arc::new(Barrier::new(8));
    let threads = (0..8).map(|nth| {
        let barrier = Arc::clone(&barrier);
        thread::spawn(move || {
            let switch = format!("vale{}", nth / 2);
            let port = Port::open(&format!("{switch}:p{}", nth % 2));
            barrier.wait();
            for _ in 0..200 {
                if nth % 2 == 0 {
                    port.send(&[0xff; 60]);
                    assert_eq!(port.receive(), [0xff; 61]);
                } else {
                    assert_eq!(port.receive(), [0xff; 60]);
                    port.send(&[0xff; 61]);
                }
            }
            barrier.wait();
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    // One port, used by one thread after the other.
    let port = Port::open("vale9:a");
    let fd = port.fd;
    for _ in 0..20 {
        thread::spawn(move || poll(fd, libc::POLLOUT, -1).unwrap())
            .join()
            .unwrap();
    }
}

fn closes_everything() {
    let a = Port::open("vale0:a");
    let fd = a.fd;
    std::mem::forget(a);
    for one in 3..1024 {
        // SAFETY: whatever is there is not used any more.
        unsafe { libc::close(one) };
    }
    assert_eq!(errno(ioctl(fd, NIOCTXSYNC, ptr::null_mut())), libc::EBADF);
    let a = Port::with("vale0:a", NR_EXCLUSIVE).unwrap();
    assert_eq!(a.fd, 3, "the lowest that is free");
    #[cfg(target_os = "linux")]
    {
        std::mem::forget(a);
        // SAFETY: as above.
        result(unsafe { libc::close_range(3, u32::MAX, 0) }).unwrap();
        let a = Port::with("vale0:a", NR_EXCLUSIVE).unwrap();
        assert_eq!(poll(a.fd, libc::POLLOUT, -1).unwrap(), libc::POLLOUT);
        // Another file under the same number is that file.
        // SAFETY: descriptors of ours.
        unsafe {
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            libc::dup2(null, a.fd);
            libc::close(null);
        }
        assert_eq!(
            errno(ioctl(a.fd, NIOCTXSYNC, ptr::null_mut())),
            libc::ENOTTY
        );
    }
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

/// Where no service listens.
pub const MISSING: &str = "missing";
/// Whose service dies.
pub const BEREFT: &str = "bereft";
/// The program that sends frames back.
pub const ECHO: &str = "echo";
/// What is run by name alone.
pub const NAMED: [(&str, fn()); 4] = [
    ("inherited", heir),
    (MISSING, missing),
    (BEREFT, bereft),
    (ECHO, echo),
];

/// The EtherType of what [`ECHO`] answers.
pub const FRAME_TYPE: [u8; 2] = [0x88, 0xb5];

/// Sends back what comes to an interface of the host.
fn echo() {
    let port = Port::open("here0");
    println!("bound");
    // Until it is killed, or the service.
    while poll(port.fd, libc::POLLIN, -1).unwrap() == libc::POLLIN {
        while let Some(mut frame) = port.take() {
            if frame.get(12..14) == Some(&FRAME_TYPE) {
                frame[14] = !frame[14];
                port.send(&frame);
            }
        }
    }
}

fn missing() {
    let refused = errno(open());
    assert!(
        [libc::ENOENT, libc::ECONNREFUSED].contains(&refused),
        "{refused}"
    );
}

fn bereft() {
    let port = Port::open("vale0:a");
    // Whoever reads this may kill the service before the wait or during it.
    println!("waiting");
    let found = poll(port.fd, libc::POLLIN, -1).unwrap();
    assert_ne!(found & libc::POLLERR, 0);
    let asked = ioctl(port.fd, NIOCTXSYNC, ptr::null_mut());
    assert_eq!(errno(asked), libc::ENXIO);
    let mut body = PortInfoBody::default();
    let asked = ask(port.fd, NETMAP_REQ_PORT_INFO_GET, "vale0:a", &mut body);
    assert_eq!(errno(asked.map(drop)), libc::ENXIO);
    // The memory is still there.
    assert!(port.put(&[0xff; 60]));
}
