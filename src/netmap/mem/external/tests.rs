//! Tests of regions in clients' memory.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use super::*;
use crate::netmap::mem::{InterfaceSpec, Region, RegionConfig, Regions, RingSpec, page_size};

/// What `ctrl-api-test` asks for.
fn config() -> ExternalConfig {
    let pool = |size, num| PoolSize { size, num };
    ExternalConfig {
        bytes: 2 * 1024 + 64 * 512 + 4096 * 2048,
        interfaces: pool(1024, 2),
        rings: pool(512, 64),
        buffers: pool(2048, 4096),
    }
}

fn memory(bytes: u64, seals: SealFlag) -> OwnedFd {
    let flags = MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC;
    let fd = memfd_create(c"client", flags).unwrap();
    let bytes = bytes.next_multiple_of(page_size().into());
    ftruncate(&fd, bytes.try_into().unwrap()).unwrap();
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    fd
}

fn sealed(bytes: u64) -> OwnedFd {
    memory(bytes, SealFlag::F_SEAL_SHRINK)
}

fn regions() -> Regions {
    Regions::new(RegionConfig::global())
}

fn ring(region: &Arc<Region>) -> Result<crate::netmap::mem::RingMemory, MemError> {
    region.ring(&RingSpec {
        id: 0,
        rx: false,
        slots: 16,
        tail: 15,
    })
}

fn read(fd: &OwnedFd, at: u64, into: &mut [u8]) {
    let at = at.try_into().unwrap();
    assert_eq!(nix::sys::uio::pread(fd, into, at), Ok(into.len()));
}

#[test]
fn pools_follow_each_other_and_the_rest_is_buffers() {
    let layouts = |config: ExternalConfig| {
        let Plan { len, layouts } = config.plan(4096).unwrap();
        (len.get(), layouts.map(|l| (l.offset, l.size, l.num)))
    };
    let exact = [(0, 1024, 2), (2048, 512, 64), (34816, 2048, 4096)];
    assert_eq!(layouts(config()), (8_425_472, exact));
    let bytes = config().bytes + 3 * 2048 + 2047;
    let (len, [_, _, buffers]) = layouts(ExternalConfig { bytes, ..config() });
    assert_eq!((len, buffers), (8_433_664, (34816, 2048, 4099)));
}

#[test]
fn zeros_are_the_least_of_a_ports_own_region() {
    let mut info = PoolsBody {
        nr_memsize: 1 << 24,
        nr_ring_pool_objtotal: 7,
        ..PoolsBody::default()
    };
    let config = ExternalConfig::from_option(&mut info, 4096);
    let told = PoolsBody {
        nr_memsize: 1 << 24,
        nr_if_pool_objtotal: 2,
        nr_if_pool_objsize: 1024,
        nr_ring_pool_objtotal: 7,
        nr_ring_pool_objsize: 20480,
        nr_buf_pool_objtotal: 4098,
        nr_buf_pool_objsize: 2048,
        ..PoolsBody::default()
    };
    assert_eq!(info, told);
    let [_, rings, buffers] = config.plan(4096).unwrap().layouts;
    assert_eq!((rings.offset, rings.num), (2048, 7));
    assert_eq!(buffers.offset, 2048 + 7 * 20480);
}

#[test]
fn what_does_not_fit_or_is_no_object_is_refused() {
    let refused = |change: &dyn Fn(&mut ExternalConfig)| {
        let mut config = config();
        change(&mut config);
        config.plan(4096).unwrap_err()
    };
    let no_room = |what, bytes| MemError::NoRoom { what, bytes };
    let bytes = config().bytes;
    assert_eq!(refused(&|c| c.rings.size = 1 << 20), no_room("ring", bytes));
    assert_eq!(
        refused(&|c| c.bytes -= 1),
        no_room("buffer", bytes - 1),
        "a byte too few"
    );
    assert_eq!(refused(&|c| c.bytes = 0), no_room("interface", 0));
    let huge = u32::MAX;
    assert_eq!(
        refused(&|c| c.buffers = PoolSize {
            size: huge,
            num: huge
        }),
        no_room("buffer", bytes)
    );
    for size in [1, 32, 63] {
        let error = refused(&|c| c.interfaces.size = size);
        assert!(matches!(error, MemError::Size { .. }), "{error}");
        let error = refused(&|c| c.buffers.size = size);
        assert!(matches!(error, MemError::Size { .. }), "{error}");
    }
    assert!(matches!(
        refused(&|c| c.buffers.size = 2047),
        MemError::Alignment { what: "buffer", .. }
    ));
    assert!(matches!(
        refused(&|c| (c.bytes, c.rings.num) = (u64::MAX, MOST + 1)),
        MemError::Num { what: "ring", .. }
    ));
    assert!(matches!(
        refused(&|c| c.bytes = u64::MAX),
        MemError::NoRoom { .. }
    ));
    assert!(matches!(
        refused(&|c| (c.bytes, c.buffers.num) = (34816 + 2 * 2048, 2)),
        MemError::NoRoom { what: "buffer", .. }
    ));
}

#[test]
fn a_client_finds_rings_and_buffers_in_its_own_memory() {
    let fd = sealed(config().bytes);
    let last_byte = config().bytes - 1;
    let at = last_byte.try_into().unwrap();
    assert_eq!(nix::sys::uio::pwrite(&fd, b"x", at), Ok(1));
    let regions = regions();
    let region = regions
        .external(fd.try_clone().unwrap(), &config())
        .unwrap();
    let ring = ring(&region).unwrap();
    let interface = region
        .interface(&InterfaceSpec {
            name: "vale0:0",
            tx_rings: 1,
            rx_rings: 1,
            host_tx_rings: 1,
            host_rx_rings: 1,
            rings: &[Some(&ring), None, None, None],
            extra_bufs: 0,
        })
        .unwrap();
    assert_eq!((interface.offset(), ring.offset()), (0, 2048));
    let mut raw = [0; 7];
    read(&fd, 0, &mut raw);
    assert_eq!(&raw, b"vale0:0");
    let mut raw = [0; 12];
    read(&fd, 2048, &mut raw);
    let (buf_ofs, num_slots) = raw.split_at(8);
    assert_eq!(buf_ofs, (34816u64 - 2048).to_ne_bytes());
    assert_eq!(num_slots, 16u32.to_ne_bytes());
    // When all is given back, the memory is the client's as it was.
    drop((interface, ring, region));
    let mut last = [0];
    read(&fd, last_byte, &mut last);
    assert_eq!(&last, b"x");
    read(&fd, 0, &mut raw);
    assert_eq!(&raw[..7], b"vale0:0");
}

#[test]
fn the_same_memory_is_the_same_region() {
    let regions = regions();
    let fd = sealed(config().bytes);
    let again = || fd.as_fd().try_clone_to_owned().unwrap();
    let first = regions.external(again(), &config()).unwrap();
    let mut other = config();
    other.rings.num = 1;
    let second = regions.external(again(), &other).unwrap();
    assert!(Arc::ptr_eq(&first, &second), "as it was first laid out");
    assert!(Arc::ptr_eq(&first, &regions.find(first.id()).unwrap()));
    let elsewhere = regions.external(sealed(config().bytes), &config()).unwrap();
    assert_ne!(first.id(), elsewhere.id());
    let id = first.id();
    drop((first, second));
    let anew = regions.external(again(), &other).unwrap();
    assert_eq!(anew.layout().map(|l| l.num)[1], 1);
    assert!(regions.find(id).is_err() || anew.id() == id);
}

#[test]
fn memory_that_could_vanish_is_refused() {
    let regions = regions();
    let bytes = config().bytes;
    let refused = |fd| regions.external(fd, &config()).unwrap_err();
    assert_eq!(
        refused(memory(bytes, SealFlag::empty())),
        MemError::NotSealed
    );
    assert_eq!(
        refused(memory(bytes, SealFlag::F_SEAL_GROW)),
        MemError::NotSealed
    );
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(refused(file.into()), MemError::NotSealed);
    assert!(matches!(refused(sealed(4096)), MemError::Beyond { .. }));
    let unwritable = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_WRITE;
    assert!(matches!(
        refused(memory(bytes, unwritable)),
        MemError::System { .. }
    ));
    assert!(regions.external(sealed(bytes), &config()).is_ok());
}
