//! Every request when it is right.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use vtnetd::frontend::vhost_user::message::{
    BackendRequest, ConfigAccess, Header, Request, VERSION, protocol_feature, region_to_bytes,
};
use vtnetd::frontend::vhost_user::{Channel, PROTOCOL_FEATURES};
use vtnetd::virtio::memory::MAX_REGIONS;
use vtnetd::virtio::spec::{feature, net};

use crate::bed::{Bed, Plan, descriptors, mappings};
use crate::front::{Front, Memory};

fn config(offset: u32, size: u32, flags: u32) -> Vec<u8> {
    let access = ConfigAccess {
        offset,
        size,
        flags,
    };
    let mut raw = access.to_bytes().to_vec();
    raw.resize(raw.len() + size as usize, 0);
    raw
}

#[test]
fn what_is_offered_is_what_is_built() {
    let bed = Bed::new();
    let mut front = bed.connect();
    let features = front.ask_number(Request::GetFeatures);
    assert_eq!(
        features,
        bed.device.features() | feature::VHOST_USER_PROTOCOL_FEATURES
    );
    // The numbers of the specification, one by one: MQ, RARP, REPLY_ACK, MTU,
    // BACKEND_REQ, CONFIG, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS.
    let bits = [0, 2, 3, 4, 5, 9, 13, 15, 16];
    let mask: u64 = bits.iter().map(|bit| 1u64 << bit).sum();
    assert_eq!(front.ask_number(Request::GetProtocolFeatures), mask);
    assert_eq!(mask, PROTOCOL_FEATURES);
}

#[test]
fn queue_pairs_are_counted_not_queues() {
    for pairs in [1, 2, 8] {
        let bed = Bed::plan(Plan {
            pairs,
            ..Plan::default()
        });
        let mut front = bed.connect();
        // With one pair it is not to be asked: Cloud Hypervisor counts queues.
        let offered = front.ask_number(Request::GetProtocolFeatures);
        assert_eq!(offered & protocol_feature::MQ != 0, pairs > 1);
        front.send(Request::SetProtocolFeatures, &offered.to_ne_bytes(), &[]);
        assert_eq!(
            front.ask_number(Request::GetQueueNum),
            u64::from(pairs),
            "QEMU and DPDK take it for the number of pairs"
        );
    }
}

#[test]
fn an_answer_is_given_when_it_was_asked_for_and_negotiated() {
    let bed = Bed::new();
    let mut front = bed.connect();
    // Not negotiated: the flag means nothing, the next answer is the next
    // request's.
    let mut header = Front::header(Request::SetOwner, &[]);
    header.flags |= 8;
    front.channel.send(header, &[], &[]).unwrap();
    front.sync();
    // Negotiated by this very request.
    let all = PROTOCOL_FEATURES.to_ne_bytes();
    assert_eq!(front.ack(Request::SetProtocolFeatures, &all, &[]), 0);
    // Not asked.
    front.send(Request::SetOwner, &[], &[]);
    front.sync();
    // Requests with an answer of their own give that one alone.
    let mut header = Front::header(Request::GetQueueNum, &[]);
    header.flags |= 8;
    assert_eq!(front.ack_raw(header, &[], &[]), 2);
    front.sync();
}

#[test]
fn memory_is_mapped_and_unmapped_as_told() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let slots = front.ask_number(Request::GetMaxMemSlots);
    assert_eq!(slots, MAX_REGIONS as u64);
    let (one, two) = (Memory::new(), Memory::at(0x1000, 0x1000));
    let add = |front: &mut Front, memory: &Memory| {
        front.done(
            Request::AddMemReg,
            &region_to_bytes(&memory.region),
            &[memory.file.as_fd()],
        );
    };
    add(&mut front, &one);
    add(&mut front, &two);
    assert_eq!(mappings(), 2);
    // A descriptor with REM_MEM_REG is tolerated, the offset not compared.
    let mut region = one.region;
    region.offset = 0x1000;
    front.done(
        Request::RemMemReg,
        &region_to_bytes(&region),
        &[one.file.as_fd()],
    );
    assert_eq!(mappings(), 1);
    front.done(Request::RemMemReg, &region_to_bytes(&two.region), &[]);
    assert_eq!(mappings(), 0);
    // A region that is added twice, as QEMU does for two pairs of queues, is
    // mapped once and there until it was removed twice.
    add(&mut front, &one);
    add(&mut front, &one);
    assert_eq!(mappings(), 1);
    front.done(Request::RemMemReg, &region_to_bytes(&one.region), &[]);
    assert_eq!(mappings(), 1);
    front.done(Request::RemMemReg, &region_to_bytes(&one.region), &[]);
    assert_eq!(mappings(), 0);
    // A table replaces the one before.
    front.share(&one);
    front.share(&two);
    assert_eq!(mappings(), 1);
    assert_eq!(bed.device.memory().len(), 1);
    front.done(Request::SetMemTable, &[0; 8], &[]);
    assert_eq!(mappings(), 0);
}

#[test]
fn the_most_regions_fit_and_no_more() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let memory = Memory::new();
    let region = |index: usize| {
        let mut region = memory.region;
        region.len = 0x1000;
        region.guest_addr += index as u64 * 0x1000;
        region.user_addr += index as u64 * 0x1000;
        region_to_bytes(&region)
    };
    let file = memory.file.as_fd();
    for index in 0..MAX_REGIONS {
        front.done(Request::AddMemReg, &region(index), &[file]);
    }
    front.refused(Request::AddMemReg, &region(MAX_REGIONS), &[file]);
    assert_eq!(bed.device.memory().len(), MAX_REGIONS);
}

#[test]
fn configuration_space_is_read_in_parts() {
    let bed = Bed::plan(Plan {
        mtu: Some(9000),
        ..Plan::default()
    });
    let mut front = bed.connect();
    front.hello();
    let reply = front.ask(Request::GetConfig, &config(0, 12, 0));
    assert_eq!(reply[..12], config(0, 12, 0)[..12]);
    assert_eq!(reply[12..18], [2, 0, 0, 0, 0, 1]);
    assert_eq!(reply[18] & 1, 1, "link up");
    assert_eq!(reply[20..22], 2u16.to_le_bytes());
    assert_eq!(reply[22..], 9000u16.to_le_bytes());
    let reply = front.ask(Request::GetConfig, &config(2, 3, 0));
    assert_eq!(reply[12..], [0, 0, 0]);
    // Beyond its end: an empty answer, which is how an error is told.
    for (offset, size) in [(10, 200), (u32::MAX, 4), (4000, 1)] {
        let reply = front.ask(Request::GetConfig, &config(offset, size, 0));
        assert!(reply.is_empty(), "{offset} {size}");
    }
    assert!(front.is_alive());
}

#[test]
fn configuration_space_is_written_where_it_can_be() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let mut mac = config(0, 6, 0);
    mac[12..].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    front.done(Request::SetConfig, &mac, &[]);
    let reply = front.ask(Request::GetConfig, &config(0, 6, 0));
    assert_eq!(reply[12..], mac[12..]);
    front.refused(Request::SetConfig, &config(6, 2, 0), &[]);
    front.refused(Request::SetConfig, &config(0, 6, 7), &[]);
    front.refused(Request::SetConfig, &config(u32::MAX, 6, 0), &[]);
    // A modern driver cannot write it; a migration can.
    front.accept(feature::VERSION_1);
    front.refused(Request::SetConfig, &config(0, 6, 0), &[]);
    assert_eq!(front.ask(Request::GetConfig, &config(0, 6, 0)), reply);
    front.done(Request::SetConfig, &config(0, 6, 1), &[]);
    let reply = front.ask(Request::GetConfig, &config(0, 6, 0));
    assert_eq!(reply[12..], [0; 6]);
}

#[test]
fn the_mtu_is_ours_or_theirs_but_not_both() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    front.done(Request::NetSetMtu, &9000u64.to_ne_bytes(), &[]);
    assert_eq!(bed.device.mtu(), Some(9000));
    front.refused(Request::NetSetMtu, &10u64.to_ne_bytes(), &[]);
    front.refused(Request::NetSetMtu, &0x1_0000_0000u64.to_ne_bytes(), &[]);
    assert_eq!(bed.device.mtu(), Some(9000));
    drop((front, bed));

    let bed = Bed::plan(Plan {
        mtu: Some(1500),
        ..Plan::default()
    });
    let mut front = bed.connect();
    front.hello();
    front.done(Request::NetSetMtu, &1500u64.to_ne_bytes(), &[]);
    front.refused(Request::NetSetMtu, &9000u64.to_ne_bytes(), &[]);
    assert!(front.is_alive());
}

#[test]
fn status_is_kept_and_zero_resets() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    front.accept(feature::VERSION_1);
    let memory = Memory::new();
    front.share(&memory);
    front.start(1, &memory);
    front.enable(1, true);
    for status in [0u64, 1, 3, 11, 15] {
        front.done(Request::SetStatus, &status.to_ne_bytes(), &[]);
        assert_eq!(front.ask_number(Request::GetStatus), status);
    }
    front.refused(Request::SetStatus, &256u64.to_ne_bytes(), &[]);
    front.done(Request::SetStatus, &0u64.to_ne_bytes(), &[]);
    assert_eq!(bed.device.acked_features(), 0);
    assert_eq!(mappings(), 1, "memory stays: QEMU sends it only once");
}

#[test]
fn a_reset_forgets_the_driver_and_keeps_the_connection() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let memory = Memory::new();
    front.share(&memory);
    for _ in 0..3 {
        front.accept(feature::VERSION_1 | net::F_MRG_RXBUF);
        let ring = front.start(1, &memory);
        front.enable(1, true);
        memory.offer_frame(1, 0);
        ring.kick.write(1).unwrap();
        ring.interrupted();
        front.done(Request::ResetDevice, &[], &[]);
        assert_eq!(bed.device.acked_features(), 0);
        memory.offer_frame(1, 1);
        ring.kick.write(1).unwrap();
        front.sync();
        assert_eq!(memory.used(1), 1, "stopped");
        // As a driver does when it sets its rings up again.
        use std::os::unix::fs::FileExt;
        memory.file.write_all_at(&[0; 0x3000], 0x10000).unwrap();
    }
    assert_eq!(mappings(), 1);
}

#[test]
fn reset_owner_disables_the_rings_and_forgets_nothing() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    front.accept(feature::VERSION_1);
    let memory = Memory::new();
    front.share(&memory);
    let ring = front.start(1, &memory);
    front.enable(1, true);
    front.done(Request::ResetOwner, &[], &[]);
    assert_eq!(bed.device.acked_features(), feature::VERSION_1);
    memory.offer_frame(1, 0);
    ring.kick.write(1).unwrap();
    ring.interrupted();
    let sent = bed
        .recorder
        .frames
        .load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!((memory.used(1), sent), (1, 0), "taken and discarded");
}

#[test]
fn a_rarp_is_sent_for_a_guest_that_does_not_announce_itself() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    front.done(Request::SendRarp, &[2, 0, 0, 0, 0, 1, 0, 0], &[]);
    let sent = bed
        .recorder
        .frames
        .load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(sent, 1);
}

/// A channel for the back end's requests; our end of it.
fn backend_channel(front: &mut Front) -> Front {
    let (ours, theirs) = UnixStream::pair().unwrap();
    front.done(Request::SetBackendReqFd, &[], &[theirs.as_fd()]);
    Front::new(ours)
}

fn expect_config_change(channel: &mut Channel) {
    let message = channel.receive().unwrap();
    let expected = Header {
        request: BackendRequest::ConfigChange as u32,
        flags: VERSION,
        size: 0,
    };
    assert_eq!(message.header, expected);
}

#[test]
fn a_change_of_the_configuration_is_told_over_the_back_ends_channel() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let mut channel = backend_channel(&mut front);
    let memory = Memory::new();
    front.share(&memory);
    let _ring = front.start(0, &memory);
    bed.device.set_link(false);
    expect_config_change(&mut channel.channel);
    let reply = front.ask(Request::GetConfig, &config(6, 2, 0));
    assert_eq!(reply[12] & 1, 0, "link down");
    // Another channel takes the place of the first.
    let mut other = backend_channel(&mut front);
    channel.expect_close();
    front.done(Request::NetSetMtu, &2000u64.to_ne_bytes(), &[]);
    expect_config_change(&mut other.channel);
}

#[test]
fn a_suspended_device_tells_of_a_change_when_it_runs_again() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let mut channel = backend_channel(&mut front);
    let memory = Memory::new();
    front.share(&memory);
    front.start(0, &memory);
    front.stop(0);
    bed.device.set_link(false);
    front.sync();
    assert!(channel.channel.try_receive().unwrap().is_none());
    front.start(0, &memory);
    expect_config_change(&mut channel.channel);
}

#[test]
fn nobody_is_told_who_did_not_negotiate_it() {
    let bed = Bed::new();
    let mut front = bed.connect();
    let some = PROTOCOL_FEATURES & !protocol_feature::CONFIG;
    front.send(Request::SetProtocolFeatures, &some.to_ne_bytes(), &[]);
    let mut channel = backend_channel(&mut front);
    let memory = Memory::new();
    front.share(&memory);
    front.start(0, &memory);
    bed.device.set_link(false);
    front.sync();
    front.sync();
    assert!(channel.channel.try_receive().unwrap().is_none());
}

#[test]
fn a_channel_that_nobody_reads_or_that_is_closed_stops_nothing() {
    let bed = Bed::new();
    let mut front = bed.connect();
    front.hello();
    let memory = Memory::new();
    front.share(&memory);
    front.start(0, &memory);
    let before = descriptors();
    let channel = backend_channel(&mut front);
    for round in 0..2000 {
        bed.device.set_link(round % 2 == 0);
        front.sync();
    }
    drop(channel);
    // The next change finds it closed, and gives it up.
    while descriptors() != before {
        bed.device.set_link(false);
        bed.device.set_link(true);
        front.sync();
    }
    let mut channel = backend_channel(&mut front);
    bed.device.set_link(true);
    bed.device.set_link(false);
    expect_config_change(&mut channel.channel);
}
