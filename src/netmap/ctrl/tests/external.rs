//! Registrations in a client's own memory.

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use super::*;
use crate::netmap::abi::option::*;

/// What `ctrl-api-test` asks for.
fn pools() -> PoolsBody {
    PoolsBody {
        nr_memsize: 2 * 1024 + 64 * 512 + 4096 * 2048,
        nr_if_pool_objtotal: 2,
        nr_if_pool_objsize: 1024,
        nr_ring_pool_objtotal: 64,
        nr_ring_pool_objsize: 512,
        nr_buf_pool_objtotal: 4096,
        nr_buf_pool_objsize: 2048,
        ..PoolsBody::default()
    }
}

fn object(bytes: u64) -> OwnedFd {
    let flags = MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC;
    let fd = memfd_create(c"client", flags).unwrap();
    ftruncate(&fd, bytes.next_multiple_of(1 << 16).try_into().unwrap()).unwrap();
    fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
    fd
}

/// Registers a port with rings of 16 slots. Returns the option's status and
/// what it says then.
fn register(
    client: &mut Client,
    name: &str,
    pools: PoolsBody,
    object: Option<&OwnedFd>,
) -> (Result<RegisterBody, Errno>, u32, ExternalMemory) {
    let option = ExternalMemory {
        nro_usrptr: 0x7000,
        nro_info: pools,
    };
    let at = client.memory.option(NETMAP_REQ_OPT_EXTMEM, &option, 0);
    client.memory.object = object.map(|fd| fd.try_clone().unwrap());
    let body = RegisterBody {
        nr_tx_slots: 16,
        nr_rx_slots: 16,
        ..all()
    };
    let result = client.ask_with(NETMAP_REQ_REGISTER, name, &body, at);
    let told = client.memory.get(at + size_of::<OptionHeader>() as u64);
    (result, client.memory.status(at), told)
}

#[test]
fn a_port_in_the_clients_memory() {
    let core = core();
    let fd = object(pools().nr_memsize);
    let mut client = Client::new(&core);
    let sparse = PoolsBody {
        nr_if_pool_objtotal: 0,
        nr_if_pool_objsize: 0,
        ..pools()
    };
    let (result, status, told) = register(&mut client, "vale0:0", sparse, Some(&fd));
    let body = result.unwrap();
    assert_eq!((status, told.nro_usrptr), (0, 0x7000));
    assert_eq!(told.nro_info, pools(), "with the kernel's defaults");
    assert_eq!(body.nr_offset, 0);
    assert_eq!(body.nr_memsize, pools().nr_memsize.next_multiple_of(4096));
    assert!(body.nr_mem_id > 1);
    let asked = PoolsBody {
        nr_mem_id: body.nr_mem_id,
        ..PoolsBody::default()
    };
    let info = client
        .ask(NETMAP_REQ_POOLS_INFO_GET, "vale0:0", &asked)
        .unwrap();
    assert_eq!(
        (info.nr_ring_pool_offset, info.nr_buf_pool_offset),
        (2048, 34816)
    );
    // A second port in the same memory, though its pools are not asked for.
    let mut second = Client::new(&core);
    let other = PoolsBody {
        nr_memsize: pools().nr_memsize,
        ..PoolsBody::default()
    };
    let (result, status, _) = register(&mut second, "vale0:1", other, Some(&fd));
    let body = result.unwrap();
    assert_eq!((status, body.nr_mem_id), (0, asked.nr_mem_id));
    assert_eq!(body.nr_offset, 1024);
    // And by its id alone.
    let mut third = Client::new(&core);
    let by_id = RegisterBody {
        nr_mem_id: asked.nr_mem_id,
        nr_tx_slots: 16,
        nr_rx_slots: 16,
        ..all()
    };
    let full = third.ask(NETMAP_REQ_REGISTER, "vale0:2", &by_id);
    assert_eq!(full.err(), Some(Errno::ENOMEM), "two interfaces are all");
}

#[test]
fn memory_that_cannot_be_used() {
    let core = core();
    let fd = object(pools().nr_memsize);
    let refused = |pools: PoolsBody, object: Option<&OwnedFd>, want: Errno| {
        let mut client = Client::new(&core);
        let (result, status, told) = register(&mut client, "vale0:0", pools, object);
        assert_eq!(result.err(), Some(want));
        assert_eq!(status, want as u32);
        assert_eq!(told.nro_info, pools, "nothing is told");
        assert!(client.control.registration().is_none());
    };
    refused(pools(), None, Errno::EOPNOTSUPP);
    let large = PoolsBody {
        nr_ring_pool_objsize: 1 << 20,
        ..pools()
    };
    refused(large, Some(&fd), Errno::ENOMEM);
    let empty = PoolsBody {
        nr_memsize: 0,
        ..pools()
    };
    refused(empty, Some(&fd), Errno::ENOMEM);
    let odd = PoolsBody {
        nr_ring_pool_objsize: 508,
        ..pools()
    };
    refused(odd, Some(&fd), Errno::EINVAL);
    let beyond = PoolsBody {
        nr_memsize: 1 << 30,
        ..pools()
    };
    refused(beyond, Some(&fd), Errno::EFAULT);
    let flags = MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC;
    let open = memfd_create(c"client", flags).unwrap();
    ftruncate(&open, 1 << 24).unwrap();
    refused(pools(), Some(&open), Errno::EINVAL);
    // Memory is there, but a ring's object is too small for the port.
    let small = PoolsBody {
        nr_ring_pool_objsize: 256,
        ..pools()
    };
    let mut client = Client::new(&core);
    let (result, status, _) = register(&mut client, "vale0:0", small, Some(&fd));
    assert_eq!((result.err(), status), (Some(Errno::ENOMEM), 0));
    assert_eq!(core.enumerate(0, 0), None);
}
