//! What front ends and back ends got wrong before: field notes, section 2.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use vtnetd::frontend::vhost_user::message::{Request, region_to_bytes};
use vtnetd::virtio::spec::{feature, net};
use vtnetd::worker::Polling;

use crate::bed::{Bed, Plan};
use crate::front::{Front, Memory, Notifiers};

pub fn sent(bed: &Bed) -> u64 {
    bed.recorder.frames.load(Ordering::SeqCst)
}

/// A front end with memory, whose driver accepted VERSION_1.
pub fn ready(bed: &Bed) -> (Front, Memory) {
    let mut front = bed.connect();
    front.hello();
    front.accept(feature::VERSION_1);
    let memory = Memory::new();
    front.share(&memory);
    (front, memory)
}

/// Offers frame `number` on ring 1 and waits until it is back: how many are, and
/// how many were sent.
pub fn offer(bed: &Bed, memory: &Memory, ring: &Notifiers, number: u16) -> (u16, u64) {
    memory.offer_frame(1, number);
    ring.kick.write(1).unwrap();
    ring.interrupted();
    (memory.used(1), sent(bed))
}

#[test]
fn a_ring_is_worked_on_without_waiting_for_a_kick() {
    // A restarted back end finds chains that were kicked before its time.
    let bed = Bed::new();
    let (mut front, memory) = ready(&bed);
    memory.offer_frame(1, 0);
    let ring = front.start(1, &memory);
    front.enable(1, true);
    ring.interrupted();
    assert_eq!(memory.used(1), 1);

    let (mut front, memory) = {
        drop((front, ring));
        ready(&bed)
    };
    let before = sent(&bed);
    memory.offer_frame(1, 0);
    front.enable(1, true);
    let ring = front.start(1, &memory);
    ring.interrupted();
    assert_eq!((memory.used(1), sent(&bed)), (1, before + 1));
}

#[test]
fn without_protocol_features_a_ring_is_enabled_from_the_start() {
    let bed = Bed::new();
    // Before and after the kick is set, as front ends differ.
    for features_first in [true, false] {
        let mut front = bed.connect();
        let features = feature::VERSION_1.to_ne_bytes();
        let memory = Memory::new();
        let before = sent(&bed);
        if features_first {
            front.send(Request::SetFeatures, &features, &[]);
        }
        front.send(
            Request::SetMemTable,
            &memory.table(),
            &[memory.file.as_fd()],
        );
        let ring = Notifiers::new();
        front.send(Request::SetVringNum, &Front::state(1, 64), &[]);
        front.send(Request::SetVringAddr, &memory.addresses(1).to_bytes(), &[]);
        let payload = 1u64.to_ne_bytes();
        front.send(Request::SetVringCall, &payload, &[ring.call.as_fd()]);
        front.send(Request::SetVringKick, &payload, &[ring.kick.as_fd()]);
        if !features_first {
            front.send(Request::SetFeatures, &features, &[]);
        }
        front.sync();
        memory.offer_frame(1, 0);
        ring.kick.write(1).unwrap();
        ring.interrupted();
        assert_eq!(sent(&bed), before + 1, "enabled");
        // A new kick descriptor does not disable it.
        let again = Notifiers::new();
        front.send(Request::SetVringKick, &payload, &[again.kick.as_fd()]);
        front.sync();
        memory.offer_frame(1, 1);
        again.kick.write(1).unwrap();
        ring.interrupted();
        assert_eq!(sent(&bed), before + 2);
    }
}

#[test]
fn an_old_qemu_enables_rings_without_saying_so_in_its_features() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    front.done(Request::SetFeatures, &feature::VERSION_1.to_ne_bytes(), &[]);
    front.enable(0, true);
    front.enable(1, true);
    front.enable(1, false);
    drop(front);
    // Who knows nothing of protocol features cannot enable rings.
    let front = bed.connect();
    front.send(Request::SetVringEnable, &Front::state(0, 1), &[]);
    front.expect_close();
}

#[test]
fn stopping_answers_after_the_last_access_with_the_next_index() {
    let bed = Bed::new();
    let (mut front, memory) = ready(&bed);
    let ring = front.start(1, &memory);
    front.enable(1, true);
    for number in 0..5 {
        memory.offer_frame(1, number);
    }
    ring.kick.write(1).unwrap();
    while memory.used(1) < 5 {
        ring.interrupted();
    }
    assert_eq!(front.stop(1), 5);
    memory.offer_frame(1, 5);
    ring.kick.write(1).unwrap();
    front.sync();
    assert_eq!(memory.used(1), 5);
    // It goes on from there.
    front.done(Request::SetVringBase, &Front::state(1, 5), &[]);
    front.signal(Request::SetVringKick, 1, Some(ring.kick.as_fd()));
    while memory.used(1) < 6 {
        ring.interrupted();
    }
    assert_eq!(front.stop(1), 6);
    assert_eq!(sent(&bed), 6);
}

#[test]
fn a_ring_that_never_started_stops_where_it_was_told_to_begin() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    front.done(Request::SetVringBase, &Front::state(2, 77), &[]);
    assert_eq!(front.stop(2), 77);
    assert_eq!(front.stop(3), 0);
}

#[test]
fn features_are_the_same_on_every_connection() {
    let bed = Bed::new();
    let mut seen = Vec::new();
    for round in 0..3u64 {
        let mut front = bed.connect();
        seen.push((
            front.ask_number(Request::GetFeatures),
            front.ask_number(Request::GetProtocolFeatures),
            front.ask_number(Request::GetQueueNum),
        ));
        front.hello();
        // Neither what a driver accepts nor an MTU changes the offer.
        front.accept(bed.device.features());
        front.done(Request::NetSetMtu, &(1000 + round).to_ne_bytes(), &[]);
        seen.push((
            front.ask_number(Request::GetFeatures),
            front.ask_number(Request::GetProtocolFeatures),
            front.ask_number(Request::GetQueueNum),
        ));
    }
    assert!(seen.iter().all(|answers| *answers == seen[0]), "{seen:x?}");
}

#[test]
fn a_disabled_ring_is_drained_without_effect() {
    let bed = Bed::new();
    let (mut front, memory) = ready(&bed);
    let ring = front.start(1, &memory);
    assert_eq!(offer(&bed, &memory, &ring, 0), (1, 0));
    front.enable(1, true);
    assert_eq!(offer(&bed, &memory, &ring, 1), (2, 1));
    // SET_FEATURES does not disable it.
    front.accept(feature::VERSION_1);
    front.accept(feature::VERSION_1 | net::F_STATUS);
    assert_eq!(offer(&bed, &memory, &ring, 2), (3, 2));
    front.enable(1, false);
    assert_eq!(offer(&bed, &memory, &ring, 3), (4, 2));
}

#[test]
fn without_descriptors_a_ring_is_polled_and_says_nothing() {
    let bed = Bed::new();
    let (mut front, memory) = ready(&bed);
    front.prepare(1, &memory, None);
    front.signal(Request::SetVringErr, 1, None);
    front.enable(1, true);
    front.signal(Request::SetVringKick, 1, None);
    for number in 0..3 {
        memory.offer_frame(1, number);
        while memory.used(1) == number {
            front.sync();
        }
    }
    assert_eq!(front.stop(1), 3);
}

#[test]
fn the_value_of_a_kick_means_nothing() {
    // NOTIFICATION_DATA is for other transports.
    let bed = Bed::new();
    let (mut front, memory) = ready(&bed);
    let ring = front.start(1, &memory);
    front.enable(1, true);
    memory.offer_frame(1, 0);
    ring.kick.write(0xdead_beef_0000_0001).unwrap();
    ring.interrupted();
    assert_eq!(memory.used(1), 1);
}

#[test]
fn pipes_kick_and_call_too() {
    let bed = Bed::new();
    let (mut front, memory) = ready(&bed);
    let (kick_read, kick_write) = nix::unistd::pipe().unwrap();
    let (call_read, call_write) = nix::unistd::pipe().unwrap();
    front.prepare(1, &memory, Some(call_write.as_fd()));
    front.enable(1, true);
    front.signal(Request::SetVringKick, 1, Some(kick_read.as_fd()));
    for number in 0..3 {
        memory.offer_frame(1, number);
        nix::unistd::write(&kick_write, &[1; 8]).unwrap();
        assert!(crate::front::is_ready(call_read.as_fd()));
        nix::unistd::read(&call_read, &mut [0; 64]).unwrap();
        assert_eq!(memory.used(1), number + 1);
    }
}

#[test]
fn memory_that_does_not_cover_the_rings_is_refused() {
    let bed = Bed::new();
    let (mut front, memory) = ready(&bed);
    // Where they begin is known from the first.
    let elsewhere = Memory::at(0x9_0000_0000, 0x5550_0000_0000);
    for part in 0..3 {
        let mut at = memory.addresses(1);
        let wrong = elsewhere.addresses(1);
        match part {
            0 => at.desc = wrong.desc,
            1 => at.avail = wrong.avail,
            _ => at.used = wrong.used,
        }
        front.refused(Request::SetVringAddr, &at.to_bytes(), &[]);
    }
    // How far they reach, when they start.
    let mut at = memory.addresses(1);
    at.used = memory.region.user_addr + Memory::LEN - 16;
    front.done(Request::SetVringNum, &Front::state(1, 64), &[]);
    front.done(Request::SetVringAddr, &at.to_bytes(), &[]);
    let kick = crate::front::eventfd();
    let payload = 1u64.to_ne_bytes();
    front.refused(Request::SetVringKick, &payload, &[kick.as_fd()]);
    // And a table without a ring that runs is refused; that ring stops.
    let ring = front.start(3, &memory);
    front.enable(3, true);
    front.refused(
        Request::SetMemTable,
        &elsewhere.table(),
        &[elsewhere.file.as_fd()],
    );
    memory.offer_frame(3, 0);
    ring.kick.write(1).unwrap();
    front.sync();
    assert_eq!(memory.used(3), 0);
}

#[test]
fn a_bad_chain_is_given_back_empty_and_the_ring_goes_on() {
    let bed = Bed::new();
    let (mut front, memory) = ready(&bed);
    let ring = front.start(1, &memory);
    front.enable(1, true);
    memory.offer_frame(1, 0);
    // Its buffer is in no region.
    let room = 0x10000;
    memory.file.write_all_at(&[0xff; 8], room).unwrap();
    ring.kick.write(1).unwrap();
    ring.interrupted();
    let mut entry = [0; 8];
    memory
        .file
        .read_exact_at(&mut entry, room + 0x2004)
        .unwrap();
    assert_eq!(entry, [0; 8], "head 0, no bytes written");
    memory.offer_frame(1, 1);
    ring.kick.write(1).unwrap();
    ring.interrupted();
    assert_eq!((memory.used(1), sent(&bed)), (2, 1));
}

#[test]
fn logging_is_refused_cleanly() {
    let bed = Bed::new();
    let (mut front, memory) = ready(&bed);
    // Its own answer is due only under a protocol feature that is not offered.
    let log = [0; 16];
    front.refused(Request::SetLogBase, &log, &[memory.file.as_fd()]);
    front.refused(Request::SetLogFd, &[], &[memory.file.as_fd()]);
    let mut at = memory.addresses(1);
    at.flags = 1;
    front.refused(Request::SetVringAddr, &at.to_bytes(), &[]);
    let all = 1u64 << 26 | feature::VHOST_USER_PROTOCOL_FEATURES;
    front.refused(Request::SetFeatures, &all.to_ne_bytes(), &[]);
    assert!(front.is_alive());
    front.send(Request::SetLogBase, &log, &[memory.file.as_fd()]);
    front.expect_close();
}

#[test]
fn what_is_not_built_is_not_offered() {
    const ACCESS_PLATFORM: u64 = 1 << 33;
    const NOTIFICATION_DATA: u64 = 1 << 38;
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let features = front.ask_number(Request::GetFeatures);
    assert_eq!(features & (ACCESS_PLATFORM | NOTIFICATION_DATA), 0);
    let accepted = (feature::VERSION_1 | ACCESS_PLATFORM).to_ne_bytes();
    front.refused(Request::SetFeatures, &accepted, &[]);
    for bit in [1, 6, 7, 8, 10, 11, 12, 14, 17, 18, 19, 20, 21, 22, 63] {
        let wanted = (1u64 << bit | 1 << 3).to_ne_bytes();
        front.refused(Request::SetProtocolFeatures, &wanted, &[]);
    }
    assert!(front.is_alive());
}

#[test]
fn the_control_queue_may_stay_with_the_vmm() {
    // QEMU accepts what its guest negotiated with it, and gives us two rings.
    let bed = Bed::new();
    let (mut front, memory) = ready(&bed);
    front.accept(feature::VERSION_1 | net::F_MQ | net::F_GUEST_ANNOUNCE);
    let rings = [0, 1].map(|ring| front.start(ring, &memory));
    front.enable(0, true);
    front.enable(1, true);
    memory.offer_frame(1, 0);
    rings[1].kick.write(1).unwrap();
    rings[1].interrupted();
    assert_eq!(sent(&bed), 1);
}

#[test]
fn qemu_adds_and_removes_memory_under_running_rings() {
    let bed = Bed::new();
    let (mut front, memory) = ready(&bed);
    let ring = front.start(1, &memory);
    front.enable(1, true);
    let other = Memory::at(0x1000, 0x1000);
    let region = region_to_bytes(&other.region);
    for number in 0..20 {
        let (request, fds) = match number % 2 {
            0 => (Request::AddMemReg, vec![other.file.as_fd()]),
            _ => (Request::RemMemReg, vec![]),
        };
        front.done(request, &region, &fds);
        memory.offer_frame(1, number);
        ring.kick.write(1).unwrap();
        ring.interrupted();
        assert_eq!(memory.used(1), number + 1);
    }
}

#[test]
fn a_ring_rests_while_qemu_changes_the_region_that_it_is_in() {
    let bed = Bed::new();
    let (mut front, memory) = ready(&bed);
    let other = Memory::at(0x1000, 0x1000);
    let more = region_to_bytes(&other.region);
    front.done(Request::AddMemReg, &more, &[other.file.as_fd()]);
    let ring = front.start(1, &memory);
    front.enable(1, true);
    memory.offer_frame(1, 0);
    ring.kick.write(1).unwrap();
    ring.interrupted();
    let region = region_to_bytes(&memory.region);
    front.done(Request::RemMemReg, &region, &[]);
    memory.offer_frame(1, 1);
    ring.kick.write(1).unwrap();
    front.sync();
    assert_eq!(memory.used(1), 1);
    front.done(Request::AddMemReg, &region, &[memory.file.as_fd()]);
    ring.interrupted();
    assert_eq!((memory.used(1), sent(&bed)), (2, 2));
}

#[test]
fn who_polls_always_needs_no_kick_at_any_time() {
    let bed = Bed::plan(Plan {
        polling: Polling::Always,
        ..Plan::default()
    });
    let (mut front, memory) = ready(&bed);
    let ring = front.start(1, &memory);
    front.enable(1, true);
    for frame in 0..3 {
        // Longer than anybody looks who does not look for ever.
        for _ in 0..200 {
            front.sync();
        }
        memory.offer_frame(1, frame);
        ring.interrupted();
        assert_eq!(memory.used(1), frame + 1);
    }
}
