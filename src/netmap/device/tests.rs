//! Tests of device ports on lines that are lists.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::*;
use crate::event::Waker;
use crate::net::frame::{BATCH, Batch, Frame};
use crate::netmap::abi::nmreq::{NR_RX_RINGS_ONLY, NR_TX_RINGS_ONLY};
use crate::netmap::abi::{NR_FORWARD, NS_FORWARD, Slot};
use crate::netmap::attachment::Dropped;
use crate::netmap::authority::{Account, Authority, Grant, Limits, Rights};
use crate::netmap::mem::RegionConfig;
use crate::netmap::port::{Direction, Port};
use crate::netmap::register::{Netmap, RegisterError, Registration, Request, RingMode};
use crate::netmap::vale::Switches;
use crate::virtio::memory::Readable;
use crate::virtio::net_header::NetHeader;

/// A line that is two lists.
struct Lists {
    waker: Waker,
    came: Mutex<VecDeque<Vec<u8>>>,
    sent: Mutex<Vec<Vec<u8>>>,
    /// How many frames it takes.
    room: Mutex<usize>,
}

impl Lists {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            waker: Waker::new().unwrap(),
            came: Mutex::default(),
            sent: Mutex::default(),
            room: Mutex::new(usize::MAX),
        })
    }

    fn come(&self, frames: impl IntoIterator<Item = Vec<u8>>) {
        self.came.lock().unwrap().extend(frames);
        self.waker.wake();
    }

    fn left(&self) -> usize {
        self.came.lock().unwrap().len()
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}

impl Line for Lists {
    fn receive(
        &self,
        fits: &mut dyn FnMut(Arrived) -> bool,
        take: &mut dyn FnMut(&Batch<'_>),
    ) -> usize {
        let mut came = self.came.lock().unwrap();
        let arrived = |frame: &Vec<u8>| Arrived {
            len: frame.len(),
            segment: 0,
        };
        let mut frames = Vec::new();
        while frames.len() < BATCH && came.front().is_some_and(|frame| fits(arrived(frame))) {
            frames.extend(came.pop_front());
        }
        drop(came);
        let mut batch = Batch::new();
        for frame in &frames {
            let mark = batch.mark();
            batch.push_part(mark, Readable::from_slice(frame)).unwrap();
            let ether = *frame.first_chunk().unwrap();
            let len = u32::try_from(frame.len()).unwrap();
            assert!(batch.push_frame(mark, len, ether, NetHeader::default()));
        }
        take(&batch);
        self.waker.drain();
        frames.len()
    }

    fn send(&self, batch: &Batch<'_>, frame: &Frame) -> Put {
        let mut room = self.room.lock().unwrap();
        let Some(left) = room.checked_sub(1) else {
            return Put::Full;
        };
        *room = left;
        let mut bytes = vec![0; frame.len as usize];
        crate::virtio::memory::gather(batch.parts(frame), &mut bytes);
        self.sent.lock().unwrap().push(bytes);
        Put::Sent
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }

    fn settle(&self) -> bool {
        false
    }

    fn dropped(&self) -> Dropped {
        Dropped::default()
    }
}

/// What a gate was told last.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Taken>>>);

impl Gate for Told {
    fn set(&self, taken: Taken) {
        self.0.lock().unwrap().push(taken);
    }
}

struct Source {
    nic: Arc<Lists>,
    host: Arc<Lists>,
    told: Told,
    broken: Mutex<bool>,
    promiscuous: Mutex<Option<bool>>,
}

impl Interfaces for Source {
    fn look(&self, name: &str) -> Result<Option<Facts>, DeviceError> {
        Ok((name == "if0").then_some(Facts {
            index: 1,
            mtu: 1500,
        }))
    }

    fn open(&self, name: &str, promiscuous: bool) -> Result<Device, DeviceError> {
        if *self.broken.lock().unwrap() {
            return Err(DeviceError::new(name, Errno::EPERM, "mend it"));
        }
        *self.promiscuous.lock().unwrap() = Some(promiscuous);
        Ok(Device {
            nic: Arc::clone(&self.nic) as _,
            host: Arc::clone(&self.host) as _,
            gate: Box::new(self.told.clone()),
            mtu: 1500,
        })
    }
}

fn bed() -> (Arc<Netmap>, Arc<Source>) {
    let source = Arc::new(Source {
        nic: Lists::new(),
        host: Lists::new(),
        told: Told::default(),
        broken: Mutex::new(false),
        promiscuous: Mutex::new(None),
    });
    let devices = Devices::new(Arc::clone(&source) as _).unwrap();
    let core = Netmap::new(Arc::new(Switches::default()), RegionConfig::global());
    (Arc::new(core.with_devices(devices)), source)
}

fn request(mode: RingMode) -> Request {
    Request {
        mode,
        ..Request::new("if0")
    }
}

fn frame(nth: usize, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..8].copy_from_slice(&nth.to_ne_bytes());
    frame
}

/// Puts frames into transmit ring `index`, and syncs.
fn transmit(port: &Registration, index: usize, frames: &[Vec<u8>]) {
    let ring = port.ring(Direction::Tx, index).unwrap();
    let mut at = ring.head();
    for frame in frames {
        let slot = ring.slot(at).unwrap();
        ring.buffer(slot.buf_idx).unwrap().write(frame);
        let len = u16::try_from(frame.len()).unwrap();
        ring.set_slot(at, Slot { len, ..slot }).unwrap();
        at = ring.next(at);
    }
    ring.set_cur(at);
    ring.set_head(at);
    port.txsync().unwrap();
}

/// Releases what came in receive ring `index`, with `flags`; how many slots.
fn release(port: &Registration, index: usize, flags: u16) -> u32 {
    port.rxsync().unwrap();
    let ring = port.ring(Direction::Rx, index).unwrap();
    let count = ring.available();
    let mut at = ring.head();
    while at != ring.tail() {
        let slot = ring.slot(at).unwrap();
        let flags = slot.flags | flags;
        ring.set_slot(at, Slot { flags, ..slot }).unwrap();
        at = ring.next(at);
    }
    ring.set_cur(at);
    ring.set_head(at);
    port.rxsync().unwrap();
    count
}

#[test]
fn a_transmit_ring_keeps_what_finds_no_room() {
    let (core, source) = bed();
    let port = core.register(&request(RingMode::All)).unwrap();
    *source.nic.room.lock().unwrap() = 3;
    let mut frames: Vec<Vec<u8>> = (0..200).map(|nth| frame(nth, 64)).collect();
    // A bad one among them is no reason to send others twice.
    frames[2].truncate(13);
    transmit(&port, 0, &frames);
    frames.remove(2);
    let mut sent = source.nic.sent();
    assert_eq!(sent.len(), 3);
    let ring = port.ring(Direction::Tx, 0).unwrap();
    assert_eq!(ring.available(), 1023 - 200 + 4);
    *source.nic.room.lock().unwrap() = 70;
    port.txsync().unwrap();
    *source.nic.room.lock().unwrap() = usize::MAX;
    port.txsync().unwrap();
    sent.extend(source.nic.sent());
    assert_eq!(sent, frames);
    assert_eq!(ring.available(), 1023);
    let counts = port.kring(Direction::Tx, 0).unwrap().counters().read();
    assert_eq!(
        (counts.frames, counts.bytes, counts.short),
        (199, 199 * 64, 1)
    );
}

#[test]
fn frames_stay_on_the_line_while_the_ring_has_no_room() {
    let (core, source) = bed();
    let port = core.register(&request(RingMode::All)).unwrap();
    source.nic.come((0..2000).map(|nth| frame(nth, 64)));
    port.rxsync().unwrap();
    assert_eq!(source.nic.left(), 2000 - 1023);
    assert_eq!(release(&port, 0, 0), 1023);
    assert_eq!(source.nic.left(), 0);
    assert_eq!(release(&port, 0, 0), 2000 - 1023);
    // Frames of several slots.
    source.nic.come((0..400).map(|nth| frame(nth, 5000)));
    port.rxsync().unwrap();
    assert_eq!(source.nic.left(), 400 - 341);
    let counts = port.kring(Direction::Rx, 0).unwrap().counters().read();
    assert_eq!((counts.frames, counts.full), (2341, 0));
}

#[test]
fn what_is_bound_is_taken_from_the_host_and_no_more() {
    let taken = |rx, tx, host| Taken { rx, tx, host };
    let only = |mode, flags| Request {
        flags,
        ..request(mode)
    };
    for (request, want) in [
        (request(RingMode::All), taken(true, true, false)),
        (request(RingMode::AllAndHost), taken(true, true, true)),
        (request(RingMode::One(0)), taken(true, true, false)),
        (request(RingMode::Host), taken(false, false, true)),
        (request(RingMode::OneHost(0)), taken(false, false, true)),
        (
            only(RingMode::All, NR_RX_RINGS_ONLY),
            taken(true, false, false),
        ),
        (
            only(RingMode::All, NR_TX_RINGS_ONLY),
            taken(false, true, false),
        ),
        (
            only(RingMode::AllAndHost, NR_TX_RINGS_ONLY),
            taken(false, true, false),
        ),
        (
            only(RingMode::Host, NR_TX_RINGS_ONLY),
            taken(false, false, false),
        ),
    ] {
        let (core, source) = bed();
        let port = core.register(&request).unwrap();
        assert_eq!(*source.promiscuous.lock().unwrap(), Some(false));
        let told = || source.told.0.lock().unwrap().last().copied();
        assert_eq!(told(), Some(want), "{request:?}");
        drop(port);
        assert_eq!(told(), Some(Taken::default()), "{request:?}");
        assert_eq!(Arc::strong_count(&source.nic), 1, "{request:?}");
        assert_eq!(Arc::strong_count(&source.host), 1, "{request:?}");
    }
}

#[test]
fn frames_from_before_a_ring_was_bound_were_the_hosts() {
    let (core, source) = bed();
    let host = core.register(&request(RingMode::Host)).unwrap();
    source.nic.come([frame(1, 64)]);
    let wire = core.register(&request(RingMode::All)).unwrap();
    source.nic.come([frame(2, 64)]);
    assert_eq!(release(&wire, 0, 0), 1);
    assert_eq!(release(&host, 0, 0), 0);
}

#[test]
fn marked_frames_go_to_the_other_side() {
    let (core, source) = bed();
    let port = core.register(&request(RingMode::AllAndHost)).unwrap();
    let lines = [&source.nic, &source.host];
    let both = |flags| {
        for (at, line) in lines.iter().enumerate() {
            line.come([frame(at, 64), frame(at + 2, 64)]);
            assert_eq!(release(&port, at, flags), 2);
        }
        lines.map(|line| line.sent())
    };
    let none = [const { Vec::<Vec<u8>>::new() }; 2];
    assert_eq!(both(NS_FORWARD), none, "without NR_FORWARD");
    for at in 0..2 {
        port.ring(Direction::Rx, at).unwrap().set_flags(NR_FORWARD);
    }
    assert_eq!(both(0), none, "without marks");
    let sides = [1, 0].map(|at| vec![frame(at, 64), frame(at + 2, 64)]);
    assert_eq!(both(NS_FORWARD), sides);
    let slot = port.ring(Direction::Rx, 0).unwrap().slot(4).unwrap();
    assert_eq!(slot.flags & NS_FORWARD, 0, "the mark is taken off");
    // To the wire only for who has all its transmit rings.
    drop(port);
    let port = core.register(&request(RingMode::Host)).unwrap();
    port.ring(Direction::Rx, 0).unwrap().set_flags(NR_FORWARD);
    source.host.come([frame(1, 64)]);
    assert_eq!(release(&port, 0, NS_FORWARD), 1);
    assert_eq!(source.nic.sent(), Vec::<Vec<u8>>::new());
}

#[test]
fn host_rings_send_to_the_host() {
    let (core, source) = bed();
    let port = core.register(&request(RingMode::AllAndHost)).unwrap();
    transmit(&port, 1, &[frame(1, 64)]);
    assert_eq!(source.host.sent(), [frame(1, 64)]);
    assert_eq!(source.nic.sent(), Vec::<Vec<u8>>::new());
}

#[test]
fn who_waits_is_woken_by_the_line() {
    let (core, source) = bed();
    let port = core.register(&request(RingMode::AllAndHost)).unwrap();
    for line in [&source.nic, &source.host] {
        assert!(!port.listen().unwrap());
        line.come([frame(1, 64)]);
        let mut fds = [nix::poll::PollFd::new(
            port.fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        assert_eq!(nix::poll::poll(&mut fds, 10_000u16), Ok(1));
        assert!(port.listen().unwrap());
        release(&port, 0, 0);
        release(&port, 1, 0);
    }
}

#[test]
fn what_cannot_be_opened_leaves_nothing() {
    let (core, source) = bed();
    *source.broken.lock().unwrap() = true;
    let refused = core.register(&request(RingMode::All)).err().unwrap();
    assert_eq!(refused.errno(), Errno::EPERM);
    assert!(refused.to_string().contains("mend it"), "{refused}");
    // The interface is named once.
    assert_eq!(refused.to_string().matches("if0").count(), 1, "{refused}");
    let attach = Request::new("vale0:if0");
    let refused = core.attach_interface(&attach).unwrap_err();
    assert_eq!(refused.errno(), Errno::EPERM);
    *source.broken.lock().unwrap() = false;
    assert_eq!(core.enumerate(0, 0), None);
    assert!(core.register(&request(RingMode::All)).is_ok());
    // A switch that has such a port already.
    let taken = core.register(&Request::new("vale0:if0^")).unwrap();
    let attach = Request {
        mode: RingMode::AllAndHost,
        ..attach
    };
    let refused = core.attach_interface(&attach).unwrap_err();
    assert_eq!(refused.errno(), Errno::EBUSY);
    assert_eq!(core.enumerate(0, 1), None, "only the one that was there");
    drop(taken);
    assert_eq!(core.attach_interface(&attach).unwrap(), 0);
    assert_eq!(*source.promiscuous.lock().unwrap(), Some(true));
    assert_eq!(core.detach_interface("vale0:if0").unwrap(), 0);
    assert_eq!(Arc::strong_count(&source.nic), 1);
}

#[test]
fn an_interface_on_a_switch_forwards() {
    let (core, source) = bed();
    let port = core.register(&Request::new("vale0:a")).unwrap();
    core.attach_interface(&Request::new("vale0:if0")).unwrap();
    transmit(&port, 0, &[frame(1, 64)]);
    assert_eq!(source.nic.sent(), [frame(1, 64)]);
    assert!(!port.listen().unwrap());
    source.nic.come([frame(2, 64)]);
    let mut fds = [nix::poll::PollFd::new(
        port.fd(),
        nix::poll::PollFlags::POLLIN,
    )];
    assert_eq!(nix::poll::poll(&mut fds, 10_000u16), Ok(1));
    assert_eq!(release(&port, 0, 0), 1);
    let headers = core.set_header_len("vale0:if0", crate::netmap::port::HeaderLen::Full);
    assert_eq!(headers.unwrap_err().errno(), Errno::EOPNOTSUPP);
}

#[test]
fn an_interface_takes_a_right_of_its_own() {
    let account = Arc::new(Account::new(7, Limits::default()));
    let of = |rights| {
        let grants = vec![Grant {
            rights,
            switch: Some("vale0".to_owned()),
        }];
        Authority::client(Arc::clone(&account), false, grants)
    };
    let (core, _) = bed();
    let ask = |name: &str, authority: &Authority| Request {
        authority: authority.clone(),
        ..Request::new(name)
    };
    let errno = |error: RegisterError| error.errno();
    let creates = of(Rights::CREATE);
    let refused = core.attach_interface(&ask("vale0:if0", &creates));
    assert_eq!(refused.map_err(errno), Err(Errno::EACCES));
    let bwraps = of(Rights::BWRAP);
    let refused = core.attach_interface(&ask("vale1:if0", &bwraps));
    assert_eq!(refused.map_err(errno), Err(Errno::EACCES));
    let refused = core.register(&ask("if0", &bwraps)).map(drop);
    assert_eq!(refused.map_err(errno), Err(Errno::EACCES), "not on vale0");
    core.attach_interface(&ask("vale0:if0", &bwraps)).unwrap();
    core.detach_interface("vale0:if0").unwrap();
}
