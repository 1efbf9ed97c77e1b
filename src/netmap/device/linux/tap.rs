//! The host's network stack: a tap, whose frames the programs turn to the
//! interface and from it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;

use super::line::{Channel, Refused};
use crate::net::frame::{BATCH, Batch, Frame, MAX_FRAME};
use crate::netmap::attachment::Dropped;
use crate::netmap::device::source::{Arrived, Line, Put};
use crate::virtio::memory::Readable;
use crate::virtio::net_header::{LEN, NetHeader};

/// Room for a frame, and a byte that shows that it was longer.
const ROOM: usize = MAX_FRAME + 1;

struct Inbox {
    /// Zeroed pages, of which few are ever touched.
    rooms: Box<[u8]>,
    /// A frame that was read and did not fit.
    kept: Option<(NetHeader, Vec<u8>)>,
}

/// The host's network stack.
pub(super) struct Tap {
    channel: Channel,
    inbox: Mutex<Inbox>,
}

impl Tap {
    pub(super) fn new(name: &str, tap: OwnedFd) -> Self {
        Self {
            channel: Channel::new(name, tap, LEN),
            inbox: Mutex::new(Inbox {
                rooms: vec![0; BATCH * ROOM].into_boxed_slice(),
                kept: None,
            }),
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
        if let Some((header, frame)) = &*kept {
            if !fits(arrived(header, frame)) {
                return 0;
            }
            let parts = [Readable::from_slice(frame)];
            self.channel.push(&mut batch, header, &parts);
            gone += 1;
        }
        let mut keep = None;
        for room in rooms.chunks_exact_mut(ROOM) {
            if batch.is_full() {
                break;
            }
            let (header, len) = match self.channel.read(room) {
                Ok(read) => read,
                Err(Errno::EAGAIN) => break,
                Err(errno) => {
                    let name = self.channel.name();
                    tracing::debug!("{name}: nothing comes from the host: {errno}");
                    break;
                }
            };
            let frame = room.get(..len).unwrap_or_default();
            if len > MAX_FRAME {
                self.channel.refuse(Refused::Full);
            } else if fits(arrived(&header, frame)) {
                let parts = [Readable::from_slice(frame)];
                self.channel.push(&mut batch, &header, &parts);
            } else {
                keep = Some((header, frame.to_vec()));
                break;
            }
            gone += 1;
        }
        if !batch.frames().is_empty() {
            take(&batch);
        }
        drop(batch);
        *kept = keep;
        gone
    }

    fn send(&self, batch: &Batch<'_>, frame: &Frame) -> Put {
        self.channel.send(batch, frame)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    fn settle(&self) -> bool {
        false
    }

    fn dropped(&self) -> Dropped {
        self.channel.dropped()
    }
}
