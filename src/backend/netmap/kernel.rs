//! Ports of `/dev/netmap` for the back end, as the privileged half opens them.

use std::io;
use std::sync::Arc;

use super::host::Facts;
use super::{Fragments, Opening, Source};
use crate::backend::OpenError;
use crate::backend::host::{Host, Operation};
use crate::net::ethernet::TAG_LEN;
use crate::net::frame::ETHER_HEADER;
use crate::netmap::kernel::{Header, HeaderControl, KernelPort, MapError, Memory};
use crate::netmap::port::{Direction, HeaderLen, Port};

/// A port that a [`NetmapHost`](super::NetmapHost) opens.
pub struct Kernel {
    host: Arc<dyn Host>,
}

impl Kernel {
    /// The port of `host`.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }
}

/// Header lengths are the privileged half's business.
struct AskHost(Arc<dyn Host>);

impl HeaderControl for AskHost {
    fn set_header_len(&self, len: HeaderLen) -> io::Result<()> {
        let bytes = u16::try_from(len.bytes()).unwrap_or(u16::MAX);
        let operation = Operation::SetHeaderLen(bytes);
        self.0.operate(operation).map_err(io::Error::other)
    }
}

impl Source for Kernel {
    fn open(&self) -> Result<Opening, OpenError> {
        let opened = self.host.open()?;
        let name = opened.text.clone();
        let mismatch = || OpenError::Mismatch(name.clone());
        let (facts, rings) = Facts::unpack(opened).ok_or_else(mismatch)?;
        let header_len = u32::try_from(facts.header_len).map_err(|_| mismatch())?;
        let header_len = HeaderLen::try_from(header_len).map_err(|_| mismatch())?;
        let unusable = |error| match error {
            MapError::Map(error) => OpenError::System {
                name: name.clone(),
                error,
                cure: "let vtnetd have more address space (ulimit -v)",
            },
            MapError::Layout => mismatch(),
        };
        let (first, _) = rings.first().ok_or_else(mismatch)?;
        let memory = Arc::new(Memory::map(first, facts.memory).map_err(unusable)?);
        let header = Header::new(header_len, Box::new(AskHost(Arc::clone(&self.host))));
        let mut ports: Vec<Arc<dyn Port>> = Vec::new();
        for (fd, place) in rings {
            let (memory, header) = (Arc::clone(&memory), Arc::clone(&header));
            let port = KernelPort::new(&name, fd, memory, place, header).map_err(unusable)?;
            ports.push(Arc::new(port));
        }
        let fragments = fragments(facts.mtu, &ports);
        Ok(Opening { ports, fragments })
    }
}

/// Ports of a switch and pipes take frames in several slots. A driver that is
/// registered with an MTU beyond its buffers' size does, too, or netmap would
/// have refused it (`netmap_buf_size_validate`), for frames that its MTU lets
/// through, with a VLAN tag; others need not.
fn fragments(mtu: u64, ports: &[Arc<dyn Port>]) -> Fragments {
    let sizes = ports
        .iter()
        .flat_map(|port| [Direction::Tx, Direction::Rx].map(|direction| port.ring(direction, 0)));
    let buf_size = sizes.flatten().map(|ring| ring.buf_size()).min();
    match buf_size {
        Some(size) if mtu != 0 && mtu <= u64::from(size) => Fragments::One,
        _ if mtu == 0 => Fragments::Several,
        _ => {
            let mtu = usize::try_from(mtu).unwrap_or(usize::MAX);
            Fragments::UpTo(mtu.saturating_add(ETHER_HEADER + TAG_LEN))
        }
    }
}
