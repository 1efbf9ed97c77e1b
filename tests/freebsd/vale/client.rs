//! Another program on the switch, with a port of its own.

use std::sync::Arc;

use bed::Result;
use vtnetd::backend::host::{HostSide, InProcess};
use vtnetd::backend::netmap::{Kernel, NetmapHost, Source};
use vtnetd::event::{Events, Interest, Poller};
use vtnetd::netmap::abi::NS_MOREFRAG;
use vtnetd::netmap::port::{Direction, HeaderLen, Port};

use super::wrong;
use crate::drive::SOON;

pub struct Client {
    port: Arc<dyn Port>,
    header: usize,
}

impl Client {
    /// On port `name`, with virtio-net headers of this length, which say
    /// nothing when it sends.
    pub fn new(name: &str, header: HeaderLen) -> Result<Self> {
        let side: Box<dyn HostSide> = Box::new(wrong(NetmapHost::new(name, 1))?);
        let opening = wrong(Kernel::new(InProcess::new(side)).open())?;
        let port = Arc::clone(&opening.ports[0]);
        port.set_header_len(header)?;
        Ok(Self {
            port,
            header: header.bytes(),
        })
    }

    /// Sends a frame in as many buffers as it needs.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let ring = self.port.ring(Direction::Tx, 0).unwrap();
        let whole = [&[0; 12][..self.header], frame].concat();
        let mut chunks = whole.chunks(ring.buf_size() as usize).peekable();
        let mut at = ring.head();
        while let Some(chunk) = chunks.next() {
            assert_ne!(at, ring.tail(), "the ring is full");
            let mut slot = ring.slot(at).unwrap();
            ring.buffer(slot.buf_idx).unwrap().write(chunk);
            slot.len = u16::try_from(chunk.len()).unwrap();
            slot.flags = if chunks.peek().is_some() {
                NS_MOREFRAG
            } else {
                0
            };
            ring.set_slot(at, slot).unwrap();
            at = ring.next(at);
        }
        ring.set_cur(at);
        ring.set_head(at);
        Ok(self.port.txsync()?)
    }

    /// The next frame without its header, if one comes at all.
    pub fn recv(&self) -> Result<Option<Vec<u8>>> {
        let poller = Poller::new()?;
        poller.add(self.port.fd(), 0, Interest::READ_EDGE)?;
        let mut events = Events::new();
        while !self.port.listen()? {
            poller.wait(&mut events, Some(SOON))?;
            if events.is_empty() {
                return Ok(None);
            }
        }
        let ring = self.port.ring(Direction::Rx, 0).unwrap();
        let mut at = ring.head();
        let mut frame = Vec::new();
        loop {
            let slot = ring.slot(at).unwrap();
            let buffer = ring.buffer(slot.buf_idx).unwrap();
            let from = frame.len();
            frame.resize(from + usize::from(slot.len), 0);
            buffer.as_readable().read(&mut frame[from..]);
            at = ring.next(at);
            // All slots of a frame are there with its first.
            if slot.flags & NS_MOREFRAG == 0 {
                break;
            }
        }
        ring.set_cur(at);
        ring.set_head(at);
        Ok(Some(frame.split_off(self.header)))
    }
}
