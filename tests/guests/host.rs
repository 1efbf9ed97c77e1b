//! The host's end of TCP connections with a guest.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bed::{Error, Guest, Namespace, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long the guest may take to connect, and then to say or take anything
/// more.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much is read and written at once.
const PIECE: usize = 1 << 16;
/// Where the guest's HTTP server listens (see `demo/init`).
const HTTP: u16 = 80;

/// A host in a network namespace.
pub struct Host<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Its IPv4 address.
    pub address: &'a str,
}

/// What a guest was sent, and has.
pub struct Sent {
    /// How long it took to send, without checking it.
    pub time: Duration,
    bytes: u64,
    sha256: String,
}

impl Host<'_> {
    /// Sends a guest random data, for it to keep. Fails unless the SHA-256 is
    /// the same there.
    pub fn send(&self, guest: &mut Guest, mebibytes: u32) -> Result<Sent> {
        let bytes = u64::from(mebibytes) << 20;
        // An emulator beside other work may make a mebibyte a second.
        let within = PATIENCE + Duration::from_secs(mebibytes.into());
        let port = (self.address, 0);
        let listener = self.namespace.within(|| Ok(TcpListener::bind(port)?))?;
        let port = listener.local_addr()?.port();
        let command = format!("nc {} {port} > /tmp/served/data", self.address);
        let start = Instant::now();
        let (taken, given) = thread::scope(|scope| {
            let giver = scope.spawn(|| -> Result<String> {
                let mut stream = accept(&listener)?;
                let mut from = File::open("/dev/urandom")?.take(bytes);
                let sum = copy(&mut from, |piece| stream.write_all(piece))?;
                stream.shutdown(Shutdown::Write)?;
                Ok(sum)
            });
            (guest.run_within(&command, within), giver.join())
        });
        let time = start.elapsed();
        taken?;
        let sha256 = given.map_err(|_| Error::new("the host's end panicked"))??;
        let arrived = sum(&guest.run_within("sha256sum /tmp/served/data", within)?);
        same(&sha256, &arrived)?;
        Ok(Sent {
            time,
            bytes,
            sha256,
        })
    }

    /// Fetches what the guest was sent. Fails unless it is the same; says how
    /// long it took.
    pub fn fetch(&self, guest: &Guest, sent: &Sent) -> Result<Duration> {
        let start = Instant::now();
        let address = guest.address().parse().map_err(io::Error::other)?;
        let address = SocketAddr::new(address, HTTP);
        let stream = self.namespace.within(|| connect(address))?;
        let mut stream = BufReader::with_capacity(PIECE, stream);
        stream.get_mut().write_all(b"GET /data HTTP/1.0\r\n\r\n")?;
        // Behind the first empty line is the data.
        let mut line = String::from("status");
        while !line.trim().is_empty() {
            line.clear();
            stream.read_line(&mut line)?;
        }
        let arrived = copy(&mut stream.take(sent.bytes), |_| Ok(()))?;
        let time = start.elapsed();
        same(&sent.sha256, &arrived)?;
        Ok(time)
    }
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(PATIENCE).map_err(io::Error::other)?;
    if poll(&mut fds, timeout).map_err(io::Error::from)? == 0 {
        return Err(Error::new("the guest does not connect"));
    }
    let (stream, _) = listener.accept()?;
    patient(stream)
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    patient(TcpStream::connect_timeout(&address, PATIENCE)?)
}

fn patient(stream: TcpStream) -> Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Passes everything on from `from`; returns its SHA-256.
fn copy(from: &mut impl Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take();
    let mut copy = || -> io::Result<()> {
        let mut room = vec![0; PIECE];
        loop {
            let len = from.read(&mut room)?;
            let (Some(stdin), Some(piece)) = (&mut stdin, room.get(..len)) else {
                return Err(io::ErrorKind::BrokenPipe.into());
            };
            if piece.is_empty() {
                return Ok(());
            }
            to(piece)?;
            stdin.write_all(piece)?;
        }
    };
    let copied = copy();
    // The end of what it reads.
    drop(stdin);
    let output = child.wait_with_output()?;
    copied?;
    Ok(sum(&String::from_utf8_lossy(&output.stdout)))
}

/// The sum in what sha256sum(1) prints.
fn sum(output: &str) -> String {
    let mut words = output.split_whitespace();
    words.next().unwrap_or_default().to_owned()
}

fn same(sent: &str, arrived: &str) -> Result<()> {
    if sent.len() == 64 && sent == arrived {
        return Ok(());
    }
    Err(Error::new(format!(
        "SHA-256 {sent} was sent, {arrived} arrived"
    )))
}
