//! What an attempt finds: names and a process outside, descriptors inside.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use bed::{Error, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use vtnetd::sandbox::{Role, limit};

const DIRECTORY: &str = "VTNETD_ATTEMPT_DIRECTORY";
const PORT: &str = "VTNETD_ATTEMPT_PORT";
const VICTIM: &str = "VTNETD_ATTEMPT_VICTIM";

/// Outside.
pub struct Place {
    directory: PathBuf,
    victim: Child,
    tcp: TcpListener,
    _listener: UnixListener,
    _datagrams: UnixDatagram,
}

impl Place {
    /// A directory with a file and two sockets, a TCP port, and a process that
    /// waits for the end of its input.
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vtnetd-sandbox-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory)?;
        fs::write(directory.join("file"), "precious")?;
        Ok(Self {
            victim: Command::new("cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()?,
            tcp: TcpListener::bind("127.0.0.1:0")?,
            _listener: UnixListener::bind(directory.join("listens"))?,
            _datagrams: UnixDatagram::bind(directory.join("datagrams"))?,
            directory,
        })
    }

    /// Where all this is, for [`Scene::enter`].
    pub fn variables(&self) -> [(&'static str, String); 3] {
        let port = self.tcp.local_addr().map_or(0, |address| address.port());
        [
            (DIRECTORY, self.directory.display().to_string()),
            (PORT, port.to_string()),
            (VICTIM, self.victim.id().to_string()),
        ]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Inside: what a process has when the sandbox closes.
pub struct Scene {
    pub directory: PathBuf,
    pub port: u16,
    pub victim: i32,
    /// Not connected.
    pub stream: OwnedFd,
    pub datagrams: OwnedFd,
    pub inet: OwnedFd,
    /// A front end's connection, and its other end.
    pub connection: OwnedFd,
    pub peer: OwnedFd,
    /// A listening socket that is ours, and who has connected to it.
    pub listener: OwnedFd,
    _front_end: UnixStream,
    /// Memory as a front end shares it.
    pub memory: OwnedFd,
    /// /dev/netmap, where there is one.
    pub netmap: Option<OwnedFd>,
}

impl Scene {
    /// Opens all of it, limited to its use or not.
    pub fn enter(limited: bool) -> Result<Self> {
        let variable = |name: &str| {
            std::env::var(name).map_err(|error| Error::new(format!("{name}: {error}")))
        };
        let number = |name: &str| -> Result<i32> {
            variable(name)?
                .parse()
                .map_err(|_| Error::new(format!("{name}: not a number")))
        };
        let open = |family, kind| {
            socket(family, kind, SockFlag::SOCK_CLOEXEC, None)
                .map_err(|errno| Error::from(std::io::Error::from(errno)))
        };
        let directory = PathBuf::from(variable(DIRECTORY)?);
        let (connection, peer) = UnixStream::pair()?;
        let listener = UnixListener::bind(directory.join("ours"))?;
        let front_end = UnixStream::connect(directory.join("ours"))?;
        let memory = memory()?;
        let netmap = File::options()
            .read(true)
            .write(true)
            .open("/dev/netmap")
            .ok();
        let scene = Self {
            port: u16::try_from(number(PORT)?).map_err(|_| Error::new("not a port"))?,
            victim: number(VICTIM)?,
            stream: open(AddressFamily::Unix, SockType::Stream)?,
            datagrams: open(AddressFamily::Unix, SockType::Datagram)?,
            inet: open(AddressFamily::Inet, SockType::Stream)?,
            connection: connection.into(),
            peer: peer.into(),
            listener: listener.into(),
            _front_end: front_end,
            memory,
            netmap: netmap.map(OwnedFd::from),
            directory,
        };
        if limited {
            limit(&scene.connection, Role::Connection)?;
            limit(&scene.listener, Role::Listener)?;
            limit(&scene.memory, Role::Memory)?;
            if let Some(netmap) = &scene.netmap {
                limit(netmap, Role::Netmap)?;
            }
        }
        Ok(scene)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// A page of anonymous memory behind a descriptor.
fn memory() -> Result<OwnedFd> {
    let file = nix::sys::memfd::memfd_create(c"memory", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .map_err(std::io::Error::from)?;
    File::from(file.try_clone()?).set_len(4096)?;
    Ok(file)
}
