//! A client that writes anything anywhere in its memory, while others work.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vtnetd::netmap::port::Port;

use crate::client::{BROADCAST, Client, core, frame};

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What a hostile process does: writes into the shared object, which it has
/// the descriptor of, and asks for syncs.
fn misbehave(client: &Client, stop: &AtomicBool, seed: u64) {
    let mut random = Random(seed);
    let region = client.port.region();
    let [interfaces, rings, buffers] = region.layout();
    let file = File::from(region.fd().try_clone_to_owned().unwrap());
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..random.below(20) {
            // Mostly the headers and first slots of the two rings, with values
            // that are nearly right.
            let value = match random.below(4) {
                0 => random.next(),
                1 => random.below(1025),
                2 => random.below(u64::from(buffers.num) + 2),
                _ => random.below(64) << 48 | random.below(2050) << 32 | random.below(3000),
            };
            let ring = rings.offset + random.below(2) * u64::from(rings.size);
            let at = match random.below(8) {
                0 => random.below(interfaces.bytes()),
                1 => rings.offset + random.below(rings.bytes()),
                2 => buffers.offset + random.below(2 * u64::from(buffers.size)),
                3 => ring + 4 * random.below(64),
                4 => ring + 20 + 4 * random.below(3),
                _ => ring + 256 + 8 * random.below(2 * 1024),
            };
            file.write_all_at(&value.to_ne_bytes(), at).unwrap();
        }
        client.port.txsync().unwrap();
        client.port.rxsync().unwrap();
    }
}

#[test]
fn nobody_else_is_harmed_by_a_client_that_writes_anything_anywhere() {
    const FRAMES: u32 = 3000;
    let core = core(2048);
    let (a, b) = (Client::new(&core, "vale0:a"), Client::new(&core, "vale0:b"));
    let seen = AtomicU32::new(0);
    let stop = AtomicBool::new(false);
    let numbered = |number: u32| {
        let len = if number % 7 == 0 { 5000 } else { 64 };
        let mut frame = frame(BROADCAST, 1, len);
        frame[14..18].copy_from_slice(&number.to_be_bytes());
        frame
    };
    std::thread::scope(|scope| {
        let hostile = Client::new(&core, "vale0:hostile");
        let stop = &stop;
        scope.spawn(move || misbehave(&hostile, stop, 0x9e37_79b9_7f4a_7c15));
        scope.spawn(|| {
            // What the hostile one sends may fill the ring, so again and again.
            while seen.load(Ordering::Acquire) < FRAMES {
                a.send(&[numbered(seen.load(Ordering::Acquire))]);
                a.receive();
            }
        });
        while seen.load(Ordering::Relaxed) < FRAMES {
            b.wait();
            let expected = numbered(seen.load(Ordering::Relaxed));
            if b.receive().contains(&expected) {
                seen.fetch_add(1, Ordering::Release);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    // It is gone, and its memory with it; the others go on.
    a.receive();
    b.receive();
    a.send(&[numbered(FRAMES)]);
    assert!(b.receive() == [numbered(FRAMES)]);
}

#[test]
fn a_hostile_client_leaves_nothing_behind() {
    let core = core(2048);
    let region = core.regions().find(1).unwrap();
    let before = region.free();
    for seed in 1..50 {
        let request = vtnetd::netmap::register::Request {
            mem_id: 1,
            extra_bufs: 100,
            ..vtnetd::netmap::register::Request::new("vale0:hostile")
        };
        let hostile = Client::with(&core, request);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| misbehave(&hostile, &stop, seed));
            for _ in 0..50 {
                hostile.port.rxsync().unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        drop(hostile);
        assert_eq!(region.free(), before);
    }
}
