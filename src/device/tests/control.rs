//! The control queue (5.1.6.5) and the filters that it sets.

use std::sync::Arc;

use super::bed::{Guest, SIZE, frame};
use super::{MODERN, PLAIN};
use crate::backend::{Backend, Unconnected};
use crate::device::ctrl::ControlQueue;
use crate::device::vring::Kick;
use crate::driver::queue::{DriverQueue, QueueOptions, Segment, SplitQueue};
use crate::net::ethernet::Mac;
use crate::netmap::vale::Switch;
use crate::virtio::spec::{ctrl, feature, net};

const ALL: u64 = MODERN
    | net::F_CTRL_VQ
    | net::F_CTRL_RX
    | net::F_CTRL_RX_EXTRA
    | net::F_CTRL_VLAN
    | net::F_CTRL_MAC_ADDR
    | net::F_CTRL_GUEST_OFFLOADS
    | net::F_GUEST_CSUM
    | net::F_GUEST_TSO4
    | net::F_GUEST_USO4
    | net::F_GUEST_ANNOUNCE
    | net::F_MQ;
const PAIRS: u16 = 4;

/// A guest's control queue.
struct Control {
    device: ControlQueue,
    driver: SplitQueue,
    buffers: crate::driver::memory::Area,
}

impl Control {
    fn of(guest: &mut Guest) -> Self {
        let device = ControlQueue::new(Arc::clone(&guest.pair.shared), PAIRS);
        let options = QueueOptions {
            event_idx: false,
            in_order: false,
            indirect: 0,
        };
        let driver = SplitQueue::new(&mut guest.memory, SIZE, options).unwrap();
        let buffers = guest.memory.allocate(1 << 16, 64).unwrap();
        let vring = &device.vring;
        vring.set_memory(Arc::clone(guest.memory.table())).unwrap();
        vring.set_size(SIZE).unwrap();
        vring.set_addresses(driver.addresses()).unwrap();
        vring.set_kick(Kick::Poll).1.unwrap();
        vring.enable(true);
        Self {
            device,
            driver,
            buffers,
        }
    }

    /// Executes a command; returns the device's answer.
    fn command(&mut self, class: u8, code: u8, data: &[u8]) -> u8 {
        let bytes = [&[class, code], data].concat();
        self.buffers.writable(0, bytes.len()).write(&bytes);
        let answer = self.buffers.writable(60_000, 1);
        answer.write(&[0xaa]);
        let len = u32::try_from(bytes.len()).unwrap();
        // The command in two buffers, as no arrangement may be assumed.
        let mut chain = vec![Segment::to_device(self.buffers.guest_addr(0), 1)];
        if len > 1 {
            chain.push(Segment::to_device(self.buffers.guest_addr(1), len - 1));
        }
        chain.push(Segment::from_device(self.buffers.guest_addr(60_000), 1));
        assert!(self.driver.add(&chain, 7).unwrap());
        let _ = self.driver.publish();
        self.device.note();
        assert!(self.device.turn());
        let completion = self.driver.pop().unwrap().unwrap();
        assert_eq!((completion.token, completion.len), (7, 1));
        answer.as_readable().read_array::<1>().unwrap()[0]
    }

    fn accept(&mut self, class: u8, code: u8, data: &[u8]) {
        assert_eq!(
            self.command(class, code, data),
            ctrl::OK,
            "{class} {code} {data:?}"
        );
    }

    fn refuse(&mut self, class: u8, code: u8, data: &[u8]) {
        assert_eq!(
            self.command(class, code, data),
            ctrl::ERR,
            "{class} {code} {data:?}"
        );
    }
}

/// A sender, and a receiver with its control queue.
fn bed(features: u64) -> (Guest, Guest, Control) {
    let switch = Arc::new(Switch::new("vale0"));
    let sender = Guest::on(&switch, 1, MODERN);
    let mut receiver = Guest::on(&switch, 2, features);
    let control = Control::of(&mut receiver);
    (sender, receiver, control)
}

/// Sends a frame to `to`, with a VLAN tag if any; whether the receiver got it.
fn passes(sender: &mut Guest, receiver: &mut Guest, to: [u8; 6], vlan: Option<u16>) -> bool {
    receiver.offer(1, &[2048]);
    let mut bytes = frame(2, 1, 100);
    bytes[..6].copy_from_slice(&to);
    if let Some(vlan) = vlan {
        let [high, low] = (0xe000 | vlan).to_be_bytes();
        bytes.splice(12..12, [0x81, 0x00, high, low]);
    }
    sender.send(&[(PLAIN, bytes)], &[13]);
    let got = receiver.received().len();
    if got == 0 {
        // The buffer is still offered: take it back by a frame that passes.
        let filter = receiver.pair.shared.copy_filter();
        receiver.pair.shared.set_filter(Default::default());
        sender.send(&[(PLAIN, frame(2, 1, 60))], &[]);
        assert_eq!(receiver.received().len(), 1);
        receiver.pair.shared.set_filter(filter);
    }
    got == 1
}

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 77];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 9];
const EVERYONE: [u8; 6] = [0xff; 6];

/// 5.1.6.5.1: each receive mode does what it says.
#[test]
fn receive_modes() {
    let (mut a, mut b, mut control) = bed(ALL);
    let mut got = || [OWN, OTHER, GROUP, EVERYONE].map(|to| passes(&mut a, &mut b, to, None));
    assert_eq!(
        got(),
        [true; 4],
        "everything until the driver says otherwise"
    );
    control.accept(ctrl::RX, ctrl::RX_PROMISC, &[0]);
    assert_eq!(got(), [true, false, false, true]);
    for (mode, want) in [
        (ctrl::RX_ALLMULTI, [true, false, true, true]),
        (ctrl::RX_ALLUNI, [true, true, false, true]),
        (ctrl::RX_NOMULTI, [true, false, false, true]),
        (ctrl::RX_NOUNI, [false, false, false, true]),
        (ctrl::RX_NOBCAST, [true, false, false, false]),
        (ctrl::RX_PROMISC, [true; 4]),
    ] {
        control.accept(ctrl::RX, mode, &[1]);
        assert_eq!(got(), want, "mode {mode}");
        control.accept(ctrl::RX, mode, &[0]);
    }
    control.refuse(ctrl::RX, 6, &[1]);
    control.refuse(ctrl::RX, ctrl::RX_PROMISC, &[]);
    control.refuse(ctrl::RX, ctrl::RX_PROMISC, &[1, 1]);
}

fn tables(unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Vec<u8> {
    let mut data = Vec::new();
    for table in [unicast, multicast] {
        data.extend(u32::try_from(table.len()).unwrap().to_le_bytes());
        data.extend(table.concat());
    }
    data
}

/// 5.1.6.5.2.
#[test]
fn address_tables() {
    let (mut a, mut b, mut control) = bed(ALL);
    let mut got = || [OWN, OTHER, GROUP, EVERYONE].map(|to| passes(&mut a, &mut b, to, None));
    control.accept(ctrl::RX, ctrl::RX_PROMISC, &[0]);
    control.accept(ctrl::MAC, ctrl::MAC_TABLE_SET, &tables(&[OTHER], &[]));
    assert_eq!(got(), [true, true, false, true]);
    control.accept(ctrl::MAC, ctrl::MAC_TABLE_SET, &tables(&[], &[GROUP]));
    assert_eq!(got(), [true, false, true, true]);
    // More than are kept: all of that kind.
    let many: Vec<_> = (0..65).map(|n| [1, 2, 3, 4, 5, n]).collect();
    control.accept(ctrl::MAC, ctrl::MAC_TABLE_SET, &tables(&[], &many));
    assert_eq!(got(), [true, false, true, true]);
    control.accept(ctrl::MAC, ctrl::MAC_TABLE_SET, &tables(&[], &[]));
    assert_eq!(got(), [true, false, false, true]);

    let good = tables(&[OTHER], &[GROUP]);
    for wrong in [
        &good[..good.len() - 1],
        &good[..4],
        &[],
        &[good.clone(), vec![0]].concat(),
    ] {
        control.refuse(ctrl::MAC, ctrl::MAC_TABLE_SET, wrong);
    }
    control.refuse(ctrl::MAC, ctrl::MAC_TABLE_SET, &[0xff; 8]);
    assert_eq!(
        got(),
        [true, false, false, true],
        "nothing of a refused table is kept"
    );
}

/// 5.1.6.5.2.1: the configuration space has the new address first.
#[test]
fn the_own_address_is_set() {
    let (mut a, mut b, mut control) = bed(ALL);
    control.accept(ctrl::RX, ctrl::RX_PROMISC, &[0]);
    control.accept(ctrl::MAC, ctrl::MAC_ADDR_SET, &OTHER);
    assert_eq!(b.pair.shared.config().mac, Mac(OTHER));
    let got = [OWN, OTHER].map(|to| passes(&mut a, &mut b, to, None));
    assert_eq!(got, [false, true]);
    control.refuse(ctrl::MAC, ctrl::MAC_ADDR_SET, &GROUP);
    control.refuse(ctrl::MAC, ctrl::MAC_ADDR_SET, &OTHER[..5]);
}

/// 5.1.6.5.3.
#[test]
fn vlans() {
    let (mut a, mut b, mut control) = bed(ALL);
    let mut got = || [None, Some(1), Some(4095)].map(|tag| passes(&mut a, &mut b, OWN, tag));
    assert_eq!(got(), [true, false, false]);
    control.accept(ctrl::VLAN, ctrl::VLAN_ADD, &4095_u16.to_le_bytes());
    assert_eq!(got(), [true, false, true]);
    control.accept(ctrl::VLAN, ctrl::VLAN_ADD, &1_u16.to_le_bytes());
    control.accept(ctrl::VLAN, ctrl::VLAN_DEL, &4095_u16.to_le_bytes());
    assert_eq!(got(), [true, true, false]);
    control.refuse(ctrl::VLAN, ctrl::VLAN_ADD, &4096_u16.to_le_bytes());
    control.refuse(ctrl::VLAN, 2, &1_u16.to_le_bytes());
    control.refuse(ctrl::VLAN, ctrl::VLAN_ADD, &[1]);

    let (mut a, mut b, _) = bed(ALL & !net::F_CTRL_VLAN);
    assert!(
        passes(&mut a, &mut b, OWN, Some(9)),
        "all pass without the feature"
    );
}

/// 5.1.6.5.4: the bit is gone before the command comes back.
#[test]
fn an_announcement_is_acknowledged() {
    let (_, b, mut control) = bed(ALL);
    b.pair.shared.config().announce = true;
    assert_eq!(b.pair.shared.config().to_bytes()[6], 3);
    control.accept(ctrl::ANNOUNCE, ctrl::ANNOUNCE_ACK, &[]);
    assert_eq!(b.pair.shared.config().to_bytes()[6], 1);
    control.refuse(ctrl::ANNOUNCE, 1, &[]);
}

/// 5.1.6.5.5.
#[test]
fn the_number_of_pairs_is_within_what_the_device_has() {
    let (_, b, mut control) = bed(ALL);
    assert_eq!(
        b.pair.shared.active_pairs(),
        1,
        "only the first after a reset"
    );
    control.accept(ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &PAIRS.to_le_bytes());
    assert_eq!(b.pair.shared.active_pairs(), usize::from(PAIRS));
    for wrong in [0, PAIRS + 1, 0xffff] {
        control.refuse(ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &wrong.to_le_bytes());
    }
    assert_eq!(b.pair.shared.active_pairs(), usize::from(PAIRS));
}

/// 5.1.6.5.6.
#[test]
fn offloads_are_changed_among_those_negotiated() {
    let (_, b, mut control) = bed(ALL);
    assert_eq!(
        b.pair.shared.guest_offloads(),
        net::F_GUEST_CSUM | net::F_GUEST_TSO4 | net::F_GUEST_USO4
    );
    let mut set = |offloads: u64, ok| {
        let answer = control.command(ctrl::GUEST_OFFLOADS, 0, &offloads.to_le_bytes());
        assert_eq!(answer, ok);
        b.pair.shared.guest_offloads()
    };
    assert_eq!(set(net::F_GUEST_CSUM, ctrl::OK), net::F_GUEST_CSUM);
    assert_eq!(set(net::F_GUEST_TSO6, ctrl::ERR), net::F_GUEST_CSUM);
    assert_eq!(set(net::F_GUEST_USO6, ctrl::ERR), net::F_GUEST_CSUM);
    let uso4 = net::F_GUEST_CSUM | net::F_GUEST_USO4;
    assert_eq!(set(uso4, ctrl::OK), uso4);
    assert_eq!(set(net::F_GUEST_CSUM, ctrl::OK), net::F_GUEST_CSUM);
    assert_eq!(set(feature::VERSION_1, ctrl::ERR), net::F_GUEST_CSUM);
    assert_eq!(set(0, ctrl::OK), 0);
}

#[test]
fn what_was_not_negotiated_or_does_not_exist_is_refused() {
    let (_, _, mut control) = bed(MODERN | net::F_CTRL_VQ);
    for (class, code, data) in [
        (ctrl::RX, ctrl::RX_PROMISC, &[1][..]),
        (ctrl::RX, ctrl::RX_ALLUNI, &[1]),
        (ctrl::MAC, ctrl::MAC_ADDR_SET, &OTHER),
        (ctrl::VLAN, ctrl::VLAN_ADD, &[1, 0]),
        (ctrl::ANNOUNCE, ctrl::ANNOUNCE_ACK, &[]),
        (ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &[1, 0]),
        (ctrl::GUEST_OFFLOADS, ctrl::GUEST_OFFLOADS_SET, &[0; 8]),
        (9, 0, &[]),
    ] {
        control.refuse(class, code, data);
    }
}

#[test]
fn a_command_without_room_for_its_answer_changes_nothing_it_cannot_say() {
    let backend: Arc<dyn Backend> = Arc::new(Unconnected);
    let mut guest = Guest::new(5, ALL, backend);
    let mut control = Control::of(&mut guest);
    let chain = [Segment::to_device(control.buffers.guest_addr(0), 2)];
    assert!(control.driver.add(&chain, 1).unwrap());
    let _ = control.driver.publish();
    control.device.note();
    assert!(control.device.turn());
    assert_eq!(control.driver.pop().unwrap().unwrap().len, 0);
}
