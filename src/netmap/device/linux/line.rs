//! What the socket and the tap have in common: frames behind virtio-net headers,
//! and what becomes of those that do not go on.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::net::counter::Counter;
use crate::net::direct::Writer;
use crate::net::frame::{Batch, ETHER_HEADER, Frame};
use crate::net::offload::{self, linux, software};
use crate::netmap::attachment::Dropped;
use crate::netmap::device::source::Put;
use crate::virtio::memory::Readable;
use crate::virtio::net_header::{LEN, NetHeader};
use crate::virtio::spec::net;

#[derive(Debug, Default)]
struct Drops {
    short: Counter,
    long: Counter,
    bad_headers: Counter,
    lost: Counter,
}

/// A descriptor that frames go through, each behind a virtio-net header, and
/// what was dropped there.
#[derive(Debug)]
pub(super) struct Channel {
    name: String,
    fd: OwnedFd,
    /// Bytes of the header, at most LEN.
    header_len: usize,
    drops: Drops,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Channel {
    pub(super) fn new(name: &str, fd: OwnedFd, header_len: usize) -> Self {
        Self {
            name: name.to_owned(),
            fd,
            header_len,
            drops: Drops::default(),
        }
    }

    /// The interface's name, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sends `frame`.
    pub(super) fn send(&self, batch: &Batch<'_>, frame: &Frame) -> Put {
        if linux::takes(&frame.header, frame.len) {
            self.write(&frame.header, batch.parts(frame))
        } else {
            self.send_cut(batch, frame)
        }
    }

    /// Sends what `frame` becomes. If there is room for the first of it, what
    /// there is no room for is lost.
    #[cold]
    fn send_cut(&self, batch: &Batch<'_>, frame: &Frame) -> Put {
        let mut first = None;
        software::finish(batch, frame, &mut |frames| {
            for (head, body) in frames {
                if first == Some(Put::Full) {
                    return;
                }
                let parts = [head, body].map(|part| Readable::from_slice(part));
                let put = self.write(&NetHeader::default(), &parts);
                if first.is_some() && put == Put::Full {
                    self.lose(Errno::ENOBUFS);
                }
                first.get_or_insert(put);
            }
        });
        // Nothing, if its sender has changed it meanwhile.
        first.unwrap_or(Put::Lost)
    }

    fn write(&self, header: &NetHeader, parts: &[Readable<'_>]) -> Put {
        let header = header.to_bytes();
        let header = header.get(..self.header_len).unwrap_or(&header);
        match Writer::new().write(self.as_fd(), header, parts) {
            Ok(_) => Put::Sent,
            Err(Errno::EAGAIN | Errno::ENOBUFS) => Put::Full,
            Err(errno) => {
                self.lose(errno);
                Put::Lost
            }
        }
    }

    /// Reads one frame into `frame`; returns its header and how long it is.
    ///
    /// # Errors
    /// What readv(2) says; `EIO` when less than a header came.
    pub(super) fn read(&self, frame: &mut [u8]) -> Result<(NetHeader, usize), Errno> {
        let mut header = [0; LEN];
        let behind = header.get_mut(..self.header_len).unwrap_or_default();
        let len = behind.len();
        let mut buffers = [behind, frame].map(|bytes| libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        });
        // SAFETY: both buffers are ours alone while the call lasts.
        let got = unsafe { libc::readv(self.fd.as_raw_fd(), buffers.as_mut_ptr(), 2) };
        let got = usize::try_from(Errno::result(got)?).map_err(|_| Errno::EIO)?;
        let len = got.checked_sub(len).ok_or(Errno::EIO)?;
        Ok((NetHeader::from_bytes(&header), len))
    }

    /// Adds a frame that has come, which consists of `parts`, to the batch.
    pub(super) fn push<'m>(
        &self,
        batch: &mut Batch<'m>,
        header: &NetHeader,
        parts: &[Readable<'m>],
    ) {
        if let Err(why) = push(batch, header, parts) {
            self.refuse(why);
        }
    }

    /// A frame that has come is dropped.
    pub(super) fn refuse(&self, why: Refused) {
        match why {
            Refused::Short => self.drops.short.add_shared(1),
            Refused::Header => self.drops.bad_headers.add_shared(1),
            Refused::Full => self.drops.long.add_shared(1),
            Refused::Cut => self.drops.lost.add_shared(1),
        }
    }

    /// The system does not take a frame, or does not hand it over.
    pub(super) fn lose(&self, errno: Errno) {
        tracing::debug!("{}: a frame is lost: {errno}", self.name);
        self.drops.lost.add_shared(1);
    }

    /// What was dropped.
    pub(super) fn dropped(&self) -> Dropped {
        Dropped {
            no_room: self.drops.lost.get(),
            short: self.drops.short.get(),
            long: self.drops.long.get(),
            bad_headers: self.drops.bad_headers.get(),
            ..Dropped::default()
        }
    }
}

/// Why a frame that came is dropped.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    /// Less than an Ethernet header.
    Short,
    /// Its virtio-net header says what nobody here knows.
    Header,
    /// More parts than a batch holds, or longer than any frame.
    Full,
    /// Its end is not there.
    Cut,
}

fn push<'m>(
    batch: &mut Batch<'m>,
    header: &NetHeader,
    parts: &[Readable<'m>],
) -> Result<(), Refused> {
    let mark = batch.mark();
    let [first, ..] = parts else {
        return Err(Refused::Short);
    };
    let ether = first.read_array::<ETHER_HEADER>().ok_or(Refused::Short)?;
    let len: usize = parts.iter().map(Readable::len).sum();
    let len = u32::try_from(len).map_err(|_| Refused::Full)?;
    let header = offload::check_parts(header, net::HOST_OFFLOADS, parts, len)
        .map_err(|_| Refused::Header)?;
    for part in parts {
        if batch.push_part(mark, *part).is_none() {
            batch.discard(mark);
            return Err(Refused::Full);
        }
    }
    if batch.push_frame(mark, len, ether, header) {
        Ok(())
    } else {
        Err(Refused::Full)
    }
}
