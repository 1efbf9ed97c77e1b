//! Many at once on one switch: nobody overtakes, nothing is lost while there
//! is room, and everybody sleeps and wakes.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use vtnetd::netmap::port::{Direction, Port};

use crate::client::{BROADCAST, Client, core, frame};

/// A frame that says who sent it and as which.
fn numbered(to: u8, from: u8, number: u32) -> Vec<u8> {
    // Now and then one of several slots.
    let len = 60 + number as usize % 1400 + if number % 50 == 0 { 5000 } else { 0 };
    let mut frame = frame(to, from, len);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

#[test]
fn two_senders_keep_their_order_and_lose_nothing_while_there_is_room() {
    const EACH: u32 = 30_000;
    /// Slots of the receiver are 1023; a sender's window is 100 frames, of
    /// which at most 3 have 4 slots.
    const WINDOW: u64 = 100;
    let core = core(2048);
    let receiver = Client::new(&core, "vale0:r");
    let seen = [const { AtomicU64::new(0) }; 2];
    let start = Barrier::new(3);
    std::thread::scope(|scope| {
        for (which, seen) in (0u8..).zip(&seen) {
            let sender = Client::new(&core, &format!("vale0:s{which}"));
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let mut number = 0;
                while number < EACH {
                    let room = WINDOW - (u64::from(number) - seen.load(Ordering::Acquire));
                    let room = u32::try_from(room).unwrap().min(EACH - number);
                    for _ in 0..room {
                        assert!(sender.put(&numbered(9, 2 + which, number)));
                        number += 1;
                    }
                    sender.port.txsync().unwrap();
                    if room == 0 {
                        std::thread::yield_now();
                    }
                }
                // The last of it is read before the port goes.
                while seen.load(Ordering::Acquire) < EACH.into() {
                    std::thread::yield_now();
                }
            });
        }
        // The senders' own ports are flooded too until this one is known.
        receiver.send(&[frame(BROADCAST, 9, 60)]);
        start.wait();
        let mut next = [0; 2];
        while next != [EACH; 2] {
            receiver.wait();
            for received in receiver.receive() {
                let which = usize::from(received[11]) - 2;
                assert!(received == numbered(9, received[11], next[which]));
                next[which] += 1;
            }
            for (seen, next) in seen.iter().zip(next) {
                seen.store(next.into(), Ordering::Release);
            }
        }
    });
    let kring = receiver.port.kring(Direction::Rx, 0).unwrap();
    let counts = kring.counters().read();
    assert_eq!((counts.frames, counts.full), (2 * u64::from(EACH), 0));
    assert_eq!(kring.space(), 1023);
}

#[test]
fn two_clients_that_answer_each_other_never_both_sleep() {
    let core = core(2048);
    let (a, b) = (Client::new(&core, "vale0:a"), Client::new(&core, "vale0:b"));
    const ROUNDS: u32 = 5000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..ROUNDS {
                b.wait();
                assert!(b.receive() == [numbered(2, 1, number)]);
                b.send(&[numbered(1, 2, number)]);
            }
        });
        for number in 0..ROUNDS {
            a.send(&[numbered(2, 1, number)]);
            a.wait();
            assert!(a.receive() == [numbered(1, 2, number)]);
        }
    });
}

#[test]
fn ports_come_and_go_under_traffic() {
    let core = core(2048);
    let (a, b) = (Client::new(&core, "vale0:a"), Client::new(&core, "vale0:b"));
    let regions = core.regions();
    let global = regions.find(1).unwrap();
    let before = global.free();
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while done.load(Ordering::Relaxed) == 0 {
                a.send(&[frame(BROADCAST, 1, 60), frame(BROADCAST, 1, 5000)]);
            }
        });
        scope.spawn(|| {
            while done.load(Ordering::Relaxed) == 0 {
                b.send(&[frame(BROADCAST, 2, 1514)]);
                b.receive();
            }
        });
        for _ in 0..500 {
            let request = vtnetd::netmap::register::Request {
                mem_id: 1,
                ..vtnetd::netmap::register::Request::new("vale0:c")
            };
            let c = Client::with(&core, request);
            c.wait();
            for received in c.receive() {
                let expected = frame(BROADCAST, received[11], received.len());
                assert!(received == expected);
            }
        }
        done.store(1, Ordering::Relaxed);
    });
    assert_eq!(global.free(), before);
}
