//! Thousands of messages that are almost right, in any order, with any
//! descriptors. Whatever comes of it, the next connection finds everything as
//! it was.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use vtnetd::frontend::vhost_user::PROTOCOL_FEATURES;
use vtnetd::frontend::vhost_user::message::{
    ConfigAccess, FLAG_NEED_REPLY, Header, Request, region_to_bytes,
};
use vtnetd::virtio::spec::feature;

use crate::bed::{Bed, at_rest};
use crate::front::{Front, Memory, eventfd};

/// A xorshift generator: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// True once in `times`.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Numbers at which things break, more often than others.
    fn number(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => (1u64 << self.below(64)).wrapping_sub(1),
            4 => self.next(),
            _ => self.next() % 8,
        }
    }
}

/// A payload that is right for `request`, for a ring or region by chance.
fn payload(random: &mut Random, request: Request, memory: &Memory) -> Vec<u8> {
    let ring = u32::try_from(random.below(6)).unwrap();
    match request {
        Request::SetFeatures => {
            let features = feature::VERSION_1 | feature::VHOST_USER_PROTOCOL_FEATURES;
            features.to_ne_bytes().to_vec()
        }
        Request::SetProtocolFeatures => PROTOCOL_FEATURES.to_ne_bytes().to_vec(),
        Request::SetMemTable => memory.table(),
        Request::AddMemReg | Request::RemMemReg => region_to_bytes(&memory.region).to_vec(),
        Request::SetVringAddr => memory.addresses(ring).to_bytes().to_vec(),
        Request::SetVringNum => Front::state(ring, 64).to_vec(),
        Request::SetVringBase | Request::GetVringBase => Front::state(ring, 0).to_vec(),
        Request::SetVringEnable => Front::state(ring, 1).to_vec(),
        Request::SetVringKick | Request::SetVringCall | Request::SetVringErr => {
            u64::from(ring).to_ne_bytes().to_vec()
        }
        Request::SetStatus | Request::NetSetMtu | Request::SendRarp => {
            random.number().to_ne_bytes().to_vec()
        }
        Request::GetConfig | Request::SetConfig => {
            let access = ConfigAccess {
                offset: u32::try_from(random.below(14)).unwrap(),
                size: 4,
                flags: 0,
            };
            [&access.to_bytes()[..], &[1; 4]].concat()
        }
        _ => Vec::new(),
    }
}

fn right_descriptors(request: Request) -> usize {
    let one = matches!(
        request,
        Request::SetMemTable
            | Request::AddMemReg
            | Request::SetVringKick
            | Request::SetVringCall
            | Request::SetVringErr
            | Request::SetBackendReqFd
    );
    usize::from(one)
}

/// Overwrites a field, flips a bit, or changes the length.
fn mutate(random: &mut Random, payload: &mut Vec<u8>) {
    match random.below(4) {
        0 if payload.len() >= 8 => {
            let at = random.below(payload.len() / 4) * 4;
            let number = random.number().to_ne_bytes();
            let end = (at + 8).min(payload.len());
            payload[at..end].copy_from_slice(&number[..end - at]);
        }
        1 if !payload.is_empty() => {
            let at = random.below(payload.len());
            payload[at] ^= 1 << random.below(8);
        }
        2 => payload.truncate(random.below(payload.len() + 1)),
        _ => payload.resize(random.below(300), 0),
    }
}

/// One message; false when the connection has ended.
fn say(random: &mut Random, front: &mut Front, memory: &Memory, pool: &[OwnedFd]) -> bool {
    let request = Request::ALL[random.below(Request::ALL.len())];
    let mut payload = payload(random, request, memory);
    let wrong = random.once_in(3);
    if wrong {
        mutate(random, &mut payload);
    }
    let mut header = Front::header(request, &payload);
    if !random.once_in(8) {
        header.flags |= FLAG_NEED_REPLY;
    }
    if random.once_in(60) {
        let number = u32::try_from(random.below(64)).unwrap();
        header = Header {
            request: number,
            ..header
        };
    }
    if random.once_in(200) {
        let size = u32::try_from(random.next() & 0xffff_ffff).unwrap();
        header = Header { size, ..header };
    }
    if random.once_in(200) {
        header.flags ^= 1 << random.below(5);
    }
    let count = match random.below(12) {
        0 => random.below(10),
        _ => right_descriptors(request),
    };
    let fds: Vec<BorrowedFd<'_>> = (0..count)
        .map(|_| match request {
            Request::SetMemTable | Request::AddMemReg if !random.once_in(8) => memory.file.as_fd(),
            _ => pool[random.below(pool.len())].as_fd(),
        })
        .collect();
    front.channel.send(header, &payload, &fds).is_ok() && drain(front)
}

/// Reads whatever answers there are.
fn drain(front: &mut Front) -> bool {
    loop {
        match front.channel.try_receive() {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

#[test]
fn almost_right_messages_crash_nothing_and_leave_nothing() {
    const MESSAGES: usize = 20_000;
    let bed = Bed::new();
    let pool: Vec<OwnedFd> = vec![
        eventfd().as_fd().try_clone_to_owned().unwrap(),
        nix::unistd::pipe().unwrap().0,
        nix::unistd::pipe().unwrap().1,
        File::open("/dev/zero").unwrap().into(),
        File::open("/dev/null").unwrap().into(),
        UnixStream::pair().unwrap().0.into(),
        Memory::new().file.into(),
    ];
    let memory = Memory::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let before = at_rest(&bed, None);
    let mut front = bed.connect();
    front.hello();
    let mut ended = 0;
    for _ in 0..MESSAGES {
        if !say(&mut random, &mut front, &memory, &pool) {
            ended += 1;
            drop(front);
            front = bed.connect();
            front.hello();
        }
    }
    drop(front);
    assert!(
        ended > 50,
        "{ended} connections are too few to show anything"
    );
    at_rest(&bed, Some(before));
    // And it still works.
    let mut front = bed.connect();
    front.hello();
    front.accept(feature::VERSION_1);
    front.share(&memory);
    let fresh = Memory::at(0x1000, 0x1000);
    front.share(&fresh);
    let ring = front.start(1, &fresh);
    front.enable(1, true);
    fresh.offer_frame(1, 0);
    ring.kick.write(1).unwrap();
    ring.interrupted();
    assert_eq!(fresh.used(1), 1);
}
