//! Tests of loans: a client's syncs and the service's are the same, whoever has
//! a half when, and a half comes back whatever its holder does.

use std::num::NonZeroU32;
use std::thread;

use nix::poll::PollFlags;

use super::*;
use crate::event::Waker;
use crate::netmap::kring::{Listener, Wake};
use crate::netmap::mem::{Buffers, RingView};
use crate::netmap::pipe::borrowed::{Borrowed, RingTerms, Terms};
use crate::netmap::pipe::pass::Passing;

pub(super) const HOLDER: NonZeroU32 = NonZeroU32::new(7).unwrap();
const OTHER: NonZeroU32 = NonZeroU32::new(8).unwrap();

/// What a client is told that has one half.
fn terms(region: &Region, link: &Link, direction: Direction, holder: NonZeroU32) -> Terms {
    let [own, other] = [direction, direction.other()].map(|way| link.kring(way).memory());
    let ring = RingTerms {
        own: own.offset(),
        other: other.offset(),
        slots: SLOTS.into(),
    };
    let [_, _, buffers] = region.layout();
    let (tx, rx) = match direction {
        Direction::Tx => (vec![ring], vec![]),
        Direction::Rx => (vec![], vec![ring]),
    };
    Terms {
        buffers: Buffers {
            offset: buffers.offset,
            size: buffers.size,
            num: buffers.num,
        },
        flags: 0,
        holder,
        tx,
        rx,
    }
}

pub(super) fn client(region: &Region, link: &Link, direction: Direction) -> Borrowed {
    let terms = terms(region, link, direction, HOLDER);
    Borrowed::new(region.fd(), region.bytes(), terms).unwrap()
}

/// Syncs half `direction`, as its client if that has it.
fn sync(link: &Link, client: &Borrowed, direction: Direction) {
    if client.sync_each(direction).is_none() {
        match direction {
            Direction::Tx => link.txsync(),
            Direction::Rx => link.rxsync(),
        };
    }
}

pub(super) fn advance(view: &RingView<'_>, slots: u32) {
    let at = (0..slots).fold(view.head(), |at, _| view.next(at));
    view.set_cur(at);
    view.set_head(at);
}

/// Fills as many slots as there are, up to `count`, with the lengths from `len`
/// on. Returns how many.
pub(super) fn fill(link: &Link, len: u16, count: u32) -> u16 {
    let view = link.kring(Direction::Tx).view();
    let (mut at, mut filled) = (view.head(), 0);
    while at != view.tail() && u32::from(filled) < count {
        let slot = view.slot(at).unwrap();
        let len = len + filled;
        view.set_slot(
            at,
            Slot {
                len,
                flags: 0,
                ..slot
            },
        );
        (at, filled) = (view.next(at), filled + 1);
    }
    advance(&view, filled.into());
    filled
}

/// The lengths of what has come, up to `count` of them, which are released.
pub(super) fn empty(link: &Link, count: u32) -> Vec<u16> {
    let view = link.kring(Direction::Rx).view();
    let mut at = view.head();
    let mut lens = Vec::new();
    while at != view.tail() && lens.len() < count as usize {
        lens.push(view.slot(at).unwrap().len);
        at = view.next(at);
    }
    advance(&view, lens.len().try_into().unwrap());
    lens
}

#[test]
fn terms_go_over_as_they_are() {
    let region = region();
    let link = link(&region);
    let mut terms = terms(&region, &link, Direction::Tx, HOLDER);
    terms.rx = vec![
        RingTerms {
            own: 1,
            other: 2,
            slots: 3
        };
        2
    ];
    assert_eq!(Terms::decode(&terms.encode()), Some(terms.clone()));
    let bytes = terms.encode();
    assert_eq!(Terms::decode(&bytes[..bytes.len() - 1]), None);
    assert_eq!(Terms::decode(&[]), None);
    // More transmit rings than rings.
    terms.rx.clear();
    let mut bytes = terms.encode();
    let short = bytes.len() - size_of::<RingTerms>();
    bytes.truncate(short);
    assert_eq!(Terms::decode(&bytes), None);
}

#[test]
fn rings_outside_of_the_region_are_refused() {
    let region = region();
    let link = link(&region);
    let terms = terms(&region, &link, Direction::Tx, HOLDER);
    let refused = |change: &dyn Fn(&mut Terms)| {
        let mut terms = terms.clone();
        change(&mut terms);
        Borrowed::new(region.fd(), region.bytes(), terms).is_err()
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|terms| terms.tx[0].own = region.bytes()));
    assert!(refused(&|terms| terms.tx[0].other = u64::MAX - 8));
    assert!(refused(&|terms| terms.tx[0].own += 4));
    assert!(refused(&|terms| terms.tx[0].slots = u64::from(u32::MAX)));
    assert!(refused(&|terms| terms.tx[0].slots = u64::MAX));
    assert!(refused(&|terms| terms.buffers.num = u32::MAX));
    assert!(refused(&|terms| terms.buffers.offset = u64::MAX));
}

#[test]
fn a_half_is_one_holders() {
    let region = region();
    let link = link(&region);
    let client = client(&region, &link, Direction::Tx);
    assert_eq!(client.sync_each(Direction::Tx), None, "not lent yet");
    assert_eq!(client.poll(PollFlags::POLLOUT), None);
    assert!(
        client.has_news(PollFlags::empty()),
        "the service is to be asked"
    );
    assert!(link.lend(Direction::Tx, HOLDER));
    assert!(!link.lend(Direction::Tx, OTHER));
    assert!(link.is_lent_to(Direction::Tx, HOLDER));
    assert_eq!(client.poll(PollFlags::POLLOUT), Some(PollFlags::POLLOUT));
    assert!(!client.has_news(PollFlags::POLLOUT));
    // Who has it not gives nothing back.
    link.take_back(Direction::Tx, OTHER);
    assert!(link.is_lent_to(Direction::Tx, HOLDER));
    link.take_back(Direction::Tx, HOLDER);
    assert_eq!(client.sync_each(Direction::Tx), None);
    assert!(link.lend(Direction::Tx, OTHER));
    assert_eq!(client.sync_each(Direction::Tx), None);
}

#[test]
fn what_others_have_to_do_with_is_not_lent() {
    let region = region();
    for watched in [(End::Master, Direction::Tx), (End::Slave, Direction::Rx)] {
        let pipe = pipe(&region);
        let link = pipe.link(End::Master, Direction::Tx, 0).unwrap();
        let monitor = region.ring(&pipe.rings(End::Slave).spec(Direction::Rx, 0));
        let name = "monitor".to_owned();
        let monitor = Kring::new(name, Direction::Rx, monitor.unwrap(), Arc::default());
        let monitor = Arc::new(monitor);
        let (end, direction) = watched;
        let watch = pipe.rings(end).watch(direction, 0).unwrap();
        watch.add_copy(&monitor);
        assert!(!link.lend(Direction::Tx, HOLDER));
        assert!(!link.lend(Direction::Rx, HOLDER));
        watch.remove(&monitor);
        assert!(link.lend(Direction::Tx, HOLDER));
        pipe.recall();
        assert!(!link.is_lent_to(Direction::Tx, HOLDER));
    }
    let link = link(&region);
    let offsets = SlotOffsets {
        mask: 0xff,
        max: 64,
    };
    link.kring(Direction::Rx).memory().set_offsets(offsets);
    assert!(!link.lend(Direction::Tx, HOLDER));
}

#[test]
fn a_ring_that_fills_its_object_is_not_lent_and_works() {
    let config = RegionConfig {
        rings: PoolSize {
            size: 256 + 16 * SLOTS,
            num: 10,
        },
        ..RegionConfig::global()
    };
    let region = Regions::new(config).find(GLOBAL_ID).unwrap();
    let link = link(&region);
    assert!(link.kring(Direction::Tx).memory().progress().is_none());
    assert!(!link.lend(Direction::Tx, HOLDER));
    put(&link, &[(60, 0), (61, 0)]);
    assert_eq!(take(&link, true), [60, 61]);
}

#[test]
fn who_sleeps_is_told_of_what_a_client_passes() {
    let region = region();
    let link = link(&region);
    let listener = Arc::new(Listener::new(Waker::new().unwrap()));
    link.kring(Direction::Rx).add_listener(&listener);
    let client = client(&region, &link, Direction::Tx);
    assert!(link.lend(Direction::Tx, HOLDER));
    fill(&link, 60, 1);
    client.sync_each(Direction::Tx).unwrap();
    assert!(!client.take_awaited(), "nobody sleeps");
    listener.arm(Wake::FRAMES);
    link.wait_for(Direction::Rx);
    client.sync_each(Direction::Tx).unwrap();
    assert!(!client.take_awaited(), "nothing was passed");
    fill(&link, 60, 1);
    client.sync_each(Direction::Tx).unwrap();
    assert!(client.take_awaited());
    assert!(!client.take_awaited());
    assert_eq!(listener.fired(), 0);
    link.tell_other(Direction::Tx);
    assert_eq!(listener.fired(), 1);
    fill(&link, 60, 1);
    client.sync_each(Direction::Tx).unwrap();
    assert!(!client.take_awaited(), "it was told");
}

#[test]
fn a_client_in_a_sync_is_waited_for_but_not_for_long() {
    let region = region();
    let link = link(&region);
    assert!(link.lend(Direction::Tx, HOLDER));
    let progress = link.kring(Direction::Tx).memory().progress().unwrap();
    let busy = progress.begin(HOLDER).unwrap();
    assert!(!link.try_recall(Direction::Tx));
    assert!(progress.begin(OTHER).is_none(), "it is busy");
    assert!(!link.lend(Direction::Tx, OTHER), "nor can it be lent");
    assert!(!link.lend(Direction::Tx, HOLDER), "it is wanted back");
    drop(busy);
    assert!(link.try_recall(Direction::Tx));
    // One that never ends.
    assert!(link.lend(Direction::Tx, HOLDER));
    let busy = progress.begin(HOLDER).unwrap();
    fill(&link, 60, 3);
    link.txsync();
    assert!(!link.is_lent_to(Direction::Tx, HOLDER));
    assert_eq!(take(&link, true), [60, 61, 62]);
    assert!(!link.lend(Direction::Tx, HOLDER), "somebody is in there");
    drop(busy);
    assert!(link.lend(Direction::Tx, HOLDER));
}

/// What a client does that was stopped in a sync, taken for dead, and goes on.
#[test]
fn what_is_taken_back_publishes_nothing() {
    let region = region();
    let link = link(&region);
    let tx = link.kring(Direction::Tx);
    let rx = link.kring(Direction::Rx);
    let passing = passing(&link);
    fill(&link, 60, 2);
    let before = tx.hardware();
    assert!(!passing.send(2, before, |_| false).more);
    assert_eq!(take(&link, false), []);
    link.txsync();
    assert_eq!(take(&link, false), [60, 61]);
    let room = || {
        link.txsync();
        tx.view().available()
    };
    let full = room();
    assert!(!passing.take(2, rx.hardware(), || false).more);
    assert_eq!(room(), full);
    assert_eq!(take(&link, true), [60, 61]);
    assert_eq!(room(), full + 2);
}

/// Whoever waits for a client that is in a sync keeps nobody else waiting, such
/// as a worker.
#[test]
fn a_half_that_is_waited_for_can_be_looked_at() {
    let region = region();
    let link = link(&region);
    let progress = link.kring(Direction::Tx).memory().progress().unwrap();
    // How often it can be looked at meanwhile.
    let looks = || {
        assert!(link.lend(Direction::Tx, HOLDER));
        let _busy = progress.begin(HOLDER).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| link.recall());
            let is_lent = || link.is_lent_to(Direction::Tx, HOLDER);
            while progress.is_held_by(HOLDER) {}
            (0..100).take_while(|_| is_lent()).count()
        })
    };
    // Unless this thread itself had to wait for a processor.
    assert!((0..50).any(|_| looks() == 100));
}

pub(super) fn passing(link: &Link) -> Passing<'_> {
    let [tx, rx] = [Direction::Tx, Direction::Rx].map(|way| link.kring(way));
    Passing {
        tx: tx.view(),
        rx: rx.view(),
        tx_progress: tx.memory().progress().unwrap(),
        rx_progress: rx.memory().progress().unwrap(),
    }
}

proptest! {
    /// Halves are lent and taken back at any time: every frame comes once, and
    /// in order.
    #[test]
    fn it_is_the_same_whoever_syncs(
        steps in proptest::collection::vec((0..8u8, 0..SLOTS), 0..200)
    ) {
        let region = region();
        let free = region.free();
        let link = link(&region);
        let sender = client(&region, &link, Direction::Tx);
        let receiver = client(&region, &link, Direction::Rx);
        let (mut next, mut expected) = (1, 1);
        let both = [Direction::Tx, Direction::Rx];
        for (step, count) in steps {
            let direction = both[usize::from(step % 2)];
            match step / 2 {
                0 => {
                    next += fill(&link, next, count);
                    sync(&link, &sender, Direction::Tx);
                }
                1 => {
                    sync(&link, &receiver, Direction::Rx);
                    for len in empty(&link, count) {
                        prop_assert_eq!(len, expected);
                        expected += 1;
                    }
                    sync(&link, &receiver, Direction::Rx);
                }
                2 => prop_assert!(link.lend(direction, HOLDER)),
                _ => prop_assert!(link.try_recall(direction)),
            }
        }
        link.recall();
        link.txsync();
        link.rxsync();
        for len in empty(&link, SLOTS) {
            prop_assert_eq!(len, expected);
            expected += 1;
        }
        prop_assert_eq!(expected, next);
        drop((sender, receiver, link));
        prop_assert_eq!(region.free(), free);
    }

    /// Whatever the holders write, the service goes on, and all comes back.
    #[test]
    fn claims_of_holders_spoil_nothing(
        steps in proptest::collection::vec((0..8u8, 0..16usize, any::<u32>()), 0..100)
    ) {
        let region = region();
        let free = region.free();
        let link = link(&region);
        let clients = [Direction::Tx, Direction::Rx].map(|way| client(&region, &link, way));
        for (step, word, value) in steps {
            let direction = [Direction::Tx, Direction::Rx][usize::from(step % 2)];
            let kring = link.kring(direction);
            let client = &clients[usize::from(step % 2)];
            match step / 2 {
                // Not the words that say who is in there: those only take time.
                0 => kring.memory().progress().unwrap().scribble(2 + word % 14, value),
                1 => {
                    kring.view().set_head(value % (2 * SLOTS));
                    kring.view().set_cur(value % (2 * SLOTS));
                    sync(&link, client, direction);
                    client.has_news(PollFlags::POLLIN | PollFlags::POLLOUT);
                }
                2 => {
                    link.lend(direction, HOLDER);
                }
                _ => {
                    link.try_recall(direction);
                    sync(&link, client, direction);
                    kring.notify();
                }
            }
        }
        drop((clients, link));
        prop_assert_eq!(region.free(), free);
    }
}
