//! Software drivers on the devices of a vtnetd, and programs on them.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bed::{Error, Process, Result, Scratch, Vtnetd};
use vtnetd::driver::front_end::FrontEnd;
use vtnetd::driver::net::{NetDriver, NetOptions, Pair};
use vtnetd::virtio::net_header::LEN;
use vtnetd::virtio::spec::net;

/// Far longer than anything takes that happens at once.
pub const SOON: Duration = Duration::from_secs(10);
/// Long enough for a frame to arrive that should not.
pub const NEVER: Duration = Duration::from_millis(200);

/// How often something is repeated: `usual`, or what VTNETD_ROUNDS says.
pub fn rounds(usual: usize) -> usize {
    let asked = std::env::var("VTNETD_ROUNDS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A running vtnetd and where the sockets of its devices are.
pub struct Served {
    pub vtnetd: Vtnetd,
    sockets: Vec<PathBuf>,
    _scratch: Scratch,
}

impl Served {
    /// One with a device for each of `devices`, which are what follows
    /// `virtio-net,` without the socket: `tap0,mtu=9000`.
    pub fn start<S: AsRef<str>>(devices: &[S]) -> Result<Self> {
        let scratch = Scratch::new()?;
        let numbers = 0..devices.len();
        let sockets: Vec<_> = numbers.map(|i| scratch.path(&i.to_string())).collect();
        let strings: Vec<_> = devices
            .iter()
            .zip(&sockets)
            .map(|(device, socket)| {
                let device = device.as_ref();
                format!("virtio-net,{device},socket={}", socket.display())
            })
            .collect();
        let program = bed::program(env!("CARGO_BIN_EXE_vtnetd"));
        Ok(Self {
            vtnetd: Vtnetd::start(&program, &strings, None)?,
            sockets,
            _scratch: scratch,
        })
    }

    /// A software driver on device number `device`.
    pub fn drive(&self, device: usize, options: &NetOptions) -> Result<NetDriver> {
        let front_end = FrontEnd::connect(&self.sockets[device])
            .map_err(|error| Error::new(error.to_string()))?;
        NetDriver::start(front_end, options).map_err(|error| Error::new(error.to_string()))
    }

    /// vtgen(8) on device number `device`.
    pub fn vtgen(&self, device: usize, arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new(bed::program(env!("CARGO_BIN_EXE_vtgen")));
        command.arg("--socket-path").arg(&self.sockets[device]);
        Process::start("vtgen", command.args(arguments))
    }
}

/// Options of a driver for frames up to `longest` bytes: its receive buffers
/// are merged for a longer frame, or each has room for one.
pub fn options(mergeable: bool, longest: usize) -> NetOptions {
    let mut options = NetOptions {
        max_frame: longest,
        ..NetOptions::default()
    };
    if !mergeable {
        options.negotiation.features &= !net::F_MRG_RXBUF;
        options.rx_buffer = options.rx_buffer.max(longest + LEN);
    }
    options
}

/// A broadcast frame of `len` bytes whose every byte says something of its
/// number and place.
pub fn frame(len: usize, number: usize) -> Vec<u8> {
    let header = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5,
    ];
    let body = (header.len()..len).map(|at| (at * 31 + at / 251 + number * 7).to_le_bytes()[0]);
    header.into_iter().chain(body).collect()
}

/// The next frame, whichever pair has it: what flooding brings to it.
pub fn received(pair: &mut Pair, within: Duration) -> Option<Vec<u8>> {
    let received = pair.rx.recv(within).expect("the ring goes on");
    received.map(|received| received.frame)
}

/// Sends `frames` from one pair to another and has what arrives compared with
/// them, byte by byte and in order.
///
/// # Errors
/// What was different.
pub fn carry(from: &mut Pair, to: &mut Pair, frames: &[Vec<u8>]) -> Result<()> {
    // No more at a time than a ring has buffers for, of 256 with 2 KiB each.
    for some in frames.chunks(4) {
        let sent = from.tx.send_batch(some.iter().map(Vec::as_slice));
        sent.map_err(|error| Error::new(error.to_string()))?;
        for frame in some {
            same(received(to, SOON), frame)?;
        }
    }
    from.tx
        .drain()
        .map_err(|error| Error::new(error.to_string()))?;
    Ok(())
}

/// Whether what was received is the frame that was sent.
///
/// # Errors
/// What was different.
pub fn same(received: Option<Vec<u8>>, sent: &[u8]) -> Result<()> {
    let len = sent.len();
    let Some(received) = received else {
        return Err(Error::new(format!("a frame of {len} bytes did not arrive")));
    };
    if received == sent {
        return Ok(());
    }
    let differs = received.iter().zip(sent).position(|(a, b)| a != b);
    let mut said = format!("{len} bytes were sent and {} received", received.len());
    if let Some(at) = differs {
        // Writing to a string does not fail.
        let _ = write!(said, ", which differ from byte {at}");
    }
    Err(Error::new(said))
}
