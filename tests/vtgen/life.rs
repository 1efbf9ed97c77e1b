//! The driver through what happens to devices: stopped, resumed, reset, served
//! by another process; over vtnetd, with two devices on one switch.

use std::time::Duration;

use bed::{Scratch, Vtnetd};
use vtnetd::driver::front_end::FrontEnd;
use vtnetd::driver::net::{Layout, NetDriver, NetOptions, Pair};
use vtnetd::virtio::spec::{ctrl, feature, net};

const SOON: Duration = Duration::from_secs(10);
/// Long enough for a frame to arrive that should not.
const NEVER: Duration = Duration::from_millis(100);

/// vtnetd with two devices.
struct Switch {
    vtnetd: Option<Vtnetd>,
    scratch: Scratch,
    options: &'static str,
}

impl Switch {
    fn start(options: &'static str) -> Self {
        let mut switch = Self {
            vtnetd: None,
            scratch: Scratch::new().unwrap(),
            options,
        };
        switch.restart();
        switch
    }

    /// Ends the process, if there is one, and starts another in its place.
    fn restart(&mut self) {
        self.vtnetd = None;
        let devices = ["a", "b"].map(|name| {
            let socket = self.scratch.path(name);
            let _ = std::fs::remove_file(&socket);
            format!(
                "virtio-net,vale0:{name},type=core,socket={}{}",
                socket.display(),
                self.options
            )
        });
        let program = bed::program(env!("CARGO_BIN_EXE_vtnetd"));
        self.vtnetd = Some(Vtnetd::start(&program, &devices, None).unwrap());
    }

    fn connect(&self, name: &str) -> FrontEnd {
        FrontEnd::connect(&self.scratch.path(name)).unwrap()
    }

    fn drive(&self, name: &str, options: &NetOptions) -> NetDriver {
        NetDriver::start(self.connect(name), options).unwrap()
    }

    fn both(&self, options: &NetOptions) -> (NetDriver, NetDriver) {
        (self.drive("a", options), self.drive("b", options))
    }
}

/// A driver for each ring format, for chains in any order and in theirs.
fn formats() -> [NetOptions; 4] {
    let in_order = feature::IN_ORDER;
    let packed = feature::RING_PACKED;
    [0, packed, in_order, packed | in_order].map(requiring)
}

fn requiring(features: u64) -> NetOptions {
    let mut options = NetOptions::default();
    options.negotiation.features |= features;
    options.negotiation.required = features;
    options
}

/// A broadcast frame with a number in it.
fn frame(number: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.resize(60, number);
    frame
}

fn received(pair: &mut Pair, within: Duration) -> Option<Vec<u8>> {
    pair.rx.recv(within).unwrap().map(|received| received.frame)
}

/// Frames go from one to the other, both ways.
fn talk(a: &mut NetDriver, b: &mut NetDriver, number: u8) {
    a.pair(0).tx.send(&frame(number)).unwrap();
    assert_eq!(received(b.pair(0), SOON), Some(frame(number)));
    b.pair(0).tx.send(&frame(number)).unwrap();
    assert_eq!(received(a.pair(0), SOON), Some(frame(number)));
}

#[test]
fn a_stopped_device_sends_and_receives_nothing_until_it_resumes() {
    for options in formats() {
        let switch = Switch::start("");
        let (mut a, mut b) = switch.both(&options);
        talk(&mut a, &mut b, 1);
        b.stop().unwrap();
        a.pair(0).tx.send(&frame(2)).unwrap();
        a.pair(0).tx.drain().unwrap();
        assert_eq!(received(b.pair(0), NEVER), None);
        // What a stopped device was given waits for it.
        b.pair(0).tx.send(&frame(3)).unwrap();
        assert_eq!(received(a.pair(0), NEVER), None);
        assert_eq!(b.pair(0).tx.outstanding(), 1);
        b.resume().unwrap();
        assert_eq!(received(a.pair(0), SOON), Some(frame(3)));
        talk(&mut a, &mut b, 4);
    }
}

/// As with section 2.6.1: a queue is reset and comes back with another length
/// and at another place, while the others run.
#[test]
fn queues_are_reset_one_by_one_while_the_others_run() {
    for options in formats() {
        let switch = Switch::start("");
        let (mut a, mut b) = switch.both(&options);
        for (number, size) in (1..).zip([64, 2, 256, 8]) {
            b.reset_rx(0).unwrap();
            a.pair(0).tx.send(&frame(number)).unwrap();
            a.pair(0).tx.drain().unwrap();
            b.pair(0).tx.send(&frame(number)).unwrap();
            assert_eq!(received(a.pair(0), SOON), Some(frame(number)));
            b.enable_rx(0, size).unwrap();
            assert_eq!(received(b.pair(0), NEVER), None, "it was reset");
            talk(&mut a, &mut b, number);

            b.reset_tx(0).unwrap();
            b.pair(0).tx.send(&frame(100)).unwrap();
            assert_eq!(received(a.pair(0), NEVER), None);
            a.pair(0).tx.send(&frame(number)).unwrap();
            assert_eq!(received(b.pair(0), SOON), Some(frame(number)));
            b.enable_tx(0, size).unwrap();
            talk(&mut a, &mut b, number);
        }
    }
}

/// 5.1.6.5.5: frames of a flow come in on the pair on which it was sent last,
/// and in order; those of other flows always on the same.
#[test]
fn flows_are_steered_to_where_they_were_sent() {
    for mut options in formats() {
        let switch = Switch::start(",queues=2");
        let mut a = switch.drive("a", &options);
        options.pairs = 2;
        let mut b = switch.drive("b", &options);
        let flow = |to: u8, from: u8, tag: u8| {
            let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5];
            frame.resize(60, tag);
            frame
        };
        let arrived = |b: &mut NetDriver, pair: usize| {
            let frame = received(b.pair(pair), SOON).expect("a frame on that pair");
            assert_eq!(received(b.pair(1 - pair), Duration::ZERO), None);
            frame
        };
        for pair in [0, 1, 1, 0] {
            for host in 10..20 {
                b.pair(pair).tx.send(&flow(host, 9, 0)).unwrap();
                assert!(received(a.pair(0), SOON).is_some());
                for tag in 1..4 {
                    a.pair(0).tx.send(&flow(9, host, tag)).unwrap();
                    assert_eq!(arrived(&mut b, pair), flow(9, host, tag));
                }
            }
        }
        let unknown = [(); 2].map(|()| {
            let mut pairs = Vec::new();
            for host in 20..40 {
                a.pair(0).tx.send(&flow(9, host, 0)).unwrap();
                a.pair(0).tx.drain().unwrap();
                let first = received(b.pair(0), Duration::ZERO).is_some();
                assert_ne!(first, received(b.pair(1), Duration::ZERO).is_some());
                pairs.push(first);
            }
            pairs
        });
        assert_eq!(unknown[0], unknown[1]);
        assert!(unknown[0].contains(&true) && unknown[0].contains(&false));
    }
}

#[test]
fn a_reset_device_starts_anew_in_the_middle_of_traffic() {
    for options in formats() {
        let switch = Switch::start("");
        let (mut a, mut b) = switch.both(&options);
        for number in 0..20 {
            for _ in 0..50 {
                a.pair(0).tx.send(&frame(number)).unwrap();
            }
            b.reset().unwrap();
            a.pair(0).tx.drain().unwrap();
        }
        // What had not been received before the last reset is gone with it.
        while received(b.pair(0), NEVER).is_some() {}
        talk(&mut a, &mut b, 77);
    }
}

#[test]
fn another_process_takes_over_what_the_first_left() {
    for options in formats() {
        let mut switch = Switch::start("");
        let (mut a, mut b) = switch.both(&options);
        talk(&mut a, &mut b, 1);
        // What has not come back would be sent again.
        a.pair(0).tx.drain().unwrap();
        b.pair(0).tx.drain().unwrap();
        switch.restart();
        // Nobody is there to take it.
        a.pair(0).tx.send(&frame(2)).unwrap();
        b.reconnect(switch.connect("b"), &options).unwrap();
        // An answer comes after everything before it was done: it can receive now,
        // and what has waited is sent as soon as the other is there.
        b.config().unwrap();
        a.reconnect(switch.connect("a"), &options).unwrap();
        assert_eq!(received(b.pair(0), SOON), Some(frame(2)));
        talk(&mut a, &mut b, 3);
    }
}

#[test]
fn memory_in_many_regions_and_no_notifications_make_no_difference() {
    // Also between two formats.
    let [split, packed, ..] = formats();
    for (one, other) in [(&split, &split), (&split, &packed), (&packed, &split)] {
        let switch = Switch::start("");
        let many = NetOptions {
            // More than one message holds.
            regions: 20,
            ..one.clone()
        };
        let silent = NetOptions {
            silent: true,
            ..other.clone()
        };
        let mut a = switch.drive("a", &many);
        let mut b = switch.drive("b", &silent);
        for number in 0..100 {
            talk(&mut a, &mut b, number);
        }
    }
}

/// Long chains, tables and buffers that are merged, over many laps of rings
/// that are no power of two.
#[test]
fn packed_rings_carry_whatever_is_negotiated() {
    for declined in [
        0,
        feature::EVENT_IDX,
        feature::INDIRECT_DESC,
        net::F_MRG_RXBUF,
    ] {
        for (format, ring_size, piece) in [(1, 256, 0), (1, 100, 300), (3, 100, 300)] {
            let mut options = formats()[format].clone();
            options.negotiation.features &= !declined;
            options.ring_size = ring_size;
            options.max_frame = 1514;
            options.layout = Layout {
                header_apart: piece != 0,
                piece,
            };
            let switch = Switch::start("");
            let (mut a, mut b) = switch.both(&options);
            for number in 0..250 {
                for len in [60, 700, 1514] {
                    let mut sent = frame(number);
                    sent.extend((sent.len()..len).map(|at| u8::try_from(at % 251).unwrap()));
                    a.pair(0).tx.send(&sent).unwrap();
                    assert_eq!(received(b.pair(0), SOON), Some(sent));
                }
            }
            a.pair(0).tx.drain().unwrap();
        }
    }
}

#[test]
fn the_control_queue_sets_address_modes_and_pairs() {
    let switch = Switch::start(",queues=2");
    let mut options = NetOptions {
        pairs: 2,
        ..NetOptions::default()
    };
    let control = net::F_CTRL_VQ | net::F_CTRL_RX | net::F_CTRL_MAC_ADDR | net::F_MQ;
    options.negotiation.features |= control;
    options.negotiation.required = control;
    let (mut a, mut b) = switch.both(&options);
    talk(&mut a, &mut b, 1);
    let mac = [2, 0, 0, 0, 0, 0x0b];
    b.control().unwrap().set_mac(mac).unwrap();
    assert_eq!(b.config().unwrap().mac, Some(mac));
    b.control()
        .unwrap()
        .set_receive_mode(ctrl::RX_PROMISC, false)
        .unwrap();
    // To somebody else, then to b: the switch floods both.
    let [mut other, mut own] = [frame(5), frame(6)];
    other[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x0c]);
    own[..6].copy_from_slice(&mac);
    for frame in [&other, &own] {
        a.pair(0).tx.send(frame).unwrap();
    }
    let mut arrived = received(b.pair(0), NEVER);
    if arrived.is_none() {
        arrived = received(b.pair(1), SOON);
    }
    assert_eq!(arrived, Some(own));
    // A number of pairs that the device has not.
    let answer = b
        .control()
        .unwrap()
        .command(ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &[&[9, 0]]);
    assert_eq!(answer.unwrap(), ctrl::ERR);
}
