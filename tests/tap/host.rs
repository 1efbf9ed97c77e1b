//! The kernel's side: a network namespace, interfaces, packet sockets. What
//! fails here fails the test.

use std::process::Command;
use std::time::Duration;

use bed::{Namespace, equipment};
use vtnetd::virtio::net_header::NetHeader;

/// How long anything may take before it counts as lost.
pub const LONG: Duration = Duration::from_secs(10);
/// How long is waited for what must not come.
pub const SHORT: Duration = Duration::from_millis(100);
/// Bytes of the header of a packet socket that has headers.
const VNET_HEADER: usize = 10;

/// Runs a test in a network namespace that ends with it. Skipped, in one line,
/// where that is not possible.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if let Err(missing) = equipment::tap() {
        bed::skipped(format_args!("tap: {missing}"));
        return;
    }
    let within = Namespace::new().unwrap().within(|| {
        test();
        Ok(())
    });
    within.unwrap();
}

/// Runs a command, given as one line.
pub fn run(line: &str) {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let output = command.args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
}

/// What is set in `/sys`-like flags of an interface: up, and there at all.
pub fn is_up(name: &str) -> Option<bool> {
    let output = Command::new("ip").args(["link", "show", name]).output();
    let output = output.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let flags = text.split(['<', '>']).nth(1);
    flags.map(|flags| flags.split(',').any(|flag| flag == "UP"))
}

/// Whether the kernel segments UDP, which it does since 6.2.
pub fn cuts_datagrams() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit());
        part[..end.unwrap_or(part.len())].parse().unwrap_or(0)
    });
    (numbers.next(), numbers.next()) >= (Some(6), Some(2))
}

/// A packet(7) socket on one interface.
pub struct PacketSocket(bed::PacketSocket);

impl PacketSocket {
    pub fn new(interface: &str) -> Self {
        Self(bed::PacketSocket::new(interface).unwrap())
    }

    /// One whose frames go behind a virtio-net header.
    pub fn with_headers(interface: &str) -> Self {
        Self(bed::PacketSocket::with_headers(interface).unwrap())
    }

    pub fn send(&self, frame: &[u8]) {
        self.0.send(frame).unwrap();
    }

    /// On a socket with headers.
    pub fn send_with(&self, header: NetHeader, frame: &[u8]) {
        let mut bytes = header.to_bytes()[..VNET_HEADER].to_vec();
        bytes.extend_from_slice(frame);
        self.send(&bytes);
    }

    /// The next frame; `None` when none comes in time.
    pub fn recv(&self, timeout: Duration) -> Option<Vec<u8>> {
        self.0.recv(timeout).unwrap()
    }

    /// The next frame from `source`.
    pub fn recv_from(&self, source: [u8; 6]) -> Vec<u8> {
        loop {
            let frame = self.recv(LONG).expect("no frame arrived");
            if frame[6..12] == source {
                return frame;
            }
        }
    }
}
