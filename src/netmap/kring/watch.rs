//! Who watches a ring: monitors, which get the ring's frames in receive rings
//! of their own.
//!
//! A *copy* monitor gets each frame's slots copied, from a transmit ring before
//! they are sent, in a receive ring before the application sees them. A
//! *zero-copy* monitor gets the buffers themselves, in exchange for its own,
//! once the ring is done with them; the next one watches the first one's ring.
//! A monitor without room misses the oldest of the frames.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Counts, Kring};
use crate::netmap::abi::{NS_BUF_CHANGED, NS_TXMON, Slot};
use crate::netmap::mem::RingView;

/// The monitors of one ring of a port. They stay while the ring itself comes
/// and goes.
#[derive(Debug, Default)]
pub struct Watch {
    /// Looked at in every sync, so that a ring without monitors takes no lock.
    watched: AtomicBool,
    monitors: Mutex<Monitors>,
}

#[derive(Debug, Default)]
struct Monitors {
    copies: Vec<Arc<Kring>>,
    zero: Option<Arc<Kring>>,
}

impl Watch {
    fn monitors(&self) -> MutexGuard<'_, Monitors> {
        self.monitors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are monitors.
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire)
    }

    /// Lets `ring` have copies.
    pub fn add_copy(&self, ring: &Arc<Kring>) {
        let mut monitors = self.monitors();
        monitors.copies.push(Arc::clone(ring));
        self.watched.store(true, Ordering::Release);
    }

    /// Lets `ring` have the buffers, after the zero-copy monitors that are
    /// there.
    pub fn add_zero_copy(&self, ring: &Arc<Kring>) {
        let mut monitors = self.monitors();
        match &monitors.zero {
            None => {
                monitors.zero = Some(Arc::clone(ring));
                self.watched.store(true, Ordering::Release);
            }
            // It watches both directions of the port, and is there already.
            Some(first) if Arc::ptr_eq(first, ring) => {}
            Some(first) => {
                let next = Arc::clone(first.watch());
                drop(monitors);
                next.add_zero_copy(ring);
            }
        }
    }

    /// Forgets `ring`. It gets nothing any more when this returns.
    pub fn remove(&self, ring: &Arc<Kring>) {
        let mut monitors = self.monitors();
        monitors.copies.retain(|one| !Arc::ptr_eq(one, ring));
        let next = match monitors.zero.take() {
            Some(first) if Arc::ptr_eq(&first, ring) => {
                // Those behind it move up.
                monitors.zero = first.watch().monitors().zero.clone();
                None
            }
            Some(first) => {
                let next = Arc::clone(first.watch());
                monitors.zero = Some(first);
                Some(next)
            }
            None => None,
        };
        self.update(&monitors);
        drop(monitors);
        if let Some(next) = next {
            next.remove(ring);
        }
    }

    /// Forgets all of them, those behind the first zero-copy monitor too: the
    /// port has left netmap mode.
    pub fn clear(&self) {
        let mut monitors = self.monitors();
        let first = std::mem::take(&mut *monitors).zero;
        self.update(&monitors);
        drop(monitors);
        if let Some(first) = first {
            first.watch().clear();
        }
    }

    fn update(&self, monitors: &Monitors) {
        let watched = !monitors.copies.is_empty() || monitors.zero.is_some();
        self.watched.store(watched, Ordering::Release);
    }

    /// Copies the slots at `slots` of `from`, going round, for everybody.
    #[cold]
    pub(super) fn copy(&self, from: &RingView<'_>, slots: Range<u32>, sent: u16) {
        for ring in &self.monitors().copies {
            deliver(ring, from, slots.clone(), |at, to, room| {
                let slot = from.slot(at).unwrap_or_default();
                let data = from.slot_buffer(slot);
                let len = data.zip(to.slot_buffer(to.slot(room).unwrap_or_default()));
                let len = len.map_or(0, |(data, room)| {
                    room.write_from(&data.as_readable().truncate(slot.len.into()))
                });
                // No buffer is longer than a slot's length can say.
                let len = u16::try_from(len).unwrap_or(u16::MAX);
                to.set_len_and_flags(room, len, slot.flags & !NS_TXMON | sent);
            });
        }
    }

    /// Gives the buffers at `slots` of `from`, going round, to the zero-copy
    /// monitor, and takes its own for them.
    #[cold]
    pub(super) fn swap(&self, from: &RingView<'_>, slots: Range<u32>, sent: u16) {
        let Some(ring) = self.monitors().zero.clone() else {
            return;
        };
        deliver(&ring, from, slots, |at, to, room| {
            let (Some(ours), Some(theirs)) = (from.slot(at), to.slot(room)) else {
                return;
            };
            if !from.is_buffer(ours.buf_idx) || !to.is_buffer(theirs.buf_idx) {
                to.set_len_and_flags(room, 0, 0);
                return;
            }
            let given = Slot {
                buf_idx: ours.buf_idx,
                len: ours.len,
                flags: ours.flags & !NS_TXMON | sent,
                ptr: theirs.ptr,
            };
            let taken = Slot {
                buf_idx: theirs.buf_idx,
                len: theirs.len,
                flags: ours.flags | NS_BUF_CHANGED,
                ptr: ours.ptr,
            };
            to.set_slot(room, given);
            from.set_slot(at, taken);
        });
    }
}

/// Calls `give` for the last of `slots`, as many as `ring` has room for, each
/// with a slot of the monitor's.
fn deliver(
    ring: &Kring,
    from: &RingView<'_>,
    slots: Range<u32>,
    give: impl Fn(u32, &RingView<'_>, u32),
) {
    let count = from.distance(slots.start, slots.end);
    let Some(mut lease) = ring.reserve(count) else {
        ring.count(&Counts {
            full: count.into(),
            ..Counts::default()
        });
        return;
    };
    let missed = count - lease.left();
    let mut at = (0..missed).fold(slots.start, |at, _| from.next(at));
    let to = lease.view();
    lease.counts().full += u64::from(missed);
    while let Some(room) = lease.slot(0) {
        give(at, &to, room);
        lease.counts().frames += 1;
        lease.written(1);
        at = from.next(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netmap::kring::Wake;
    use crate::netmap::mem::tests::shared_rings;
    use crate::netmap::port::Direction;

    /// A watched receive ring and the rings of monitors, all in one region.
    fn rings(count: usize) -> (Arc<Kring>, Vec<Arc<Kring>>) {
        let mut rings = shared_rings(count + 1, 8).into_iter().map(|memory| {
            let name = "vale0:test RX0".to_owned();
            Arc::new(Kring::new(name, Direction::Rx, memory, Arc::default()))
        });
        (rings.next().unwrap(), rings.collect())
    }

    /// Puts a frame into a receive ring, as a sender does.
    fn send(ring: &Kring, bytes: &[u8]) {
        let mut lease = ring.reserve(1).unwrap();
        let view = lease.view();
        let at = lease.slot(0).unwrap();
        view.slot_buffer(view.slot(at).unwrap())
            .unwrap()
            .write(bytes);
        view.set_len_and_flags(at, u16::try_from(bytes.len()).unwrap(), NS_TXMON);
        lease.written(1);
    }

    /// What has come, with its flags; taken when `take`.
    fn frames(ring: &Kring, take: bool) -> Vec<(Vec<u8>, u16)> {
        ring.rxsync();
        let view = ring.view();
        let mut at = view.head();
        let mut frames = Vec::new();
        while at != view.tail() {
            let slot = view.slot(at).unwrap();
            let mut bytes = vec![0; slot.len.into()];
            let data = view.slot_buffer(slot).unwrap().as_readable();
            data.read(&mut bytes);
            frames.push((bytes, slot.flags));
            at = view.next(at);
        }
        if take {
            view.set_cur(at);
            view.set_head(at);
            ring.rxsync();
        }
        frames
    }

    #[test]
    fn copies_are_there_before_the_application_has_synced() {
        let (ring, monitors) = rings(2);
        for monitor in &monitors {
            ring.watch().add_copy(monitor);
        }
        send(&ring, b"one");
        send(&ring, b"two");
        let want = vec![(b"one".to_vec(), 0), (b"two".to_vec(), 0)];
        assert_eq!(frames(&monitors[0], true), want);
        ring.watch().remove(&monitors[0]);
        send(&ring, b"three");
        assert_eq!(frames(&monitors[0], true), []);
        assert_eq!(frames(&monitors[1], true).len(), 3);
        assert_eq!(frames(&ring, true).len(), 3);
    }

    #[test]
    fn a_monitor_without_room_misses_the_oldest() {
        let (ring, monitors) = rings(1);
        ring.watch().add_copy(&monitors[0]);
        let mut lease = monitors[0].reserve(5).unwrap();
        lease.written(5);
        drop(lease);
        // Two are left; a batch of three comes.
        let mut lease = ring.reserve(3).unwrap();
        for nth in 1..=3 {
            let at = lease.slot(0).unwrap();
            lease.view().set_len_and_flags(at, nth, 0);
            lease.written(1);
        }
        drop(lease);
        let lens: Vec<usize> = frames(&monitors[0], true)
            .iter()
            .skip(5)
            .map(|(bytes, _)| bytes.len())
            .collect();
        assert_eq!(lens, [2, 3]);
        assert_eq!(monitors[0].counters().read().full, 1);
    }

    #[test]
    fn what_a_full_monitor_misses_is_counted() {
        let (ring, monitors) = rings(1);
        ring.watch().add_copy(&monitors[0]);
        for nth in 0..10 {
            send(&ring, b"frame");
            ring.rxsync();
            ring.view().set_cur((nth + 1) % 8);
            ring.view().set_head((nth + 1) % 8);
            ring.rxsync();
        }
        let counts = monitors[0].counters().read();
        assert_eq!((counts.frames, counts.full), (7, 3));
    }

    #[test]
    fn buffers_go_from_one_zero_copy_monitor_to_the_next() {
        let (ring, monitors) = rings(2);
        for monitor in &monitors {
            ring.watch().add_zero_copy(monitor);
            // Watching both directions is watching once.
            ring.watch().add_zero_copy(monitor);
        }
        let buffers = |rings: &[&Kring]| {
            let mut all: Vec<u32> = rings
                .iter()
                .flat_map(|ring| (0..8).map(|at| ring.view().slot(at).unwrap().buf_idx))
                .collect();
            all.sort_unstable();
            all
        };
        let all = [&*ring, &*monitors[0], &*monitors[1]];
        let before = buffers(&all);
        let first = ring.view().slot(0).unwrap().buf_idx;
        send(&ring, b"frame");
        assert_eq!(frames(&monitors[0], true), [], "not released yet");
        assert_eq!(frames(&ring, true).len(), 1);
        assert_eq!(monitors[0].view().slot(0).unwrap().buf_idx, first);
        assert_eq!(frames(&monitors[1], true), []);
        assert_eq!(frames(&monitors[0], true), [(b"frame".to_vec(), 0)]);
        assert_eq!(monitors[1].view().slot(0).unwrap().buf_idx, first);
        assert_eq!(frames(&monitors[1], true).len(), 1);
        assert_eq!(buffers(&all), before, "each buffer is in one place");
        // Without the first, the second is next to the ring.
        ring.watch().remove(&monitors[0]);
        send(&ring, b"again");
        frames(&ring, true);
        assert_eq!(frames(&monitors[1], true).len(), 1);
        ring.watch().remove(&monitors[1]);
        assert!(!ring.watch().is_watched());
    }

    #[test]
    fn monitors_of_a_port_that_is_left_hold_each_other_no_longer() {
        let (ring, monitors) = rings(2);
        for monitor in &monitors {
            ring.watch().add_zero_copy(monitor);
        }
        ring.watch().clear();
        assert!(!ring.watch().is_watched());
        assert_eq!(Arc::strong_count(&monitors[0]), 1);
        assert_eq!(Arc::strong_count(&monitors[1]), 1);
    }

    #[test]
    fn a_slot_that_names_no_buffer_is_given_to_nobody() {
        let (ring, monitors) = rings(1);
        ring.watch().add_zero_copy(&monitors[0]);
        let own = monitors[0].view().slot(0).unwrap().buf_idx;
        send(&ring, b"frame");
        ring.rxsync();
        let slot = Slot {
            buf_idx: u32::MAX,
            ..Slot::default()
        };
        ring.view().set_slot(0, slot);
        ring.view().set_cur(1);
        ring.view().set_head(1);
        ring.rxsync();
        monitors[0].rxsync();
        let slot = monitors[0].view().slot(0).unwrap();
        assert_eq!((slot.buf_idx, slot.len), (own, 0));
    }

    #[test]
    fn who_waits_for_a_monitors_frames_is_woken() {
        let (ring, monitors) = rings(1);
        ring.watch().add_copy(&monitors[0]);
        let waker = crate::event::Waker::new().unwrap();
        let listener = Arc::new(crate::netmap::kring::Listener::new(waker));
        monitors[0].add_listener(&listener);
        listener.arm(Wake::ROOM);
        send(&ring, b"one");
        assert_eq!(listener.armed.load(Ordering::Relaxed), Wake::ROOM.0);
        listener.arm(Wake::FRAMES);
        send(&ring, b"two");
        assert_eq!(listener.armed.load(Ordering::Relaxed), 0);
    }
}
