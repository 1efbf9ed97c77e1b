//! Tests of a client's turns: who asks is answered, who waits is told, and rings
//! that a thread has come back when others ask.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::pipe;

use super::*;
use crate::netmap::abi::Slot;
use crate::netmap::abi::legacy::{LegacyRequest, NIOCREGIF};
use crate::netmap::abi::option::SharedBlock;
use crate::netmap::authority::{Account, Limits, Resource};
use crate::netmap::mem::RegionConfig;
use crate::netmap::port::{Direction, Port};
use crate::netmap::register::Netmap;
use crate::netmap::service::strays::MOST;
use crate::netmap::service::tests::{slow_to_close, until};
use crate::netmap::service::wire::page;
use crate::netmap::service::wire::socket::{bell_pair, send_message};
use crate::netmap::vale::Switches;

fn bind(core: &Arc<Netmap>, name: &str) -> Control {
    let control = Control::new(Arc::clone(core));
    let mut request = LegacyRequest {
        nr_version: 14,
        nr_tx_slots: 4,
        nr_rx_slots: 4,
        ..LegacyRequest::default()
    };
    request.nr_name[..name.len()].copy_from_slice(name.as_bytes());
    control.legacy(NIOCREGIF, &mut request).unwrap();
    control
}

/// Sends `count` frames.
fn send(control: &Control, count: u32) {
    let registration = control.registration().unwrap();
    let ring = registration.ring(Direction::Tx, 0).unwrap();
    let at = (0..count).fold(ring.head(), |at, _| {
        let slot = ring.slot(at).unwrap();
        ring.set_slot(at, Slot { len: 60, ..slot });
        ring.next(at)
    });
    ring.set_cur(at);
    ring.set_head(at);
    control.sync(Direction::Tx).unwrap();
}

fn channel(client: &Client) -> (Arc<Channel>, page::Client, OwnedFd) {
    let (page, fd) = Page::new().unwrap();
    let (bell, end) = bell_pair().unwrap();
    let bell = Strays::start().unwrap().keep(bell);
    let channel = Arc::new(Channel::new(page, bell));
    client.add(&channel);
    (channel, page::Client::new(fd.as_fd()).unwrap(), end)
}

fn ends() -> (Client, Control) {
    let core = Netmap::new(Arc::new(Switches::default()), RegionConfig::global());
    let core = Arc::new(core);
    let (one, other) = (bind(&core, "vale0:a{1"), bind(&core, "vale0:a}1"));
    (Client::new(one), other)
}

fn wait_for(events: PollFlags) -> Operation {
    Operation::Poll {
        events: u16::from_ne_bytes(events.bits().to_ne_bytes()),
        arm: true,
    }
}

#[test]
fn who_waits_for_room_hides_no_frames_from_who_waits_for_these() {
    let (client, other) = ends();
    let (_one, mut reader, _end) = channel(&client);
    let (writer, _, _end) = channel(&client);
    // The ring is full.
    send(&client.control, 3);
    let _ = reader.ask(wait_for(PollFlags::POLLIN));
    assert!(client.turn());
    assert_eq!(reader.answer(), Some(Outcome::default()));
    let before = reader.ready();
    assert!(!client.turn());
    // It comes when the worker has begun with the other thread's poll.
    send(&other, 1);
    let found = client.perform(wait_for(PollFlags::POLLOUT), &writer);
    assert_eq!(found, Some(Outcome::default()));
    assert!(client.has_fired(&client.channels.load()));
    assert!(client.turn());
    assert_ne!(reader.ready(), before);
    assert!(!client.turn());
    // Nor does anybody hear of what came before they waited.
    let _ = reader.ask(wait_for(PollFlags::POLLIN));
    assert!(client.turn());
    assert_eq!(reader.answer().unwrap().result, 1, "POLLIN");
    assert!(!client.rest());
}

#[test]
fn a_bell_that_brings_descriptors_on_and_on_is_not_read() {
    let account = Arc::new(Account::new(7, Limits::default()));
    let charge = account.charge(Resource::Channels, 1).unwrap();
    let (bell, end) = bell_pair().unwrap();
    let bell = Strays::start().unwrap().keep(bell);
    let channel = Channel::new(Page::new().unwrap().0, bell.on(Some(Arc::new(charge))));
    let is_read = |fd: OwnedFd| {
        send_message(end.as_fd(), b"x", &[fd.as_fd()]).unwrap();
        drop(fd);
        channel.quiet();
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(channel.bell().as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
    };
    // One that cannot be closed keeps those behind it.
    let (slow, held) = slow_to_close();
    assert!(is_read(slow));
    for _ in 1..MOST {
        assert!(is_read(pipe().unwrap().0));
    }
    assert!(!is_read(pipe().unwrap().0));
    // Nor when all of them are gone.
    drop(held);
    until("all are closed", || account.has(Resource::Strays) == 0);
    assert!(!is_read(pipe().unwrap().0));
}

#[test]
fn each_turn_is_one_request_and_nobody_is_left_out() {
    let (client, _other) = ends();
    let mut all: Vec<_> = (0..3).map(|_| channel(&client)).collect();
    let sync = Operation::Sync(Direction::Rx);
    for (_, page, _) in &mut all {
        let _ = page.ask(sync);
    }
    let answered = |all: &[(Arc<Channel>, page::Client, OwnedFd)]| {
        let pages = all.iter().map(|(_, page, _)| page);
        pages.filter(|page| page.answer().is_some()).count()
    };
    for want in [1, 1, 2] {
        assert!(client.turn());
        assert_eq!(answered(&all), want);
        // The first asks again and again.
        let _ = all[0].1.ask(sync);
    }
}

#[test]
fn rings_come_back_to_whoever_else_asks() {
    let (client, _other) = ends();
    let (first, mut one, _end) = channel(&client);
    let (_second, mut two, _end) = channel(&client);
    let ask = |page: &mut page::Client, operation| {
        let _ = page.ask(operation);
        assert!(client.turn());
        page.answer().map(|outcome| outcome.result)
    };
    let eagain = Some(super::number(Errno::EAGAIN));
    let note = Operation::Await { events: 1 };
    assert_eq!(ask(&mut one, note), eagain, "it has none");
    assert_eq!(ask(&mut one, Operation::Borrow), Some(0));
    assert_eq!(ask(&mut one, note), Some(0));
    assert_eq!(ask(&mut two, Operation::Borrow), eagain);
    let registration = client.control.registration().unwrap();
    assert!(registration.is_lent_to(first.number));
    // In the middle of a sync.
    let tx = registration.kring(Direction::Tx, 0).unwrap();
    let progress = tx.memory().progress().unwrap();
    let busy = progress.begin(first.number).unwrap();
    let sync = Operation::Sync(Direction::Rx);
    assert_eq!(ask(&mut two, sync), None, "it is waited for");
    // Others are not kept waiting.
    assert_eq!(ask(&mut one, Operation::Tell), Some(0));
    drop(busy);
    assert!(client.turn());
    assert_eq!(two.answer(), Some(Outcome::default()));
    assert!(!registration.is_lent_to(first.number));
    assert_eq!(ask(&mut one, note), eagain);
    // A channel that goes leaves none behind.
    assert_eq!(ask(&mut one, Operation::Borrow), Some(0));
    client.remove(&first);
    assert!(!registration.is_lent_to(first.number));
}

#[test]
fn rings_are_left_to_nobody_who_is_gone() {
    let core = Netmap::new(Arc::new(Switches::default()), RegionConfig::global());
    let core = Arc::new(core);
    let (one, _other) = (bind(&core, "vale0:a{1"), bind(&core, "vale0:a}1"));
    let client = Client::new(one);
    let (gone, _page, _end) = channel(&client);
    client.remove(&gone);
    // Its last request was looked at before.
    let lent = client.perform(Operation::Borrow, &gone);
    assert_eq!(lent, Some(Outcome::default()));
    drop(client);
    let again = bind(&core, "vale0:a{1");
    assert!(!again.registration().unwrap().is_lent_to(gone.number));
}

#[test]
fn rings_with_a_block_of_pointers_are_not_lent() {
    let (client, _other) = ends();
    let (channel, mut page, _end) = channel(&client);
    let mut borrow = || {
        let _ = page.ask(Operation::Borrow);
        assert!(client.turn());
        page.answer().unwrap().result
    };
    assert_eq!(borrow(), 0);
    client.control.share(SharedBlock::default());
    let registration = client.control.registration().unwrap();
    assert!(!registration.is_lent_to(channel.number));
    assert_eq!(borrow(), super::number(Errno::EAGAIN));
}

#[test]
fn ports_of_a_switch_are_lent_to_nobody() {
    let core = Netmap::new(Arc::new(Switches::default()), RegionConfig::global());
    let client = Client::new(bind(&Arc::new(core), "vale0:a"));
    let (channel, mut page, _end) = channel(&client);
    let registration = client.control.registration().unwrap();
    assert_eq!(registration.terms(channel.number), None);
    let _ = page.ask(Operation::Borrow);
    assert!(client.turn());
    let eagain = super::number(Errno::EAGAIN);
    assert_eq!(page.answer().unwrap().result, eagain);
}
