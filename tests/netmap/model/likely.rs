//! How likely each step is, and with what.

use nix::poll::PollFlags;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use vtnetd::netmap::abi::nmreq::*;
use vtnetd::netmap::port::Direction;
use vtnetd::netmap::rings::Shape;

use super::steps::{CLIENTS, GUESTS, How, Mem, Scrawl, Spec, Step, Wish};

const PORTS: [&str; 9] = [
    "vale0:a",
    "vale0:b",
    "vale0:c",
    "vale1:a",
    "vale0:per0",
    "vale1:per1",
    "vale1:per0",
    "vale0:g0",
    "vale1:g1",
];
const PIPES: [&str; 7] = [
    "vale0:a{1",
    "vale0:a}1",
    "vale0:a}2",
    "per0{1",
    "per0}1",
    "loose{x",
    "loose}x",
];
const INTERFACES: [&str; 3] = ["per0", "per1", "loose"];
/// With names of two switches, so that they can be joined, and of a third.
const ATTACHED: [&str; 5] = [
    "vale0:per0",
    "vale1:per1",
    "vale1:per0",
    "vale0:per1",
    "vale2:per0",
];
const ODD: [&str; 10] = [
    "",
    "vale0",
    "vale0:",
    "vale-0:a",
    "nobody",
    "{1",
    "vale0:a{",
    "vale0:a{1{2",
    "nobody-has-such-a-name",
    "vale9:z",
];
const GUESTS_PORTS: [&str; 4] = ["vale0:g0", "vale0:a", "vale1:g1", "vale1:per1"];

fn name() -> impl Strategy<Value = &'static str> + Clone {
    prop_oneof![
        12 => select(&PORTS[..]),
        4 => select(&PIPES[..]),
        3 => select(&INTERFACES[..]),
        1 => select(&ODD[..]),
    ]
}

fn mem() -> impl Strategy<Value = Mem> + Clone {
    prop_oneof![
        5 => Just(Mem::Own),
        4 => Just(Mem::Global),
        1 => Just(Mem::Missing),
        2 => (0..8u8).prop_map(Mem::OfSome),
    ]
}

fn shape() -> impl Strategy<Value = Shape> + Clone {
    let rings = prop_oneof![3 => Just(0u16), 4 => 1..4u16, 1 => select(&[16, 17][..])];
    let slots = prop_oneof![
        1 => Just(0u32),
        40 => select(&[1, 2, 3, 4, 5, 8, 16, 16, 32, 64][..]),
        1 => select(&[300, 5000, u32::MAX][..]),
    ];
    (rings.clone(), rings, slots.clone(), slots).prop_map(
        |(tx_rings, rx_rings, tx_slots, rx_slots)| {
            // Many rings are short ones, lest all the time goes into making them.
            let most = if tx_rings.max(rx_rings) > 4 {
                8
            } else {
                u32::MAX
            };
            Shape {
                tx_rings,
                rx_rings,
                tx_slots: if most == 8 {
                    tx_slots.clamp(1, most)
                } else {
                    tx_slots
                },
                rx_slots: if most == 8 {
                    rx_slots.clamp(1, most)
                } else {
                    rx_slots
                },
            }
        },
    )
}

fn flags() -> impl Strategy<Value = u64> + Clone {
    let some = [
        0,
        0,
        0,
        NR_EXCLUSIVE,
        NR_RX_RINGS_ONLY,
        NR_TX_RINGS_ONLY,
        NR_RX_RINGS_ONLY | NR_TX_RINGS_ONLY,
        NR_MONITOR_TX,
        NR_MONITOR_RX,
        NR_MONITOR_TX | NR_MONITOR_RX,
        NR_ZCOPY_MON,
        NR_ZCOPY_MON | NR_MONITOR_TX | NR_MONITOR_RX,
        NR_ACCEPT_VNET_HDR | NR_EXCLUSIVE,
        NR_ACCEPT_VNET_HDR | NR_DO_RX_POLL,
        NR_ACCEPT_VNET_HDR | NR_NO_TX_POLL,
    ];
    (select(some.to_vec()), prop::bool::weighted(0.7))
        .prop_map(|(flags, accepts)| flags | if accepts { NR_ACCEPT_VNET_HDR } else { 0 })
}

fn wish() -> impl Strategy<Value = Wish> + Clone {
    let mode = prop_oneof![
        12 => Just(NR_REG_ALL_NIC),
        4 => Just(NR_REG_ONE_NIC),
        1 => Just(NR_REG_NULL),
        1 => select(&[0, NR_REG_SW, NR_REG_NIC_SW, 5, 6, NR_REG_ONE_SW, 9][..]),
    ];
    let extra = prop_oneof![6 => Just(0u32), 2 => 1..6u32, 1 => Just(5000)];
    (name(), mode, 0..5u16, flags(), shape(), mem(), extra).prop_map(
        |(name, mode, ring, flags, shape, mem, extra)| Wish {
            name,
            mode,
            ring,
            flags,
            shape,
            mem,
            extra,
        },
    )
}

fn how() -> impl Strategy<Value = How> + Clone {
    let odd = [
        How::UnknownOption,
        How::TwinOptions,
        How::NoOption,
        How::EndlessOptions,
        How::Version,
        How::Reserved,
        How::NoBody,
        How::BadBody,
    ];
    prop_oneof![20 => Just(How::Plain), 3 => Just(How::Legacy), 3 => select(odd.to_vec())]
}

fn spec() -> impl Strategy<Value = Spec> + Clone {
    let len = prop_oneof![12 => 14..90u16, 2 => 90..700u16, 1 => 0..14u16, 1 => 700..3000u16];
    let cut = prop_oneof![8 => Just(0u16), 2 => 1..60u16];
    let header = prop_oneof![6 => Just([0, 0]), 1 => any::<[u8; 2]>()];
    (0..9u8, 0..8u8, len, any::<u8>(), cut, header).prop_map(
        |(to, from, len, fill, cut, header)| Spec {
            to,
            from,
            len,
            fill,
            cut,
            header,
        },
    )
}

fn place() -> impl Strategy<Value = u32> + Clone {
    prop_oneof![4 => 0..18u32, 1 => 0..1100u32, 1 => select(&[u32::MAX, u32::MAX - 1, 1 << 31][..])]
}

fn scrawl() -> impl Strategy<Value = Scrawl> + Clone {
    let slot = || 0..16u8;
    let buffer = || {
        prop_oneof![
            4 => 0..200u32,
            1 => select(&[0, 1, 2, 1499, 1500, 1504, 4097, 4098, u32::MAX][..])
        ]
    };
    let len = || prop_oneof![2 => any::<u16>(), 2 => 0..130u16];
    let flags = || prop_oneof![2 => any::<u16>(), 3 => select(&[0x20, 0x10, 1, 0x21, 0][..])];
    prop_oneof![
        3 => place().prop_map(Scrawl::Head),
        3 => place().prop_map(Scrawl::Cur),
        2 => place().prop_map(Scrawl::Tail),
        4 => (slot(), buffer()).prop_map(|(slot, value)| Scrawl::Buffer { slot, value }),
        3 => (slot(), len()).prop_map(|(slot, value)| Scrawl::Len { slot, value }),
        3 => (slot(), flags()).prop_map(|(slot, value)| Scrawl::Flags { slot, value }),
        1 => (slot(), any::<u64>()).prop_map(|(slot, value)| Scrawl::Ptr { slot, value }),
        1 => any::<u8>().prop_map(Scrawl::Constants),
        1 => buffer().prop_map(Scrawl::Extra),
        1 => (buffer(), buffer()).prop_map(|(buffer, value)| Scrawl::Bytes { buffer, value }),
    ]
}

fn way() -> impl Strategy<Value = Direction> + Clone {
    select(&[Direction::Tx, Direction::Rx][..])
}

fn events() -> impl Strategy<Value = PollFlags> + Clone {
    let some = [
        PollFlags::POLLIN,
        PollFlags::POLLOUT,
        PollFlags::POLLIN | PollFlags::POLLOUT,
        PollFlags::POLLRDNORM | PollFlags::POLLWRNORM | PollFlags::POLLIN,
        PollFlags::POLLPRI,
        PollFlags::empty(),
    ];
    select(some.to_vec())
}

/// Anything that can happen.
pub fn step() -> Union<BoxedStrategy<Step>> {
    let client = || 0..CLIENTS;
    let guest = || 0..GUESTS;
    let asked = || (client(), name());
    Union::new_weighted(vec![
        (
            14,
            (client(), wish(), how())
                .prop_map(|(client, wish, how)| Step::Register { client, wish, how })
                .boxed(),
        ),
        (
            6,
            client().prop_map(|client| Step::Close { client }).boxed(),
        ),
        (
            24,
            (client(), any::<u8>(), vec(spec(), 1..6), any::<bool>())
                .prop_map(|(client, ring, frames, sync)| Step::Fill {
                    client,
                    ring,
                    frames,
                    sync,
                })
                .boxed(),
        ),
        (
            20,
            (client(), any::<u8>(), 0..12u8, 0..3u8, any::<bool>())
                .prop_map(|(client, ring, count, further, sync)| Step::Take {
                    client,
                    ring,
                    count,
                    further,
                    sync,
                })
                .boxed(),
        ),
        (
            12,
            (client(), way())
                .prop_map(|(client, way)| Step::Sync { client, way })
                .boxed(),
        ),
        (
            12,
            (client(), events(), any::<bool>())
                .prop_map(|(client, events, sleep)| Step::Poll {
                    client,
                    events,
                    sleep,
                })
                .boxed(),
        ),
        (
            6,
            (client(), way(), any::<u8>(), scrawl())
                .prop_map(|(client, way, ring, what)| Step::Scrawl {
                    client,
                    way,
                    ring,
                    what,
                })
                .boxed(),
        ),
        (
            3,
            (client(), any::<u8>(), any::<u8>())
                .prop_map(|(client, rx, tx)| Step::Exchange { client, rx, tx })
                .boxed(),
        ),
        (
            2,
            (
                client(),
                wish(),
                select(&INTERFACES[..]),
                prop::bool::weighted(0.8),
            )
                .prop_map(|(client, wish, interface, right)| Step::NewInterface {
                    client,
                    wish: Wish {
                        name: if right { interface } else { wish.name },
                        ..wish
                    },
                })
                .boxed(),
        ),
        (
            1,
            (
                client(),
                prop_oneof![4 => select(&INTERFACES[..]), 1 => name()],
            )
                .prop_map(|(client, name)| Step::DeleteInterface { client, name })
                .boxed(),
        ),
        (
            2,
            (
                client(),
                prop_oneof![3 => select(&ATTACHED[..]), 1 => name()],
                mem(),
            )
                .prop_map(|(client, name, mem)| Step::Attach { client, name, mem })
                .boxed(),
        ),
        (
            1,
            (client(), prop_oneof![select(&ATTACHED[..]), name()])
                .prop_map(|(client, name)| Step::Detach { client, name })
                .boxed(),
        ),
        (
            1,
            (
                client(),
                prop_oneof![Just(""), name()],
                0..4u16,
                prop_oneof![0..6u32, Just(u32::MAX)],
            )
                .prop_map(|(client, name, switch, port)| Step::List {
                    client,
                    name,
                    switch,
                    port,
                })
                .boxed(),
        ),
        (
            2,
            (asked(), select(&[0, 0, 10, 12, 12, 11, u32::MAX][..]))
                .prop_map(|((client, name), len)| Step::SetHeader { client, name, len })
                .boxed(),
        ),
        (
            1,
            asked()
                .prop_map(|(client, name)| Step::Header { client, name })
                .boxed(),
        ),
        (
            1,
            (asked(), mem())
                .prop_map(|((client, name), mem)| Step::Info { client, name, mem })
                .boxed(),
        ),
        (
            1,
            (asked(), mem())
                .prop_map(|((client, name), mem)| Step::Pools { client, name, mem })
                .boxed(),
        ),
        (
            1,
            (asked(), any::<bool>())
                .prop_map(|((client, name), on)| Step::Polling { client, name, on })
                .boxed(),
        ),
        (
            2,
            (guest(), select(&GUESTS_PORTS[..]))
                .prop_map(|(guest, name)| Step::Join { guest, name })
                .boxed(),
        ),
        (1, guest().prop_map(|guest| Step::Leave { guest }).boxed()),
        (
            8,
            (guest(), vec(spec(), 1..5))
                .prop_map(|(guest, frames)| Step::Send { guest, frames })
                .boxed(),
        ),
        (1, Just(Step::Age).boxed()),
    ])
}
