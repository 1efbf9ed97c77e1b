//! The host's network stack: a tap, whose frames the programs turn to the
//! interface and from it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;

use super::line::{self, Refused};
use crate::net::counter::Counter;
use crate::net::frame::{BATCH, Batch, Frame, MAX_FRAME};
use crate::netmap::attachment::Dropped;
use crate::netmap::device::source::{Arrived, Line, Put};
use crate::virtio::memory::Readable;
use crate::virtio::net_header::{LEN, NetHeader};

/// Room for a frame, and a byte that shows that it was longer.
const ROOM: usize = MAX_FRAME + 1;

#[derive(Debug, Default)]
struct Drops {
    short: Counter,
    long: Counter,
    bad_headers: Counter,
    lost: Counter,
}

struct Inbox {
    /// Zeroed pages, of which few are ever touched.
    rooms: Box<[u8]>,
    /// A frame that was read and did not fit.
    kept: Option<(NetHeader, Vec<u8>)>,
}

/// The host's network stack.
pub(super) struct Tap {
    name: String,
    tap: OwnedFd,
    inbox: Mutex<Inbox>,
    drops: Drops,
}

impl Tap {
    pub(super) fn new(name: &str, tap: OwnedFd) -> Self {
        Self {
            name: name.to_owned(),
            tap,
            inbox: Mutex::new(Inbox {
                rooms: vec![0; BATCH * ROOM].into_boxed_slice(),
                kept: None,
            }),
            drops: Drops::default(),
        }
    }

    fn refuse(&self, why: Refused) {
        match why {
            Refused::Short => self.drops.short.add_shared(1),
            Refused::Header => self.drops.bad_headers.add_shared(1),
            Refused::Full => self.drops.long.add_shared(1),
        }
    }
}

fn arrived(header: &NetHeader, frame: &[u8]) -> Arrived {
    Arrived {
        len: frame.len(),
        segment: header.gso_size.into(),
    }
}

impl Line for Tap {
    fn receive(
        &self,
        fits: &mut dyn FnMut(Arrived) -> bool,
        take: &mut dyn FnMut(&Batch<'_>),
    ) -> usize {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let Inbox { rooms, kept } = &mut *inbox;
        let mut batch = Batch::new();
        let mut gone = 0;
        let mut put = |batch: &mut Batch<'_>, refused: Result<(), Refused>| {
            if let Err(why) = refused {
                self.refuse(why);
            }
            gone += 1;
            !batch.is_full()
        };
        let mut more = true;
        if let Some((header, frame)) = &*kept {
            if !fits(arrived(header, frame)) {
                return 0;
            }
            let pushed = line::push(&mut batch, header, &[Readable::from_slice(frame)]);
            more = put(&mut batch, pushed);
        }
        let mut keep = None;
        for room in rooms.chunks_exact_mut(ROOM) {
            if !more {
                break;
            }
            let mut raw = [0; LEN];
            let len = match line::read(self.tap.as_fd(), &mut raw, room) {
                Ok(len) => len,
                Err(Errno::EAGAIN) => break,
                Err(errno) => {
                    tracing::debug!("{}: nothing comes from the host: {errno}", self.name);
                    break;
                }
            };
            let header = NetHeader::from_bytes(&raw);
            let frame = room.get(..len).unwrap_or_default();
            if len > MAX_FRAME {
                more = put(&mut batch, Err(Refused::Full));
            } else if fits(arrived(&header, frame)) {
                let pushed = line::push(&mut batch, &header, &[Readable::from_slice(frame)]);
                more = put(&mut batch, pushed);
            } else {
                keep = Some((header, frame.to_vec()));
                break;
            }
        }
        if !batch.frames().is_empty() {
            take(&batch);
        }
        drop(batch);
        *kept = keep;
        gone
    }

    fn send(&self, batch: &Batch<'_>, frame: &Frame) -> Put {
        match line::write(self.tap.as_fd(), LEN, batch, frame) {
            Ok(()) => Put::Sent,
            Err(Errno::EAGAIN | Errno::ENOBUFS) => Put::Full,
            Err(errno) => {
                tracing::debug!("{}: the host does not take a frame: {errno}", self.name);
                self.drops.lost.add_shared(1);
                Put::Lost
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }

    fn settle(&self) -> bool {
        false
    }

    fn dropped(&self) -> Dropped {
        Dropped {
            no_room: self.drops.lost.get(),
            short: self.drops.short.get(),
            long: self.drops.long.get(),
            bad_headers: self.drops.bad_headers.get(),
            ..Dropped::default()
        }
    }
}
