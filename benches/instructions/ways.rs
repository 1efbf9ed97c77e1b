//! The ways of a frame, and how it is sent each of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bed::{Error, Result};
use vtnetd::backend::{Backend, Received, Room, Sent, Unconnected, Vale};
use vtnetd::net::frame::Batch;
use vtnetd::netmap::mem::RegionConfig;
use vtnetd::netmap::port::Port;
use vtnetd::netmap::register::{Netmap, Registration, Request};
use vtnetd::netmap::vale::{Switch, Switches};
use vtnetd::virtio::memory::{Readable, copy};
use vtnetd::virtio::net_header::NetHeader;

use crate::callgrind::counted;
use crate::clients;
use crate::guest::{Format, Guest, broken, frame};

/// Frames that are under way at once: two batches.
const FRAMES: u32 = 128;
/// How often.
const ROUNDS: u32 = 50;
/// Bytes of a frame.
const LENGTHS: [usize; 2] = [64, 1514];
/// The numbers of who sends and who receives.
const FROM: u8 = 1;
const TO: u8 = 2;

/// Where to.
#[derive(Clone, Copy, Debug)]
enum Route {
    /// From a guest to a back end that throws it away.
    Tx(Format),
    /// From guest to guest over a switch.
    Switch(Format),
    /// From a back end to a guest.
    Rx(Format),
    /// From client to client over a switch.
    Clients,
    /// From client to client over a pipe.
    Pipe,
}

/// A way, for frames of one length.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    route: Route,
    length: usize,
}

impl Way {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        use Format::{Packed, Split};
        use Route::{Clients, Pipe, Rx, Switch, Tx};
        let routes = [
            Tx(Split),
            Tx(Packed),
            Switch(Split),
            Switch(Packed),
            Rx(Split),
            Rx(Packed),
            Clients,
            Pipe,
        ];
        let ways = |route| LENGTHS.map(|length| Self { route, length });
        routes.into_iter().flat_map(ways)
    }

    /// What it is called.
    pub fn name(self) -> String {
        let (what, format) = match self.route {
            Route::Tx(format) => ("tx", Some(format)),
            Route::Switch(format) => ("switch", Some(format)),
            Route::Rx(format) => ("rx", Some(format)),
            Route::Clients => ("clients", None),
            Route::Pipe => ("pipe", None),
        };
        let format = match format {
            Some(Format::Split) => " split",
            Some(Format::Packed) => " packed",
            None => "",
        };
        format!("{what}{format} {}", self.length)
    }

    /// Sends frames this way; how many were counted.
    ///
    /// # Errors
    /// Not all of them arrive.
    pub fn run(self) -> Result<u32> {
        let frame = frame(TO, FROM, self.length);
        match self.route {
            Route::Tx(format) => tx(&frame, format),
            Route::Switch(format) => switch(&frame, format),
            Route::Rx(format) => rx(&frame, format),
            Route::Clients => over_rings(&frame, ["vale0:a", "vale0:b"]),
            Route::Pipe => over_rings(&frame, ["vale0:p{1", "vale0:p}1"]),
        }
    }
}

/// Goes round after round. The first, in which switches learn addresses and
/// memory is touched for the first time, is not counted.
fn rounds(mut round: impl FnMut(fn(&mut dyn FnMut())) -> Result<usize>) -> Result<u32> {
    for number in 0..=ROUNDS {
        let arrived = round(if number == 0 { uncounted } else { counted })?;
        if u32::try_from(arrived) != Ok(FRAMES) {
            return Err(Error::new(format!("{arrived} of {FRAMES} frames arrived")));
        }
    }
    Ok(ROUNDS * FRAMES)
}

fn uncounted(body: &mut dyn FnMut()) {
    body();
}

fn tx(frame: &[u8], format: Format) -> Result<u32> {
    let mut guest = Guest::new(FROM, format, Arc::new(Unconnected))?;
    rounds(|count| {
        guest.send(frame, FRAMES)?;
        count(&mut || guest.turns());
        guest.sent()
    })
}

fn switch(frame: &[u8], format: Format) -> Result<u32> {
    let switch = Arc::new(Switch::new("vale0"));
    let on = |number: u8| {
        let port = Vale::new(Arc::clone(&switch), &format!("vm{number}"));
        Guest::new(number, format, Arc::new(port))
    };
    let (mut from, mut to) = (on(FROM)?, on(TO)?);
    // The switch is to know where the receiver is: else it sends to all.
    to.send(&self::frame(FROM, TO, frame.len()), 1)?;
    to.turns();
    to.sent()?;
    rounds(|count| {
        from.send(frame, FRAMES)?;
        count(&mut || from.turns());
        from.sent()?;
        to.received()
    })
}

fn rx(frame: &[u8], format: Format) -> Result<u32> {
    let host = Arc::new(Host::new(frame)?);
    let mut guest = Guest::new(TO, format, Arc::clone(&host) as _)?;
    rounds(|count| {
        host.waiting.store(FRAMES, Ordering::Relaxed);
        guest.note_back_end();
        count(&mut || guest.turns());
        guest.received()
    })
}

fn over_rings(frame: &[u8], ports: [&str; 2]) -> Result<u32> {
    let core = Netmap::new(Arc::new(Switches::default()), RegionConfig::global());
    let core = Arc::new(core);
    let client =
        |name| -> Result<Registration> { core.register(&Request::new(name)).map_err(broken) };
    let (from, to) = (client(ports[0])?, client(ports[1])?);
    rounds(|count| {
        clients::put(&from, frame, FRAMES)?;
        let mut synced = Ok(());
        count(&mut || synced = from.txsync().and_then(|()| to.rxsync()));
        synced?;
        clients::take(&to)
    })
}

/// A back end with frames that are all the same.
struct Host {
    frame: Vec<u8>,
    /// How many are there.
    waiting: AtomicU32,
    /// Never readable: whoever asks is told otherwise.
    fd: OwnedFd,
}

impl Host {
    fn new(frame: &[u8]) -> Result<Self> {
        let (fd, _) = nix::unistd::pipe().map_err(io::Error::from)?;
        Ok(Self {
            frame: frame.to_owned(),
            waiting: AtomicU32::new(0),
            fd,
        })
    }
}

impl Backend for Host {
    fn features(&self) -> u64 {
        0
    }

    fn set_features(&self, _features: u64, _header_len: usize) -> io::Result<()> {
        Ok(())
    }

    fn max_pairs(&self) -> u16 {
        1
    }

    fn send(&self, pair: usize, batch: &Batch<'_>) -> Sent {
        Unconnected.send(pair, batch)
    }

    fn rx_fd(&self, _pair: usize) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn receive(&self, _pair: usize, rx: &mut dyn Room) -> Received {
        let frame = [Readable::from_slice(&self.frame)];
        while self.waiting.load(Ordering::Relaxed) > 0 {
            match rx.room(self.frame.len()) {
                Ok(room) => copy(&frame, room),
                Err(why) => return why,
            };
            rx.finish(&NetHeader::default(), self.frame.len());
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        Received::Drained
    }
}
