//! What is tried.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    MsgFlags, SockaddrIn, UnixAddr, bind, connect, recv, send, sendmsg, sendto,
};
use nix::unistd::Pid;

use crate::scene::Scene;

/// How an attempt is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is no misuse.
    Done,
    /// By an error.
    Refused,
    /// There is nobody left to be told of an error.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "Linux has it"))]
    Killed,
}

/// One attempt.
pub struct Attempt {
    pub name: &'static str,
    pub outcome: Outcome,
    /// Landlock alone refuses it, too.
    pub first_layer: bool,
    /// What is tried needs privileges that the test may not have.
    pub may_fail_anyway: bool,
    pub body: fn(&Scene) -> Result<(), Errno>,
}

const fn refused(name: &'static str, body: fn(&Scene) -> Result<(), Errno>) -> Attempt {
    Attempt {
        name,
        outcome: Outcome::Refused,
        first_layer: false,
        may_fail_anyway: false,
        body,
    }
}

/// Refused by both layers of the sandbox on Linux.
const fn twice(name: &'static str, body: fn(&Scene) -> Result<(), Errno>) -> Attempt {
    let mut attempt = refused(name, body);
    attempt.first_layer = cfg!(target_os = "linux");
    attempt
}

/// Killed on Linux, refused elsewhere.
const fn killed(name: &'static str, body: fn(&Scene) -> Result<(), Errno>) -> Attempt {
    let mut attempt = refused(name, body);
    #[cfg(target_os = "linux")]
    {
        attempt.outcome = Outcome::Killed;
    }
    attempt.may_fail_anyway = true;
    attempt
}

const fn done(name: &'static str, body: fn(&Scene) -> Result<(), Errno>) -> Attempt {
    let mut attempt = refused(name, body);
    attempt.outcome = Outcome::Done;
    attempt
}

/// Asks for an interface's flags (sys/sockio.h).
#[cfg(target_os = "linux")]
const GET_FLAGS: libc::c_ulong = libc::SIOCGIFFLAGS;
#[cfg(not(target_os = "linux"))]
const GET_FLAGS: libc::c_ulong = nix::request_code_readwrite!(b'i', 17, 32);

/// What is forbidden.
pub const ATTEMPTS: &[Attempt] = &[
    twice("open_a_file_by_path", |scene| {
        std_io(fs::File::open(scene.path("file")))
    }),
    twice("open_a_device_by_path", |_| {
        std_io(fs::File::open("/dev/null"))
    }),
    twice("create_a_file", |scene| {
        std_io(fs::File::create(scene.path("new")))
    }),
    twice("list_a_directory", |scene| {
        std_io(fs::read_dir(&scene.directory))
    }),
    twice("unlink", |scene| {
        std_io(fs::remove_file(scene.path("file")))
    }),
    twice("make_a_directory", |scene| {
        std_io(fs::create_dir(scene.path("new")))
    }),
    twice("make_a_symbolic_link", |scene| {
        std_io(std::os::unix::fs::symlink("file", scene.path("new")))
    }),
    refused("rename", |scene| {
        std_io(fs::rename(scene.path("file"), scene.path("new")))
    }),
    twice("bind_a_unix_socket", |scene| {
        bind(scene.stream.as_raw_fd(), &unix(&scene.path("new"))?)
    }),
    twice("bind_a_tcp_port", |scene| {
        bind(scene.inet.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))
    }),
    refused("connect_to_a_unix_socket", |scene| {
        connect(scene.stream.as_raw_fd(), &unix(&scene.path("listens"))?)
    }),
    twice("connect_to_a_tcp_port", |scene| {
        let to = SockaddrIn::new(127, 0, 0, 1, scene.port);
        connect(scene.inet.as_raw_fd(), &to)
    }),
    refused("sendto_an_address", |scene| {
        let to = unix(&scene.path("datagrams"))?;
        sendto(scene.datagrams.as_raw_fd(), b"x", &to, MsgFlags::empty()).map(drop)
    }),
    refused("sendmsg_to_an_address", |scene| {
        let to = unix(&scene.path("datagrams"))?;
        let parts = [io::IoSlice::new(b"x")];
        let socket = scene.datagrams.as_raw_fd();
        sendmsg(socket, &parts, &[], MsgFlags::empty(), Some(&to)).map(drop)
    }),
    // Not whoever started us, either.
    twice("signal_another_process", |scene| {
        kill(Pid::from_raw(scene.victim), Signal::SIGURG)
    }),
    refused("signal_a_group", |_| kill(Pid::from_raw(-1), None)),
    killed("ptrace", |scene| attach(Pid::from_raw(scene.victim))),
    killed("run_a_program", |_| {
        let path = c"/bin/sh";
        nix::unistd::execv(path, &[path, c"-c", c"exit 0"]).map(drop)
    }),
    killed("memory_of_code", |scene| {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE | ProtFlags::PROT_EXEC;
        map(&scene.memory, protection)
    }),
    refused("an_ioctl_that_is_not_listed", |scene| {
        ioctl(&scene.connection, libc::FIOASYNC)
    }),
    refused("an_ioctl_about_interfaces", |scene| {
        ioctl(&scene.connection, GET_FLAGS)
    })
    .anyway(),
    #[cfg(target_os = "freebsd")]
    refused("netmap_control", |scene| {
        // NIOCCTRL and NIOCREGIF of net/netmap.h.
        let netmap = scene.netmap.as_ref().ok_or(Errno::ENOTCAPABLE)?;
        let mut room = [0u8; 256];
        for request in [
            nix::request_code_readwrite!(b'i', 151, 64),
            nix::request_code_readwrite!(b'i', 146, 60),
        ] {
            // SAFETY: both want less room than there is.
            let asked = unsafe { libc::ioctl(netmap.as_raw_fd(), request, room.as_mut_ptr()) };
            match Errno::result(asked) {
                Err(Errno::ENOTCAPABLE) => {}
                other => return other.map(drop),
            }
        }
        Err(Errno::ENOTCAPABLE)
    })
    .anyway(),
    #[cfg(target_os = "freebsd")]
    refused("shared_memory_with_a_name", |_| {
        let name = c"/vtnetd-attempt";
        let mode = nix::sys::stat::Mode::S_IRUSR;
        let flags = nix::fcntl::OFlag::O_CREAT | nix::fcntl::OFlag::O_RDWR;
        nix::sys::mman::shm_open(name, flags, mode)?;
        nix::sys::mman::shm_unlink(name)
    }),
    #[cfg(target_os = "freebsd")]
    refused("memory_of_another_size", |scene| {
        nix::unistd::ftruncate(&scene.memory, 8192)
    }),
    #[cfg(target_os = "linux")]
    refused("open_a_socket", |_| {
        std_io(std::net::UdpSocket::bind("127.0.0.1:0"))
    }),
    #[cfg(target_os = "linux")]
    refused("change_a_mode", |scene| {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::Permissions::from_mode(0o777);
        std_io(fs::set_permissions(scene.path("file"), mode))
    }),
    #[cfg(target_os = "linux")]
    refused("start_a_thread", |_| {
        std_io(std::thread::Builder::new().spawn(|| ()).map(drop))
    }),
    #[cfg(target_os = "linux")]
    refused("fork", |_| {
        // SAFETY: the child ends at once.
        match unsafe { nix::unistd::fork() }? {
            nix::unistd::ForkResult::Parent { .. } => Ok(()),
            // SAFETY: it ends.
            nix::unistd::ForkResult::Child => unsafe { libc::_exit(0) },
        }
    }),
    #[cfg(target_os = "linux")]
    twice("connect_to_an_abstract_socket", |scene| {
        let to = UnixAddr::new_abstract(b"vtnetd-nobody")?;
        match connect(scene.stream.as_raw_fd(), &to) {
            // Nobody is there, but it could be told.
            Err(Errno::ECONNREFUSED) => Ok(()),
            other => other,
        }
    })
    .at_the_seal(),
    #[cfg(target_os = "linux")]
    killed("become_root", |_| call(libc::SYS_setuid)),
    #[cfg(target_os = "linux")]
    killed("io_uring", |_| call(libc::SYS_io_uring_setup)),
    #[cfg(target_os = "linux")]
    killed("bpf", |_| call(libc::SYS_bpf)),
    #[cfg(target_os = "linux")]
    killed("another_process_memory", |_| {
        call(libc::SYS_process_vm_readv)
    }),
    #[cfg(target_os = "linux")]
    killed("another_namespace", |_| call(libc::SYS_unshare)),
    #[cfg(target_os = "linux")]
    killed("mount", |_| call(libc::SYS_mount)),
    #[cfg(target_os = "linux")]
    killed("open_by_handle", |_| call(libc::SYS_open_by_handle_at)),
    #[cfg(target_os = "linux")]
    killed("a_file_of_another_process", |_| call(libc::SYS_pidfd_getfd)),
    #[cfg(target_os = "linux")]
    killed("memory_made_code", |_| {
        // SAFETY: a new mapping of its own.
        let page = unsafe {
            nix::sys::mman::mmap_anonymous(
                None,
                std::num::NonZeroUsize::MIN,
                ProtFlags::PROT_READ,
                MapFlags::MAP_PRIVATE,
            )
        }?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_EXEC;
        // SAFETY: the page is its own.
        unsafe { nix::sys::mman::mprotect(page, 1, protection) }
    }),
];

/// What a device does all the time.
pub const USES: &[Attempt] = &[
    done("map_guest_memory", |scene| {
        map(&scene.memory, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
    }),
    done("talk_to_a_front_end", |scene| {
        let (ours, theirs) = (scene.connection.as_raw_fd(), scene.peer.as_raw_fd());
        let mut room = [0; 1];
        send(theirs, b"x", MsgFlags::empty())?;
        recv(ours, &mut room, MsgFlags::MSG_DONTWAIT)?;
        send(ours, b"x", MsgFlags::MSG_NOSIGNAL).map(drop)
    }),
    done("accept_a_front_end", |scene| {
        // Whoever connects was there before the sandbox.
        let listener = scene.listener.try_clone();
        std_io(listener.and_then(|listener| UnixListener::from(listener).accept()))
    }),
    done("wait_for_events", |scene| {
        let failed = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        let waker = vtnetd::event::Waker::new().map_err(failed)?;
        let poller = vtnetd::event::Poller::new().map_err(failed)?;
        let read = vtnetd::event::Interest::READ;
        poller.add(waker.as_fd(), 1, read).map_err(failed)?;
        poller
            .add(scene.connection.as_fd(), 2, read)
            .map_err(failed)?;
        waker.wake();
        let mut events = vtnetd::event::Events::new();
        poller.wait(&mut events, None).map_err(failed)?;
        assert!(!events.is_empty());
        Ok(())
    }),
    done("take_time_and_chance", |_| {
        let now = std::time::Instant::now();
        let map = std::collections::HashMap::from([(1, now)]);
        assert_eq!(map.get(&1), Some(&now));
        Ok(())
    }),
];

impl Attempt {
    /// It may fail without the sandbox as well, for another reason.
    const fn anyway(mut self) -> Self {
        self.may_fail_anyway = true;
        self
    }

    /// Only the newest kernels refuse it before the filter does.
    #[cfg(target_os = "linux")]
    const fn at_the_seal(mut self) -> Self {
        self.first_layer = false;
        self
    }
}

fn std_io<T>(done: io::Result<T>) -> Result<(), Errno> {
    done.map(drop)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

fn unix(path: &Path) -> Result<UnixAddr, Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    UnixAddr::new(path.as_c_str())
}

fn map(fd: &OwnedFd, protection: ProtFlags) -> Result<(), Errno> {
    let len = std::num::NonZeroUsize::new(4096).ok_or(Errno::EINVAL)?;
    // SAFETY: a new mapping, which is never used.
    unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, fd, 0) }.map(drop)
}

fn ioctl(fd: &OwnedFd, request: libc::c_ulong) -> Result<(), Errno> {
    let mut room = [0u8; 512];
    // SAFETY: more room than any of these requests wants.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request, room.as_mut_ptr()) };
    Errno::result(done).map(drop)
}

#[cfg(target_os = "linux")]
fn attach(victim: Pid) -> Result<(), Errno> {
    nix::sys::ptrace::seize(victim, nix::sys::ptrace::Options::empty())
}

#[cfg(not(target_os = "linux"))]
fn attach(victim: Pid) -> Result<(), Errno> {
    nix::sys::ptrace::attach(victim)
}

/// A call that does nothing with these arguments, were it allowed.
#[cfg(target_os = "linux")]
fn call(number: libc::c_long) -> Result<(), Errno> {
    // SAFETY: no argument points to anything.
    let done = unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
    Errno::result(done).map(drop)
}
