//! netmap clients: what they do with their rings.

use bed::{Error, Result};
use vtnetd::netmap::abi::Slot;
use vtnetd::netmap::mem::RingView;
use vtnetd::netmap::port::{Direction, Port};
use vtnetd::netmap::register::Registration;

fn ring(client: &Registration, direction: Direction) -> Result<RingView<'_>> {
    let ring = client.ring(direction, 0);
    ring.ok_or_else(|| Error::new("a port without rings"))
}

/// Fills slots with `frames` times the same frame.
///
/// # Errors
/// There is no room.
pub fn put(client: &Registration, frame: &[u8], frames: u32) -> Result<()> {
    let ring = ring(client, Direction::Tx)?;
    let len = u16::try_from(frame.len()).map_err(|_| Error::new("a frame too long"))?;
    let mut at = ring.head();
    for _ in 0..frames {
        let slot = ring.slot(at).filter(|_| ring.next(at) != ring.tail());
        let room = slot.and_then(|slot| ring.buffer(slot.buf_idx).zip(Some(slot)));
        let (room, slot) = room.ok_or_else(|| Error::new("a ring is full"))?;
        room.write(frame);
        ring.set_slot(at, Slot { len, ..slot });
        at = ring.next(at);
    }
    ring.set_cur(at);
    ring.set_head(at);
    Ok(())
}

/// Takes what has come; how many slots.
///
/// # Errors
/// There is no ring.
pub fn take(client: &Registration) -> Result<usize> {
    let ring = ring(client, Direction::Rx)?;
    let (head, tail) = (ring.head(), ring.tail());
    ring.set_cur(tail);
    ring.set_head(tail);
    Ok(ring.distance(head, tail) as usize)
}
