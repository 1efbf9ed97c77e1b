//! What a program of ours does with the object in front of it. Each function is
//! run in a process of its own.

use std::ffi::c_int;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::{Arc, Barrier};
use std::thread;

use vtnetd::netmap::abi::nmreq::*;
use vtnetd::netmap::abi::option::{NETMAP_REQ_OPT_OFFSETS, OptionHeader};

use crate::port::*;

/// By the name that the test has.
pub const ALL: [(&str, fn()); 9] = [
    ("requests_fault_where_the_kernels_do", faults),
    ("what_is_no_use_of_netmap_is_refused", refusals),
    ("frames_cross_and_are_polled_for", frames),
    ("both_sides_sleep_and_wake_each_other", sleepers),
    ("a_closed_port_is_free_at_once", closing),
    ("descriptors_are_inherited_and_duplicated", inherited),
    ("descriptors_are_passed_on", passed),
    ("every_thread_asks_for_itself", threads),
    (
        "a_program_that_closes_everything_can_begin_anew",
        closes_everything,
    ),
];

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

/// Where no service listens.
pub const MISSING: &str = "missing";
/// Whom the service does not let in.
pub const REFUSED: &str = "refused";
/// Whose service dies.
pub const BEREFT: &str = "bereft";
/// The program that sends frames back.
pub const ECHO: &str = "echo";
/// What is run by name alone.
pub const NAMED: [(&str, fn()); 5] = [
    ("inherited", heir),
    (MISSING, missing),
    (REFUSED, refused),
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

fn refused() {
    assert_eq!(errno(open()), libc::EACCES);
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
