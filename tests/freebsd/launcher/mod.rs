//! A small launcher in the place of bhyve(8): guest memory and kick and call
//! descriptors of every kind that a VMM on FreeBSD may hand over.

mod file;
mod shm;
mod vmm;

use std::sync::Arc;

use bed::{Result, Scratch, Test};
use vtnetd::driver::memory::{Memfd, MemorySource};
use vtnetd::driver::notifier::Signalling;

use crate::drive::{Served, carry, frame, options};

const MEMORIES: [&str; 5] = ["memfd", "file", "shm_anon", "shm_anon_limited", "vmm"];
const SIGNALLINGS: [Signalling; 3] = [
    Signalling::Eventfd,
    Signalling::Pipe,
    Signalling::SocketPair,
];

pub fn tests() -> Vec<Test> {
    let all = MEMORIES.into_iter().flat_map(|memory| {
        SIGNALLINGS.map(|signalling| {
            let name = format!("launcher::{memory}_{signalling:?}").to_lowercase();
            Test::new(name, move || frames_cross(memory, signalling))
        })
    });
    all.collect()
}

/// Memory of the kind that is called so; `place` is where files go.
fn memory(kind: &str, place: &Scratch) -> Result<Arc<dyn MemorySource>> {
    Ok(match kind {
        "file" => Arc::new(file::Files(place.path(""))),
        "shm_anon" => Arc::new(shm::Anonymous { limited: false }),
        "shm_anon_limited" => Arc::new(shm::Anonymous { limited: true }),
        "vmm" => Arc::new(vmm::Vm::new(&format!("vtnetd-{}", std::process::id()))?),
        _ => Arc::new(Memfd),
    })
}

/// Two devices, each driven over such memory and descriptors, whole frames both
/// ways, more of them than a ring has places.
fn frames_cross(kind: &str, signalling: Signalling) -> Result<()> {
    let place = Scratch::new()?;
    let mut options = options(true, 1514);
    options.memory = memory(kind, &place)?;
    options.signalling = signalling;
    let served = Served::start(&["vale0:a,type=core", "vale0:b,type=core"])?;
    let mut a = served.drive(0, &options)?;
    // One machine's memory is one guest's.
    if kind == "vmm" {
        options.memory = Arc::new(Memfd);
    }
    let mut b = served.drive(1, &options)?;
    for len in [60, 1514] {
        let frames: Vec<_> = (0..300).map(|number| frame(len, number)).collect();
        carry(a.pair(0), b.pair(0), &frames)?;
        carry(b.pair(0), a.pair(0), &frames)?;
    }
    Ok(())
}
